//! `riverrun topic delete`.

use std::io::{self, IsTerminal, Write};

use anyhow::bail;
use serde::Serialize;

use crate::{
    cli::{Format, Global, TopicDeleteArgs},
    cmd::connect,
    failure::Usage,
    output,
};

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    deleted: bool,
}

pub(super) async fn run(global: &Global, args: &TopicDeleteArgs) -> anyhow::Result<()> {
    if !args.yes && !args.dry_run && !io::stdin().is_terminal() {
        bail!(Usage("this deletes all events of the topic\n  next: pass --yes, or look first with --dry-run".to_owned()));
    }
    let client = connect(global).await?;
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    if args.dry_run {
        for name in &args.names {
            match client.describe_topic(name).await {
                Ok(_) => rows.push(Row {
                    name: name.clone(),
                    deleted: false,
                }),
                Err(error) => failed.push(error),
            }
        }
    } else {
        if !args.yes {
            confirm(&args.names)?;
        }
        for (name, result) in client.delete_topics(&args.names).await? {
            match result {
                Ok(()) => rows.push(Row {
                    name,
                    deleted: true,
                }),
                Err(error) => failed.push(error),
            }
        }
    }
    let mut out = output::stdout();
    match global.format {
        Format::Json => output::json(&mut out, &rows)?,
        Format::Table => {
            for row in &rows {
                writeln!(
                    out,
                    "{} {}",
                    if row.deleted {
                        "deleted"
                    } else {
                        "would delete"
                    },
                    row.name
                )?;
            }
        }
    }
    super::reported(&mut out, failed)
}

/// Has each name typed again.
fn confirm(names: &[String]) -> anyhow::Result<()> {
    for name in names {
        eprint!("all events of {name} will be gone; type its name to go on: ");
        let mut typed = String::new();
        io::stdin().read_line(&mut typed)?;
        if typed.trim() != name {
            bail!("nothing was deleted: {:?} is not {name:?}", typed.trim());
        }
    }
    Ok(())
}
