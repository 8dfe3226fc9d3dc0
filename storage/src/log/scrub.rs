//! Reading what nobody asks for, so that bytes that go bad at rest are found while the other replicas still
//! have them.
//!
//! A scrub reads past the page cache: the cache may hold what the disk has not, and what it would bring in
//! would drive out what is read. What it finds to be bad is noted like what a fetch finds. Files beside the
//! batches that follow from them (headers, indexes, producer snapshots) it looks at when it has seen a whole
//! segment; they are made anew from what this log knows.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{self, DiskFile, OpenMode};
use crate::format::index::Indexes;
use crate::format::sidecar::{Header, RECORD_LEN, Record};
use crate::format::{SegmentFile, aux};
use crate::log::Log;
use crate::log::at_rest::{self, Look, Records};
use crate::log::error::{IoContext, LogError, LogResult};
use crate::log::exchange::Mended;
use crate::log::files::Files;
use crate::log::reader::LogReader;
use crate::log::shared::{Sealed, Shape};
use crate::producer_state::ProducerState;
use crate::recovered::{LogStart, StoredConf};

/// Entries that are looked at together.
const MOST_RECORDS: u64 = 1024;

/// What a scrub of one log has seen of the segment that it is in.
#[derive(Debug, Default)]
pub struct Scrubber {
    seen: Option<Seen>,
}

/// A segment all of whose batches so far were whole.
#[derive(Debug)]
struct Seen {
    files: Arc<Files>,
    next: u64,
    indexes: Indexes,
}

/// A file that follows from the others and is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stale {
    /// The header of the sidecar of the segment with this base offset.
    Header(i64),
    /// The sidecar of the active segment.
    Active,
    /// The first bytes of the payloads of the segment with this base offset.
    Payloads(i64),
    /// The producer snapshot of an offset.
    Snapshot(i64),
}

/// What a step of a scrub did.
#[derive(Debug, Default)]
pub struct Scrubbed {
    /// The entry to go on at.
    pub next: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Entries that were found to be bad. They are noted.
    pub bad: usize,
    /// What could not be read.
    pub unreadable: Option<LogError>,
    /// Files that are to be made anew, for [`Log::renew_stale`].
    pub stale: Vec<PathBuf>,
    indexes: Vec<Mended>,
    to_renew: Vec<Stale>,
}

/// Entries of one segment.
struct Part {
    files: Arc<Files>,
    shape: Shape,
    sealed: Option<Arc<Sealed>>,
    found: Records,
}

impl LogReader {
    /// How much of the log lies before an entry, and all of it, in bytes; roughly, and without a read.
    #[must_use]
    pub fn extent(&self, index: u64) -> (u64, u64) {
        let inner = self.shared.inner.read();
        let active = &inner.active;
        let sealed = inner
            .sealed
            .iter()
            .map(|s| (s.shape, s.last_index, s.log_len));
        let segments = sealed.chain([(active.shape, active.last_index(), active.log_len)]);
        let (mut before, mut all) = (0, 0);
        for (shape, last, len) in segments {
            let count = (last + 1).saturating_sub(shape.first_index);
            let len = len + count * RECORD_LEN as u64;
            all += len;
            let passed = index.saturating_sub(shape.first_index).min(count);
            if let Some(part) = (u128::from(len) * u128::from(passed)).checked_div(count.into()) {
                before += u64::try_from(part).unwrap_or(len);
            }
        }
        (before, all)
    }

    /// Looks at what the disk holds of entries from `from` on, none above `through`, which is committed and
    /// durable here, and about `most_bytes` of them. Waits for the disk.
    ///
    /// # Errors
    /// Where the machine or the disk does not answer. What is bad is no error.
    pub fn scrub(
        &self,
        scrubber: &mut Scrubber,
        (from, through): (u64, u64),
        most_bytes: u64,
        index_interval_bytes: u32,
    ) -> LogResult<Scrubbed> {
        let from = from.max(self.first_index());
        let mut done = Scrubbed {
            next: from,
            ..Scrubbed::default()
        };
        if from > through {
            return Ok(done);
        }
        let Some(mut part) = self.part(from, through, &mut done)? else {
            return Ok(done);
        };
        part.found.truncate(from, most_bytes);
        let count = part.found.records.len() as u64;
        if from == part.shape.first_index && !self.payloads_begin_right(&part.files)? {
            done.stale.push(part.files.path(SegmentFile::Aux));
            done.to_renew.push(Stale::Payloads(part.shape.base_offset));
        }
        let look = at_rest::look(&part.files, from, &part.found.records)?;
        done.bytes += look.bytes + count * RECORD_LEN as u64;
        done.next = from + count;
        if !self.shared.inner.read().has(&part.files) {
            // Whatever is wrong with files that the log has no more is nothing wrong with the log.
            return Ok(Scrubbed {
                next: from,
                ..Scrubbed::default()
            });
        }
        let mut bad = part.sealed.as_ref().map_or_else(Vec::new, |sealed| {
            at_rest::bad_records(sealed, from, &part.found)
        });
        let is_clean = bad.is_empty() && look.is_clean() && part.found.unreadable.is_empty();
        scrubber.see(&part, from, is_clean.then_some(&look), index_interval_bytes);
        bad.extend(look.bad);
        done.bad = bad.len();
        for (_, error) in &bad {
            self.note(error);
        }
        for index in part.found.unreadable.into_iter().chain(look.unreadable) {
            self.note_unreadable(index);
        }
        done.unreadable = part.found.why.or(look.why);
        if let Some(sealed) = &part.sealed
            && done.next > sealed.last_index
        {
            self.look_beside(scrubber, sealed, &mut done)?;
        }
        Ok(done)
    }

    /// The records of some entries, as the disk has them where the segment is sealed.
    fn part(&self, from: u64, through: u64, done: &mut Scrubbed) -> LogResult<Option<Part>> {
        let to = through.min(from + MOST_RECORDS - 1) + 1;
        let (files, shape, known) = {
            let inner = self.shared.inner.read();
            if let Some(sealed) = inner.sealed_of_index(from).cloned() {
                drop(inner);
                let to = to.min(sealed.last_index + 1);
                return Ok(Some(Part {
                    files: Arc::clone(&sealed.files),
                    shape: sealed.shape,
                    found: at_rest::records(&sealed.files, &sealed.shape, from, to)?,
                    sealed: Some(sealed),
                }));
            }
            let active = &inner.active;
            let Some(begin) = active.at(from) else {
                return Ok(None);
            };
            let end = active.at(to).unwrap_or(active.records.len());
            let known = active.records.get(begin..end).unwrap_or_default().to_vec();
            (Arc::clone(&active.files), active.shape, known)
        };
        // What is known of the segment that is written stands in memory; a start will look for it in the file.
        let to = from + known.len() as u64;
        let at_rest = at_rest::records(&files, &shape, from, to)?;
        let records: Vec<Option<Record>> = known.into_iter().map(Some).collect();
        let is_first = from == shape.first_index;
        if at_rest.records != records || (is_first && !at_rest::header_is_whole(&files, &shape)?) {
            done.stale.push(files.path(SegmentFile::Raft));
            done.to_renew.push(Stale::Active);
        }
        Ok(Some(Part {
            files,
            shape,
            sealed: None,
            found: Records {
                records,
                ..Records::default()
            },
        }))
    }

    /// Looks at what lies beside the batches of a segment that was seen to its end.
    fn look_beside(
        &self,
        scrubber: &mut Scrubber,
        sealed: &Arc<Sealed>,
        done: &mut Scrubbed,
    ) -> LogResult<()> {
        let base = sealed.shape.base_offset;
        if !at_rest::header_is_whole(&sealed.files, &sealed.shape)? {
            done.stale.push(sealed.files.path(SegmentFile::Raft));
            done.to_renew.push(Stale::Header(base));
        }
        let is_first = sealed.shape.first_index == self.first_index();
        for offset in is_first
            .then_some(base)
            .into_iter()
            .chain([sealed.next_offset])
        {
            if !self.snapshot_is_whole(offset, done)? {
                done.stale
                    .push(SegmentFile::Snapshot.path(&self.shared.dir, offset));
                done.to_renew.push(Stale::Snapshot(offset));
            }
        }
        let Some(Seen { mut indexes, .. }) = scrubber.seen.take() else {
            return Ok(());
        };
        indexes.seal();
        for (file, bytes) in [
            (SegmentFile::Index, indexes.offset_bytes(0)),
            (SegmentFile::TimeIndex, indexes.time_bytes(0)),
        ] {
            let path = sealed.files.path(file);
            let open = self.shared.disk.open(&path, OpenMode::Existing);
            let at_rest = open.and_then(|open| past_cache(&*open));
            done.bytes += bytes.len() as u64;
            if at_rest.is_ok_and(|at_rest| at_rest == bytes) {
                continue;
            }
            done.stale.push(path);
            done.indexes.push(self.whole(&sealed.files, file, &bytes)?);
        }
        Ok(())
    }

    /// Whether the payloads of a segment, if it has any, begin as they should.
    fn payloads_begin_right(&self, files: &Files) -> LogResult<bool> {
        let path = files.path(SegmentFile::Aux);
        if !self.shared.disk.exists(&path).at(&path)? {
            return Ok(true);
        }
        let file = files.open(SegmentFile::Aux, OpenMode::Existing)?;
        let header = aux::header();
        let mut bytes = header.to_vec();
        match file.read_past_cache(&mut bytes, 0) {
            Ok(()) => Ok(bytes == header),
            Err(error) if disk::is_of_one_place(&error) => Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(true),
            Err(error) => Err(error).at(&path),
        }
    }

    /// Whether the producer snapshot of an offset, if there is one, can be read.
    fn snapshot_is_whole(&self, offset: i64, done: &mut Scrubbed) -> LogResult<bool> {
        let path = SegmentFile::Snapshot.path(&self.shared.dir, offset);
        if !self.shared.disk.exists(&path).at(&path)? {
            return Ok(true);
        }
        let open = self.shared.disk.open(&path, OpenMode::Existing);
        let read = open.and_then(|open| past_cache(&*open));
        match read {
            Ok(bytes) => {
                done.bytes += bytes.len() as u64;
                Ok(ProducerState::from_snapshot(&bytes).is_ok())
            }
            Err(error) if disk::is_of_one_place(&error) => Ok(false),
            Err(error) => Err(error).at(&path),
        }
    }
}

impl Scrubber {
    /// Takes what was seen of a segment to what was seen before; nothing where some of it was not whole.
    fn see(&mut self, part: &Part, from: u64, look: Option<&Look>, interval_bytes: u32) {
        let mut seen = self.seen.take();
        let Some(look) = look.filter(|_| part.sealed.is_some()) else {
            return;
        };
        if from == part.shape.first_index {
            seen = Some(Seen {
                files: Arc::clone(&part.files),
                next: from,
                indexes: Indexes::new(part.shape.base_offset),
            });
        }
        let goes_on = |seen: &Seen| seen.next == from && Arc::ptr_eq(&seen.files, &part.files);
        let Some(mut seen) = seen.filter(goes_on) else {
            return;
        };
        for batch in &look.batches {
            seen.indexes.add(*batch, interval_bytes);
        }
        seen.next = from + part.found.records.len() as u64;
        self.seen = Some(seen);
    }
}

/// All bytes of a file as the disk has them.
fn past_cache(file: &dyn DiskFile) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
    file.read_past_cache(&mut bytes, 0)?;
    Ok(bytes)
}

impl Records {
    /// Keeps as many as make up about so many bytes, one at least.
    fn truncate(&mut self, from: u64, most_bytes: u64) {
        let mut bytes = 0;
        let enough = self.records.iter().position(|record| {
            bytes += record.map_or(0, |record| u64::from(record.len));
            bytes > most_bytes
        });
        if let Some(count) = enough {
            self.records.truncate(count.max(1));
            let end = from + self.records.len() as u64;
            self.unreadable.retain(|index| *index < end);
        }
    }
}

impl Log {
    /// Makes anew what a step of a scrub found to be wrong and what follows from the rest of the log. What
    /// the log has no more is left.
    ///
    /// # Errors
    /// I/O errors; the log stays as it was, or is poisoned as by [`Log::exchange`].
    pub fn renew_stale(&mut self, scrubbed: &mut Scrubbed) -> LogResult<()> {
        self.sync.check()?;
        self.exchange(std::mem::take(&mut scrubbed.indexes))?;
        for stale in std::mem::take(&mut scrubbed.to_renew) {
            match stale {
                Stale::Header(base) => self.renew_header(base)?,
                Stale::Active => self.rewrite_active_sidecar()?,
                Stale::Payloads(base) => self.renew_payloads(base)?,
                Stale::Snapshot(offset) => {
                    let known = self.reader().recover_known_producers(offset)?;
                    if known.is_all() {
                        self.write_producer_snapshot(offset, &known.state)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes the payloads of a segment anew with a header that is whole.
    fn renew_payloads(&mut self, base: i64) -> LogResult<()> {
        let files = {
            let inner = self.shared.inner.read();
            let sealed = inner.sealed.iter().map(|sealed| &sealed.files);
            let mut all = sealed.chain([&inner.active.files]);
            let Some(files) = all.find(|files| files.base_offset == base) else {
                return Ok(());
            };
            Arc::clone(files)
        };
        let aux = SegmentFile::Aux;
        let len = files
            .open(aux, OpenMode::Existing)?
            .len()
            .at(&files.path(aux))?;
        let patch = vec![(0, aux::header().to_vec())];
        let mended = self.reader().patched(&files, (aux, len), patch, &[])?;
        self.exchange(vec![mended]).map(drop)
    }

    /// Writes the sidecar of a sealed segment anew with a header that is whole.
    fn renew_header(&mut self, base: i64) -> LogResult<()> {
        let (sealed, start, durable_segment) = {
            let inner = self.shared.inner.read();
            let Some(at) = inner
                .sealed
                .iter()
                .position(|s| s.shape.base_offset == base)
            else {
                return Ok(());
            };
            let (Some(sealed), before) = (inner.sealed.get(at), at.checked_sub(1)) else {
                return Ok(());
            };
            let before = before.and_then(|before| inner.sealed.get(before));
            let start = before.map_or(inner.start, |before| LogStart {
                prev_index: before.last_index,
                prev_term: before.last_term,
                offset: before.next_offset,
            });
            let durable = before.map_or(-1, |before| before.shape.base_offset);
            let durable = durable.min(self.sync.durable_segment());
            (Arc::clone(sealed), start, durable)
        };
        let mut header = Header {
            identity: self.identity.clone(),
            birth: self.birth,
            start,
            durable_segment,
            conf: self.conf.clone(),
        };
        let bytes = match header.encode_to(sealed.shape.header_len) {
            Some(bytes) => bytes,
            None => {
                // The one of today takes more room. Nothing needs it here: the node WAL has it.
                header.conf = StoredConf::default();
                header
                    .encode_to(sealed.shape.header_len)
                    .unwrap_or_default()
            }
        };
        let raft = SegmentFile::Raft;
        let len = sealed.files.raft()?.len().at(&sealed.files.path(raft))?;
        let patch = vec![(0, bytes)];
        let mended = self
            .reader()
            .patched(&sealed.files, (raft, len), patch, &[])?;
        self.exchange(vec![mended]).map(drop)
    }

    /// Writes what is known of the segment that is written over what its sidecar says.
    fn rewrite_active_sidecar(&mut self) -> LogResult<()> {
        let (files, header_len, records, start, durable_segment) = {
            let inner = self.shared.inner.read();
            let active = &inner.active;
            let mut bytes = Vec::new();
            for (index, record) in (active.shape.first_index..).zip(&active.records) {
                bytes.extend_from_slice(&record.encode(index));
            }
            let before = inner.sealed.last();
            let start = before.map_or(inner.start, |before| LogStart {
                prev_index: before.last_index,
                prev_term: before.last_term,
                offset: before.next_offset,
            });
            let header_len = active.shape.header_len;
            (
                Arc::clone(&active.files),
                header_len,
                bytes,
                start,
                self.sync.durable_segment(),
            )
        };
        let raft = files.raft()?;
        let path = raft.path();
        let mut header = vec![0; usize::try_from(header_len).unwrap_or(0)];
        let is_whole = raft.read_past_cache(&mut header, 0).is_ok()
            && Header::decode(&header).is_ok_and(|(_, len)| len as u64 == header_len);
        if !is_whole {
            let header = Header {
                identity: self.identity.clone(),
                birth: self.birth,
                start,
                durable_segment,
                conf: self.conf.clone(),
            };
            if let Some(bytes) = header.encode_to(header_len) {
                raft.write_all_at(&[IoSlice::new(&bytes)], 0).at(path)?;
            }
        }
        raft.write_all_at(&[IoSlice::new(&records)], header_len)
            .at(path)?;
        self.sync.wrote_sidecar(&files);
        self.sync.sync_all().at(&self.shared.dir)
    }
}
