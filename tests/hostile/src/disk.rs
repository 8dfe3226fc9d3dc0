//! A disk that holds one file, which can only be read: the file's bytes are those of the input.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use riverrun_storage::{DirEntry, Disk, DiskFile, OpenMode};

#[derive(Debug)]
pub(crate) struct OneFile {
    path: PathBuf,
    bytes: Bytes,
}

impl OneFile {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self {
            path: PathBuf::from("file"),
            bytes: Bytes::copy_from_slice(bytes),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn no<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Disk for OneFile {
    fn open(&self, path: &Path, _: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if path != self.path {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Arc::new(Self {
            path: self.path.clone(),
            bytes: self.bytes.clone(),
        }))
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        no()
    }

    fn read_dir(&self, _: &Path) -> io::Result<Vec<DirEntry>> {
        no()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(path == self.path)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        no()
    }

    fn rename_new(&self, _: &Path, _: &Path) -> io::Result<()> {
        no()
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        no()
    }

    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        no()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        no()
    }

    fn sync_all(&self, _: &Path) -> io::Result<()> {
        no()
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        no()
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send + Sync>> {
        no()
    }
}

impl DiskFile for OneFile {
    fn path(&self) -> &PathBuf {
        &self.path
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        buf.copy_from_slice(&self.slice(offset, buf.len())?);
        Ok(())
    }

    fn write_all_at(&self, _: &[io::IoSlice<'_>], _: u64) -> io::Result<()> {
        no()
    }

    fn sync_data(&self) -> io::Result<()> {
        no()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        no()
    }

    fn reserve(&self, _: u64) -> io::Result<()> {
        no()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        no()
    }

    fn slice(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let past = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let from = usize::try_from(offset).map_err(|_| past())?;
        let end = from.checked_add(len).ok_or_else(past)?;
        if end > self.bytes.len() {
            return Err(past());
        }
        Ok(self.bytes.slice(from..end))
    }
}
