//! Setting a whole data directory aside by an operator's order: everything in it is renamed into a directory
//! of its own within it, so that a new node may begin where it lay. Nothing is deleted.

use std::path::{Path, PathBuf};

use super::NODE_DIR;
use super::error::NodeError;
use super::store::take_lock;
use crate::disk::{DirEntry, Disk};

/// What the directories are called that hold what was set aside, before their number.
pub const PREFIX: &str = "set-aside-";

/// A data directory that is to be set aside, locked until then.
#[expect(missing_debug_implementations, reason = "a lock has nothing to show")]
pub struct Retirement {
    data: PathBuf,
    /// What is to be moved, in name order.
    pub entries: Vec<DirEntry>,
    /// Where it goes.
    pub to: PathBuf,
    _lock: Box<dyn Send + Sync>,
}

impl Retirement {
    /// Takes the directory's lock and looks what is to be moved; nothing where there is nothing.
    ///
    /// # Errors
    /// `Locked` where a node runs on it; I/O errors.
    pub fn plan(disk: &dyn Disk, data: &Path) -> Result<Option<Self>, NodeError> {
        let node = data.join(NODE_DIR);
        let found = disk.read_dir(data).map_err(NodeError::io(data))?;
        // Without `node/` there is no lock that a node could hold: one that starts makes it first.
        if !found.iter().any(|entry| entry.name == NODE_DIR) {
            disk.create_dir_all(&node).map_err(NodeError::io(&node))?;
        }
        let held = take_lock(disk, &node)?;
        let goes =
            |entry: &&DirEntry| !entry.name.starts_with(PREFIX) && entry.name != "lost+found";
        let entries: Vec<DirEntry> = found.iter().filter(goes).cloned().collect();
        if entries.is_empty() {
            return Ok(None);
        }
        let numbers = found
            .iter()
            .filter_map(|entry| entry.name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        let number = numbers.max().unwrap_or(0) + 1;
        Ok(Some(Self {
            data: data.to_owned(),
            entries,
            to: data.join(format!("{PREFIX}{number}")),
            _lock: held,
        }))
    }

    /// Moves it, durably. `node/` goes last: a call that is cut off leaves a directory that still refuses to
    /// be founded over, and the next call goes on.
    ///
    /// # Errors
    /// I/O errors.
    pub fn carry_out(&self, disk: &dyn Disk) -> Result<(), NodeError> {
        disk.create_dir_all(&self.to)
            .map_err(NodeError::io(&self.to))?;
        let (last, first): (Vec<_>, Vec<_>) = self
            .entries
            .iter()
            .partition(|entry| entry.name == NODE_DIR);
        for part in [first, last] {
            for entry in part {
                let from = self.data.join(&entry.name);
                disk.rename_new(&from, &self.to.join(&entry.name))
                    .map_err(NodeError::io(&from))?;
            }
            for dir in [&self.to, &self.data] {
                disk.sync_dir(dir).map_err(NodeError::io(dir))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::path::Path;

    use super::Retirement;
    use crate::disk::mem::CrashModel;
    use crate::disk::{Disk, MemDisk, OpenMode};

    fn names(disk: &MemDisk, dir: &str) -> Vec<String> {
        let entries = disk.read_dir(Path::new(dir)).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn everything_is_moved_durably_and_what_was_moved_before_stays() {
        let disk = MemDisk::new();
        for dir in ["/data/node", "/data/abc-0", "/data/lost+found"] {
            disk.create_dir_all(Path::new(dir)).unwrap();
        }
        disk.open(Path::new("/data/abc-0/0.log"), OpenMode::CreateNew)
            .unwrap();
        disk.sync_dir(Path::new("/data/abc-0")).unwrap();
        for number in [1, 2] {
            let plan = Retirement::plan(&disk, Path::new("/data"))
                .unwrap()
                .unwrap();
            assert!(
                Retirement::plan(&disk, Path::new("/data")).is_err(),
                "it is locked"
            );
            plan.carry_out(&disk).unwrap();
            drop(plan);
            disk.crash(number, &CrashModel::LOSE_ALL);
            let to = format!("/data/set-aside-{number}");
            assert_eq!(names(&disk, &to), ["abc-0", "node"]);
            for dir in ["/data/node", "/data/abc-0"] {
                disk.create_dir_all(Path::new(dir)).unwrap();
            }
        }
        assert_eq!(names(&disk, "/data/set-aside-1/abc-0"), ["0.log"]);
        assert_eq!(
            names(&disk, "/data"),
            ["abc-0", "lost+found", "node", "set-aside-1", "set-aside-2"]
        );
    }
}
