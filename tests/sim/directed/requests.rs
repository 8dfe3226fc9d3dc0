//! What nodes are asked, and what they answer.

use riverrun_record::{BatchBuilder, Compression, Limits, validate};
use riverrun_replication::conf::Change;
use riverrun_replication::shard::Input;
use riverrun_replication::{Acks, Produce, ProduceError, ProduceOutcome, Published, Ticket};

use super::cluster::{BESIDE, Cluster, GROUP};
use super::machine::SMALL_ROUND_BYTES;

impl Cluster {
    fn ticket(&mut self) -> Ticket {
        self.requests += 1;
        Ticket {
            connection: 1,
            request: self.requests,
            slot: 0,
        }
    }

    pub(super) fn produce_to(
        &mut self,
        at: u64,
        group: u64,
        acks: Acks,
        sequence: Option<i32>,
        value: &str,
    ) -> u64 {
        let mut builder = BatchBuilder::new(Compression::None, None);
        if let Some(sequence) = sequence {
            builder = builder.producer(7, 0, sequence);
        }
        builder
            .append(1_000, None, Some(value.as_bytes()), &[])
            .unwrap();
        let batch = builder.build_mut().unwrap();
        let summary = validate(&batch, &Limits::new(1_000)).unwrap();
        let ticket = self.ticket();
        if group == GROUP {
            self.asked.insert(ticket.request, value.to_owned());
        }
        let produce = Produce {
            ticket,
            acks,
            batch,
            summary,
            expected_epoch: None,
        };
        self.turn(at, vec![Input::Produce { group, produce }]);
        ticket.request
    }

    /// Sends an event to a node, acks=all; the request by which its answer is found.
    pub(super) fn produce(&mut self, at: u64, value: &str) -> u64 {
        self.produce_to(at, GROUP, Acks::All, None, value)
    }

    /// The same with so many bytes that its flush round is bulk.
    pub(super) fn produce_great(&mut self, at: u64, value: &str) -> u64 {
        let padding = ".".repeat(4 * SMALL_ROUND_BYTES as usize);
        self.produce(at, &format!("{value}{padding}"))
    }

    /// The same from the idempotent producer P.
    pub(super) fn produce_as_p(&mut self, at: u64, sequence: i32, value: &str) -> u64 {
        self.produce_to(at, GROUP, Acks::All, Some(sequence), value)
    }

    /// An event to [`BESIDE`] on a node, with the round that it waits for.
    pub(super) fn produce_beside(&mut self, at: u64, value: &str) {
        let request = self.produce_to(at, BESIDE, Acks::All, None, value);
        self.run(&[at]);
        assert!(self.acked(request).is_some());
    }

    /// An event that is acknowledged when everybody has done what follows from it.
    pub(super) fn produce_acked(&mut self, at: u64, value: &str) -> i64 {
        let request = self.produce(at, value);
        let all = self.nodes();
        let up: Vec<u64> = all.into_iter().filter(|at| self.runs(*at)).collect();
        self.run(&up);
        self.acked(request).unwrap()
    }

    /// What a request was answered, once it was.
    pub(super) fn answer(&self, request: u64) -> Option<ProduceOutcome> {
        self.answers.get(&request).copied()
    }

    /// The offset at which a request was acknowledged.
    pub(super) fn acked(&self, request: u64) -> Option<i64> {
        Some(self.answer(request)?.ok()?.base_offset)
    }

    /// Every event that was acknowledged, with its offset.
    pub(super) fn promised(&self) -> Vec<(i64, String)> {
        let asked = self.asked.iter();
        asked
            .filter_map(|(request, value)| {
                Some((
                    self.acked(*request)?,
                    value.trim_end_matches('.').to_owned(),
                ))
            })
            .collect()
    }

    /// Asks a node to make sure that it still leads.
    pub(super) fn confirm(&mut self, at: u64) -> u64 {
        let ticket = self.ticket();
        self.turn(
            at,
            vec![Input::Confirm {
                group: GROUP,
                ticket,
            }],
        );
        ticket.request
    }

    pub(super) fn confirmed(&self, request: u64) -> Option<Result<Published, ProduceError>> {
        self.confirmed.get(&request).copied()
    }

    /// Proposes a membership change.
    pub(super) fn change(&mut self, at: u64, changes: &[Change]) -> u64 {
        let ticket = self.ticket();
        let changes = changes.to_vec();
        self.turn(
            at,
            vec![Input::Change {
                group: GROUP,
                ticket,
                changes,
            }],
        );
        ticket.request
    }
}
