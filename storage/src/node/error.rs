//! What can go wrong with the node store.

use std::io;
use std::path::{Path, PathBuf};

/// The flush of the node WAL failed. The process must end (I10): nobody knows any more what of the
/// last round is on the disk, and the pages count as clean.
#[derive(Debug, thiserror::Error)]
#[error("writing or flushing the node WAL failed, so the process must end")]
pub struct WalFailed {
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

/// An error of the node store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A call to the disk failed; nothing that was durable is lost.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Another process holds the data directory.
    #[error("{} is locked by another process: stop it, or choose another data directory", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file is not what was written: the node's state is lost, and the controller must replace
    /// its replicas (R3).
    #[error("{} is damaged at byte {position}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The byte in it.
        position: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The directory holds what an earlier life has left, and nothing says any more whose it is: it is
    /// neither founded over nor touched.
    #[error(
        "{} is missing, though {} is there: bring the node's own files back, or set the whole directory \
         aside by `riverrun node set-aside` and let the node join its cluster anew",
        path.display(),
        found.display()
    )]
    IdentityGone {
        /// The identity file.
        path: PathBuf,
        /// What is there.
        found: PathBuf,
    },
    /// A file is of a later format than this program knows.
    #[error("{} has format version {found}, this program knows version {known}: use a later one", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in it.
        found: u32,
        /// The version that is known.
        known: u32,
    },
    /// The directory was founded under another node id.
    #[error("the data directory belongs to node {stored}, not to node {given}")]
    OtherNode {
        /// The id in the directory.
        stored: i32,
        /// The id of this process.
        given: i32,
    },
    /// The WAL cannot take the round even when it is otherwise empty.
    #[error(
        "a node WAL of {capacity} bytes cannot take {needed} more: found the directory with a larger one"
    )]
    WalTooSmall {
        /// The ring's size.
        capacity: u64,
        /// What was asked for, with what must stay free.
        needed: u64,
    },
    /// A round item names a group that was never created, or was removed.
    #[error("group {group} is not in the node store")]
    UnknownGroup {
        /// The group.
        group: u64,
    },
    /// The caller broke a rule of this module.
    #[error("group {group}: {what}")]
    Misuse {
        /// The group, 0 where it concerns none.
        group: u64,
        /// The rule.
        what: &'static str,
    },
    /// See [`WalFailed`].
    #[error(transparent)]
    WalFailed(#[from] WalFailed),
}

impl NodeError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// What a failed read from a byte of a file on says. Where the file ends too early, bytes are missing.
    pub(super) fn read(path: &Path, from: u64) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| {
            if source.kind() == io::ErrorKind::UnexpectedEof {
                Self::damaged(
                    &path,
                    from,
                    "the file ends before bytes that it should have",
                )
            } else {
                Self::Io { path, source }
            }
        }
    }

    pub(super) fn damaged(path: &Path, position: u64, what: &'static str) -> Self {
        Self::Damaged {
            path: path.to_path_buf(),
            position,
            what,
        }
    }
}
