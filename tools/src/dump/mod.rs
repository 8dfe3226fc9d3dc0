//! Reading the files of a node offline.
//!
//! What it is: every kind of file shown line by line, whatever is in it, and a check of a whole
//! directory in which the files have to agree with each other. What it is not: a definition of any
//! format. The bytes are read by `riverrun-record`, `riverrun-storage` and `riverrun-replication`;
//! what cannot be believed is named by file and byte, and reading goes on behind it.
//!
//! | File | Holds |
//! |---|---|
//! | `kind` | which file is what, by name or first bytes |
//! | `input` | a file read through a window |
//! | `line`, `report`, `text` | what is printed: one line a thing, as a table or as JSON |
//! | `batches` | finding batches in a `.log`, and finding them again behind damage |
//! | `segment`, `sidecar`, `aux`, `index`, `snapshot`, `leader_epochs`, `partition_metadata`, `log_start`, `bad_places`, `aside` | the files of a partition |
//! | `wal`, `identity`, `side` | the files of the node |
//! | `records`, `command` | the records of a batch; those of the controller's log as commands |
//! | `checkpoint` | the controller's image |
//! | `directory` | everything below a directory |
//! | `verify` | whether it all agrees |
//!
//! What must never be true: a file is opened for writing, or a lock taken (a running node's files
//! are looked at too); memory is taken because a file claims to need it; bytes, whatever they are,
//! make anything here panic.

mod aside;
mod aux;
mod bad_places;
mod batches;
mod checkpoint;
mod cluster_record;
mod command;
mod directory;
mod identity;
mod index;
mod input;
mod kind;
mod leader_epochs;
mod line;
mod log_start;
mod partition_metadata;
mod records;
mod report;
mod segment;
mod side;
mod sidecar;
mod snapshot;
mod text;
pub(crate) mod verify;
mod wal;

use std::io;
use std::path::Path;

pub(crate) use directory::dump_directory;
use input::{Failure, Input};
use kind::Kind;
pub(crate) use report::Report;

/// What is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// The records too, not only their batches.
    pub(crate) records: bool,
    /// The first offset, or the first index where lines have no offsets.
    pub(crate) from: Option<i64>,
    /// The last one.
    pub(crate) to: Option<i64>,
}

impl Options {
    /// Whether something that spans these offsets, or indexes, is to be shown.
    fn shows(&self, first: i64, last: i64) -> bool {
        self.from.is_none_or(|from| last >= from) && self.to.is_none_or(|to| first <= to)
    }

    /// The same for an index.
    fn shows_index(&self, index: u64) -> bool {
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        self.shows(index, index)
    }
}

/// Shows one file. False where it is none of ours.
///
/// # Errors
/// Those of the output. What is wrong with the file is part of the output.
pub(crate) fn dump_file(
    path: &Path,
    options: &Options,
    report: &mut Report<'_>,
) -> io::Result<bool> {
    report.begin(path);
    let mut input = match Input::open(path) {
        Ok(input) => input,
        Err(error) => {
            report.damage(None, &format!("it cannot be opened: {error}"))?;
            return Ok(true);
        }
    };
    let kind = match Kind::of(path, &mut input) {
        Ok(Some(kind)) => kind,
        Ok(None) => return Ok(false),
        Err(failure) => {
            report.failed(failure)?;
            return Ok(true);
        }
    };
    if let Err(failure) = dump_kind(kind, input, options, report) {
        report.failed(failure)?;
    }
    Ok(true)
}

fn dump_kind(
    kind: Kind,
    input: Input,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    match kind {
        Kind::Segment(base) => segment::dump(input, base, options, report),
        Kind::Sidecar(base) => sidecar::dump(input, base, options, report),
        Kind::Aux(base) => aux::dump(input, base, options, report),
        Kind::OffsetIndex(base) => index::dump_offsets(input, base, options, report),
        Kind::TimeIndex(base) => index::dump_times(input, base, options, report),
        Kind::Snapshot(offset) => snapshot::dump(input, offset, report),
        Kind::LeaderEpochs => leader_epochs::dump(input, options, report),
        Kind::PartitionMetadata => partition_metadata::dump(input, report),
        Kind::LogStart => log_start::dump(input, report),
        Kind::BadPlaces => bad_places::dump(input, report),
        Kind::Aside => aside::dump(input, report),
        Kind::Wal => wal::dump(input, options, report),
        Kind::Identity => identity::dump(input, report),
        Kind::ClusterRecord => cluster_record::dump(input, report),
        Kind::Side => side::dump(input, options, report),
        Kind::Checkpoint => checkpoint::dump(input, report),
        Kind::Lock => Ok(report.note(None, "a lock file, without contents")?),
    }
}
