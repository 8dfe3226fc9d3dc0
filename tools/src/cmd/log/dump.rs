//! `riverrun log dump`: what is in a file.

use crate::cli::{Format, LogDumpArgs};

/// Shows a file or a directory.
pub(crate) fn run(args: &LogDumpArgs, _format: Format) -> anyhow::Result<()> {
    anyhow::bail!("this build cannot read {}", args.path.display())
}
