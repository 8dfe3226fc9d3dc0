//! `riverrun cluster`.

mod health;
mod info;
mod report;

use crate::cli::{ClusterCommand, Global};

/// Runs one of the subcommands.
pub(crate) async fn run(global: &Global, command: ClusterCommand) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Info => info::run(global).await,
        ClusterCommand::Health(args) => health::run(global, &args).await,
    }
}
