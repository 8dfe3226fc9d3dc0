//! What the node store asks of a partition's log: to make its files durable.

use std::fmt::Debug;
use std::io;

/// The files of one log, as the flush rounds and checkpoints of the node store see them.
///
/// An error is final (I10): the implementation poisons its log and goes on failing.
pub trait SyncTarget: Debug + Send + Sync {
    /// Makes durable what a data entry needs: the bytes of the `.log` files written since the last
    /// call, and the names of files that were created.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes everything durable that a boot would otherwise take from the node WAL: `.log`,
    /// `.raft`, `.aux` and the directory (W6).
    fn sync_full(&self) -> io::Result<()>;

    /// How much has been written so far, as a number that only grows: what a sync of the whole file
    /// system that starts now will cover.
    fn written_mark(&self) -> u64 {
        0
    }

    /// Says that a sync of the whole file system has covered all up to `mark`. A target that does
    /// not count its writes syncs its files again, which then finds clean pages.
    fn synced_through(&self, mark: u64) -> io::Result<()> {
        let _ = mark;
        self.sync_data()
    }

    /// Says that a sync of the whole file system has failed: the target poisons itself, as nobody
    /// knows whose pages were lost.
    fn sync_failed(&self) {}
}
