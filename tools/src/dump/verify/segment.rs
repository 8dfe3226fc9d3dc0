//! One segment: the sidecar's records against the batches, both against what the WAL says.

use std::path::{Path, PathBuf};

use riverrun_record::{BatchError, BatchView};
use riverrun_storage::EntryKind;
use riverrun_storage::format::SegmentFile;
use riverrun_storage::format::aux;
use riverrun_storage::format::index::IndexedBatch;
use riverrun_storage::format::sidecar::{Header, Record};
use riverrun_storage::recovered::LogStart;

use super::durability::Durability;
use super::findings::Findings;
use super::indexes::IndexCheck;
use super::producers::SnapshotCheck;
use crate::dump::aux::payload;
use crate::dump::batches::Batches;
use crate::dump::input::{Failure, Input};
use crate::dump::sidecar::{Slot, Slots, next_offset, read_header, start_text};

/// Term runs that are remembered, to be held against Kafka's list of epochs.
const MAX_EPOCHS: usize = 100_000;

/// What was gone through.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) segments: u64,
    pub(super) entries: u64,
    pub(super) batches: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// A log as its segments go by.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    pub(super) durability: &'a Durability<'a>,
    pub(super) findings: &'a mut Findings,
    pub(super) producers: SnapshotCheck,
    /// The last entry, and the next offset; not known at the front, nor behind what is damaged.
    pub(super) state: Option<LogStart>,
    /// Where the log was created or last reset, by its first header.
    pub(super) birth: Option<LogStart>,
    /// Which epoch begins where, as Kafka lists them.
    pub(super) epochs: Vec<(i32, i64)>,
    pub(super) tally: Tally,
    /// Whether everything was gone through.
    pub(super) is_whole: bool,
    /// Base offset of the newest segment that a header calls wholly synced, or -1.
    pub(super) durable_segment: i64,
}

/// A segment's files.
pub(super) struct Segment {
    pub(super) raft_path: PathBuf,
    pub(super) log_path: PathBuf,
    pub(super) log: Batches,
    pub(super) log_len: u64,
    pub(super) aux_path: PathBuf,
    pub(super) aux: Result<Input, String>,
    pub(super) indexes: IndexCheck,
    /// Where the next batch and the next payload belong.
    pub(super) log_at: u64,
    pub(super) aux_at: u64,
    /// Whether records before this were not readable.
    pub(super) lost: bool,
    pub(super) said_short: bool,
    pub(super) is_whole: bool,
}

/// Records of the sidecar that follow each other and cannot be read.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    position: u64,
    first: u64,
    last: u64,
    is_empty: bool,
}

impl Walk<'_> {
    pub(super) fn add(&mut self, demanded: bool, path: &Path, position: u64, what: String) {
        self.findings.add(demanded, path, Some(position), what);
    }

    pub(super) fn next_index(&self) -> u64 {
        self.state
            .map_or(1, |state| state.prev_index.saturating_add(1))
    }

    /// Goes through a segment. The sidecar and the indexes are opened before the log, so that what
    /// they say of a running node's log is in it.
    pub(super) fn segment(&mut self, dir: &Path, base: i64) -> Result<(), Failure> {
        let raft_path = SegmentFile::Raft.path(dir, base);
        let log_path = SegmentFile::Log.path(dir, base);
        let aux_path = SegmentFile::Aux.path(dir, base);
        let slots = match Input::open(&raft_path) {
            Ok(input) => self.header(&raft_path, input, base)?,
            Err(error) => {
                let demanded = self.durability.demands(self.next_index());
                self.add(
                    demanded,
                    &raft_path,
                    0,
                    format!("it cannot be opened: {error}"),
                );
                None
            }
        };
        let indexes = IndexCheck::open(dir, base, base > self.durable_segment)?;
        let log = match Input::open(&log_path) {
            Ok(log) => log,
            Err(error) => {
                self.findings
                    .damage(&log_path, None, format!("it cannot be opened: {error}"));
                self.lose();
                return Ok(());
            }
        };
        let mut segment = Segment {
            raft_path,
            log_path,
            log_len: log.len(),
            log: Batches::new(log, base),
            aux: Input::open(&aux_path).map_err(|error| error.to_string()),
            aux_path,
            indexes,
            log_at: 0,
            aux_at: u64::from(aux::HEADER_LEN),
            lost: self.state.is_none(),
            said_short: false,
            is_whole: true,
        };
        self.tally.segments += 1;
        self.tally.bytes += segment.log_len;
        if let Ok(aux) = &mut segment.aux
            && aux.at(0, aux::HEADER_LEN as usize)? != aux::header()
        {
            self.findings
                .damage(&segment.aux_path, 0, "no .aux header of a known version");
        }
        let goes_on = match slots {
            Some(slots) => self.records(&mut segment, slots)?,
            None => true,
        };
        if goes_on {
            self.behind_the_sidecar(&mut segment)?;
        } else {
            segment.is_whole = false;
        }
        self.is_whole &= segment.is_whole;
        let Segment {
            indexes, is_whole, ..
        } = segment;
        indexes.finish(is_whole, self.findings)
    }

    /// Nothing is known of what follows.
    fn lose(&mut self) {
        self.state = None;
        self.is_whole = false;
        self.producers.give_up();
    }

    /// Checks the header. Where it cannot be read, the records are looked for behind it as far as the
    /// entry before them is known.
    fn header(
        &mut self,
        path: &Path,
        mut input: Input,
        base: i64,
    ) -> Result<Option<Slots>, Failure> {
        let (header, len) = match read_header(&mut input)? {
            Ok(read) => read,
            Err(what) => {
                let demanded = self.durability.demands(self.next_index());
                self.add(demanded, path, 0, what.to_owned());
                let guess = Header::guess(input.at(0, usize::from(u16::MAX))?);
                return Ok(guess.zip(self.state).map(|((len, _), state)| {
                    Slots::new(input, len, state.prev_index.saturating_add(1))
                }));
            }
        };
        if header.start.offset != base {
            let what = "the base offset in the header is not the one of the file's name";
            self.findings.damage(path, 88, what);
        }
        if let Some(record) = self.durability.record() {
            if header.identity != record.identity {
                let what = format!(
                    "it belongs to group {}, replica {}",
                    header.identity.group, header.identity.replica
                );
                self.findings.damage(path, 8, what);
            }
            if header.birth != record.start {
                let is_wrong = record.unfinished_cut.is_none();
                self.add(
                    is_wrong,
                    path,
                    48,
                    "the log is that of before its reset".to_owned(),
                );
            }
        }
        let birth = *self.birth.get_or_insert(header.birth);
        if birth != header.birth {
            self.findings
                .damage(path, 48, "the log is that of before its reset");
        }
        if let Some(state) = self.state
            && state != header.start
        {
            let demanded = self.durability.demands(state.prev_index.saturating_add(1));
            let what = format!(
                "the segment begins behind {}, the log before it ends at {}",
                start_text(&header.start),
                start_text(&state)
            );
            self.add(demanded, path, 72, what);
            self.producers.give_up();
            self.is_whole = false;
        }
        self.state = Some(header.start);
        let first = header.start.prev_index.saturating_add(1);
        Ok(Some(Slots::new(input, len, first)))
    }

    /// Goes through the sidecar's records. False where the rest is about to be cut.
    fn records(&mut self, segment: &mut Segment, mut slots: Slots) -> Result<bool, Failure> {
        let mut bad: Option<Stretch> = None;
        while let Some((index, position, slot)) = slots.next()? {
            if index >= self.durability.cut() {
                let what = format!("the next start cuts the log from entry {index} on");
                self.add(false, &segment.raft_path, position, what);
                return Ok(false);
            }
            let Slot::Good(record) = slot else {
                let before = bad.unwrap_or(Stretch {
                    position,
                    first: index,
                    last: index,
                    is_empty: true,
                });
                let is_empty = before.is_empty && slot != Slot::Bad;
                bad = Some(Stretch {
                    last: index,
                    is_empty,
                    ..before
                });
                continue;
            };
            if let Some(stretch) = bad.take() {
                self.unreadable(segment, stretch, false);
                segment.lost = true;
            }
            self.entry(segment, index, position, &record)?;
        }
        if let Some(stretch) = bad {
            self.unreadable(
                segment,
                stretch,
                stretch.is_empty || slots.input().has_changed(),
            );
        }
        Ok(true)
    }

    /// Names records that cannot be read. At the end of a sidecar, which is not synced for data, a
    /// crash may leave nothing in their place: that is excused, as is what is being written.
    fn unreadable(&mut self, segment: &Segment, stretch: Stretch, is_excused: bool) {
        let Stretch {
            position,
            first,
            last,
            is_empty,
        } = stretch;
        let demanded = match self.durability.record() {
            Some(_) => self
                .durability
                .next_demanded(first)
                .is_some_and(|index| index <= last),
            None => true,
        };
        let what = if is_empty {
            format!("nothing in the place of the records of entries {first} to {last}")
        } else {
            format!("the checksum does not match the records of entries {first} to {last}")
        };
        self.add(demanded && !is_excused, &segment.raft_path, position, what);
    }

    /// Checks the next entry.
    fn entry(
        &mut self,
        segment: &mut Segment,
        index: u64,
        position: u64,
        record: &Record,
    ) -> Result<(), Failure> {
        let demanded = self.durability.demands(index);
        if let Some(state) = self.state.filter(|_| !segment.lost) {
            if record.base_offset != state.offset {
                let what = format!(
                    "entry {index} has offset {}, {} should follow here",
                    record.base_offset, state.offset
                );
                self.add(demanded, &segment.raft_path, position, what);
            }
            if u64::from(record.term) < state.prev_term {
                let what = format!(
                    "entry {index} has term {}, the one before has {}",
                    record.term, state.prev_term
                );
                self.add(demanded, &segment.raft_path, position, what);
            }
        }
        if !self.durability.agrees(index, record) {
            let what = format!("the node WAL says something else of entry {index}");
            self.findings.damage(&segment.raft_path, position, what);
        }
        match record.kind {
            EntryKind::Data => self.batch_of(segment, index, position, record)?,
            EntryKind::Conf | EntryKind::Command => {
                self.payload_of(segment, index, position, record)?;
            }
            EntryKind::Noop | EntryKind::Hole => {}
        }
        if record.kind == EntryKind::Data {
            // From here on it is known again where everything belongs.
            segment.lost = false;
        }
        self.tally.entries += 1;
        self.place(
            index,
            u64::from(record.term),
            record.base_offset,
            next_offset(record),
        );
        Ok(())
    }

    pub(super) fn place(&mut self, index: u64, term: u64, base_offset: i64, next: Option<i64>) {
        let Some(next) = next else {
            self.lose();
            return;
        };
        self.state = Some(LogStart {
            prev_index: index,
            prev_term: term,
            offset: next,
        });
        // As Kafka lists them: of epochs that begin at one offset, the newest.
        let Ok(epoch) = i32::try_from(term) else {
            return;
        };
        if self.epochs.last().is_some_and(|(last, _)| *last == epoch)
            || self.epochs.len() >= MAX_EPOCHS
        {
            return;
        }
        if self
            .epochs
            .last()
            .is_some_and(|(_, offset)| *offset == base_offset)
        {
            self.epochs.pop();
        }
        self.epochs.push((epoch, base_offset));
    }

    /// Checks the batch of a data entry.
    fn batch_of(
        &mut self,
        segment: &mut Segment,
        index: u64,
        position: u64,
        record: &Record,
    ) -> Result<(), Failure> {
        let demanded = self.durability.demands(index);
        let log_at = u64::from(record.position);
        if segment.lost && log_at > segment.log_at {
            self.catch_up(segment, log_at, demanded)?;
        }
        if log_at != segment.log_at {
            let what = format!(
                "the record of entry {index} points to byte {log_at} of the log, the batch before it ends at {}",
                segment.log_at
            );
            self.add(demanded, &segment.raft_path, position, what);
        }
        segment.log_at = record.end();
        let wal = self.durability.wal_entry(index);
        let mut fed = None;
        let wrong = match segment.log.at(log_at)? {
            Ok(batch) => {
                let wrong = disagreement(&batch, record);
                let is_other = wal.is_some_and(|entry| entry.payload != batch.bytes());
                if wrong.is_none() && is_other {
                    let what =
                        format!("the node WAL has other bytes for the batch of entry {index}");
                    self.findings.damage(&segment.log_path, log_at, what);
                }
                if wrong.is_none() {
                    self.producers.batch(&batch, self.findings)?;
                    fed = Some((batch.max_timestamp(), batch.record_count()));
                }
                wrong
            }
            Err(BatchError::Incomplete { .. }) if record.end() > segment.log_len => {
                segment.is_whole = false;
                if !segment.said_short || demanded {
                    let what = format!("the log ends before the batch of entry {index} does");
                    let at = segment.log_len;
                    self.add(demanded, &segment.log_path, at, what);
                    // One place of damage is enough for all that is missing behind it.
                    segment.said_short = true;
                    if demanded {
                        self.producers.give_up();
                    }
                }
                return Ok(());
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(what) = wrong {
            let hint = if wal.is_some() {
                "; the node WAL still has it"
            } else {
                ""
            };
            let what = format!("the batch of entry {index}: {what}{hint}");
            self.add(demanded, &segment.log_path, log_at, what);
            self.producers.give_up();
        }
        if let Some((max_timestamp, records)) = fed {
            self.tally.batches += 1;
            self.tally.records += u64::try_from(records).unwrap_or(0);
            let batch = IndexedBatch {
                last_offset: record
                    .base_offset
                    .saturating_add(record.last_offset_delta.into()),
                max_timestamp,
                position: record.position,
                len: record.len,
            };
            segment.indexes.batch(batch, self.findings)?;
        } else {
            segment.indexes.unknown(record.end())?;
        }
        Ok(())
    }

    fn payload_of(
        &mut self,
        segment: &mut Segment,
        index: u64,
        position: u64,
        record: &Record,
    ) -> Result<(), Failure> {
        let demanded = self.durability.demands(index);
        if u64::from(record.position) != segment.aux_at && !segment.lost {
            let what = format!(
                "the record of entry {index} points to byte {} of the payloads, the one before ends at {}",
                record.position, segment.aux_at
            );
            self.add(demanded, &segment.raft_path, position, what);
        }
        segment.aux_at = record.end() + u64::from(aux::ITEM_HEADER_LEN);
        let wrong = match &mut segment.aux {
            Ok(aux) => payload(aux, index, record)?.err().map(str::to_owned),
            Err(why) => Some(format!("the file cannot be opened: {why}")),
        };
        if let Some(what) = wrong {
            let what = format!("the payload of entry {index}: {what}");
            self.add(
                demanded,
                &segment.aux_path,
                u64::from(record.position),
                what,
            );
        }
        Ok(())
    }
}

/// What is wrong with a batch, alone or beside what the sidecar says of it.
fn disagreement(batch: &BatchView<'_>, record: &Record) -> Option<String> {
    if let Err(fault) = batch.check_stored() {
        return Some(fault.to_string());
    }
    let differs = |name: &str, here: i64, there: i64| {
        (here != there).then(|| format!("its {name} is {here}, in the sidecar {there}"))
    };
    let len = i64::try_from(batch.total_len()).unwrap_or(i64::MAX);
    differs("base offset", batch.base_offset(), record.base_offset)
        .or_else(|| {
            differs(
                "leader epoch",
                batch.leader_epoch().into(),
                record.term.into(),
            )
        })
        .or_else(|| {
            let delta = batch.last_offset_delta();
            differs(
                "last offset delta",
                delta.into(),
                record.last_offset_delta.into(),
            )
        })
        .or_else(|| differs("size", len, record.len.into()))
}
