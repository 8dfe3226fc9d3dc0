//! Which entries of a log are bad at rest, and which cannot be read.

use std::sync::Arc;
use std::time::Duration;

use crate::log::at_rest::{self, Records};
use crate::log::error::{LogError, LogResult};
use crate::log::reader::LogReader;

/// Good entries that end a run of bad ones.
const GOOD_BEHIND: usize = 16;

/// An entry whose bytes at rest are bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadEntry {
    /// Its Raft index.
    pub index: u64,
    /// Its first offset, or the first of the place where it lies.
    pub first_offset: i64,
    /// The offset behind it.
    pub next_offset: i64,
    /// When it was found, by the disk's clock.
    pub found: Duration,
}

impl LogReader {
    /// The entries that were found to be bad and have not been put right. Those that the log has no more
    /// are forgotten.
    #[must_use]
    pub fn bad_entries(&self) -> Vec<BadEntry> {
        let (first, last) = (self.first_index(), self.last_index());
        let mut bad = self.shared.bad.lock();
        bad.retain(|index, _| (first..=last).contains(index));
        bad.values().copied().collect()
    }

    /// Why what a dropped head said of producers is not known, where it is not.
    #[must_use]
    pub fn lost_producers(&self) -> Option<String> {
        self.shared.lost.lock().clone()
    }

    /// Whether bytes at rest are bad.
    #[must_use]
    pub fn is_marred(&self) -> bool {
        !self.shared.bad.lock().is_empty() || self.shared.lost.lock().is_some()
    }

    /// How long ago an entry was found to be bad.
    #[must_use]
    pub fn bad_for(&self, index: u64) -> Option<Duration> {
        let found = self.shared.bad.lock().get(&index)?.found;
        Some(self.shared.disk.now().saturating_sub(found))
    }

    /// Notes what an error says of an entry.
    pub(super) fn note(&self, error: &LogError) {
        let LogError::BadBatch {
            index,
            first_offset,
            next_offset,
            ..
        } = error
        else {
            return;
        };
        let entry = BadEntry {
            index: *index,
            first_offset: *first_offset,
            next_offset: *next_offset,
            found: self.shared.disk.now(),
        };
        self.shared.bad.lock().entry(*index).or_insert(entry);
    }

    /// Notes entries that an opening found to be bad.
    pub(super) fn note_bad(&self, indexes: &[u64]) -> LogResult<()> {
        for index in indexes {
            let offset = self.log_start_offset();
            let (first, next) = match self.entry_meta(*index) {
                Ok(Some(meta)) => (meta.base_offset, meta.next_offset()),
                Ok(None) => (offset, offset),
                // Its record is bad, too: somewhere between these.
                Err(LogError::BadBatch {
                    first_offset,
                    next_offset,
                    ..
                }) => (first_offset, next_offset),
                Err(error) => return Err(error),
            };
            let entry = BadEntry {
                index: *index,
                first_offset: first,
                next_offset: next,
                found: self.shared.disk.now(),
            };
            self.shared.bad.lock().insert(*index, entry);
        }
        Ok(())
    }

    /// Looks again at what the disk has of an entry; where that is whole, it is bad no more.
    ///
    /// # Errors
    /// `BadBatch` where it is not, and I/O errors.
    pub fn verify(&self, index: u64) -> LogResult<()> {
        loop {
            let place = self.place(index)?;
            let found = match &place.sealed {
                Some(sealed) => at_rest::records(&sealed.files, &sealed.shape, index, index + 1)?,
                None => Records {
                    records: vec![place.record(index)?],
                    ..Records::default()
                },
            };
            let sealed = place.sealed.as_ref();
            let mut bad = sealed.map_or_else(Vec::new, |sealed| {
                at_rest::bad_records(sealed, index, &found)
            });
            let look = at_rest::look(&place.files, index, &found.records)?;
            if !self.shared.inner.read().has(&place.files) {
                continue;
            }
            bad.extend(look.bad);
            if let Some((_, error)) = bad.pop() {
                return Err(error);
            }
            if let Some(error) = found.why.or(look.why) {
                return Err(error);
            }
            self.shared.bad.lock().remove(&index);
            self.shared.unreadable.lock().remove(&index);
            return Ok(());
        }
    }

    /// The bad entries of one segment from `index` on, `most` at most, as far as they lie close to each
    /// other. Waits for the disk.
    ///
    /// # Errors
    /// I/O errors, and `NoSuchEntry` where the log does not have the first.
    pub fn bad_run(&self, index: u64, most: usize) -> LogResult<Vec<u64>> {
        let last = self.place(index)?.last_index;
        let (mut bad, mut good) = (Vec::new(), 0);
        for index in index..=last {
            match self.verify(index) {
                Ok(()) => good += 1,
                Err(LogError::BadBatch { .. }) => {
                    good = 0;
                    bad.push(index);
                }
                // The place that cannot be read counts as bad.
                Err(error) if error.is_of_one_place() && self.bad_for(index).is_some() => {
                    good = 0;
                    bad.push(index);
                }
                Err(error) if bad.is_empty() => return Err(error),
                Err(_) => break,
            }
            if good > GOOD_BEHIND || bad.len() >= most {
                break;
            }
        }
        Ok(bad)
    }

    /// Notes that an entry cannot be read.
    pub(super) fn note_unreadable(&self, index: u64) {
        let now = self.shared.disk.now();
        self.shared.unreadable.lock().entry(index).or_insert(now);
    }

    /// The entries that cannot be read and are not known to be bad, each with how long that has been so.
    #[must_use]
    pub fn unreadable_entries(&self) -> Vec<(u64, Duration)> {
        let (first, last, now) = (
            self.first_index(),
            self.last_index(),
            self.shared.disk.now(),
        );
        let bad = self.shared.bad.lock();
        let mut unreadable = self.shared.unreadable.lock();
        unreadable.retain(|index, _| (first..=last).contains(index) && !bad.contains_key(index));
        let since = unreadable.iter();
        since
            .map(|(index, since)| (*index, now.saturating_sub(*since)))
            .collect()
    }

    /// Whether the disk gives the first bytes of the log. Waits for the disk.
    #[must_use]
    pub fn reads(&self) -> bool {
        let files = {
            let inner = self.shared.inner.read();
            let first = inner.sealed.first();
            Arc::clone(first.map_or(&inner.active.files, |first| &first.files))
        };
        let mut bytes = [0; 32];
        files
            .raft()
            .is_ok_and(|raft| raft.read_past_cache(&mut bytes, 0).is_ok())
    }

    /// Takes an entry that cannot be read for bad, and those that lie with it in the same place and cannot be
    /// read either. Waits for the disk.
    ///
    /// # Errors
    /// `NoSuchEntry` where the log does not have it.
    pub fn give_up_reading(&self, index: u64) -> LogResult<()> {
        let place = self.place(index)?;
        let refuses = |index: &u64| {
            let read = self.verify(*index);
            read.is_err_and(|error| error.is_of_one_place())
        };
        let behind = (index..=place.last_index).take_while(refuses).count() as u64;
        let before = (place.shape.first_index..index)
            .rev()
            .take_while(refuses)
            .count() as u64;
        let indexes: Vec<u64> = (index - before..index + behind).collect();
        for index in &indexes {
            place.files.give_up(*index);
        }
        self.note_bad(&indexes)?;
        Ok(())
    }
}
