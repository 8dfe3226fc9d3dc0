//! What can go wrong with a log, by what the caller does about it.

use std::io;
use std::path::{Path, PathBuf};

/// What is wrong with a file that is too short.
pub(crate) const SHORT: &str = "the file ends before bytes that it should have";

/// An error of a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A call of the operating system failed. After a failed write or sync the log is poisoned.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// There is no room. What was asked for beyond `last_index` was not written; the log is whole
    /// and the rest can be appended once there is room.
    #[error("{path}: no space left; entries up to {last_index} are written")]
    Full {
        /// The file that could not grow.
        path: PathBuf,
        /// The last entry that is in the log.
        last_index: u64,
    },
    /// A write or sync failed earlier; nothing more is taken (I10).
    #[error(
        "{path}: a write or sync failed earlier, the log takes nothing more until it is opened again"
    )]
    Poisoned {
        /// The log's directory.
        path: PathBuf,
    },
    /// Bytes that were durable are not what they were. Nothing was cut.
    #[error("{path}: damaged at byte {position}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A file that the log must have is not there.
    #[error("{path}: the file is missing")]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// The node WAL has an entry that cannot come behind what the log's files have.
    #[error("{path}: the entry of index {index} in the node WAL does not follow those of the log")]
    Contradicted {
        /// The log's directory.
        path: PathBuf,
        /// The entry's index.
        index: u64,
    },
    /// A batch at rest is not what was written, also when it was read past the cache. What lies before and
    /// behind it can be read.
    #[error(
        "{path}: the batch at byte {position} is not what was written: offsets {first_offset} to {next_offset}, \
         index {index}"
    )]
    BadBatch {
        /// The `.log` file, or the sidecar where its record is bad.
        path: PathBuf,
        /// Where the batch or record begins.
        position: u64,
        /// The Raft index.
        index: u64,
        /// The first offset that cannot be served.
        first_offset: i64,
        /// The offset to go on at.
        next_offset: i64,
    },
    /// Another replica's entry is not the one that this log has at that index.
    #[error("the entry of index {index} that was given does not fit the log")]
    Unfit {
        /// The index.
        index: u64,
    },
    /// There is no room for a second copy of a file.
    #[error("{path}: no room for its {bytes} bytes to be written anew")]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// A batch is what was written and still cannot be taken apart.
    #[error("the records of offsets {first_offset} to {next_offset} cannot be read")]
    Unreadable {
        /// The batch's first offset.
        first_offset: i64,
        /// The offset behind it.
        next_offset: i64,
    },
    /// The log's files are not there, though its record says that they were created (R3).
    #[error("{path}: the log is gone")]
    Missing {
        /// The log's directory.
        path: PathBuf,
    },
    /// A log is to be created where files of one are already.
    #[error("{path}: there are files of a log already")]
    Exists {
        /// The log's directory.
        path: PathBuf,
    },
    /// The files are those of another replica.
    #[error("{path}: belongs to group {group}, replica {replica}")]
    Foreign {
        /// The file that says so.
        path: PathBuf,
        /// The group that it names.
        group: u64,
        /// The replica that it names.
        replica: u64,
    },
    /// An offset that the log does not have.
    #[error("offset {offset} is outside {start} to {end}")]
    OutOfRange {
        /// The offset.
        offset: i64,
        /// The log's first offset.
        start: i64,
        /// The log's next offset.
        end: i64,
    },
    /// An index that the log does not have.
    #[error("index {index} is outside {first} to {last}")]
    NoSuchEntry {
        /// The index.
        index: u64,
        /// The log's first index.
        first: u64,
        /// The log's last index.
        last: u64,
    },
}

impl LogError {
    /// Whether the error says nothing of the files: the machine or the disk did not answer, and the same
    /// call may succeed later (R16).
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Io { .. } | Self::Full { .. } | Self::Poisoned { .. }
        )
    }

    /// Whether the disk refused one place of one file, as it does where a sector is bad (R16).
    #[must_use]
    pub fn is_of_one_place(&self) -> bool {
        matches!(self, Self::Io { source, .. } if crate::disk::is_of_one_place(source))
    }

    /// Whether a file ends before bytes that it should have.
    pub(crate) fn is_short(&self) -> bool {
        matches!(self, Self::Damaged { what, .. } if *what == SHORT)
    }

    /// Whether a flush may be what failed, and pages count as clean that never reached the disk (W8).
    #[must_use]
    pub fn may_have_lost_pages(&self) -> bool {
        let Self::Io { source, .. } = self else {
            return false;
        };
        source.kind() != io::ErrorKind::StorageFull
            && !matches!(
                source.raw_os_error(),
                Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EACCES | libc::EPERM)
            )
    }

    pub(crate) fn damaged(path: &Path, position: u64, what: &'static str) -> Self {
        Self::Damaged {
            path: path.to_path_buf(),
            position,
            what,
        }
    }
}

/// The result of a call on a log.
pub type LogResult<T> = Result<T, LogError>;

/// Names the file that an I/O error is about. Where bytes are read, [`super::files`] names the byte too.
pub(crate) trait IoContext<T> {
    fn at(self, path: &Path) -> LogResult<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, path: &Path) -> LogResult<T> {
        self.map_err(|source| match source.kind() {
            // No error of the machine, which might pass: the bytes are not there.
            io::ErrorKind::UnexpectedEof => LogError::damaged(path, 0, SHORT),
            io::ErrorKind::NotFound => LogError::Absent {
                path: path.to_path_buf(),
            },
            _ => LogError::Io {
                path: path.to_path_buf(),
                source,
            },
        })
    }
}
