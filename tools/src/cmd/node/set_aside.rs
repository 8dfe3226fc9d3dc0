//! `riverrun node set-aside`.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, bail};
use riverrun_storage::StdDisk;
use riverrun_storage::node::Retirement;
use serde::Serialize;

use crate::{
    cli::{Format, NodeSetAsideArgs},
    failure::Usage,
    output,
};

#[derive(Debug, Serialize)]
struct Plan {
    data: String,
    to: String,
    entries: Vec<String>,
    bytes: u64,
    /// Files and directories whose bytes cannot be counted.
    uncounted: u64,
    done: bool,
}

pub(super) fn run(args: &NodeSetAsideArgs, format: Format) -> anyhow::Result<()> {
    if !args.yes && !args.dry_run && !io::stdin().is_terminal() {
        bail!(Usage(
            "this takes the node and all its replicas out of its cluster\n  next: pass --yes, or look first \
             with --dry-run"
                .to_owned()
        ));
    }
    let plan = Retirement::plan(&StdDisk, &args.dir)?;
    let Some(plan) = plan else {
        bail!("{} holds nothing to set aside", args.dir.display());
    };
    let entries: Vec<String> = plan.entries.iter().map(|e| e.name.clone()).collect();
    let (mut bytes, mut uncounted) = (0, 0);
    for entry in &plan.entries {
        count_below(&args.dir.join(&entry.name), &mut bytes, &mut uncounted);
    }
    let mut shown = Plan {
        data: args.dir.display().to_string(),
        to: plan.to.display().to_string(),
        entries,
        bytes,
        uncounted,
        done: false,
    };
    if !args.dry_run {
        if !args.yes {
            confirm(&shown)?;
        }
        plan.carry_out(&StdDisk)
            .context("the directory is set aside in part; call again")?;
        shown.done = true;
    }
    let mut out = output::stdout();
    match format {
        Format::Json => output::json(&mut out, &shown)?,
        Format::Table => {
            let did = if shown.done {
                "set aside"
            } else {
                "would set aside"
            };
            writeln!(
                out,
                "{did} {} entries, {} bytes, as {}",
                shown.entries.len(),
                shown.bytes,
                shown.to
            )?;
            if shown.uncounted > 0 {
                let places = shown.uncounted;
                writeln!(
                    out,
                    "and what {places} files or directories hold that cannot be read"
                )?;
            }
            for entry in &shown.entries {
                writeln!(out, "  {entry}")?;
            }
            writeln!(
                out,
                "The node's vote and replicas are gone for its cluster. A node that is started here with the \
                 same id joins anew,\nand the others fill it where they are a majority without it. Events of \
                 which these are the only copy are served by\nnobody until the directory is put back."
            )?;
        }
    }
    out.flush()?;
    Ok(())
}

/// Has the directory's name typed again.
fn confirm(plan: &Plan) -> anyhow::Result<()> {
    eprint!(
        "{} bytes will be served by nobody; type {} to go on: ",
        plan.bytes, plan.data
    );
    let mut typed = String::new();
    io::stdin().read_line(&mut typed)?;
    if typed.trim() != plan.data {
        bail!(
            "nothing was moved: {:?} is not {:?}",
            typed.trim(),
            plan.data
        );
    }
    Ok(())
}

/// Counts the bytes of a file, or of all files below a directory, and the places that cannot be looked at.
fn count_below(path: &Path, bytes: &mut u64, uncounted: &mut u64) {
    let looked = fs::symlink_metadata(path).and_then(|metadata| {
        if !metadata.is_dir() {
            *bytes += metadata.len();
            return Ok(());
        }
        for entry in fs::read_dir(path)? {
            match entry {
                Ok(entry) => count_below(&entry.path(), bytes, uncounted),
                Err(_) => *uncounted += 1,
            }
        }
        Ok(())
    });
    if looked.is_err() {
        *uncounted += 1;
    }
}
