//! Side files: the WAL's entries of a group whose log cannot be synced, so that one fenced
//! partition does not keep the whole ring from being used again (W6).
//!
//! ```text
//! name: fenced-<group>-<number>, little endian
//!  0  magic "RRFENCED"   8  version u32   12  crc32 u32 of all bytes from 16 on
//! 16  group u64         24  number u64    32  count of entries u64
//! 40  per entry: length u32, then the body of a WAL entry record (see the WAL)
//! ```
//! Written aside, synced, renamed, directory synced, before the state record that names it.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};

use super::error::NodeError;
use super::wal::preamble::to_usize;
use super::wal::record::{ENTRY_BODY_BYTES, decode_entry, encode_entry};
use crate::disk::{Disk, OpenMode};
use crate::entry::LogEntry;

/// The first bytes of a side file.
pub const MAGIC: &[u8; 8] = b"RRFENCED";
const VERSION: u32 = 1;
const PREFIX: &str = "fenced-";

/// A side file's path.
pub(super) fn side_path(node_dir: &Path, group: u64, number: u64) -> PathBuf {
    node_dir.join(format!("{PREFIX}{group}-{number}"))
}

/// The group and number of a side file's name.
#[must_use]
pub fn parse_side_name(name: &str) -> Option<(u64, u64)> {
    let (group, number) = name.strip_prefix(PREFIX)?.split_once('-')?;
    Some((group.parse().ok()?, number.parse().ok()?))
}

/// Writes a side file; durable with its name when this returns.
pub(super) fn write_side<'a>(
    disk: &dyn Disk,
    node_dir: &Path,
    group: u64,
    number: u64,
    entries: impl ExactSizeIterator<Item = &'a LogEntry>,
) -> Result<(), NodeError> {
    let path = side_path(node_dir, group, number);
    let aside = path.with_extension("new");
    let mut body = Vec::new();
    body.put_u64_le(group);
    body.put_u64_le(number);
    body.put_u64_le(entries.len() as u64);
    for entry in entries {
        let length = ENTRY_BODY_BYTES + entry.payload.len();
        body.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
        encode_entry(entry, &mut body);
        body.put_slice(&entry.payload);
    }
    let mut head = Vec::with_capacity(16);
    head.put_slice(MAGIC);
    head.put_u32_le(VERSION);
    head.put_u32_le(crc32fast::hash(&body));
    let written = (|| {
        if disk.exists(&aside)? {
            disk.remove_file(&aside)?;
        }
        let file = disk.open(&aside, OpenMode::CreateNew)?;
        file.write_all_at(&[IoSlice::new(&head), IoSlice::new(&body)], 0)?;
        file.sync_data()?;
        drop(file);
        disk.rename(&aside, &path)?;
        disk.sync_dir(node_dir)
    })();
    written.map_err(NodeError::io(&path))
}

/// Reads a side file. One that is missing counts as damaged, as a durable record names it.
pub fn read_side(disk: &dyn Disk, path: &Path) -> Result<Vec<LogEntry>, NodeError> {
    let file = match disk.open(path, OpenMode::ReadOnly) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(NodeError::damaged(path, 0, "the file is missing"));
        }
        Err(error) => return Err(NodeError::io(path)(error)),
    };
    let len = file.len().map_err(NodeError::io(path))?;
    let mut bytes = vec![0; to_usize(len)];
    file.read_exact_at(&mut bytes, 0)
        .map_err(NodeError::io(path))?;
    let mut rest = Bytes::from(bytes);
    let mut magic = [0; 8];
    let head = rest
        .try_copy_to_slice(&mut magic)
        .and_then(|()| Ok((rest.try_get_u32_le()?, rest.try_get_u32_le()?)));
    match head {
        Ok((_, crc)) if &magic != MAGIC || crc32fast::hash(&rest) != crc => {
            return Err(NodeError::damaged(path, 0, "magic or checksum is wrong"));
        }
        Ok((VERSION, _)) => {}
        Ok((found, _)) => {
            return Err(NodeError::Version {
                path: path.to_path_buf(),
                found,
                known: VERSION,
            });
        }
        Err(_) => return Err(NodeError::damaged(path, 0, "the file is short")),
    }
    decode(rest).ok_or_else(|| NodeError::damaged(path, 16, "an entry is not well formed"))
}

fn decode(mut rest: Bytes) -> Option<Vec<LogEntry>> {
    rest.try_get_u64_le().ok()?;
    rest.try_get_u64_le().ok()?;
    let count = rest.try_get_u64_le().ok()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let length = to_usize(u64::from(rest.try_get_u32_le().ok()?));
        if length > rest.len() {
            return None;
        }
        entries.push(decode_entry(rest.split_to(length))?);
    }
    rest.is_empty().then_some(entries)
}
