//! `riverrun dev`: one node for development.

use crate::cli::DevArgs;

/// Runs a node until it is told to stop.
pub(crate) fn run(args: &DevArgs) -> anyhow::Result<()> {
    anyhow::bail!("this build has no broker to start on {}", args.kafka)
}
