//! `riverrun log`: reading the files of a node offline. Nothing here ever writes to them.

mod dump;
mod verify;

use crate::cli::{Format, LogCommand};

/// Runs one of the subcommands.
pub(crate) fn run(command: &LogCommand, format: Format) -> anyhow::Result<()> {
    match command {
        LogCommand::Dump(args) => dump::run(args, format),
        LogCommand::Verify(args) => verify::run(args, format),
    }
}
