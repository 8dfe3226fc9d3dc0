//! The only replica: production code opens the damaged directory as a start does, leads what it can, and all
//! that was acknowledged is asked for.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use riverrun_record::BatchView;
use riverrun_replication::controller::{Controller, Found};
use riverrun_replication::founding::Known;
use riverrun_replication::message::PeerMessage;
use riverrun_replication::node::{NodeSettings, OpenError, directory_name};
use riverrun_replication::runtime::{Host, OpenReport, Runtime};
use riverrun_replication::{
    CommittedBatch, GroupConfig, PartitionHandle, ProduceError, ProduceOutcome, Published, Role,
    Ticket, Word,
};
use riverrun_sim::Plan;
use riverrun_sim::boot::{node_id, settings_of};
use riverrun_sim::host::data_dir;
use riverrun_sim::world::{CONTROLLER, World};
use riverrun_storage::disk::mem::{CrashModel, MemDisk, MemSnapshot};
use riverrun_storage::node::NodeConfig;
use riverrun_storage::{LogError, LogIdentity};
use uuid::Uuid;

use crate::base::{Lived, live};
use crate::damage::{Cell, Image, Outcome, Refused, Struck, inflict, lost_bytes};
use crate::files::OnDisk;

/// Ticks within which a group of one voter leads.
const TICKS: usize = 100;

/// What a start reads of the controller's state.
#[derive(Debug, Default)]
struct State(Mutex<Controller>);

impl Host for State {
    fn produced(&self, _: Ticket, _: ProduceOutcome) {}
    fn confirmed(&self, _: Ticket, _: Result<Published, ProduceError>) {}
    fn word(&self, _: Ticket, _: Result<Word, ProduceError>) {}
    fn advanced(&self, _: &PartitionHandle) {}
    fn led(&self, _: &PartitionHandle) {}
    fn restored(&self, found: Found) {
        *self.0.lock() = found.controller;
    }
    fn committed(&self, batch: CommittedBatch) {
        let mut controller = self.0.lock();
        let offset = BatchView::parse(&batch.batch).unwrap().base_offset();
        if offset >= controller.image().next_offset {
            controller.apply_batch(&batch.batch).unwrap();
        }
    }
    fn flush_wanted(&self) {}
    fn run_later(&self, _: usize) {}
    fn write_later(&self, _: u64) {}
    fn now(&self) -> Duration {
        Duration::ZERO
    }
    fn send(&self, _: PeerMessage) {}
    fn fenced(&self, _: u64, _: &str) {}
    fn contradicted(&self, _: u64) {}
    fn turn_panicked(&self) {}
}

/// A replica of which everything is known.
struct Partition {
    group: u64,
    /// Its directory.
    dir: String,
    /// Where its log begins.
    start: i64,
    /// The offset and the checksum of every batch that was acknowledged.
    acknowledged: Vec<(i64, u32)>,
}

/// A stopped node with the only replicas, and all that was promised of them.
pub(crate) struct Base {
    plan: Plan,
    boots: u64,
    disk: MemSnapshot,
    older: Vec<Image>,
    partitions: Vec<Partition>,
    controller: Controller,
}

/// What a start made of the directory.
struct Started {
    runtime: Runtime<State>,
    report: OpenReport,
}

impl Base {
    pub(crate) fn build(kills: bool) -> Self {
        let Lived { world, older } = live(1, 0, kills);
        let before = MemDisk::new();
        before.restore(&world.hosts[0].disk.snapshot());
        let mut base = Self {
            plan: world.plan.clone(),
            boots: world.hosts[0].boots,
            disk: before.snapshot(),
            older,
            partitions: Vec::new(),
            controller: Controller::new(),
        };
        let started = start(&base.plan, base.boots, 0, &before).unwrap();
        lead(&started);
        base.controller = started.runtime.host().0.lock().clone();
        base.partitions = acknowledged(&world, &started);
        base
    }

    /// What comes of a cell.
    pub(crate) fn see(&self, cell: &Cell, spot: u32) -> (Outcome, String) {
        let disk = MemDisk::new();
        disk.restore(&self.disk);
        let mut files = OnDisk(&disk);
        let Some(struck) = inflict(cell, spot, &mut files, &self.older) else {
            return (Outcome::Nothing, String::new());
        };
        files.settle();
        let before = files.image();
        let seen = catch_unwind(AssertUnwindSafe(|| self.look(&disk, &struck)));
        let (outcome, why, refused) = match seen {
            Ok(seen) => seen,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let what = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                (
                    Outcome::Wrong,
                    format!("it panicked: {what:?}"),
                    Refused::default(),
                )
            }
        };
        let why = format!("{}: {why}", struck.what);
        disk.crash(1, &CrashModel::KEEP_ALL);
        let lost = lost_bytes(&before, &OnDisk(&disk).image(), &refused);
        if outcome != Outcome::Wrong && !lost.is_empty() {
            return (Outcome::Wrong, format!("{}; {why}", lost.join(", ")));
        }
        (outcome, why)
    }

    fn look(&self, disk: &MemDisk, struck: &Struck) -> (Outcome, String, Refused) {
        let started = match start(&self.plan, self.boots, 0, disk) {
            Ok(started) => started,
            Err(error) => {
                let (outcome, why) = refused(struck, &error.to_string());
                let node = Refused {
                    node: true,
                    ..Refused::default()
                };
                return (outcome, why, node);
            }
        };
        lead(&started);
        let mut wrong = Vec::new();
        let mut outcome = Outcome::Whole;
        let mut said = Vec::new();
        let mut closed = Refused::default();
        for unopened in &started.report.unopened {
            said.push(format!("{:?}: {}", unopened.standing, unopened.why));
            closed
                .directories
                .push(directory_name(&unopened.identity).into());
        }
        if let Some(damage) = &started.report.wal_damage {
            said.push(format!("the WAL is damaged: {damage:?}"));
        }
        for partition in &self.partitions {
            let (seen, why) = ask(&started, partition);
            said.extend(why.clone());
            let is_struck = struck
                .paths
                .iter()
                .any(|path| path.starts_with(&partition.dir) || path.starts_with("node"));
            if seen != Outcome::Whole && !is_struck || seen == Outcome::Wrong {
                wrong.push(format!("group {}: {seen:?} {why:?}", partition.group));
            }
            outcome = outcome.max(seen);
        }
        let has_orders = started.runtime.handle(CONTROLLER).is_some();
        if !has_orders {
            outcome = outcome.max(Outcome::Orders);
        } else if *started.runtime.host().0.lock() != self.controller {
            wrong.push("the cluster's state is another one".to_owned());
        }
        if outcome != Outcome::Whole && said.is_empty() {
            wrong.push("nothing is said of it".to_owned());
        }
        let said = said.join("; ");
        if wrong.is_empty() {
            return (outcome, said, closed);
        }
        let why = format!("{} ({said})", wrong.join("; "));
        (Outcome::Wrong, why, closed)
    }
}

/// A refusal names the file, and the byte where there are any.
pub(crate) fn refused(struck: &Struck, error: &str) -> (Outcome, String) {
    let named = struck.paths.iter().any(|path| {
        let path = data_dir().join(path);
        error.contains(&*path.to_string_lossy())
    });
    // Of what is not there, or of a later format, there is no byte to be named.
    let says_where = [" byte ", " is missing", " has format version "];
    if named && says_where.iter().any(|words| error.contains(words)) {
        (Outcome::Node, error.to_owned())
    } else {
        let why = format!("the file and its byte are not named: {error}");
        (Outcome::Wrong, why)
    }
}

/// Opens a directory as the server does.
fn start(plan: &Plan, boots: u64, node: usize, disk: &MemDisk) -> Result<Started, OpenError> {
    let settings = node_settings(plan, boots, node);
    let of_group = |identity: &LogIdentity| settings_of(plan, identity.topic_id);
    Known::read(disk, &data_dir()).map_err(|source| OpenError::Io {
        what: "read node/cluster, the record of the cluster",
        source,
    })?;
    let host = Arc::new(State::default());
    let (runtime, report) = Runtime::open(disk.shared(), &data_dir(), settings, of_group, host)?;
    Ok(Started { runtime, report })
}

/// What a start makes of a directory: what it says of it, or why it refuses.
pub(crate) fn tried(
    plan: &Plan,
    boots: u64,
    node: usize,
    disk: &MemDisk,
) -> Result<Vec<String>, String> {
    let started = start(plan, boots, node, disk).map_err(|error| error.to_string())?;
    let unopened = started.report.unopened.iter();
    let unopened = unopened.map(|of| format!("{}: {}", of.standing, of.why));
    let damage = started.report.wal_damage.iter();
    let damage = damage.map(|damage| format!("the WAL is damaged: {damage:?}"));
    Ok(unopened.chain(damage).collect())
}

fn node_settings(plan: &Plan, boots: u64, node: usize) -> NodeSettings {
    NodeSettings {
        node_id: node_id(node),
        kernel_boot_id: format!("boot-{boots}"),
        new_directory_id: Uuid::from_u128(0xd1),
        start_token: 99,
        store: NodeConfig {
            wal_bytes: plan.wal_bytes,
            small_round_max_bytes: plan.small_round_max_bytes,
            many_files_max_bytes: plan.small_round_max_bytes * 2,
            flush_threads: 0,
            ..NodeConfig::default()
        },
        group: GroupConfig {
            seed: plan.seed,
            ..GroupConfig::default()
        },
        shards: 1,
        most_replicas: usize::MAX,
    }
}

/// Lets time pass until every group that is open is led.
fn lead(started: &Started) {
    let runtime = &started.runtime;
    runtime.run_all();
    for _ in 0..TICKS {
        runtime.tick();
        runtime.run_all();
        while runtime.flush_once().unwrap() {
            runtime.run_all();
        }
        let ready = |handle: &PartitionHandle| {
            let published = handle.published();
            published.role == Role::Leader && published.ready || published.role == Role::Fenced
        };
        if runtime.handles().iter().all(ready) {
            return;
        }
    }
}

/// What the world has promised of each partition.
fn acknowledged(world: &World, started: &Started) -> Vec<Partition> {
    let groups = world.groups.keys().copied();
    let partitions = groups.map(|group| {
        let handle = started.runtime.handle(group).unwrap();
        let start = handle.published().log_start_offset;
        let log = world.invariants.committed.log(group).unwrap();
        let acked: BTreeMap<i64, u32> = world
            .history
            .batches()
            .filter(|(_, batch)| batch.group == group)
            .filter_map(|(_, batch)| Some(batch.acked?.0))
            .filter(|offset| *offset >= start)
            .map(|offset| (offset, log.at_offset(offset).unwrap().crc))
            .collect();
        assert!(start > 0, "a head was dropped");
        assert!(acked.len() > 50, "group {group}: {}", acked.len());
        Partition {
            group,
            dir: format!("{}-0", handle.topic_id().simple()),
            start,
            acknowledged: acked.into_iter().collect(),
        }
    });
    partitions.collect()
}

/// Asks for everything that was acknowledged.
fn ask(started: &Started, partition: &Partition) -> (Outcome, Option<String>) {
    let Some(handle) = started.runtime.handle(partition.group) else {
        let unopened = started.runtime.node().unopened_of(partition.group);
        let damage = started.report.wal_damage.as_ref();
        // What the controller has ordered, and the WAL does not know any more, is noted as lost then (R12).
        let lost = damage.map(|damage| format!("its records are gone: {damage:?}"));
        return match unopened.map(|of| of.why).or(lost) {
            Some(why) => (Outcome::Partition, Some(why)),
            None => (Outcome::Wrong, Some("nobody knows of it".to_owned())),
        };
    };
    let published = handle.published();
    if published.role != Role::Leader || !published.ready {
        let why = format!("it is open and not led: {published:?}");
        return (Outcome::Wrong, Some(why));
    }
    let end = published.high_watermark;
    let mut bad = None;
    for (offset, crc) in &partition.acknowledged {
        let fetched = match handle.reader().fetch(*offset, end, 1, true) {
            Ok(fetched) => fetched,
            Err(error @ LogError::BadBatch { .. }) => {
                bad.get_or_insert(error.to_string());
                continue;
            }
            Err(error) => {
                let why = format!("offset {offset} of {} to {end}: {error}", partition.start);
                return (Outcome::Wrong, Some(why));
            }
        };
        let bytes = fetched.batches.first().cloned().unwrap_or_default();
        let same = BatchView::parse(&bytes).is_ok_and(|batch| {
            batch.base_offset() == *offset && batch.crc() == *crc && batch.crc_is_valid()
        });
        if !same {
            let why = format!(
                "offset {offset} of {} to {end} is not what was written",
                partition.start
            );
            return (Outcome::Wrong, Some(why));
        }
    }
    match bad {
        Some(why) => (Outcome::Range, Some(why)),
        None => (Outcome::Whole, None),
    }
}
