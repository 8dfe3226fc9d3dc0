//! How nodes with empty disks come to a cluster: production code decides (`founding`), and what nodes
//! ask each other takes its way through the network.
//!
//! The first nodes were started with one line of voters and found together; the others were told where
//! these are, and join. A node that lost its disk begins like a new one: a founder finds the cluster
//! there, without the directory that it has now, and joins.

use riverrun_replication::controller::{Command, Controller, RegisterBroker, Rejection};
use riverrun_replication::founding::{Answer, Candidate, Founding, Known, Member, Step};
use riverrun_replication::node::OpenError;
use riverrun_storage::planted::{self, Bug};
use uuid::Uuid;

use crate::boot::{node_id, settings_of};
use crate::clock::MS;
use crate::host::Process;
use crate::invariants::{Violation, one_cluster};
use crate::network::Fate;
use crate::plan::Plan;
use crate::world::{CONTROLLER, Event, World};

/// How often a node asks again.
const AGAIN_US: u64 = 100 * MS;

/// A node that has not come to a cluster yet.
#[derive(Debug)]
pub struct Coming {
    /// One of the voters that found together.
    founding: Option<Founding>,
    /// Whom it asks to be taken in.
    by: Vec<usize>,
    asked: usize,
    /// The data directory whose place this one is to take, as the cluster knows it.
    replaces: Vec<u8>,
}

/// What one node asks another.
#[derive(Debug)]
pub enum Question {
    /// How it came to its cluster.
    Founding(Candidate),
    /// To be taken in.
    Join(RegisterBroker),
}

/// What it is answered.
#[derive(Debug)]
pub enum Reply {
    /// Who it is, and how it came to its cluster.
    Founding(Candidate, Answer),
    /// The cluster, with a replica of group 0 for whoever asked.
    Joined(Known),
    /// The node is there on this directory.
    Other(Uuid),
}

impl Coming {
    fn new(plan: &Plan, me: Candidate, node: usize) -> Self {
        let founds = node < plan.founders;
        let founders = 0..plan.founders;
        let founding = founds.then(|| {
            let voters = founders.clone().map(node_id).collect();
            Founding::new(me, voters, "the voters".to_owned())
        });
        Self {
            founding,
            by: if founds {
                Vec::new()
            } else {
                founders.collect()
            },
            asked: 0,
            replaces: Vec::new(),
        }
    }
}

fn index_of(node: i32) -> usize {
    usize::try_from(node - 1).unwrap_or(usize::MAX)
}

impl Process {
    fn candidate(&self, node: usize) -> Candidate {
        Candidate {
            node: node_id(node),
            directory: self.node.directory_id(),
        }
    }

    /// Whether its own files say that the node has come to a cluster, or may have lost that.
    fn is_of_a_cluster(&self) -> bool {
        let store = self.node.store();
        store.identity().cluster_id.is_some() || store.damage().is_some()
    }

    /// The cluster that the node belongs to.
    #[must_use]
    pub fn cluster(&self) -> Option<Uuid> {
        self.known.as_ref().map(Known::cluster)
    }
}

impl World {
    /// A node that was started looks whether it has come to its cluster before.
    pub fn come_back(&mut self, node: usize) {
        let Some(process) = self.process(node) else {
            return;
        };
        let known = process.node.known();
        if self.is_blown(node) {
            return self.crash_inside(node);
        }
        match known {
            Ok(Some(known)) => self.knows(node, known),
            // The record is gone from beside what it speaks of.
            Ok(None) if process.node.handle(CONTROLLER).is_some() => {
                let cluster = process.node.store().identity().cluster_id;
                let cluster_id = cluster.map(|id| id.as_bytes().to_vec());
                let known = Known {
                    cluster_id: cluster_id.unwrap_or_default(),
                    ..Known::default()
                };
                self.knows(node, known);
            }
            Ok(None) if process.is_of_a_cluster() => self.set_node_aside(node),
            Ok(None) => {
                let me = process.candidate(node);
                let coming = Coming::new(&self.plan, me, node);
                if let Some(process) = self.process_mut(node) {
                    process.coming = Some(coming);
                }
                let life = self.hosts.get(node).map_or(0, |host| host.life);
                self.come(node, life);
            }
            Err(source) => {
                let what = "reading how the node came to its cluster";
                self.start_failed(node, &OpenError::Io { what, source });
            }
        }
    }

    /// A node knows its cluster, durably: it has its replica of group 0, or creates it.
    fn knows(&mut self, node: usize, known: Known) {
        for member in &known.members {
            let on = index_of(member.node);
            self.routes.insert((CONTROLLER, member.replica), on);
        }
        let cluster = known.cluster();
        if let Some(process) = self.process_mut(node) {
            process.known = Some(known);
            process.coming = None;
        }
        if let Some(host) = self.hosts.get_mut(node) {
            host.cluster = Some(cluster);
        }
        let clusters = self.hosts.iter().map(|host| host.cluster);
        let checked = one_cluster::comes(node, &clusters.collect::<Vec<_>>());
        self.check(checked);
        self.ensure_controller_replica(node);
    }

    /// A node that has not come to a cluster asks, and asks again.
    pub fn come(&mut self, node: usize, life: u64) {
        let founders = 0..self.plan.founders;
        if planted::is(Bug::R3) && self.votes_as_before(node) {
            return;
        }
        let Some(process) = self.process_mut(node) else {
            return;
        };
        let Some(coming) = &mut process.coming else {
            return;
        };
        coming.asked += 1;
        let to = coming.by.get(coming.asked % coming.by.len().max(1));
        let (to, replaces) = (to.copied(), coming.replaces.clone());
        let by = process.candidate(node);
        let joins = Question::Join(RegisterBroker {
            replaces: Some(replaces),
            ..registration(node, process)
        });
        self.clock.after(AGAIN_US, Event::Come { node, life });
        if let Some(to) = to {
            return self.ask(node, life, to, joins);
        }
        for to in founders.filter(|to| *to != node) {
            let question = Question::Founding(by.clone());
            self.ask(node, life, to, question);
        }
        // One that founds alone asks nobody.
        self.decide(node);
    }

    /// The planted bug: a voter whose disk is empty votes as if nothing had happened.
    fn votes_as_before(&mut self, node: usize) -> bool {
        let others = (0..self.hosts.len()).filter(|other| *other != node);
        let known = others
            .filter_map(|other| self.process(other)?.known.clone())
            .find(|known| known.founders);
        let (Some(mut known), Some(process)) = (known, self.process(node)) else {
            return false;
        };
        let directory = process.node.directory_id();
        let own = known.members.iter_mut();
        for member in own.filter(|member| member.node == node_id(node)) {
            member.directory = directory.as_bytes().to_vec();
        }
        if known
            .order(directory, settings_of(&self.plan, Uuid::nil()))
            .is_some()
        {
            self.write_down(node, known);
            return true;
        }
        false
    }

    fn ask(&mut self, from: usize, life: u64, to: usize, question: Question) {
        if let Fate::Arrives { delay_us, .. } = self.network.send(from, to, self.clock.now_us()) {
            let question = Box::new(question);
            let asked = Event::Asked {
                from,
                life,
                to,
                question,
            };
            self.clock.after(delay_us, asked);
        }
    }

    /// A node is asked by another one.
    pub fn asked(&mut self, from: usize, life: u64, to: usize, question: Question) {
        if self.network.is_cut(from, to) {
            return;
        }
        let reply = match question {
            Question::Founding(by) => self.answer_of_founding(to, &by),
            Question::Join(registration) => self.take_in(to, registration),
        };
        let Some(reply) = reply else { return };
        if let Fate::Arrives { delay_us, .. } = self.network.send(to, from, self.clock.now_us()) {
            let (node, reply) = (from, Box::new(reply));
            let told = Event::Told {
                by: to,
                node,
                life,
                reply,
            };
            self.clock.after(delay_us, told);
        }
    }

    fn answer_of_founding(&mut self, node: usize, by: &Candidate) -> Option<Reply> {
        let process = self.process_mut(node)?;
        let me = process.candidate(node);
        if let Some(known) = &process.known {
            return Some(Reply::Founding(me, Answer::Bound(known.clone())));
        }
        let founding = process.coming.as_mut()?.founding.as_mut()?;
        let voters = founding.line().to_owned();
        let empty = founding.asked(by);
        empty.then_some(Reply::Founding(me, Answer::Empty { voters }))
    }

    /// A node of the cluster has another one registered, and answers once its own image shows it.
    fn take_in(&mut self, node: usize, registration: RegisterBroker) -> Option<Reply> {
        let process = self.process(node)?;
        process.known.as_ref()?;
        let controller: &Controller = &process.controller;
        let directory = Uuid::from_slice(&registration.directory).ok()?;
        if let Some(known) = Known::joined(controller.image(), registration.node, directory) {
            return Some(Reply::Joined(known));
        }
        if !controller.image().cluster_id.is_nil() {
            let command: Command = match controller.plan_register_broker(registration) {
                Ok(command) => command,
                Err(Rejection::OtherDirectory { directory, .. }) => {
                    return Some(Reply::Other(directory));
                }
                Err(_) => return None,
            };
            let leader = self.leader_of(CONTROLLER)?;
            self.write_commands(leader, &[command]);
        }
        None
    }

    /// A node is answered.
    pub fn told(&mut self, by: usize, node: usize, reply: Reply) {
        if self.network.is_cut(by, node) {
            return;
        }
        let Some(coming) = self.process_mut(node).and_then(|p| p.coming.as_mut()) else {
            return;
        };
        match reply {
            Reply::Founding(by, answer) => {
                if let Some(founding) = &mut coming.founding {
                    founding.told(by, answer);
                }
                self.decide(node);
            }
            Reply::Other(directory) => coming.replaces = directory.as_bytes().to_vec(),
            Reply::Joined(known) => {
                self.summary.joined += 1;
                self.write_down(node, known);
            }
        }
    }

    /// A voter takes the next step.
    fn decide(&mut self, node: usize) {
        let coming = self.process_mut(node).and_then(|p| p.coming.as_mut());
        let Some(coming) = coming else { return };
        let Some(founding) = &mut coming.founding else {
            return;
        };
        match founding.decide() {
            Step::Found(founders) => {
                self.summary.founded += 1;
                // Whoever began with an earlier record has lost it, and spoke to nobody who has one.
                self.invariants.votes.begin_again(CONTROLLER);
                self.invariants.promises.begin_again(CONTROLLER);
                let members = founders.iter();
                let members = members.map(|founder| Member::new(founder, String::new(), 0));
                let id = Uuid::from_u128(0xc1 + (u128::from(self.summary.founded) << 64));
                let known = Known::founded(id, members.collect());
                self.write_down(node, known);
            }
            Step::TakeOver(known) => self.write_down(node, known),
            Step::Join(nodes) => coming.by = nodes.into_iter().map(index_of).collect(),
            Step::OtherVoters { node: of, .. } => {
                let detail = format!("node {node} takes node {of} for one of other voters");
                self.check(Err(Violation::new("one_cluster", detail)));
            }
            Step::WaitFor(_) | Step::WaitForFounder => {}
        }
    }

    fn write_down(&mut self, node: usize, known: Known) {
        let Some(process) = self.process(node) else {
            return;
        };
        let written = process.node.write_known(&known);
        if self.is_blown(node) {
            return self.crash_inside(node);
        }
        match written {
            Ok(()) => self.knows(node, known),
            Err(source) => {
                let what = "writing how the node came to its cluster";
                self.start_failed(node, &OpenError::Io { what, source });
            }
        }
    }

    /// A node of the cluster that has no replica of group 0 creates the one that it is known to have.
    pub fn ensure_controller_replica(&mut self, node: usize) {
        let Some(process) = self.process(node) else {
            return;
        };
        if process.node.handle(CONTROLLER).is_some() {
            return;
        }
        if process.cannot_go_on(CONTROLLER) {
            // It cannot go on with this directory.
            self.lose_disk(node);
            self.start_later(node);
            return;
        }
        if process.unopened(CONTROLLER).is_some() {
            return;
        }
        let Some(known) = &process.known else { return };
        let (cluster, directory) = (known.cluster(), process.node.directory_id());
        let Some(order) = known.order(directory, settings_of(&self.plan, Uuid::nil())) else {
            let detail = format!("node {node} came to a cluster that does not name it");
            return self.check(Err(Violation::new("one_cluster", detail)));
        };
        if process.node.store().damage().is_some() {
            // Its creation may be what the node WAL has lost (R12).
            let why = "the node WAL was damaged".to_owned();
            process.node.note_lost(&order.identity, why);
            self.set_node_aside(node);
            return;
        }
        let bound = process.node.store().set_cluster_id(cluster);
        match bound {
            _ if self.is_blown(node) => self.crash_inside(node),
            Ok(()) => {
                self.create(node, order);
            }
            Err(error) => self.order_failed(node, &OpenError::Store(error)),
        }
    }

    /// Whether every node is part of the cluster, by the word of whoever leads group 0.
    #[must_use]
    pub fn all_have_come(&self) -> bool {
        let leader = self.leader_of(CONTROLLER);
        let Some(leader) = leader.and_then(|leader| self.process(leader)) else {
            return false;
        };
        let brokers = &leader.controller.image().brokers;
        (0..self.hosts.len()).all(|node| {
            let directory = self
                .process(node)
                .map(|process| process.node.directory_id());
            let known = brokers.get(&node_id(node)).map(|broker| broker.directory);
            directory.is_some() && directory == known
        })
    }
}

/// How a node presents itself to the controller.
#[must_use]
pub fn registration(node: usize, process: &Process) -> RegisterBroker {
    RegisterBroker {
        node: node_id(node),
        directory: process.node.directory_id().as_bytes().to_vec(),
        incarnation: process.node.incarnation(),
        host: format!("node{node}"),
        port: 9092,
        token: process.node.starts().last().map_or(0, |start| start.token),
        replaces: Some(Vec::new()),
        ..RegisterBroker::default()
    }
}
