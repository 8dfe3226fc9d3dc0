//! The node WAL: one file, allocated once and written over in place as a ring.
//!
//! - [`preamble`]: the file's header and start marks. - [`ring`]: how a round is laid into it.
//! - [`record`]: the bytes of a record.
//! - [`chain`]: what a boot can believe of what lies in the ring (W3).
//! - [`dump()`]: the same for people, without changing anything.

pub(super) mod chain;
mod dump;
pub(super) mod preamble;
pub(super) mod record;
pub(super) mod ring;

pub use dump::{DumpItem, WalDump, dump};
pub use preamble::{MAGIC, Mark, MarkPoint};
pub use record::{Flags, RecordBody, RecordHeader, StateBody};
