//! Clients: they write batches whose every value is unique, retry until a deadline, and remember.
//!
//! Some do as librdkafka does: several batches are under way on one ordered connection; when one is to be
//! sent again, nothing is sent until all are answered; and when one is called out of order that is not the
//! next to be acknowledged, the producer begins anew under another id and sends all again, also what may be
//! in the log. So they must never be told so but of a gap of their own, and they make none.

use std::collections::VecDeque;

use bytes::BytesMut;
use riverrun_record::{BatchBuilder, BatchView, Compression};
use riverrun_replication::{Acks, ProduceError, ProduceOutcome};

use crate::clock::MS;
use crate::history::{Batch, History};
use crate::invariants::Checked;
use crate::plan::ClientPlan;
use crate::rng::Rng;

/// Between two ids of one producer lie those of all the others.
const ID_STEP: i64 = 1000;

/// A batch on its way to a node.
#[derive(Debug)]
pub struct Request {
    /// The client.
    pub client: usize,
    /// Its group.
    pub group: u64,
    /// The batch.
    pub batch: i64,
    /// Which sending of it.
    pub attempt: u64,
    /// How it wants to be answered.
    pub acks: Acks,
    /// Its bytes.
    pub bytes: BytesMut,
    /// The connection that it is sent over, where the client has one.
    pub connection: Option<u64>,
    /// The life of the node that the connection was made to.
    pub life: Option<u64>,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// The client.
    pub client: usize,
    /// The batch.
    pub batch: i64,
    /// Which sending of it.
    pub attempt: u64,
    /// What the node said.
    pub outcome: ProduceOutcome,
    /// The node that it takes for the leader's.
    pub leader: Option<usize>,
}

#[derive(Debug)]
struct Pending {
    batch: i64,
    /// How many records it has, and how many bytes each value.
    shape: (u64, usize),
    bytes: BytesMut,
    /// When it was sent last, where it is under way.
    sent_us: Option<u64>,
    attempt: u64,
    deadline_us: u64,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    number: usize,
    plan: ClientPlan,
    rng: Rng,
    nodes: usize,
    /// Its group, once it exists.
    pub group: Option<u64>,
    leader: usize,
    producer: i64,
    epoch: i16,
    sequence: i32,
    pending: VecDeque<Pending>,
    next_batch_us: u64,
    not_before_us: u64,
    attempts: u64,
    alarm_us: u64,
    /// Which of its connections it uses.
    connection: u64,
    /// Nothing is sent until nothing is under way.
    drains: bool,
    /// Then it begins anew under another id.
    begins_anew: bool,
    /// No new batches any more.
    pub stopped: bool,
    /// Batches that were made after the faults and acknowledged.
    pub progress: u64,
    /// Counts progress from now on.
    pub counting_from: Option<i64>,
}

impl Client {
    /// A client that knows no leader yet.
    #[must_use]
    pub fn new(number: usize, plan: ClientPlan, nodes: usize, mut rng: Rng) -> Self {
        let leader = rng.index(nodes);
        Self {
            number,
            plan,
            rng,
            nodes,
            group: None,
            leader,
            producer: i64::try_from(number).unwrap_or(0) + 1000,
            epoch: 0,
            sequence: 0,
            pending: VecDeque::new(),
            next_batch_us: 0,
            not_before_us: 0,
            attempts: 0,
            alarm_us: 0,
            connection: 0,
            drains: false,
            begins_anew: false,
            stopped: false,
            progress: 0,
            counting_from: None,
        }
    }

    /// The place of its group in the plan.
    #[must_use]
    pub fn group_place(&self) -> usize {
        self.plan.group
    }

    /// The node that it takes for the leader's.
    #[must_use]
    pub fn leader(&self) -> usize {
        self.leader
    }

    /// Whether it sends over one ordered connection.
    #[must_use]
    pub fn is_pipelined(&self) -> bool {
        self.plan.pipelined
    }

    /// Batches without an answer.
    #[must_use]
    pub fn open(&self) -> usize {
        self.pending.len()
    }

    /// Does what is due; gives what is to be sent to the leader and when it wants to be woken again.
    pub fn wake(&mut self, now_us: u64, history: &mut History) -> (Vec<Request>, u64) {
        let Some(group) = self.group else {
            return (Vec::new(), 50 * MS);
        };
        if self
            .pending
            .front()
            .is_some_and(|p| now_us >= p.deadline_us)
        {
            self.give_up(history);
        }
        if !self.stopped && now_us >= self.next_batch_us && self.pending.len() < self.plan.window {
            self.make(group, now_us, history);
            self.next_batch_us = now_us + self.rng.around(self.plan.every_us);
        }
        let mut out = Vec::new();
        if now_us >= self.not_before_us {
            let late = self.pending.iter().any(|p| {
                p.sent_us
                    .is_some_and(|at| now_us >= at + self.plan.retry_us)
            });
            if late {
                // Nobody answers: all over again, in order, perhaps at another node.
                self.all_over_again();
                self.look_elsewhere(None);
                self.connection += 1;
            }
            self.drain(history);
            let acks = if self.plan.acks_all {
                Acks::All
            } else {
                Acks::Leader
            };
            let connection = self.plan.pipelined.then_some(self.connection);
            let unsent = self.pending.iter_mut().filter(|p| p.sent_us.is_none());
            for pending in unsent.filter(|_| !self.drains) {
                self.attempts += 1;
                pending.attempt = self.attempts;
                pending.sent_us = Some(now_us);
                if let Some(batch) = history.batch_mut(pending.batch) {
                    batch.sends += 1;
                }
                out.push(Request {
                    client: self.number,
                    group,
                    batch: pending.batch,
                    attempt: pending.attempt,
                    acks,
                    bytes: pending.bytes.clone(),
                    connection,
                    life: None,
                });
            }
        }
        let mut next = now_us + 100 * MS;
        if !self.stopped && self.pending.len() < self.plan.window {
            next = next.min(self.next_batch_us);
        }
        if self.not_before_us > now_us {
            next = next.min(self.not_before_us);
        }
        (out, next.max(now_us + MS) - now_us)
    }

    /// Sets the alarm for the next waking, unless an earlier one is set.
    pub fn alarm(&mut self, now_us: u64, after_us: u64) -> Option<u64> {
        let at_us = now_us + after_us;
        if self.alarm_us > now_us && self.alarm_us <= at_us {
            return None;
        }
        self.alarm_us = at_us;
        Some(after_us)
    }

    fn make(&mut self, group: u64, now_us: u64, history: &mut History) {
        let id = history.next_id();
        let records = self.rng.between(1, self.plan.max_records);
        let bytes = self
            .rng
            .between(self.plan.batch_bytes.0, self.plan.batch_bytes.1);
        let each = usize::try_from(bytes / records).unwrap_or(8).max(24);
        let Some(bytes) = self.build(id, (records, each)) else {
            return;
        };
        let Ok(view) = BatchView::parse(&bytes) else {
            return;
        };
        let count = u32::try_from(view.record_count()).unwrap_or(0);
        let crc = view.crc();
        self.sequence = riverrun_record::increment_sequence(self.sequence, view.record_count());
        history.made(
            id,
            Batch {
                client: self.number,
                group,
                crc,
                earlier: Vec::new(),
                records: count,
                idempotent: self.plan.idempotent,
                durable: self.plan.acks_all,
                sends: 0,
                acked: None,
                given_up: false,
            },
        );
        let deadline_us = now_us + self.plan.deadline_us;
        self.pending.push_back(Pending {
            batch: id,
            shape: (records, each),
            bytes,
            sent_us: None,
            attempt: 0,
            deadline_us,
        });
    }

    /// The bytes of a batch with the producer's next numbers.
    fn build(&self, id: i64, (records, each): (u64, usize)) -> Option<BytesMut> {
        let mut builder = BatchBuilder::new(Compression::None, None);
        if self.plan.idempotent {
            builder = builder.producer(self.producer, self.epoch, self.sequence);
        }
        for record in 0..records {
            let mut value = format!("{id}/{record}/").into_bytes();
            value.resize(each, b'.');
            builder.append(id, None, Some(&value), &[]).ok()?;
        }
        builder.build_mut().ok()
    }

    /// Goes on when nothing is under way any more.
    fn drain(&mut self, history: &mut History) {
        if self.pending.iter().any(|p| p.sent_us.is_some()) {
            return;
        }
        self.drains = false;
        if !std::mem::take(&mut self.begins_anew) {
            return;
        }
        self.producer += ID_STEP;
        self.epoch = 0;
        self.sequence = 0;
        for at in 0..self.pending.len() {
            let Some((id, shape)) = self.pending.get(at).map(|p| (p.batch, p.shape)) else {
                continue;
            };
            let Some(bytes) = self.build(id, shape) else {
                continue;
            };
            let Ok(view) = BatchView::parse(&bytes) else {
                continue;
            };
            if let Some(batch) = history.batch_mut(id) {
                batch.earlier.push(batch.crc);
                batch.crc = view.crc();
            }
            let count = view.record_count();
            self.sequence = riverrun_record::increment_sequence(self.sequence, count);
            if let Some(pending) = self.pending.get_mut(at) {
                pending.bytes = bytes;
            }
        }
    }

    fn all_over_again(&mut self) {
        for pending in &mut self.pending {
            pending.sent_us = None;
        }
    }

    fn look_elsewhere(&mut self, hint: Option<usize>) {
        self.leader = match hint {
            Some(node) if node != self.leader => node,
            _ => self.rng.index(self.nodes),
        };
    }

    /// The deadline has passed: whether any of them is in the log is unknown for ever.
    fn give_up(&mut self, history: &mut History) {
        for pending in self.pending.drain(..) {
            if let Some(batch) = history.batch_mut(pending.batch) {
                batch.given_up = true;
            }
        }
        self.next_epoch();
    }

    /// Another topic has the name: what is open stays unknown.
    pub fn go_on_with(&mut self, group: u64, history: &mut History) {
        self.give_up(history);
        self.group = Some(group);
        self.progress = 0;
    }

    /// An idempotent producer that has lost count begins a new epoch.
    fn next_epoch(&mut self) {
        self.begins_anew = false;
        self.epoch = self.epoch.wrapping_add(1).max(0);
        self.sequence = 0;
    }

    /// An answer arrived. True where it made progress.
    ///
    /// # Errors
    /// Where it contradicts an earlier one.
    pub fn answered(&mut self, answer: &Answer, now_us: u64, history: &mut History) -> Checked {
        let at = self.pending.iter().position(|p| p.batch == answer.batch);
        match answer.outcome {
            Ok(produced) => {
                // It counts even where it comes after the next sending.
                history.acknowledged(answer.batch, produced.base_offset, now_us)?;
                if let Some(at) = at {
                    self.pending.remove(at);
                    if self.counting_from.is_some_and(|from| answer.batch >= from) {
                        self.progress += 1;
                    }
                }
            }
            // It is there, and nobody knows where.
            Err(ProduceError::DuplicateSequence) => {
                if let Some(at) = at {
                    self.pending.remove(at);
                }
            }
            Err(error) => {
                let current = at
                    .and_then(|at| self.pending.get(at))
                    .is_some_and(|p| p.attempt == answer.attempt && p.sent_us.is_some());
                match at.filter(|_| current) {
                    Some(at) if self.plan.pipelined => {
                        self.is_to_come_again(at, error, answer.leader, now_us, history);
                    }
                    Some(_) => self.refused(error, answer.leader, now_us, history),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// What librdkafka makes of a refusal.
    fn is_to_come_again(
        &mut self,
        at: usize,
        error: ProduceError,
        leader: Option<usize>,
        now_us: u64,
        history: &mut History,
    ) {
        match error {
            ProduceError::InvalidProducerEpoch => return self.give_up(history),
            // It is the next to be acknowledged: the producer can reason about nothing any more.
            ProduceError::OutOfOrderSequence if at == 0 => return self.give_up(history),
            ProduceError::OutOfOrderSequence => self.begins_anew = true,
            ProduceError::NotLeader => self.look_elsewhere(leader),
            _ => {}
        }
        if let Some(pending) = self.pending.get_mut(at) {
            pending.sent_us = None;
        }
        self.drains = true;
        self.not_before_us = now_us + self.rng.between(5, 100) * MS;
    }

    fn refused(
        &mut self,
        error: ProduceError,
        leader: Option<usize>,
        now_us: u64,
        history: &mut History,
    ) {
        match error {
            ProduceError::InvalidProducerEpoch => self.give_up(history),
            ProduceError::NotLeader => self.look_elsewhere(leader),
            ProduceError::OutOfOrderSequence
            | ProduceError::Busy
            | ProduceError::NotEnoughReplicas => {}
            _ => self.look_elsewhere(None),
        }
        self.all_over_again();
        self.not_before_us = now_us + self.rng.between(5, 100) * MS;
    }
}
