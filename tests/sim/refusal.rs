//! A disk, or the machine around it, that does not answer for a while: no descriptors, no room for another
//! file, a directory that gives I/O errors. Nothing on the disk is harmed, so whatever a node makes of it,
//! nobody may be replaced for it, and when it has passed all is well again (R16).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use riverrun_storage::disk::Disk;
use riverrun_storage::disk::mem::{MemDisk, Operation, Times};

use crate::clock::{MS, SECOND};
use crate::host::data_dir;
use crate::world::World;

/// More files than a node ever has open.
const EMFILE: i32 = 24;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What is refused, and until when.
#[derive(Debug, Clone)]
pub struct Refusal {
    operations: &'static [Operation],
    errno: i32,
    /// Everything below here.
    under: PathBuf,
    /// So many calls pass before the first one is refused, after each start.
    passes: i64,
    until_us: u64,
    on: Arc<AtomicBool>,
}

impl Refusal {
    /// Lies in wait on a disk, on which no other fault is armed.
    pub fn arm(&self, disk: &MemDisk) {
        let left = Arc::new(AtomicI64::new(self.passes));
        for operation in self.operations {
            let (on, under, left) = (self.on.clone(), self.under.clone(), left.clone());
            let refuses = move |path: &Path| {
                on.load(Ordering::Relaxed)
                    && path.starts_with(&under)
                    && left.fetch_sub(1, Ordering::Relaxed) <= 0
            };
            disk.fail_with(*operation, Times::Always, self.errno, refuses);
        }
    }
}

impl World {
    /// The disks of some nodes, or of all, begin to refuse; most of these nodes are started in it.
    pub fn refuse(&mut self) {
        let nodes = self.plan.nodes;
        let all = self.nemesis.rng.chance(300);
        let first = self.nemesis.rng.index(nodes);
        let count = if all {
            nodes
        } else {
            1 + self.nemesis.rng.index(nodes)
        };
        let (operations, errno): (&'static [Operation], i32) = match self.nemesis.rng.below(5) {
            0 | 1 => (&[Operation::Open], EMFILE),
            2 => (&[Operation::Create, Operation::Reserve], ENOSPC),
            3 => (&[Operation::Open, Operation::Look], EIO),
            _ => (&[Operation::Read], EIO),
        };
        let least = self.nemesis.rng.between(500, 4000) * MS;
        for node in (first..first + count).map(|node| node % nodes) {
            let until_us = self.clock.now_us() + least + self.nemesis.rng.below(4 * SECOND);
            let under = if errno == EIO && self.nemesis.rng.coin() {
                self.some_directory(node)
            } else {
                data_dir()
            };
            let passes = if self.nemesis.rng.coin() {
                0
            } else {
                self.nemesis.rng.between(1, 60).cast_signed()
            };
            let refusal = Refusal {
                operations,
                errno,
                under,
                passes,
                until_us,
                on: Arc::new(AtomicBool::new(true)),
            };
            tracing::info!(now_us = self.clock.now_us(), node, ?refusal, "refuses");
            self.nemesis.refuses(node);
            self.summary.disks_refused += 1;
            if let Some(host) = self.hosts.get_mut(node) {
                if let Some(before) = host.refusal.take() {
                    before.on.store(false, Ordering::Relaxed);
                }
                refusal.arm(&host.disk);
                host.refusal = Some(refusal);
            }
            match self.nemesis.rng.below(10) {
                0..=4 if self.process(node).is_some() => self.kill(node),
                5 | 6 => self.lose_power(node),
                _ => {}
            }
        }
    }

    /// A directory of a node's, the one of the node's own files as likely as any other.
    fn some_directory(&mut self, node: usize) -> PathBuf {
        let entries = self.hosts.get(node).map(|host| host.disk.clone());
        let entries = entries.and_then(|disk| disk.read_dir(&data_dir()).ok());
        let dirs = entries.unwrap_or_default().into_iter();
        let dirs: Vec<String> = dirs
            .filter(|entry| entry.is_dir)
            .map(|entry| entry.name)
            .collect();
        let at = self.nemesis.rng.index(dirs.len());
        dirs.get(at)
            .map_or_else(data_dir, |name| data_dir().join(name))
    }

    /// Whether a node's disk refuses calls now.
    #[must_use]
    pub fn is_refused(&self, node: usize) -> bool {
        self.hosts
            .get(node)
            .is_some_and(|host| host.refusal.is_some())
    }

    /// Looks into files as the simulator does, who needs no descriptors.
    pub fn unrefused<T>(&mut self, node: usize, look: impl FnOnce(&mut Self) -> T) -> T {
        let refusal = self.hosts.get(node).and_then(|host| host.refusal.clone());
        let set = |on| {
            if let Some(refusal) = &refusal {
                refusal.on.store(on, Ordering::Relaxed);
            }
        };
        set(false);
        let seen = look(self);
        set(true);
        seen
    }

    /// What passes by itself has passed.
    pub fn end_refusals(&mut self) {
        let now = self.clock.now_us();
        for host in &mut self.hosts {
            let ends = |refusal: &mut Refusal| self.calm || refusal.until_us <= now;
            if let Some(refusal) = host.refusal.take_if(ends) {
                refusal.on.store(false, Ordering::Relaxed);
            }
        }
    }
}
