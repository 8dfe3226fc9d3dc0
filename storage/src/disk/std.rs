//! The real file system.
//!
//! The only place of the project that contains `unsafe`: one read-only map per file, handed out as
//! [`Bytes`], and the question which of its pages are in memory. Everything is written with
//! `pwritev`, never through a map.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use memmap2::MmapOptions;
use parking_lot::{Mutex, RwLock};
use rustix::fs::{
    Advice, CWD, FallocateFlags, FlockOperation, RenameFlags, fadvise, fallocate, flock,
    renameat_with, statvfs, syncfs,
};
use rustix::process::{Resource, getrlimit};

use super::{DirEntry, Disk, DiskFile, OpenMode};
use crate::descriptors::Shares;

/// Most slices that one `pwritev` takes (`IOV_MAX` of Linux).
const MAX_SLICES: usize = 1024;
/// The least that a map spans, so that a file that was never reserved is not mapped anew for each
/// page that it grows. Address space costs nothing.
const MIN_MAP_BYTES: u64 = 1 << 20;

/// Pages that one call asks about.
const PAGES_A_CALL: usize = 1024;
/// What memory, place and length of a read past the cache are multiples of.
const DIRECT_BLOCK: usize = 4096;
/// Bytes of one read past the cache.
const DIRECT_BYTES: usize = 256 << 10;
/// Bytes that are brought into memory with one read.
const BRING_IN_BYTES: usize = 64 << 10;

/// Bytes of a page of memory.
#[expect(
    unsafe_code,
    reason = "the call has no safe wrapper in what is used here"
)]
static PAGE_BYTES: LazyLock<usize> = LazyLock::new(|| {
    // SAFETY: it takes a number and returns one.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
});

/// How many bytes from the first on are in memory, of a slice of a map.
#[expect(unsafe_code, reason = "mincore has no safe wrapper")]
fn in_memory(bytes: &[u8]) -> usize {
    let page = *PAGE_BYTES;
    let before = bytes.as_ptr().addr() % page;
    let mut asked = 0;
    while asked < before + bytes.len() {
        let len = (before + bytes.len() - asked).min(PAGES_A_CALL * page);
        let mut pages = [0_u8; PAGES_A_CALL];
        let address = bytes.as_ptr().wrapping_sub(before).wrapping_add(asked);
        // SAFETY: the call reads no byte of the range and changes none. The range begins at a page
        // and lies within pages that `bytes` borrows a part of, so it stays mapped meanwhile; a
        // vector of one byte for each page of it is written, and has room for that many.
        let result = unsafe { libc::mincore(address.cast_mut().cast(), len, pages.as_mut_ptr()) };
        if result != 0 {
            // Whoever is not told reads as if everything were there.
            return bytes.len();
        }
        let count = len.div_ceil(page);
        let there = pages.iter().take(count).take_while(|page| **page & 1 != 0);
        let there = there.count();
        if there < count {
            return (asked + there * page).saturating_sub(before);
        }
        asked += len;
    }
    bytes.len()
}

/// When the clock of [`StdDisk`] began.
#[expect(clippy::disallowed_methods, reason = "the disk's clock is an edge")]
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The file system of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdDisk;

impl StdDisk {
    /// The disk, shared.
    #[must_use]
    pub fn shared() -> Arc<dyn Disk> {
        Arc::new(Self)
    }
}

impl Disk for StdDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Existing => options.write(true),
            OpenMode::Create => options.write(true).create(true).truncate(false),
            OpenMode::CreateNew => options.write(true).create_new(true),
            OpenMode::ReadOnly => &mut options,
        };
        let file = options.open(path)?;
        Ok(StdFile::new(file, path, mode, &DESCRIPTORS)?)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if path.is_dir() {
            // Whoever made it may have been killed before its name was durable. A parent that may not
            // be read is none that this process made anything in.
            return match self.sync_dir(parent) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
                other => other,
            };
        }
        self.create_dir_all(parent)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        self.sync_dir(parent)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(DirEntry {
                    name,
                    is_dir: entry.file_type()?.is_dir(),
                });
            }
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // A file system without the flag: this process is the only one that names things here.
            Err(Errno::INVAL | Errno::NOSYS) if !to.try_exists()? => fs::rename(from, to),
            Err(Errno::INVAL | Errno::NOSYS) => Err(ErrorKind::AlreadyExists.into()),
            other => Ok(other?),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        Ok(syncfs(File::open(path)?)?)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn now(&self) -> Duration {
        #[expect(clippy::disallowed_methods, reason = "the disk's clock is an edge")]
        let now = Instant::now();
        now.saturating_duration_since(*BEGUN)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        // The lock belongs to the open file and goes with it.
        Ok(Box::new(file))
    }
}

/// The descriptors of this process's files: above a limit, those that nothing has needed for the
/// longest time are closed, and opened again by whoever needs them. Segments that were ended are
/// read through maps, so ten thousand of them need no descriptor.
#[derive(Debug)]
struct Descriptors {
    limit: usize,
    /// A descriptor each, in about the order in which they were last looked at.
    open: Mutex<VecDeque<Weak<StdFile>>>,
}

/// The share of files: sockets need the rest.
static DESCRIPTORS: LazyLock<Descriptors> = LazyLock::new(|| {
    let may_have = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let files = Shares::of(may_have).files;
    Descriptors::new(files.clamp(LEAST_DESCRIPTORS, MOST_DESCRIPTORS))
});

const LEAST_DESCRIPTORS: usize = 64;
const MOST_DESCRIPTORS: usize = 16 << 10;
/// Files that one opening looks at, so that it costs little where all are needed.
const LOOKS: usize = 16;

impl Descriptors {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            open: Mutex::default(),
        }
    }

    /// Notes a descriptor that was opened, and closes others where there are too many.
    fn opened(&self, file: &Weak<StdFile>) {
        let mut open = self.open.lock();
        open.push_back(Weak::clone(file));
        for _ in 0..LOOKS {
            if open.len() <= self.limit {
                return;
            }
            let Some(oldest) = open.pop_front() else {
                return;
            };
            if oldest.upgrade().is_some_and(|file| !file.close_if_idle()) {
                open.push_back(oldest);
            }
        }
    }
}

/// An open file of the operating system.
#[derive(Debug)]
struct StdFile {
    /// The descriptor; it may be closed while nothing needs it, see [`Descriptors`].
    file: RwLock<Option<Arc<File>>>,
    descriptors: &'static Descriptors,
    me: Weak<StdFile>,
    path: PathBuf,
    /// Device and inode: what the path named when it was opened.
    identity: (u64, u64),
    writable: bool,
    /// Something was written that was not synced: only this descriptor is sure to be told when that
    /// fails, so it stays open (W8).
    unsynced: AtomicBool,
    /// It was needed since it was last looked at.
    used: AtomicBool,
    /// INVARIANT: never above the file's length. This process is the only writer of its data
    /// directory (it holds the lock), so the length is known without asking the kernel.
    len: AtomicU64,
    /// Bytes from the front that blocks were reserved for: what the map should span.
    reserved: AtomicU64,
    /// The whole map, or empty.
    map: RwLock<Bytes>,
}

impl StdFile {
    fn new(
        file: File,
        path: &Path,
        mode: OpenMode,
        descriptors: &'static Descriptors,
    ) -> io::Result<Arc<Self>> {
        let metadata = file.metadata()?;
        let made = Arc::new_cyclic(|me| Self {
            file: RwLock::new(Some(Arc::new(file))),
            descriptors,
            me: Weak::clone(me),
            path: path.to_path_buf(),
            identity: (metadata.dev(), metadata.ino()),
            writable: mode != OpenMode::ReadOnly,
            unsynced: AtomicBool::new(false),
            used: AtomicBool::new(true),
            len: AtomicU64::new(metadata.len()),
            reserved: AtomicU64::new(0),
            map: RwLock::new(Bytes::new()),
        });
        descriptors.opened(&made.me);
        Ok(made)
    }

    /// The descriptor, opened again where it was closed.
    fn file(&self) -> io::Result<Arc<File>> {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        if let Some(file) = &*self.file.read() {
            return Ok(Arc::clone(file));
        }
        let file = {
            let mut slot = self.file.write();
            if let Some(file) = &*slot {
                return Ok(Arc::clone(file));
            }
            let mut options = OpenOptions::new();
            let file = options.read(true).write(self.writable).open(&self.path)?;
            let metadata = file.metadata()?;
            if (metadata.dev(), metadata.ino()) != self.identity {
                // Another file has its name now; this one can only be seen through its map.
                return Err(ErrorKind::NotFound.into());
            }
            Arc::clone(slot.insert(Arc::new(file)))
        };
        self.descriptors.opened(&self.me);
        Ok(file)
    }

    /// Closes the descriptor if nothing needs it; false where something does.
    fn close_if_idle(&self) -> bool {
        if self.used.swap(false, Ordering::Relaxed) || self.unsynced.load(Ordering::SeqCst) {
            return false;
        }
        // Whoever is at it right now needs it.
        let Some(mut slot) = self.file.try_write() else {
            return false;
        };
        // A write notes itself before it takes the descriptor.
        if self.unsynced.load(Ordering::SeqCst) {
            return false;
        }
        *slot = None;
        true
    }

    fn refresh_len(&self) -> io::Result<()> {
        self.len
            .store(self.file()?.metadata()?.len(), Ordering::Release);
        Ok(())
    }

    fn write_slices(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<u64> {
        self.unsynced.store(true, Ordering::SeqCst);
        let file = self.file()?;
        let mut at = offset;
        for bufs in bufs.chunks(MAX_SLICES) {
            let mut owned: Vec<IoSlice<'_>> = bufs.to_vec();
            let mut rest = owned.as_mut_slice();
            // Empty slices at the front would make a write of nothing look like a full disk.
            IoSlice::advance_slices(&mut rest, 0);
            while !rest.is_empty() {
                match rustix::io::pwritev(&file, rest, at) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        at += written as u64;
                        IoSlice::advance_slices(&mut rest, written);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(at)
    }

    /// Maps the file anew, over at least `end` bytes.
    #[expect(unsafe_code, reason = "a read-only map has no safe constructor")]
    fn map_over(&self, end: u64) -> io::Result<Bytes> {
        let mut map = self.map.write();
        if map.len() as u64 >= end {
            return Ok(map.clone());
        }
        let span = end
            .max(self.reserved.load(Ordering::Relaxed))
            .max(self.len.load(Ordering::Acquire).saturating_mul(2))
            .max(MIN_MAP_BYTES);
        let span = usize::try_from(span).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
        let file = self.file()?;
        // SAFETY: three things make a map unsafe, and none happens here.
        // 1. Its bytes change while a slice is read. `slice` hands out only what lies below the
        //    length when it is called, and its contract is that the caller asks only for bytes
        //    that are never written again while the view lives: a log exposes no entry before it
        //    is committed and persisted here, and nothing below that is overwritten (I3). No other
        //    process writes: the data directory is locked.
        // 2. A page beyond the end of the file is touched. The map spans more than the file, but
        //    every slice that leaves this module ends at or below the length at that time, and the
        //    file is never cut below a slice (the contract of `set_len`); unlinking it keeps its
        //    pages. The part beyond is never read, only spanned.
        // 3. It is written through. It is mapped read-only and nothing here asks for more.
        let fresh = unsafe { MmapOptions::new().len(span).map(&*file)? };
        *map = Bytes::from_owner(fresh);
        Ok(map.clone())
    }
}

impl DiskFile for StdFile {
    fn path(&self) -> &PathBuf {
        &self.path
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.len.load(Ordering::Acquire))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file()?.read_exact_at(buf, offset)
    }

    fn read_past_cache(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let direct = options.read(true).custom_flags(libc::O_DIRECT);
        let file = match direct.open(&self.path) {
            Ok(file) => file,
            // A file system that has nothing but its cache.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                return self.read_exact_at(buf, offset);
            }
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if (metadata.dev(), metadata.ino()) != self.identity {
            // Another file has its name now.
            return self.read_exact_at(buf, offset);
        }
        // Memory, place and length all have to be multiples of the disk's block.
        let mut piece = vec![0_u8; DIRECT_BYTES + DIRECT_BLOCK];
        let shift = piece.as_ptr().align_offset(DIRECT_BLOCK);
        let piece = piece.get_mut(shift..shift + DIRECT_BYTES);
        let piece = piece.ok_or(ErrorKind::OutOfMemory)?;
        let mut filled = 0;
        while filled < buf.len() {
            let at = offset + filled as u64;
            let begin = at - at % DIRECT_BLOCK as u64;
            let read = match file.read_at(piece, begin) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Its blocks are larger than those here.
                Err(error) if error.kind() == ErrorKind::InvalidInput => {
                    return self.read_exact_at(buf, offset);
                }
                Err(error) => return Err(error),
            };
            let skip = usize::try_from(at - begin).unwrap_or(DIRECT_BLOCK);
            let got = piece.get(skip..read).unwrap_or_default();
            let rest = buf.get_mut(filled..).unwrap_or_default();
            let len = got.len().min(rest.len());
            if len == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            for (to, from) in rest.iter_mut().zip(got) {
                *to = *from;
            }
            filled += len;
        }
        Ok(())
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        match self.write_slices(bufs, offset) {
            Ok(end) => {
                self.len.fetch_max(end, Ordering::AcqRel);
                Ok(())
            }
            Err(error) => {
                // Part of it may be there.
                self.refresh_len()?;
                Err(error)
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let file = self.file()?;
        // What is written meanwhile says so itself.
        self.unsynced.store(false, Ordering::SeqCst);
        let synced = file.sync_data();
        if synced.is_err() {
            self.unsynced.store(true, Ordering::SeqCst);
        }
        synced
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // Lowered first and raised last, so that no reader is let beyond the end meanwhile.
        self.len.fetch_min(len, Ordering::AcqRel);
        self.unsynced.store(true, Ordering::SeqCst);
        let done = self.file()?.set_len(len);
        self.refresh_len()?;
        done
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        match fallocate(&*self.file()?, FallocateFlags::KEEP_SIZE, 0, len) {
            // A file system that cannot reserve works as well, only a full disk is noticed later.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.reserved.fetch_max(len, Ordering::Relaxed);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.unsynced.store(true, Ordering::SeqCst);
        match fallocate(&*self.file()?, FallocateFlags::empty(), 0, len) {
            Ok(()) => self.refresh_len(),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                if self.len.load(Ordering::Acquire) < len {
                    self.set_len(len)
                } else {
                    Ok(())
                }
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn slice(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let end = offset
            .checked_add(len as u64)
            .ok_or(ErrorKind::UnexpectedEof)?;
        if end > self.len.load(Ordering::Acquire) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if len == 0 {
            return Ok(Bytes::new());
        }
        let map = self.map.read().clone();
        let map = if map.len() as u64 >= end {
            map
        } else {
            self.map_over(end)?
        };
        match (usize::try_from(offset), usize::try_from(end)) {
            (Ok(from), Ok(to)) if to <= map.len() => Ok(map.slice(from..to)),
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn resident(&self, offset: u64, len: usize) -> usize {
        self.slice(offset, len)
            .map_or(0, |bytes| in_memory(&bytes).min(len))
    }

    fn bring_in(&self, offset: u64, len: usize) -> io::Result<()> {
        // The kernel begins to read all of it at once; the reads below wait for it.
        let all = std::num::NonZeroU64::new(len as u64);
        let file = self.file()?;
        let _ = fadvise(&file, offset, all, Advice::WillNeed);
        let mut buffer = vec![0; len.min(BRING_IN_BYTES)];
        let end = offset.saturating_add(len as u64);
        let mut at = offset;
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let take = left.min(buffer.len());
            let part = buffer.get_mut(..take).unwrap_or_default();
            file.read_exact_at(part, at)?;
            at += take as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn file(dir: &tempfile::TempDir, name: &str) -> Arc<dyn DiskFile> {
        StdDisk
            .open(&dir.path().join(name), OpenMode::Create)
            .unwrap()
    }

    #[test]
    fn what_is_written_after_the_map_was_made_is_seen_through_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir, "log");
        file.reserve(1 << 16).unwrap();
        assert_eq!(file.len().unwrap(), 0, "reserving keeps the length");
        assert_eq!(
            file.slice(0, 1).unwrap_err().kind(),
            ErrorKind::UnexpectedEof
        );
        file.write_all_at(&[IoSlice::new(b"hello "), IoSlice::new(b"world")], 0)
            .unwrap();
        let early = file.slice(0, 5).unwrap();
        file.write_all_at(&[IoSlice::new(b"!")], 11).unwrap();
        assert_eq!(file.slice(6, 6).unwrap(), "world!");
        assert_eq!(early, "hello");
        file.set_len(5).unwrap();
        assert_eq!(
            file.slice(0, 6).unwrap_err().kind(),
            ErrorKind::UnexpectedEof
        );
        file.write_all_at(&[IoSlice::new(b"?")], 5).unwrap();
        assert_eq!(file.slice(0, 6).unwrap(), "hello?");
    }

    #[test]
    fn slices_outlive_the_file_and_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let log = file(&dir, "log");
        log.write_all_at(&[IoSlice::new(&[7; 5000])], 0).unwrap();
        let view = log.slice(1000, 4000).unwrap();
        StdDisk.remove_file(&dir.path().join("log")).unwrap();
        drop(log);
        assert!(view.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_file_that_outgrows_its_map_is_mapped_again() {
        let dir = tempfile::tempdir().unwrap();
        let log = file(&dir, "log");
        log.write_all_at(&[IoSlice::new(b"begin")], 0).unwrap();
        let early = log.slice(0, 5).unwrap();
        let far = 3 * MIN_MAP_BYTES;
        log.write_all_at(&[IoSlice::new(b"end")], far).unwrap();
        assert_eq!(log.slice(far, 3).unwrap(), "end");
        assert_eq!(early, "begin");
    }

    #[test]
    fn more_slices_than_one_call_takes_and_empty_ones_are_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let log = file(&dir, "log");
        let parts: Vec<Vec<u8>> = (0..3000_u32).map(|n| n.to_be_bytes().to_vec()).collect();
        let mut bufs = vec![IoSlice::new(b"")];
        bufs.extend(
            parts
                .iter()
                .flat_map(|part| [IoSlice::new(part), IoSlice::new(b"")]),
        );
        log.write_all_at(&bufs, 0).unwrap();
        assert_eq!(log.slice(0, 12_000).unwrap(), parts.concat());
    }

    #[test]
    fn what_was_evicted_is_known_and_can_be_brought_in() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let log = file(&dir, "log");
        let page = *PAGE_BYTES;
        let pages = 3 * PAGES_A_CALL;
        let bytes: Vec<u8> = (0..pages * page)
            .map(|at| u8::try_from(at / page % 251).unwrap())
            .collect();
        log.write_all_at(&[IoSlice::new(&bytes)], 0).unwrap();
        log.sync_data().unwrap();
        assert_eq!(log.resident(0, bytes.len()), bytes.len());
        assert_eq!(log.resident(1, 5), 5);
        // A second handle: pages that a map has touched are not evicted.
        let evict = File::open(dir.path().join("log")).unwrap();
        let evict = |from: usize, len: usize| {
            let len = std::num::NonZeroU64::new(len as u64);
            fadvise(&evict, from as u64, len, Advice::DontNeed).unwrap();
        };
        let hole = 2 * PAGES_A_CALL + 100;
        evict(hole * page, 64 * page);
        if log.resident(hole as u64 * page as u64, page) == page {
            // A file system in memory has nothing to evict to.
            return;
        }
        let from = 10;
        let there = log.resident(from, bytes.len() - 10);
        assert_eq!(there, hole * page - 10);
        log.bring_in(hole as u64 * page as u64, 64 * page).unwrap();
        assert_eq!(log.resident(from, bytes.len() - 10), bytes.len() - 10);
        assert_eq!(log.slice(0, bytes.len()).unwrap(), bytes);
    }

    /// Descriptors of this process for files below a directory.
    fn descriptors_in(dir: &Path) -> usize {
        let dir = dir.canonicalize().unwrap();
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
            .filter(|path| path.starts_with(&dir))
            .count()
    }

    #[test]
    fn descriptors_that_nothing_needs_are_closed_and_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let few: &'static Descriptors = Box::leak(Box::new(Descriptors::new(8)));
        let open = |n: u32| {
            let path = dir.path().join(n.to_string());
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let file = options.open(&path).unwrap();
            StdFile::new(file, &path, OpenMode::Create, few).unwrap()
        };
        let files: Vec<Arc<StdFile>> = (0..100).map(open).collect();
        for (n, file) in (0_u32..).zip(&files) {
            file.write_all_at(&[IoSlice::new(&n.to_be_bytes())], 0)
                .unwrap();
        }
        assert_eq!(
            descriptors_in(dir.path()),
            100,
            "W8: what is not synced stays open"
        );
        for file in &files {
            file.sync_data().unwrap();
        }
        // Every opening looks at a few of the others.
        let more: Vec<Arc<StdFile>> = (100..120).map(open).collect();
        assert!(descriptors_in(dir.path()) <= 8);
        for (n, file) in (0_u32..).zip(&files) {
            let mut bytes = [0; 4];
            file.read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(u32::from_be_bytes(bytes), n);
            assert_eq!(file.slice(0, 4).unwrap(), n.to_be_bytes()[..]);
            assert!(descriptors_in(dir.path()) <= 8 + 1);
        }
        drop(more);
        // Another file of that name is not taken for it.
        let last = files.first().unwrap();
        let (moved, path) = (dir.path().join("moved"), dir.path().join("0"));
        for file in &files {
            file.len().unwrap();
        }
        let again: Vec<Arc<StdFile>> = (200..220).map(open).collect();
        fs::rename(&path, &moved).unwrap();
        fs::write(&path, b"another").unwrap();
        let mut bytes = [0; 4];
        let error = last.read_exact_at(&mut bytes, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(last.slice(0, 4).unwrap(), [0; 4][..]);
        drop(again);
    }

    #[test]
    fn the_lock_is_held_until_its_guard_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let guard = StdDisk.lock(&path).unwrap();
        assert_eq!(
            StdDisk.lock(&path).err().unwrap().kind(),
            ErrorKind::WouldBlock
        );
        drop(guard);
        drop(StdDisk.lock(&path).unwrap());
    }

    #[test]
    fn directories_are_made_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        StdDisk.create_dir_all(&deep).unwrap();
        StdDisk.create_dir_all(&deep).unwrap();
        StdDisk.open(&deep.join("f"), OpenMode::CreateNew).unwrap();
        assert!(StdDisk.open(&deep.join("f"), OpenMode::CreateNew).is_err());
        StdDisk.rename(&deep.join("f"), &deep.join("g")).unwrap();
        StdDisk.sync_dir(&deep).unwrap();
        assert_eq!(
            StdDisk.read_dir(&deep).unwrap(),
            [DirEntry {
                name: "g".into(),
                is_dir: false
            }]
        );
        assert!(StdDisk.free_bytes(&deep).unwrap() > 0);
        StdDisk.remove_dir_all(&dir.path().join("a")).unwrap();
        assert!(!StdDisk.exists(&deep).unwrap());
    }
}
