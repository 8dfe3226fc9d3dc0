//! Whatever goes wrong, by the plan's classes and rates.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use riverrun_replication::Role;
use riverrun_replication::shard::Input;
use riverrun_storage::disk::Disk;
use riverrun_storage::disk::mem::{Operation, Times};

use crate::clock::{MS, SECOND};
use crate::host::data_dir;
use crate::plan::Fault;
use crate::rng::Rng;
use crate::world::{CONTROLLER, Event, World};

/// What the nemesis remembers.
#[derive(Debug)]
pub struct Nemesis {
    pub(crate) rng: Rng,
    /// Nodes whose durable bytes were changed: their files may be refused.
    damaged: BTreeSet<usize>,
    /// Nodes on which records of batches are bad, and it is known where each of them belongs.
    marred: BTreeSet<usize>,
    /// Nodes whose disk has refused calls.
    refusing: BTreeSet<usize>,
    /// Nodes that somebody will start again at a time.
    restarts: BTreeMap<usize, u64>,
    /// Nodes with a disk that is full until a time.
    full_until_us: BTreeMap<usize, u64>,
}

impl Nemesis {
    /// One that has done nothing yet.
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        Self {
            rng,
            damaged: BTreeSet::new(),
            marred: BTreeSet::new(),
            refusing: BTreeSet::new(),
            restarts: BTreeMap::new(),
            full_until_us: BTreeMap::new(),
        }
    }

    /// Whether files of a node may be damaged.
    #[must_use]
    pub fn may_be_damaged(&self, node: usize) -> bool {
        self.damaged.contains(&node)
    }

    /// Whether a node's disk may have refused a call.
    #[must_use]
    pub fn may_refuse(&self, node: usize) -> bool {
        self.refusing.contains(&node)
    }

    /// What was durable on a node may not be what it was.
    pub fn is_damaged(&mut self, node: usize) {
        self.damaged.insert(node);
    }

    /// Records of batches are bad on a node; where each of them belongs is known there (R6).
    pub fn is_marred(&mut self, node: usize) {
        self.marred.insert(node);
    }

    /// Whether there may be bad bytes on a node.
    #[must_use]
    pub fn may_be_bad(&self, node: usize) -> bool {
        self.damaged.contains(&node) || self.marred.contains(&node)
    }

    /// Whether no more is bad than that.
    #[must_use]
    pub fn only_marred(&self, node: usize) -> bool {
        self.marred.contains(&node) && !self.damaged.contains(&node)
    }

    /// A node's disk refuses calls.
    pub fn refuses(&mut self, node: usize) {
        self.refusing.insert(node);
    }

    /// Somebody restarts the node by then.
    pub fn restart_later(&mut self, node: usize, at_us: u64) {
        self.restarts.entry(node).or_insert(at_us);
    }
}

impl World {
    /// Strikes once, and says when next.
    pub fn strike(&mut self) {
        if self.calm {
            return;
        }
        let again = self.nemesis.rng.around(self.plan.fault_every_us);
        self.clock.after(again, Event::Fault);
        let total = self.plan.faults.iter().map(|(_, weight)| weight).sum();
        let mut draw = self.nemesis.rng.below(total);
        let mut chosen = None;
        for (fault, weight) in &self.plan.faults {
            if draw < *weight {
                chosen = Some(*fault);
                break;
            }
            draw -= weight;
        }
        if let Some(fault) = chosen {
            self.trace.note(&[fault as u64]);
            self.inflict(fault);
        }
    }

    fn inflict(&mut self, fault: Fault) {
        let node = self.nemesis.rng.index(self.plan.nodes);
        tracing::info!(now_us = self.clock.now_us(), ?fault, node, "strikes");
        match fault {
            Fault::Kill => self.kill_if_up(node),
            Fault::PowerLoss => self.lose_power(node),
            Fault::Blackout => (0..self.plan.nodes).for_each(|node| self.lose_power(node)),
            Fault::CrashInsideCall => {
                let calls = self.nemesis.rng.between(0, 40);
                if let Some(host) = self.hosts.get(node).filter(|host| host.process.is_some()) {
                    host.fuse.arm(&host.disk, calls.cast_signed());
                }
            }
            Fault::CutLink => {
                let other = self.nemesis.rng.index(self.plan.nodes);
                let cut = self.nemesis.rng.chance(700);
                self.summary.network_cuts += u64::from(cut);
                self.network.set_cut(node, other, cut);
            }
            Fault::Isolate => {
                let draw = self.nemesis.rng.below(4);
                self.summary.network_cuts += 1;
                self.network.isolate(node, draw != 0, draw != 1);
            }
            Fault::Heal => self.network.heal(false),
            Fault::HangDisk => {
                self.summary.disks_hung += 1;
                let until = self.clock.now_us() + self.nemesis.rng.between(100 * MS, 6 * SECOND);
                if let Some(host) = self.hosts.get_mut(node) {
                    host.hung_until_us = until;
                }
            }
            Fault::Pause => {
                let until = self.clock.now_us() + self.nemesis.rng.between(50 * MS, 4 * SECOND);
                if let Some(host) = self.hosts.get_mut(node) {
                    host.paused_until_us = until;
                }
            }
            Fault::FullDisk => self.fill_disk(node),
            Fault::Refuse => self.refuse(),
            Fault::HurtNode => self.hurt_node_files(),
            Fault::WriteError => self.disk_error(self.plan.victim, Operation::Write, false),
            Fault::SyncError => {
                self.nemesis.is_damaged(self.plan.victim);
                self.disk_error(self.plan.victim, Operation::Sync, false);
            }
            Fault::WalSyncError => self.disk_error(node, Operation::Sync, true),
            Fault::FlipBits | Fault::WipeDisk | Fault::RollBack | Fault::DeleteDirectory => {
                self.hurt_victim(fault);
            }
            Fault::Move => self.operator.want_move(self.nemesis.rng.next()),
            Fault::DropHead => self.drop_head(node),
            Fault::Transfer => self.transfer(node),
        }
    }

    fn kill_if_up(&mut self, node: usize) {
        if self.process(node).is_some() {
            self.kill(node);
        }
    }

    fn fill_disk(&mut self, node: usize) {
        self.summary.disks_full += 1;
        let room = self.nemesis.rng.below(64 << 10);
        let until = self.clock.now_us() + self.nemesis.rng.between(500 * MS, 5 * SECOND);
        self.nemesis.refusing.insert(node);
        self.nemesis.full_until_us.insert(node, until);
        if let Some(host) = self.hosts.get(node) {
            host.disk.set_capacity(host.disk.used_bytes() + room);
        }
    }

    fn disk_error(&mut self, node: usize, operation: Operation, of_node: bool) {
        self.summary.disk_errors += 1;
        self.nemesis.refusing.insert(node);
        let node_dir = data_dir().join(riverrun_storage::node::NODE_DIR);
        if let Some(host) = self.hosts.get(node) {
            host.disk.fail(operation, Times::Once, move |path: &Path| {
                path.starts_with(&node_dir) == of_node
            });
        }
    }

    /// Something that was durable is lost, on the one node of a run to which that may happen.
    fn hurt_victim(&mut self, fault: Fault) {
        let victim = self.plan.victim;
        let backup = self.nemesis.rng.coin();
        if fault == Fault::RollBack
            && let Some(host) = self.hosts.get_mut(victim)
        {
            // A copy of the last life that others have seen cannot be told from the original, so it
            // is not put back yet.
            let usable = host
                .backup
                .as_ref()
                .is_some_and(|(life, _)| *life < host.admitted_life);
            if host.backup.is_none() || (usable && backup) {
                host.backup = Some((host.life, host.disk.snapshot()));
            }
            if backup || !usable {
                return;
            }
        }
        self.lose_power(victim);
        match fault {
            Fault::WipeDisk => self.lose_disk(victim),
            Fault::RollBack => {
                self.memory_lost(victim);
                self.nemesis.is_damaged(victim);
                if let Some(host) = self.hosts.get_mut(victim)
                    && let Some((_, backup)) = host.backup.take()
                {
                    host.disk.restore(&backup);
                    host.disk
                        .crash(1, &riverrun_storage::disk::mem::CrashModel::LOSE_ALL);
                }
            }
            Fault::DeleteDirectory => {
                if let Some(host) = self.hosts.get(victim)
                    && let Ok(entries) = host.disk.read_dir(&data_dir())
                {
                    let dirs: Vec<String> = entries
                        .iter()
                        .filter(|entry| {
                            entry.is_dir && entry.name != riverrun_storage::node::NODE_DIR
                        })
                        .map(|entry| entry.name.clone())
                        .collect();
                    let at = self.nemesis.rng.index(dirs.len());
                    if let Some(name) = dirs.get(at).cloned() {
                        self.lose_directory(victim, &name);
                    }
                }
            }
            _ => self.flip_bits(victim),
        }
    }

    /// Flips bits in what was durable before the victim's last flush round but one.
    fn flip_bits(&mut self, victim: usize) {
        self.memory_lost(victim);
        self.nemesis.is_damaged(victim);
        let Some(host) = self.hosts.get(victim) else {
            return;
        };
        let [old, _] = &host.durable_lengths;
        let node_dir = data_dir().join(riverrun_storage::node::NODE_DIR);
        let files: Vec<(PathBuf, u64)> = old
            .iter()
            .filter(|(path, len)| **len > 0 && !path.starts_with(&node_dir))
            .map(|(path, len)| (path.clone(), *len))
            .collect();
        for _ in 0..self.nemesis.rng.between(1, 3) {
            let at = self.nemesis.rng.index(files.len());
            if let Some((path, len)) = files.get(at) {
                let offset = self.nemesis.rng.below(*len);
                let bit = u8::try_from(self.nemesis.rng.below(8)).unwrap_or(0);
                self.summary.bits_flipped += u64::from(host.disk.flip_bit(path, offset, bit));
            }
        }
        // The page cache is gone with the power, so that what was flipped is what is read.
        host.disk
            .crash(1, &riverrun_storage::disk::mem::CrashModel::KEEP_ALL);
    }

    fn drop_head(&mut self, node: usize) {
        let groups: Vec<u64> = self.groups.keys().copied().collect();
        let Some(group) = self.nemesis.rng.pick(&groups) else {
            return;
        };
        let Some(handle) = self
            .process(node)
            .and_then(|process| process.node.handle(group))
        else {
            return;
        };
        let (first, last) = (handle.reader().first_index(), handle.reader().last_index());
        let keep_from = self.nemesis.rng.between(first, last.max(first));
        self.inputs(node, vec![(group, Input::DropHead { group, keep_from })]);
    }

    /// Leadership is handed over again and again, amid what clients have under way.
    pub fn hand_over(&mut self) {
        let Some(every) = self.plan.hand_over_every_us.filter(|_| !self.calm) else {
            return;
        };
        let after = self.nemesis.rng.around(every);
        self.clock.after(after, Event::HandOver);
        let to = self.nemesis.rng.index(self.plan.nodes);
        self.transfer(to);
    }

    fn transfer(&mut self, to: usize) {
        let mut groups: Vec<u64> = self.groups.keys().copied().collect();
        groups.push(CONTROLLER);
        let Some(group) = self.nemesis.rng.pick(&groups) else {
            return;
        };
        let Some(handle) = self
            .process(to)
            .and_then(|process| process.node.handle(group))
        else {
            return;
        };
        let replica = handle.replica();
        let leads = |node: &usize| {
            self.process(*node)
                .and_then(|process| process.node.handle(group))
                .is_some_and(|handle| handle.published().role == Role::Leader)
        };
        if let Some(leader) = (0..self.plan.nodes).find(leads) {
            self.inputs(
                leader,
                vec![(group, Input::Transfer { group, to: replica })],
            );
        }
    }

    /// What passes by itself, or is put right by whoever watches over the cluster.
    pub fn mend(&mut self) {
        let now = self.clock.now_us();
        self.end_refusals();
        let full: Vec<usize> = self
            .nemesis
            .full_until_us
            .iter()
            .filter(|(_, until)| **until <= now || self.calm)
            .map(|(node, _)| *node)
            .collect();
        for node in full {
            self.nemesis.full_until_us.remove(&node);
            if let Some(host) = self.hosts.get(node) {
                host.disk.set_capacity(u64::MAX);
            }
        }
        let due: Vec<usize> = self
            .nemesis
            .restarts
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(node, _)| *node)
            .collect();
        for node in due {
            self.nemesis.restarts.remove(&node);
            self.kill_if_up(node);
        }
    }

    /// Faults stop.
    pub fn calm_down(&mut self) {
        self.calm = true;
        self.network.heal(true);
        for node in 0..self.plan.nodes {
            if let Some(host) = self.hosts.get_mut(node) {
                host.hung_until_us = 0;
                host.clock_permille = 1000;
                if host.process.is_some() {
                    host.disk.clear_faults();
                    host.fuse = crate::host::Fuse::default();
                }
            }
            self.wake(node);
            if self.process(node).is_none() {
                self.start_later(node);
            }
        }
        self.mend();
    }
}
