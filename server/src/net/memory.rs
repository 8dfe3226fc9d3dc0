//! One budget for the bodies of requests: reserved before a body is read, given back when its
//! request has been answered.
//!
//! Frames that fit one read have a part of the budget to themselves, so that a client which claims
//! large bodies and is slow to send them holds back only others of its kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one permit.
const UNIT_BYTES: usize = 256;
/// Bodies up to this length are reserved from the part for small ones.
pub(crate) const SMALL_BYTES: usize = 64 << 10;

/// The budget.
#[derive(Debug)]
pub(crate) struct Budget {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    large_units: u32,
    /// Who waits for the part for large bodies.
    waiting_for_large: AtomicUsize,
}

/// Counts one that waits, however its waiting ends.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A reservation, given back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Lease(
    #[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>,
);

impl Budget {
    /// A budget of `total_bytes`, of which a quarter is for small bodies. The rest is at least
    /// `max_body_bytes`, or a body of that size could never be read.
    pub(crate) fn new(total_bytes: usize, max_body_bytes: usize) -> Self {
        let small = (total_bytes / 4).max(SMALL_BYTES);
        let large = (total_bytes - total_bytes / 4).max(max_body_bytes.max(SMALL_BYTES));
        let large_units = u32::try_from(large.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        Self {
            small: Arc::new(Semaphore::new(small.div_ceil(UNIT_BYTES))),
            large: Arc::new(Semaphore::new(large_units as usize)),
            large_units,
            waiting_for_large: AtomicUsize::new(0),
        }
    }

    /// Whether somebody waits for memory that a large body holds.
    pub(crate) fn large_is_wanted(&self) -> bool {
        self.waiting_for_large.load(Ordering::Relaxed) > 0
    }

    /// Whether so little is left that a full read might have to be kept outside the budget.
    pub(crate) fn is_short(&self) -> bool {
        self.small.available_permits() < SMALL_BYTES / UNIT_BYTES
    }

    fn part(&self, bytes: usize) -> (&Arc<Semaphore>, u32) {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        if bytes <= SMALL_BYTES {
            (&self.small, units)
        } else {
            // Another node's frame may be larger than all that there is; it then takes all.
            (&self.large, units.min(self.large_units))
        }
    }

    /// A reservation, if it can be had at once.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Lease> {
        let (part, units) = self.part(bytes);
        Arc::clone(part)
            .try_acquire_many_owned(units)
            .ok()
            .map(|permit| Lease(Some(permit)))
    }

    /// Waits for a reservation, first come first served.
    pub(crate) async fn reserve(&self, bytes: usize) -> Lease {
        let (part, units) = self.part(bytes);
        let _waits = (bytes > SMALL_BYTES).then(|| Waits::begin(&self.waiting_for_large));
        // The semaphores are never closed, so the only outcome is a permit.
        Lease(Arc::clone(part).acquire_many_owned(units).await.ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_claims_leave_the_part_for_small_bodies_alone() {
        let budget = Budget::new(1 << 20, 1 << 20);
        let all = budget.try_reserve(1 << 20);
        assert!(all.is_some());
        assert!(budget.try_reserve(SMALL_BYTES + 1).is_none());
        assert!(budget.try_reserve(SMALL_BYTES).is_some());
        drop(all);
        assert!(budget.try_reserve(SMALL_BYTES + 1).is_some());
    }
}
