//! The whole cluster in one thread: the queue of events, and the turns of nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use riverrun_record::{Limits, validate};
use riverrun_replication::controller::{Command, Outcome};
use riverrun_replication::message::{Body, PeerMessage, RaftKind};
use riverrun_replication::shard::{Effect, Input};
use riverrun_replication::{Produce, ProduceError, Role, Ticket, Word};
use riverrun_storage::{EntryKind, LogEntry};
use uuid::Uuid;

use crate::changes::{self, CHANGE, Changes};
use crate::clock::{Clock, MS};
use crate::coming::{Question, Reply};
use crate::connections::Connections;
use crate::history::History;
use crate::host::{Flusher, Host, LaneWrite, Process, Syncing};
use crate::invariants::acknowledged_is_never_lost as lost;
use crate::invariants::nothing_uncommitted_is_served as served;
use crate::invariants::{Checked, Invariants, Violation, nothing_committed_is_cut};
use crate::links::Links;
use crate::mark::Mark;
use crate::nemesis::Nemesis;
use crate::network::{Fate, Network};
use crate::operator::Operator;
use crate::plan::{Fault, Plan};
use crate::reader::Readers;
use crate::rng::Rng;
use crate::scrub::Rot;
use crate::story::{Deed, Step, Stories};
use crate::summary::Summary;
use crate::topics::Topics;
use crate::trace::Trace;
use crate::workload::{Answer, Client, Request};

/// The controller's group.
pub const CONTROLLER: u64 = 0;
/// Tickets of confirmations carry this connection.
pub const CONFIRM: u64 = u64::MAX - 1;
/// Tickets of the operator carry this one.
pub const OPERATOR: u64 = u64::MAX - 2;
/// Rounds that the flusher begins while an order waits, before the order comes first.
const MOST_STARVED: u32 = 200;
/// More rounds than this in one turn never end.
const MAX_ROUNDS: u32 = 10_000;

/// Something that happens at a time.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is what its name says")]
pub enum Event {
    Start {
        node: usize,
    },
    Tick {
        node: usize,
        life: u64,
    },
    Come {
        node: usize,
        life: u64,
    },
    Asked {
        from: usize,
        life: u64,
        to: usize,
        question: Box<Question>,
    },
    Told {
        by: usize,
        node: usize,
        life: u64,
        reply: Box<Reply>,
    },
    Frame {
        from: usize,
        to: usize,
        cluster: Option<Uuid>,
        messages: Vec<PeerMessage>,
    },
    Unreachable {
        node: usize,
        life: u64,
        replicas: Vec<(u64, u64)>,
    },
    Lane {
        node: usize,
        life: u64,
        group: u64,
    },
    Work {
        node: usize,
        life: u64,
    },
    Synced {
        node: usize,
        life: u64,
    },
    Client {
        client: usize,
    },
    Request {
        node: usize,
        request: Box<Request>,
    },
    Answer {
        answer: Answer,
    },
    Read {
        group: usize,
    },
    Reopen {
        node: usize,
        life: u64,
    },
    AskedWord {
        from: usize,
        life: u64,
        to: usize,
        group: u64,
    },
    ToldWord {
        node: usize,
        life: u64,
        committed: u64,
        word: Box<Word>,
    },
    Proposed {
        to: usize,
        command: Box<Command>,
    },
    Change {
        node: usize,
        life: u64,
        step: changes::Step,
    },
    ChangeAsked {
        from: usize,
        to: usize,
        number: u64,
        batch: Bytes,
    },
    Links,
    Announced {
        from: usize,
        to: usize,
        link: u64,
        announcement: Bytes,
    },
    Gone {
        by: usize,
        life: u64,
        gone: usize,
    },
    Closed {
        from: usize,
        to: usize,
        topics: Vec<Uuid>,
    },
    Switch {
        client: usize,
        group: u64,
    },
    Operator,
    HandOver,
    GoOn {
        node: usize,
    },
    Fault,
    Story {
        step: Step,
        node: usize,
        group: u64,
    },
    Look,
}

/// What a turn collects besides what it does at once.
#[derive(Debug, Default)]
struct Turn {
    work: Vec<(usize, Input)>,
    frames: BTreeMap<usize, Vec<PeerMessage>>,
    advanced: BTreeSet<u64>,
}

/// The simulation.
#[derive(Debug)]
pub struct World {
    /// What the seed decided.
    pub plan: Plan,
    /// The queue.
    pub clock: Clock<Event>,
    /// The nodes.
    pub hosts: Vec<Host>,
    /// The network between them.
    pub network: Network,
    /// The connections over which leaders are told.
    pub links: Links,
    /// The clients.
    pub clients: Vec<Client>,
    /// What they did.
    pub history: History,
    /// What must hold.
    pub invariants: Invariants,
    /// Faults.
    pub nemesis: Nemesis,
    /// Faults that follow each other.
    pub stories: Stories,
    /// The cluster's administration.
    pub operator: Operator,
    /// Consumers.
    pub readers: Readers,
    /// Draws of disks and nodes.
    pub rng: Rng,
    /// The node of every replica.
    pub routes: BTreeMap<(u64, u64), usize>,
    /// Places in the plan of data groups, once they exist.
    pub groups: BTreeMap<u64, usize>,
    /// The same of all that there ever were.
    pub every_group: BTreeMap<u64, usize>,
    /// Topics that were deleted.
    pub topics: Topics,
    /// Changes that nodes propose.
    pub changes: Changes,
    /// Nodes on which a `write.caching` group may have lost what it held in memory.
    pub short: BTreeMap<u64, BTreeSet<usize>>,
    /// `write.caching` groups a majority of which lost its memory: loss is within the promise.
    pub excused: BTreeSet<u64>,
    /// The last entry that each replica was seen to count for itself.
    pub counted: BTreeMap<(u64, u64), u64>,
    /// Figures.
    pub summary: Summary,
    /// Everything in one number.
    pub trace: Trace,
    /// The first broken invariant.
    pub violation: Option<Violation>,
    /// Faults have stopped.
    pub calm: bool,
    /// The connections of clients that have one.
    pub connections: Connections,
    /// What rots, and who looks for it.
    pub rot: Rot,
    effects: Vec<Effect>,
}

impl World {
    /// A cluster of empty disks.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let seed = plan.seed;
        let nodes = plan.nodes;
        let mut rng = Rng::stream(seed, "world");
        let clients = plan
            .clients
            .iter()
            .enumerate()
            .map(|(at, client)| {
                Client::new(
                    at,
                    *client,
                    nodes,
                    Rng::stream(seed, &format!("client {at}")),
                )
            })
            .collect();
        let mut hosts: Vec<Host> = (0..nodes).map(|_| Host::new()).collect();
        for host in &mut hosts {
            let skew = plan.skew_permille;
            host.clock_permille = 1000 + rng.between(0, 2 * skew) - skew;
        }
        let mut world = Self {
            network: Network::new(plan.network, nodes, Rng::stream(seed, "network")),
            links: Links::new(Rng::stream(seed, "links")),
            clock: Clock::default(),
            hosts,
            clients,
            history: History::default(),
            invariants: Invariants::default(),
            nemesis: Nemesis::new(Rng::stream(seed, "nemesis")),
            stories: Stories::new(&plan),
            operator: Operator::new(&plan),
            readers: Readers::new(Rng::stream(seed, "readers")),
            rng,
            routes: BTreeMap::new(),
            groups: BTreeMap::new(),
            every_group: BTreeMap::new(),
            topics: Topics::new(&plan),
            changes: Changes::new(&plan),
            short: BTreeMap::new(),
            excused: BTreeSet::new(),
            counted: BTreeMap::new(),
            summary: Summary {
                runs: 1,
                ..Summary::default()
            },
            trace: Trace::default(),
            violation: None,
            calm: false,
            connections: Connections::default(),
            rot: Rot::new(seed, nodes),
            effects: Vec::new(),
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for node in 0..self.plan.nodes {
            let delay = self.rng.between(0, self.plan.start_within_us);
            if let Some(host) = self.hosts.get_mut(node) {
                host.starting = true;
            }
            self.clock.after(delay, Event::Start { node });
        }
        for client in 0..self.clients.len() {
            self.clock
                .after(100 * MS + client as u64, Event::Client { client });
        }
        for group in 0..self.plan.groups.len() {
            self.clock.after(500 * MS, Event::Read { group });
        }
        self.clock.after(50 * MS, Event::Links);
        self.clock.after(100 * MS, Event::Operator);
        self.clock.after(500 * MS, Event::Look);
        if !self.plan.faults.is_empty() {
            self.clock.after(self.plan.faults_from_us, Event::Fault);
        }
        if let Some(every) = self.plan.hand_over_every_us {
            self.clock.after(2000 * MS + every, Event::HandOver);
        }
        if !self.plan.stories.is_empty() {
            let (step, node, group) = (Step::Begin, 0, 0);
            self.clock
                .after(2500 * MS, Event::Story { step, node, group });
        }
    }

    /// Notes the first broken invariant.
    pub fn check(&mut self, checked: Checked) {
        if let (Err(violation), None) = (checked, &self.violation) {
            self.violation = Some(violation);
        }
    }

    /// Lets one event happen. False when there is none, which never is.
    pub fn step(&mut self) -> bool {
        let Some(event) = self.clock.next() else {
            return false;
        };
        self.summary.events += 1;
        self.trace.note(&[self.clock.now_us()]);
        tracing::trace!(now_us = self.clock.now_us(), ?event, "event");
        self.happen(event);
        true
    }

    /// Whether a life of a node goes on.
    #[must_use]
    pub fn lives(&self, node: usize, life: u64) -> bool {
        self.hosts
            .get(node)
            .is_some_and(|host| host.life == life && host.process.is_some())
    }

    /// What happens to a node that stands still waits, in order, until the node goes on.
    fn wait(&mut self, node: usize, event: Event) -> Option<Event> {
        let now = self.clock.now_us();
        let Some(host) = self.hosts.get_mut(node) else {
            return Some(event);
        };
        let stands_still = host.paused_until_us > now;
        if !stands_still && host.waiting.is_empty() {
            return Some(event);
        }
        if host.waiting.is_empty() {
            let left = host.paused_until_us - now;
            self.clock.after(left, Event::GoOn { node });
        }
        host.waiting.push_back(event);
        None
    }

    /// A node goes on: what has waited for it happens, one after another.
    fn go_on(&mut self, node: usize) {
        let now = self.clock.now_us();
        let Some(host) = self.hosts.get_mut(node) else {
            return;
        };
        if host.waiting.is_empty() {
            return;
        }
        if host.paused_until_us > now {
            let left = host.paused_until_us - now;
            self.clock.after(left, Event::GoOn { node });
            return;
        }
        for event in std::mem::take(&mut host.waiting) {
            self.happen(event);
        }
    }

    /// A node does not stand still any longer.
    pub fn wake(&mut self, node: usize) {
        if let Some(host) = self.hosts.get_mut(node) {
            host.paused_until_us = 0;
            self.clock.after(0, Event::GoOn { node });
        }
    }

    fn happen(&mut self, event: Event) {
        let event = if let Event::Tick { node, .. }
        | Event::Come { node, .. }
        | Event::Asked { to: node, .. }
        | Event::Told { node, .. }
        | Event::Frame { to: node, .. }
        | Event::Announced { to: node, .. }
        | Event::Gone { by: node, .. }
        | Event::Closed { to: node, .. }
        | Event::Change { node, .. }
        | Event::ChangeAsked { to: node, .. }
        | Event::Unreachable { node, .. }
        | Event::Lane { node, .. }
        | Event::Work { node, .. }
        | Event::Synced { node, .. }
        | Event::Request { node, .. } = &event
        {
            let node = *node;
            let Some(event) = self.wait(node, event) else {
                return;
            };
            event
        } else {
            event
        };
        match event {
            Event::Start { node } => self.start(node),
            Event::Tick { node, life } if self.lives(node, life) => self.tick(node, life),
            Event::Come { node, life } if self.lives(node, life) => self.come(node, life),
            Event::Asked {
                from,
                life,
                to,
                question,
            } => self.asked(from, life, to, *question),
            Event::Told {
                by,
                node,
                life,
                reply,
            } if self.lives(node, life) => self.told(by, node, *reply),
            Event::Frame {
                from,
                to,
                cluster,
                messages,
            } => self.frame(from, to, cluster, messages),
            Event::Unreachable {
                node,
                life,
                replicas,
            } if self.lives(node, life) => {
                let inputs = replicas.into_iter();
                let inputs =
                    inputs.map(|(group, replica)| (group, Input::Unreachable { group, replica }));
                self.inputs(node, inputs.collect());
            }
            Event::Lane { node, life, group } if self.lives(node, life) => self.lane(node, group),
            Event::Work { node, life } if self.lives(node, life) => self.work(node),
            Event::Synced { node, life } if self.lives(node, life) => self.synced(node),
            Event::Client { client } => self.wake_client(client),
            Event::Request { node, request } => self.request(node, *request),
            Event::Answer { answer } => self.answer(&answer),
            Event::Read { group } => self.read(group),
            Event::Reopen { node, life } if self.lives(node, life) => self.reopen(node, life),
            Event::AskedWord {
                from,
                life,
                to,
                group,
            } => self.asked_word(from, life, to, group),
            Event::ToldWord {
                node,
                life,
                committed,
                word,
            } if self.lives(node, life) => {
                self.told_word(node, committed, &word);
            }
            Event::Proposed { to, command } => self.write_commands(to, &[*command]),
            Event::Change { node, life, step } if self.lives(node, life) => {
                self.change(node, step);
            }
            Event::ChangeAsked {
                from,
                to,
                number,
                batch,
            } => self.change_is_asked_for(from, to, number, &batch),
            Event::Links => self.look_after_links(),
            Event::Announced {
                from,
                to,
                link,
                announcement,
            } => self.announced(from, to, link, announcement),
            Event::Gone { by, life, gone } => self.takes_for_dead(by, life, gone),
            Event::Closed { from, to, topics } => self.is_closed(from, to, &topics),
            Event::Switch { client, group } => self.switch(client, group),
            Event::Operator => self.operate(),
            Event::GoOn { node } => self.go_on(node),
            Event::HandOver => self.hand_over(),
            Event::Fault => self.strike(),
            Event::Story { step, node, group } => self.tell(step, node, group),
            Event::Look => self.look_around(),
            _ => {}
        }
    }

    fn tick(&mut self, node: usize, life: u64) {
        let permille = self
            .hosts
            .get(node)
            .map_or(1000, |host| host.clock_permille)
            .max(1);
        self.clock.after(
            self.plan.tick_us * 1000 / permille,
            Event::Tick { node, life },
        );
        let Some(process) = self.process(node) else {
            return;
        };
        let mut inputs: Vec<(usize, Input)> = (0..process.shards.len())
            .map(|shard| (shard, Input::Tick))
            .collect();
        if self.plan.has(Fault::FullDisk) || self.plan.has(Fault::Refuse) {
            for input in process.node.retry() {
                if let Input::Written { group, .. }
                | Input::Full { group }
                | Input::Failed { group, .. } = &input
                {
                    inputs.push((process.shard_of(*group), input));
                }
            }
        }
        self.turn(node, inputs);
    }

    /// A node's process, where it runs.
    #[must_use]
    pub fn process(&self, node: usize) -> Option<&Process> {
        self.hosts.get(node)?.process.as_deref()
    }

    /// The same, to be changed.
    pub fn process_mut(&mut self, node: usize) -> Option<&mut Process> {
        self.hosts.get_mut(node)?.process.as_deref_mut()
    }

    /// Gives a node inputs of groups.
    pub fn inputs(&mut self, node: usize, inputs: Vec<(u64, Input)>) {
        let Some(process) = self.process(node) else {
            return;
        };
        let placed = inputs
            .into_iter()
            .map(|(group, input)| process.place(group, input))
            .collect();
        self.turn(node, placed);
    }

    fn frame(&mut self, from: usize, to: usize, cluster: Option<Uuid>, messages: Vec<PeerMessage>) {
        // Nodes of two clusters have no link.
        let is_of_it = |process: &Process| process.cluster() == cluster;
        if self.network.is_cut(from, to) || !self.process(to).is_some_and(is_of_it) {
            self.summary.frames_lost += 1;
            let noticed = self.rng.between(MS / 2, 200 * MS);
            self.notice_lost(from, &messages, noticed);
            return;
        }
        let now = self.clock.now_us();
        if let Some(host) = self.hosts.get_mut(to) {
            host.heard_us.insert(from, now);
        }
        self.is_heard(from, to);
        let inputs = messages
            .into_iter()
            .map(|m| (m.group, Input::Message(m)))
            .collect();
        self.inputs(to, inputs);
    }

    /// The sender of messages that were lost learns of it.
    fn notice_lost(&mut self, from: usize, messages: &[PeerMessage], after_us: u64) {
        let mut replicas: Vec<(u64, u64)> = messages.iter().map(|m| (m.group, m.to)).collect();
        replicas.sort_unstable();
        replicas.dedup();
        let life = self.hosts.get(from).map_or(0, |host| host.life);
        self.clock.after(
            after_us,
            Event::Unreachable {
                node: from,
                life,
                replicas,
            },
        );
    }

    /// One turn of a node: its inputs, and what their effects lead to at once.
    pub fn turn(&mut self, node: usize, inputs: Vec<(usize, Input)>) {
        let Some(mut process) = self
            .hosts
            .get_mut(node)
            .and_then(|host| host.process.take())
        else {
            return;
        };
        let mut turn = Turn {
            work: inputs,
            ..Turn::default()
        };
        let mut effects = std::mem::take(&mut self.effects);
        let mut rounds = 0;
        let mut blown = false;
        while !turn.work.is_empty() && !blown && self.violation.is_none() {
            let work = std::mem::take(&mut turn.work);
            for (_, input) in &work {
                if let Input::Failed { group, .. } = input {
                    process.failed.insert(*group);
                }
            }
            let now = Duration::from_micros(self.clock.now_us());
            if let [shard] = process.shards.as_mut_slice() {
                let inputs = work.into_iter().map(|(_, input)| input);
                shard.turn(now, inputs, &mut effects);
            } else {
                let mut by_shard: Vec<Vec<Input>> =
                    process.shards.iter().map(|_| Vec::new()).collect();
                for (shard, input) in work {
                    if let Some(list) = by_shard.get_mut(shard) {
                        list.push(input);
                    }
                }
                for (shard, inputs) in process.shards.iter_mut().zip(by_shard) {
                    if !inputs.is_empty() {
                        shard.turn(now, inputs, &mut effects);
                    }
                }
            }
            for effect in effects.drain(..) {
                self.effect(node, &mut process, effect, &mut turn);
                blown = self.is_blown(node);
                if blown {
                    break;
                }
            }
            rounds += 1;
            if rounds > MAX_ROUNDS {
                let detail = format!("a turn of node {node} never ends");
                self.check(Err(Violation::new("every_turn_ends", detail)));
            }
        }
        effects.clear();
        self.effects = effects;
        if !blown {
            for group in std::mem::take(&mut turn.advanced) {
                self.unrefused(node, |world| world.look_at(node, &mut process, group));
            }
        }
        let reconcile = std::mem::take(&mut process.must_reconcile);
        let between_rounds = matches!(process.flusher, Flusher::Idle);
        let starving = reconcile && between_rounds && process.starved > MOST_STARVED;
        if let Some(host) = self.hosts.get_mut(node) {
            host.process = Some(process);
        }
        if blown {
            // What was handed to the network before the machine stopped may have left it.
            if self.rng.coin() {
                self.send(node, turn.frames);
            }
            self.crash_inside(node);
            return;
        }
        self.send(node, turn.frames);
        self.tell_leaders(node);
        if starving {
            // Orders and rounds take turns on a real node, however much is written.
            if let Some(process) = self.process_mut(node) {
                process.starved = 0;
                process.holds_rounds = true;
            }
            self.reconcile(node);
            if let Some(process) = self.process_mut(node) {
                process.holds_rounds = false;
            }
            self.flusher(node);
            return;
        }
        self.flusher(node);
        if reconcile {
            self.reconcile(node);
        }
    }

    /// Whether a node's machine has stopped in the middle of a disk call.
    #[must_use]
    pub fn is_blown(&self, node: usize) -> bool {
        self.hosts
            .get(node)
            .is_some_and(|host| host.fuse.is_blown())
    }

    fn send(&mut self, from: usize, frames: BTreeMap<usize, Vec<PeerMessage>>) {
        let cluster = self.process(from).and_then(Process::cluster);
        for (to, messages) in frames {
            self.trace
                .note(&[from as u64, to as u64, messages.len() as u64]);
            match self.network.send(from, to, self.clock.now_us()) {
                Fate::Lost { noticed_us } => {
                    self.summary.frames_lost += 1;
                    self.notice_lost(from, &messages, noticed_us);
                }
                Fate::Arrives { delay_us, again_us } => {
                    if let Some(again_us) = again_us {
                        let messages = messages.clone();
                        let again = Event::Frame {
                            from,
                            to,
                            cluster,
                            messages,
                        };
                        self.clock.after(again_us, again);
                    }
                    let frame = Event::Frame {
                        from,
                        to,
                        cluster,
                        messages,
                    };
                    self.clock.after(delay_us, frame);
                }
            }
        }
    }

    fn effect(&mut self, node: usize, process: &mut Process, effect: Effect, turn: &mut Turn) {
        tracing::trace!(node, ?effect, "effect");
        match effect {
            Effect::Write { group, entries } => {
                self.want_write(node, process, group, entries, turn)
            }
            Effect::Flush(item) => {
                self.note_cut(process, &item);
                process.node.want_flush(item);
            }
            Effect::Op { group, op } => process.node.want_op(group, op),
            Effect::Send(message) => {
                self.note_promise(process, &message);
                self.watch(node, process, message, turn);
            }
            Effect::Produced { ticket, outcome } if ticket.connection == CHANGE => {
                self.change_is_answered(node, ticket, &outcome);
            }
            Effect::Produced { ticket, outcome } => {
                let leader = match outcome {
                    Err(ProduceError::NotLeader) => self.hint(process, ticket),
                    _ => None,
                };
                self.trace
                    .note(&[ticket.request, u64::from(outcome.is_ok())]);
                let made = self.history.batch(ticket.request.cast_signed());
                if let Some(batch) = made.filter(|batch| batch.durable && outcome.is_ok()) {
                    let replaced = &self.invariants.replaced;
                    let batch_id = ticket.request.cast_signed();
                    let checked = replaced.acknowledges(batch.group, node, batch_id);
                    self.check(checked);
                }
                if ticket.connection != OPERATOR {
                    self.send_answer(Answer {
                        client: usize::try_from(ticket.connection).unwrap_or(usize::MAX),
                        batch: ticket.request.cast_signed(),
                        attempt: u64::from(ticket.slot),
                        outcome,
                        leader,
                    });
                }
            }
            Effect::Confirmed { ticket, result } => {
                if let Ok(published) = result {
                    let checked = self
                        .invariants
                        .confirmed
                        .answered(ticket.request, published.high_watermark);
                    self.check(checked);
                }
            }
            Effect::Led { group } => {
                process.led.insert(group);
            }
            Effect::Advanced { group } => {
                turn.advanced.insert(group);
            }
            Effect::Committed(batch) => {
                self.apply_commands(node, process, &batch.batch);
                process.must_reconcile = true;
            }
            Effect::Contradicted { group } => {
                if process.node.handle(group).is_some() {
                    process.contradicted.insert(group);
                    self.mark_short(group, node);
                }
            }
            Effect::Word { ticket, result } => {
                self.word_is_given(node, process, ticket, result);
            }
            Effect::Fenced { group, why } => self.fenced(node, process, group, &why),
        }
    }

    /// A batch of group 0 is committed on a node.
    pub fn apply_commands(&mut self, node: usize, process: &mut Process, batch: &[u8]) {
        match process.controller.apply_batch(batch) {
            Ok(outcomes) => {
                let checked = self
                    .invariants
                    .controllers
                    .applied(node, &process.controller);
                self.check(checked);
                self.look_at_replaced(process.controller.image(), &outcomes, batch);
                for outcome in &outcomes {
                    if let Outcome::Replaced { group, .. } = outcome {
                        self.heard_of_successor(node, *group);
                    }
                }
                self.look_at_topics(&process.controller);
                self.look_at_changes(node, process, batch, outcomes);
            }
            Err(error) => {
                let detail = format!("node {node}: {error}");
                self.check(Err(Violation::new("controllers_agree", detail)));
            }
        }
    }

    /// A group went out of service. Where the disk had not failed it, something in it panicked.
    fn fenced(&mut self, node: usize, process: &mut Process, group: u64, why: &str) {
        self.summary.fenced += 1;
        process.node.fence(group);
        if self.nemesis.may_be_damaged(node) {
            process.contradicted.insert(group);
        } else if !process.failed.contains(&group) {
            let detail = format!("group {group} on node {node}: {why}");
            self.check(Err(Violation::new("no_group_panics", detail)));
        }
        self.mark_short(group, node);
        // Somebody sees the alarm, and starts the node again.
        let delay = self.rng.between(200 * MS, 2000 * MS);
        self.nemesis
            .restart_later(node, self.clock.now_us() + delay);
    }

    fn hint(&self, process: &Process, ticket: Ticket) -> Option<usize> {
        let batch = self.history.batch(ticket.request.cast_signed())?;
        let leader = process.node.handle(batch.group)?.published().leader_replica;
        self.routes.get(&(batch.group, leader)).copied()
    }

    /// A message leaves: votes are noted.
    fn watch(&mut self, node: usize, process: &Process, message: PeerMessage, turn: &mut Turn) {
        if let Body::Raft(raft) = &message.body {
            let vote = match raft.kind {
                RaftKind::RequestVote => Some(message.from),
                RaftKind::RequestVoteResponse if !raft.reject => Some(message.to),
                _ => None,
            };
            if let Some(candidate) = vote {
                let votes = &mut self.invariants.votes;
                let checked = votes.cast(message.group, message.from, raft.term, candidate);
                self.check(checked);
                let view = process.views.get(&message.group);
                let is_empty = view.is_some_and(|view| view.last() == 0);
                self.voted(node, message.group, is_empty);
            }
        }
        if let Some(to) = self.routes.get(&(message.group, message.to)) {
            turn.frames.entry(*to).or_default().push(message);
        }
    }

    fn want_write(
        &mut self,
        node: usize,
        process: &mut Process,
        group: u64,
        entries: Vec<LogEntry>,
        turn: &mut Turn,
    ) {
        let queued = process
            .lanes
            .get(&group)
            .is_some_and(|lane| !lane.is_empty());
        let now = self.clock.now_us();
        let hung = self
            .hosts
            .get(node)
            .map_or(0, |host| host.hung_until_us)
            .saturating_sub(now);
        let slow = !self.calm && self.rng.chance(self.plan.disk.slow_write_permille);
        if !queued && !slow && hung == 0 {
            self.write(node, process, group, entries, turn);
            return;
        }
        process
            .lanes
            .entry(group)
            .or_default()
            .push_back(LaneWrite { entries });
        if !queued {
            let delay = hung + self.rng.between(0, self.plan.disk.slow_us / 10);
            let life = self.hosts.get(node).map_or(0, |host| host.life);
            self.clock.after(delay, Event::Lane { node, life, group });
        }
    }

    /// A write that left its turn is carried out.
    fn lane(&mut self, node: usize, group: u64) {
        let Some(mut process) = self
            .hosts
            .get_mut(node)
            .and_then(|host| host.process.take())
        else {
            return;
        };
        let mut turn = Turn::default();
        if let Some(write) = process
            .lanes
            .get_mut(&group)
            .and_then(|lane| lane.pop_front())
        {
            self.write(node, &mut process, group, write.entries, &mut turn);
        }
        let more = process
            .lanes
            .get(&group)
            .is_some_and(|lane| !lane.is_empty());
        if let Some(host) = self.hosts.get_mut(node) {
            host.process = Some(process);
        }
        if self.is_blown(node) {
            self.crash_inside(node);
            return;
        }
        if more {
            let life = self.hosts.get(node).map_or(0, |host| host.life);
            let delay = self.rng.between(0, MS);
            self.clock.after(delay, Event::Lane { node, life, group });
        }
        self.turn(node, turn.work);
    }

    fn write(
        &mut self,
        node: usize,
        process: &mut Process,
        group: u64,
        entries: Vec<LogEntry>,
        turn: &mut Turn,
    ) {
        let partition = process.partition(group);
        let alone = partition.is_some_and(|partition| !partition.group().term_is_durable());
        let view = process.views.entry(group).or_default();
        for entry in &entries {
            let mark = Mark::of(entry);
            let checked = view
                .push(group, node, mark)
                .and_then(|()| self.invariants.bytes.saw(group, node, &mark, alone));
            if let (Err(violation), None) = (checked, &self.violation) {
                self.violation = Some(violation);
            }
            self.trace
                .note(&[group, mark.index, mark.term, u64::from(mark.crc)]);
            if mark.kind == EntryKind::Conf {
                self.did(Deed::WritesChange, node, group);
            }
        }
        if self.violation.is_some() {
            // The log would refuse by an assertion what was found wrong here.
            return;
        }
        let Some(input) = process.node.write(group, entries) else {
            return;
        };
        turn.work.push(process.place(group, input));
    }

    /// Starts what the flusher of a node would do next.
    pub fn flusher(&mut self, node: usize) {
        let now = self.clock.now_us();
        let Some(host) = self.hosts.get_mut(node) else {
            return;
        };
        let life = host.life;
        let hung = host.hung_until_us.saturating_sub(now);
        let Some(process) = host.process.as_deref_mut() else {
            return;
        };
        if !matches!(process.flusher, Flusher::Idle)
            || process.holds_rounds
            || !process.node.wants()
        {
            return;
        }
        let ops = process.node.take_ops();
        if !ops.is_empty() {
            process.flusher = Flusher::Working(ops);
            let delay = hung + self.rng.between(0, self.plan.disk.flush_us.1);
            self.clock.after(delay, Event::Work { node, life });
            return;
        }
        self.begin_round(node);
    }

    fn begin_round(&mut self, node: usize) {
        let now = self.clock.now_us();
        let Some(host) = self.hosts.get_mut(node) else {
            return;
        };
        let (life, disk) = (host.life, host.disk.clone());
        let hung = host.hung_until_us.saturating_sub(now);
        let Some(process) = host.process.as_deref_mut() else {
            return;
        };
        process.flusher = Flusher::Idle;
        let begun = process.node.begin_round();
        match begun {
            Ok(Some(round)) => {
                disk.begin_slow_syncs();
                let result = process.node.sync_round(&round);
                let slow = disk.take_slow_syncs();
                process.flusher = Flusher::Syncing(Box::new(Syncing {
                    round,
                    result,
                    slow,
                }));
                self.summary.flush_rounds += 1;
                let plan = self.plan.disk;
                let mut delay = hung + self.rng.between(plan.flush_us.0, plan.flush_us.1);
                if !self.calm && self.rng.chance(plan.slow_permille) {
                    delay += self.rng.between(0, plan.slow_us);
                }
                self.clock.after(delay, Event::Synced { node, life });
            }
            Ok(None) => self.checkpoint(node),
            Err(error) => self.store_failed(node, &error),
        }
        if self.is_blown(node) {
            self.crash_inside(node);
        }
    }

    /// A checkpoint where one is due. It blocks the flusher and nobody else.
    fn checkpoint(&mut self, node: usize) {
        let Some(process) = self.process_mut(node) else {
            return;
        };
        if !process.node.store().needs_checkpoint() {
            return;
        }
        let mut failed = Vec::new();
        match process.node.store().checkpoint() {
            Ok(result) => failed.extend(result.failed),
            Err(error) => return self.store_failed(node, &error),
        }
        failed.extend(process.node.store().take_failed_logs());
        let inputs: Vec<(u64, Input)> = failed
            .into_iter()
            .map(|(group, why)| {
                (
                    group,
                    Input::Failed {
                        group,
                        why: why.to_string(),
                    },
                )
            })
            .collect();
        if !inputs.is_empty() {
            self.inputs(node, inputs);
        }
    }

    /// The blocking work of a node's flusher is done.
    fn work(&mut self, node: usize) {
        let Some(mut process) = self
            .hosts
            .get_mut(node)
            .and_then(|host| host.process.take())
        else {
            return;
        };
        let Flusher::Working(ops) = std::mem::take(&mut process.flusher) else {
            if let Some(host) = self.hosts.get_mut(node) {
                host.process = Some(process);
            }
            return;
        };
        let mut inputs = Vec::new();
        for (group, op) in ops {
            self.watch_op(node, &mut process, group, &op);
            if self.violation.is_some() {
                break;
            }
            if let Some(input) = process.node.run_op(group, &op) {
                inputs.push((group, input));
            }
            if self.is_blown(node) {
                break;
            }
        }
        if let Some(host) = self.hosts.get_mut(node) {
            host.process = Some(process);
        }
        if self.is_blown(node) {
            self.crash_inside(node);
            return;
        }
        self.inputs(node, inputs);
        self.flusher(node);
    }

    fn watch_op(
        &mut self,
        node: usize,
        process: &mut Process,
        group: u64,
        op: &riverrun_replication::group::Op,
    ) {
        use riverrun_replication::group::Op;
        let view = process.views.entry(group).or_default();
        match op {
            Op::Cut { from } => {
                self.summary.cuts += 1;
                self.trace.note(&[group, *from]);
                let commit = view.checked;
                view.cut(*from);
                self.check(nothing_committed_is_cut::cuts(group, node, *from, commit));
                self.did(Deed::Cuts, node, group);
            }
            Op::Reset { start, .. } => {
                self.summary.snapshots += 1;
                view.reset(start.prev_index);
            }
            Op::DropHead { .. } => self.summary.heads_dropped += 1,
            Op::ProducerSnapshot { .. } | Op::SaveProducers { .. } => {}
        }
    }

    /// A flush round has ended.
    fn synced(&mut self, node: usize) {
        let Some(host) = self.hosts.get_mut(node) else {
            return;
        };
        let disk = host.disk.clone();
        let Some(process) = host.process.as_deref_mut() else {
            return;
        };
        let Flusher::Syncing(syncing) = std::mem::take(&mut process.flusher) else {
            return;
        };
        let Syncing {
            round,
            result,
            slow,
        } = *syncing;
        disk.finish_syncs(slow);
        let ended = result.and_then(|result| process.node.end_round(round, &result));
        let inputs = match ended {
            Ok(inputs) => inputs,
            Err(error) => return self.store_failed(node, &error),
        };
        if node == self.plan.victim
            && self.plan.has(Fault::FlipBits)
            && let Some(host) = self.hosts.get_mut(node)
        {
            let lengths = host.disk.durable_files().into_iter().collect();
            host.durable_lengths.swap(0, 1);
            let [_, newest] = &mut host.durable_lengths;
            *newest = lengths;
        }
        if node == self.plan.victim
            && self.plan.has(Fault::HurtNode)
            && let Some(host) = self.hosts.get_mut(node)
            && let Some(process) = &host.process
        {
            host.wal_tails.swap(0, 1);
            host.wal_tails[1] = process.node.store().wal_live().end;
        }
        if self.is_blown(node) {
            self.crash_inside(node);
            return;
        }
        let mut placed = Vec::with_capacity(inputs.len());
        for input in inputs {
            let group = match &input {
                Input::Flushed { group } | Input::Failed { group, .. } => *group,
                _ => continue,
            };
            placed.push((group, input));
        }
        self.checkpoint(node);
        if self.is_blown(node) {
            self.crash_inside(node);
            return;
        }
        self.inputs(node, placed);
        self.flusher(node);
    }

    /// The node store failed: the process ends (I10).
    fn store_failed(&mut self, node: usize, error: &riverrun_storage::node::NodeError) {
        use riverrun_storage::node::NodeError;
        if matches!(
            error,
            NodeError::Misuse { .. }
                | NodeError::WalTooSmall { .. }
                | NodeError::UnknownGroup { .. }
        ) {
            let detail = format!("node {node}: {error}");
            self.check(Err(Violation::new("node_store_is_used_rightly", detail)));
        }
        if self.is_blown(node) {
            self.crash_inside(node);
        } else {
            self.kill(node);
        }
    }

    fn request(&mut self, node: usize, request: Request) {
        if !self.is_received(node, &request) {
            return;
        }
        let Some(process) = self.process(node) else {
            return;
        };
        let limits = Limits::new(self.clock.now_ms());
        let ticket = Ticket {
            connection: request.client as u64,
            request: request.batch.cast_unsigned(),
            slot: u32::try_from(request.attempt).unwrap_or(u32::MAX),
        };
        let group = request.group;
        let summary = match validate(&request.bytes, &limits) {
            Ok(summary) if process.node.handle(group).is_some() => summary,
            Ok(_) => {
                let answer = Answer {
                    client: request.client,
                    batch: request.batch,
                    attempt: request.attempt,
                    outcome: Err(ProduceError::NotLeader),
                    leader: None,
                };
                self.send_answer(answer);
                return;
            }
            Err(error) => {
                let detail = format!("batch {}: {error}", request.batch);
                self.check(Err(Violation::new("a_sound_batch_is_valid", detail)));
                return;
            }
        };
        let acks = request.acks;
        let produce = Produce {
            ticket,
            acks,
            batch: request.bytes,
            summary,
            expected_epoch: None,
        };
        self.inputs(node, vec![(group, Input::Produce { group, produce })]);
    }

    fn answer(&mut self, answer: &Answer) {
        let now = self.clock.now_us();
        let committed = &self.invariants.committed;
        if let Some(batch) = self.history.batch_mut(answer.batch)
            && committed
                .log(batch.group)
                .is_some_and(|log| log.forked_term() > 0)
        {
            // The copy that was acknowledged before may be what was lost within the promise.
            batch.acked = None;
        }
        let Some(client) = self.clients.get_mut(answer.client) else {
            return;
        };
        let checked = client.answered(answer, now, &mut self.history);
        self.check(checked);
        if let Ok(produced) = answer.outcome {
            self.summary.batches_acknowledged += 1;
            let made = self.history.batch(answer.batch);
            if let Some(batch) = made.filter(|batch| batch.durable)
                && let Some(log) = self.invariants.committed.log(batch.group)
                && let Some(mark) = log.at_offset(produced.base_offset)
                && log.forked_term() == 0
            {
                let checked = crate::invariants::one_value_at_one_offset::claims(
                    batch.group,
                    "an acknowledgement",
                    produced.base_offset,
                    answer.batch,
                    batch.crc_as(mark.crc),
                    mark,
                );
                self.check(checked);
            }
        }
        self.wake_client(answer.client);
    }

    fn wake_client(&mut self, at: usize) {
        let now = self.clock.now_us();
        let Some(client) = self.clients.get_mut(at) else {
            return;
        };
        let (requests, again_us) = client.wake(now, &mut self.history);
        let leader = client.leader();
        if let Some(again_us) = client.alarm(now, again_us) {
            self.clock.after(again_us, Event::Client { client: at });
        }
        for request in requests {
            self.send_request(leader, request);
        }
    }

    /// Looks at every replica of a node before its memory is gone: what it has committed, others may
    /// know of from it.
    pub fn look_at_all(&mut self, node: usize) {
        let Some(mut process) = self
            .hosts
            .get_mut(node)
            .and_then(|host| host.process.take())
        else {
            return;
        };
        let groups: Vec<u64> = process.views.keys().copied().collect();
        for group in groups {
            self.unrefused(node, |world| world.look_at(node, &mut process, group));
        }
        if let Some(host) = self.hosts.get_mut(node) {
            host.process = Some(process);
        }
    }

    /// Looks at a replica whose published state changed.
    fn look_at(&mut self, node: usize, process: &mut Process, group: u64) {
        let Some(handle) = process.node.handle(group) else {
            return;
        };
        let published = handle.published();
        if published.role == Role::Fenced {
            return;
        }
        if published.role == Role::Leader {
            match self
                .invariants
                .leaders
                .leads(group, published.term, handle.replica())
            {
                Ok(true) => {
                    self.summary.elections += 1;
                    self.did(Deed::Leads, node, group);
                }
                Ok(false) => {}
                Err(violation) => self.check(Err(violation)),
            }
        }
        let shard = process.shard_of(group);
        let Some(partition) = process
            .shards
            .get(shard)
            .and_then(|shard| shard.partition(group))
        else {
            return;
        };
        let raft = partition.group();
        let commit = raft.commit();
        self.counted
            .insert((group, handle.replica()), raft.persisted());
        let Some(view) = process.views.get_mut(&group) else {
            return;
        };
        self.trace
            .note(&[node as u64, group, commit, published.term]);
        let mut checked = Ok(());
        // What it lacks is told before what it has instead.
        let answers = published.ready && published.role == Role::Leader;
        if answers && view.judged_term != published.term {
            view.judged_term = published.term;
            checked = judge_leader(
                node,
                group,
                published.term,
                raft,
                &mut self.invariants,
                &self.history,
                self.excused.contains(&group),
                &mut self.summary,
            );
        }
        // What was deleted at the head was committed, and the log does not know its terms any more.
        let dropped = handle.reader().start().prev_index;
        while view.checked < commit.min(view.last()) && checked.is_ok() {
            // What is in the files may be about to be cut: then the log is ahead of them.
            let Some(mark) = view.get(view.checked + 1) else {
                break;
            };
            if mark.index > dropped && raft.log().term_of(mark.index) != Some(mark.term) {
                break;
            }
            let committed = &mut self.invariants.committed;
            // A follower may apply what a shortened group's new leader has not applied itself yet.
            let known = committed
                .log(group)
                .and_then(|log| log.at_index(mark.index))
                .copied();
            if let Some(known) = known
                && known.term < mark.term
                && self.excused.contains(&group)
            {
                let gone = committed.forgive(group, mark.term, mark.index - 1);
                self.summary.lost_from_memory +=
                    gone.iter().filter(|mark| mark.is_data()).count() as u64;
                let end = committed.log(group).map_or(0, |log| log.end_offset());
                self.invariants.watermarks.forgive(group, end);
                self.invariants.confirmed.forgive(group);
            }
            checked = self
                .invariants
                .committed
                .commits(group, node, mark, &self.history);
            view.checked += 1;
        }
        if checked.is_ok() {
            let committed = raft.log().offset_in_memory(commit).unwrap_or(-1);
            checked = served::shows(group, node, published.high_watermark, committed);
        }
        if published.role == Role::Leader && commit > raft.durable() {
            self.did(Deed::CommitsFromMemory, node, group);
        }
        if published.role == Role::Leader && checked.is_ok() {
            checked = self.counts_what_is_held(node, partition);
        }
        if answers && checked.is_ok() {
            let watermarks = &mut self.invariants.watermarks;
            checked = checked
                .and_then(|()| watermarks.shows(group, published.term, published.high_watermark));
        }
        self.check(checked);
    }

    /// A `write.caching` group may have lost what a node held in memory.
    pub fn mark_short(&mut self, group: u64, node: usize) {
        let Some(plan) = self
            .every_group
            .get(&group)
            .and_then(|place| self.plan.groups.get(*place))
        else {
            return;
        };
        if !plan.caching {
            return;
        }
        let voters = plan.voters.len();
        let short = self.short.entry(group).or_default();
        short.insert(node);
        if short.len() * 2 > voters {
            self.excused.insert(group);
        }
    }

    /// Notes that a node lost what was in its memory.
    pub fn memory_lost(&mut self, node: usize) {
        let groups: Vec<u64> = self
            .routes
            .iter()
            .filter(|((group, _), on)| **on == node && *group != CONTROLLER)
            .map(|((group, _), _)| *group)
            .collect();
        for group in groups {
            self.mark_short(group, node);
        }
    }
}

/// A leader that may answer holds all that was committed before its term.
#[expect(
    clippy::too_many_arguments,
    reason = "parts of the world that are borrowed apart"
)]
fn judge_leader(
    node: usize,
    group: u64,
    term: u64,
    raft: &riverrun_replication::group::Group,
    invariants: &mut Invariants,
    history: &History,
    excused: bool,
    summary: &mut Summary,
) -> Checked {
    let Some(log) = invariants.committed.log(group) else {
        return Ok(());
    };
    let missing = log
        .from(raft.log().start().prev_index + 1)
        .find(|mark| mark.term < term && raft.log().term_of(mark.index) != Some(mark.term))
        .copied();
    let Some(missing) = missing else {
        return Ok(());
    };
    if excused {
        let kept = missing.index - 1;
        // What this leader has in their place may be of an earlier term than its own.
        let term = raft.log().term_of(missing.index).unwrap_or(term);
        let gone = invariants.committed.forgive(group, term, kept);
        summary.lost_from_memory += gone.iter().filter(|mark| mark.is_data()).count() as u64;
        let end = invariants
            .committed
            .log(group)
            .map_or(0, |log| log.end_offset());
        invariants.watermarks.forgive(group, end);
        invariants.confirmed.forgive(group);
        return Ok(());
    }
    let acknowledged = history
        .batch(missing.batch)
        .is_some_and(|batch| batch.acked.is_some_and(|(at, _)| at == missing.base_offset));
    lost::leader_lacks(group, node, &missing, acknowledged)
}
