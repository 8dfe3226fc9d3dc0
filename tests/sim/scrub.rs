//! Bits flip on the disk of a running node, in what nobody reads and the page cache still has; production code
//! scrubs every node's logs in its turns, and what it finds is put right with the entries of other replicas.

use std::path::PathBuf;
use std::time::Duration;

use riverrun_replication::scrub::{Replica, Scrub};
use riverrun_replication::{PartitionHandle, Role};

use crate::invariants::what_rots_is_put_right;
use crate::rng::Rng;
use crate::world::{CONTROLLER, World};

/// Everything is read once in this time.
const INTERVAL: Duration = Duration::from_secs(6);
/// Bytes that are looked at in one step.
const STEP_BYTES: u64 = 64 << 10;
/// Of a thousand looks at the world so many flip a bit, while nothing else is rotten.
const ROT_PERMILLE: u64 = 400;
/// One run of so many is one in which bits flip.
const RUNS: u64 = 8;

/// A bit that was flipped.
#[derive(Debug, Clone)]
struct Rotten {
    group: u64,
    path: PathBuf,
    offset: usize,
    byte: u8,
}

/// What rots in a run, and how far its nodes' scrubs are.
#[derive(Debug)]
pub struct Rot {
    rng: Rng,
    strikes: bool,
    rotten: Option<Rotten>,
    scrubs: Vec<(u64, Scrub)>,
}

impl Rot {
    /// None of it yet.
    #[must_use]
    pub fn new(seed: u64, nodes: usize) -> Self {
        let mut rng = Rng::stream(seed, "rot");
        Self {
            strikes: rng.below(RUNS) == 0,
            rng,
            rotten: None,
            scrubs: vec![(0, Scrub::new(INTERVAL)); nodes],
        }
    }
}

impl World {
    /// Rots, scrubs and mends, in the runs that are for it.
    pub fn scrub(&mut self) {
        if !self.rot.strikes {
            return;
        }
        self.rot_a_bit();
        for node in 0..self.hosts.len() {
            if self.is_up_and_about(node) {
                self.scrub_node(node);
            }
            if self.is_up_and_about(node) {
                self.mend_node(node);
            }
        }
    }

    fn is_up_and_about(&self, node: usize) -> bool {
        let now = self.clock.now_us();
        self.process(node).is_some()
            && self.hosts.get(node).is_some_and(|host| {
                host.paused_until_us <= now && host.hung_until_us <= now && host.waiting.is_empty()
            })
    }

    /// Flips a bit of what was durable two flush rounds ago, on the one node of a run that may be damaged.
    fn rot_a_bit(&mut self) {
        let victim = self.plan.victim;
        let still = self
            .rot
            .rotten
            .take()
            .filter(|rotten| self.is_rotten(rotten));
        if still.is_some() || self.calm || !self.rot.rng.chance(ROT_PERMILLE) {
            self.rot.rotten = still;
            return;
        }
        let groups: Vec<u64> = self.groups.keys().copied().chain([CONTROLLER]).collect();
        let Some(group) = self.rot.rng.pick(&groups) else {
            return;
        };
        if self.expected_members(group).len() < 2 {
            return;
        }
        let (Some(dir), Some(host)) = (self.dir_of(victim, group), self.hosts.get(victim)) else {
            return;
        };
        let [old, _] = &host.durable_lengths;
        let is_of_log = |path: &PathBuf| {
            let ends = path.extension().and_then(|end| end.to_str());
            path.parent() == Some(&dir)
                && ends.is_some_and(|end| ["log", "raft", "aux"].contains(&end))
        };
        let files: Vec<(PathBuf, u64)> = old
            .iter()
            .filter(|(path, len)| **len > 0 && is_of_log(path))
            .map(|(path, len)| (path.clone(), *len))
            .collect();
        let Some((path, len)) = files.get(self.rot.rng.index(files.len())).cloned() else {
            return;
        };
        let offset = self.rot.rng.below(len);
        let bit = u8::try_from(self.rot.rng.below(8)).unwrap_or(0);
        if !host.disk.flip_bit(&path, offset, bit) {
            return;
        }
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let image = host.disk.durable_image(&path).unwrap_or_default();
        self.rot.rotten = image.get(at).map(|byte| Rotten {
            group,
            path,
            offset: at,
            byte: *byte,
        });
        self.summary.bits_rotted += 1;
        // Where it stops before anybody has looked, it starts with a flipped bit like any other.
        self.memory_lost(victim);
        self.nemesis.is_damaged(victim);
    }

    /// Whether a bit is still as it was flipped, in a log that is in service.
    fn is_rotten(&self, rotten: &Rotten) -> bool {
        let victim = self.plan.victim;
        let image = self
            .hosts
            .get(victim)
            .and_then(|host| host.disk.durable_image(&rotten.path));
        let byte = image.and_then(|image| image.get(rotten.offset).copied());
        let serves = self.process(victim).is_none_or(|process| {
            let handle = process.node.handle(rotten.group);
            !process.contradicted.contains(&rotten.group)
                && handle.is_some_and(|handle| handle.published().role != Role::Fenced)
        });
        serves && byte == Some(rotten.byte)
    }

    fn scrub_node(&mut self, node: usize) {
        let now = Duration::from_micros(self.clock.now_us());
        let Some(process) = self.process(node) else {
            return;
        };
        let handles: Vec<PartitionHandle> = process
            .views
            .keys()
            .filter(|group| !process.contradicted.contains(group))
            .filter_map(|group| process.node.handle(*group))
            .filter(|handle| handle.published().role != Role::Fenced)
            .collect();
        let place = |group: u64| {
            let members = self.expected_members(group);
            let at = members.iter().position(|(_, on)| *on == node)?;
            Some((u32::try_from(at).ok()?, u32::try_from(members.len()).ok()?))
        };
        let replicas: Vec<Replica> = handles
            .iter()
            .filter_map(|handle| {
                Some(Replica {
                    group: handle.group(),
                    place: place(handle.group())?,
                    first: handle.reader().first_index(),
                    through: handle.settled(),
                })
            })
            .collect();
        let extent = |group: u64, index: u64| {
            let handle = handles.iter().find(|handle| handle.group() == group);
            handle.map_or((0, 0), |handle| handle.reader().extent(index))
        };
        let life = self.hosts.get(node).map_or(0, |host| host.life);
        let Some((of, scrub)) = self.rot.scrubs.get_mut(node) else {
            return;
        };
        if *of != life {
            (*of, *scrub) = (life, Scrub::new(INTERVAL));
        }
        for piece in scrub.due(now, &replicas, extent) {
            let mut at = piece;
            while at.from <= at.through && at.bytes > 0 {
                let Some(process) = self.process(node) else {
                    return;
                };
                let scrubbed = process.node.scrub(&at, STEP_BYTES);
                if self.is_blown(node) {
                    return self.crash_inside(node);
                }
                match scrubbed {
                    Ok(Some(scrubbed)) if scrubbed.next > at.from => {
                        self.summary.bytes_scrubbed += scrubbed.bytes;
                        self.summary.entries_found_bad += scrubbed.bad as u64;
                        self.summary.files_made_anew += scrubbed.stale.len() as u64;
                        at.from = scrubbed.next;
                        at.bytes = at.bytes.saturating_sub(scrubbed.bytes.max(1));
                    }
                    _ => break,
                }
            }
            if let Some((_, scrub)) = self.rot.scrubs.get_mut(node) {
                scrub.read(&piece, at.from);
            }
        }
    }

    /// Puts right what is known to be bad on a node.
    fn mend_node(&mut self, node: usize) {
        let Some(process) = self.process(node) else {
            return;
        };
        let (mut inputs, mut mended_entries) = (Vec::new(), 0);
        for handle in process.node.handles() {
            if process.contradicted.contains(&handle.group()) {
                continue;
            }
            let group = handle.group();
            let Some(bad) = handle.reader().bad_entries().first().copied() else {
                continue;
            };
            let (mended, count) = self.mend_run(node, process, &handle, bad.index);
            inputs.extend(mended.map(|input| (group, input)));
            mended_entries += count;
        }
        self.summary.entries_mended += mended_entries;
        if self.is_blown(node) {
            return self.crash_inside(node);
        }
        self.inputs(node, inputs);
    }

    /// Whether all that rotted is right again.
    pub fn is_rot_mended(&self) -> bool {
        let rotten = self.rot.rotten.as_ref();
        rotten.is_none_or(|rotten| !self.is_rotten(rotten))
    }

    /// Says what is still rotten when there was time to put it right.
    pub fn look_for_rot(&mut self) {
        if let Some(rotten) = self.rot.rotten.clone()
            && self.is_rotten(&rotten)
        {
            let place = format!("{} byte {}", rotten.path.display(), rotten.offset);
            let checked = what_rots_is_put_right::at_the_end(rotten.group, &place);
            self.check(checked);
        }
    }
}
