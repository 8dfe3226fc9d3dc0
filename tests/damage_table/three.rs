//! One of three replicas: the whole simulated cluster goes on, the damaged node is started again, and all
//! that was acknowledged has to be on all three at the end.

use riverrun_sim::clock::SECOND;
use riverrun_sim::host::data_dir;
use riverrun_sim::world::World;
use riverrun_storage::disk::mem::MemDisk;
use riverrun_storage::node::Retirement;

use crate::alone::{refused, tried};
use crate::base::{Lived, live, stop};
use crate::damage::cells::{KINDS, Kind};
use crate::damage::{Cell, Damage, Outcome, Refused, Replicas, inflict, lost_bytes};
use crate::files::OnDisk;

/// The node that is damaged.
const VICTIM: usize = 1;
/// Another one.
const OTHER: usize = 2;

/// What comes of a cell.
pub(crate) fn see(cell: &Cell, spot: u32) -> (Outcome, String) {
    let Lived { mut world, older } = live(3, VICTIM, cell.file.is_of_killed());
    let disk = world.hosts[VICTIM].disk.clone();
    let mut files = OnDisk(&disk);
    let Some(struck) = inflict(cell, spot, &mut files, &older) else {
        return (Outcome::Nothing, String::new());
    };
    files.settle();
    world.nemesis.is_damaged(VICTIM);
    let mut outcome = Outcome::Healed;
    let mut said = struck.what.clone();
    match first_start(&world, &disk) {
        Ok(more) => said = format!("{said}: {}", more.join("; ")),
        Err((error, changed)) => {
            let (seen, why) = refused(&struck, &error);
            said = format!("{said}: {why}");
            if seen == Outcome::Wrong || !changed.is_empty() {
                return (Outcome::Wrong, format!("{}; {said}", changed.join(", ")));
            }
            set_aside(&mut world, &disk);
            outcome = Outcome::SetAside;
        }
    }
    let (summary, lost) = (world.summary, world.summary.disks_lost);
    match settle(&mut world) {
        Err(why) => (Outcome::Wrong, format!("{said}: {why}")),
        Ok(()) => {
            let mended = world.summary.entries_mended - summary.entries_mended;
            let replaced = world.summary.replicas_replaced - summary.replicas_replaced;
            if world.summary.disks_lost > lost {
                outcome = Outcome::SetAside;
            }
            (
                outcome,
                format!("{said}; {mended} entries mended, {replaced} replicas replaced"),
            )
        }
    }
}

/// Different batches of every log are bad on two of three.
pub(crate) fn see_two_of_three() -> (Outcome, String) {
    let Lived { mut world, .. } = live(3, VICTIM, false);
    stop(&mut world, OTHER);
    let mut said = Vec::new();
    for (node, spot) in [(VICTIM, 1), (OTHER, 2)] {
        let disk = world.hosts[node].disk.clone();
        let mut files = OnDisk(&disk);
        files.settle();
        for file in KINDS.iter().filter(|kind| is_log(kind)) {
            let cell = Cell {
                file,
                damage: Damage::Bit,
                replicas: Replicas::Three,
            };
            let struck = inflict(&cell, spot, &mut files, &[]).unwrap();
            said.push(format!("node {node}: {:?} {}", struck.paths, struck.what));
        }
        files.settle();
        world.nemesis.is_damaged(node);
    }
    match settle(&mut world) {
        Err(why) => (Outcome::Wrong, format!("{}: {why}", said.join(", "))),
        Ok(()) => (Outcome::Healed, said.join(", ")),
    }
}

fn is_log(kind: &Kind) -> bool {
    ["sealed .log", "active .log"].contains(&kind.name)
}

/// A copy of the damaged disk is opened: what is said of it, or why that is refused and what was changed.
fn first_start(world: &World, disk: &MemDisk) -> Result<Vec<String>, (String, Vec<String>)> {
    let copy = MemDisk::new();
    copy.restore(&disk.snapshot());
    let before = OnDisk(&copy).image();
    let boots = world.hosts[VICTIM].boots;
    tried(&world.plan, boots, VICTIM, &copy).map_err(|error| {
        OnDisk(&copy).settle();
        let all = Refused {
            node: true,
            ..Refused::default()
        };
        (error, lost_bytes(&before, &OnDisk(&copy).image(), &all))
    })
}

/// The operator sets the directory aside; the node's next start finds an empty one.
fn set_aside(world: &mut World, disk: &MemDisk) {
    let plan = Retirement::plan(disk, &data_dir()).unwrap().unwrap();
    plan.carry_out(disk).unwrap();
    drop(plan);
    let host = &mut world.hosts[VICTIM];
    host.directories += 1;
    host.cluster = None;
}

/// Lets the cluster come to rest, and compares all that it has.
fn settle(world: &mut World) -> Result<(), String> {
    world.plan.fault_us = world.clock.now_us() - SECOND + SECOND / 2;
    world.run_until_over();
    match world.violation.take() {
        None => Ok(()),
        Some(violation) => Err(format!("{violation:?}")),
    }
}
