//! What could not be opened or carried out: whether a node may say so, and what it does about it.

use std::io::ErrorKind;
use std::path::Path;

use riverrun_replication::founding::FILE_NAME;
use riverrun_replication::node::{OpenError, Unopened};
use riverrun_replication::reconciler::{Standing, is_accounted_for};
use riverrun_storage::disk::Disk;
use riverrun_storage::node::{NODE_DIR, NodeError, Retirement, SET_ASIDE_PREFIX};

use crate::boot::settings_of;
use crate::clock::MS;
use crate::host::{Flusher, data_dir};
use crate::invariants::Violation;
use crate::plan::Fault;
use crate::world::{CONTROLLER, Event, World};

/// What could not be opened or created is tried again after so long.
const REOPEN_US: u64 = 1000 * MS;

/// The group of a replica that is tried again.
fn waits(of: Unopened) -> Option<u64> {
    (of.standing == Standing::Unavailable).then_some(of.identity.group)
}

impl World {
    /// A replica may stay unopened only where something was done to the disk; and one that is merely
    /// unavailable only while the disk refuses calls.
    pub fn judge_unopened(&mut self, node: usize, unopened: &Unopened) {
        let allowed = match unopened.standing {
            Standing::Unavailable => self.nemesis.may_refuse(node),
            Standing::Damaged | Standing::Lost => self.nemesis.may_be_damaged(node),
        };
        if self.nemesis.only_marred(node) && unopened.standing != Standing::Unavailable {
            let detail =
                format!("node {node} refuses a log of which only records are bad: {unopened:?}");
            self.check(Err(Violation::new("marred_keeps_its_vote", detail)));
        }
        if !allowed {
            let detail = format!("node {node} does not open an undamaged partition: {unopened:?}");
            self.check(Err(Violation::new(
                "recovery_accepts_what_a_crash_leaves",
                detail,
            )));
        }
    }

    /// What was unavailable is tried again.
    pub fn reopen(&mut self, node: usize, life: u64) {
        let plan = self.plan.clone();
        let Some(process) = self.process_mut(node) else {
            return;
        };
        if !matches!(process.flusher, Flusher::Idle) {
            self.clock.after(10 * MS, Event::Reopen { node, life });
            return;
        }
        process.reopens = false;
        let waited: Vec<u64> = process
            .node
            .unopened()
            .into_iter()
            .filter_map(waits)
            .collect();
        let opened = process
            .node
            .retry_unavailable(|identity| settings_of(&plan, identity.topic_id));
        if self.is_blown(node) {
            return self.crash_inside(node);
        }
        let unopened = self.process(node).map(|process| process.node.unopened());
        for unopened in unopened.unwrap_or_default() {
            if waited.contains(&unopened.identity.group) {
                self.judge_unopened(node, &unopened);
            }
        }
        let mut inputs = Vec::new();
        let host = self.hosts.get_mut(node);
        let Some(mut process) = host.and_then(|host| host.process.take()) else {
            return;
        };
        for partition in opened {
            inputs.extend(self.bring_in(node, &mut process, partition));
        }
        for (partition, sighted) in std::mem::take(&mut process.marred) {
            let replica = partition.group().replica();
            let handle = process.node.handle(partition.id());
            if handle.is_some_and(|handle| handle.replica() == replica) {
                inputs.extend(self.bring_marred_in(node, &mut process, partition, sighted));
            }
        }
        let is_marred = !process.marred.is_empty();
        let unopened = process.node.unopened();
        if let Some(host) = self.hosts.get_mut(node) {
            host.process = Some(process);
        }
        self.turn(node, inputs);
        if is_marred || unopened.into_iter().filter_map(waits).next().is_some() {
            self.reopen_later(node);
        }
        self.reconcile(node);
    }

    /// What could not be opened or carried out is tried again after a while.
    pub fn reopen_later(&mut self, node: usize) {
        let life = self.hosts.get(node).map_or(0, |host| host.life);
        let Some(process) = self.process_mut(node) else {
            return;
        };
        if !std::mem::replace(&mut process.reopens, true) {
            self.clock.after(REOPEN_US, Event::Reopen { node, life });
        }
    }

    /// A node that cannot be opened: whoever runs it does what its message says.
    pub fn cannot_open(&mut self, node: usize, error: &OpenError) {
        // Who cannot tell who he is (R17).
        let nobody = matches!(
            error,
            OpenError::Store(NodeError::Damaged { .. } | NodeError::IdentityGone { .. })
        ) || matches!(error, OpenError::Io { source, .. } if source.kind() == ErrorKind::InvalidData);
        if nobody && self.nemesis.may_be_damaged(node) {
            return self.set_node_aside(node);
        }
        let refused_by_disk = matches!(
            error,
            OpenError::Store(NodeError::Io { .. } | NodeError::WalFailed(_)) | OpenError::Io { .. }
        );
        if refused_by_disk && self.nemesis.may_refuse(node) {
            self.start_later(node);
            return;
        }
        let detail = format!("node {node} cannot start: {error}");
        self.check(Err(Violation::new(
            "recovery_accepts_what_a_crash_leaves",
            detail,
        )));
    }

    /// The operator sets a node's directory aside, and starts it to join anew: what its own files say of it
    /// cannot be believed.
    pub fn set_node_aside(&mut self, node: usize) {
        self.memory_lost(node);
        self.end_process(node);
        self.start_later(node);
        let Some(host) = self.hosts.get_mut(node) else {
            return;
        };
        let done = Retirement::plan(&host.disk, &data_dir())
            .and_then(|planned| planned.map_or(Ok(()), |planned| planned.carry_out(&host.disk)));
        match done {
            Ok(()) => {
                self.summary.nodes_set_aside += 1;
                host.begins_anew();
            }
            // The next start says the same again.
            Err(NodeError::Io { .. }) if host.refusal.is_some() => {}
            Err(error) => {
                let detail = format!("node {node} cannot be set aside: {error}");
                self.check(Err(Violation::new("orders_are_carried_out", detail)));
            }
        }
    }

    /// Whether anything on a node's disk is a log, or says that it belongs to a cluster: no cluster may be
    /// founded over that (D6).
    pub fn has_data(&mut self, node: usize) -> bool {
        let Some(disk) = self.hosts.get(node).map(|host| host.disk.clone()) else {
            return false;
        };
        self.unrefused(node, |_| {
            let names = |dir: &Path| disk.read_dir(dir).unwrap_or_default();
            let is_aside = |name: &str| name.starts_with(SET_ASIDE_PREFIX);
            let is_ours = |dir: &str, file: &str| match dir {
                NODE_DIR => file == FILE_NAME,
                _ => file.ends_with(".raft") || file.ends_with(".log"),
            };
            let dirs = names(&data_dir()).into_iter();
            let mut dirs = dirs.filter(|entry| entry.is_dir && !is_aside(&entry.name));
            dirs.any(|dir| {
                let files = names(&data_dir().join(&dir.name)).into_iter();
                files
                    .filter(|file| !file.is_dir)
                    .any(|file| is_ours(&dir.name, &file.name))
            })
        })
    }

    /// Whether something may befall a node's own files.
    fn hurts_own_files(&self, node: usize) -> bool {
        let told = self
            .plan
            .stories
            .iter()
            .any(|story| story.hurts_node_files());
        node == self.plan.victim && (told || self.plan.has(Fault::HurtNode))
    }

    /// The controller knows of this start, by the node's own image: what was ordered before it met a damage of
    /// its WAL lies below a number from now on; and the damage stands no more when each replica that it may
    /// have concerned was accounted for (R12).
    pub fn account_for_damage(&mut self, node: usize) {
        let (Some(me), true) = (self.me(node), self.hurts_own_files(node)) else {
            return;
        };
        let Some(process) = self.process_mut(node) else {
            return;
        };
        let image = process.controller.image();
        let knows_it = image.brokers.get(&me.node).is_some_and(|broker| {
            broker.directory == me.directory && broker.incarnation == process.node.incarnation()
        });
        let store = process.node.store();
        let mut done = Ok(());
        if knows_it && !process.registered {
            done = store
                .is_heard()
                .and_then(|()| store.bound_damage(image.next_replica));
            process.registered = done.is_ok();
        } else if me.ordered_below.is_some() && process.unopened(CONTROLLER).is_none() {
            let is_lost = |group, replica| match process.node.unopened_of(group) {
                Some(of) => of.identity.replica == replica && of.standing == Standing::Lost,
                None => process.node.handle(group).is_none(),
            };
            let open = image.topics.values().filter(|topic| !topic.closing);
            if is_accounted_for(open.flat_map(|topic| &topic.partitions), &me, is_lost) {
                done = store.forget_damage();
            }
        }
        if self.is_blown(node) {
            return self.crash_inside(node);
        }
        if let Err(error) = done {
            self.order_failed(node, &OpenError::Store(error));
        }
    }

    /// What the node was to do did not succeed.
    pub fn order_failed(&mut self, node: usize, error: &OpenError) {
        if self.is_refused(node) && !matches!(error, OpenError::Store(_)) && !self.is_blown(node) {
            // It is tried again, as all that a node is ordered to do.
            self.reopen_later(node);
        } else {
            self.start_failed(node, error);
        }
    }

    /// The same of what its start hangs on, which ends then.
    pub fn start_failed(&mut self, node: usize, error: &OpenError) {
        if self.is_blown(node) {
            self.crash_inside(node);
        } else if self.nemesis.may_refuse(node) {
            self.kill(node);
        } else {
            let detail = format!("node {node}: {error}");
            self.check(Err(Violation::new("orders_are_carried_out", detail)));
        }
    }
}
