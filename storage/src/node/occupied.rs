//! What lies in a data directory without an identity: founding is refused where anything of ours does,
//! and by nothing else. A file system's `lost+found`, or a file that somebody has left, is not ours.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use super::error::NodeError;
use super::side::parse_side_name;
use super::store::Shared;
use super::wal::chain::follow;
use super::wal::preamble::Preamble;
use super::{LOCK_FILE, WAL_FILE};
use crate::disk::{DirEntry, Disk, OpenMode};
use crate::format::{SegmentFile, partition_metadata};

/// The first thing of ours that is found; `None` where the directory may be founded. A founding that was
/// cut off has left a WAL without a record, or files that were not given their names yet.
pub(super) fn occupied_by(shared: &Shared) -> Result<Option<PathBuf>, NodeError> {
    let in_node =
        names(&*shared.disk, &shared.node_dir).map_err(NodeError::io(&shared.node_dir))?;
    for entry in in_node {
        let path = shared.node_dir.join(&entry.name);
        let is_ours = match entry.name.as_str() {
            LOCK_FILE => false,
            WAL_FILE => wal_has_records(shared, &path)?,
            name if name.ends_with(".new") => false,
            name => parse_side_name(name).is_some() || !entry.is_dir,
        };
        if is_ours {
            return Ok(Some(path));
        }
    }
    let in_data =
        names(&*shared.disk, &shared.data_dir).map_err(NodeError::io(&shared.data_dir))?;
    for entry in in_data.into_iter().filter(|entry| entry.is_dir) {
        let dir = shared.data_dir.join(&entry.name);
        if dir == shared.node_dir {
            continue;
        }
        let files = names(&*shared.disk, &dir).map_err(NodeError::io(&dir))?;
        let is_ours = |file: &&DirEntry| {
            SegmentFile::parse(&file.name).is_some() || file.name == partition_metadata::FILE_NAME
        };
        if let Some(file) = files.iter().find(is_ours) {
            return Ok(Some(dir.join(&file.name)));
        }
    }
    Ok(None)
}

/// What is in a directory; nothing where it may not be read, since we have made none of that kind.
fn names(disk: &dyn Disk, dir: &std::path::Path) -> io::Result<Vec<DirEntry>> {
    match disk.read_dir(dir) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
            ) =>
        {
            Ok(Vec::new())
        }
        other => other,
    }
}

/// Whether a WAL was ever written to. One that cannot be read was.
fn wal_has_records(shared: &Shared, path: &std::path::Path) -> Result<bool, NodeError> {
    let file = shared
        .disk
        .open(path, OpenMode::ReadOnly)
        .map_err(NodeError::io(path))?;
    let preamble = match Preamble::read(&*file, path) {
        Err(error @ NodeError::Io { .. }) => return Err(error),
        Err(_) => return Ok(true),
        Ok(preamble) => preamble,
    };
    let Ok(mark) = preamble.newest_mark(path) else {
        return Ok(true);
    };
    let chain =
        follow(&*file, preamble.geometry, mark.point, None, None).map_err(NodeError::io(path))?;
    Ok(mark.sequence > 1 || chain.seen_round > 0)
}
