//! What a start must leave of the files that it found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every file of a data directory, by its path in it.
pub(crate) type Image = BTreeMap<PathBuf, Vec<u8>>;

/// Whether a file's bytes are what nobody can make again. What follows from other files may be written anew;
/// the node's own files are written over in place while it runs.
fn must_stay(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ends = [".log", ".aux"];
    ends.iter().any(|end| name.ends_with(end))
}

/// What a file says. The header of an `.aux` is the same in all of them, and is written again where it is bad.
fn said<'a>(path: &Path, bytes: &'a [u8]) -> &'a [u8] {
    let is_aux = path.to_string_lossy().ends_with(".aux");
    bytes.get(if is_aux { 8 } else { 0 }..).unwrap_or_default()
}

/// Whether a file of a replica that is not open says what no other one does for certain.
fn says_what_it_holds(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ends = [".raft", "log-start", ".snapshot"];
    ends.iter().any(|end| name.ends_with(end))
}

/// What of a data directory a start refused.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refused {
    /// All of it: the node did not start.
    pub(crate) node: bool,
    /// The directories of replicas that are not open.
    pub(crate) directories: Vec<PathBuf>,
}

/// Files whose bytes are nowhere any more: neither in their place, perhaps with more behind them, nor under
/// another name. Of a node that refused to start none may have changed at all, and of a replica that is not
/// open nothing that says what it holds.
pub(crate) fn lost_bytes(before: &Image, after: &Image, refused: &Refused) -> Vec<String> {
    let mut lost = Vec::new();
    for (path, bytes) in before {
        if path.ends_with("node/lock") || bytes.is_empty() {
            continue;
        }
        if refused.node {
            if after.get(path) != Some(bytes) {
                lost.push(format!("{} was changed", path.display()));
            }
            continue;
        }
        let is_closed = refused.directories.iter().any(|dir| path.starts_with(dir));
        let is_kept = must_stay(path) || is_closed && says_what_it_holds(path);
        if !is_kept {
            continue;
        }
        let has_it = |now: &Vec<u8>| said(path, now).starts_with(said(path, bytes));
        let stayed = after.get(path).is_some_and(has_it);
        if !stayed && !after.values().any(has_it) {
            lost.push(format!("the bytes of {} are gone", path.display()));
        }
    }
    lost
}
