//! The part that clients in other languages share: what to produce goes to them as text files,
//! what they read comes back as text files, and all judging is done here.
//!
//! A client is started with the brokers, a prefix and a directory. For each compression it creates
//! the topic `<prefix>-<compression>` with three partitions, produces `records.tsv`, reads from the
//! places of `places.tsv`, and produces `extras.tsv` while it stands at the end. It writes
//! `<compression>.acks.tsv` (partition, offset), `<compression>.lookups.tsv` (partition, offset
//! for the timestamp) and `<compression>.<start|middle|timestamp|end>.tsv` (partition, offset and
//! the event).

use super::{COMPRESSIONS, PARTITIONS, Plan, plan};
use crate::command::run;
use crate::event::{Stored, compare, from_line, from_offset, to_line};
use crate::kafka::{Reader, unique};
use crate::raw::is_stored_as;
use anyhow::{Context, Result, ensure};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(180);

/// Runs a client and judges everything it did. `command` is complete but for the three arguments, and
/// for those that come behind them.
pub(super) fn check(
    name: &str,
    mut command: Command,
    more: &[&str],
    brokers: &str,
    every_null: bool,
) -> Result<()> {
    let plan = plan(every_null);
    let directory = tempfile::tempdir()?;
    let prefix = unique(name);
    write_plan(&plan, directory.path())?;
    command.arg(brokers).arg(&prefix).arg(directory.path());
    command.args(more);
    run(&mut command, b"", LIMIT)?;
    for compression in COMPRESSIONS {
        judge(
            &plan,
            compression,
            directory.path(),
            brokers,
            &format!("{prefix}-{compression}"),
        )
        .with_context(|| format!("compression {compression}"))?;
    }
    Ok(())
}

fn write_plan(plan: &Plan, directory: &Path) -> Result<()> {
    let mut records = String::new();
    for (partition, event) in &plan.events {
        writeln!(records, "{partition}\t{}", to_line(event))?;
    }
    fs::write(directory.join("records.tsv"), records)?;
    let mut places = String::new();
    let mut extras = String::new();
    for (partition, (place, extra)) in plan.places.iter().zip(&plan.extras).enumerate() {
        writeln!(
            places,
            "{partition}\t{}\t{}",
            place.middle, place.timestamp_ms
        )?;
        writeln!(extras, "{partition}\t{}", to_line(&extra.event))?;
    }
    fs::write(directory.join("places.tsv"), places)?;
    fs::write(directory.join("extras.tsv"), extras)?;
    Ok(())
}

fn judge(
    plan: &Plan,
    compression: &str,
    directory: &Path,
    brokers: &str,
    topic: &str,
) -> Result<()> {
    let file = |what: &str| directory.join(format!("{compression}.{what}.tsv"));

    let acks = pairs(&file("acks"))?;
    let mut next = [0; PARTITIONS];
    let mut expected = Vec::new();
    for (partition, _) in &plan.events {
        expected.push((*partition, next[*partition]));
        next[*partition] += 1;
    }
    ensure!(
        acks == expected,
        "acknowledged places: {acks:?}, not {expected:?}"
    );

    let lookups = pairs(&file("lookups"))?;
    let expected: Vec<_> = plan
        .places
        .iter()
        .enumerate()
        .map(|(partition, place)| (partition, place.timestamp_offset))
        .collect();
    ensure!(
        lookups == expected,
        "offsets of timestamps: {lookups:?}, not {expected:?}"
    );

    for (what, from) in [
        ("start", (|_, _| 0) as fn(&Plan, usize) -> i64),
        ("middle", |plan, partition| plan.places[partition].middle),
        ("timestamp", |plan, partition| {
            plan.places[partition].timestamp_offset
        }),
        ("end", |plan, partition| plan.extras[partition].offset),
    ] {
        let got = logs(&file(what))?;
        for (partition, got) in got.iter().enumerate() {
            let mut expected = from_offset(&plan.logs[partition], from(plan, partition)).to_vec();
            if what == "end" {
                expected.push(plan.extras[partition].clone());
            }
            compare(
                &format!("partition {partition} from the {what}"),
                &expected,
                got,
            )?;
        }
    }

    is_stored_as(brokers, topic, PARTITIONS, compression)?;
    let seen = Reader::new(brokers)?.read_all(topic, PARTITIONS)?;
    for (partition, seen) in seen.iter().enumerate() {
        let mut expected = plan.logs[partition].clone();
        expected.push(plan.extras[partition].clone());
        compare(
            &format!("partition {partition} as librdkafka reads it"),
            &expected,
            seen,
        )?;
    }
    Ok(())
}

/// A file of a partition and a number on each line.
fn pairs(file: &Path) -> Result<Vec<(usize, i64)>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    text.lines()
        .map(|line| {
            let (partition, number) = line.split_once('\t').context("a line without a tab")?;
            Ok((partition.parse()?, number.parse()?))
        })
        .collect()
}

/// A file of what was read, by partition.
fn logs(file: &Path) -> Result<Vec<Vec<Stored>>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let mut logs = vec![Vec::new(); PARTITIONS];
    for line in text.lines() {
        let mut fields = line.splitn(3, '\t');
        let (Some(partition), Some(offset), Some(event)) =
            (fields.next(), fields.next(), fields.next())
        else {
            anyhow::bail!("a short line in {}: {line}", file.display());
        };
        let partition: usize = partition.parse()?;
        let log = logs
            .get_mut(partition)
            .with_context(|| format!("partition {partition} was never asked for"))?;
        log.push(Stored {
            offset: offset.parse()?,
            event: from_line(event)?,
        });
    }
    Ok(logs)
}
