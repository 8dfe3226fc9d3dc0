//! The batches of one partition, from their first record to their answer.
//!
//! Pure: told what happened and what time it is, it says what may be sent. Batches leave in the
//! order in which they were begun, and are answered for exactly once.
//!
//! **Order and sequence numbers.** An idempotent batch takes its sequence number when it is first
//! sent and keeps it, so a broker knows a retry. When one of several batches in flight has to be
//! sent again, nothing more leaves until all of them are answered; then what is left goes out
//! again in order. A batch behind a failed one is refused by the broker (out of order) and simply
//! goes again. A broker knows the last five batches of a producer: while the first batch here may have
//! been stored without an answer, no more than four behind it are sent, answered or not, so that its
//! retry is known.
//!
//! **A gap.** When a batch that had a number is given up, the broker may be waiting for that number
//! for ever. The batches behind it are still tried with theirs: had the lost one been stored, they
//! fit; if the broker refuses the first of them as out of order, that proves that neither is
//! stored, and the partition goes on from zero in the next epoch of its producer id. Copies of them
//! that are still on their way (in a connection that was given up, say) are then of an old epoch,
//! which the broker refuses; under a new id it would store them too.
//!
//! **The deadline** of a batch ends it even while an attempt is under way, as its sender was promised
//! an answer by then. The attempt still counts as in flight until its broker has answered or its
//! connection has ended: no new epoch begins before.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use riverrun_record::{BatchBuilder, Compression, Header, increment_sequence};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    config::{BATCHES_REMEMBERED, QueueConfig},
    delivery::{Delivered, DeliveryCell},
};
use crate::error::Error;

/// What an idempotent producer is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// How an attempt to write a batch ended.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    /// It is stored.
    Written(Delivered),
    /// Not stored, and the broker says so; worth another attempt.
    Rejected(Error),
    /// No telling whether it is stored; worth another attempt.
    Unknown(Error),
    /// Its sequence number is not the next one.
    OutOfOrder(Error),
    /// The broker no longer takes this producer id or epoch.
    Identity(Error),
    /// Not stored, and never will be.
    Fatal(Error),
}

/// A batch that is ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) batch: u64,
    pub(crate) bytes: Bytes,
}

#[derive(Debug)]
enum Body {
    Open(Box<BatchBuilder>),
    Built {
        bytes: Bytes,
        stamped: Option<(Identity, i32)>,
    },
}

#[derive(Debug)]
struct Batch {
    id: u64,
    body: Body,
    records: i32,
    /// Memory that its records have taken from the producer's budget.
    reserved_bytes: usize,
    /// When it is sent even if it is not full.
    ready_at: Instant,
    deadline: Instant,
    /// Takes no more records.
    closed: bool,
    /// The number it was first sent with, until the partition starts again from zero.
    sequence: Option<(Identity, i32)>,
    in_flight: bool,
    /// An attempt ended without telling whether it was stored.
    unsettled: bool,
    last_error: Option<Error>,
    cell: Arc<DeliveryCell>,
}

/// The batches of one partition.
#[derive(Debug)]
pub(crate) struct PartitionQueue {
    batches: VecDeque<Batch>,
    next_id: u64,
    /// Attempts that are not answered, those of batches that were given up among them.
    in_flight: usize,
    /// Batches in flight must all be answered before anything leaves again.
    settling: bool,
    not_before: Option<Instant>,
    failures: u32,
    identity: Option<Identity>,
    next_sequence: i32,
    /// A batch with a number was given up: see the top of this file.
    gap: bool,
    /// The identity is used up.
    wants_identity: bool,
    /// The topic that batches went to last.
    topic: Option<Uuid>,
    /// The next epoch begins when all in flight are answered.
    wants_epoch: bool,
}

impl PartitionQueue {
    pub(crate) fn new() -> Self {
        Self {
            batches: VecDeque::new(),
            next_id: 0,
            in_flight: 0,
            settling: false,
            not_before: None,
            failures: 0,
            identity: None,
            next_sequence: 0,
            gap: false,
            wants_identity: false,
            topic: None,
            wants_epoch: false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Adds a record and says which batch and which place in it are its own, and whether the
    /// sender should look (a batch was begun or filled).
    pub(crate) fn append(
        &mut self,
        record: &Append<'_>,
        config: &QueueConfig,
        now: Instant,
    ) -> Result<Appended, Error> {
        let fits = self.batches.back().is_some_and(|last| match &last.body {
            Body::Open(builder) if !last.closed => {
                builder.estimated_len() + record.reserved_bytes <= config.batch_bytes
            }
            _ => false,
        });
        let mut wake = false;
        if !fits {
            if let Some(last) = self.batches.back_mut() {
                last.closed = true;
            }
            let room = config.batch_bytes.max(record.reserved_bytes);
            let builder = BatchBuilder::with_capacity(
                config.compression,
                config.compression_level,
                room.min(64 << 10),
            );
            self.batches.push_back(Batch {
                id: self.next_id,
                body: Body::Open(Box::new(builder)),
                records: 0,
                reserved_bytes: 0,
                ready_at: now + config.linger,
                deadline: now + config.delivery_timeout,
                closed: false,
                sequence: None,
                in_flight: false,
                unsettled: false,
                last_error: None,
                cell: Arc::new(DeliveryCell::default()),
            });
            self.next_id += 1;
            wake = true;
        }
        let Some(last) = self.batches.back_mut() else {
            return Err(Error::Closed);
        };
        let Body::Open(builder) = &mut last.body else {
            return Err(Error::Closed);
        };
        let appended = builder.append(
            record.timestamp_ms,
            record.key,
            record.value,
            record.headers,
        );
        if let Err(source) = appended {
            if last.records == 0 {
                self.batches.pop_back();
            }
            return Err(Error::InvalidRecord { source });
        }
        let index = last.records;
        last.records += 1;
        last.reserved_bytes += record.reserved_bytes;
        if builder.estimated_len() >= config.batch_bytes {
            last.closed = true;
            wake = true;
        }
        Ok(Appended {
            cell: last.cell.clone(),
            index,
            timestamp_ms: record.timestamp_ms,
            wake,
        })
    }

    /// Closes the open batch, so that it is sent as soon as it can be.
    pub(crate) fn close_open(&mut self) {
        if let Some(last) = self.batches.back_mut() {
            last.closed = true;
        }
    }

    /// The cells of all batches that are not answered.
    pub(crate) fn cells(&self) -> impl Iterator<Item = Arc<DeliveryCell>> + '_ {
        self.batches.iter().map(|b| b.cell.clone())
    }

    /// Whether nothing can leave before a new identity is there.
    pub(crate) fn wants_identity(&self, config: &QueueConfig) -> bool {
        config.idempotence
            && self.in_flight == 0
            && !self.batches.is_empty()
            && (self.wants_identity || self.identity.is_none())
    }

    /// Whether the first identity will do (else a fresh one must be asked for).
    pub(crate) fn is_new(&self) -> bool {
        self.identity.is_none() && !self.wants_identity
    }

    /// Takes an identity that no other sequence of this partition has used.
    pub(crate) fn set_identity(&mut self, identity: Identity) {
        self.identity = Some(identity);
        self.wants_identity = false;
        self.wants_epoch = false;
        self.gap = false;
        self.next_sequence = 0;
        for batch in &mut self.batches {
            batch.sequence = None;
        }
    }

    /// Tells which topic batches go to from now on. One that was made anew under the same name knows nothing
    /// of this producer: what was not answered begins there at 0, under the next epoch, once all that is in
    /// flight has come back.
    pub(crate) fn goes_to(&mut self, topic: Uuid) {
        if topic.is_nil() || self.topic == Some(topic) {
            return;
        }
        if self.topic.is_some() && self.identity.is_some() {
            if self.in_flight > 0 {
                self.settling = true;
                return;
            }
            self.wants_epoch = true;
            self.begin_epoch();
            self.wants_identity |= self.wants_epoch;
        }
        self.topic = Some(topic);
    }

    /// The next batch, if one may leave now; it then counts as in flight.
    pub(crate) fn take(
        &mut self,
        config: &QueueConfig,
        now: Instant,
    ) -> Option<Result<Outgoing, Taken>> {
        if !self.may_send(config, now) {
            return None;
        }
        let at = self.batches.iter().position(|b| !b.in_flight)?;
        let identity = self.identity;
        let next_sequence = self.next_sequence;
        let batch = self.batches.get_mut(at)?;
        if !batch.closed && now < batch.ready_at {
            return None;
        }
        batch.closed = true;
        if config.idempotence && batch.sequence.is_none() {
            batch.sequence = Some((identity?, next_sequence));
            self.next_sequence = increment_sequence(next_sequence, batch.records);
        }
        match batch.build() {
            Ok(bytes) => {
                batch.in_flight = true;
                self.in_flight += 1;
                Some(Ok(Outgoing {
                    batch: batch.id,
                    bytes,
                }))
            }
            Err(error) => {
                // It took a number that the broker will never see.
                self.gap |= config.idempotence;
                Some(Err(self.finish(at, Err(error))))
            }
        }
    }

    /// Whether a batch would leave now if its leader could be reached.
    pub(crate) fn is_due(&self, config: &QueueConfig, now: Instant) -> bool {
        self.may_send(config, now)
            && self
                .batches
                .iter()
                .find(|b| !b.in_flight)
                .is_some_and(|b| b.closed || b.ready_at <= now)
    }

    /// Remembers what keeps batches from being sent, for those that no attempt was made for.
    pub(crate) fn is_held_back(&mut self, by: impl Fn() -> Error) {
        let unsent = self.batches.iter_mut().filter(|b| !b.in_flight);
        for batch in unsent.filter(|b| b.last_error.is_none()) {
            batch.last_error = Some(by());
        }
    }

    /// When the first batch has to be given up.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.batches.iter().map(|b| b.deadline).min()
    }

    /// When something may happen without an event from outside: a batch falls due or expires, or
    /// a pause ends.
    pub(crate) fn next_event(&self, config: &QueueConfig, now: Instant) -> Option<Instant> {
        let expiry = self.next_expiry();
        let waiting = self.batches.iter().find(|b| !b.in_flight);
        let sendable = waiting
            .filter(|_| self.may_send_but_for_time(config))
            .map(|b| {
                let due = if b.closed { now } else { b.ready_at };
                self.not_before.map_or(due, |pause| due.max(pause))
            });
        expiry.into_iter().chain(sendable).min()
    }

    /// Says how an attempt ended. Returns the memory to give back, if the batch is done with.
    pub(crate) fn complete(
        &mut self,
        id: u64,
        verdict: Verdict,
        config: &QueueConfig,
        now: Instant,
    ) -> Option<Taken> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let taken = self.judge(id, verdict, config, now);
        if self.in_flight == 0 {
            self.settling = false;
            self.begin_epoch();
        }
        taken
    }

    fn judge(
        &mut self,
        id: u64,
        verdict: Verdict,
        config: &QueueConfig,
        now: Instant,
    ) -> Option<Taken> {
        // It may have been given up meanwhile.
        let at = self
            .batches
            .iter()
            .position(|b| b.id == id && b.in_flight)?;
        let is_first = at == 0;
        let batch = self.batches.get_mut(at)?;
        batch.in_flight = false;
        match verdict {
            Verdict::Written(delivered) => {
                self.failures = 0;
                self.not_before = None;
                Some(self.finish(at, Ok(delivered)))
            }
            Verdict::Rejected(error) => self.again(at, error, false, config, now),
            Verdict::Unknown(error) => self.again(at, error, true, config, now),
            // Refused because a batch before it is missing: it goes again behind that one. Only
            // the first one's refusal says anything about the partition.
            Verdict::OutOfOrder(error) | Verdict::Identity(error) if !is_first => {
                self.again(at, error, false, config, now)
            }
            // The one before it was given up, and this proves that neither was stored.
            Verdict::OutOfOrder(error) if self.gap => {
                self.wants_epoch = true;
                self.restart(at, error, config, now)
            }
            Verdict::Identity(error) if !batch.unsettled => self.restart(at, error, config, now),
            Verdict::OutOfOrder(error) | Verdict::Identity(error) => {
                // With what came before acknowledged, the broker has lost something; or this batch
                // may have been stored under an identity that is gone. Trying it under another one
                // could store it twice, so its sender decides.
                self.gap = true;
                Some(self.finish(at, Err(error)))
            }
            Verdict::Fatal(error) => {
                self.gap |= batch.sequence.is_some();
                Some(self.finish(at, Err(error)))
            }
        }
    }

    /// Gives up what is past its deadline.
    pub(crate) fn expire(&mut self, now: Instant, config: &QueueConfig) -> Vec<Taken> {
        let mut taken = Vec::new();
        while let Some(at) = self.batches.iter().position(|b| b.deadline <= now) {
            taken.push(self.give_up(at, config));
        }
        taken
    }

    /// Fails everything that is not answered.
    pub(crate) fn abandon(&mut self, error: &Error) -> Vec<Taken> {
        self.gap |= self.batches.iter().any(|b| b.sequence.is_some());
        let mut taken = Vec::new();
        while !self.batches.is_empty() {
            taken.push(self.finish(0, Err(error.clone())));
        }
        taken
    }

    fn may_send(&self, config: &QueueConfig, now: Instant) -> bool {
        self.may_send_but_for_time(config) && self.not_before.is_none_or(|pause| pause <= now)
    }

    fn may_send_but_for_time(&self, config: &QueueConfig) -> bool {
        let ordered = config.idempotence || !config.answered || self.in_flight == 0;
        let known = !config.idempotence || (self.identity.is_some() && !self.wants_identity);
        let remembered = !config.idempotence || self.is_remembered_behind();
        !self.settling && ordered && known && remembered && self.in_flight < config.max_in_flight
    }

    /// Whether brokers still know the first batch when they have stored the next one to be sent.
    fn is_remembered_behind(&self) -> bool {
        let first = self.batches.front().map_or(0, |first| first.id);
        self.batches
            .iter()
            .find(|b| !b.in_flight)
            .is_none_or(|next| next.id < first + BATCHES_REMEMBERED)
    }

    /// Sends a batch again, after a pause, unless its time is up.
    fn again(
        &mut self,
        at: usize,
        error: Error,
        unsettled: bool,
        config: &QueueConfig,
        now: Instant,
    ) -> Option<Taken> {
        self.settling = self.in_flight > 0;
        self.pause(config, now);
        let batch = self.batches.get_mut(at)?;
        batch.unsettled |= unsettled;
        batch.last_error = Some(error);
        (batch.deadline <= now).then(|| self.give_up(at, config))
    }

    /// The next epoch, if it is due and there is one; else a new identity will be given.
    fn begin_epoch(&mut self) {
        let next = self
            .identity
            .and_then(|identity| Some((identity.id, identity.epoch.checked_add(1)?)));
        if let Some((id, epoch)) = next.filter(|_| self.wants_epoch) {
            self.set_identity(Identity { id, epoch });
        }
    }

    /// Has the partition start again from zero under a new identity: its first batch is known not
    /// to be stored, and so is every one behind it, as brokers take them in order only.
    fn restart(
        &mut self,
        at: usize,
        error: Error,
        config: &QueueConfig,
        now: Instant,
    ) -> Option<Taken> {
        self.wants_identity = true;
        for batch in &mut self.batches {
            batch.unsettled = false;
        }
        self.again(at, error, false, config, now)
    }

    fn give_up(&mut self, at: usize, config: &QueueConfig) -> Taken {
        let last = self.batches.get_mut(at).and_then(|b| {
            self.gap |= b.sequence.is_some();
            b.last_error.take()
        });
        let error = Error::GaveUp {
            what: "a record was not acknowledged".to_owned(),
            after: config.delivery_timeout,
            last: last.map(Box::new),
        };
        self.finish(at, Err(error))
    }

    /// Batches that were in flight together and fail together are one failure.
    fn pause(&mut self, config: &QueueConfig, now: Instant) {
        if self.not_before.is_some_and(|pause| pause > now) {
            return;
        }
        let factor = 1 << self.failures.min(6);
        let pause = (config.retry_backoff * factor).min(config.retry_backoff_max);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause);
    }

    fn finish(&mut self, at: usize, result: Result<Delivered, Error>) -> Taken {
        let Some(batch) = self.batches.remove(at) else {
            return Taken { reserved_bytes: 0 };
        };
        batch.cell.set(result);
        Taken {
            reserved_bytes: batch.reserved_bytes,
        }
    }
}

impl Batch {
    /// The batch's bytes with its number stamped; built on first use.
    fn build(&mut self) -> Result<Bytes, Error> {
        let sequence = self.sequence;
        if let Body::Built { bytes, stamped } = &mut self.body {
            if *stamped != sequence
                && let Some((identity, number)) = sequence
            {
                let mut copy = bytes::BytesMut::from(&bytes[..]);
                riverrun_record::stamp_producer(&mut copy, identity.id, identity.epoch, number);
                *bytes = copy.freeze();
                *stamped = sequence;
            }
            return Ok(bytes.clone());
        }
        let empty = Body::Open(Box::new(BatchBuilder::new(Compression::None, None)));
        let Body::Open(builder) = std::mem::replace(&mut self.body, empty) else {
            return Err(Error::Closed);
        };
        let builder = match sequence {
            Some((identity, number)) => builder.producer(identity.id, identity.epoch, number),
            None => *builder,
        };
        let bytes = builder
            .build()
            .map_err(|source| Error::InvalidRecord { source })?;
        self.body = Body::Built {
            bytes: bytes.clone(),
            stamped: sequence,
        };
        Ok(bytes)
    }
}

/// A record to append.
#[derive(Debug)]
pub(crate) struct Append<'a> {
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [Header<'a>],
    pub(crate) reserved_bytes: usize,
}

/// Where an appended record will be answered.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) cell: Arc<DeliveryCell>,
    pub(crate) index: i32,
    pub(crate) timestamp_ms: i64,
    pub(crate) wake: bool,
}

/// A batch that is done with, and the memory it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) reserved_bytes: usize,
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
