//! `riverrun topic`.

mod create;
mod delete;
mod describe;
mod list;

use std::io::Write;

use crate::{
    cli::{Global, TopicCommand},
    failure::{self, Reported},
};

/// Runs one of the subcommands.
pub(crate) async fn run(global: &Global, command: TopicCommand) -> anyhow::Result<()> {
    match command {
        TopicCommand::List(args) => list::run(global, &args).await,
        TopicCommand::Create(args) => create::run(global, args).await,
        TopicCommand::Describe(args) => describe::run(global, &args).await,
        TopicCommand::Delete(args) => delete::run(global, &args).await,
    }
}

/// Reports each thing that failed, and says whether any did. What succeeded has been written to
/// `out` by then.
fn reported(out: &mut impl Write, failed: Vec<riverrun_client::Error>) -> anyhow::Result<()> {
    out.flush()?;
    if failed.is_empty() {
        return Ok(());
    }
    for error in failed {
        failure::report(&error.into());
    }
    Err(Reported.into())
}
