//! The file of the node WAL: its header, its start marks, and where positions lie.
//!
//! ```text
//! byte 0       header, 64 bytes used: magic "RRNODWAL", version u32, crc32 u32 of bytes 16..64,
//!              directory id 16 bytes, capacity of the ring u64, zeros
//! byte 4096    start mark 0, 64 bytes used: magic "RRWALMRK", version u32, crc32 u32 of bytes 16..64,
//! byte 8192    start mark 1   sequence u64, position u64, round u64, must reach round u64,
//!                             checksum of the record before u32, boot generation u32
//! byte 12288   the ring: capacity bytes, a multiple of 512
//! ```
//! A *position* counts all bytes ever laid into the ring; its place is `position % capacity` and its
//! lap `position / capacity`. A round begins at a multiple of 512, so that no sector is shared by
//! two rounds and a torn write cannot touch a round that was synced; inside a round records follow
//! one another, across the end of the ring too. The newer start mark with a good checksum says where
//! reading begins; it is durable before the space behind it is used again (W3).

use std::path::Path;

use bytes::{Buf, BufMut};
use uuid::Uuid;

use crate::disk::DiskFile;
use crate::node::error::NodeError;

/// The first bytes of the file.
pub const MAGIC: &[u8; 8] = b"RRNODWAL";
const MARK_MAGIC: &[u8; 8] = b"RRWALMRK";
pub(super) const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 64;
const MARK_OFFSETS: [u64; 2] = [4096, 8192];
/// Where the ring begins in the file.
pub(in crate::node) const RING_OFFSET: u64 = 12_288;
/// What a round is aligned to.
pub(in crate::node) const ROUND_ALIGN_BYTES: u64 = 512;
/// The smallest file that is worth having.
pub(in crate::node) const WAL_MIN_BYTES: u64 = 32 * 1024;
/// Positions and rounds beyond this are not ours: no disk lives to take so many bytes, and sums with
/// what a hostile file says must not overflow.
pub(in crate::node) const MAX_POSITION: u64 = 1 << 60;

pub(in crate::node) fn align_up(position: u64) -> u64 {
    position.next_multiple_of(ROUND_ALIGN_BYTES)
}

pub(in crate::node) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A place in the ring from which the chain of records can be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkPoint {
    /// The first record's position.
    pub position: u64,
    /// The checksum of the record before it.
    pub prev_crc: u32,
    /// Its flush round.
    pub round: u64,
    /// The boot generation of the record before it.
    pub generation: u32,
}

/// A start mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The greater one counts.
    pub sequence: u64,
    /// Where reading begins.
    pub point: MarkPoint,
    /// The round of the checkpoint that moved the mark: a chain that ends before it is damaged, as
    /// that round was durable before the mark was written.
    pub must_reach: u64,
}

impl Mark {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(HEADER_BYTES);
        body.put_u64_le(self.sequence);
        body.put_u64_le(self.point.position);
        body.put_u64_le(self.point.round);
        body.put_u64_le(self.must_reach);
        body.put_u32_le(self.point.prev_crc);
        body.put_u32_le(self.point.generation);
        framed(MARK_MAGIC, body)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = unframed(MARK_MAGIC, bytes)?.1;
        let sequence = rest.try_get_u64_le().ok()?;
        let position = rest.try_get_u64_le().ok()?;
        let round = rest.try_get_u64_le().ok()?;
        let must_reach = rest.try_get_u64_le().ok()?;
        let prev_crc = rest.try_get_u32_le().ok()?;
        let generation = rest.try_get_u32_le().ok()?;
        let point = MarkPoint {
            position,
            prev_crc,
            round,
            generation,
        };
        let possible = position.is_multiple_of(ROUND_ALIGN_BYTES)
            && position <= MAX_POSITION
            && round <= MAX_POSITION;
        possible.then_some(Self {
            sequence,
            point,
            must_reach,
        })
    }
}

/// Magic, version and checksum before a body, filled with zeros to 64 bytes.
pub(super) fn framed(magic: &[u8; 8], mut body: Vec<u8>) -> Vec<u8> {
    body.resize(HEADER_BYTES - 16, 0);
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.put_slice(magic);
    bytes.put_u32_le(VERSION);
    bytes.put_u32_le(crc32fast::hash(&body));
    bytes.extend_from_slice(&body);
    bytes
}

/// The version and body behind a good checksum.
fn unframed<'a>(magic: &[u8; 8], mut bytes: &'a [u8]) -> Option<(u32, &'a [u8])> {
    let mut found = [0; 8];
    bytes.try_copy_to_slice(&mut found).ok()?;
    let version = bytes.try_get_u32_le().ok()?;
    let crc = bytes.try_get_u32_le().ok()?;
    (&found == magic && crc32fast::hash(bytes) == crc).then_some((version, bytes))
}

/// Where the ring lies and how its checksums begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct Geometry {
    pub(in crate::node) capacity: u64,
    /// Checksums begin with this, so that bytes of another node's WAL, or an event that contains
    /// such bytes, are never taken for records.
    pub(in crate::node) salt: u32,
}

impl Geometry {
    pub(in crate::node) fn offset(self, position: u64) -> u64 {
        RING_OFFSET + position % self.capacity
    }

    pub(in crate::node) fn lap(self, position: u64) -> u32 {
        // The low 32 bits are enough to tell neighbouring laps apart.
        u32::try_from((position / self.capacity) & u64::from(u32::MAX)).unwrap_or(0)
    }

    /// The parts of the file that a range of positions covers, at most two for a lap.
    pub(in crate::node) fn spans(self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
        let mut at = from;
        std::iter::from_fn(move || {
            if at >= to {
                return None;
            }
            let until = to.min((at / self.capacity + 1) * self.capacity);
            let span = (self.offset(at), until - at);
            at = until;
            Some(span)
        })
    }
}

/// What the two fixed blocks of a WAL file say.
#[derive(Debug, Clone)]
pub(in crate::node) struct Preamble {
    pub(in crate::node) directory_id: Uuid,
    pub(in crate::node) geometry: Geometry,
    pub(in crate::node) marks: [Option<Mark>; 2],
}

impl Preamble {
    pub(in crate::node) fn read(file: &dyn DiskFile, path: &Path) -> Result<Self, NodeError> {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)
            .map_err(NodeError::read(path, 0))?;
        let Some((version, mut rest)) = unframed(MAGIC, &header) else {
            return Err(NodeError::damaged(
                path,
                0,
                "the header's magic or checksum is wrong",
            ));
        };
        if version != VERSION {
            let path = path.to_path_buf();
            return Err(NodeError::Version {
                path,
                found: version,
                known: VERSION,
            });
        }
        let mut id = [0; 16];
        let capacity = rest
            .try_copy_to_slice(&mut id)
            .and_then(|()| rest.try_get_u64_le())
            .map_err(|_| NodeError::damaged(path, 0, "the header is short"))?;
        let len = file.len().map_err(NodeError::io(path))?;
        if capacity == 0
            || capacity > MAX_POSITION
            || !capacity.is_multiple_of(ROUND_ALIGN_BYTES)
            || RING_OFFSET.checked_add(capacity) != Some(len)
        {
            return Err(NodeError::damaged(
                path,
                32,
                "the ring's size is not that of the file",
            ));
        }
        let mut marks = [None; 2];
        for (mark, offset) in marks.iter_mut().zip(MARK_OFFSETS) {
            let mut bytes = [0; HEADER_BYTES];
            file.read_exact_at(&mut bytes, offset)
                .map_err(NodeError::read(path, offset))?;
            *mark = Mark::decode(&bytes);
        }
        let geometry = Geometry {
            capacity,
            salt: crc32fast::hash(&id),
        };
        Ok(Self {
            directory_id: Uuid::from_bytes(id),
            geometry,
            marks,
        })
    }

    pub(in crate::node) fn newest_mark(&self, path: &Path) -> Result<Mark, NodeError> {
        self.marks
            .into_iter()
            .flatten()
            .max_by_key(|mark| mark.sequence)
            .ok_or_else(|| {
                NodeError::damaged(
                    path,
                    MARK_OFFSETS[0],
                    "neither start mark has a good checksum",
                )
            })
    }
}

pub(super) fn mark_offset(sequence: u64) -> u64 {
    if sequence.is_multiple_of(2) {
        MARK_OFFSETS[1]
    } else {
        MARK_OFFSETS[0]
    }
}
