//! The file system as the log sees it: one trait, a real disk and an in-memory one with faults.
//!
//! Everything above this module reads and writes through [`Disk`] and [`DiskFile`], so that the
//! simulator can lose what was not synced, tear what was being written and fail any call.
//! All calls are synchronous and may block; callers decide on which thread that happens.

mod lenient;
pub mod mem;
mod std;

use ::std::fmt::Debug;
use ::std::io::{self, IoSlice};
use ::std::path::{Path, PathBuf};
use ::std::sync::Arc;
use ::std::time::Duration;

use bytes::Bytes;

pub use lenient::LenientDisk;
pub use mem::MemDisk;
pub use std::StdDisk;

/// Whether an error is of the machine: it says nothing of the file that was asked for, and would meet any
/// other as well (R16).
#[must_use]
pub fn is_of_machine(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOMEM
                | libc::ENOSPC
                | libc::EDQUOT
                | libc::EROFS
                | libc::EACCES
                | libc::EPERM
        )
    ) || matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::PermissionDenied | io::ErrorKind::OutOfMemory
    )
}

/// Whether it is an error of the machine that may pass by itself: the process or the machine had too much open,
/// or no room.
#[must_use]
pub fn may_pass(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOSPC | libc::EDQUOT)
    ) || matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::OutOfMemory
    )
}

/// Whether an error is of one place in one file, as where a sector is bad: other places may be read all the
/// same (R16).
#[must_use]
pub fn is_of_one_place(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EUCLEAN))
}

/// How a file is opened. Files are always opened for reading and writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// The file must exist.
    Existing,
    /// The file is created if it is not there.
    Create,
    /// The file must not exist and is created.
    CreateNew,
    /// The file must exist and is opened for reading only.
    ReadOnly,
}

/// A directory entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name without its directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// A file system. Errors are the operating system's, unchanged.
pub trait Disk: Debug + Send + Sync {
    /// Opens a file. A created file's name is durable only after [`Disk::sync_dir`] of its directory.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a directory and its missing parents, and makes their names durable.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Lists a directory in name order.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Whether a file or directory of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Renames a file over any file of the new name. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Renames a file or directory to a name that nothing has: `AlreadyExists` where something does,
    /// and nothing is replaced. Durable after [`Disk::sync_dir`].
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Unlinks a file. Maps and slices of it stay valid. Durable after [`Disk::sync_dir`].
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with all that is in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable (fsync of the directory).
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes everything on the file system that holds `path` durable (syncfs).
    fn sync_all(&self, path: &Path) -> io::Result<()>;
    /// Bytes that can still be allocated on the file system that holds `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Takes the exclusive lock of a data directory by locking the file `path` (created if missing).
    /// It is held until the returned guard is dropped or the process ends.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// Time by a clock that never goes back. When it began means nothing.
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

/// An open file.
pub trait DiskFile: Debug + Send + Sync {
    /// The path that it was opened under.
    fn path(&self) -> &PathBuf;
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buf` from `offset`; an early end of file is `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// The same from the disk itself, whatever the cache holds. Where the file system cannot, it is
    /// [`DiskFile::read_exact_at`].
    fn read_past_cache(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }
    /// Writes all the slices one after another from `offset` (pwritev), extending the file.
    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes the bytes and the length durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts or extends (with zeros) the file. Never called to cut below what [`DiskFile::slice`]
    /// has handed out: touching a map beyond the end of its file ends the process.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves blocks for the first `len` bytes without changing the length
    /// (fallocate with KEEP_SIZE). Fails with `StorageFull` where there is no room.
    fn reserve(&self, len: u64) -> io::Result<()>;
    /// Allocates the first `len` bytes and extends the file to them.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// A read-only view of bytes that are written and will never be overwritten or cut while the
    /// view lives: on the real disk a slice of one map per file, made over `capacity` bytes at the
    /// first call. Out of the file's current length it is `UnexpectedEof`.
    fn slice(&self, offset: u64, len: usize) -> io::Result<Bytes>;
    /// How many of the bytes from `offset` on, `len` at most, a slice gives without waiting for the
    /// disk. They may be evicted at any time, so it says what is likely, not what is certain.
    fn resident(&self, offset: u64, len: usize) -> usize {
        let _ = offset;
        len
    }
    /// Reads bytes so that they are in memory. Waits for the disk.
    fn bring_in(&self, offset: u64, len: usize) -> io::Result<()> {
        let _ = (offset, len);
        Ok(())
    }
}
