//! What was sent, what was acknowledged and what was read.
//!
//! The producer is idempotent and never gives an event up, so the events of a partition stand at
//! the offsets 0, 1, 2 and so on, in the order in which they were sent: lost, doubled, moved and
//! exchanged events all show as a wrong number at an offset, and nothing has to be remembered but
//! how far each side has come.

use crate::event::{Event, Stored};
use crate::kafka::now_ms;
use crate::trial::trial;
use anyhow::{Result, bail, ensure};
use libtest_mimic::Trial;
use std::sync::Mutex;

pub(crate) const PARTITIONS: usize = 3;

pub(crate) struct Ledger {
    seed: u64,
    /// The timestamp of every partition's first event. It is the present: brokers forget producers
    /// whose last event is older than a day, and with them which of their batches they have.
    begun_ms: i64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sent: [i64; PARTITIONS],
    acknowledged: [i64; PARTITIONS],
    /// One more than the highest offset that any consumer was given.
    read: [i64; PARTITIONS],
    violation: Option<String>,
}

impl Ledger {
    pub(crate) fn new(seed: u64) -> Ledger {
        Ledger {
            seed,
            begun_ms: now_ms(),
            state: Mutex::default(),
        }
    }

    /// The event that is number `n` of a partition: of any size from a few bytes to 2 KiB.
    pub(crate) fn event(&self, partition: usize, n: i64) -> Event {
        let mut state =
            self.seed ^ (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ partition as u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let length = if next() % 4 == 0 {
            next() % 2048
        } else {
            next() % 1024
        };
        let mut value = format!("{partition}/{n} ").into_bytes();
        value.extend((0..length).map(|_| next() as u8));
        Event {
            timestamp_ms: self.begun_ms + n,
            key: Some(format!("key-{}", n % 100).into_bytes()),
            value: Some(value),
            headers: vec![("n".to_owned(), Some(n.to_string().into_bytes()))],
        }
    }

    pub(crate) fn sending(&self, partition: usize) -> i64 {
        let mut state = self.state.lock().unwrap();
        let n = state.sent[partition];
        state.sent[partition] += 1;
        n
    }

    /// The producer's report about event `n`: the offset, or why there is none.
    pub(crate) fn acknowledge(&self, partition: usize, n: i64, offset: Result<i64, String>) {
        let mut state = self.state.lock().unwrap();
        let due = state.acknowledged[partition];
        let wrong = match offset {
            Err(error) => format!("event {n} of partition {partition} was refused: {error}"),
            Ok(offset) if offset != n => {
                format!("event {n} of partition {partition} was acknowledged at offset {offset}")
            }
            Ok(_) if n != due => {
                format!("event {n} of partition {partition} was acknowledged where {due} was due")
            }
            Ok(_) => {
                state.acknowledged[partition] += 1;
                return;
            }
        };
        state.violation.get_or_insert(wrong);
    }

    /// A consumer was given this.
    pub(crate) fn read(&self, partition: usize, stored: &Stored) -> Result<()> {
        let expected = self.event(partition, stored.offset);
        ensure!(
            stored.event == expected,
            "offset {} of partition {partition} holds {:?}, and was {expected:?}",
            stored.offset,
            stored.event
        );
        let mut state = self.state.lock().unwrap();
        ensure!(
            stored.offset < state.sent[partition],
            "offset {} of partition {partition} was read before it was sent",
            stored.offset
        );
        state.read[partition] = state.read[partition].max(stored.offset + 1);
        Ok(())
    }

    pub(crate) fn violated(&self, what: String) {
        self.state.lock().unwrap().violation.get_or_insert(what);
    }

    /// An error if anything has gone wrong that nobody waited for.
    pub(crate) fn intact(&self) -> Result<()> {
        match &self.state.lock().unwrap().violation {
            None => Ok(()),
            Some(violation) => bail!("{violation}"),
        }
    }

    pub(crate) fn sent(&self) -> [i64; PARTITIONS] {
        self.state.lock().unwrap().sent
    }

    pub(crate) fn acknowledged(&self) -> [i64; PARTITIONS] {
        self.state.lock().unwrap().acknowledged
    }

    pub(crate) fn acknowledged_in_all(&self) -> i64 {
        self.acknowledged().iter().sum()
    }

    /// How far a partition must reach: what was acknowledged must be there, and what was once read
    /// may not vanish.
    pub(crate) fn due(&self, partition: usize) -> i64 {
        let state = self.state.lock().unwrap();
        state.acknowledged[partition].max(state.read[partition])
    }
}

pub(super) fn trials() -> Vec<Trial> {
    vec![trial(
        "kill_loop::the_ledger_sees_lost_doubled_moved_and_changed_events",
        sees_damage,
    )]
}

fn sees_damage() -> Result<()> {
    let ledger = Ledger::new(7);
    for n in 0..4 {
        ensure!(ledger.sending(1) == n);
    }
    let stored = |offset: i64, n: i64| Stored {
        offset,
        event: ledger.event(1, n),
    };
    ledger.acknowledge(1, 0, Ok(0));
    ledger.intact()?;
    ledger.read(1, &stored(2, 2))?;
    ensure!(ledger.due(1) == 3 && ledger.acknowledged() == [0, 1, 0]);

    ensure!(
        ledger.read(1, &stored(1, 2)).is_err(),
        "event 1 is lost and the next took its offset"
    );
    ensure!(
        ledger.read(1, &stored(2, 1)).is_err(),
        "event 1 is there twice"
    );
    ensure!(
        ledger.read(0, &stored(0, 0)).is_err(),
        "an event of another partition"
    );
    ensure!(
        ledger.read(1, &stored(4, 4)).is_err(),
        "an event that was never sent"
    );
    let mut changed = stored(1, 1);
    changed.event.timestamp_ms += 1;
    ensure!(ledger.read(1, &changed).is_err(), "a changed event");

    for (n, offset) in [(1, Ok(2)), (2, Ok(2)), (1, Err("lost".to_owned()))] {
        let ledger = Ledger::new(7);
        ledger.acknowledge(1, 0, Ok(0));
        ledger.acknowledge(1, n, offset.clone());
        ensure!(
            ledger.intact().is_err(),
            "event {n} acknowledged as {offset:?} after event 0"
        );
    }
    Ok(())
}
