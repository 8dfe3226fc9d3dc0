//! Kafka's indexes, held against the batches as these go by.
//!
//! Which entries there should be depends on a setting of the topic, so what is checked is what a
//! reader relies on, as Apache Kafka's own tool does: an entry leads to a batch and names its last
//! offset; a time entry names the first batch that has the largest timestamp so far.

use std::path::{Path, PathBuf};
use std::time::Duration;

use riverrun_storage::format::SegmentFile;
use riverrun_storage::format::index::{IndexedBatch, OffsetEntry, TimeEntry};

use super::findings::Findings;
use crate::dump::index::Entries;
use crate::dump::input::{Failure, Input};

/// Both indexes of a segment.
#[derive(Debug)]
pub(super) struct IndexCheck {
    base_offset: i64,
    offsets: Option<Cursor<OffsetEntry>>,
    times: Option<Cursor<TimeEntry>>,
    /// The largest timestamp so far.
    max_timestamp: i64,
    /// Where the indexes are not there or cannot be read, by file.
    missing: Vec<(PathBuf, String)>,
    /// Whether the next start holds them against the batches, and makes them anew where they are wrong. Of a
    /// segment that is known to be durable it looks at the lengths.
    is_remade: bool,
}

/// The next entry of an index, and its first byte.
#[derive(Debug)]
struct Cursor<E> {
    path: PathBuf,
    entries: Entries,
    decode: fn(&[u8]) -> E,
    next: Option<(u64, E)>,
    before: Option<E>,
}

impl<E: Copy> Cursor<E> {
    fn new(path: &Path, entries: Entries, decode: fn(&[u8]) -> E) -> Result<Self, Failure> {
        let mut cursor = Self {
            path: path.to_path_buf(),
            entries,
            decode,
            next: None,
            before: None,
        };
        cursor.advance()?;
        Ok(cursor)
    }

    fn advance(&mut self) -> Result<(), Failure> {
        self.before = self.next.map(|(_, entry)| entry).or(self.before);
        let decode = self.decode;
        self.next = self
            .entries
            .next()?
            .map(|(position, bytes)| (position, decode(bytes)));
        Ok(())
    }
}

/// How often, and how far apart, a missing index is looked for again.
const LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Whether an index is still not to be had a moment later: a running node creates the files of a new
/// segment one after another.
fn stays_away(path: &Path) -> bool {
    (0..LOOKS).all(|look| {
        if look > 0 {
            std::thread::sleep(BETWEEN_LOOKS);
        }
        Input::open(path).is_err()
    })
}

impl IndexCheck {
    /// Opens what there is.
    pub(super) fn open(dir: &Path, base_offset: i64, is_remade: bool) -> Result<Self, Failure> {
        let mut missing = Vec::new();
        let mut open = |file: SegmentFile| {
            let path = file.path(dir, base_offset);
            match Input::open(&path) {
                Ok(input) => Some((path, input)),
                Err(error) => {
                    missing.push((path, error.to_string()));
                    None
                }
            }
        };
        let offsets = open(SegmentFile::Index);
        let times = open(SegmentFile::TimeIndex);
        Ok(Self {
            base_offset,
            offsets: offsets
                .map(|(path, input)| {
                    Cursor::new(&path, Entries::offsets(input), OffsetEntry::decode)
                })
                .transpose()?,
            times: times
                .map(|(path, input)| Cursor::new(&path, Entries::times(input), TimeEntry::decode))
                .transpose()?,
            max_timestamp: -1,
            missing,
            is_remade,
        })
    }

    /// Takes the next batch of the log.
    pub(super) fn batch(
        &mut self,
        batch: IndexedBatch,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        self.offset_entries(batch, findings)?;
        self.time_entries(batch, findings)?;
        self.max_timestamp = self.max_timestamp.max(batch.max_timestamp);
        Ok(())
    }

    /// Takes a batch that cannot be read and ends before this byte of the log. Entries that lead to
    /// it cannot be judged, and none of the later times can: which is the first batch with the
    /// largest is not known any more.
    pub(super) fn unknown(&mut self, end: u64) -> Result<(), Failure> {
        self.times = None;
        if let Some(cursor) = &mut self.offsets {
            while cursor
                .next
                .is_some_and(|(_, entry)| u64::from(entry.position) < end)
            {
                cursor.advance()?;
            }
        }
        Ok(())
    }

    fn offset_entries(
        &mut self,
        batch: IndexedBatch,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        let Some(cursor) = &mut self.offsets else {
            return Ok(());
        };
        while let Some((position, entry)) = cursor.next
            && entry.position < batch.position.saturating_add(batch.len)
        {
            let offset = self
                .base_offset
                .saturating_add(entry.relative_offset.into());
            let follows = cursor.before.is_none_or(|before| {
                entry.position > before.position && entry.relative_offset > before.relative_offset
            });
            if !follows {
                findings.derived(
                    self.is_remade,
                    &cursor.path,
                    position,
                    "the entry is not above the one before it",
                );
            } else if entry.position != batch.position {
                let what = format!("no batch begins at byte {} of the log", entry.position);
                findings.derived(self.is_remade, &cursor.path, position, what);
            } else if offset != batch.last_offset {
                let what = format!(
                    "the batch at byte {} of the log has last offset {}, not {offset}",
                    entry.position, batch.last_offset
                );
                findings.derived(self.is_remade, &cursor.path, position, what);
            }
            cursor.advance()?;
        }
        Ok(())
    }

    fn time_entries(
        &mut self,
        batch: IndexedBatch,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        let Some(cursor) = &mut self.times else {
            return Ok(());
        };
        while let Some((position, entry)) = cursor.next {
            let offset = self
                .base_offset
                .saturating_add(entry.relative_offset.into());
            if offset > batch.last_offset {
                break;
            }
            let follows = cursor.before.is_none_or(|before| {
                entry.timestamp > before.timestamp
                    && entry.relative_offset >= before.relative_offset
            });
            let is_this = offset == batch.last_offset
                && entry.timestamp == batch.max_timestamp
                && entry.timestamp > self.max_timestamp;
            if !follows {
                findings.derived(
                    self.is_remade,
                    &cursor.path,
                    position,
                    "the entry is not above the one before it",
                );
            } else if !is_this {
                let what = format!(
                    "offset {offset} does not end the first batch with timestamp {}",
                    entry.timestamp
                );
                findings.derived(self.is_remade, &cursor.path, position, what);
            }
            cursor.advance()?;
        }
        Ok(())
    }

    /// Ends the segment. `is_whole` says that all of the log's batches went by; if not, the rest of
    /// the indexes cannot be judged.
    pub(super) fn finish(mut self, is_whole: bool, findings: &mut Findings) -> Result<(), Failure> {
        for (path, why) in self.missing.iter().filter(|(path, _)| stays_away(path)) {
            findings.rebuilt(path, None, format!("the index cannot be opened: {why}"));
        }
        if !is_whole {
            return Ok(());
        }
        if let Some(cursor) = &mut self.offsets {
            while let Some((position, entry)) = cursor.next {
                let what = format!("no batch begins at byte {} of the log", entry.position);
                findings.derived(self.is_remade, &cursor.path, position, what);
                cursor.advance()?;
            }
            torn(cursor, findings);
        }
        if let Some(cursor) = &mut self.times {
            while let Some((position, entry)) = cursor.next {
                let offset = self
                    .base_offset
                    .saturating_add(entry.relative_offset.into());
                findings.derived(
                    self.is_remade,
                    &cursor.path,
                    position,
                    format!("the segment has no offset {offset}"),
                );
                cursor.advance()?;
            }
            torn(cursor, findings);
        }
        Ok(())
    }
}

fn torn<E>(cursor: &Cursor<E>, findings: &mut Findings) {
    if let Some(at) = cursor.entries.torn_at() {
        findings.rebuilt(&cursor.path, at, "the file ends within an entry");
    }
}
