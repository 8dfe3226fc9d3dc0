//! Putting a log together again out of its three sources (W4): the sidecar's records, the batches
//! that a scan of `.log` finds, and the entries that the node WAL still holds.
//!
//! Index by index, front to back. A sidecar record counts where its checksum matches and what it
//! points at is there; it is not synced for data, so it may end early, and then a batch behind the
//! last record is the next entry. That is safe only because a non-data entry is durable, in the
//! WAL or the sidecar, before a later byte of `.log` is written (I4), and because the WAL's entries
//! are at hand: the scan cannot take a batch for an entry that was not one. It stops at a batch of
//! another epoch, as the no-op that began that term is missing. Where a record was synced once, and is
//! bad or missing now, the scan's word counts only if a later record, the WAL, or the header of the next
//! segment agrees with it (R13).
//!
//! What is bad or missing ends the log there if it lies above the durable index, and is damage at or
//! below it. Where WAL and files disagree it is damage whatever the index: a cut is recorded before
//! files are cut, so they cannot (W2).
//!
//! Nothing is written here; [`super::repair`] carries it out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use riverrun_record::BatchView;

use crate::entry::{EntryKind, LogEntry};
use crate::format::SegmentFile;
use crate::format::aux;
use crate::format::index::IndexedBatch;
use crate::format::sidecar::{Header, RECORD_LEN, Record};
use crate::log::error::{LogError, LogResult};
use crate::log::files::Files;
use crate::log::reader::read_payload;
use crate::log::scan::{Found, Scanner};
use crate::planted::{self, Bug};
use crate::recovered::LogStart;

/// Where a sidecar's header names the entry before the segment.
const PREVIOUS_AT: u64 = 72;

/// A segment as it was found.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) files: Arc<Files>,
    /// The header and its length, where it is whole and of this log.
    pub(super) header: Option<(Header, usize)>,
    /// Where it is not: the byte of the sidecar, and what is wrong there.
    pub(super) fault: Option<(u64, &'static str)>,
    /// All bytes of the sidecar.
    pub(super) sidecar: Vec<u8>,
    pub(super) log_len: u64,
}

impl Input {
    fn record(&self, index: u64) -> Option<Record> {
        let (_, bytes) = self.place(index)?;
        Record::decode(index, bytes)
    }

    /// The bytes where the record of an index lies, and where that is; none where the sidecar ends before.
    fn place(&self, index: u64) -> Option<(u64, &[u8; RECORD_LEN])> {
        let (header, header_len) = self.header.as_ref()?;
        let at = usize::try_from(index.checked_sub(header.start.prev_index + 1)?).ok()?;
        let from = header_len.checked_add(at.checked_mul(RECORD_LEN)?)?;
        let bytes = self.sidecar.get(from..)?.first_chunk::<RECORD_LEN>()?;
        Some((from as u64, bytes))
    }

    /// What is known against the sidecar where the record of an index should lie. A sidecar is not synced for
    /// data: that it ends early, or has nothing but zeros there, may be what a crash has left.
    fn fault_at(&self, index: u64) -> Option<Bad> {
        let (position, what) = match self.place(index) {
            None => self.fault?,
            Some((_, bytes)) if bytes.iter().all(|byte| *byte == 0) => return None,
            Some((_, bytes)) if Record::decode(index, bytes).is_some() => return None,
            Some((position, _)) => (position, "the record's checksum does not match"),
        };
        Some(self.bad(SegmentFile::Raft, position, what))
    }

    /// The first good record behind an index, and whose it is.
    fn good_behind(&self, index: u64) -> Option<(u64, Record)> {
        let mut next = index + 1;
        while self.place(next).is_some() {
            if let Some(record) = self.record(next) {
                return Some((next, record));
            }
            next += 1;
        }
        None
    }

    /// The record of an index, or the end of the sidecar where it ends before.
    fn bad_record(&self, index: u64, what: &'static str) -> Bad {
        let at = self.place(index).map(|(position, _)| position);
        let end = self.sidecar.len() as u64;
        self.bad(SegmentFile::Raft, at.unwrap_or(end), what)
    }

    fn bad(&self, file: SegmentFile, position: u64, what: &'static str) -> Bad {
        Bad {
            path: self.files.path(file),
            position,
            what,
        }
    }
}

/// A segment as it is to be.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) input: Input,
    pub(super) start: LogStart,
    pub(super) records: Vec<Record>,
    pub(super) batches: Vec<IndexedBatch>,
    pub(super) log_len: u64,
    pub(super) aux: Vec<u8>,
    pub(super) next_offset: i64,
    /// Batches of the WAL that belong into `.log`, with their positions.
    pub(super) restored: Vec<(u64, Bytes)>,
}

impl Draft {
    pub(super) fn last_index(&self) -> u64 {
        self.start.prev_index + self.records.len() as u64
    }
}

/// What recovery of a group knows beside its files.
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// The WAL's entries by index.
    pub(super) wal: BTreeMap<u64, &'a LogEntry>,
    pub(super) durable_index: u64,
    /// Every entry up to here was given a record that was synced (R13).
    pub(super) sidecar_synced: u64,
    /// Entries from here on are to be cut, whatever they are (W2).
    pub(super) limit: Option<u64>,
}

/// The whole log as it is to be.
#[derive(Debug)]
pub(super) struct Merged {
    /// Segments in order, the last one active.
    pub(super) drafts: Vec<Draft>,
    /// Segments behind the end.
    pub(super) dropped: Vec<Input>,
    /// Entries that only the WAL has, behind everything in the files.
    pub(super) tail: Vec<LogEntry>,
    /// Where a bad tail was cut.
    pub(super) cut_at: Option<u64>,
    pub(super) restored: usize,
    pub(super) scanned_bytes: u64,
    /// Durable entries whose records are good and whose batches are bad.
    pub(super) bad: Vec<u64>,
}

/// A place that ends the log.
#[derive(Debug)]
struct Bad {
    path: PathBuf,
    position: u64,
    what: &'static str,
}

/// What became of one index.
enum Step {
    Placed,
    NextSegment,
    /// Behind the last entry that the files have.
    End,
    /// Not to be had, for this reason.
    Bad(Bad),
}

/// The entry before the next one.
#[derive(Debug, Clone, Copy)]
struct State {
    index: u64,
    term: u64,
    offset: i64,
    /// The first of the entries before it whose index only a scan says: nothing behind it has agreed yet.
    unproven: Option<u64>,
}

/// Merges segments, of which the first begins behind `start`.
pub(super) fn merge(inputs: Vec<Input>, start: LogStart, known: &Known<'_>) -> LogResult<Merged> {
    let mut state = State {
        index: start.prev_index,
        term: start.prev_term,
        offset: start.offset,
        unproven: None,
    };
    let mut merged = Merged {
        drafts: Vec::new(),
        dropped: Vec::new(),
        tail: Vec::new(),
        cut_at: None,
        restored: 0,
        scanned_bytes: 0,
        bad: Vec::new(),
    };
    let mut inputs = inputs.into_iter().peekable();
    let mut end = None;
    while let Some(input) = inputs.next() {
        let mut segment = Segment::begin(input, state)?;
        end = loop {
            if known.limit.is_some_and(|limit| state.index + 1 >= limit) {
                break Some(None);
            }
            match segment.step(&mut state, known, inputs.peek())? {
                Step::Placed => {}
                Step::NextSegment => {
                    // Its header names the entry that it begins behind.
                    if inputs.peek().is_some_and(|next| next.header.is_some()) {
                        state.unproven = None;
                    }
                    break None;
                }
                Step::End => break Some(None),
                Step::Bad(bad) => break Some(Some(bad)),
            }
        };
        merged.restored += segment.restored;
        merged.bad.append(&mut segment.bad);
        merged.scanned_bytes += segment.scanner.read_bytes;
        let Some(bad) = end else {
            merged.drafts.push(segment.draft);
            continue;
        };
        merged.dropped = inputs.collect();
        if bad.is_none() {
            merged.tail = tail(&segment.draft, &mut state, known)?;
        }
        let is_bad = bad.is_some();
        if state.index < known.durable_index {
            let Bad {
                path,
                position,
                what,
            } = bad.unwrap_or_else(|| segment.ends_early(state.index + 1));
            return Err(LogError::Damaged {
                path,
                position,
                what,
            });
        }
        merged.drafts.push(segment.draft);
        finish(&mut merged, state, known, is_bad)?;
        return Ok(merged);
    }
    unreachable!("the last segment has an end: {end:?}");
}

/// The WAL's entries that follow without a gap.
fn tail(draft: &Draft, state: &mut State, known: &Known<'_>) -> LogResult<Vec<LogEntry>> {
    let mut tail = Vec::new();
    while let Some(entry) = known.wal.get(&(state.index + 1)) {
        check_wal_entry(draft, entry, state)?;
        state.place(entry.term, entry.next_offset());
        state.unproven = None;
        tail.push((*entry).clone());
    }
    Ok(tail)
}

/// Notes where a tail is cut, unless what lies before it cannot be told.
fn finish(merged: &mut Merged, state: State, known: &Known<'_>, bad: bool) -> LogResult<()> {
    // A batch was taken for the next entry where a record said so once: in its place may have been an entry
    // that is no batch, and all that follow would have another index than elsewhere (R13).
    if let Some(first) = state
        .unproven
        .filter(|first| *first <= known.sidecar_synced)
    {
        return Err(record_is_missing(merged, first));
    }
    let limited = known.limit == Some(state.index + 1);
    let behind = !merged.dropped.is_empty()
        || merged
            .drafts
            .last()
            .is_some_and(|last| merged.tail.is_empty() && last.log_len < last.input.log_len)
        || known.wal.range(state.index + 1..).next().is_some();
    if !limited && (bad || behind) {
        merged.cut_at = Some(state.index + 1);
    }
    Ok(())
}

fn record_is_missing(merged: &Merged, index: u64) -> LogError {
    let mut drafts = merged.drafts.iter();
    let of = drafts.find(|draft| draft.start.prev_index < index && index <= draft.last_index());
    let what =
        "the record of a durable entry is bad or missing, and nothing behind it tells its index";
    let (path, position) = of.map_or_else(Default::default, |draft| {
        let bad = draft.input.bad_record(index, what);
        (bad.path, bad.position)
    });
    LogError::damaged(&path, position, what)
}

impl State {
    fn place(&mut self, term: u64, next_offset: i64) {
        self.index += 1;
        self.term = term;
        self.offset = next_offset;
    }
}

/// The WAL checks its records' checksums; what they say must fit what lies before them.
fn check_wal_entry(draft: &Draft, entry: &LogEntry, state: &State) -> LogResult<()> {
    let fits = entry.base_offset == state.offset
        && entry.term >= state.term
        && (entry.kind != EntryKind::Data
            || BatchView::parse(&entry.payload).is_ok_and(|batch| {
                batch.total_len() == entry.payload.len()
                    && batch.base_offset() == entry.base_offset
                    && u64::try_from(batch.leader_epoch()) == Ok(entry.term)
                    && u32::try_from(batch.last_offset_delta()) == Ok(entry.last_offset_delta)
            }));
    if fits {
        return Ok(());
    }
    let log = draft.input.files.path(SegmentFile::Log);
    Err(LogError::Contradicted {
        path: log.parent().map(Path::to_path_buf).unwrap_or(log),
        index: entry.index,
    })
}

/// One segment while it is merged.
struct Segment {
    draft: Draft,
    scanner: Scanner,
    restored: usize,
    bad: Vec<u64>,
    /// Up to this index the batches agree with the next good record of the sidecar.
    agreed: u64,
}

impl Segment {
    fn begin(mut input: Input, state: State) -> LogResult<Self> {
        let start = LogStart {
            prev_index: state.index,
            prev_term: state.term,
            offset: state.offset,
        };
        // Records under a header that says otherwise are not those of these indexes.
        if input
            .header
            .take_if(|(header, _)| header.start != start)
            .is_some()
        {
            let what = "the header names another entry as the one before the segment";
            input.fault = Some((PREVIOUS_AT, what));
        }
        let scanner = Scanner::new(Arc::clone(input.files.log()?), input.log_len);
        let draft = Draft {
            input,
            start,
            records: Vec::new(),
            batches: Vec::new(),
            log_len: 0,
            aux: Vec::new(),
            next_offset: state.offset,
            restored: Vec::new(),
        };
        Ok(Self {
            draft,
            scanner,
            restored: 0,
            bad: Vec::new(),
            agreed: 0,
        })
    }

    /// The byte of `.log` that was reached.
    fn bad_log(&self, what: &'static str) -> Bad {
        self.draft
            .input
            .bad(SegmentFile::Log, self.draft.log_len, what)
    }

    /// The record of an index in the sidecar.
    fn bad_record(&self, index: u64, what: &'static str) -> Bad {
        self.draft.input.bad_record(index, what)
    }

    /// Why an entry that was durable is not in the last segment.
    fn ends_early(&self, index: u64) -> Bad {
        let fault = self.draft.input.fault_at(index);
        fault.unwrap_or_else(|| self.bad_log("the log ends before what was durable"))
    }

    fn step(
        &mut self,
        state: &mut State,
        known: &Known<'_>,
        next: Option<&Input>,
    ) -> LogResult<Step> {
        let index = state.index + 1;
        let wal = known.wal.get(&index).copied();
        if let Some(entry) = wal {
            check_wal_entry(&self.draft, entry, state)?;
        }
        let step = match (self.draft.input.record(index), wal) {
            (Some(record), wal) => {
                let is_durable = index <= known.durable_index;
                self.recorded(state, record, wal, is_durable)
            }
            (None, wal) if self.at_end() && self.may_go_on(state, next, wal) => {
                Ok(self.behind(state, next, wal))
            }
            (None, Some(_)) if self.at_end() && next.is_none() => Ok(Step::End),
            (None, Some(entry)) => self.take_from_wal(state, entry),
            (None, None) => return self.scanned(state, known),
        }?;
        if matches!(step, Step::Placed) {
            state.unproven = None;
        }
        Ok(step)
    }

    fn at_end(&self) -> bool {
        self.draft.log_len >= self.scanner.len()
    }

    /// Whether the next entry may lie in the next segment. A non-data entry does only where that
    /// segment's header says that it begins with it: a segment that was begun for a batch that a
    /// crash then took. Otherwise a segment begins with data, and the entry belongs to this one.
    fn may_go_on(&self, state: &State, next: Option<&Input>, wal: Option<&LogEntry>) -> bool {
        wal.is_none_or(|entry| entry.kind.moves_offset())
            || next
                .and_then(|next| next.header.as_ref())
                .is_some_and(|(header, _)| {
                    header.start.prev_index == state.index && header.start.offset == state.offset
                })
    }

    /// Where `.log` ends and no record says how to go on.
    fn behind(&self, state: &State, next: Option<&Input>, wal: Option<&LogEntry>) -> Step {
        let Some(next) = next else { return Step::End };
        if next.files.base_offset != state.offset {
            return match wal {
                // The batches up to the next segment are missing; those of the WAL go into this one.
                Some(_) => Step::End,
                None => Step::Bad(self.missing(
                    state.index + 1,
                    self.bad_log("the log ends before the next segment begins"),
                )),
            };
        }
        let start = LogStart {
            prev_index: state.index,
            prev_term: state.term,
            offset: state.offset,
        };
        match &next.header {
            Some((header, _)) if header.start != start => {
                let what = "the sidecar ends before entries that the next segment begins behind";
                let index = state.index + 1;
                Step::Bad(self.missing(index, self.bad_record(index, what)))
            }
            _ => Step::NextSegment,
        }
    }

    /// Why an entry is not there: what is wrong with its record, or else this.
    fn missing(&self, index: u64, otherwise: Bad) -> Bad {
        self.draft.input.fault_at(index).unwrap_or(otherwise)
    }

    /// An entry that the sidecar has.
    fn recorded(
        &mut self,
        state: &mut State,
        record: Record,
        wal: Option<&LogEntry>,
        is_durable: bool,
    ) -> LogResult<Step> {
        if record.base_offset != state.offset || u64::from(record.term) < state.term {
            let what = "the record does not follow the one before it";
            return Ok(Step::Bad(self.bad_record(state.index + 1, what)));
        }
        if let Some(entry) = wal
            && !agree(&record, entry)
        {
            return Err(self.disagreement());
        }
        match record.kind {
            EntryKind::Noop => self.place(state, record, None),
            EntryKind::Hole => self.place(state, record, None),
            EntryKind::Conf | EntryKind::Command => {
                let payload = match read_payload(&self.draft.input.files, state.index + 1, &record)
                {
                    Ok(payload) => payload,
                    Err(error) if error.is_unavailable() => return Err(error),
                    Err(error) => match wal {
                        Some(entry) => {
                            self.restored += 1;
                            entry.payload.clone()
                        }
                        None => {
                            let (position, what) = match error {
                                LogError::Absent { .. } => (0, "the file is missing"),
                                LogError::Damaged { position, what, .. } => (position, what),
                                _ => (record.position.into(), "the entry's payload is damaged"),
                            };
                            let bad = self.draft.input.bad(SegmentFile::Aux, position, what);
                            return Ok(Step::Bad(bad));
                        }
                    },
                };
                if wal.is_some_and(|entry| entry.payload != payload) {
                    return Err(self.disagreement());
                }
                self.place_payload(state, record, &payload);
            }
            EntryKind::Data => {
                if u64::from(record.position) != self.draft.log_len {
                    let what = "the record does not point to where the log goes on";
                    return Ok(Step::Bad(self.bad_record(state.index + 1, what)));
                }
                let found = self.find(wal)?;
                let fits = found.filter(|found| {
                    found.base_offset == record.base_offset
                        && found.leader_epoch.cast_unsigned() == record.term
                        && found.last_offset_delta.cast_unsigned() == record.last_offset_delta
                        && found.len == record.len
                });
                match (fits, wal) {
                    (Some(found), _) if found.is_whole => {
                        if !found.is_same {
                            return Err(self.disagreement());
                        }
                        self.place(state, record, Some(found.max_timestamp));
                    }
                    (_, Some(entry)) => self.restore(state, entry),
                    // Everything that names the entry is there twice, once under a checksum of its own:
                    // index and term are known, and only its bytes are bad (R6). Its timestamp may be.
                    (Some(_), None) if is_durable && !planted::is(Bug::MarredLosesVote) => {
                        self.bad.push(state.index + 1);
                        self.place(state, record, Some(-1));
                    }
                    _ if self.at_end() => {
                        let what = "the log ends before a batch that the sidecar has";
                        return Ok(Step::Bad(self.bad_log(what)));
                    }
                    _ => return Ok(Step::Bad(self.bad_log("the batch is damaged"))),
                }
            }
        }
        Ok(Step::Placed)
    }

    /// An entry that the WAL has and the sidecar has not, with more of the log behind it.
    fn take_from_wal(&mut self, state: &mut State, entry: &LogEntry) -> LogResult<Step> {
        match entry.kind {
            EntryKind::Noop | EntryKind::Hole => {
                let record = record_of(entry, 0);
                self.place(state, record, None);
            }
            EntryKind::Conf | EntryKind::Command => {
                let record = record_of(entry, 0);
                self.place_payload(state, record, &entry.payload);
                self.restored += 1;
            }
            EntryKind::Data => {
                let found = self.find(Some(entry))?;
                // Base offset and epoch are not in the checksum: a torn batch may lack just those.
                let whole = found.filter(|found| {
                    found.is_whole
                        && found.base_offset == entry.base_offset
                        && u64::try_from(found.leader_epoch) == Ok(entry.term)
                });
                match whole {
                    Some(found) if !found.is_same => return Err(self.disagreement()),
                    Some(found) => {
                        let record = record_of(entry, self.position());
                        self.place(state, record, Some(found.max_timestamp));
                    }
                    None => self.restore(state, entry),
                }
            }
        }
        Ok(Step::Placed)
    }

    /// Whether the batches that follow can be all that lies between here and the next record that is good. Where
    /// a record that cannot be read was no batch's, a batch would take its index, and all behind it too (R13).
    /// A record above the durable index may be left of what was taken back, and says nothing of what is below.
    fn agrees_with_what_follows(&mut self, state: &State, known: &Known<'_>) -> LogResult<bool> {
        let durable = known.durable_index;
        let index = state.index + 1;
        if index <= self.agreed {
            return Ok(true);
        }
        let Some((next, record)) = self.draft.input.good_behind(index) else {
            // Nor is there one behind any later entry.
            self.agreed = u64::MAX;
            return Ok(true);
        };
        if index <= durable && next > durable {
            self.agreed = durable;
            return Ok(true);
        }
        let (mut at, mut offset) = (self.draft.log_len, state.offset);
        for of in index..next {
            if let Some(entry) = known.wal.get(&of) {
                if entry.kind == EntryKind::Data {
                    at += entry.payload.len() as u64;
                }
                offset = entry.next_offset();
                continue;
            }
            match self.scanner.batch_at(at, None)? {
                Some(found) if found.is_whole && found.base_offset == offset => {
                    at += u64::from(found.len);
                    offset += i64::from(found.last_offset_delta) + 1;
                }
                // Whoever comes there says what is wrong.
                _ => {
                    self.agreed = of;
                    return Ok(true);
                }
            }
        }
        let is_data = record.kind == EntryKind::Data;
        let agrees = offset == record.base_offset && (!is_data || u64::from(record.position) == at);
        if agrees {
            self.agreed = next - 1;
        }
        Ok(agrees)
    }

    /// A batch behind the last record: the next entry, if it is of the same term.
    fn scanned(&mut self, state: &mut State, known: &Known<'_>) -> LogResult<Step> {
        if !self.agrees_with_what_follows(state, known)? {
            let index = state.index + 1;
            let what = "the record is missing, and no batch can be its entry";
            return Ok(Step::Bad(self.missing(index, self.bad_record(index, what))));
        }
        let Some(found) = self.find(None)?.filter(|found| found.is_whole) else {
            return Ok(Step::Bad(self.bad_log("the batch is damaged")));
        };
        let index = state.index + 1;
        if found.base_offset != state.offset {
            let what = "the batch does not follow the one before it";
            return Ok(Step::Bad(self.missing(index, self.bad_log(what))));
        }
        if u64::try_from(found.leader_epoch) != Ok(state.term) {
            let what = "the record of the entry that began a batch's term is missing";
            return Ok(Step::Bad(self.missing(index, self.bad_record(index, what))));
        }
        let record = Record {
            base_offset: found.base_offset,
            term: found.leader_epoch.cast_unsigned(),
            position: self.position(),
            len: found.len,
            last_offset_delta: found.last_offset_delta.cast_unsigned(),
            kind: EntryKind::Data,
        };
        self.place(state, record, Some(found.max_timestamp));
        state.unproven.get_or_insert(state.index);
        Ok(Step::Placed)
    }

    fn find(&mut self, expected: Option<&LogEntry>) -> LogResult<Option<Found>> {
        let expected = expected.map(|entry| entry.payload.as_ref());
        let mut found = self.scanner.batch_at(self.draft.log_len, expected)?;
        if planted::is(Bug::KeepTornTail)
            && let Some(found) = &mut found
        {
            found.is_whole = true;
        }
        Ok(found)
    }

    fn position(&self) -> u32 {
        u32::try_from(self.draft.log_len).unwrap_or(u32::MAX)
    }

    fn place(&mut self, state: &mut State, record: Record, max_timestamp: Option<i64>) {
        if let Some(max_timestamp) = max_timestamp {
            self.draft.batches.push(IndexedBatch {
                last_offset: record.last_offset(),
                max_timestamp,
                position: record.position,
                len: record.len,
            });
            self.draft.log_len = record.end();
        }
        self.draft.records.push(record);
        self.draft.next_offset = record.next_offset();
        state.place(u64::from(record.term), record.next_offset());
    }

    fn place_payload(&mut self, state: &mut State, mut record: Record, payload: &[u8]) {
        if self.draft.aux.is_empty() {
            self.draft.aux.extend_from_slice(&aux::header());
        }
        record.position = u32::try_from(self.draft.aux.len()).unwrap_or(u32::MAX);
        aux::encode_into(&mut self.draft.aux, state.index + 1, payload);
        self.place(state, record, None);
    }

    /// Puts a batch of the WAL where its bytes in `.log` are bad or missing.
    fn restore(&mut self, state: &mut State, entry: &LogEntry) {
        let record = record_of(entry, self.position());
        let max_timestamp =
            BatchView::parse(&entry.payload).map_or(-1, |batch| batch.max_timestamp());
        self.draft
            .restored
            .push((self.draft.log_len, entry.payload.clone()));
        self.restored += 1;
        self.place(state, record, Some(max_timestamp));
    }

    fn disagreement(&self) -> LogError {
        let path = self.draft.input.files.path(SegmentFile::Log);
        let what = "the node WAL and the log's files disagree on an entry";
        LogError::damaged(&path, self.draft.log_len, what)
    }
}

fn record_of(entry: &LogEntry, position: u32) -> Record {
    Record {
        base_offset: entry.base_offset,
        term: u32::try_from(entry.term).unwrap_or(u32::MAX),
        position,
        len: u32::try_from(entry.payload.len()).unwrap_or(u32::MAX),
        last_offset_delta: entry.last_offset_delta,
        kind: entry.kind,
    }
}

fn agree(record: &Record, entry: &LogEntry) -> bool {
    *record == record_of(entry, record.position)
}
