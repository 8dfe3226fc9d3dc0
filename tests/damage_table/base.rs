//! A cluster with two partitions that has lived long enough to have every kind of file.

use riverrun_replication::Ticket;
use riverrun_replication::conf::Change;
use riverrun_replication::shard::Input;
use riverrun_sim::clock::{MS, SECOND};
use riverrun_sim::host::Flusher;
use riverrun_sim::plan::{ClientPlan, DiskPlan, Fault, GroupPlan, NetworkPlan};
use riverrun_sim::world::{CONTROLLER, OPERATOR, World};
use riverrun_sim::{Options, Plan};
use riverrun_storage::disk::mem::CrashModel;

use crate::damage::Image;
use crate::files::OnDisk;

/// Two partitions on all nodes, and no faults but those that a cell makes.
fn plan(nodes: usize, victim: usize) -> Plan {
    let group = |segment_bytes| GroupPlan {
        voters: (0..nodes).collect(),
        learner: None,
        caching: false,
        segment_bytes,
        min_insync_replicas: 1,
    };
    let client = |group, batch_bytes| ClientPlan {
        group,
        idempotent: true,
        acks_all: true,
        window: 3,
        every_us: 20 * MS,
        max_records: 4,
        batch_bytes,
        retry_us: 300 * MS,
        deadline_us: 20 * SECOND,
        pipelined: false,
    };
    Plan {
        nodes,
        founders: nodes,
        start_within_us: 20 * MS,
        shards: 1,
        groups: vec![group(24 << 10), group(20 << 10)],
        clients: vec![client(0, (300, 900)), client(1, (200, 700))],
        wal_bytes: 192 << 10,
        small_round_max_bytes: 4 << 10,
        network: NetworkPlan {
            delay_us: (50, 500),
            loss_permille: 0,
            slow_permille: 0,
            slow_us: 0,
            reorder_permille: 0,
            duplicate_permille: 0,
        },
        disk: DiskPlan {
            flush_us: (100, 1000),
            slow_permille: 0,
            slow_us: MS,
            slow_write_permille: 0,
        },
        // It strikes never; but the victim minds what may have befallen its own files.
        faults: vec![(Fault::HurtNode, 1)],
        faults_from_us: 100_000 * SECOND,
        stories: Vec::new(),
        delete_every_us: None,
        changes: None,
        hand_over_every_us: None,
        down_us: 200 * MS,
        victim,
        skew_permille: 0,
        fault_us: 1000 * SECOND,
        settle_us: 60 * SECOND,
        ..Plan::of(7, &Options::default())
    }
}

/// Lets so much time pass.
pub(crate) fn pass(world: &mut World, for_us: u64) {
    let until = world.clock.now_us() + for_us;
    while world.clock.now_us() < until && world.violation.is_none() {
        world.step();
    }
    assert!(world.violation.is_none(), "{:?}", world.violation);
}

/// A node stops as it is asked to, and is started again a moment later if time passes.
pub(crate) fn stop(world: &mut World, node: usize) {
    let is_idle = |world: &World| {
        let process = world.process(node).unwrap();
        matches!(process.flusher, Flusher::Idle)
            && process.lanes.values().all(|lane| lane.is_empty())
    };
    while !is_idle(world) {
        world.step();
    }
    world.process(node).unwrap().node.close().unwrap();
    world.kill(node);
}

/// A cluster, and the stopped node's disk as it was before: long ago, and in its last life.
pub(crate) struct Lived {
    pub(crate) world: World,
    pub(crate) older: Vec<Image>,
}

/// Lets a cluster live, and stops the victim, or kills it.
pub(crate) fn live(nodes: usize, victim: usize, kills: bool) -> Lived {
    let mut world = World::new(plan(nodes, victim));
    pass(&mut world, 2500 * MS);
    change_members(&mut world);
    write_image(&mut world);
    pass(&mut world, 600 * MS);
    drop_heads(&mut world);
    pass(&mut world, 400 * MS);
    let mut older = vec![OnDisk(&world.hosts[victim].disk).image()];
    pass(&mut world, 1000 * MS);
    drop_heads(&mut world);
    change_members(&mut world);
    pass(&mut world, 300 * MS);
    // The WAL must not have what the files have.
    for _ in 0..2 {
        stop(&mut world, victim);
        pass(&mut world, 900 * MS);
        write_image(&mut world);
    }
    change_members(&mut world);
    pass(&mut world, 200 * MS);
    older.push(OnDisk(&world.hosts[victim].disk).image());
    pass(&mut world, 30 * MS);
    if kills {
        world.kill(victim);
    } else {
        stop(&mut world, victim);
    }
    world.hosts[victim].disk.crash(1, &CrashModel::KEEP_ALL);
    Lived { world, older }
}

/// Somebody adds a learner that does not exist to each partition; the image takes it out again.
fn change_members(world: &mut World) {
    let mut groups: Vec<u64> = world.groups.keys().copied().collect();
    if world.hosts.len() == 1 {
        // It stays in group 0, which takes nobody out whom its image does not know.
        groups.push(CONTROLLER);
    }
    for group in groups {
        let Some(leader) = world.leader_of(group) else {
            continue;
        };
        let ticket = Ticket {
            connection: OPERATOR,
            request: 0,
            slot: 0,
        };
        let changes = vec![Change::AddLearner(9_000 + group)];
        let change = Input::Change {
            group,
            ticket,
            changes,
        };
        world.inputs(leader, vec![(group, change)]);
    }
}

/// Every node writes an image of the cluster's state.
fn write_image(world: &mut World) {
    for node in 0..world.hosts.len() {
        let Some(process) = world.process(node) else {
            continue;
        };
        let handle = process.node.handle(CONTROLLER).unwrap();
        let last = process.controller.image().next_offset - 1;
        let term = handle.reader().epoch_of_offset(last).unwrap();
        let checkpoints = process.node.checkpoints();
        let term = u64::try_from(term).unwrap();
        checkpoints.write(&process.controller, term).unwrap();
    }
}

/// A third of each partition is dropped everywhere.
fn drop_heads(world: &mut World) {
    let groups: Vec<u64> = world.groups.keys().copied().collect();
    let nodes = 0..world.hosts.len();
    for (node, group) in nodes.flat_map(|node| groups.iter().map(move |group| (node, *group))) {
        let handle = world.process(node).unwrap().node.handle(group).unwrap();
        let (first, last) = (handle.reader().first_index(), handle.reader().last_index());
        let keep_from = first + (last - first) / 3;
        let input = Input::DropHead { group, keep_from };
        world.inputs(node, vec![(group, input)]);
    }
}
