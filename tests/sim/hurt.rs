//! What befalls the files that say who a node is: its identity, the record of its cluster, its WAL and what
//! lies beside them. Within what SAFETY promises: of the WAL only what a later round has proven durable is
//! changed, and an older copy of it is put back only behind a clean stop (R12, R14, R17).

use std::ops::Range;
use std::path::{Path, PathBuf};

use riverrun_replication::founding;
use riverrun_storage::disk::Disk;
use riverrun_storage::disk::mem::CrashModel;
use riverrun_storage::node::{IDENTITY_FILE, LOCK_FILE, NODE_DIR, WAL_FILE};

use crate::host::{Flusher, data_dir};
use crate::world::World;

/// What a disk takes or loses at once.
const PAGE_BYTES: u64 = 512;

/// A file of a node's own.
fn own_file(name: &str) -> PathBuf {
    data_dir().join(NODE_DIR).join(name)
}

impl World {
    /// Something befalls one of the victim's own files.
    pub fn hurt_node_files(&mut self) {
        let victim = self.plan.victim;
        let Some(process) = self.process(victim) else {
            return;
        };
        let live = process.node.store().wal_live();
        match self.nemesis.rng.below(20) {
            0..=8 => {
                let proven = self.hosts.get(victim).map_or(0, |host| host.wal_tails[0]);
                let least = self.nemesis.rng.below(live.end - live.start + 1) + live.start;
                let bytes = if self.nemesis.rng.coin() {
                    1
                } else {
                    PAGE_BYTES
                };
                let positions = least..(least + bytes).min(proven);
                if !positions.is_empty() {
                    self.hurt_wal(victim, positions);
                }
            }
            9 | 10 => self.put_older_wal_back(victim),
            11 => self.hurt_file(victim, &own_file(WAL_FILE), Harm::Cut),
            12 => self.hurt_file(victim, &own_file(WAL_FILE), Harm::Head),
            13 | 14 => {
                let harm = self.some_harm();
                self.hurt_file(victim, &own_file(IDENTITY_FILE), harm);
            }
            15 => {
                let harm = self.some_harm();
                self.hurt_file(victim, &own_file(founding::FILE_NAME), harm);
            }
            16 => self.put_older_identity_back(victim),
            17 => self.hurt_side_file(victim),
            18 => self.lose_files(victim, &[IDENTITY_FILE]),
            _ => self.lose_files(victim, &[IDENTITY_FILE, founding::FILE_NAME, WAL_FILE]),
        }
    }

    /// The power is lost, and what is on the disk then is not what it was.
    fn goes_down_hurt(&mut self, node: usize) {
        self.summary.node_files_hurt += 1;
        self.lose_power(node);
        self.memory_lost(node);
        self.nemesis.is_damaged(node);
    }

    /// From now on the durable images are what is read.
    fn show_images(&self, node: usize) {
        if let Some(host) = self.hosts.get(node) {
            host.disk.crash(1, &CrashModel::KEEP_ALL);
        }
    }

    /// A part of the WAL is not what it was: one bit, or all of it.
    pub fn hurt_wal(&mut self, node: usize, positions: Range<u64>) {
        let store = self.process(node).map(|process| process.node.store());
        let places = store.map(|store| store.wal_places(positions.clone()));
        tracing::info!(node, ?positions, "the WAL is hurt");
        self.goes_down_hurt(node);
        let bit = 1 << self.nemesis.rng.below(8);
        let one = positions.end - positions.start == 1;
        self.change_file(node, &own_file(WAL_FILE), |image| {
            for (offset, bytes) in places.unwrap_or_default() {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                for byte in image.iter_mut().skip(from).take(bytes) {
                    *byte = if one { *byte ^ bit } else { 0 };
                }
            }
        });
    }

    fn change_file(&mut self, node: usize, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(host) = self.hosts.get(node)
            && let Some(mut image) = host.disk.durable_image(path)
        {
            change(&mut image);
            let _ = host.disk.put_durable_image(path, image);
        }
        self.show_images(node);
    }

    fn some_harm(&mut self) -> Harm {
        match self.nemesis.rng.below(4) {
            0 => Harm::Cut,
            1 => Harm::Page,
            2 => Harm::Gone,
            _ => Harm::Bit,
        }
    }

    /// A file of the node's own is not what it was.
    fn hurt_file(&mut self, node: usize, path: &Path, harm: Harm) {
        let draw = self.nemesis.rng.next();
        let bit = 1 << self.nemesis.rng.below(8);
        tracing::info!(node, path = %path.display(), ?harm, "a file is hurt");
        self.goes_down_hurt(node);
        if harm == Harm::Gone {
            let _ = self.hosts.get(node).map(|host| host.disk.lose_name(path));
            return self.show_images(node);
        }
        self.change_file(node, path, |image| {
            let within = |len: usize| usize::try_from(draw).unwrap_or(0) % len.max(1);
            match harm {
                Harm::Cut => image.truncate(within(image.len())),
                Harm::Page | Harm::Head => {
                    let page = usize::try_from(PAGE_BYTES).unwrap_or(1);
                    let pages = if harm == Harm::Head {
                        2
                    } else {
                        image.len().div_ceil(page)
                    };
                    let from = within(pages) * page;
                    image
                        .iter_mut()
                        .skip(from)
                        .take(page)
                        .for_each(|at| *at = 0);
                }
                Harm::Bit | Harm::Gone => {
                    let at = within(image.len());
                    image.iter_mut().skip(at).take(1).for_each(|at| *at ^= bit);
                }
            }
        });
    }

    /// One of the files beside the WAL that hold entries of logs that cannot be synced.
    fn hurt_side_file(&mut self, node: usize) {
        let of_itself = [LOCK_FILE, WAL_FILE, IDENTITY_FILE, founding::FILE_NAME];
        let entries = self.hosts.get(node).map(|host| host.disk.clone());
        let entries = entries.and_then(|disk| disk.read_dir(&data_dir().join(NODE_DIR)).ok());
        let names = entries.unwrap_or_default().into_iter();
        let mut side = names.filter(|entry| !of_itself.contains(&entry.name.as_str()));
        if let Some(entry) = side.next() {
            let harm = self.some_harm();
            self.hurt_file(node, &own_file(&entry.name), harm);
        }
    }

    /// Some of the files are gone.
    fn lose_files(&mut self, node: usize, names: &[&str]) {
        self.goes_down_hurt(node);
        if let Some(host) = self.hosts.get(node) {
            for name in names {
                let _ = host.disk.lose_name(&own_file(name));
            }
        }
        self.show_images(node);
    }

    /// The identity as it was once, which is copied first.
    fn put_older_identity_back(&mut self, node: usize) {
        let path = own_file(IDENTITY_FILE);
        if let Some(copy) = self.copy_of(node, &path) {
            self.goes_down_hurt(node);
            self.change_file(node, &path, |image| *image = copy);
        }
    }

    /// The WAL as it was once, which is copied first, beside what a clean stop has left.
    fn put_older_wal_back(&mut self, node: usize) {
        let Some(process) = self.process(node) else {
            return;
        };
        let at_rest = matches!(process.flusher, Flusher::Idle)
            && process.lanes.values().all(|lane| lane.is_empty());
        if !at_rest || self.is_refused(node) {
            return;
        }
        let path = own_file(WAL_FILE);
        let Some(copy) = self.copy_of(node, &path) else {
            return;
        };
        let stopped = self.process(node).map(|process| process.node.close());
        if self.is_blown(node) {
            return self.crash_inside(node);
        }
        let is_clean = matches!(stopped, Some(Ok(())));
        tracing::info!(node, is_clean, "stopped to have its WAL exchanged");
        self.look_at_all(node);
        self.kill(node);
        if is_clean {
            self.summary.node_files_hurt += 1;
            self.memory_lost(node);
            self.nemesis.is_damaged(node);
            self.change_file(node, &path, |image| *image = copy);
        }
    }

    /// An older copy of a file; where there is none, one is made.
    fn copy_of(&mut self, node: usize, path: &Path) -> Option<Vec<u8>> {
        let host = self.hosts.get_mut(node)?;
        let found = host.older.remove(path);
        if found.is_none()
            && let Some(image) = host.disk.durable_image(path)
        {
            host.older.insert(path.to_owned(), image);
        }
        found
    }
}

/// What befalls a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// A bit flips.
    Bit,
    /// A page holds zeros.
    Page,
    /// The same, of those that the file begins with.
    Head,
    /// It is cut short.
    Cut,
    /// It is gone.
    Gone,
}
