//! Consumers: they follow every group, read again from anywhere, and ask for the end offset.

use std::collections::BTreeMap;

use riverrun_record::batches;
use riverrun_replication::shard::Input;
use riverrun_replication::{Role, Ticket};

use crate::clock::MS;
use crate::invariants::{Violation, one_value_at_one_offset as one_value};
use crate::rng::Rng;
use crate::world::{CONFIRM, Event, World};

/// What consumers remember.
#[derive(Debug)]
pub struct Readers {
    rng: Rng,
    /// The next offset of the consumer of each group.
    positions: BTreeMap<u64, i64>,
    /// The newest leader epoch that it has seen: it refuses answers of an older one.
    epochs: BTreeMap<u64, u64>,
    requests: u64,
}

impl Readers {
    /// Consumers at the beginning.
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        Self {
            rng,
            positions: BTreeMap::new(),
            epochs: BTreeMap::new(),
            requests: 0,
        }
    }
}

impl World {
    /// The consumer of a group reads once from some node that leads.
    pub fn read(&mut self, place: usize) {
        let again = self.readers.rng.between(50, 400) * MS;
        self.clock.after(again, Event::Read { group: place });
        let Some(group) = self
            .groups
            .iter()
            .find(|(_, at)| **at == place)
            .map(|(id, _)| *id)
        else {
            return;
        };
        let leaders: Vec<usize> = (0..self.hosts.len())
            .filter(|node| {
                self.process(*node)
                    .and_then(|p| p.node.handle(group))
                    .is_some_and(|handle| {
                        let published = handle.published();
                        published.role == Role::Leader && published.ready
                    })
            })
            .collect();
        let Some(node) = self.readers.rng.pick(&leaders) else {
            return;
        };
        if self.readers.rng.chance(300) {
            self.readers.requests += 1;
            let request = self.readers.requests;
            let shown = self.invariants.watermarks.highest(group);
            self.invariants.confirmed.asked(request, group, shown);
            let ticket = Ticket {
                connection: CONFIRM,
                request,
                slot: 0,
            };
            self.inputs(node, vec![(group, Input::Confirm { group, ticket })]);
        }
        self.fetch(node, group);
    }

    fn fetch(&mut self, node: usize, group: u64) {
        let Some(handle) = self
            .process(node)
            .and_then(|process| process.node.handle(group))
        else {
            return;
        };
        let published = handle.published();
        let epoch = self.readers.epochs.entry(group).or_default();
        if published.term < *epoch || !published.ready {
            return;
        }
        *epoch = published.term;
        let position = *self.readers.positions.entry(group).or_default();
        let from_anywhere = self.readers.rng.chance(200);
        let offset = if from_anywhere {
            let span = published.high_watermark - published.log_start_offset;
            published.log_start_offset
                + self
                    .readers
                    .rng
                    .below(span.max(0).cast_unsigned())
                    .cast_signed()
        } else {
            position.max(published.log_start_offset)
        };
        if offset >= published.high_watermark {
            return;
        }
        let max_bytes = usize::try_from(self.readers.rng.between(1, 16 << 10)).unwrap_or(1);
        let fetched = match handle
            .reader()
            .fetch(offset, published.high_watermark, max_bytes, true)
        {
            Ok(fetched) => fetched,
            Err(error) => {
                if !self.nemesis.may_refuse(node) && !self.nemesis.may_be_bad(node) {
                    let detail = format!("group {group} on node {node} at {offset}: {error}");
                    self.check(Err(Violation::new("committed_offsets_can_be_read", detail)));
                }
                return;
            }
        };
        let mut expected = None;
        for piece in &fetched.batches {
            for batch in batches(piece) {
                let Ok(batch) = batch else {
                    let detail = format!("group {group} on node {node} at {offset}: not a batch");
                    return self
                        .check(Err(Violation::new("committed_offsets_can_be_read", detail)));
                };
                let first = batch.base_offset();
                if expected.is_some_and(|expected| expected != first) || !batch.crc_is_valid() {
                    let detail = format!(
                        "group {group}: node {node} serves offset {first}, {expected:?} was next"
                    );
                    return self.check(Err(Violation::new("offsets_dense", detail)));
                }
                expected = Some(batch.next_offset());
                self.summary.batches_read += 1;
                let committed = self.invariants.committed.log(group);
                let forked = committed.is_some_and(|log| log.forked_term() > 0);
                let who = format!("a fetch from node {node}");
                let (id, crc) = (batch.base_timestamp(), batch.crc());
                let checked = match committed.and_then(|log| log.at_offset(first)) {
                    Some(mark) => one_value::claims(group, &who, first, id, crc, mark),
                    None if forked => Ok(()),
                    None => Err(Violation::new(
                        "nothing_uncommitted_is_served",
                        format!("group {group}: {who} gave batch {id} at {first}"),
                    )),
                };
                if checked.is_err() {
                    return self.check(checked);
                }
            }
        }
        if let Some(next) = expected
            && !from_anywhere
        {
            self.readers.positions.insert(group, next);
        }
    }
}
