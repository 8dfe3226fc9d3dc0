//! `riverrun node`: what an operator does to a stopped node's data directory, by name.

mod set_aside;

use crate::cli::{Format, NodeCommand};

/// Runs one of the subcommands.
pub(super) fn run(command: &NodeCommand, format: Format) -> anyhow::Result<()> {
    match command {
        NodeCommand::SetAside(args) => set_aside::run(args, format),
    }
}
