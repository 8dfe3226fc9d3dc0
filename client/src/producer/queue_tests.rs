#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use riverrun_record::BatchView;
use riverrun_wire::ErrorCode;

use super::*;

const FIRST: Identity = Identity { id: 7, epoch: 0 };
const SECOND: Identity = Identity { id: 8, epoch: 0 };

fn config() -> QueueConfig {
    QueueConfig {
        idempotence: true,
        answered: true,
        compression: Compression::None,
        compression_level: None,
        batch_bytes: 200,
        linger: Duration::from_millis(5),
        max_in_flight: 5,
        delivery_timeout: Duration::from_secs(10),
        retry_backoff: Duration::from_millis(100),
        retry_backoff_max: Duration::from_secs(1),
    }
}

struct Bed {
    queue: PartitionQueue,
    config: QueueConfig,
    now: Instant,
    cells: Vec<Arc<DeliveryCell>>,
}

impl Bed {
    fn new(config: QueueConfig) -> Self {
        Self {
            queue: PartitionQueue::new(),
            config,
            now: Instant::now(),
            cells: Vec::new(),
        }
    }

    /// A queue with an identity and so many full batches of one record each.
    fn with_batches(count: usize) -> Self {
        let mut bed = Self::new(config());
        for _ in 0..count {
            bed.append(150);
        }
        bed.queue.close_open();
        bed.queue.set_identity(FIRST);
        bed
    }

    fn append(&mut self, len: usize) -> Appended {
        let value = vec![0; len];
        let record = Append {
            timestamp_ms: 0,
            key: None,
            value: Some(&value),
            headers: &[],
            reserved_bytes: len + 20,
        };
        let appended = self.queue.append(&record, &self.config, self.now).unwrap();
        if !self.cells.iter().any(|c| Arc::ptr_eq(c, &appended.cell)) {
            self.cells.push(appended.cell.clone());
        }
        appended
    }

    fn take(&mut self) -> Option<Outgoing> {
        self.queue.take(&self.config, self.now).map(Result::unwrap)
    }

    /// All that may leave now: (batch, producer id, first sequence number).
    fn take_all(&mut self) -> Vec<(u64, i64, i32)> {
        let sent = self.take_with_epochs().into_iter();
        sent.map(|(batch, id, _, sequence)| (batch, id, sequence))
            .collect()
    }

    /// The same with the producer's epoch before the number.
    fn take_with_epochs(&mut self) -> Vec<(u64, i64, i16, i32)> {
        let sent = |out: Outgoing| {
            let view = BatchView::parse(&out.bytes).unwrap();
            assert!(view.crc_is_valid());
            let (id, epoch) = (view.producer_id(), view.producer_epoch());
            (out.batch, id, epoch, view.base_sequence())
        };
        std::iter::from_fn(|| self.take()).map(sent).collect()
    }

    fn complete(&mut self, batch: u64, verdict: Verdict) -> Option<Taken> {
        self.queue.complete(batch, verdict, &self.config, self.now)
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    /// Each batch's answer: its base offset, or that it failed.
    fn answers(&self) -> Vec<Option<Result<i64, ()>>> {
        let base = |r: &Result<Delivered, Error>| {
            r.as_ref()
                .map(|d| d.base_offset.unwrap_or(-1))
                .map_err(|_| ())
        };
        self.cells.iter().map(|c| c.peek().map(base)).collect()
    }
}

fn written(base_offset: i64) -> Verdict {
    Verdict::Written(Delivered {
        base_offset: Some(base_offset),
        log_append_time_ms: None,
    })
}

fn error(code: ErrorCode) -> Error {
    Error::refused("a record", code, None)
}

fn unknown() -> Verdict {
    Verdict::Unknown(error(ErrorCode::RequestTimedOut))
}

fn out_of_order() -> Verdict {
    Verdict::OutOfOrder(error(ErrorCode::OutOfOrderSequenceNumber))
}

#[test]
fn records_share_a_batch_until_it_is_full() {
    let mut bed = Bed::new(config());
    assert!(bed.append(30).wake);
    assert!(!bed.append(30).wake);
    assert_eq!(bed.append(100).index, 0);
    assert_eq!(bed.cells.len(), 2);
    // One that is larger than a batch has one to itself.
    assert_eq!(bed.append(1_000).index, 0);
    assert_eq!(bed.cells.len(), 3);
}

#[test]
fn a_batch_leaves_when_it_is_full_or_has_lingered() {
    let mut bed = Bed::new(config());
    bed.queue.set_identity(FIRST);
    bed.append(30);
    assert!(bed.take().is_none());
    assert_eq!(
        bed.queue.next_event(&bed.config, bed.now),
        Some(bed.now + Duration::from_millis(5))
    );
    bed.wait(5);
    assert!(bed.take().is_some());
    bed.append(190);
    assert!(bed.take().is_some());
}

#[test]
fn nothing_leaves_without_an_identity() {
    let mut bed = Bed::new(config());
    bed.append(190);
    assert!(bed.queue.wants_identity(&bed.config) && bed.queue.is_new());
    assert!(bed.take().is_none());
    bed.queue.set_identity(FIRST);
    assert_eq!(bed.take_all(), [(0, 7, 0)]);
}

#[test]
fn five_are_in_flight_in_order_and_numbers_count_records() {
    let mut bed = Bed::with_batches(7);
    assert_eq!(
        bed.take_all(),
        [(0, 7, 0), (1, 7, 1), (2, 7, 2), (3, 7, 3), (4, 7, 4)]
    );
    assert_eq!(
        bed.complete(0, written(40)),
        Some(Taken {
            reserved_bytes: 170
        })
    );
    assert_eq!(bed.take_all(), [(5, 7, 5)]);
    assert_eq!(bed.answers()[0], Some(Ok(40)));
    assert_eq!(bed.answers()[1], None);
}

#[test]
fn after_a_failure_all_in_flight_are_awaited_then_sent_again_in_order() {
    let mut bed = Bed::with_batches(4);
    assert_eq!(bed.take_all().len(), 4);
    bed.complete(0, unknown());
    assert!(bed.take_all().is_empty());
    bed.complete(1, out_of_order());
    bed.complete(2, out_of_order());
    bed.wait(100);
    assert!(bed.take_all().is_empty(), "one is still in flight");
    bed.complete(3, out_of_order());
    bed.wait(200);
    let again = [(0, 7, 0), (1, 7, 1), (2, 7, 2), (3, 7, 3)];
    assert_eq!(bed.take_all(), again);
    for batch in 0..4 {
        bed.complete(batch, written(i64::try_from(batch).unwrap()));
    }
    assert_eq!(
        bed.answers(),
        [Some(Ok(0)), Some(Ok(1)), Some(Ok(2)), Some(Ok(3))]
    );
    assert!(bed.queue.is_empty());
}

#[test]
fn no_more_is_sent_behind_a_batch_of_unknown_fate_than_brokers_remember() {
    let mut bed = Bed::with_batches(8);
    assert_eq!(bed.take_all().len(), 5);
    bed.complete(0, unknown());
    for batch in 1..5 {
        bed.complete(batch, written(batch.cast_signed()));
    }
    for _ in 0..2 {
        bed.wait(1_000);
        // A sixth batch would make the broker forget this one, which it may have stored.
        assert_eq!(bed.take_all(), [(0, 7, 0)]);
        let next = bed.queue.next_event(&bed.config, bed.now);
        assert_eq!(next, bed.queue.next_expiry(), "nothing to do before");
        bed.complete(0, unknown());
    }
    bed.wait(1_000);
    bed.take_all();
    bed.complete(0, written(0));
    assert_eq!(bed.take_all(), [(5, 7, 5), (6, 7, 6), (7, 7, 7)]);
}

#[test]
fn pauses_grow_up_to_their_limit() {
    let mut bed = Bed::with_batches(1);
    for pause in [100, 200, 400, 800, 1_000, 1_000] {
        assert_eq!(bed.take_all().len(), 1);
        bed.complete(0, unknown());
        bed.wait(pause - 1);
        assert!(bed.take_all().is_empty());
        bed.wait(1);
    }
}

#[test]
fn a_batch_that_is_given_up_leaves_a_gap_that_the_next_epoch_closes() {
    let mut bed = Bed::with_batches(1);
    bed.take_all();
    bed.complete(0, unknown());
    bed.wait(9_000);
    bed.append(150);
    bed.queue.close_open();
    bed.wait(1_000);
    assert_eq!(bed.queue.expire(bed.now, &bed.config).len(), 1);
    assert_eq!(bed.answers()[0], Some(Err(())));
    // The next one is tried with its own number: had the lost one been stored, it would fit.
    assert_eq!(bed.take_all(), [(1, 7, 1)]);
    bed.complete(1, out_of_order());
    assert!(!bed.queue.wants_identity(&bed.config));
    bed.wait(200);
    assert_eq!(bed.take_with_epochs(), [(1, 7, 1, 0)]);
    bed.complete(1, written(5));
    assert_eq!(bed.answers()[1], Some(Ok(5)));
    // What comes later goes on in that epoch.
    bed.append(190);
    assert_eq!(bed.take_with_epochs(), [(2, 7, 1, 1)]);
}

#[test]
fn an_epoch_begins_when_all_of_the_one_before_are_answered() {
    let mut bed = Bed::with_batches(4);
    bed.take_all();
    bed.complete(0, Verdict::Fatal(error(ErrorCode::InvalidRecord)));
    bed.complete(1, out_of_order());
    bed.wait(1_000);
    assert!(bed.take_all().is_empty());
    bed.complete(3, out_of_order());
    bed.complete(2, out_of_order());
    bed.wait(1_000);
    let again = [(1, 7, 1, 0), (2, 7, 1, 1), (3, 7, 1, 2)];
    assert_eq!(bed.take_with_epochs(), again);
}

#[test]
fn behind_the_last_epoch_comes_a_new_identity() {
    let mut bed = Bed::with_batches(2);
    let epoch = i16::MAX;
    bed.queue.set_identity(Identity { epoch, ..FIRST });
    bed.take_all();
    bed.complete(0, Verdict::Fatal(error(ErrorCode::InvalidRecord)));
    bed.complete(1, out_of_order());
    assert!(bed.queue.wants_identity(&bed.config) && !bed.queue.is_new());
    assert!(bed.take_all().is_empty());
    bed.queue.set_identity(SECOND);
    bed.wait(200);
    assert_eq!(bed.take_with_epochs(), [(1, 8, 0, 0)]);
}

#[test]
fn a_gap_is_no_gap_if_the_lost_batch_was_stored() {
    let mut bed = Bed::with_batches(1);
    bed.take_all();
    bed.wait(10_000);
    bed.complete(0, unknown());
    assert_eq!(bed.answers()[0], Some(Err(())));
    bed.append(190);
    bed.wait(100);
    assert_eq!(bed.take_all(), [(1, 7, 1)]);
    bed.complete(1, written(1));
    assert_eq!(bed.answers()[1], Some(Ok(1)));
}

#[test]
fn an_identity_that_the_broker_forgot_is_replaced_if_nothing_can_be_stored_twice() {
    let mut bed = Bed::with_batches(2);
    bed.take_all();
    bed.complete(0, Verdict::Identity(error(ErrorCode::UnknownProducerId)));
    bed.complete(1, Verdict::Identity(error(ErrorCode::UnknownProducerId)));
    bed.queue.set_identity(SECOND);
    bed.wait(300);
    assert_eq!(bed.take_all(), [(0, 8, 0), (1, 8, 1)]);
}

#[test]
fn a_batch_of_unknown_fate_is_not_sent_under_another_identity() {
    let mut bed = Bed::with_batches(2);
    bed.take_all();
    bed.complete(0, unknown());
    bed.complete(1, unknown());
    bed.wait(300);
    assert_eq!(bed.take_all().len(), 2);
    bed.complete(0, Verdict::Identity(error(ErrorCode::UnknownProducerId)));
    assert_eq!(bed.answers(), [Some(Err(())), None]);
    // The one behind it may be stored as well: it is given up for the same reason.
    bed.complete(1, Verdict::Identity(error(ErrorCode::UnknownProducerId)));
    assert_eq!(bed.answers(), [Some(Err(())), Some(Err(()))]);
}

#[test]
fn a_broker_that_lost_what_it_acknowledged_is_reported() {
    let mut bed = Bed::with_batches(2);
    bed.take_all();
    // Nothing before it is open, so the broker has lost something.
    bed.complete(0, out_of_order());
    assert_eq!(bed.answers()[0], Some(Err(())));
    bed.complete(1, out_of_order());
    bed.wait(300);
    assert_eq!(bed.take_with_epochs(), [(1, 7, 1, 0)]);
}

#[test]
fn without_idempotence_one_at_a_time_unless_nobody_answers() {
    let mut bed = Bed::new(QueueConfig {
        idempotence: false,
        ..config()
    });
    (0..3).for_each(|_| drop(bed.append(190)));
    assert_eq!(bed.take_all(), [(0, -1, -1)]);
    bed.complete(0, unknown());
    bed.wait(100);
    assert_eq!(bed.take_all(), [(0, -1, -1)]);
    let mut bed = Bed::new(QueueConfig {
        idempotence: false,
        answered: false,
        ..config()
    });
    (0..3).for_each(|_| drop(bed.append(190)));
    assert_eq!(bed.take_all().len(), 3);
}

#[test]
fn what_is_past_its_deadline_is_given_up_though_an_attempt_is_under_way() {
    let mut bed = Bed::with_batches(6);
    bed.take_all();
    bed.complete(0, written(0));
    bed.wait(10_000);
    assert_eq!(bed.queue.next_expiry(), Some(bed.now));
    assert_eq!(bed.queue.expire(bed.now, &bed.config).len(), 5);
    assert_eq!(bed.answers()[0], Some(Ok(0)));
    assert!(bed.answers()[1..].iter().all(|a| *a == Some(Err(()))));
    // Its broker may still answer: nobody is told twice, and no memory given back twice.
    assert_eq!(bed.complete(1, written(1)), None);
    assert_eq!(bed.answers()[1], Some(Err(())));
}

#[test]
fn no_epoch_begins_while_an_attempt_that_was_given_up_is_under_way() {
    let mut bed = Bed::with_batches(1);
    bed.take_all();
    bed.wait(9_000);
    bed.append(150);
    bed.queue.close_open();
    bed.wait(1_000);
    assert_eq!(bed.queue.expire(bed.now, &bed.config).len(), 1);
    assert_eq!(bed.take_all(), [(1, 7, 1)]);
    bed.complete(1, out_of_order());
    bed.wait(1_000);
    assert!(bed.take_all().is_empty());
    assert_eq!(bed.complete(0, unknown()), None);
    assert_eq!(bed.take_with_epochs(), [(1, 7, 1, 0)]);
}

#[test]
fn abandoning_answers_everything_once() {
    let mut bed = Bed::with_batches(3);
    let first = bed.take().unwrap();
    assert_eq!(bed.queue.abandon(&Error::Closed).len(), 3);
    assert_eq!(bed.complete(first.batch, written(1)), None);
    assert!(bed.answers().iter().all(|a| *a == Some(Err(()))));
    // The others' numbers are missing: what comes next finds out, and begins an epoch.
    bed.append(190);
    assert_eq!(bed.take_all(), [(3, 7, 1)]);
    bed.complete(3, out_of_order());
    bed.wait(1_000);
    assert_eq!(bed.take_with_epochs(), [(3, 7, 1, 0)]);
}
