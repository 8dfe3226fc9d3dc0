//! Beginning a segment.

use std::io::{ErrorKind, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::Disk;
use crate::format::SegmentFile;
use crate::format::index::Indexes;
use crate::format::sidecar::Header;
use crate::log::config::LogConfig;
use crate::log::error::{IoContext, LogResult};
use crate::log::files::Files;
use crate::log::shared::{Active, Shape};
use crate::recovered::{LogIdentity, LogStart, StoredConf};

/// Blocks are reserved in steps that double, from this on...
const RESERVE_MIN_BYTES: u64 = 1 << 20;
/// ...up to this, so that many small partitions do not fill a disk with nothing.
const RESERVE_MAX_STEP_BYTES: u64 = 32 << 20;

/// What all segments of a log have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spec<'a> {
    pub(super) disk: &'a Arc<dyn Disk>,
    pub(super) dir: &'a Arc<PathBuf>,
    pub(super) identity: &'a LogIdentity,
    pub(super) birth: LogStart,
    pub(super) conf: &'a StoredConf,
}

impl Spec<'_> {
    pub(super) fn header(&self, start: LogStart, durable_segment: i64) -> Vec<u8> {
        Header {
            identity: self.identity.clone(),
            birth: self.birth,
            start,
            durable_segment,
            conf: self.conf.clone(),
        }
        .encode()
    }

    /// Creates the files of a segment, without syncing them. Where one cannot be made, none stays.
    pub(super) fn create(&self, start: LogStart, durable_segment: i64) -> LogResult<Active> {
        let files = Arc::new(Files::new(self.disk, self.dir, start.offset));
        match self.create_files(&files, start, durable_segment) {
            Ok(header_len) => Ok(Active {
                shape: Shape {
                    base_offset: start.offset,
                    first_index: start.prev_index + 1,
                    header_len,
                },
                files,
                records: Vec::new(),
                log_len: 0,
                aux_len: 0,
                next_offset: start.offset,
                indexes: Indexes::new(start.offset),
            }),
            Err(error) => {
                for file in [
                    SegmentFile::Log,
                    SegmentFile::Raft,
                    SegmentFile::Index,
                    SegmentFile::TimeIndex,
                ] {
                    // The first error is the one to report.
                    let _ = files.remove(file);
                }
                Err(error)
            }
        }
    }

    fn create_files(&self, files: &Files, start: LogStart, durable_segment: i64) -> LogResult<u64> {
        files.create(SegmentFile::Log)?;
        let raft = files.create(SegmentFile::Raft)?;
        let header = self.header(start, durable_segment);
        raft.write_all_at(&[IoSlice::new(&header)], 0)
            .at(raft.path())?;
        files.create(SegmentFile::Index)?;
        files.create(SegmentFile::TimeIndex)?;
        Ok(header.len() as u64)
    }
}

/// How far to reserve a `.log` that has `reserved` bytes and needs `end`.
pub(super) fn reservation(config: &LogConfig, reserved: u64, end: u64) -> u64 {
    let step = reserved.clamp(RESERVE_MIN_BYTES, RESERVE_MAX_STEP_BYTES);
    (reserved + step).min(config.segment_bytes).max(end)
}

/// Reserves the first blocks of a new segment, so that a full disk is met before it is written. A
/// segment that cannot be reserved is removed again.
pub(super) fn reserve_first(active: &Active, config: &LogConfig) -> LogResult<u64> {
    if !config.preallocate {
        return Ok(0);
    }
    let len = reservation(config, 0, 0);
    let log = active.files.log()?;
    let reserved = log.reserve(len);
    if reserved
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::StorageFull)
    {
        for file in [
            SegmentFile::Log,
            SegmentFile::Raft,
            SegmentFile::Index,
            SegmentFile::TimeIndex,
        ] {
            let _ = active.files.remove(file);
        }
    }
    reserved.at(log.path())?;
    Ok(len)
}
