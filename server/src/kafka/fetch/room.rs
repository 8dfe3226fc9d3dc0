//! The memory in which bytes are verified that come from the disk.
//!
//! They leave from where they were verified (X1), so a client that takes its answer slowly holds them. All
//! such answers together have a budget. A read that finds none left serves the same bytes from the page
//! cache, where they are at this moment, as those of a partition that everybody reads are.

use std::sync::Arc;

use bytes::Bytes;
use riverrun_storage::{Fetched, LogReader, LogResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one unit of the budget.
const UNIT_BYTES: usize = 64 << 10;
/// Units of all answers together: 256 MiB.
pub(crate) const COLD_UNITS: usize = 4096;
/// The most that one answer takes of them: 8 MiB.
const MOST_UNITS: usize = 128;

/// What one answer may hold.
#[derive(Debug)]
pub(crate) struct Room {
    permit: Option<Arc<OwnedSemaphorePermit>>,
    bytes: usize,
}

/// Verified bytes with their part of the budget.
#[derive(Debug)]
struct Held {
    bytes: Bytes,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Room {
    /// Room for an answer of up to `max_bytes`, if there is any.
    pub(super) fn take(budget: &Arc<Semaphore>, max_bytes: usize) -> Self {
        let units = max_bytes.div_ceil(UNIT_BYTES).clamp(1, MOST_UNITS);
        let wanted = u32::try_from(units).unwrap_or(u32::MAX);
        let permit = Arc::clone(budget).try_acquire_many_owned(wanted).ok();
        Self {
            permit: permit.map(Arc::new),
            bytes: units * UNIT_BYTES,
        }
    }

    /// [`LogReader::fetch`] into this room. `limits`: the most bytes, and whether the first batch is taken
    /// whatever its size.
    pub(super) fn read(
        &self,
        reader: &LogReader,
        offset: i64,
        ceiling: i64,
        (max_bytes, at_least_one): (usize, bool),
    ) -> LogResult<Fetched> {
        let max_bytes = max_bytes.min(self.bytes);
        let mut fetched = reader.fetch(offset, ceiling, max_bytes, at_least_one)?;
        let Some(permit) = &self.permit else {
            let cached = reader.fetch_in_memory(offset, ceiling, max_bytes, at_least_one);
            return Ok(cached.ok().flatten().unwrap_or(fetched));
        };
        for batch in &mut fetched.batches {
            let held = Held {
                bytes: std::mem::take(batch),
                _permit: Arc::clone(permit),
            };
            *batch = Bytes::from_owner(held);
        }
        Ok(fetched)
    }
}
