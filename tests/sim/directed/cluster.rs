//! A few nodes in one thread, driven by hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use riverrun_replication::node::GroupOrder;
use riverrun_replication::shard::{Effect, Input};
use riverrun_replication::{GroupSettings, ProduceError, ProduceOutcome, Published};
use riverrun_storage::format::aside::Reason;
use riverrun_storage::planted::{self, Bug};
use riverrun_storage::{LogConfig, LogIdentity};
use uuid::Uuid;

use super::machine::Machine;
use super::wire::{Mishap, Sent};

/// The nodes. Replica `n` of [`GROUP`] is on node `n` until a test replaces it.
pub(super) const A: u64 = 1;
pub(super) const F: u64 = 2;
pub(super) const C: u64 = 3;
pub(super) const D: u64 = 4;
pub(super) const E: u64 = 5;

/// The partition that a test is about.
pub(super) const GROUP: u64 = 5;
/// A partition with one replica, beside it on the same node.
pub(super) const BESIDE: u64 = 6;

/// Runs steps with a rule switched off.
pub(super) fn without_rule<T>(bug: Bug, steps: impl FnOnce() -> T) -> T {
    struct Planted;
    impl Drop for Planted {
        fn drop(&mut self) {
            planted::clear();
        }
    }
    let _planted = Planted;
    planted::set(bug, true);
    steps()
}

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Nodes with a voter.
    pub(super) voters: Vec<u64>,
    /// Nodes with a learner.
    pub(super) learners: Vec<u64>,
    /// The settings of [`GROUP`].
    pub(super) settings: GroupSettings,
}

impl Plan {
    pub(super) fn voters(voters: &[u64]) -> Self {
        Self {
            voters: voters.to_vec(),
            learners: Vec::new(),
            settings: GroupSettings {
                log: LogConfig {
                    segment_bytes: 1 << 20,
                    preallocate: false,
                    ..LogConfig::tiny()
                },
                ..GroupSettings::default()
            },
        }
    }

    pub(super) fn learners(mut self, learners: &[u64]) -> Self {
        self.learners = learners.to_vec();
        self
    }

    /// Acknowledges from memory.
    pub(super) fn caching(mut self) -> Self {
        self.settings.write_caching = true;
        self
    }

    pub(super) fn min_insync(mut self, replicas: u32) -> Self {
        self.settings.min_insync_replicas = replicas;
        self
    }

    pub(super) fn segment_bytes(mut self, bytes: u64) -> Self {
        self.settings.log.segment_bytes = bytes;
        self
    }
}

/// An order of the controller to create a replica of [`GROUP`].
#[derive(Debug, Clone, Copy)]
struct Order {
    replica: u64,
    node: u64,
    directory: Uuid,
}

/// The nodes and all that is between them.
pub(super) struct Cluster {
    plan: Plan,
    machines: BTreeMap<u64, Machine>,
    /// Messages that were sent and neither arrived nor were lost.
    pub(super) wire: VecDeque<Sent>,
    /// What happens to some of them.
    pub(super) mishaps: Vec<Mishap>,
    /// Where replicas are.
    routes: BTreeMap<(u64, u64), u64>,
    /// The controller's orders: the replica, its node, and the directory that it was ordered for.
    orders: Vec<Order>,
    /// The events of requests.
    pub(super) asked: BTreeMap<u64, String>,
    pub(super) answers: BTreeMap<u64, ProduceOutcome>,
    pub(super) confirmed: BTreeMap<u64, Result<Published, ProduceError>>,
    pub(super) requests: u64,
    /// All that each node has published of [`GROUP`].
    pub(super) history: Vec<(u64, Published)>,
    /// Nodes whose replica a leader has set aside.
    pub(super) contradicted: BTreeSet<u64>,
    /// Nodes on which [`GROUP`] went out of service, at a start or later.
    pub(super) out_of_service: BTreeSet<u64>,
    /// Nodes each of whose rounds is bulk, as a great batch of [`BESIDE`] is in it.
    pub(super) great_rounds: BTreeSet<u64>,
}

impl Cluster {
    /// Nodes with a replica each, at rest, without a leader.
    pub(super) fn new(plan: Plan) -> Self {
        let mut cluster = Self {
            plan: plan.clone(),
            machines: BTreeMap::new(),
            wire: VecDeque::new(),
            mishaps: Vec::new(),
            routes: BTreeMap::new(),
            orders: Vec::new(),
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            requests: 0,
            history: Vec::new(),
            contradicted: BTreeSet::new(),
            out_of_service: BTreeSet::new(),
            great_rounds: BTreeSet::new(),
        };
        for at in plan.voters.iter().chain(&plan.learners) {
            cluster.add_node(*at);
            cluster.order(*at, *at);
        }
        cluster
    }

    /// Three voters of which A leads, with one event that everybody has.
    pub(super) fn of_three(plan: Plan) -> Self {
        let mut cluster = Self::new(plan);
        let all = cluster.nodes();
        cluster.elect(A, &all);
        cluster.produce_acked(A, "base");
        cluster.spread(A, &all);
        cluster
    }

    /// Every node.
    pub(super) fn nodes(&self) -> Vec<u64> {
        self.machines.keys().copied().collect()
    }

    /// A node with an empty disk joins.
    pub(super) fn add_node(&mut self, at: u64) {
        let mut machine = Machine::new(at);
        let opened = machine.open(|_| GroupSettings::default());
        assert!(opened.unwrap().founded);
        self.machines.insert(at, machine);
    }

    /// The controller orders a replica on a node, in the directory that is there now.
    pub(super) fn order(&mut self, node: u64, replica: u64) {
        let directory = self.machine(node).running().node.directory_id();
        self.routes.insert((GROUP, replica), node);
        self.orders.push(Order {
            replica,
            node,
            directory,
        });
        self.reconcile(node);
    }

    /// A node does what the controller has ordered: the newest order for it, in its own directory.
    fn reconcile(&mut self, at: u64) {
        let anyway = planted::is(Bug::R3);
        let directory = self.machine(at).running().node.directory_id();
        let newest = self.orders.iter().rev().find(|order| order.node == at);
        let Some(order) = newest.copied() else { return };
        let may = order.directory == directory && !self.out_of_service.contains(&at);
        if !(may || anyway) || self.handle(at).is_some() {
            return;
        }
        self.carry_out(
            at,
            &GroupOrder {
                identity: LogIdentity {
                    group: GROUP,
                    replica: order.replica,
                    topic_id: Uuid::from_u128(u128::from(GROUP)),
                    partition: 0,
                },
                voters: self.plan.voters.clone(),
                learners: self.plan.learners.clone(),
                settings: self.plan.settings.clone(),
            },
        );
    }

    /// A node deletes its replica of [`GROUP`].
    pub(super) fn delete(&mut self, at: u64) {
        self.turn(at, vec![Input::Remove { group: GROUP }]);
        let removed = self
            .machine(at)
            .running()
            .node
            .set_aside(GROUP, Reason::Replaced);
        removed.unwrap();
    }

    /// Creates [`BESIDE`] on a node.
    pub(super) fn create_beside(&mut self, at: u64) {
        let replica = 100 + at;
        self.routes.insert((BESIDE, replica), at);
        let order = GroupOrder {
            identity: LogIdentity {
                group: BESIDE,
                replica,
                topic_id: Uuid::from_u128(u128::from(BESIDE)),
                partition: 0,
            },
            voters: vec![replica],
            learners: Vec::new(),
            settings: GroupSettings {
                write_caching: false,
                min_insync_replicas: 1,
                ..self.plan.settings.clone()
            },
        };
        self.carry_out(at, &order);
        self.run(&[at]);
    }

    fn carry_out(&mut self, at: u64, order: &GroupOrder) {
        let created = self.machine(at).running().node.create_group(order);
        if self.has_stopped(at) {
            return;
        }
        let partition = created.unwrap();
        self.turn(at, vec![Input::Add(Box::new(partition))]);
    }

    /// A node.
    pub(super) fn machine(&mut self, at: u64) -> &mut Machine {
        self.machines.get_mut(&at).unwrap()
    }

    /// Gives a node inputs.
    pub(super) fn turn(&mut self, at: u64, inputs: Vec<Input>) {
        let mut machine = self.machines.remove(&at).unwrap();
        machine.turn(inputs, &mut |effect| self.outside(at, effect));
        self.machines.insert(at, machine);
        if self.has_stopped(at) {
            return;
        }
        if let Some(handle) = self.handle(at) {
            let published = handle.published();
            let before = self.history.iter().rev().find(|(node, _)| *node == at);
            if before.is_none_or(|(_, before)| *before != published) {
                self.history.push((at, published));
            }
        }
    }

    /// Whether a machine has stopped in the middle of a call; then its power is gone.
    pub(super) fn has_stopped(&mut self, at: u64) -> bool {
        let stopped = self.machine(at).has_stopped();
        if stopped {
            self.power_cut(at);
        }
        stopped
    }

    fn outside(&mut self, at: u64, effect: Effect) {
        match effect {
            Effect::Send(message) => {
                let to = self.routes.get(&(message.group, message.to)).copied();
                if let Some(to) = to {
                    let sent = Sent {
                        from: at,
                        to,
                        message,
                    };
                    self.send(sent);
                }
            }
            Effect::Produced { ticket, outcome } => {
                let before = self.answers.insert(ticket.request, outcome);
                assert_eq!(before, None, "request {} is answered once", ticket.request);
            }
            Effect::Confirmed { ticket, result } => {
                self.confirmed.insert(ticket.request, result);
            }
            Effect::Contradicted { group: GROUP } => {
                self.contradicted.insert(at);
            }
            Effect::Fenced { group: GROUP, why } => {
                eprintln!("node {at}: {why}");
                self.out_of_service.insert(at);
            }
            Effect::Advanced { .. } | Effect::Led { .. } => {}
            other => panic!("node {at}: {other:?}"),
        }
    }

    /// The process of a node is killed; its page cache lives on.
    pub(super) fn kill(&mut self, at: u64) {
        self.machine(at).kill();
    }

    /// A node loses power, and all that it had not synced.
    pub(super) fn power_cut(&mut self, at: u64) {
        self.great_rounds.remove(&at);
        self.machine(at).power_cut();
    }

    /// Starts a node and adds what recovery found; nothing is flushed yet.
    pub(super) fn start(&mut self, at: u64) {
        let settings = self.plan.settings.clone();
        self.out_of_service.remove(&at);
        let opened = self.machine(at).open(|_| settings.clone());
        let Some(opened) = opened else {
            return match self.machine(at).refusal.as_ref() {
                Some(error) => eprintln!("node {at} does not start: {error}"),
                None => self.power_cut(at),
            };
        };
        for unopened in &opened.unopened {
            eprintln!("node {at} does not open a partition: {}", unopened.why);
        }
        if opened.unopened.iter().any(|of| of.identity.group == GROUP) {
            self.out_of_service.insert(at);
        }
        let inputs = opened.partitions.into_iter();
        let inputs = inputs.map(|partition| Input::Add(Box::new(partition)));
        self.turn(at, inputs.collect());
        if self.runs(at) {
            self.reconcile(at);
        }
    }

    /// Whether a node's process runs.
    pub(super) fn runs(&mut self, at: u64) -> bool {
        self.machine(at).process.is_some()
    }

    pub(super) fn hang_disk(&mut self, at: u64) {
        self.machine(at).hung = true;
    }

    /// A hung disk does what it was asked for.
    pub(super) fn free_disk(&mut self, at: u64) {
        self.machine(at).hung = false;
        let inputs = self.machine(at).write_held();
        self.turn(at, inputs);
    }
}
