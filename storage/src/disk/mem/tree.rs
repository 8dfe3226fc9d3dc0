//! The inodes of a disk in memory, and the paths that lead to them.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use super::super::{DirEntry, OpenMode};
use super::crash::CrashModel;
use super::dir::DirState;
use super::fault::Faults;
use super::file::FileState;
use super::rng::Rng;

const ROOT: usize = 0;
/// Unlinked inodes are looked for once there may be this many.
const SWEEP_EVERY: usize = 64;

/// A file or a directory.
#[derive(Debug, Clone)]
pub(super) enum Inode {
    Dir(DirState),
    File(FileState),
}

/// The whole disk.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) inodes: Vec<Option<Inode>>,
    free: Vec<usize>,
    unlinked: usize,
    pub(super) seq: u64,
    pub(super) horizon: Option<u64>,
    /// Syncs that are put off, where they are.
    pub(super) slow: Option<Vec<(usize, u64)>>,
    pub(super) capacity: u64,
    pub(super) used: u64,
    pub(super) faults: Faults,
    pub(super) failed_syncs_stick: bool,
    pub(super) locks: BTreeSet<PathBuf>,
    /// Raised by every crash; handles of an older one are dead.
    pub(super) generation: u64,
}

fn names_of(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    })
}

fn split(path: &Path) -> io::Result<(&Path, String)> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or(ErrorKind::InvalidInput)?;
    Ok((path.parent().unwrap_or(Path::new("")), name.to_owned()))
}

impl Tree {
    /// Notes a sync that takes effect later.
    pub(super) fn put_off(&mut self, inode: usize) {
        let seq = self.seq;
        if let Some(slow) = &mut self.slow {
            slow.push((inode, seq));
        }
    }

    pub(super) fn new() -> Self {
        Self {
            inodes: vec![Some(Inode::Dir(DirState::default()))],
            free: Vec::new(),
            unlinked: 0,
            seq: 0,
            horizon: None,
            slow: None,
            capacity: u64::MAX,
            used: 0,
            faults: Faults::default(),
            failed_syncs_stick: false,
            locks: BTreeSet::new(),
            generation: 0,
        }
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    fn inode(&self, id: usize) -> Option<&Inode> {
        self.inodes.get(id)?.as_ref()
    }

    fn dir(&self, id: usize) -> Option<&DirState> {
        match self.inode(id)? {
            Inode::Dir(dir) => Some(dir),
            Inode::File(_) => None,
        }
    }

    pub(super) fn find(&self, path: &Path) -> Option<usize> {
        let mut at = ROOT;
        for name in names_of(path) {
            at = *self.dir(at)?.names.get(name)?;
        }
        Some(at)
    }

    pub(super) fn dir_mut(&mut self, path: &Path) -> io::Result<&mut DirState> {
        let id = self.find(path).ok_or(ErrorKind::NotFound)?;
        match self.inodes.get_mut(id) {
            Some(Some(Inode::Dir(dir))) => Ok(dir),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file_mut(&mut self, id: usize) -> io::Result<&mut FileState> {
        match self.inodes.get_mut(id) {
            Some(Some(Inode::File(file))) => Ok(file),
            _ => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn add(&mut self, inode: Inode) -> usize {
        let Some(id) = self.free.pop() else {
            self.inodes.push(Some(inode));
            return self.inodes.len() - 1;
        };
        if let Some(place) = self.inodes.get_mut(id) {
            *place = Some(inode);
        }
        id
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<usize> {
        let (parent, name) = split(path)?;
        let found = self.dir_mut(parent)?.names.get(&name).copied();
        let id = match (found, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(ErrorKind::AlreadyExists.into()),
            (Some(id), _) => id,
            (None, OpenMode::Existing | OpenMode::ReadOnly) => {
                return Err(ErrorKind::NotFound.into());
            }
            (None, OpenMode::Create | OpenMode::CreateNew) => {
                let id = self.add(Inode::File(FileState::default()));
                let seq = self.next_seq();
                self.dir_mut(parent)?.change(seq, vec![(name, Some(id))]);
                id
            }
        };
        self.file_mut(id)?.handles += 1;
        Ok(id)
    }

    pub(super) fn close(&mut self, id: usize) {
        if let Ok(file) = self.file_mut(id) {
            file.handles = file.handles.saturating_sub(1);
        }
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut at = PathBuf::new();
        for name in names_of(path) {
            let missing = !self.dir_mut(&at)?.names.contains_key(name);
            if missing {
                let id = self.add(Inode::Dir(DirState::default()));
                let seq = self.next_seq();
                let parent = self.dir_mut(&at)?;
                parent.change(seq, vec![(name.to_owned(), Some(id))]);
                parent.sync(None);
            }
            at.push(name);
        }
        self.dir_mut(path).map(|_| ())
    }

    pub(super) fn read_dir(&mut self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let names = self.dir_mut(path)?.names.clone();
        Ok(names
            .into_iter()
            .map(|(name, id)| DirEntry {
                name,
                is_dir: self.dir(id).is_some(),
            })
            .collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.find(from).ok_or(ErrorKind::NotFound)?;
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from)?, split(to)?);
        self.dir_mut(to_dir)?;
        if let Some(over) = self.find(to)
            && over != id
        {
            self.release(over);
        }
        let seq = self.next_seq();
        if from_dir == to_dir {
            self.dir_mut(from_dir)?
                .change(seq, vec![(from_name, None), (to_name, Some(id))]);
        } else {
            self.dir_mut(to_dir)?.change(seq, vec![(to_name, Some(id))]);
            self.dir_mut(from_dir)?.change(seq, vec![(from_name, None)]);
        }
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: &Path, directory: bool) -> io::Result<()> {
        let id = self.find(path).ok_or(ErrorKind::NotFound)?;
        if self.dir(id).is_some() != directory {
            return Err(ErrorKind::InvalidInput.into());
        }
        self.release(id);
        let (parent, name) = split(path)?;
        let seq = self.next_seq();
        self.dir_mut(parent)?.change(seq, vec![(name, None)]);
        Ok(())
    }

    /// Gives back the room of an inode that loses its name, and of all below it.
    fn release(&mut self, id: usize) {
        self.unlinked += 1;
        match self.inode(id) {
            Some(Inode::File(file)) => self.used = self.used.saturating_sub(file.allocated()),
            Some(Inode::Dir(dir)) => {
                let below: Vec<usize> = dir.names.values().copied().collect();
                below.into_iter().for_each(|id| self.release(id));
            }
            None => {}
        }
    }

    /// Makes a change that may need room, and accounts for it.
    pub(super) fn account(
        &mut self,
        id: usize,
        run: impl FnOnce(&mut FileState) -> io::Result<()>,
    ) -> io::Result<()> {
        let file = self.file_mut(id)?;
        let before = file.allocated();
        let done = run(file);
        let after = file.allocated();
        self.used = (self.used + after).saturating_sub(before);
        done
    }

    /// Takes room for the first `end` bytes of a file, or fails with `StorageFull`.
    pub(super) fn grow(&mut self, id: usize, end: u64, reserve: bool) -> io::Result<()> {
        let file = self.file_mut(id)?;
        let before = file.allocated();
        if end > before {
            let free = self.capacity.saturating_sub(self.used);
            if end - before > free {
                return Err(ErrorKind::StorageFull.into());
            }
            self.used += end - before;
            if reserve {
                self.file_mut(id)?.reserved = end;
            }
        }
        Ok(())
    }

    pub(super) fn flip(&mut self, path: &Path, offset: u64, bit: u8) -> bool {
        let Ok(offset) = usize::try_from(offset) else {
            return false;
        };
        let Some(id) = self.find_durable(path) else {
            return false;
        };
        self.file_mut(id).is_ok_and(|file| file.flip(offset, bit))
    }

    /// The durable image of a file.
    pub(super) fn image(&mut self, path: &Path) -> Option<Vec<u8>> {
        let id = self.find_durable(path)?;
        Some(self.file_mut(id).ok()?.durable_image().to_vec())
    }

    /// Puts another image in the place of a file's durable one; false when there is no such file.
    pub(super) fn put_image(&mut self, path: &Path, bytes: Vec<u8>) -> bool {
        let Some(id) = self.find_durable(path) else {
            return false;
        };
        self.file_mut(id).is_ok_and(|file| {
            file.put_durable_image(bytes);
            true
        })
    }

    /// Takes a file's or directory's durable name away; false when it has none.
    pub(super) fn lose_name(&mut self, path: &Path) -> bool {
        let Ok((parent, name)) = split(path) else {
            return false;
        };
        let Some(id) = self.find_durable(parent) else {
            return false;
        };
        match self.inodes.get_mut(id) {
            Some(Some(Inode::Dir(dir))) => dir.durable.remove(&name).is_some(),
            _ => false,
        }
    }

    fn find_durable(&self, path: &Path) -> Option<usize> {
        let mut at = ROOT;
        for name in names_of(path) {
            at = *self.dir(at)?.durable.get(name)?;
        }
        Some(at)
    }

    pub(super) fn durable_files(&self) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        let mut todo = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, id)) = todo.pop() {
            match self.inode(id) {
                Some(Inode::Dir(dir)) => {
                    todo.extend(dir.durable.iter().map(|(name, id)| (path.join(name), *id)));
                }
                Some(Inode::File(file)) => files.push((path, file.durable_len() as u64)),
                None => {}
            }
        }
        files.sort_unstable();
        files
    }

    pub(super) fn crash(&mut self, seed: u64, model: &CrashModel) {
        let mut rng = Rng::new(seed);
        for inode in self.inodes.iter_mut().flatten() {
            match inode {
                Inode::Dir(dir) => dir.crash(&mut rng, model),
                Inode::File(file) => file.crash(&mut rng, model),
            }
        }
        self.reopen();
    }

    pub(super) fn restore(&mut self, inodes: Vec<Option<Inode>>) {
        self.inodes = inodes;
        for inode in self.inodes.iter_mut().flatten() {
            if let Inode::File(file) = inode {
                file.handles = 0;
            }
        }
        self.reopen();
    }

    /// Kills the handles and locks, and counts again.
    fn reopen(&mut self) {
        self.generation += 1;
        self.locks.clear();
        self.horizon = None;
        self.unlinked = usize::MAX / 2;
        self.sweep();
        let mut todo = vec![ROOT];
        self.used = 0;
        while let Some(id) = todo.pop() {
            match self.inode(id) {
                Some(Inode::Dir(dir)) => todo.extend(dir.names.values()),
                Some(Inode::File(file)) => self.used += file.allocated(),
                None => {}
            }
        }
    }

    /// Forgets the inodes that nothing leads to any more.
    pub(super) fn sweep(&mut self) {
        if self.unlinked < SWEEP_EVERY {
            return;
        }
        self.unlinked = 0;
        let mut reached = vec![false; self.inodes.len()];
        let mut todo = vec![ROOT];
        while let Some(id) = todo.pop() {
            match reached.get_mut(id) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            if let Some(dir) = self.dir(id) {
                todo.extend(dir.names.values().chain(dir.durable.values()));
                let pending = dir.pending.iter().flat_map(|(_, change)| change);
                todo.extend(pending.filter_map(|(_, id)| *id));
            }
        }
        self.free.clear();
        for (id, (inode, reached)) in self.inodes.iter_mut().zip(reached).enumerate() {
            let open = matches!(inode, Some(Inode::File(file)) if file.handles > 0);
            if !reached && !open {
                *inode = None;
                self.free.push(id);
            }
        }
    }
}
