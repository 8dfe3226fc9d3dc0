//! Cutting a tail, dropping a head, beginning again.

use std::io::IoSlice;
use std::sync::Arc;

use riverrun_record::layout::MAX_TIMESTAMP;

use crate::disk::{DiskFile, OpenMode};
use crate::entry::EntryKind;
use crate::format::aux;
use crate::format::index::{IndexedBatch, Indexes};
use crate::format::log_start::{self, StartFile};
use crate::format::sidecar::{RECORD_LEN, Record};
use crate::format::{SegmentFile, TMP_SUFFIX};
use crate::log::Log;
use crate::log::append::IndexedSoFar;
use crate::log::error::{IoContext, LogResult};
use crate::log::files::{Files, read_at};
use crate::log::open;
use crate::log::repair::write_indexes;
use crate::log::segment::{Spec, reserve_first};
use crate::log::shared::{Active, Shape};
use crate::planted::{self, Bug};
use crate::recovered::{LogStart, StoredConf};

/// The largest timestamp of the batch at a position.
pub(super) fn max_timestamp_at(log: &Arc<dyn DiskFile>, position: u32) -> LogResult<i64> {
    let mut bytes = [0; 8];
    let at = u64::from(position) + MAX_TIMESTAMP as u64;
    read_at(log, &mut bytes, at)?;
    Ok(i64::from_be_bytes(bytes))
}

impl Log {
    /// Cuts every entry from `index` on, durably: `.log` first, then the sidecar (W5). The caller
    /// has made the cut record durable before, and no slice of what is cut was ever handed out (I3).
    ///
    /// # Errors
    /// I/O errors, which poison the log.
    ///
    /// # Panics
    /// When the index lies before the log.
    pub fn truncate_from(&mut self, index: u64) -> LogResult<()> {
        self.sync.check()?;
        let (first, last) = {
            let inner = self.shared.inner.read();
            (inner.first_index(), inner.last_index())
        };
        assert!(
            index >= first,
            "I3: a cut at {index} below the log's start at {first}"
        );
        if index > last {
            return Ok(());
        }
        let cut = self.cut(index);
        if cut.is_err() {
            self.sync.poison();
        }
        cut
    }

    fn cut(&mut self, index: u64) -> LogResult<()> {
        let (files, shape, records, later) = self.cut_point(index)?;
        let log_len = records
            .iter()
            .rev()
            .find(|r| r.kind == EntryKind::Data)
            .map_or(0, Record::end);
        let aux_len = records
            .iter()
            .rev()
            .find(|r| matches!(r.kind, EntryKind::Conf | EntryKind::Command))
            .map_or(0, |record| record.end() + u64::from(aux::ITEM_HEADER_LEN));
        let next_offset = records
            .last()
            .map_or(shape.base_offset, Record::next_offset);
        if planted::is(Bug::W5) {
            self.cut_sidecars(&files, &shape, records.len(), aux_len, &later)?;
            self.cut_logs(&files, log_len, &later, false)?;
        } else {
            self.cut_logs(&files, log_len, &later, true)?;
            self.cut_sidecars(&files, &shape, records.len(), aux_len, &later)?;
        }
        self.drop_snapshots(|offset| offset > next_offset)?;
        let dir = &self.shared.dir;
        self.shared.disk.sync_dir(dir).at(dir)?;

        // Which index entries there are is a function of the batches that are left.
        let files = Arc::new(files.reopened());
        let mut indexes = Indexes::new(shape.base_offset);
        let log = files.log()?;
        for record in records
            .iter()
            .filter(|record| record.kind == EntryKind::Data)
        {
            indexes.add(
                IndexedBatch {
                    last_offset: record.last_offset(),
                    max_timestamp: max_timestamp_at(log, record.position)?,
                    position: record.position,
                    len: record.len,
                },
                self.config.index_interval_bytes,
            );
        }
        write_indexes(&self.shared.disk, &files, &indexes)?;
        self.indexed = IndexedSoFar {
            offset: indexes.offset.len(),
            time: indexes.time.len(),
        };
        self.reserved = log_len;
        let base = shape.base_offset;
        self.sync.forget(|gone| gone >= base);
        {
            let mut inner = self.shared.inner.write();
            inner
                .sealed
                .retain(|segment| segment.shape.base_offset < base);
            let newest = inner
                .sealed
                .last()
                .map_or(-1, |segment| segment.shape.base_offset);
            self.sync
                .set_durable_segment(self.sync.durable_segment().min(newest));
            inner.runs.truncate_from(index);
            inner.active = Active {
                files,
                shape,
                records,
                log_len,
                aux_len,
                next_offset,
                indexes,
            };
        }
        self.write_leader_epochs_if_room()
    }

    /// The segment that a cut ends, the records that stay in it, and the segments behind it.
    #[expect(
        clippy::type_complexity,
        reason = "four parts of one answer, used once"
    )]
    fn cut_point(
        &self,
        index: u64,
    ) -> LogResult<(Arc<Files>, Shape, Vec<Record>, Vec<Arc<Files>>)> {
        let inner = self.shared.inner.read();
        let active = &inner.active;
        // Where nothing of a segment would stay, the one before it is written on.
        let last_kept = index - 1;
        if last_kept >= active.shape.first_index || inner.sealed.is_empty() {
            let keep = usize::try_from(index - active.shape.first_index).unwrap_or(0);
            let records = active.records.get(..keep).unwrap_or_default().to_vec();
            return Ok((Arc::clone(&active.files), active.shape, records, Vec::new()));
        }
        let at = inner
            .sealed
            .partition_point(|segment| segment.last_index < last_kept)
            .min(inner.sealed.len() - 1);
        let mut behind = inner.sealed.iter().skip(at);
        let Some(segment) = behind.next().map(Arc::clone) else {
            unreachable!("there is a sealed segment");
        };
        let later = behind.map(|segment| Arc::clone(&segment.files));
        let later: Vec<_> = later.chain([Arc::clone(&active.files)]).collect();
        drop(inner);
        let records = segment.records(segment.shape.first_index, index)?;
        Ok((Arc::clone(&segment.files), segment.shape, records, later))
    }

    fn cut_logs(
        &self,
        files: &Files,
        log_len: u64,
        later: &[Arc<Files>],
        sync: bool,
    ) -> LogResult<()> {
        for gone in later {
            gone.remove(SegmentFile::Log)?;
        }
        let log = files.log()?;
        log.set_len(log_len).at(log.path())?;
        if sync {
            log.sync_data().at(log.path())?;
            if !later.is_empty() {
                let dir = &self.shared.dir;
                self.shared.disk.sync_dir(dir).at(dir)?;
            }
        }
        Ok(())
    }

    fn cut_sidecars(
        &self,
        files: &Files,
        shape: &Shape,
        count: usize,
        aux_len: u64,
        later: &[Arc<Files>],
    ) -> LogResult<()> {
        for gone in later {
            for file in [
                SegmentFile::Raft,
                SegmentFile::Aux,
                SegmentFile::Index,
                SegmentFile::TimeIndex,
            ] {
                gone.remove(file)?;
            }
        }
        let raft = files.raft()?;
        raft.set_len(shape.header_len + (count * RECORD_LEN) as u64)
            .at(raft.path())?;
        raft.sync_data().at(raft.path())?;
        if aux_len == 0 {
            files.remove(SegmentFile::Aux)?;
        } else {
            let payloads = files.open(SegmentFile::Aux, OpenMode::Existing)?;
            payloads.set_len(aux_len).at(payloads.path())?;
            payloads.sync_data().at(payloads.path())?;
        }
        Ok(())
    }

    /// Drops everything and begins again behind `start`, as after a metadata-only snapshot. The
    /// caller has made the producer snapshot of that offset durable, which stays, and then the cut
    /// record and the new start.
    ///
    /// # Errors
    /// I/O errors, which poison the log.
    pub fn reset(&mut self, start: LogStart, conf: &StoredConf) -> LogResult<()> {
        self.sync.check()?;
        let done = self.begin_again(start, conf);
        if done.is_err() {
            self.sync.poison();
        }
        done
    }

    fn begin_again(&mut self, start: LogStart, conf: &StoredConf) -> LogResult<()> {
        self.sync.forget(|_| true);
        open::wipe(&self.shared.disk, &self.shared.dir, start.offset)?;
        self.birth = start;
        self.conf = conf.clone();
        let spec = Spec {
            disk: &self.shared.disk,
            dir: &self.shared.dir,
            identity: &self.identity,
            birth: start,
            conf,
        };
        let active = spec.create(start, -1)?;
        self.reserved = reserve_first(&active, &self.config)?;
        self.indexed = IndexedSoFar::default();
        self.sync.set_durable_segment(-1);
        {
            let mut inner = self.shared.inner.write();
            inner.start = start;
            inner.sealed.clear();
            inner.active = active;
            self.shared.bad.lock().clear();
            self.shared.unreadable.lock().clear();
            self.shared.remembered.lock().clear();
            *self.shared.lost.lock() = None;
            inner.runs = super::runs::TermRuns::default();
        }
        self.write_leader_epochs_if_room()?;
        self.sync_everything()
    }

    /// Deletes the ended segments all of whose entries lie below `keep_from_index`, durably, and
    /// returns where the log begins now. The last segment always stays.
    ///
    /// # Errors
    /// I/O errors, which poison the log.
    pub fn drop_head(&mut self, keep_from_index: u64, conf: &StoredConf) -> LogResult<LogStart> {
        self.sync.check()?;
        let (old, start, gone) = {
            let inner = self.shared.inner.read();
            let count = inner
                .sealed
                .partition_point(|segment| segment.last_index < keep_from_index);
            let gone: Vec<_> = inner
                .sealed
                .iter()
                .take(count)
                .map(|s| Arc::clone(&s.files))
                .collect();
            let last = count.checked_sub(1).and_then(|at| inner.sealed.get(at));
            let start = last.map_or(inner.start, |last| LogStart {
                prev_index: last.last_index,
                prev_term: last.last_term,
                offset: last.next_offset,
            });
            (inner.start, start, gone)
        };
        if start == old {
            return Ok(start);
        }
        self.conf = conf.clone();
        // What the dropped batches say of producers must not be lost with them, and the snapshot of
        // that roll may be missing: a crash can come between the roll and its snapshot.
        let producers = self.recover_producer_state(start.offset)?;
        self.write_producer_snapshot(start.offset, &producers)?;
        let done = self.drop_segments(start, &gone);
        if done.is_err() {
            self.sync.poison();
        }
        done.map(|()| start)
    }

    fn drop_segments(&self, start: LogStart, gone: &[Arc<Files>]) -> LogResult<()> {
        let (disk, dir) = (&self.shared.disk, &self.shared.dir);
        // The first segment of a log is durable: its name, too.
        self.sync.sync_all().at(dir)?;
        let bytes = StartFile {
            group: self.identity.group,
            replica: self.identity.replica,
            birth: self.birth,
            start,
            conf: self.conf.clone(),
        }
        .encode();
        let aside = dir.join(format!("{}{TMP_SUFFIX}", log_start::FILE_NAME));
        let file = disk.open(&aside, OpenMode::Create).at(&aside)?;
        file.set_len(0).at(&aside)?;
        file.write_all_at(&[IoSlice::new(&bytes)], 0).at(&aside)?;
        file.sync_data().at(&aside)?;
        let path = dir.join(log_start::FILE_NAME);
        disk.rename(&aside, &path).at(&path)?;
        disk.sync_dir(dir).at(dir)?;
        {
            let mut inner = self.shared.inner.write();
            inner.start = start;
            inner.sealed.drain(..gone.len());
            let last_index = inner.last_index();
            inner.runs.drop_head(&start, last_index);
        }
        for files in gone {
            for file in [
                SegmentFile::Log,
                SegmentFile::Raft,
                SegmentFile::Aux,
                SegmentFile::Index,
                SegmentFile::TimeIndex,
            ] {
                files.remove(file)?;
            }
        }
        // The newest snapshot that is not above the start is where producers are known from.
        let keep = self
            .snapshots()?
            .into_iter()
            .rfind(|offset| *offset <= start.offset);
        self.drop_snapshots(|offset| keep.is_some_and(|keep| offset < keep))?;
        self.write_leader_epochs()?;
        disk.sync_dir(dir).at(dir)
    }
}
