//! A file that is read through a window.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes read ahead at once.
const WINDOW_BYTES: usize = 256 * 1024;
/// The longest piece that is looked at in memory. No batch is as long: a request that brings one is
/// limited far below.
pub(super) const MAX_PIECE_BYTES: usize = 256 << 20;

/// Why reading ends early.
#[derive(Debug)]
pub(super) enum Failure {
    /// The file cannot be read here.
    Read { position: u64, source: io::Error },
    /// Nobody takes the output.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// An open file, as long as it was when it was opened: what a running node appends is not looked at.
#[derive(Debug)]
pub(super) struct Input {
    path: PathBuf,
    file: File,
    len: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Input {
    /// Opens a file for reading only. Anything but a regular file is refused, as opening a pipe
    /// would wait for whoever writes to it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self {
            path: path.to_path_buf(),
            file,
            len,
            window: Vec::new(),
            window_at: 0,
        })
    }

    /// A file that belongs to another one and may be missing.
    pub(super) fn open_beside(path: &Path) -> io::Result<Option<Self>> {
        match Self::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file has another length now: somebody writes to it.
    pub(super) fn has_changed(&self) -> bool {
        self.file.metadata().is_ok_and(|now| now.len() != self.len)
    }

    /// Bytes from a position to the end.
    pub(super) fn left(&self, position: u64) -> u64 {
        self.len.saturating_sub(position)
    }

    /// `wanted` bytes from a position on, or all that are left.
    pub(super) fn at(&mut self, position: u64, wanted: usize) -> Result<&[u8], Failure> {
        let wanted = self.clamp(position, wanted);
        let window_end = self.window_at + self.window.len() as u64;
        if position < self.window_at || position + wanted as u64 > window_end {
            let len = self.clamp(position, wanted.max(WINDOW_BYTES));
            self.window.resize(len, 0);
            // A large piece is not kept for long.
            self.window.shrink_to(WINDOW_BYTES.max(len));
            self.window_at = position;
            if let Err(source) = self.file.read_exact_at(&mut self.window, position) {
                self.window.clear();
                return Err(Failure::Read { position, source });
            }
        }
        let from = usize::try_from(position - self.window_at).unwrap_or(usize::MAX);
        let piece = self.window.get(from..).unwrap_or_default();
        Ok(piece.get(..wanted).unwrap_or(piece))
    }

    /// Bytes of which no more than [`MAX_PIECE_BYTES`] are taken.
    fn clamp(&self, position: u64, wanted: usize) -> usize {
        let left = usize::try_from(self.left(position)).unwrap_or(usize::MAX);
        wanted.min(left).min(MAX_PIECE_BYTES)
    }

    /// The whole file, if it is no longer than `max_bytes`.
    pub(super) fn whole(&mut self, max_bytes: usize) -> Result<Vec<u8>, Failure> {
        let len = usize::try_from(self.len).unwrap_or(usize::MAX);
        if len > max_bytes {
            let what = format!(
                "it has {} bytes, more than the {max_bytes} that such a file takes",
                self.len
            );
            let source = io::Error::new(ErrorKind::FileTooLarge, what);
            return Err(Failure::Read {
                position: 0,
                source,
            });
        }
        let mut bytes = vec![0; len];
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(bytes),
            Err(source) => Err(Failure::Read {
                position: 0,
                source,
            }),
        }
    }
}
