//! Setting a whole data directory aside by an operator's order: everything in it is renamed into a directory
//! of its own within it, so that a new node may begin where it lay. Nothing is deleted.

use std::path::{Path, PathBuf};

use super::error::NodeError;
use super::store::take_lock;
use super::{LOCK_FILE, NODE_DIR};
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
    /// Held from the plan on where there is a lock file.
    lock: Option<Box<dyn Send + Sync>>,
}

impl Retirement {
    /// Looks what is to be moved; nothing where there is nothing. Writes nothing: where there is a lock file it
    /// takes the directory's lock.
    ///
    /// # Errors
    /// `Locked` where a node runs on it; I/O errors.
    pub fn plan(disk: &dyn Disk, data: &Path) -> Result<Option<Self>, NodeError> {
        let node = data.join(NODE_DIR);
        let found = disk.read_dir(data).map_err(NodeError::io(data))?;
        let file = node.join(LOCK_FILE);
        // Without it there is no lock that a node could hold: one that starts makes it first.
        let lock = match disk.exists(&file).map_err(NodeError::io(&file))? {
            true => Some(take_lock(disk, &node)?),
            false => None,
        };
        let entries = entries_of(&found);
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
            lock,
        }))
    }

    /// Moves it, durably. `node/` goes last: a call that is cut off leaves a directory that still refuses to
    /// be founded over, and the next call goes on.
    ///
    /// # Errors
    /// `Locked` where a node runs on it, `Misuse` where it has changed since the plan; I/O errors.
    pub fn carry_out(&self, disk: &dyn Disk) -> Result<(), NodeError> {
        let _late = match &self.lock {
            Some(_) => None,
            None => Some(self.lock_late(disk)?),
        };
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

impl Retirement {
    /// Takes the lock that a node could not have held when the plan was made.
    fn lock_late(&self, disk: &dyn Disk) -> Result<Box<dyn Send + Sync>, NodeError> {
        let node = self.data.join(NODE_DIR);
        disk.create_dir_all(&node).map_err(NodeError::io(&node))?;
        let lock = take_lock(disk, &node)?;
        let found = disk
            .read_dir(&self.data)
            .map_err(NodeError::io(&self.data))?;
        let mut now = entries_of(&found);
        if !self.entries.iter().any(|entry| entry.name == NODE_DIR) {
            now.retain(|entry| entry.name != NODE_DIR);
        }
        if now == self.entries {
            return Ok(lock);
        }
        Err(NodeError::Misuse {
            group: 0,
            what: "the directory has changed since it was looked at: call again",
        })
    }
}

/// What is to be moved of what is there.
fn entries_of(found: &[DirEntry]) -> Vec<DirEntry> {
    let goes = |entry: &&DirEntry| !entry.name.starts_with(PREFIX) && entry.name != "lost+found";
    found.iter().filter(goes).cloned().collect()
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
    fn a_plan_writes_nothing() {
        let disk = MemDisk::new();
        for (held, dir) in ["/data/abc-0", "/data/node"].into_iter().enumerate() {
            disk.create_dir_all(Path::new(dir)).unwrap();
            let plan = Retirement::plan(&disk, Path::new("/data"))
                .unwrap()
                .unwrap();
            assert_eq!(plan.entries.len(), 1 + held);
            let here: &[&str] = if held == 0 {
                &["abc-0"]
            } else {
                assert_eq!(names(&disk, "/data/node"), [""; 0]);
                &["abc-0", "node"]
            };
            assert_eq!(names(&disk, "/data"), here);
        }
        let plan = Retirement::plan(&disk, Path::new("/data"))
            .unwrap()
            .unwrap();
        disk.create_dir_all(Path::new("/data/other-0")).unwrap();
        assert!(plan.carry_out(&disk).is_err(), "it has changed");
        assert_eq!(names(&disk, "/data"), ["abc-0", "node", "other-0"]);
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
            let lock = disk.open(Path::new("/data/node/lock"), OpenMode::CreateNew);
            drop(lock.unwrap());
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
