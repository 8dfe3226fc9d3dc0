//! Opening a log: what was there before is put together again, and all of it is durable when the
//! log is handed out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::disk::{Disk, OpenMode, is_of_machine};
use crate::entry::EntryKind;
use crate::format::index::{IndexedBatch, Indexes, OFFSET_ENTRY_LEN, TIME_ENTRY_LEN};
use crate::format::log_start::{self, StartFile};
use crate::format::sidecar::{Header, RECORD_LEN};
use crate::format::{SegmentFile, TMP_SUFFIX, bad_places};
use crate::log::append::IndexedSoFar;
use crate::log::error::{IoContext, LogError, LogResult};
use crate::log::files::{Files, read_at, read_whole, remove};
use crate::log::merge::{Input, Known, Merged, merge};
use crate::log::repair::{Repair, Repaired, write_indexes};
use crate::log::runs::TermRuns;
use crate::log::segment::Spec;
use crate::log::shared::{Active, Inner, Sealed, Shape, Shared};
use crate::log::{Log, LogConfig, LogSync};
use crate::recovered::{FileTrust, GroupRecord, LogStart};

/// Read first of a sidecar: enough for a header with any usual configuration.
const HEADER_READ_BYTES: usize = 4096;

/// Where a sidecar's header has the base offset of its segment.
const BASE_OFFSET_AT: u64 = 88;

/// What opening a log did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// A bad tail was cut: every entry from this index on is gone. The caller makes a cut record
    /// (and with it a cut-done) durable before it appends, so that what the WAL still holds of the
    /// tail is dead (W2).
    pub cut_at: Option<u64>,
    /// The record's unfinished cut was carried out: the caller's next round holds a cut-done.
    pub finished_cut: Option<u64>,
    /// The files were those of before a reset; the log was begun again at the record's start.
    pub was_reset: bool,
    /// Entries that only the WAL had and that are in the files now.
    pub replayed_from_wal: usize,
    /// Bytes of `.log` that were read.
    pub scanned_bytes: u64,
    /// Index files that were missing or wrong and were made anew.
    pub rebuilt_indexes: usize,
    /// Producer snapshots that could not be read and were made anew.
    pub rebuilt_snapshots: usize,
    /// Durable entries whose batches are bad; all else of them is known (R6).
    pub bad: Vec<u64>,
}

/// What lies in a log's directory.
#[derive(Debug, Default)]
struct Listing {
    segments: BTreeMap<i64, BTreeSet<SegmentFile>>,
    snapshots: BTreeSet<i64>,
    aside: Vec<PathBuf>,
}

fn list(disk: &Arc<dyn Disk>, dir: &Path) -> LogResult<Listing> {
    let names = match disk.read_dir(dir) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(LogError::Missing {
                path: dir.to_path_buf(),
            });
        }
        other => other.at(dir)?,
    };
    let mut listing = Listing::default();
    for entry in names {
        if entry.name.ends_with(TMP_SUFFIX) {
            listing.aside.push(dir.join(&entry.name));
        }
        match SegmentFile::parse(&entry.name) {
            Some((offset, SegmentFile::Snapshot)) => {
                listing.snapshots.insert(offset);
            }
            Some((base, file)) => {
                listing.segments.entry(base).or_default().insert(file);
            }
            None => {}
        }
    }
    Ok(listing)
}

impl Log {
    /// Opens the log that the node WAL has this record of.
    ///
    /// A cut that was recorded and perhaps not carried out is carried out first, and where a flush of
    /// the files has failed, all above the durable index is dropped (W8). Then the sidecar,
    /// a scan of the batches and the WAL's entries are merged in index order (W4). A bad tail above
    /// the durable index is cut; what only the WAL holds is written into the files; missing and
    /// damaged indexes are made anew. Everything is durable when this returns.
    ///
    /// # Errors
    /// `Full` where there is not the room that it takes: nothing is lost, and the same call succeeds
    /// once there is. `Missing` where there is no log, `Damaged` where something at or below the durable index is
    /// bad (nothing is cut then), `Foreign`, and I/O errors, after which the record is to say that the
    /// files are suspect: a sync may be what failed (W8).
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        record: &GroupRecord,
        config: LogConfig,
    ) -> LogResult<(Self, Recovery)> {
        let opened = Self::open_at(disk, dir, record, config);
        opened.map_err(|error| match error {
            LogError::Io { path, source } if source.kind() == ErrorKind::StorageFull => {
                LogError::Full {
                    path,
                    last_index: record.durable_index,
                }
            }
            error => error,
        })
    }

    fn open_at(
        disk: Arc<dyn Disk>,
        dir: &Path,
        record: &GroupRecord,
        config: LogConfig,
    ) -> LogResult<(Self, Recovery)> {
        let listing = list(&disk, dir)?;
        let dir = Arc::new(dir.to_path_buf());
        let opening = Opening {
            disk: &disk,
            dir: &dir,
            record,
            config: &config,
        };
        // A cut of everything is a reset's: whatever lies here is of before it, or was appended
        // since and not acknowledged.
        let cuts_all = record
            .unfinished_cut
            .is_some_and(|cut| cut <= record.start.prev_index + 1);
        if cuts_all {
            return opening.begin_again(&listing);
        }
        let start = match opening.read_start()? {
            Some(start) => start,
            None if record.unfinished_cut.is_some() => return opening.begin_again(&listing),
            None => {
                let path = dir.join(log_start::FILE_NAME);
                return Err(LogError::damaged(
                    &path,
                    0,
                    "the log is that of before its reset",
                ));
            }
        };
        opening.recover(listing, start)
    }
}

struct Opening<'a> {
    disk: &'a Arc<dyn Disk>,
    dir: &'a Arc<PathBuf>,
    record: &'a GroupRecord,
    config: &'a LogConfig,
}

impl Opening<'_> {
    fn spec(&self) -> Spec<'_> {
        Spec {
            disk: self.disk,
            dir: self.dir,
            identity: &self.record.identity,
            birth: self.record.start,
            conf: &self.record.conf,
        }
    }

    /// Empties the directory and begins the log again at the record's start.
    fn begin_again(&self, listing: &Listing) -> LogResult<(Log, Recovery)> {
        remove_all(self.disk, self.dir, listing, self.record.start.offset)?;
        let log = Log::begin(
            Arc::clone(self.disk),
            Arc::clone(self.dir),
            &self.record.identity,
            self.record.start,
            &self.record.conf,
            self.config.clone(),
        )?;
        let recovery = Recovery {
            finished_cut: self.record.unfinished_cut,
            was_reset: true,
            ..Recovery::default()
        };
        Ok((log, recovery))
    }

    /// Where the log begins: the record's start, or behind a head that was dropped. None where the
    /// file that says so is of before a reset.
    fn read_start(&self) -> LogResult<Option<LogStart>> {
        let path = self.dir.join(log_start::FILE_NAME);
        let file = match self.disk.open(&path, OpenMode::Existing) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Some(self.record.start));
            }
            other => other.at(&path)?,
        };
        let bytes = read_whole(&file)?;
        let start = StartFile::decode(&bytes).map_err(|what| LogError::damaged(&path, 0, what))?;
        self.check_owner(&path, start.group, start.replica)?;
        Ok((start.birth == self.record.start).then_some(start.start))
    }

    fn check_owner(&self, path: &Path, group: u64, replica: u64) -> LogResult<()> {
        let identity = &self.record.identity;
        if (group, replica) == (identity.group, identity.replica) {
            return Ok(());
        }
        Err(LogError::Foreign {
            path: path.to_path_buf(),
            group,
            replica,
        })
    }

    fn recover(&self, listing: Listing, start: LogStart) -> LogResult<(Log, Recovery)> {
        let record = self.record;
        let mut leftovers = listing.aside.clone();
        let mut inputs = Vec::new();
        for (base, files) in &listing.segments {
            // A head that was dropped and not wholly unlinked, or a segment that was begun and whose
            // `.log` was never durable.
            if *base < start.offset || (*base > start.offset && !files.contains(&SegmentFile::Log))
            {
                leftovers.extend(files.iter().map(|file| file.path(self.dir, *base)));
            } else {
                inputs.push(self.load(*base, files)?);
            }
        }
        self.check_first(&listing, &inputs, start)?;
        if inputs.iter().any(|input| {
            input
                .header
                .as_ref()
                .is_some_and(|(header, _)| header.birth != record.start)
        }) {
            if record.unfinished_cut.is_some() {
                return self.begin_again(&listing);
            }
            let path = SegmentFile::Raft.path(self.dir, start.offset);
            return Err(LogError::damaged(
                &path,
                0,
                "the log is that of before its reset",
            ));
        }
        let (sealed, inputs) = self.trust(inputs, start)?;
        let after = sealed.last().map_or(start, |last| LogStart {
            prev_index: last.last_index,
            prev_term: last.last_term,
            offset: last.next_offset,
        });
        let known = Known {
            wal: record
                .entries
                .iter()
                .filter(|entry| entry.index > after.prev_index)
                .map(|entry| (entry.index, entry))
                .collect(),
            durable_index: record.durable_index,
            sidecar_synced: record.sidecar_synced,
            limit: self.limit(),
        };
        let inputs = inputs
            .into_iter()
            .map(read_sidecar)
            .collect::<LogResult<Vec<_>>>()?;
        let mut merged = merge(inputs, after, &known)?;
        // After a failed flush those that were written since the log's start may never have reached the
        // disk, and the batches have it all.
        let snapshots_to = match record.trust {
            FileTrust::Sound => end_of(&merged),
            FileTrust::Suspect | FileTrust::Poisoned => start.offset,
        };
        leftovers.extend(
            listing
                .snapshots
                .iter()
                .filter(|offset| **offset > snapshots_to)
                .map(|offset| SegmentFile::Snapshot.path(self.dir, *offset)),
        );
        let first_in_wal = known
            .wal
            .first_key_value()
            .map_or(u64::MAX, |(index, _)| *index);
        let repair = Repair {
            spec: self.spec(),
            index_interval_bytes: self.config.index_interval_bytes,
            rewrite_from: first_in_wal.min(record.durable_index + 1),
            renew: record.trust != FileTrust::Sound,
            leftovers,
        };
        let mut rebuilt = 0;
        for segment in &sealed {
            rebuilt += self.check_indexes(segment)?;
        }
        let (repaired, more) = repair.run(&mut merged)?;
        let mut recovery = Recovery {
            cut_at: merged.cut_at,
            finished_cut: record.unfinished_cut,
            was_reset: false,
            replayed_from_wal: merged.restored + merged.tail.len(),
            scanned_bytes: merged.scanned_bytes,
            rebuilt_indexes: rebuilt + more,
            rebuilt_snapshots: 0,
            bad: merged.bad,
        };
        let mut log = self.assemble(start, sealed, repaired)?;
        log.recall_bad()?;
        log.reader().note_bad(&recovery.bad)?;
        // What only the WAL has goes the way that it went the first time.
        log.append(&merged.tail)?;
        recovery.rebuilt_snapshots = log.remake_snapshots()?;
        log.remake_partition_metadata()?;
        log.write_leader_epochs_if_room()?;
        log.sync.sync_all().at(self.dir)?;
        Ok((log, recovery))
    }

    /// From where on the files' entries do not count: at an unfinished cut (W2), and above what was
    /// durable where a flush of them has failed (W8).
    fn limit(&self) -> Option<u64> {
        let record = self.record;
        let lost = (record.trust == FileTrust::Poisoned).then(|| record.durable_index + 1);
        record.unfinished_cut.into_iter().chain(lost).min()
    }

    /// The first segment was durable before the log was used.
    fn check_first(&self, listing: &Listing, inputs: &[Input], start: LogStart) -> LogResult<()> {
        if listing.segments.is_empty() {
            return Err(LogError::Missing {
                path: self.dir.to_path_buf(),
            });
        }
        let first = listing.segments.get(&start.offset);
        if first.is_none_or(|files| !files.contains(&SegmentFile::Log)) || inputs.is_empty() {
            let path = SegmentFile::Log.path(self.dir, start.offset);
            return Err(LogError::damaged(
                &path,
                0,
                "the log's first segment is missing",
            ));
        }
        Ok(())
    }

    /// Reads the header of a segment.
    fn load(&self, base: i64, present: &BTreeSet<SegmentFile>) -> LogResult<Input> {
        let files = Files::new(self.disk, self.dir, base);
        let log_len = if present.contains(&SegmentFile::Log) {
            let log = files.log()?;
            log.len().at(log.path())?
        } else {
            0
        };
        let (header, fault) = if present.contains(&SegmentFile::Raft) {
            match self.load_header(&files)? {
                Ok((header, _)) if header.start.offset != base => {
                    let what = "the header has another base offset than the file's name";
                    (None, Some((BASE_OFFSET_AT, what)))
                }
                Ok(header) => (Some(header), None),
                Err(what) => (None, Some((0, what))),
            }
        } else {
            (None, Some((0, "the file is missing")))
        };
        Ok(Input {
            files: Arc::new(files),
            header,
            fault,
            sidecar: Vec::new(),
            log_len,
        })
    }

    /// The header of a sidecar and its length, or what is wrong with it.
    fn load_header(&self, files: &Files) -> LogResult<Result<(Header, usize), &'static str>> {
        let raft = files.raft()?;
        let len = usize::try_from(raft.len().at(raft.path())?).unwrap_or(usize::MAX);
        let mut decoded = Err("the header is cut short");
        for read in [HEADER_READ_BYTES, usize::from(u16::MAX)] {
            let mut bytes = vec![0; len.min(read)];
            read_at(raft, &mut bytes, 0)?;
            decoded = Header::decode(&bytes);
            if decoded.is_ok() || len <= read {
                break;
            }
        }
        if let Ok((header, _)) = &decoded {
            self.check_owner(raft.path(), header.identity.group, header.identity.replica)?;
        }
        Ok(decoded)
    }

    /// Takes the segments at the front that are known to be durable: a header written later says
    /// so. Their lengths and ends are looked at, not their bytes.
    fn trust(
        &self,
        inputs: Vec<Input>,
        start: LogStart,
    ) -> LogResult<(Vec<Arc<Sealed>>, Vec<Input>)> {
        let headers = || inputs.iter().filter_map(|input| input.header.as_ref());
        let durable = headers()
            .map(|(header, _)| header.durable_segment)
            .max()
            .unwrap_or(-1);
        let limit = self.limit().unwrap_or(u64::MAX);
        let mut sealed = Vec::new();
        let mut at = start;
        let mut rest = inputs.into_iter().peekable();
        while let Some(input) =
            rest.next_if(|input| !self.config.scrub_on_open && input.files.base_offset <= durable)
        {
            let next = rest
                .peek()
                .and_then(|next| next.header.as_ref())
                .map(|(header, _)| header);
            let segment = durable_segment(&input, at)?
                .filter(|segment| segment.last_index < limit && rest_begins_behind(segment, next));
            let Some(segment) = segment else {
                // It is looked at as closely as if nothing had been said of it.
                return Ok((sealed, [input].into_iter().chain(rest).collect()));
            };
            at = LogStart {
                prev_index: segment.last_index,
                prev_term: segment.last_term,
                offset: segment.next_offset,
            };
            sealed.push(Arc::new(segment));
        }
        Ok((sealed, rest.collect()))
    }

    /// Makes the indexes of a durable segment anew where they cannot be right.
    fn check_indexes(&self, segment: &Sealed) -> LogResult<usize> {
        let len_of = |which| {
            let path = segment.files.path(which);
            let opened = self.disk.open(&path, OpenMode::Existing);
            or_unreadable(opened.and_then(|file| file.len()).at(&path))
        };
        let offset_len = len_of(SegmentFile::Index)?;
        let time_len = len_of(SegmentFile::TimeIndex)?;
        let plausible = |len: Option<u64>, entry_len: usize| {
            len.is_some_and(|len| len.is_multiple_of(entry_len as u64))
        };
        let longer = segment.log_len > 2 * u64::from(self.config.index_interval_bytes);
        if plausible(offset_len, OFFSET_ENTRY_LEN)
            && plausible(time_len, TIME_ENTRY_LEN)
            && (!longer || offset_len != Some(0))
            && time_len != Some(0)
        {
            return Ok(0);
        }
        let records = segment.records(segment.shape.first_index, segment.last_index + 1)?;
        let log = segment.files.log()?;
        let mut indexes = Indexes::new(segment.shape.base_offset);
        for record in records
            .iter()
            .filter(|record| record.kind == EntryKind::Data)
        {
            let max_timestamp = super::truncate::max_timestamp_at(log, record.position)?;
            indexes.add(
                IndexedBatch {
                    last_offset: record.last_offset(),
                    max_timestamp,
                    position: record.position,
                    len: record.len,
                },
                self.config.index_interval_bytes,
            );
        }
        indexes.seal();
        write_indexes(self.disk, &segment.files.reopened(), &indexes)
    }

    fn assemble(
        &self,
        start: LogStart,
        mut sealed: Vec<Arc<Sealed>>,
        repaired: Vec<Repaired>,
    ) -> LogResult<Log> {
        let mut runs = TermRuns::default();
        for segment in &sealed {
            add_runs(&mut runs, segment)?;
        }
        let mut active = None;
        let count = repaired.len();
        for (at, segment) in repaired.into_iter().enumerate() {
            let Repaired {
                draft,
                files,
                header_len,
                indexes,
            } = segment;
            let first_index = draft.start.prev_index + 1;
            for (index, record) in (first_index..).zip(&draft.records) {
                runs.push(index, u64::from(record.term), record.base_offset);
            }
            let shape = Shape {
                base_offset: draft.start.offset,
                first_index,
                header_len,
            };
            match draft.records.last() {
                Some(last) if at + 1 < count => {
                    let last_index = draft.last_index();
                    let ended = Sealed::new(files, shape, last, last_index, draft.log_len);
                    let max = Some(indexes.max).filter(|max| max.timestamp >= 0);
                    ended.max.get_or_init(|| max);
                    sealed.push(Arc::new(ended));
                }
                _ => {
                    active = Some(Active {
                        files,
                        shape,
                        log_len: draft.log_len,
                        aux_len: draft.aux.len() as u64,
                        next_offset: draft.next_offset,
                        records: draft.records,
                        indexes,
                    });
                }
            }
        }
        let Some(active) = active else {
            return Err(LogError::Missing {
                path: self.dir.to_path_buf(),
            });
        };
        let sync = LogSync::new(self.disk, self.dir);
        let newest = sealed
            .last()
            .map_or(-1, |segment| segment.shape.base_offset);
        sync.set_durable_segment(newest);
        let indexed = IndexedSoFar {
            offset: active.indexes.offset.len(),
            time: active.indexes.time.len(),
        };
        let shared = Shared {
            disk: Arc::clone(self.disk),
            dir: Arc::clone(self.dir),
            inner: RwLock::new(Inner {
                start,
                sealed,
                active,
                runs,
            }),
            bad: parking_lot::Mutex::default(),
            unreadable: parking_lot::Mutex::default(),
            remembered: parking_lot::Mutex::default(),
            lost: parking_lot::Mutex::default(),
        };
        let mut log = Log::assemble(
            shared,
            Arc::new(sync),
            self.config.clone(),
            self.record.identity.clone(),
            self.record.start,
            self.record.conf.clone(),
        );
        log.indexed = indexed;
        Ok(log)
    }
}

/// Unlinks everything of a log, durably.
pub(super) fn wipe(disk: &Arc<dyn Disk>, dir: &Path, keep_snapshot: i64) -> LogResult<()> {
    let listing = list(disk, dir)?;
    remove_all(disk, dir, &listing, keep_snapshot)
}

/// Removes everything but the producer snapshot at `keep_snapshot`: that of a reset was written before
/// the reset was recorded.
fn remove_all(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    listing: &Listing,
    keep_snapshot: i64,
) -> LogResult<()> {
    for (base, files) in &listing.segments {
        for file in files {
            remove(disk, &file.path(dir, *base))?;
        }
    }
    for offset in listing
        .snapshots
        .iter()
        .filter(|offset| **offset != keep_snapshot)
    {
        remove(disk, &SegmentFile::Snapshot.path(dir, *offset))?;
    }
    for path in &listing.aside {
        remove(disk, path)?;
    }
    remove(disk, &dir.join(log_start::FILE_NAME))?;
    remove(disk, &dir.join(bad_places::FILE_NAME))?;
    disk.sync_dir(dir).at(dir)
}

/// What was read of a file that can be made again; none, which is said unless it is not there, where it is
/// the file that cannot be read.
///
/// # Errors
/// Those of the machine, which say nothing of the file.
pub(super) fn or_unreadable<T>(read: LogResult<T>) -> LogResult<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(LogError::Absent { .. }) => Ok(None),
        Err(LogError::Io { path, source }) if is_of_machine(&source) => {
            Err(LogError::Io { path, source })
        }
        Err(error) => {
            tracing::warn!(%error, "a file that can be made again cannot be read");
            Ok(None)
        }
    }
}

fn read_sidecar(mut input: Input) -> LogResult<Input> {
    if input.header.is_some() {
        input.sidecar = read_whole(input.files.raft()?)?;
    }
    Ok(input)
}

fn rest_begins_behind(segment: &Sealed, next: Option<&Header>) -> bool {
    next.is_some_and(|next| {
        next.start
            == LogStart {
                prev_index: segment.last_index,
                prev_term: segment.last_term,
                offset: segment.next_offset,
            }
    })
}

/// A segment as its sidecar describes it, if that fits the length of its `.log`.
fn durable_segment(input: &Input, start: LogStart) -> LogResult<Option<Sealed>> {
    let Some((header, header_len)) = &input.header else {
        return Ok(None);
    };
    if header.start != start {
        return Ok(None);
    }
    let raft = input.files.raft()?;
    let len = raft.len().at(raft.path())?;
    let header_len = *header_len as u64;
    let count = len.saturating_sub(header_len) / RECORD_LEN as u64;
    if count == 0 || len != header_len + count * RECORD_LEN as u64 {
        return Ok(None);
    }
    let shape = Shape {
        base_offset: start.offset,
        first_index: start.prev_index + 1,
        header_len,
    };
    let last_index = start.prev_index + count;
    let probe = |index: u64| -> LogResult<Option<crate::format::sidecar::Record>> {
        let mut bytes = [0; RECORD_LEN];
        read_at(raft, &mut bytes, shape.record_position(index))?;
        Ok(crate::format::sidecar::Record::decode(index, &bytes))
    };
    let Some(last) = probe(last_index)? else {
        return Ok(None);
    };
    // The last batch ends where the file does. Few non-data entries lie behind it.
    let mut end = 0;
    for index in (shape.first_index..=last_index).rev() {
        match probe(index)? {
            Some(record) if record.kind == EntryKind::Data => {
                end = record.end();
                break;
            }
            Some(_) => {}
            None => return Ok(None),
        }
    }
    if end != input.log_len {
        return Ok(None);
    }
    Ok(Some(Sealed::new(
        Arc::clone(&input.files),
        shape,
        &last,
        last_index,
        end,
    )))
}

/// Adds the terms of a segment, reading only where they change: terms never fall.
fn add_runs(runs: &mut TermRuns, segment: &Sealed) -> LogResult<()> {
    let mut index = segment.shape.first_index;
    while index <= segment.last_index {
        let known = runs.last_term();
        if known == Some(segment.last_term) {
            return Ok(());
        }
        index =
            segment.search(|record| known.is_none_or(|known| u64::from(record.term) > known))?;
        if let Some(record) = segment
            .records(index, (index + 1).min(segment.last_index + 1))?
            .first()
        {
            runs.push(index, u64::from(record.term), record.base_offset);
        }
        index += 1;
    }
    Ok(())
}

fn end_of(merged: &Merged) -> i64 {
    merged.tail.last().map_or_else(
        || merged.drafts.last().map_or(0, |last| last.next_offset),
        crate::entry::LogEntry::next_offset,
    )
}
