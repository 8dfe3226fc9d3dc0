//! Changes of the cluster that nodes propose, each through the production code that numbers them and knows
//! what came of which. Whoever waits for one may be gone at any moment, as a call is that ends with its
//! connection: nothing runs on his behalf then, and the node's next change must not suffer from it.

use bytes::Bytes;
use riverrun_record::BatchView;
use riverrun_replication::controller::{Numbers, Outcome, decode_batch, encode_numbered_batch};
use riverrun_replication::proposer::Proposal;
use riverrun_replication::{ProduceOutcome, Ticket};

use crate::clock::{MS, SECOND};
use crate::host::Process;
use crate::network::Fate;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::world::{CONTROLLER, Event, World};

/// Tickets of changes carry this connection.
pub const CHANGE: u64 = u64::MAX - 4;
/// A change is tried for as long.
const PATIENCE_US: u64 = 10 * SECOND;
/// And sent again after so long without an answer.
const AGAIN_US: u64 = 500 * MS;
/// Mean time after which whoever waits for a change is gone, where he goes.
const GONE_US: u64 = 30 * MS;

/// How often changes are asked for, and given up.
#[derive(Debug, Clone, Copy)]
pub struct ChangesPlan {
    /// Mean time between two changes of a node.
    pub every_us: u64,
    /// Of 1000, how many nobody waits for to the end.
    pub dropped_permille: u64,
}

impl ChangesPlan {
    /// Few seeds have them, since what they write changes all that follows.
    #[must_use]
    pub fn draw(rng: &mut Rng) -> Option<Self> {
        let has_them = rng.chance(100);
        let drawn = Self {
            every_us: rng.between(100, 1500) * MS,
            dropped_permille: rng.between(100, 600),
        };
        has_them.then_some(drawn)
    }
}

/// What befalls a node's change.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is what its name says")]
pub enum Step {
    Begin,
    Again {
        number: u64,
    },
    /// It is written, as the node is told that writes it.
    Written {
        number: u64,
        base_offset: i64,
    },
    /// Nobody waits for it any more.
    Dropped {
        number: u64,
    },
}

/// A change that a node is at.
#[derive(Debug)]
pub struct UnderWay {
    number: u64,
    /// How many producer ids it takes.
    count: u32,
    proposal: Proposal,
    batch: Bytes,
    until_us: u64,
    /// Where it lies, once that is known.
    base_offset: Option<i64>,
}

/// All of them.
#[derive(Debug)]
pub struct Changes {
    rng: Rng,
    asked: u64,
}

impl Changes {
    /// None yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            rng: Rng::stream(plan.seed, "changes under way"),
            asked: 0,
        }
    }
}

/// What a node's life draws for the numbers of its changes.
#[must_use]
pub fn start_token(seed: u64, node: usize, life: u64) -> u64 {
    Rng::stream(seed, &format!("start {life} of node {node}")).next()
}

impl World {
    fn change_after(&mut self, node: usize, after_us: u64, step: Step) {
        let life = self.hosts.get(node).map_or(0, |host| host.life);
        self.clock
            .after(after_us, Event::Change { node, life, step });
    }

    /// A process was started: it asks for changes from now on.
    pub fn begin_changes(&mut self, node: usize) {
        if let Some(plan) = self.plan.changes {
            let after_us = self.changes.rng.around(plan.every_us);
            self.change_after(node, after_us, Step::Begin);
        }
    }

    /// Something befalls the change of a node.
    pub fn change(&mut self, node: usize, step: Step) {
        match step {
            Step::Begin => {
                if !self.calm {
                    self.begin_changes(node);
                    self.propose_change(node);
                }
            }
            Step::Again { number } => self.change_again(node, number),
            Step::Written {
                number,
                base_offset,
            } => self.change_is_written(node, number, base_offset),
            Step::Dropped { number } => {
                if let Some(process) = self.process_mut(node) {
                    process.change.take_if(|change| change.number == number);
                }
            }
        }
    }

    fn propose_change(&mut self, node: usize) {
        let (Some(plan), until_us) = (self.plan.changes, self.clock.now_us() + PATIENCE_US) else {
            return;
        };
        let number = self.changes.asked + 1;
        let count = u32::try_from(number).unwrap_or(u32::MAX);
        let Some(process) = self.process_mut(node) else {
            return;
        };
        if process.change.is_some() || process.controller.image().cluster_id.is_nil() {
            return;
        }
        let Ok(command) = process.controller.plan_producer_ids(count) else {
            return;
        };
        let proposal = process.proposer.propose(1);
        let Ok(batch) = encode_numbered_batch(&[command], Some(proposal.numbers())) else {
            return;
        };
        process.change = Some(UnderWay {
            number,
            count,
            proposal,
            batch: batch.freeze(),
            until_us,
            base_offset: None,
        });
        self.changes.asked = number;
        self.summary.changes_asked += 1;
        if self.changes.rng.chance(plan.dropped_permille) {
            let after_us = self.changes.rng.around(GONE_US);
            self.change_after(node, after_us, Step::Dropped { number });
        }
        self.change_again(node, number);
    }

    /// Sends a change to whoever leads group 0, as far as its node knows, or gives it up.
    fn change_again(&mut self, node: usize, number: u64) {
        let now = self.clock.now_us();
        let leader = self
            .answer_of(node, CONTROLLER)
            .and_then(|(_, leader)| leader);
        let leader = leader.and_then(|leader| usize::try_from(leader - 1).ok());
        let Some(process) = self.process_mut(node) else {
            return;
        };
        let Some(change) = process.change.take_if(|change| change.number == number) else {
            return;
        };
        if now >= change.until_us {
            if change.base_offset.is_none() {
                process.proposer.ended(&change.proposal, false);
            }
            return;
        }
        let batch = change.base_offset.is_none().then(|| change.batch.clone());
        process.change = Some(change);
        self.change_after(node, AGAIN_US, Step::Again { number });
        let (Some(to), Some(batch)) = (leader, batch) else {
            return;
        };
        if let Fate::Arrives { delay_us, .. } = self.network.send(node, to, now) {
            let from = node;
            let asked = Event::ChangeAsked {
                from,
                to,
                number,
                batch,
            };
            self.clock.after(delay_us, asked);
        }
    }

    /// A node is asked to write a change to group 0.
    pub fn change_is_asked_for(&mut self, from: usize, to: usize, number: u64, batch: &Bytes) {
        let handle = self
            .process(to)
            .and_then(|process| process.node.handle(CONTROLLER));
        if self.network.is_cut(from, to) || !handle.is_some_and(|of| of.published().ready) {
            return;
        }
        // As the server does it, which lets nothing through that no node could read.
        let Ok(commands) = decode_batch(batch) else {
            return;
        };
        let Ok(batch) = encode_numbered_batch(&commands, Numbers::of_batch(batch)) else {
            return;
        };
        let ticket = Ticket {
            connection: CHANGE,
            request: number,
            slot: u32::try_from(from).unwrap_or(u32::MAX),
        };
        self.write_batch(to, batch, ticket);
    }

    /// What whoever writes a change has to say of it leaves for its node.
    pub fn change_is_answered(&mut self, by: usize, ticket: Ticket, outcome: &ProduceOutcome) {
        self.trace
            .note(&[ticket.request, u64::from(outcome.is_ok())]);
        let Ok(produced) = outcome else { return };
        let node = usize::try_from(ticket.slot).unwrap_or(usize::MAX);
        if let Fate::Arrives { delay_us, .. } = self.network.send(by, node, self.clock.now_us()) {
            let (number, base_offset) = (ticket.request, produced.base_offset);
            let step = Step::Written {
                number,
                base_offset,
            };
            self.change_after(node, delay_us, step);
        }
    }

    fn change_is_written(&mut self, node: usize, number: u64, base_offset: i64) {
        let Some(mut process) = self
            .hosts
            .get_mut(node)
            .and_then(|host| host.process.take())
        else {
            return;
        };
        if let Some(change) = process
            .change
            .as_mut()
            .filter(|change| change.number == number && change.base_offset.is_none())
        {
            change.base_offset = Some(base_offset);
            process.proposer.ended(&change.proposal, true);
        }
        self.look_at_change(node, &mut process);
        if let Some(host) = self.hosts.get_mut(node) {
            host.process = Some(process);
        }
    }

    /// A node has applied a batch.
    pub fn look_at_changes(
        &mut self,
        node: usize,
        process: &mut Process,
        batch: &[u8],
        outcomes: Vec<Outcome>,
    ) {
        if let (Ok(view), Ok(commands)) = (BatchView::parse(batch), decode_batch(batch)) {
            let changed = &mut self.invariants.changed;
            let checked = changed.applied(node, view.base_offset(), &commands);
            self.check(checked);
        }
        process.outcomes.applied(batch, outcomes);
        self.look_at_change(node, process);
    }

    /// A node's change was written, or the node has applied more: where it has applied that one, whoever
    /// waits is told what came of it.
    fn look_at_change(&mut self, node: usize, process: &mut Process) {
        let applied = process.controller.image().next_offset;
        let Some((proposal, count, base_offset)) = process.change.as_ref().and_then(|change| {
            let base_offset = change.base_offset.filter(|offset| *offset < applied)?;
            Some((change.proposal, change.count, base_offset))
        }) else {
            return;
        };
        process.change = None;
        if let Some(outcomes) = process.outcomes.take(&proposal, base_offset) {
            self.summary.changes_told += 1;
            let changed = &self.invariants.changed;
            let checked = changed.told(node, count, base_offset, &outcomes);
            self.check(checked);
        }
    }
}
