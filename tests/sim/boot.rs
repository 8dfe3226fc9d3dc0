//! Starts and ends of processes and machines, and what a node makes of the controller's image.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use riverrun_replication::controller::{ClosedTopics, Controller, PartitionImage};
use riverrun_replication::founding::Known;
use riverrun_replication::leaders::LeaderTable;
use riverrun_replication::node::{
    GroupOrder, Node, NodeSettings, OpenError, Unopened, directory_name,
};
use riverrun_replication::partition::Partition;
use riverrun_replication::proposer::{Outcomes, Proposer};
use riverrun_replication::reconciler::{Me, Order, Standing, order};
use riverrun_replication::shard::{Input, Shard};
use riverrun_replication::{GroupConfig, GroupSettings, PartitionHandle};
use riverrun_storage::disk::mem::CrashModel;
use riverrun_storage::format::aside::Reason;
use riverrun_storage::node::NodeConfig;
use riverrun_storage::planted::{self, Bug};
use riverrun_storage::{EntryKind, LogConfig, LogIdentity};
use uuid::Uuid;

use crate::changes::start_token;
use crate::clock::MS;
use crate::host::{Flusher, Fuse, Process, View, data_dir};
use crate::invariants::Violation;
use crate::plan::{Fault, Plan};
use crate::topics::place_of;
use crate::words::Words;
use crate::world::{CONTROLLER, Event, World};

fn directory(node: usize, number: u128) -> Uuid {
    Uuid::from_u128(((node as u128 + 1) << 64) + number)
}

/// The settings of a group.
#[must_use]
pub fn settings_of(plan: &Plan, topic_id: Uuid) -> GroupSettings {
    let group = place_of(topic_id).and_then(|place| plan.groups.get(place));
    let segment_bytes = group.map_or(16 << 10, |group| group.segment_bytes);
    GroupSettings {
        log: LogConfig {
            segment_bytes,
            index_interval_bytes: 256,
            preallocate: segment_bytes > 12 << 10,
            ..LogConfig::default()
        },
        write_caching: group.is_some_and(|group| group.caching),
        min_insync_replicas: group.map_or(1, |group| group.min_insync_replicas),
        ..GroupSettings::default()
    }
}

impl World {
    fn settings(&self, node: usize, start_token: u64) -> NodeSettings {
        let (boots, directories) = self
            .hosts
            .get(node)
            .map_or((0, 0), |host| (host.boots, host.directories));
        NodeSettings {
            node_id: node_id(node),
            kernel_boot_id: format!("boot-{boots}"),
            new_directory_id: directory(node, directories),
            start_token,
            store: NodeConfig {
                wal_bytes: self.plan.wal_bytes,
                small_round_max_bytes: self.plan.small_round_max_bytes,
                many_files_max_bytes: self.plan.small_round_max_bytes * 2,
                flush_threads: 0,
                ..NodeConfig::default()
            },
            group: GroupConfig {
                seed: self.plan.seed ^ (node as u64 + 1),
                ..GroupConfig::default()
            },
            shards: self.plan.shards,
            most_replicas: usize::MAX,
        }
    }

    /// A node's process starts and recovers what is on its disk.
    pub fn start(&mut self, node: usize) {
        let token = self.rng.next();
        let settings = self.settings(node, token);
        let arm = !self.calm && self.plan.has(Fault::CrashInsideCall) && self.rng.chance(150);
        let calls = self.rng.between(1, 60);
        let Some(host) = self.hosts.get_mut(node) else {
            return;
        };
        host.starting = false;
        if host.process.is_some() {
            return;
        }
        host.life += 1;
        host.disk.clear_faults();
        if let Some(refusal) = &host.refusal {
            refusal.arm(&host.disk);
        }
        host.fuse = Fuse::default();
        if arm {
            host.fuse.arm(&host.disk, calls.cast_signed());
        }
        let (life, disk) = (host.life, host.disk.shared());
        self.summary.restarts += 1;
        let plan = self.plan.clone();
        let has_data = self.has_data(node);
        let opened = catch_unwind(AssertUnwindSafe(|| {
            // What would end the start is looked for before the start is counted (R15).
            let known = Known::read(&*disk, &data_dir());
            let what = "read how the node came to its cluster";
            known.map_err(|source| OpenError::Io { what, source })?;
            Node::open(disk, &data_dir(), settings, |identity| {
                settings_of(&plan, identity.topic_id)
            })
        }));
        if self.is_blown(node) {
            self.crash_inside(node);
            return;
        }
        let (opened_node, opened) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return self.cannot_open(node, &error),
            Err(panic) => {
                let what = panic_text(&panic);
                let detail = format!("node {node} panicked as it started: {what}");
                return self.check(Err(Violation::new("recovery_never_panics", detail)));
            }
        };
        if opened.founded && has_data {
            let detail = format!("node {node} is founded over what an earlier life has left");
            self.check(Err(Violation::new("nothing_is_founded_over_data", detail)));
        }
        let directory = opened_node.directory_id();
        tracing::info!(
            now_us = self.clock.now_us(),
            node,
            incarnation = opened_node.incarnation(),
            "up"
        );
        if !self.operator.admit(directory, &opened_node.starts()) {
            // The others know it for a copy of an older one: its handshake is refused (R3).
            drop(opened_node);
            self.lose_disk(node);
            self.start_later(node);
            return;
        }
        if let Some(host) = self.hosts.get_mut(node) {
            host.admitted_life = life;
            host.started_us = self.clock.now_us();
            host.heard_us.clear();
        }
        let mut process = Process {
            node: opened_node,
            shards: (0..self.plan.shards.max(1))
                .map(|_| Shard::default())
                .collect(),
            controller: Controller::new(),
            views: BTreeMap::new(),
            lanes: BTreeMap::<u64, VecDeque<_>>::new(),
            flusher: Flusher::Idle,
            failed: BTreeSet::new(),
            contradicted: BTreeSet::new(),
            words: Words::default(),
            must_reconcile: false,
            starved: 0,
            holds_rounds: false,
            members_told: BTreeMap::new(),
            leaders: LeaderTable::default(),
            known_lives: BTreeMap::new(),
            led: BTreeSet::new(),
            leads: BTreeSet::new(),
            closed: ClosedTopics::default(),
            known: None,
            coming: None,
            answered: BTreeMap::new(),
            proposer: Proposer::new(start_token(self.plan.seed, node, life)),
            outcomes: Outcomes::default(),
            change: None,
            marred: Vec::new(),
            reopens: false,
            registered: false,
        };
        for unopened in &opened.unopened {
            self.mark_short(unopened.identity.group, node);
            self.judge_unopened(node, unopened);
        }
        let waits = |of: &Unopened| of.standing == Standing::Unavailable;
        let mut waits = opened.unopened.iter().any(waits);
        let mut inputs = Vec::new();
        for partition in opened.partitions {
            inputs.extend(self.bring_in(node, &mut process, partition));
        }
        waits |= !process.marred.is_empty();
        if let Some(host) = self.hosts.get_mut(node) {
            host.process = Some(Box::new(process));
        }
        if waits {
            self.reopen_later(node);
        }
        let first_tick = self.rng.between(0, self.plan.tick_us);
        self.clock.after(first_tick, Event::Tick { node, life });
        self.turn(node, inputs);
        self.begin_changes(node);
        self.come_back(node);
        self.reconcile(node);
    }

    /// A replica whose log was opened comes into service, if it is sound; the inputs tell its shard.
    pub fn bring_in(
        &mut self,
        node: usize,
        process: &mut Process,
        partition: Partition,
    ) -> Vec<(usize, Input)> {
        self.bring_marred_in(node, process, partition, Vec::new())
    }

    /// The same of one that its shard is to be told more of.
    pub fn bring_marred_in(
        &mut self,
        node: usize,
        process: &mut Process,
        partition: Partition,
        mut sighted: Vec<Input>,
    ) -> Vec<(usize, Input)> {
        let group = partition.id();
        if let Some(handle) = process.node.handle(group) {
            if self.nemesis.may_be_bad(node) {
                sighted.extend(self.mend_at_start(node, process, &handle));
            }
            let is_readable = |_: &mut Self| View::read(handle.reader()).is_ok();
            if self.nemesis.only_marred(node) && !self.unrefused(node, is_readable) {
                process.marred.push((partition, sighted));
                return Vec::new();
            }
            if !self.found(node, process, &handle) {
                return Vec::new();
            }
        }
        self.promises_are_kept(node, &partition);
        let mut inputs = vec![process.place(group, Input::Add(Box::new(partition)))];
        inputs.extend(sighted.into_iter().map(|input| process.place(group, input)));
        inputs
    }

    /// What recovery found in a replica's files is held against what was ever written. False where
    /// they are damaged.
    fn found(&mut self, node: usize, process: &mut Process, handle: &PartitionHandle) -> bool {
        let group = handle.group();
        let view = self.unrefused(node, |_| View::read(handle.reader()));
        let view = match view {
            Ok(view) => view,
            Err(_) if self.nemesis.may_be_damaged(node) => {
                // A flipped bit in an old batch is met when it is read.
                process.contradicted.insert(group);
                self.mark_short(group, node);
                return false;
            }
            Err(error) => {
                let detail = format!("group {group} on node {node}: {error}");
                self.check(Err(Violation::new(
                    "what_recovery_accepts_can_be_read",
                    detail,
                )));
                return false;
            }
        };
        let mut before = None;
        for mark in view.marks() {
            let follows = before.map_or(Ok(()), |before| {
                crate::invariants::offsets_dense::follows(group, node, before, mark)
            });
            let checked =
                follows.and_then(|()| self.invariants.bytes.saw(group, node, mark, false));
            before = Some(mark);
            if checked.is_err() {
                self.check(checked);
                return false;
            }
        }
        process.views.insert(group, view);
        if group == CONTROLLER {
            self.unrefused(node, |world| world.replay(node, process, handle));
        }
        true
    }

    /// The commands that were committed before this start.
    fn replay(&mut self, node: usize, process: &mut Process, handle: &PartitionHandle) {
        let reader = handle.reader();
        let watermark = handle.published().high_watermark;
        let mut index = reader.first_index();
        while index <= reader.last_index() {
            let Ok(entries) = reader.entries(index, reader.last_index() + 1, 1 << 20) else {
                return;
            };
            for entry in &entries {
                if entry.kind == EntryKind::Data && entry.next_offset() <= watermark {
                    self.apply_commands(node, process, &entry.payload);
                }
            }
            match entries.last() {
                Some(last) => index = last.index + 1,
                None => return,
            }
        }
    }

    /// The node starts again after a while.
    pub fn start_later(&mut self, node: usize) {
        let delay = if self.calm {
            200 * MS
        } else {
            self.rng.around(self.plan.down_us)
        };
        if let Some(host) = self.hosts.get_mut(node)
            && !host.starting
        {
            host.starting = true;
            self.clock.after(delay, Event::Start { node });
        }
    }

    pub fn end_process(&mut self, node: usize) {
        self.trace.note(&[node as u64, 0xdead]);
        tracing::info!(now_us = self.clock.now_us(), node, "down");
        if let Some(host) = self.hosts.get_mut(node) {
            host.process = None;
            host.disk.clear_faults();
            host.fuse = Fuse::default();
        }
        self.wake(node);
    }

    /// The process is killed; the page cache lives on.
    pub fn kill(&mut self, node: usize) {
        self.summary.kills += 1;
        self.end_process(node);
        self.is_dead(node);
        self.start_later(node);
    }

    /// The machine loses power.
    pub fn lose_power(&mut self, node: usize) {
        self.summary.power_losses += 1;
        self.look_at_all(node);
        self.memory_lost(node);
        let seed = self.rng.next();
        let model = match self.rng.below(4) {
            0 => CrashModel::LOSE_ALL,
            1 => CrashModel::KEEP_ALL,
            _ => CrashModel::RANDOM,
        };
        if let Some(host) = self.hosts.get_mut(node) {
            host.process = None;
            host.disk.crash(seed, &model);
            host.boots += 1;
            host.hung_until_us = 0;
        }
        self.end_process(node);
        self.start_later(node);
    }

    /// The machine stopped in the middle of a disk call.
    pub fn crash_inside(&mut self, node: usize) {
        self.summary.crashes_inside_a_call += 1;
        if let Some(host) = self.hosts.get_mut(node) {
            host.disk.clear_faults();
        }
        if self.rng.chance(800) {
            self.lose_power(node);
        } else {
            self.kill(node);
        }
    }

    /// The node's disk is gone; it comes back with an empty one.
    pub fn lose_disk(&mut self, node: usize) {
        self.summary.disks_lost += 1;
        self.memory_lost(node);
        self.end_process(node);
        let Some(host) = self.hosts.get_mut(node) else {
            return;
        };
        host.disk.wipe();
        host.boots += 1;
        host.begins_anew();
    }

    /// The order to create a replica of a topic's partition.
    #[must_use]
    pub fn order(&self, group: u64, replica: u64, topic: Uuid, voters: Vec<u64>) -> GroupOrder {
        GroupOrder {
            identity: LogIdentity {
                group,
                replica,
                topic_id: topic,
                partition: 0,
            },
            voters,
            learners: Vec::new(),
            settings: settings_of(&self.plan, topic),
        }
    }

    /// Creates a replica by order. False where it has to wait.
    pub fn create(&mut self, node: usize, order: GroupOrder) -> bool {
        let (group, replica) = (order.identity.group, order.identity.replica);
        self.routes.insert((group, replica), node);
        let Some(host) = self.hosts.get_mut(node) else {
            return true;
        };
        let Some(process) = host.process.as_deref_mut() else {
            return true;
        };
        if !matches!(process.flusher, Flusher::Idle) {
            // A creation waits for what the flusher is at.
            process.must_reconcile = true;
            return false;
        }
        process.lanes.remove(&group);
        let from = process.node.store().wal_live().end;
        let name = directory_name(&order.identity);
        let before = self.in_the_way(node, &name);
        let Some(process) = self.process_mut(node) else {
            return true;
        };
        match process.node.create_group(&order) {
            Ok(partition) => {
                process.failed.remove(&group);
                process.views.insert(group, View::default());
                let to = process.node.store().wal_live().end;
                if let Some(host) = self.hosts.get_mut(node) {
                    host.created.insert(group, from..to);
                }
                if !self.is_blown(node) {
                    self.nothing_vanished(node, &name, before);
                    if !planted::is(Bug::R3) {
                        self.promises_are_kept(node, &partition);
                    }
                }
                let Some(process) = self.process(node) else {
                    return true;
                };
                let input = process.place(group, Input::Add(Box::new(partition)));
                self.turn(node, vec![input]);
                if self.is_blown(node) {
                    self.crash_inside(node);
                }
            }
            // It is noted as lost.
            Err(OpenError::Occupied { .. } | OpenError::Refused(_))
                if self.nemesis.may_be_damaged(node) => {}
            Err(error) => self.order_failed(node, &error),
        }
        true
    }

    /// Takes a replica out of service for good. False where it has to wait.
    pub fn set_aside(&mut self, node: usize, group: u64, reason: Reason) -> bool {
        let Some(process) = self.process_mut(node) else {
            return true;
        };
        let known = process.node.handle(group).is_some() || process.unopened(group).is_some();
        if !known {
            return true;
        }
        if !matches!(process.flusher, Flusher::Idle) {
            process.must_reconcile = true;
            return false;
        }
        let identity = process.node.identity_of(group);
        let had_files = process.node.has_files(group).is_ok_and(|had| had);
        let shard = process.shard_of(group);
        self.turn(node, vec![(shard, Input::Remove { group })]);
        let Some(process) = self.process_mut(node) else {
            return true;
        };
        process.views.remove(&group);
        process.lanes.remove(&group);
        process.contradicted.remove(&group);
        if let Err(error) = process.node.set_aside(group, reason) {
            self.order_failed(node, &error);
        } else if self.is_blown(node) {
            self.crash_inside(node);
        } else if let Some(identity) = identity.filter(|_| had_files) {
            self.check_aside(node, &identity);
        }
        true
    }

    /// Who a node is to the function that decides.
    #[must_use]
    pub fn me(&self, node: usize) -> Option<Me> {
        let process = self.process(node)?;
        Some(Me {
            node: node_id(node),
            directory: process.node.directory_id(),
            ordered_below: process
                .node
                .store()
                .damage()
                .map(|damage| damage.ordered_below),
        })
    }

    /// Does what the controller's image orders this node to do.
    pub fn reconcile(&mut self, node: usize) {
        let (Some(process), Some(me)) = (self.process(node), self.me(node)) else {
            return;
        };
        let mut wanted = Vec::new();
        let topics = process.controller.image().topics.values();
        for topic in topics.filter(|topic| !topic.closing) {
            for (number, partition) in (0..).zip(&topic.partitions) {
                let here = process.here(partition.group);
                wanted.push((
                    topic.id,
                    number,
                    partition.clone(),
                    order(partition, &me, here),
                ));
            }
        }
        self.account_for_damage(node);
        self.learn_groups(node);
        let mut waits = !self.close_topics(node);
        for (topic, number, partition, decided) in wanted {
            waits |= !self.carry_out(node, topic, number, &partition, decided);
        }
        if let Some(process) = self.process_mut(node) {
            process.must_reconcile |= waits;
            process.starved = if waits { process.starved + 1 } else { 0 };
        }
        self.want_members(node);
    }

    /// Does what was decided about a partition; false where something waits.
    fn carry_out(
        &mut self,
        node: usize,
        topic: Uuid,
        number: i32,
        partition: &PartitionImage,
        decided: Order,
    ) -> bool {
        let group = partition.group;
        let decided = if planted::is(Bug::R3) {
            self.as_an_empty_voter(node, partition).unwrap_or(decided)
        } else {
            decided
        };
        match decided {
            Order::Keep | Order::Nothing => true,
            Order::SetAside {
                replica,
                reason,
                when_let_go,
            } => {
                // A learner of the plan is nobody's to set aside.
                if self.learner_of(group) == Some(replica) {
                    return true;
                }
                if when_let_go && self.is_member(group, replica) {
                    return false;
                }
                self.operator.retire(group, replica);
                if !self.set_aside(node, group, reason) {
                    return false;
                }
                if let Some(process) = self.process_mut(node) {
                    process.must_reconcile = true;
                }
                false
            }
            Order::Lost(lost) => {
                let order = self.order(group, lost.replica, topic, Vec::new());
                if let Some(process) = self.process_mut(node) {
                    let why = "the node WAL was damaged".to_owned();
                    process.node.note_lost(&order.identity, why);
                }
                true
            }
            Order::Create(mine) => {
                if self.operator.is_retired(group, mine.replica) {
                    return true;
                }
                let voters = partition.first_voters.clone();
                let mut order = self.order(group, mine.replica, topic, voters);
                order.identity.partition = number;
                self.create(node, order)
            }
        }
    }

    /// The planted bug: what is not there, or not open, is begun anew under its old id.
    fn as_an_empty_voter(&self, node: usize, partition: &PartitionImage) -> Option<Order> {
        let process = self.process(node)?;
        let own = node_id(node);
        let mine = partition.replicas.iter().find(|at| at.node == own)?;
        let is_open = process.node.handle(partition.group).is_some();
        (!is_open).then_some(Order::Create(*mine))
    }

    /// Groups that a node's image shows become known to clients.
    fn learn_groups(&mut self, node: usize) {
        let Some(process) = self.process(node) else {
            return;
        };
        let mut groups = Vec::new();
        let image = process.controller.image();
        let quorum: Vec<(u64, usize)> = image
            .quorum
            .replicas
            .iter()
            .map(|at| (at.at.replica, usize::try_from(at.at.node - 1).unwrap_or(0)))
            .collect();
        for topic in image.topics.values() {
            let (Some(place), Some(partition)) = (place_of(topic.id), topic.partitions.first())
            else {
                continue;
            };
            if self.topics.is_gone(&topic.id) {
                continue;
            }
            for replica in &partition.replicas {
                let on = usize::try_from(replica.node - 1).unwrap_or(0);
                groups.push((place, partition.group, replica.replica, on));
            }
        }
        for (replica, on) in quorum {
            if self.routes.insert((CONTROLLER, replica), on).is_none() {
                self.summary.replicas_replaced += 1;
            }
        }
        for (place, group, replica, on) in groups {
            let known = self.groups.contains_key(&group);
            if self.routes.insert((group, replica), on).is_none() && known {
                self.summary.replicas_replaced += 1;
            }
            if self.groups.insert(group, place).is_none() {
                self.tell_clients(group, place);
            }
        }
    }
}

/// The `node.id` of a node.
#[must_use]
pub fn node_id(node: usize) -> i32 {
    i32::try_from(node).unwrap_or(i32::MAX - 1) + 1
}

fn panic_text(panic: &Box<dyn std::any::Any + Send>) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "without a message".to_owned())
}
