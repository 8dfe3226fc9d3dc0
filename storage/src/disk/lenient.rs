//! A disk of which some places count as zeros: those that it refuses to give, and that were given up (R16).
//!
//! Whoever opens a log that no longer can be read everywhere reads through this: zeros are bad bytes like any
//! others, and what was there is known from the rest or asked of other replicas. Which places those are is
//! settled when the log is open; what is refused later is an error again.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{DirEntry, Disk, DiskFile, OpenMode, is_of_one_place};

/// What is asked for by itself where it is refused together with the rest.
const BLOCK_BYTES: usize = 4096;

/// The places that count as zeros, as blocks of files.
#[derive(Debug, Default)]
struct Places {
    given_up: Mutex<BTreeSet<(PathBuf, u64)>>,
    settled: AtomicBool,
}

impl Places {
    /// Whether a block counts as zeros.
    fn gives_up(&self, path: &Path, block: u64) -> bool {
        let mut given_up = self.given_up.lock();
        let place = (path.to_owned(), block);
        if self.settled.load(Ordering::Acquire) {
            return given_up.contains(&place);
        }
        given_up.insert(place);
        true
    }
}

/// A disk that reads places as zeros that it is refused.
#[derive(Debug, Clone)]
pub struct LenientDisk {
    inner: Arc<dyn Disk>,
    places: Arc<Places>,
}

impl LenientDisk {
    /// The same disk, of which whatever is refused from now on counts as zeros.
    #[must_use]
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self {
            inner,
            places: Arc::default(),
        }
    }

    /// From now on only what was refused before counts as zeros.
    pub fn settle(&self) {
        self.places.settled.store(true, Ordering::Release);
    }

    /// The files of which something counts as zeros, each with the first such byte.
    #[must_use]
    pub fn given_up(&self) -> Vec<(PathBuf, u64)> {
        let mut files: Vec<(PathBuf, u64)> = Vec::new();
        for (path, block) in self.places.given_up.lock().iter() {
            if files.last().is_none_or(|(last, _)| last != path) {
                files.push((path.clone(), block * BLOCK_BYTES as u64));
            }
        }
        files
    }
}

impl Disk for LenientDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.inner.open(path, mode)?;
        Ok(Arc::new(LenientFile {
            file,
            places: Arc::clone(&self.places),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.read_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)?;
        // Another file has the name now.
        self.places.given_up.lock().retain(|(path, _)| path != to);
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename_new(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_all(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_bytes(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.inner.lock(path)
    }

    fn now(&self) -> Duration {
        self.inner.now()
    }
}

#[derive(Debug)]
struct LenientFile {
    file: Arc<dyn DiskFile>,
    places: Arc<Places>,
}

impl LenientFile {
    /// Reads, and where that is refused reads block by block, zeros for those that are given up.
    fn read(
        &self,
        buf: &mut [u8],
        offset: u64,
        read: impl Fn(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        match read(buf, offset) {
            Err(error) if is_of_one_place(&error) => {}
            other => return other,
        }
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let block = at / BLOCK_BYTES as u64;
            let room = (block + 1) * BLOCK_BYTES as u64 - at;
            let len = rest.len().min(usize::try_from(room).unwrap_or(BLOCK_BYTES));
            let (part, behind) = rest.split_at_mut(len);
            match read(part, at) {
                Err(error)
                    if is_of_one_place(&error) && self.places.gives_up(self.file.path(), block) =>
                {
                    part.fill(0);
                }
                other => other?,
            }
            at += len as u64;
            rest = behind;
        }
        Ok(())
    }
}

impl DiskFile for LenientFile {
    fn path(&self) -> &PathBuf {
        self.file.path()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read(buf, offset, |buf, at| self.file.read_exact_at(buf, at))
    }

    fn read_past_cache(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read(buf, offset, |buf, at| self.file.read_past_cache(buf, at))
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bufs, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.file.reserve(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn slice(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let first = offset / BLOCK_BYTES as u64;
        let last = (offset + len as u64) / BLOCK_BYTES as u64;
        let holds_zeros = {
            let given_up = self.places.given_up.lock();
            let path = self.file.path();
            (first..=last).any(|block| given_up.contains(&(path.clone(), block)))
        };
        if !holds_zeros {
            return self.file.slice(offset, len);
        }
        // A map of such a place ends the process when it is touched.
        let there = self.file.len()?.saturating_sub(offset);
        if there < len as u64 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; len];
        self.read_exact_at(&mut bytes, offset)?;
        Ok(Bytes::from(bytes))
    }

    fn resident(&self, offset: u64, len: usize) -> usize {
        self.file.resident(offset, len)
    }

    fn bring_in(&self, offset: u64, len: usize) -> io::Result<()> {
        self.file.bring_in(offset, len)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use crate::disk::MemDisk;

    #[test]
    fn what_is_refused_is_zeros_until_it_is_settled_which_places_are() {
        let disk = MemDisk::new();
        let lenient = LenientDisk::new(disk.shared());
        let path = Path::new("/f");
        let file = lenient.open(path, OpenMode::Create).unwrap();
        let bytes = vec![7; 3 * BLOCK_BYTES];
        file.write_all_at(&[IoSlice::new(&bytes)], 0).unwrap();
        assert!(disk.refuse(path, 5000, 10));
        let mut read = vec![1; 2 * BLOCK_BYTES];
        file.read_exact_at(&mut read, 100).unwrap();
        for (at, byte) in (100..).zip(&read) {
            let is_refused = (BLOCK_BYTES..2 * BLOCK_BYTES).contains(&at);
            assert_eq!(*byte, if is_refused { 0 } else { 7 }, "byte {at}");
        }
        assert_eq!(lenient.given_up(), [(path.to_owned(), BLOCK_BYTES as u64)]);
        lenient.settle();
        assert_eq!(file.slice(5000, 20).unwrap(), vec![0; 20]);
        assert!(disk.refuse(path, 100, 10));
        let error = file.read_exact_at(&mut read, 0).unwrap_err();
        assert!(is_of_one_place(&error));
        assert_eq!(file.slice(0, 20).unwrap(), vec![7; 20]);
    }
}
