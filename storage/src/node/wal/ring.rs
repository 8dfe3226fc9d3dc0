//! The writer of the node WAL: lays rounds into the ring, and moves the start mark.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use crc32fast::Hasher;
use uuid::Uuid;

use super::preamble::{
    Geometry, HEADER_BYTES, MAGIC, Mark, MarkPoint, RING_OFFSET, ROUND_ALIGN_BYTES, WAL_MIN_BYTES,
    align_up, framed, mark_offset, to_usize,
};
use super::record::{RECORD_HEADER_BYTES, RecordBody, RecordHeader};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::node::error::NodeError;

/// Payloads up to this size are copied beside their header, so that a round of many small
/// records is a few slices and not thousands.
const COPY_MAX_BYTES: usize = 1024;
/// In the first lap the ring is filled with zeros this far ahead of the writer: blocks that were
/// allocated but never written cost each sync a change of the file's extents.
const ZERO_AHEAD_BYTES: u64 = 1024 * 1024;
const ZEROS: &[u8] = &[0; 64 * 1024];

/// A record to be written.
#[derive(Debug, Clone)]
pub(in crate::node) struct Outgoing {
    pub(in crate::node) group: u64,
    pub(in crate::node) replica: u64,
    pub(in crate::node) sequence: u64,
    pub(in crate::node) body: RecordBody,
}

#[derive(Debug)]
enum Part {
    Small(Range<usize>),
    Payload(Bytes),
}

/// A round's bytes: headers and small bodies in one buffer, great payloads as they are.
#[derive(Debug, Default)]
struct Encoded {
    small: Vec<u8>,
    parts: Vec<Part>,
    bytes: u64,
}

impl Encoded {
    fn small_from(&mut self, from: usize) {
        let to = self.small.len();
        self.bytes += (to - from) as u64;
        match self.parts.last_mut() {
            Some(Part::Small(range)) if range.end == from => range.end = to,
            _ => self.parts.push(Part::Small(from..to)),
        }
    }

    /// The slices of `len` bytes from `from`.
    fn slices(&self, from: u64, len: u64) -> Vec<IoSlice<'_>> {
        let (mut skip, mut left) = (to_usize(from), to_usize(len));
        let mut slices = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let bytes = match part {
                Part::Small(range) => self.small.get(range.clone()).unwrap_or_default(),
                Part::Payload(bytes) => bytes,
            };
            let bytes = bytes.get(skip.min(bytes.len())..).unwrap_or_default();
            let whole = match part {
                Part::Small(range) => range.len(),
                Part::Payload(bytes) => bytes.len(),
            };
            skip = skip.saturating_sub(whole);
            let bytes = bytes.get(..left.min(bytes.len())).unwrap_or_default();
            left -= bytes.len();
            if !bytes.is_empty() {
                slices.push(IoSlice::new(bytes));
            }
        }
        slices
    }
}

/// The writer's side of the ring.
#[derive(Debug)]
pub(in crate::node) struct Ring {
    pub(in crate::node) file: Arc<dyn DiskFile>,
    pub(in crate::node) path: PathBuf,
    pub(in crate::node) geometry: Geometry,
    /// The durable start mark: what lies behind it may be written over.
    pub(in crate::node) mark: Mark,
    /// Where the next round begins, and behind what.
    pub(in crate::node) tail: MarkPoint,
    /// Of this process.
    pub(in crate::node) generation: u32,
    /// In the first lap: how far zeros have been written.
    zeroed_to: u64,
}

/// Bytes of the ring in a file of this size.
pub(in crate::node) fn capacity_of(wal_bytes: u64) -> u64 {
    (wal_bytes.max(WAL_MIN_BYTES) - RING_OFFSET) / ROUND_ALIGN_BYTES * ROUND_ALIGN_BYTES
}

impl Ring {
    /// Creates the file aside and renames it; durable with its name when this returns.
    pub(in crate::node) fn create(
        disk: &dyn Disk,
        path: &Path,
        directory_id: Uuid,
        wal_bytes: u64,
        generation: u32,
    ) -> Result<Self, NodeError> {
        let capacity = capacity_of(wal_bytes);
        let aside = path.with_extension("new");
        if disk.exists(&aside).map_err(NodeError::io(&aside))? {
            disk.remove_file(&aside).map_err(NodeError::io(&aside))?;
        }
        let file = disk
            .open(&aside, OpenMode::CreateNew)
            .map_err(NodeError::io(&aside))?;
        let point = MarkPoint {
            position: 0,
            prev_crc: 0,
            round: 1,
            generation: 0,
        };
        let mark = Mark {
            sequence: 1,
            point,
            must_reach: 0,
        };
        let mut body = Vec::with_capacity(HEADER_BYTES);
        body.put_slice(directory_id.as_bytes());
        body.put_u64_le(capacity);
        let zeroed_to = capacity.min(ZERO_AHEAD_BYTES);
        let written = (|| {
            file.allocate(RING_OFFSET + capacity)?;
            let mut fixed = framed(MAGIC, body);
            fixed.resize(to_usize(RING_OFFSET), 0);
            file.write_all_at(&[IoSlice::new(&fixed)], 0)?;
            file.write_all_at(&[IoSlice::new(&mark.encode())], mark_offset(mark.sequence))?;
            write_zeros(&*file, RING_OFFSET, zeroed_to)?;
            file.sync_data()
        })();
        written.map_err(NodeError::io(&aside))?;
        drop(file);
        disk.rename(&aside, path).map_err(NodeError::io(path))?;
        if let Some(dir) = path.parent() {
            disk.sync_dir(dir).map_err(NodeError::io(dir))?;
        }
        let file = disk
            .open(path, OpenMode::Existing)
            .map_err(NodeError::io(path))?;
        let geometry = Geometry {
            capacity,
            salt: crc32fast::hash(directory_id.as_bytes()),
        };
        Ok(Self {
            file,
            path: path.to_path_buf(),
            geometry,
            mark,
            tail: point,
            generation,
            zeroed_to,
        })
    }

    /// Goes on behind what a boot has read.
    pub(in crate::node) fn resume(
        file: Arc<dyn DiskFile>,
        path: PathBuf,
        geometry: Geometry,
        mark: Mark,
        tail: MarkPoint,
        generation: u32,
    ) -> Self {
        Self {
            file,
            path,
            geometry,
            mark,
            tail,
            generation,
            zeroed_to: tail.position,
        }
    }

    pub(in crate::node) fn used(&self) -> u64 {
        self.tail.position - self.mark.point.position
    }

    pub(in crate::node) fn free(&self) -> u64 {
        self.geometry.capacity - self.used()
    }

    /// Lays a round into the ring, in the page cache only. The caller has seen to the room.
    pub(in crate::node) fn write_round(&mut self, records: &[Outgoing]) -> io::Result<()> {
        let (encoded, prev_crc) = self.encode(records);
        let from = self.tail.position;
        let to = from + encoded.bytes;
        // INVARIANT: live records are never written over (W3).
        assert!(
            to - self.mark.point.position <= self.geometry.capacity,
            "a round of {} bytes does not fit into the node WAL",
            encoded.bytes
        );
        let mut done = 0;
        for (offset, len) in self.geometry.spans(from, to) {
            self.file.write_all_at(&encoded.slices(done, len), offset)?;
            done += len;
        }
        if to < self.geometry.capacity && to > self.zeroed_to {
            let ahead = self.geometry.capacity.min(to + ZERO_AHEAD_BYTES);
            write_zeros(&*self.file, RING_OFFSET + to, ahead - to)?;
            self.zeroed_to = ahead;
        }
        self.tail = MarkPoint {
            position: to,
            prev_crc,
            round: self.tail.round + 1,
            generation: self.generation,
        };
        Ok(())
    }

    fn encode(&self, records: &[Outgoing]) -> (Encoded, u32) {
        let mut out = Encoded::default();
        let mut prev_crc = self.tail.prev_crc;
        for (at, record) in records.iter().enumerate() {
            let from = out.small.len();
            let length = record.body.record_bytes();
            let header = RecordHeader {
                length: u32::try_from(length).unwrap_or(u32::MAX),
                crc: 0,
                prev_crc,
                kind: record.body.kind(),
                last: at + 1 == records.len(),
                lap: self.geometry.lap(self.tail.position + out.bytes),
                generation: self.generation,
                round: self.tail.round,
                group: record.group,
                replica: record.replica,
                sequence: record.sequence,
            };
            out.small.put_u32_le(header.length);
            out.small.put_u32_le(0);
            header.encode_tail(&mut out.small);
            let payload = record.body.encode(&mut out.small);
            let mut hasher = Hasher::new_with_initial(self.geometry.salt);
            hasher.update(out.small.get(from + 8..).unwrap_or_default());
            hasher.update(payload);
            prev_crc = hasher.finalize();
            if let Some(place) = out.small.get_mut(from + 4..from + 8) {
                place.copy_from_slice(&prev_crc.to_le_bytes());
            }
            match &record.body {
                RecordBody::Entry(entry) if payload.len() > COPY_MAX_BYTES => {
                    out.small_from(from);
                    out.bytes += payload.len() as u64;
                    out.parts.push(Part::Payload(entry.payload.clone()));
                }
                _ => {
                    out.small.extend_from_slice(payload);
                    out.small_from(from);
                }
            }
        }
        let padding = align_up(out.bytes) - out.bytes;
        let from = out.small.len();
        out.small.resize(from + to_usize(padding), 0);
        out.small_from(from);
        (out, prev_crc)
    }

    /// Writes a start mark over the older one; it counts once the file is synced.
    pub(in crate::node) fn write_mark(
        &self,
        point: MarkPoint,
        must_reach: u64,
    ) -> io::Result<Mark> {
        let mark = Mark {
            sequence: self.mark.sequence + 1,
            point,
            must_reach,
        };
        self.file
            .write_all_at(&[IoSlice::new(&mark.encode())], mark_offset(mark.sequence))?;
        Ok(mark)
    }

    /// Writes the newest start mark and the last round once more and syncs. They may have been read
    /// from the cache of a process that died before, or because of, their sync: pages that count as
    /// clean and are not on the disk (W8).
    pub(in crate::node) fn write_again(&self, from: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = mark_offset(self.mark.sequence);
        self.file
            .write_all_at(&[IoSlice::new(&self.mark.encode())], offset)?;
        let mut done = 0;
        for (offset, len) in self.geometry.spans(from, from + bytes.len() as u64) {
            let part = bytes.get(done..done + to_usize(len)).unwrap_or_default();
            self.file.write_all_at(&[IoSlice::new(part)], offset)?;
            done += part.len();
        }
        self.file.sync_data()
    }
}

fn write_zeros(file: &dyn DiskFile, offset: u64, len: u64) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let part = to_usize(len - done).min(ZEROS.len());
        file.write_all_at(
            &[IoSlice::new(ZEROS.get(..part).unwrap_or_default())],
            offset + done,
        )?;
        done += part as u64;
    }
    Ok(())
}

/// Checks a record's checksum.
pub(in crate::node) fn checksum_is_good(salt: u32, crc: u32, record: &[u8]) -> bool {
    let mut hasher = Hasher::new_with_initial(salt);
    hasher.update(record.get(8..).unwrap_or_default());
    record.len() >= RECORD_HEADER_BYTES && hasher.finalize() == crc
}
