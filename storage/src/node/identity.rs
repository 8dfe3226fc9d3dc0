//! The identity file: who this data directory is, how often it was started, how it was stopped.
//!
//! ```text
//! byte 0     slot 0, 4096 bytes        byte 4096   slot 1, 4096 bytes         (file: 8192 bytes)
//!
//! slot, little endian:
//!  0  magic "RRNODEID"            8  version u32 = 2    12  crc32 u32 of bytes 16..4096
//! 16  sequence u64               24  directory id, 16 bytes
//! 40  cluster id, 16 bytes       56  incarnation u64
//! 64  node id i32                68  flags u32: 1 = clean stop, 2 = cluster id is set, 4 = the WAL's end
//!                                    is named, 8 = a damage stands, 16 = a start was heard
//! 72  length of the boot id u8   73  kernel boot id, at most 64 bytes          zeros to 144
//! 144 count of starts u16, at most 170
//! 146 starts, the latest last, each incarnation u64, token u64                 zeros to 2880
//! 2880 the last start that was heard: incarnation u64, token u64
//! 2896 the WAL's end at the clean stop: next round u64, checksum of the last record u32
//! 2908 the damage that stands: first start that met it u64, replica ids below this one were ordered
//!      before it was met u64                                                   zeros to 4096
//! ```
//! Version 1 had slots of 512 bytes without starts, and is read still.
//! A change is written over the older slot and synced; the newer valid slot counts. The file is
//! created aside and renamed, as the last step of founding a directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut};
use uuid::Uuid;

use super::error::NodeError;
use crate::disk::{Disk, DiskFile, OpenMode};

/// The first bytes of a slot.
pub const MAGIC: &[u8; 8] = b"RRNODEID";
const VERSION: u32 = 2;
const SLOT_BYTES: usize = 4096;
const SLOT_SPACING_BYTES: u64 = 4096;
/// Where the checksum of a slot begins to count.
const BODY_AT: usize = 16;
/// The slot of version 1.
const FIRST_VERSION: u32 = 1;
const FIRST_SLOT_BYTES: usize = 512;
/// Where the starts are in the body of a slot.
const STARTS_AT: usize = 144 - BODY_AT;
/// Most starts that are kept.
pub const MAX_STARTS: usize = 170;
const BOOT_ID_MAX_BYTES: usize = 64;
const FLAG_CLEAN: u32 = 1;
const FLAG_CLUSTER: u32 = 2;
const FLAG_WAL_END: u32 = 4;
const FLAG_DAMAGE: u32 = 8;
const FLAG_HEARD: u32 = 16;
/// Where the fields are in the body of a slot that the flags speak of.
const MARKS_AT: usize = 2880 - BODY_AT;

/// One start of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Which one: a durable counter.
    pub incarnation: u64,
    /// Drawn at random in that start. Two that have the same incarnation and differ here come from
    /// copies of one disk (R3).
    pub token: u64,
}

/// Where the node WAL ended when the directory was closed cleanly (R14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalEnd {
    /// The round that would have come next.
    pub round: u64,
    /// The checksum of the last record.
    pub prev_crc: u32,
}

/// The node WAL was found damaged, and records of replicas may be gone without a trace (R12). It stands
/// until each replica that it may concern was accounted for, or an operator has spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandingDamage {
    /// The first start that met it.
    pub since: u64,
    /// Replica ids below this one may have been created before it was met: an order for one of them, of
    /// which the WAL has no record, is no order to create. `u64::MAX` until the controller was heard.
    pub ordered_below: u64,
}

/// Who a data directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Drawn when the directory was founded; a replica is bound to it (R3).
    pub directory_id: Uuid,
    /// The cluster, once it is known.
    pub cluster_id: Option<Uuid>,
    /// The configured node id.
    pub node_id: i32,
    /// Starts so far, durable before the first answer of each (R3).
    pub incarnation: u64,
    /// The kernel's boot id at the last start.
    pub kernel_boot_id: String,
    /// Whether the last stop was a clean one; false while a process runs.
    pub clean: bool,
    /// The last starts, at most [`MAX_STARTS`], the latest last. Those of a version that kept none are
    /// not in it.
    pub starts: Vec<Start>,
    /// The last start that a peer or the controller has answered. It is always among those kept (R15).
    pub heard: Option<Start>,
    /// Where the WAL ended at the last stop, if that was a clean one (R14).
    pub wal_end: Option<WalEnd>,
    /// A damage of the WAL that stands (R12).
    pub damage: Option<StandingDamage>,
}

impl NodeIdentity {
    /// Notes a start, and forgets the oldest where there are more than are kept, but never the last that
    /// others have heard of: without it they would take the directory for a restored copy (R15).
    pub(super) fn starts_with(&self, start: Start) -> Vec<Start> {
        let keep = self.starts.len().saturating_sub(MAX_STARTS - 1);
        let (old, kept) = self.starts.split_at_checked(keep).unwrap_or_default();
        let heard = self.heard.filter(|heard| old.contains(heard));
        // It takes the place of the oldest that would have been kept.
        let skip = usize::from(heard.is_some() && kept.len() == MAX_STARTS - 1);
        let kept = kept.iter().copied().skip(skip);
        heard.into_iter().chain(kept).chain([start]).collect()
    }

    fn encode(&self, sequence: u64) -> Vec<u8> {
        let mut body = Vec::with_capacity(SLOT_BYTES);
        body.put_u64_le(sequence);
        body.put_slice(self.directory_id.as_bytes());
        body.put_slice(self.cluster_id.unwrap_or_default().as_bytes());
        body.put_u64_le(self.incarnation);
        body.put_i32_le(self.node_id);
        let mut flags = 0;
        if self.clean {
            flags |= FLAG_CLEAN;
        }
        if self.cluster_id.is_some() {
            flags |= FLAG_CLUSTER;
        }
        if self.wal_end.is_some() {
            flags |= FLAG_WAL_END;
        }
        if self.damage.is_some() {
            flags |= FLAG_DAMAGE;
        }
        if self.heard.is_some() {
            flags |= FLAG_HEARD;
        }
        body.put_u32_le(flags);
        let boot = self.kernel_boot_id.as_bytes();
        let boot = boot.get(..BOOT_ID_MAX_BYTES).unwrap_or(boot);
        body.put_u8(u8::try_from(boot.len()).unwrap_or(0));
        body.put_slice(boot);
        body.resize(STARTS_AT, 0);
        let oldest = self.starts.len().saturating_sub(MAX_STARTS);
        let starts = self.starts.get(oldest..).unwrap_or_default();
        body.put_u16_le(u16::try_from(starts.len()).unwrap_or(0));
        for start in starts {
            body.put_u64_le(start.incarnation);
            body.put_u64_le(start.token);
        }
        body.resize(MARKS_AT, 0);
        let heard = self.heard.unwrap_or(Start {
            incarnation: 0,
            token: 0,
        });
        body.put_u64_le(heard.incarnation);
        body.put_u64_le(heard.token);
        body.put_u64_le(self.wal_end.map_or(0, |end| end.round));
        body.put_u32_le(self.wal_end.map_or(0, |end| end.prev_crc));
        body.put_u64_le(self.damage.map_or(0, |damage| damage.since));
        body.put_u64_le(self.damage.map_or(0, |damage| damage.ordered_below));
        body.resize(SLOT_BYTES - BODY_AT, 0);
        let mut slot = Vec::with_capacity(SLOT_BYTES);
        slot.put_slice(MAGIC);
        slot.put_u32_le(VERSION);
        slot.put_u32_le(crc32fast::hash(&body));
        slot.extend_from_slice(&body);
        slot
    }

    fn decode(bytes: &[u8]) -> Option<Slot> {
        let mut slot = bytes;
        let mut magic = [0; 8];
        slot.try_copy_to_slice(&mut magic).ok()?;
        let version = slot.try_get_u32_le().ok()?;
        let crc = slot.try_get_u32_le().ok()?;
        let length = if version == FIRST_VERSION {
            FIRST_SLOT_BYTES
        } else {
            SLOT_BYTES
        };
        let body = bytes.get(BODY_AT..length)?;
        if &magic != MAGIC || crc32fast::hash(body) != crc {
            return None;
        }
        if version != VERSION && version != FIRST_VERSION {
            return Some(Slot::Other(version));
        }
        let sequence = slot.try_get_u64_le().ok()?;
        let mut directory = [0; 16];
        slot.try_copy_to_slice(&mut directory).ok()?;
        let mut cluster = [0; 16];
        slot.try_copy_to_slice(&mut cluster).ok()?;
        let incarnation = slot.try_get_u64_le().ok()?;
        let node_id = slot.try_get_i32_le().ok()?;
        let flags = slot.try_get_u32_le().ok()?;
        let boot = usize::from(slot.try_get_u8().ok()?);
        let kernel_boot_id = String::from_utf8_lossy(slot.get(..boot)?).into_owned();
        let mut starts = Vec::new();
        let (mut heard, mut wal_end, mut damage) = (None, None, None);
        if version == VERSION {
            let mut rest = body.get(STARTS_AT..)?;
            let count = usize::from(rest.try_get_u16_le().ok()?);
            if count > MAX_STARTS {
                return None;
            }
            for _ in 0..count {
                starts.push(Start {
                    incarnation: rest.try_get_u64_le().ok()?,
                    token: rest.try_get_u64_le().ok()?,
                });
            }
            let mut marks = body.get(MARKS_AT..)?;
            let last = Start {
                incarnation: marks.try_get_u64_le().ok()?,
                token: marks.try_get_u64_le().ok()?,
            };
            let end = WalEnd {
                round: marks.try_get_u64_le().ok()?,
                prev_crc: marks.try_get_u32_le().ok()?,
            };
            let standing = StandingDamage {
                since: marks.try_get_u64_le().ok()?,
                ordered_below: marks.try_get_u64_le().ok()?,
            };
            heard = (flags & FLAG_HEARD != 0).then_some(last);
            wal_end = (flags & FLAG_WAL_END != 0).then_some(end);
            damage = (flags & FLAG_DAMAGE != 0).then_some(standing);
        }
        Some(Slot::Known(
            sequence,
            Self {
                directory_id: Uuid::from_bytes(directory),
                cluster_id: (flags & FLAG_CLUSTER != 0).then(|| Uuid::from_bytes(cluster)),
                node_id,
                incarnation,
                kernel_boot_id,
                clean: flags & FLAG_CLEAN != 0,
                starts,
                heard,
                wal_end,
                damage,
            },
        ))
    }
}

enum Slot {
    Known(u64, NodeIdentity),
    Other(u32),
}

/// The open file and what it says.
#[derive(Debug)]
pub(super) struct IdentityFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    sequence: u64,
    identity: NodeIdentity,
}

impl IdentityFile {
    /// Founds the file; durable with its name when this returns.
    pub(super) fn create(
        disk: &dyn Disk,
        path: &Path,
        identity: NodeIdentity,
    ) -> Result<Self, NodeError> {
        let aside = path.with_extension("new");
        if disk.exists(&aside).map_err(NodeError::io(&aside))? {
            disk.remove_file(&aside).map_err(NodeError::io(&aside))?;
        }
        let file = disk
            .open(&aside, OpenMode::CreateNew)
            .map_err(NodeError::io(&aside))?;
        let mut bytes = identity.encode(1);
        bytes.resize(
            usize::try_from(SLOT_SPACING_BYTES).unwrap_or(SLOT_BYTES) * 2,
            0,
        );
        file.write_all_at(&[std::io::IoSlice::new(&bytes)], 0)
            .map_err(NodeError::io(&aside))?;
        file.sync_data().map_err(NodeError::io(&aside))?;
        drop(file);
        disk.rename(&aside, path).map_err(NodeError::io(path))?;
        if let Some(dir) = path.parent() {
            disk.sync_dir(dir).map_err(NodeError::io(dir))?;
        }
        let file = disk
            .open(path, OpenMode::Existing)
            .map_err(NodeError::io(path))?;
        Ok(Self {
            file,
            path: path.to_path_buf(),
            sequence: 1,
            identity,
        })
    }

    /// Opens the file and reads the newer valid slot.
    pub(super) fn open(disk: &dyn Disk, path: &Path, mode: OpenMode) -> Result<Self, NodeError> {
        let file = disk.open(path, mode).map_err(NodeError::io(path))?;
        let mut newest: Option<(u64, NodeIdentity)> = None;
        let mut other = None;
        for slot in 0..2 {
            let mut bytes = vec![0; SLOT_BYTES];
            match file.read_exact_at(&mut bytes, slot * SLOT_SPACING_BYTES) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(NodeError::io(path)(error)),
            }
            match NodeIdentity::decode(&bytes) {
                Some(Slot::Known(sequence, identity))
                    if newest.as_ref().is_none_or(|(newest, _)| *newest < sequence) =>
                {
                    newest = Some((sequence, identity));
                }
                Some(Slot::Known(..)) | None => {}
                Some(Slot::Other(version)) => other = Some(version),
            }
        }
        if let Some(found) = other {
            return Err(NodeError::Version {
                path: path.to_path_buf(),
                found,
                known: VERSION,
            });
        }
        let Some((sequence, identity)) = newest else {
            return Err(NodeError::damaged(
                path,
                0,
                "neither slot has a good checksum",
            ));
        };
        Ok(Self {
            file,
            path: path.to_path_buf(),
            sequence,
            identity,
        })
    }

    pub(super) fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    /// Changes the identity; durable when this returns.
    pub(super) fn write(&mut self, identity: NodeIdentity) -> Result<(), NodeError> {
        let sequence = self.sequence + 1;
        let bytes = identity.encode(sequence);
        // Sequence 1 was written to slot 0.
        let offset = if sequence.is_multiple_of(2) {
            SLOT_SPACING_BYTES
        } else {
            0
        };
        self.file
            .write_all_at(&[std::io::IoSlice::new(&bytes)], offset)
            .map_err(NodeError::io(&self.path))?;
        self.file.sync_data().map_err(NodeError::io(&self.path))?;
        self.sequence = sequence;
        self.identity = identity;
        Ok(())
    }
}

/// One of the two slots of an identity file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySlot {
    /// Never written.
    Empty,
    /// Written and not readable, as a stop during a change leaves it. The other slot counts.
    Bad,
    /// Of a later format.
    OtherVersion(u32),
    /// Readable.
    Good {
        /// The slot with the greater one counts.
        sequence: u64,
        /// What it says.
        identity: NodeIdentity,
    },
}

/// Both slots of an identity file, each with its first byte, without changing anything.
pub fn read_identity_slots(
    disk: &dyn Disk,
    path: &Path,
) -> Result<[(u64, IdentitySlot); 2], NodeError> {
    let file = disk
        .open(path, OpenMode::ReadOnly)
        .map_err(NodeError::io(path))?;
    let mut slots = [
        (0, IdentitySlot::Empty),
        (SLOT_SPACING_BYTES, IdentitySlot::Empty),
    ];
    for (position, slot) in &mut slots {
        let mut bytes = vec![0; SLOT_BYTES];
        match file.read_exact_at(&mut bytes, *position) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                *slot = IdentitySlot::Bad;
                continue;
            }
            other => other.map_err(NodeError::io(path))?,
        }
        *slot = match NodeIdentity::decode(&bytes) {
            Some(Slot::Known(sequence, identity)) => IdentitySlot::Good { sequence, identity },
            Some(Slot::Other(version)) => IdentitySlot::OtherVersion(version),
            None if bytes.iter().all(|byte| *byte == 0) => IdentitySlot::Empty,
            None => IdentitySlot::Bad,
        };
    }
    Ok(slots)
}

/// Reads an identity file without changing anything.
pub fn read_identity(disk: &dyn Disk, path: &Path) -> Result<NodeIdentity, NodeError> {
    Ok(IdentityFile::open(disk, path, OpenMode::ReadOnly)?.identity)
}
