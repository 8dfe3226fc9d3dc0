//! Stories of bytes that are bad where it matters: the creation of a replica in the WAL (R12), the records of a
//! single batch (R6).

use std::collections::BTreeMap;
use std::path::PathBuf;

use riverrun_replication::node::directory_name;
use riverrun_storage::OpenMode;
use riverrun_storage::disk::Disk;
use riverrun_storage::disk::mem::CrashModel;
use riverrun_storage::node::survey;
use riverrun_storage::planted::{self, Bug};

use crate::host::data_dir;
use crate::invariants::Violation;
use crate::plan::Fault;
use crate::story::{Step, Story};
use crate::world::{CONTROLLER, World};

/// A log with a bad batch above the commit index that the WAL has stored is not opened: what is above it has to
/// be in memory. Where the others are a majority without it the replica is replaced.
const MARS_ABOVE_COMMIT: bool = false;
/// Bytes of a batch before its records.
const BATCH_HEADER_BYTES: usize = 61;

impl World {
    /// A replica votes. Where nothing is in its log yet, all that it has promised hangs on the WAL.
    pub fn voted(&mut self, node: usize, group: u64, is_empty: bool) {
        let tells = self.plan.stories.contains(&Story::CreationIsLost);
        if tells && node == self.plan.victim && group != CONTROLLER && is_empty && !self.calm {
            self.step_after(0, Step::LoseCreation, node, group);
        }
    }

    /// The WAL has lost the creation of a replica when its node is started again.
    pub fn lose_creation(&mut self, node: usize, group: u64) {
        let Some(process) = self.process(node) else {
            return;
        };
        let created = self
            .hosts
            .get(node)
            .and_then(|host| host.created.get(&group));
        let live = process.node.store().wal_live();
        let Some(created) = created.cloned().filter(|created| {
            // Behind it lies a round that was begun when it was durable.
            live.start <= created.start && created.end < live.end
        }) else {
            return;
        };
        self.hurt_wal(node, created);
        self.start_soon(node);
    }

    /// A replica is lost with its record in the WAL, and its node dies the moment that it hears of the
    /// successor.
    pub fn away_when_replaced(&mut self, group: u64, leader: usize) {
        let victim = self.plan.victim;
        if leader == victim || !self.is_settled(group) {
            return;
        }
        self.stories.kills_when_replaced = Some((victim, group));
        self.lose_creation(victim, group);
    }

    /// A node has applied an order that gives a replica of a group a successor.
    pub fn heard_of_successor(&mut self, node: usize, group: u64) {
        if self.stories.kills_when_replaced == Some((node, group)) {
            self.stories.kills_when_replaced = None;
            self.step_after(0, Step::KillAndStart, node, group);
        }
    }

    /// Bits flip in the records of a batch of the victim's, or of one more replica's, too; headers and indexes are
    /// as they were. A third replica that loses nothing holds all of them.
    pub fn mar_batches(&mut self, group: u64, leader: usize) {
        let victim = self.plan.victim;
        let others = if leader == victim {
            self.others(group, victim)
        } else {
            let mut others = self.others(group, leader);
            others.retain(|node| *node != victim);
            others.insert(self.stories.rng.index(2).min(others.len()), leader);
            others
        };
        let [whole, other, ..] = others.as_slice() else {
            return;
        };
        let (whole, other) = (*whole, *other);
        let serves = |node: usize| {
            let process = self.process(node);
            process.is_some_and(|process| process.partition(group).is_some())
        };
        // Who is not in service may have bad bytes of an earlier story.
        if ![victim, whole, other].into_iter().all(serves) {
            return;
        }
        let both = self.stories.rng.coin() && !self.plan.has(Fault::DropHead);
        let handle = self
            .process(whole)
            .and_then(|process| process.node.handle(group));
        let held = handle.map_or(0, |handle| self.held(group, handle.replica()));
        self.mar_a_batch(victim, group, held);
        if both {
            self.mar_a_batch(other, group, held);
        }
    }

    /// The directory of a node's replica of a group, where it has one.
    pub(crate) fn dir_of(&self, node: usize, group: u64) -> Option<PathBuf> {
        let identity = self.process(node)?.node.identity_of(group)?;
        Some(data_dir().join(directory_name(&identity)))
    }

    /// A bit flips in the records of a batch, which lies at or below an index.
    fn mar_a_batch(&mut self, victim: usize, group: u64, held: u64) {
        let (Some(dir), Some(host)) = (self.dir_of(victim, group), self.hosts.get(victim)) else {
            return;
        };
        // What of it is committed and stored as such is looked at below.
        let durable = host.disk.durable_files();
        let is_log = |path: &PathBuf| {
            path.parent() == Some(dir.as_path())
                && path.extension().is_some_and(|extension| extension == "log")
        };
        let logs: Vec<PathBuf> = durable
            .into_iter()
            .filter(|(path, len)| is_log(path) && *len > 0)
            .map(|(path, _)| path)
            .collect();
        let at = self.stories.rng.index(logs.len());
        let Some(path) = logs.get(at) else {
            return;
        };
        let views = self.process(victim).map(|process| &process.views);
        let index_of: BTreeMap<i64, u64> = views
            .and_then(|views| views.get(&group))
            .map(|view| {
                view.marks()
                    .map(|mark| (mark.base_offset, mark.index))
                    .collect()
            })
            .unwrap_or_default();
        // The page cache is written back: the records in the sidecar, which data does not sync, are there.
        self.look_at_all(victim);
        self.kill(victim);
        let draw = self.stories.rng.next();
        let Some(host) = self.hosts.get(victim) else {
            return;
        };
        host.disk.crash(1, &CrashModel::KEEP_ALL);
        let said = survey(&host.disk, &data_dir()).ok();
        let commit = said.and_then(|said| Some(said.groups.get(&group)?.hard_state.commit));
        let most = if MARS_ABOVE_COMMIT {
            u64::MAX
        } else {
            commit.unwrap_or(0)
        };
        let most = most.min(held);
        if let Some(image) = host.disk.durable_image(path) {
            let mut batches = batches_of(&image);
            let is_below = |at: usize| {
                let offset = image.get(at..).and_then(|batch| batch.first_chunk::<8>());
                let offset = offset.map(|offset| i64::from_be_bytes(*offset));
                offset
                    .and_then(|offset| index_of.get(&offset))
                    .is_some_and(|index| *index <= most)
            };
            batches.retain(|(from, _)| is_below(*from));
            let pick = usize::try_from(draw >> 16).unwrap_or(0);
            if let Some((from, to)) = batches.get(pick % batches.len().max(1)) {
                let records = from + BATCH_HEADER_BYTES;
                let at = records + pick % (to - records).max(1);
                let bit = u8::try_from(draw % 8).unwrap_or(0);
                let flipped = host.disk.flip_bit(path, at as u64, bit);
                self.summary.bits_flipped += u64::from(flipped);
                self.nemesis.is_marred(victim);
            }
        }
        if let Some(host) = self.hosts.get(victim) {
            host.disk.crash(1, &CrashModel::KEEP_ALL);
        }
        self.start_soon(victim);
    }

    /// What a creation finds in its way: how many directories of that name are aside, where files with
    /// records lie under the name itself.
    pub fn in_the_way(&mut self, node: usize, name: &str) -> Option<usize> {
        let dir = data_dir().join(name);
        let disk = self.hosts.get(node)?.disk.clone();
        let has_records = self.unrefused(node, |_| {
            let files = disk.read_dir(&dir).unwrap_or_default();
            let mut logs = files.iter().filter(|file| file.name.ends_with(".log"));
            logs.any(|file| {
                let opened = disk.open(&dir.join(&file.name), OpenMode::ReadOnly);
                opened.and_then(|file| file.len()).is_ok_and(|len| len > 0)
            })
        });
        has_records.then(|| self.asides_of(node, name))
    }

    fn asides_of(&mut self, node: usize, name: &str) -> usize {
        let asides = self.unrefused(node, |world| {
            let process = world.process(node);
            process.and_then(|process| process.node.asides().ok())
        });
        let asides = asides.unwrap_or_default().into_iter();
        asides.filter(|aside| aside.name.starts_with(name)).count()
    }

    /// A creation has succeeded: what lay in its way is aside.
    pub fn nothing_vanished(&mut self, node: usize, name: &str, before: Option<usize>) {
        if planted::is(Bug::R3) {
            return;
        }
        if before.is_some_and(|before| self.asides_of(node, name) == before) {
            let detail = format!("node {node} has created a replica over the records in {name}");
            let name = "nothing_is_deleted_unproven";
            self.check(Err(Violation::new(name, detail)));
        }
    }
}

/// Where the batches of a file begin and end.
fn batches_of(image: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(len) = image
        .get(from + 8..from + 12)
        .and_then(|len| len.first_chunk::<4>())
    {
        let to = from + 12 + usize::try_from(u32::from_be_bytes(*len)).unwrap_or(0);
        if to > image.len() || to <= from + BATCH_HEADER_BYTES {
            break;
        }
        found.push((from, to));
        from = to;
    }
    found
}
