//! What clients did and what they were told.

use std::collections::BTreeMap;

use crate::clock::EPOCH_MS;
use crate::invariants::Violation;

/// One batch that a client made. Its id is its records' timestamp, which no broker changes and the
/// checksum covers, so that a batch is known wherever it turns up.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The client.
    pub client: usize,
    /// The group.
    pub group: u64,
    /// The checksum in its header.
    pub crc: u32,
    /// Those that it had under earlier numbers of its producer.
    pub earlier: Vec<u32>,
    /// Records in it.
    pub records: u32,
    /// Whether its producer numbers batches: then it must be in the log once at most.
    pub idempotent: bool,
    /// Whether its acknowledgement is a promise (acks=all).
    pub durable: bool,
    /// How often it was sent.
    pub sends: u32,
    /// Where the broker said it is, and when.
    pub acked: Option<(i64, u64)>,
    /// Whether an answer said that it definitely is not in the log and the client gave up.
    pub given_up: bool,
}

impl Batch {
    /// The checksum that an entry with this one is to have: its own, if the batch was ever sent with it.
    #[must_use]
    pub fn crc_as(&self, seen: u32) -> u32 {
        if self.earlier.contains(&seen) {
            seen
        } else {
            self.crc
        }
    }
}

/// Every batch ever made.
#[derive(Debug, Default)]
pub struct History {
    batches: BTreeMap<i64, Batch>,
    next: i64,
}

impl History {
    /// The id of the next batch.
    pub fn next_id(&mut self) -> i64 {
        self.next += 1;
        EPOCH_MS + self.next
    }

    /// A batch was made.
    pub fn made(&mut self, id: i64, batch: Batch) {
        self.batches.insert(id, batch);
    }

    /// The batch of an id.
    #[must_use]
    pub fn batch(&self, id: i64) -> Option<&Batch> {
        self.batches.get(&id)
    }

    /// The batch of an id, to be changed.
    pub fn batch_mut(&mut self, id: i64) -> Option<&mut Batch> {
        self.batches.get_mut(&id)
    }

    /// All batches by id.
    pub fn batches(&self) -> impl Iterator<Item = (i64, &Batch)> {
        self.batches.iter().map(|(id, batch)| (*id, batch))
    }

    /// A broker acknowledged a batch.
    ///
    /// # Errors
    /// Where it had been acknowledged at another offset.
    pub fn acknowledged(&mut self, id: i64, offset: i64, now_us: u64) -> Result<(), Violation> {
        let Some(batch) = self.batches.get_mut(&id) else {
            return Ok(());
        };
        match batch.acked {
            Some((before, _)) if before != offset && batch.idempotent => Err(Violation::new(
                "no_duplicate_of_an_idempotent_producer",
                format!("batch {id} was acknowledged at offset {before} and again at {offset}"),
            )),
            Some(_) => Ok(()),
            None => {
                batch.acked = Some((offset, now_us));
                Ok(())
            }
        }
    }
}
