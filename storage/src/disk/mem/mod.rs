//! A file system in memory that fails as disks do, the same way for the same seed.
//!
//! Every file has two images: what reads see and what is durable; every directory two lists of
//! names. [`MemDisk::crash`] loses power: of what was not synced, each sector and each name is kept,
//! lost or torn on its own. A failed sync never makes durable what it was asked for, though reads
//! go on seeing it (W8). Which calls fail, and how much room there is, can be set.

mod crash;
mod dir;
mod fault;
mod file;
mod rng;
mod tree;

use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

pub use crash::CrashModel;
pub use fault::{Operation, Times};

use super::{DirEntry, Disk, DiskFile, OpenMode};
use tree::{Inode, Tree};

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct MemDisk {
    tree: Arc<Mutex<Tree>>,
    /// Nanoseconds by its clock, which the owner sets.
    now: Arc<AtomicU64>,
}

/// A copy of a disk, to which it can be rolled back.
#[derive(Debug, Clone)]
pub struct MemSnapshot {
    inodes: Vec<Option<Inode>>,
}

/// Syncs that were called and have not ended, see [`MemDisk::begin_slow_syncs`].
#[derive(Debug)]
pub struct SlowSyncs {
    /// What was synced, and the last change that it covers.
    inodes: Vec<(usize, u64)>,
    generation: u64,
}

impl Default for MemDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemDisk {
    /// An empty disk without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tree: Arc::new(Mutex::new(Tree::new())),
            now: Arc::default(),
        }
    }

    /// The same disk as the rest of the crate takes it.
    #[must_use]
    pub fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Loses power. What is left is what was synced and, of the rest, what the seed and the model
    /// say. Every open handle and every lock is dead afterwards.
    pub fn crash(&self, seed: u64, model: &CrashModel) {
        self.tree.lock().crash(seed, model);
    }

    /// Limits what a sync makes durable to changes with a sequence number up to `horizon`: those
    /// that had been made when a flush began that takes time. None: all of them.
    pub fn sync_horizon(&self, horizon: Option<u64>) {
        self.tree.lock().horizon = horizon;
    }

    /// From now on syncs succeed at once and make durable what they would only when their list is
    /// handed to [`MemDisk::finish_syncs`]: syncs that take time. A crash before that forgets them.
    pub fn begin_slow_syncs(&self) {
        self.tree.lock().slow = Some(Vec::new());
    }

    /// The syncs since [`MemDisk::begin_slow_syncs`]; later ones take effect at once again.
    #[must_use]
    pub fn take_slow_syncs(&self) -> SlowSyncs {
        let mut tree = self.tree.lock();
        let inodes = tree.slow.take().unwrap_or_default();
        SlowSyncs {
            inodes,
            generation: tree.generation,
        }
    }

    /// Makes durable what the listed syncs were called for.
    pub fn finish_syncs(&self, syncs: SlowSyncs) {
        let mut tree = self.tree.lock();
        if tree.generation != syncs.generation {
            return;
        }
        for (inode, seq) in syncs.inodes {
            match tree.inodes.get_mut(inode) {
                Some(Some(Inode::Dir(dir))) => dir.sync(Some(seq)),
                Some(Some(Inode::File(file))) => file.sync(Some(seq)),
                _ => {}
            }
        }
        tree.sweep();
    }

    /// The sequence number of the last change.
    #[must_use]
    pub fn write_seq(&self) -> u64 {
        self.tree.lock().seq
    }

    /// Sets the room of the disk in bytes. Less than is used: nothing more is taken.
    pub fn set_capacity(&self, bytes: u64) {
        self.tree.lock().capacity = bytes;
    }

    /// Bytes that are used or reserved.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.tree.lock().used
    }

    /// Makes matching calls fail with EIO. Returns the fault's number.
    pub fn fail(
        &self,
        operation: Operation,
        times: Times,
        matches: impl Fn(&Path) -> bool + Send + Sync + 'static,
    ) -> u64 {
        self.fail_with(operation, times, libc::EIO, matches)
    }

    /// The same with another error of the operating system.
    pub fn fail_with(
        &self,
        operation: Operation,
        times: Times,
        errno: i32,
        matches: impl Fn(&Path) -> bool + Send + Sync + 'static,
    ) -> u64 {
        self.tree
            .lock()
            .faults
            .arm(operation, times, errno, Box::new(matches))
    }

    /// From now on a file whose sync fails takes nothing more: later syncs of it succeed and make
    /// nothing durable, as when its blocks were given in the flush that failed and never count as
    /// written. Only a new file helps (W8).
    pub fn failed_syncs_stick(&self, stick: bool) {
        self.tree.lock().failed_syncs_stick = stick;
    }

    /// Makes every read of some bytes of a file fail with EIO, as where a sector is bad, until they are written
    /// again. False when there is no such file.
    #[must_use]
    pub fn refuse(&self, path: &Path, from: u64, len: usize) -> bool {
        let mut tree = self.tree.lock();
        let Some(inode) = tree.find(path) else {
            return false;
        };
        let (Ok(from), Ok(file)) = (to_usize(from), tree.file_mut(inode)) else {
            return false;
        };
        file.refuse(from, from.saturating_add(len));
        true
    }

    /// Takes one fault out.
    pub fn clear_fault(&self, id: u64) {
        self.tree.lock().faults.disarm(id);
    }

    /// Takes all faults out.
    pub fn clear_faults(&self) {
        self.tree.lock().faults.disarm_all();
    }

    /// Flips a bit of a file's durable image. It is seen after the next crash. False when the file
    /// has no such durable byte.
    #[must_use]
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> bool {
        self.tree.lock().flip(path, offset, bit)
    }

    /// A file's durable image: what a loss of power would leave of what was synced.
    #[must_use]
    pub fn durable_image(&self, path: &Path) -> Option<Vec<u8>> {
        self.tree.lock().image(path)
    }

    /// Puts another image in the place of a file's durable one: bytes that rot, a copy that is put back. It
    /// is seen after the next crash. False when there is no such file.
    #[must_use]
    pub fn put_durable_image(&self, path: &Path, bytes: Vec<u8>) -> bool {
        self.tree.lock().put_image(path, bytes)
    }

    /// Takes the durable name of a file or directory away. It is seen after the next crash. False when it
    /// has none.
    #[must_use]
    pub fn lose_name(&self, path: &Path) -> bool {
        self.tree.lock().lose_name(path)
    }

    /// Every file that has a durable name, with the length of its durable image.
    #[must_use]
    pub fn durable_files(&self) -> Vec<(PathBuf, u64)> {
        self.tree.lock().durable_files()
    }

    /// Empties the disk: it was replaced by a new one.
    pub fn wipe(&self) {
        self.tree
            .lock()
            .restore(vec![Some(Inode::Dir(dir::DirState::default()))]);
    }

    /// Sets the clock.
    pub fn set_now(&self, now: Duration) {
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.now.store(nanos, Ordering::Relaxed);
    }

    /// Copies the disk as it is.
    #[must_use]
    pub fn snapshot(&self) -> MemSnapshot {
        MemSnapshot {
            inodes: self.tree.lock().inodes.clone(),
        }
    }

    /// Rolls the disk back to a copy: a disk restored from a backup. What the copy had not synced
    /// yet is as little durable as it was then.
    pub fn restore(&self, snapshot: &MemSnapshot) {
        self.tree.lock().restore(snapshot.inodes.clone());
    }
}

impl Disk for MemDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut tree = self.tree.lock();
        tree.faults.strike(Operation::Open, path)?;
        let creates = matches!(mode, OpenMode::Create | OpenMode::CreateNew);
        if creates && tree.find(path).is_none() {
            tree.faults.strike(Operation::Create, path)?;
        }
        let inode = tree.open(path, mode)?;
        Ok(Arc::new(MemFile {
            tree: Arc::clone(&self.tree),
            path: path.to_path_buf(),
            inode,
            generation: tree.generation,
            read_only: mode == OpenMode::ReadOnly,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        // Its parent is synced, and opened for that.
        tree.faults.strike(Operation::Open, path)?;
        if tree.find(path).is_none() {
            tree.faults.strike(Operation::Create, path)?;
        }
        tree.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut tree = self.tree.lock();
        tree.faults.strike(Operation::Open, path)?;
        tree.read_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut tree = self.tree.lock();
        tree.faults.strike(Operation::Look, path)?;
        Ok(tree.find(path).is_some())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        tree.faults.strike(Operation::Rename, from)?;
        tree.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        tree.faults.strike(Operation::Rename, from)?;
        if tree.find(to).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        tree.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        tree.faults.strike(Operation::Rename, path)?;
        tree.unlink(path, false)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.tree.lock().unlink(path, true)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        tree.faults.strike(Operation::Open, path)?;
        tree.faults.strike(Operation::SyncDir, path)?;
        if tree.slow.is_some() {
            let inode = tree.find(path).ok_or(ErrorKind::NotFound)?;
            tree.put_off(inode);
            return Ok(());
        }
        let horizon = tree.horizon;
        tree.dir_mut(path)?.sync(horizon);
        tree.sweep();
        Ok(())
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        tree.faults.strike(Operation::Open, path)?;
        tree.faults.strike(Operation::Sync, path)?;
        if tree.slow.is_some() {
            (0..tree.inodes.len()).for_each(|inode| tree.put_off(inode));
            return Ok(());
        }
        let horizon = tree.horizon;
        for inode in tree.inodes.iter_mut().flatten() {
            match inode {
                Inode::Dir(dir) => dir.sync(horizon),
                Inode::File(file) => file.sync(horizon),
            }
        }
        tree.sweep();
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let tree = self.tree.lock();
        Ok(tree.capacity.saturating_sub(tree.used))
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.now.load(Ordering::Relaxed))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut tree = self.tree.lock();
        let generation = tree.generation;
        if tree.find(path).is_none() {
            tree.open(path, OpenMode::Create)?;
        }
        if !tree.locks.insert(path.to_path_buf()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemLock {
            tree: Arc::clone(&self.tree),
            path: path.to_path_buf(),
            generation,
        }))
    }
}

/// A held lock.
struct MemLock {
    tree: Arc<Mutex<Tree>>,
    path: PathBuf,
    generation: u64,
}

impl Drop for MemLock {
    fn drop(&mut self) {
        let mut tree = self.tree.lock();
        if tree.generation == self.generation {
            tree.locks.remove(&self.path);
        }
    }
}

/// An open file. After a crash of the disk every call fails.
#[derive(Debug)]
struct MemFile {
    tree: Arc<Mutex<Tree>>,
    path: PathBuf,
    inode: usize,
    generation: u64,
    read_only: bool,
}

impl MemFile {
    fn with<T>(
        &self,
        operation: Option<Operation>,
        run: impl FnOnce(&mut Tree) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut tree = self.tree.lock();
        if tree.generation != self.generation {
            return Err(io::Error::other("the disk crashed under this handle"));
        }
        if let Some(operation) = operation {
            if self.read_only && !matches!(operation, Operation::Read | Operation::Sync) {
                return Err(io::Error::from_raw_os_error(libc::EBADF));
            }
            tree.faults.strike(operation, &self.path)?;
        }
        run(&mut tree)
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        let mut tree = self.tree.lock();
        if tree.generation == self.generation {
            tree.close(self.inode);
        }
    }
}

fn to_usize(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(|_| ErrorKind::FileTooLarge.into())
}

impl DiskFile for MemFile {
    fn path(&self) -> &PathBuf {
        &self.path
    }

    fn len(&self) -> io::Result<u64> {
        self.with(None, |tree| {
            Ok(tree.file_mut(self.inode)?.cached.len() as u64)
        })
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(Some(Operation::Read), |tree| {
            let offset = to_usize(offset)?;
            let file = tree.file_mut(self.inode)?;
            if file.refuses(offset, buf.len()) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            let bytes = offset
                .checked_add(buf.len())
                .and_then(|end| file.cached.get(offset..end));
            buf.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn read_past_cache(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(Some(Operation::Read), |tree| {
            let offset = to_usize(offset)?;
            let file = tree.file_mut(self.inode)?;
            if file.refuses(offset, buf.len()) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            let image = file.at_rest();
            let bytes = offset
                .checked_add(buf.len())
                .and_then(|end| image.get(offset..end));
            buf.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.with(Some(Operation::Write), |tree| {
            let offset = to_usize(offset)?;
            let len = bufs.iter().map(|buf| buf.len()).sum();
            if len == 0 {
                return Ok(());
            }
            tree.grow(self.inode, (offset + len) as u64, false)?;
            let mut bytes = Vec::with_capacity(len);
            bufs.iter().for_each(|buf| bytes.extend_from_slice(buf));
            let seq = tree.next_seq();
            tree.file_mut(self.inode)?.write(seq, offset, bytes);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.with(Some(Operation::Sync), |tree| {
            if tree.slow.is_some() {
                tree.put_off(self.inode);
                return Ok(());
            }
            let horizon = tree.horizon;
            tree.file_mut(self.inode)?.sync(horizon);
            Ok(())
        });
        if synced.is_err() {
            let mut tree = self.tree.lock();
            if tree.generation == self.generation {
                let sticks = tree.failed_syncs_stick;
                tree.file_mut(self.inode)?.fail_sync(sticks);
            }
        }
        synced
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(Some(Operation::SetLen), |tree| {
            let seq = tree.next_seq();
            let len = to_usize(len)?;
            tree.account(self.inode, |file| {
                file.set_len(seq, len);
                Ok(())
            })
        })
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.with(Some(Operation::Reserve), |tree| {
            tree.grow(self.inode, len, true)
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.with(Some(Operation::Reserve), |tree| {
            tree.grow(self.inode, len, true)?;
            let seq = tree.next_seq();
            let len = to_usize(len)?;
            let file = tree.file_mut(self.inode)?;
            if file.cached.len() < len {
                file.set_len(seq, len);
            }
            Ok(())
        })
    }

    fn slice(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.with(Some(Operation::Read), |tree| {
            let offset = to_usize(offset)?;
            let file = tree.file_mut(self.inode)?;
            if file.refuses(offset, len) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            let bytes = offset
                .checked_add(len)
                .and_then(|end| file.cached.get(offset..end));
            Ok(Bytes::copy_from_slice(
                bytes.ok_or(ErrorKind::UnexpectedEof)?,
            ))
        })
    }
}

#[cfg(test)]
mod tests;
