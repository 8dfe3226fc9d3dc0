//! Whether everything in a directory agrees.
//!
//! Each file alone, as a dump looks at it, and the files against each other: the sidecar against the
//! batches, the indexes and producer snapshots against the log, the log against what the node WAL
//! says was durable. What a crash may leave and the next start mends (a tail above the durable index,
//! batches whose records in the sidecar were never synced) is a note. What other files say as well and the
//! next start makes anew (a torn producer snapshot, an index, the list of leader epochs) is to be rebuilt, and
//! no failure. Everything else is damage.
//!
//! A node may be running: what looks damaged is looked at again as long as the WAL moves on.

mod durability;
mod findings;
mod indexes;
mod node;
mod partition;
mod producers;
mod segment;
mod unrecorded;

use std::io;
use std::path::Path;

use riverrun_storage::GroupRecord;

use self::findings::{Findings, Weight};
use self::partition::Checked;
use super::directory::list;
use super::line::{Line, Value};
use super::report::Report;

/// Checks a data directory or a partition's. False where it is neither.
///
/// # Errors
/// Those of the output. What is wrong with the files is part of the output.
pub(crate) fn verify(dir: &Path, report: &mut Report<'_>) -> io::Result<bool> {
    if node::is_one(dir) {
        node::check(dir, report)?;
        return Ok(true);
    }
    if partition::is_one(dir) {
        show_partition(report, dir, None, &partition::check(dir, None))?;
        return Ok(true);
    }
    // Partitions that were copied without their node.
    let mut found = false;
    for (path, is_dir) in list(dir)? {
        if is_dir && partition::is_one(&path) {
            found = true;
            show_partition(report, &path, None, &partition::check(&path, None))?;
        }
    }
    Ok(found)
}

fn show(report: &mut Report<'_>, findings: &Findings) -> io::Result<()> {
    for finding in &findings.kept {
        report.begin(&finding.path);
        match finding.weight {
            Weight::Damage => report.damage(finding.position, &finding.what)?,
            Weight::Rebuilt => report.rebuilt(finding.position, &finding.what)?,
            Weight::Note => report.note(finding.position, &finding.what)?,
        }
    }
    if findings.left_out > 0 {
        report.note(None, &format!("and {} places more", findings.left_out))?;
    }
    Ok(())
}

fn show_partition(
    report: &mut Report<'_>,
    path: &Path,
    record: Option<&GroupRecord>,
    checked: &Checked,
) -> io::Result<()> {
    show(report, &checked.findings)?;
    if checked.tally.segments == 0 {
        return Ok(());
    }
    report.begin_part(path);
    let (first, next) = checked.offsets.unwrap_or((-1, -1));
    let group = record.and_then(|record| i64::try_from(record.identity.group).ok());
    let line = Line::new("partition")
        .column(
            "partition",
            36,
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        )
        .column("group", 6, Value::OrNone(group.unwrap_or(-1)))
        .column("first_offset", 12, Value::OrNone(first))
        .column("next_offset", 12, Value::OrNone(next))
        .column("segments", 8, checked.tally.segments)
        .column("entries", 8, checked.tally.entries)
        .column("batches", 8, checked.tally.batches)
        .column("records", 9, checked.tally.records)
        .column("bytes", 12, checked.tally.bytes)
        .column("damaged", 7, checked.findings.damaged);
    report.line(&line)
}
