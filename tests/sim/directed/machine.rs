//! One node: a disk that outlives its process, and the production code that runs on it.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use riverrun_replication::node::{Node, NodeSettings, OpenError, Opened};
use riverrun_replication::shard::{Effect, Input, Shard};
use riverrun_replication::{GroupConfig, GroupSettings};
use riverrun_sim::host::Fuse;
use riverrun_storage::disk::mem::{CrashModel, MemDisk};
use riverrun_storage::node::NodeConfig;
use riverrun_storage::{LogEntry, LogIdentity};
use uuid::Uuid;

/// Rounds with more data than this are bulk.
pub(super) const SMALL_ROUND_BYTES: u64 = 16 << 10;

/// A process that runs.
pub(super) struct Process {
    pub(super) node: Node,
    pub(super) shard: Shard,
    /// Writes that a hung disk has not carried out.
    lane: VecDeque<(u64, Vec<LogEntry>)>,
    /// Work for the flusher that came since its last round.
    wanted: usize,
}

/// A node, whether its process runs or not.
pub(super) struct Machine {
    id: u64,
    pub(super) disk: MemDisk,
    boots: u64,
    disks: u64,
    /// Starts of the process, whatever becomes of the disk.
    starts: u64,
    pub(super) process: Option<Process>,
    /// The disk takes no write and ends no flush.
    pub(super) hung: bool,
    /// Stops the machine in the middle of a call.
    fuse: Fuse,
    /// What a loss of power leaves of what was not synced.
    crash: (u64, CrashModel),
    /// Why the last start came to nothing, where the machine did not stop in it.
    pub(super) refusal: Option<OpenError>,
}

impl Machine {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            disk: MemDisk::new(),
            boots: 1,
            disks: 1,
            process: None,
            starts: 0,
            hung: false,
            fuse: Fuse::default(),
            crash: (1, CrashModel::LOSE_ALL),
            refusal: None,
        }
    }

    /// Starts the process; gives what opening found, or nothing where the machine stops in it.
    pub(super) fn open(
        &mut self,
        settings: impl Fn(&LogIdentity) -> GroupSettings,
    ) -> Option<Opened> {
        assert!(self.process.is_none(), "node {} runs", self.id);
        self.refusal = None;
        self.starts += 1;
        let node_settings = NodeSettings {
            node_id: i32::try_from(self.id).unwrap(),
            kernel_boot_id: format!("boot-{}", self.boots),
            start_token: self.starts,
            new_directory_id: Uuid::from_u128(u128::from((self.id << 32) + self.disks)),
            store: NodeConfig {
                wal_bytes: 1 << 20,
                small_round_max_bytes: SMALL_ROUND_BYTES,
                flush_threads: 0,
                ..NodeConfig::default()
            },
            group: GroupConfig {
                seed: self.id,
                ..GroupConfig::default()
            },
            shards: 1,
            most_replicas: usize::MAX,
        };
        let opened = Node::open(
            self.disk.shared(),
            Path::new("/data"),
            node_settings,
            settings,
        );
        if self.fuse.is_blown() {
            return None;
        }
        let (node, opened) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.refusal = Some(error);
                return None;
            }
        };
        self.process = Some(Process {
            node,
            shard: Shard::default(),
            lane: VecDeque::new(),
            wanted: 0,
        });
        Some(opened)
    }

    /// After so many more calls that change its disk the machine stops; then that much is left of
    /// what was not synced.
    pub(super) fn stop_after(&mut self, calls: u64, crash: (u64, CrashModel)) {
        self.crash = crash;
        self.fuse.arm(&self.disk, calls.cast_signed());
    }

    /// Whether the machine has stopped in the middle of a call.
    pub(super) fn has_stopped(&self) -> bool {
        self.fuse.is_blown()
    }

    pub(super) fn running(&mut self) -> &mut Process {
        let id = self.id;
        self.process
            .as_mut()
            .unwrap_or_else(|| panic!("node {id} does not run"))
    }

    /// The process is killed; what it wrote is in the page cache.
    pub(super) fn kill(&mut self) {
        self.process = None;
        self.disk.clear_faults();
        self.fuse = Fuse::default();
    }

    /// The power goes, and with it whatever was not synced, unless a test chose otherwise.
    pub(super) fn power_cut(&mut self) {
        self.kill();
        self.hung = false;
        let (seed, model) = self.crash;
        self.disk.crash(seed, &model);
        self.boots += 1;
    }

    /// The disk is replaced by an empty one, under the same node id.
    pub(super) fn replace_disk(&mut self) {
        self.kill();
        self.disk.wipe();
        self.boots += 1;
        self.forget_directory_id();
    }

    /// The next directory that this node founds gets an id of its own.
    pub(super) fn forget_directory_id(&mut self) {
        self.disks += 1;
    }

    /// One turn and the turns that its effects lead to at once. Effects for the outside are handed
    /// to `outside`.
    pub(super) fn turn(&mut self, mut inputs: Vec<Input>, outside: &mut impl FnMut(Effect)) {
        let hung = self.hung;
        let process = self.running();
        let mut effects = Vec::new();
        while !inputs.is_empty() {
            process
                .shard
                .turn(Duration::ZERO, std::mem::take(&mut inputs), &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Write { group, entries } if hung || !process.lane.is_empty() => {
                        process.lane.push_back((group, entries));
                    }
                    Effect::Write { group, entries } => {
                        inputs.extend(process.node.write(group, entries));
                    }
                    Effect::Flush(item) => {
                        process.wanted += 1;
                        process.node.want_flush(item);
                    }
                    Effect::Op { group, op } => {
                        process.wanted += 1;
                        process.node.want_op(group, op);
                    }
                    Effect::Fenced { group, .. } => {
                        process.node.fence(group);
                        outside(effect);
                    }
                    other => outside(other),
                }
            }
        }
    }

    /// Carries out the writes that a hung disk held back; gives the inputs that tell of them.
    pub(super) fn write_held(&mut self) -> Vec<Input> {
        let process = self.running();
        let writes = std::mem::take(&mut process.lane);
        writes
            .into_iter()
            .filter_map(|(group, entries)| process.node.write(group, entries))
            .collect()
    }

    /// Whether a group waits for the flusher.
    pub(super) fn wants_round(&mut self) -> bool {
        !self.hung && self.running().wanted > 0
    }

    /// Whether the flusher would find anything to do, for itself too.
    pub(super) fn wants_any(&mut self) -> bool {
        !self.hung && (self.running().wanted > 0 || self.running().node.wants())
    }

    /// One round of the flusher; gives the inputs that tell of it.
    pub(super) fn round(&mut self) -> Vec<Input> {
        assert!(!self.hung, "the disk of node {} hangs", self.id);
        let process = self.running();
        process.wanted = 0;
        let mut inputs = Vec::new();
        let mut writers = Vec::new();
        let flushed = process.node.flush_once(&mut inputs, &mut writers);
        if self.has_stopped() {
            return Vec::new();
        }
        flushed.unwrap();
        assert!(writers.is_empty(), "nobody but the turns writes here");
        inputs
    }
}
