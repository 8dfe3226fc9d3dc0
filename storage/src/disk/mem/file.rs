//! A file in memory: what reads see, what is durable, and what lies between.

use std::borrow::Cow;

use super::crash::CrashModel;
use super::rng::Rng;

/// Bytes that are written as one: a write may be torn between two sectors, and by a torn sector
/// within one.
pub(super) const SECTOR_BYTES: u64 = 512;

/// A change that is not durable yet.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Box<[u8]> },
    SetLen { len: usize },
}

impl Change {
    /// The file's length behind this change.
    fn len_after(&self, len: usize) -> usize {
        match self {
            Self::Write { offset, bytes } => len.max(offset + bytes.len()),
            Self::SetLen { len } => *len,
        }
    }

    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => put(image, *offset, bytes),
            Self::SetLen { len } => image.resize(*len, 0),
        }
    }
}

/// Writes into an image, filling a gap with zeros.
fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if offset == image.len() {
        image.extend_from_slice(bytes);
        return;
    }
    if image.len() < end {
        image.resize(end, 0);
    }
    if let Some(place) = image.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

/// One file.
#[derive(Debug, Clone, Default)]
pub(super) struct FileState {
    /// What reads see: the page cache.
    pub(super) cached: Vec<u8>,
    /// What a loss of power leaves.
    durable: Vec<u8>,
    /// What was written since, in order, each with its sequence number.
    pending: Vec<(u64, Change)>,
    /// Bytes of blocks that are reserved.
    pub(super) reserved: u64,
    /// Whether the images differ by more than what is pending: after a failed sync or a flipped bit.
    diverged: bool,
    /// Nothing that is written becomes durable any more, though syncs succeed: after a failed sync of
    /// a disk that bears grudges.
    stuck: bool,
    /// Bytes `from..to` that every read is refused: a sector that is bad. A write gives the place another.
    refused: Vec<(usize, usize)>,
    /// Open handles.
    pub(super) handles: usize,
}

impl FileState {
    /// Bytes of disk space that it takes.
    pub(super) fn allocated(&self) -> u64 {
        self.reserved.max(self.cached.len() as u64)
    }

    /// From now on reads of a place fail.
    pub(super) fn refuse(&mut self, from: usize, to: usize) {
        self.refused.push((from, to));
    }

    /// Whether a read meets a place that is refused.
    pub(super) fn refuses(&self, offset: usize, len: usize) -> bool {
        let end = offset.saturating_add(len);
        self.refused
            .iter()
            .any(|(from, to)| *from < end && offset < *to)
    }

    pub(super) fn write(&mut self, seq: u64, offset: usize, bytes: Vec<u8>) {
        let end = offset + bytes.len();
        self.refused
            .retain(|(from, to)| *to <= offset || *from >= end);
        put(&mut self.cached, offset, &bytes);
        self.pending.push((
            seq,
            Change::Write {
                offset,
                bytes: bytes.into_boxed_slice(),
            },
        ));
    }

    pub(super) fn set_len(&mut self, seq: u64, len: usize) {
        self.cached.resize(len, 0);
        self.reserved = len as u64;
        self.pending.push((seq, Change::SetLen { len }));
    }

    /// Makes durable what was written up to the horizon.
    pub(super) fn sync(&mut self, horizon: Option<u64>) {
        let upto = match horizon {
            None => self.pending.len(),
            Some(horizon) => self.pending.partition_point(|(seq, _)| *seq <= horizon),
        };
        let stuck = self.stuck;
        self.diverged |= stuck && upto > 0;
        for (_, change) in self.pending.drain(..upto).filter(|_| !stuck) {
            change.apply(&mut self.durable);
        }
    }

    /// A sync that failed: the pages count as clean, and the disk holds what it held (W8).
    pub(super) fn fail_sync(&mut self, sticks: bool) {
        if !self.pending.is_empty() {
            self.diverged = true;
            self.stuck |= sticks;
        }
        self.pending.clear();
    }

    /// Flips a bit of the durable image; false when there is no such byte.
    pub(super) fn flip(&mut self, offset: usize, bit: u8) -> bool {
        let Some(byte) = self.durable.get_mut(offset) else {
            return false;
        };
        *byte ^= 1 << (bit & 7);
        self.diverged = true;
        true
    }

    pub(super) fn durable_image(&self) -> &[u8] {
        &self.durable
    }

    /// What a read past the cache gives: pages that are dirty are written before it, where the disk takes
    /// them.
    pub(super) fn at_rest(&self) -> Cow<'_, [u8]> {
        if self.pending.is_empty() || self.stuck {
            return Cow::Borrowed(&self.durable);
        }
        let mut image = self.durable.clone();
        for (_, change) in &self.pending {
            change.apply(&mut image);
        }
        Cow::Owned(image)
    }

    /// Puts another image in the place of the durable one.
    pub(super) fn put_durable_image(&mut self, bytes: Vec<u8>) {
        self.durable = bytes;
        self.diverged = true;
    }

    pub(super) fn durable_len(&self) -> usize {
        self.durable.len()
    }

    /// Loses power: of what was pending, each sector keeps all, nothing, or what was written up to
    /// some write, the last of them perhaps torn; the length keeps what it was after some write.
    pub(super) fn crash(&mut self, rng: &mut Rng, model: &CrashModel) {
        self.handles = 0;
        if self.stuck {
            self.fail_sync(true);
            self.stuck = false;
        }
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            let lengths_kept = if rng.chance(model.length_kept_permille) {
                pending.len()
            } else if rng.chance(model.length_between_permille) {
                rng.below(pending.len())
            } else {
                0
            };
            let mut fates = std::collections::BTreeMap::new();
            let mut len = self.durable.len();
            for (at, (_, change)) in pending.iter().enumerate() {
                if at < lengths_kept {
                    len = change.len_after(len);
                }
                match change {
                    Change::SetLen { len } if at < lengths_kept => self.durable.resize(*len, 0),
                    Change::SetLen { .. } => {}
                    Change::Write { offset, bytes } => {
                        self.keep_sectors(
                            *offset,
                            bytes,
                            |sector| {
                                *fates
                                    .entry(sector)
                                    .or_insert_with(|| Fate::draw(rng, model, at, pending.len()))
                            },
                            at,
                        );
                    }
                }
            }
            self.durable.resize(len, 0);
            self.diverged = true;
        }
        if self.diverged {
            self.cached.clone_from(&self.durable);
            self.diverged = false;
        }
        self.reserved = self.reserved.max(self.cached.len() as u64);
    }

    fn keep_sectors(
        &mut self,
        offset: usize,
        bytes: &[u8],
        mut fate: impl FnMut(u64) -> Fate,
        at: usize,
    ) {
        let mut from = 0;
        while from < bytes.len() {
            let place = (offset + from) as u64;
            let sector = place / SECTOR_BYTES;
            let room = usize::try_from((sector + 1) * SECTOR_BYTES - place).unwrap_or(1);
            let to = bytes.len().min(from + room);
            let part = bytes.get(from..to).unwrap_or_default();
            let kept = fate(sector).kept_of(at, part.len());
            if kept > 0 {
                put(
                    &mut self.durable,
                    offset + from,
                    part.get(..kept).unwrap_or_default(),
                );
            }
            from = to;
        }
    }
}

/// What becomes of the pending writes to one sector.
#[derive(Debug, Clone, Copy)]
struct Fate {
    /// Writes before this one are kept whole.
    whole: usize,
    /// Of that one write this many thousandths are kept.
    torn_permille: usize,
}

impl Fate {
    /// Drawn at the first pending write to the sector.
    fn draw(rng: &mut Rng, model: &CrashModel, first: usize, count: usize) -> Self {
        if rng.chance(model.sector_torn_permille) {
            let whole = first + rng.below(count - first);
            return Self {
                whole,
                torn_permille: rng.below(1000),
            };
        }
        if rng.chance(model.sector_kept_permille) {
            return Self {
                whole: count,
                torn_permille: 0,
            };
        }
        Self {
            whole: 0,
            torn_permille: 0,
        }
    }

    /// How many bytes of a part of write `at` are kept.
    fn kept_of(self, at: usize, len: usize) -> usize {
        match at.cmp(&self.whole) {
            std::cmp::Ordering::Less => len,
            std::cmp::Ordering::Equal => len * self.torn_permille / 1000,
            std::cmp::Ordering::Greater => 0,
        }
    }
}
