//! Reading batches of a `.log` whose contents are not trusted.

use std::sync::Arc;

use riverrun_record::layout::HEADER_LEN;
use riverrun_record::{BatchError, BatchView};

use crate::disk::DiskFile;
use crate::log::error::LogResult;
use crate::log::files::read_at;

/// Bytes read ahead at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// A whole batch that was found, with a checksum that matches or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) base_offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) last_offset_delta: i32,
    pub(super) max_timestamp: i64,
    pub(super) len: u32,
    /// Whether the checksum matches and the counts are possible.
    pub(super) is_whole: bool,
    /// Whether the bytes are the ones they were compared with, if any.
    pub(super) is_same: bool,
}

/// Reads a file front to back through a window.
#[derive(Debug)]
pub(super) struct Scanner {
    file: Arc<dyn DiskFile>,
    len: u64,
    window: Vec<u8>,
    window_at: u64,
    pub(super) read_bytes: u64,
}

impl Scanner {
    pub(super) fn new(file: Arc<dyn DiskFile>, len: u64) -> Self {
        Self {
            file,
            len,
            window: Vec::new(),
            window_at: 0,
            read_bytes: 0,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The batch that begins at `position`; none where no whole batch does.
    pub(super) fn batch_at(
        &mut self,
        position: u64,
        expected: Option<&[u8]>,
    ) -> LogResult<Option<Found>> {
        let mut wanted = HEADER_LEN as u64;
        loop {
            if wanted > self.len.saturating_sub(position) {
                return Ok(None);
            }
            let bytes = self.at(position, wanted)?;
            match BatchView::parse(bytes) {
                Ok(batch) => {
                    return Ok(Some(Found {
                        base_offset: batch.base_offset(),
                        leader_epoch: batch.leader_epoch(),
                        last_offset_delta: batch.last_offset_delta(),
                        max_timestamp: batch.max_timestamp(),
                        len: u32::try_from(batch.total_len()).unwrap_or(u32::MAX),
                        is_whole: batch.check_stored().is_ok(),
                        is_same: expected.is_none_or(|expected| expected == batch.bytes()),
                    }));
                }
                // The length that it states is bounded by the file's before anything is read.
                Err(BatchError::Incomplete { needed, .. }) if needed as u64 > wanted => {
                    wanted = needed as u64;
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// At least `wanted` bytes from `position` on, which the file has.
    fn at(&mut self, position: u64, wanted: u64) -> LogResult<&[u8]> {
        let window_end = self.window_at + self.window.len() as u64;
        if position < self.window_at || position + wanted > window_end {
            let len = wanted.max(WINDOW_BYTES).min(self.len - position);
            self.window
                .resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
            read_at(&self.file, &mut self.window, position)?;
            self.window_at = position;
            self.read_bytes += len;
        }
        let from = usize::try_from(position - self.window_at).unwrap_or(usize::MAX);
        Ok(self.window.get(from..).unwrap_or_default())
    }
}
