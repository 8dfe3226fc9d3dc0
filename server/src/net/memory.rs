//! One budget for the bodies of requests: reserved before a body is read, given back when its
//! request has been answered.
//!
//! Frames that fit one read have a part of the budget to themselves, and so have those of the size
//! that producers' batches have: whoever claims larger bodies and is slow to send them holds back
//! only others of its kind. Where those leave something, bodies of the middle size take that, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one permit.
const UNIT_BYTES: usize = 256;
/// Bodies up to this length are reserved from the part for small ones.
pub(crate) const SMALL_BYTES: usize = 64 << 10;

/// Bodies up to this length, and to the size of the part, are reserved from the part for those of
/// the middle size. Producers send 1 MB at most by default.
const MEDIUM_BYTES: usize = 4 << 20;

/// The budget.
#[derive(Debug)]
pub(crate) struct Budget {
    small: Arc<Semaphore>,
    medium: Arc<Semaphore>,
    medium_bytes: usize,
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
    /// A budget of `total_bytes`, of which an eighth is for small bodies and a quarter for those of
    /// the middle size. The rest is at least `max_body_bytes`, or a body of that size could never
    /// be read.
    pub(crate) fn new(total_bytes: usize, max_body_bytes: usize) -> Self {
        let (small, medium) = (total_bytes / 8, total_bytes / 4);
        let large = total_bytes - small - medium;
        let small = small.max(SMALL_BYTES);
        let medium = medium.max(SMALL_BYTES);
        let large = large.max(max_body_bytes.max(SMALL_BYTES));
        let large_units = u32::try_from(large.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let part = |bytes: usize| Arc::new(Semaphore::new(bytes.div_ceil(UNIT_BYTES)));
        Self {
            small: part(small),
            medium: part(medium),
            medium_bytes: medium.min(MEDIUM_BYTES),
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

    /// The permits that a body takes, the part that they are of, and another that they may be of.
    fn parts(&self, bytes: usize) -> (u32, &Arc<Semaphore>, Option<&Arc<Semaphore>>) {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        if bytes <= SMALL_BYTES {
            (units, &self.small, None)
        } else if bytes <= self.medium_bytes {
            (units, &self.medium, Some(&self.large))
        } else {
            // Another node's frame may be larger than all that there is; it then takes all.
            (units.min(self.large_units), &self.large, None)
        }
    }

    /// A reservation, if it can be had at once.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Lease> {
        let (units, part, other) = self.parts(bytes);
        let mut parts = std::iter::once(part).chain(other);
        parts.find_map(|part| {
            let permit = Arc::clone(part).try_acquire_many_owned(units).ok()?;
            Some(Lease(Some(permit)))
        })
    }

    /// Waits for a reservation, first come first served in each part.
    pub(crate) async fn reserve(&self, bytes: usize) -> Lease {
        let (units, part, other) = self.parts(bytes);
        let _waits = (bytes > SMALL_BYTES).then(|| Waits::begin(&self.waiting_for_large));
        let permit = Arc::clone(part).acquire_many_owned(units);
        // The semaphores are never closed, so the only outcome is a permit.
        Lease(match other {
            None => permit.await.ok(),
            Some(other) => tokio::select! {
                biased;
                permit = permit => permit.ok(),
                permit = Arc::clone(other).acquire_many_owned(units) => permit.ok(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_claims_leave_the_other_parts_alone() {
        let budget = Budget::new(1 << 20, 1 << 20);
        let medium = 256 << 10;
        let all = budget.try_reserve(1 << 20);
        assert!(all.is_some());
        assert!(budget.try_reserve(medium + 1).is_none());
        let own = budget.try_reserve(medium);
        assert!(own.is_some());
        assert!(budget.try_reserve(SMALL_BYTES + 1).is_none());
        assert!(budget.try_reserve(SMALL_BYTES).is_some());
        // What large bodies leave is for those of the middle size, too.
        drop(all);
        assert!(budget.try_reserve(medium).is_some());
        drop(own);
        assert!(budget.try_reserve(medium + 1).is_some());
    }

    #[tokio::test]
    async fn a_body_of_the_middle_size_does_not_wait_behind_large_ones() {
        let budget = Arc::new(Budget::new(1 << 20, 1 << 20));
        let medium = 256 << 10;
        let _large = budget.try_reserve(1 << 20).expect("nothing is taken yet");
        let own = budget.try_reserve(medium).expect("nothing is taken yet");
        let [mut behind, mut waiting] = [1 << 20, medium].map(|bytes| {
            let budget = Arc::clone(&budget);
            tokio::spawn(async move { budget.reserve(bytes).await })
        });
        tokio::task::yield_now().await;
        assert!(!behind.is_finished() && !waiting.is_finished());
        drop(own);
        drop((&mut waiting).await.expect("it has its memory"));
        assert!(!behind.is_finished());
        behind.abort();
        drop((&mut behind).await);
    }
}
