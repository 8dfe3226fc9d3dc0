//! Errors on chosen calls.

use std::fmt;
use std::io;
use std::path::Path;

/// A kind of call that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Whatever takes a descriptor: opening or creating a file, reading a directory, syncing one.
    Open,
    /// Giving a file or directory a name that was not there.
    Create,
    /// Looking whether a file is there.
    Look,
    /// Reading bytes, by copy or as a slice.
    Read,
    /// Writing bytes. Nothing of a failed write is there.
    Write,
    /// Syncing a file. What it should have made durable never will be, though reads see it (W8).
    Sync,
    /// Syncing a directory. The names that it should have made durable stay as they were.
    SyncDir,
    /// Cutting or extending a file.
    SetLen,
    /// Reserving or allocating blocks.
    Reserve,
    /// Renaming or removing a file.
    Rename,
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// At the next matching call only.
    Once,
    /// At every matching call, until it is taken out.
    Always,
}

type Matcher = Box<dyn Fn(&Path) -> bool + Send + Sync>;

struct Fault {
    id: u64,
    operation: Operation,
    matches: Matcher,
    times: Times,
    errno: i32,
}

/// The faults that lie in wait.
#[derive(Default)]
pub(super) struct Faults {
    armed: Vec<Fault>,
    next_id: u64,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(
                self.armed
                    .iter()
                    .map(|fault| (fault.id, fault.operation, fault.times)),
            )
            .finish()
    }
}

impl Faults {
    pub(super) fn arm(
        &mut self,
        operation: Operation,
        times: Times,
        errno: i32,
        matches: Matcher,
    ) -> u64 {
        self.next_id += 1;
        self.armed.push(Fault {
            id: self.next_id,
            operation,
            matches,
            times,
            errno,
        });
        self.next_id
    }

    pub(super) fn disarm(&mut self, id: u64) {
        self.armed.retain(|fault| fault.id != id);
    }

    pub(super) fn disarm_all(&mut self) {
        self.armed.clear();
    }

    /// The error where a fault strikes.
    pub(super) fn strike(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        let hit = self
            .armed
            .iter()
            .position(|fault| fault.operation == operation && (fault.matches)(path));
        let Some(at) = hit else { return Ok(()) };
        let errno = self.armed.get(at).map_or(libc::EIO, |fault| fault.errno);
        if self
            .armed
            .get(at)
            .is_some_and(|fault| fault.times == Times::Once)
        {
            self.armed.remove(at);
        }
        Err(io::Error::from_raw_os_error(errno))
    }
}
