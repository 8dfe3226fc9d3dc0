//! A whole data directory: the node store, and every partition against what that says of it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use riverrun_replication::node::directory_name;
use riverrun_storage::node::wal::{self, DumpItem};
use riverrun_storage::node::{
    IDENTITY_FILE, LOCK_FILE, NODE_DIR, NodeError, Survey, WAL_FILE, parse_side_name, read_side,
    survey,
};
use riverrun_storage::{GroupRecord, StdDisk};

use super::findings::Findings;
use super::partition::{self, Checked};
use super::show;
use crate::dump::directory::list;
use crate::dump::report::Report;
use crate::dump::side::MAX_SIDE_BYTES;

/// How often something is looked at again that looks damaged while a node works on it.
const ATTEMPTS: usize = 5;

/// Whether a directory has a node store.
pub(super) fn is_one(dir: &Path) -> bool {
    dir.join(NODE_DIR).is_dir()
}

/// Checks a data directory.
pub(super) fn check(dir: &Path, report: &mut Report<'_>) -> io::Result<()> {
    let mut found = look(dir);
    let mut findings = Findings::default();
    node_store(dir, found.as_ref(), &mut findings);
    show(report, &findings)?;
    let directories = match list(dir) {
        Ok(entries) => entries,
        Err(error) => {
            report.begin(dir);
            return report.damage(None, &format!("it cannot be listed: {error}"));
        }
    };
    let mut names: Vec<String> = directories
        .into_iter()
        .filter(|(_, is_dir)| *is_dir)
        .filter_map(|(path, _)| Some(path.file_name()?.to_str()?.to_owned()))
        .filter(|name| name != NODE_DIR)
        .collect();
    for record in records(&found).values() {
        let name = directory_name(&record.identity);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.sort_unstable();
    for name in names {
        one(dir, &name, &mut found, report)?;
    }
    Ok(())
}

/// What the node store says. A running node may be in the middle of moving its start mark.
fn look(dir: &Path) -> Result<Survey, NodeError> {
    let mut found = survey(&StdDisk, dir);
    for _ in 1..ATTEMPTS {
        let looks_bad = found.as_ref().map_or(true, |found| found.damage.is_some());
        if !looks_bad {
            break;
        }
        let again = survey(&StdDisk, dir);
        let is_still = match (&found, &again) {
            (Ok(before), Ok(now)) => before.tail == now.tail,
            _ => false,
        };
        found = again;
        if is_still {
            break;
        }
    }
    found
}

fn records(found: &Result<Survey, NodeError>) -> BTreeMap<String, &GroupRecord> {
    let groups = found.iter().flat_map(|found| found.groups.values());
    groups
        .map(|record| (directory_name(&record.identity), record))
        .collect()
}

/// Checks one partition, again and again while it looks damaged and the node goes on working.
fn one(
    dir: &Path,
    name: &str,
    found: &mut Result<Survey, NodeError>,
    report: &mut Report<'_>,
) -> io::Result<()> {
    let path = dir.join(name);
    let mut checked = match_record(&path, name, found);
    for _ in 1..ATTEMPTS {
        let looks_bad = checked
            .as_ref()
            .is_some_and(|checked| checked.findings.looks_bad());
        if !looks_bad || found.is_err() {
            break;
        }
        let again = look(dir);
        let is_still = match (&*found, &again) {
            (Ok(before), Ok(now)) => before.tail == now.tail,
            _ => true,
        };
        if is_still {
            break;
        }
        *found = again;
        checked = match_record(&path, name, found);
    }
    match checked {
        Some(checked) => {
            super::show_partition(report, &path, records(found).get(name).copied(), &checked)
        }
        None => Ok(()),
    }
}

/// What is wrong with a directory that may be a partition's. None where there is nothing to say of it.
fn match_record(path: &Path, name: &str, found: &Result<Survey, NodeError>) -> Option<Checked> {
    let records = records(found);
    if let Some(record) = records.get(name) {
        if path.is_dir() {
            return Some(partition::check(path, Some(record)));
        }
        let mut checked = Checked::default();
        let what = format!("the log of group {} is gone", record.identity.group);
        checked.findings.damage(path, None, what);
        return Some(checked);
    }
    if !path.is_dir() {
        return None;
    }
    // Where the node store cannot be read, each partition is still held against itself.
    if found.is_err() && partition::is_one(path) {
        return Some(partition::check(path, None));
    }
    let mut checked = Checked::default();
    let was_removed = found
        .iter()
        .flat_map(|found| &found.removed)
        .any(|identity| directory_name(identity) == name);
    let what = if was_removed {
        "the replica was removed; the next start removes its files"
    } else {
        "not the directory of a replica of this node"
    };
    checked.findings.note(path, None, what);
    Some(checked)
}

fn node_store(dir: &Path, found: Result<&Survey, &NodeError>, findings: &mut Findings) {
    let node = dir.join(NODE_DIR);
    let wal = node.join(WAL_FILE);
    match found {
        Err(error) => node_error(&node, error, findings),
        Ok(found) => {
            if let Some(damage) = &found.damage {
                for (at, bytes) in &damage.places {
                    let what =
                        format!("records that had been synced are not readable for {bytes} bytes");
                    findings.damage(&wal, *at, what);
                }
                for group in &damage.affected {
                    let what = format!(
                        "records of group {group} may be missing: its replica must be refilled"
                    );
                    findings.damage(&wal, None, what);
                }
                for (group, replica) in &damage.lost {
                    let what = format!(
                        "group {group}, replica {replica} is lost: nothing says what it was"
                    );
                    findings.damage(&wal, None, what);
                }
            }
        }
    }
    marks(&wal, findings);
    side_files(&node, found, findings);
}

fn node_error(node: &Path, error: &NodeError, findings: &mut Findings) {
    match error {
        NodeError::Damaged {
            path,
            position,
            what,
        } => findings.damage(path, *position, *what),
        NodeError::Io { path, source } => findings.damage(path, None, source.to_string()),
        other => findings.damage(node, None, other.to_string()),
    }
}

/// One start mark of the two is enough, and one is not written for a while in a young WAL.
fn marks(path: &Path, findings: &mut Findings) {
    let Ok(dump) = wal::dump(&StdDisk, path) else {
        return;
    };
    let checkpointed = dump.marks.iter().flatten().any(|mark| mark.sequence > 1);
    if checkpointed && dump.marks.iter().any(Option::is_none) {
        findings.note(
            path,
            None,
            "one of the two start marks is not readable; the other counts",
        );
    }
    for item in &dump.items {
        if let DumpItem::End {
            file_offset,
            torn: true,
            ..
        } = item
        {
            findings.note(
                path,
                *file_offset,
                "a part of a round that was never acknowledged",
            );
        }
    }
}

fn side_files(node: &Path, found: Result<&Survey, &NodeError>, findings: &mut Findings) {
    let entries = match list(node) {
        Ok(entries) => entries,
        Err(error) => {
            findings.damage(node, None, format!("it cannot be listed: {error}"));
            return;
        }
    };
    for (path, is_dir) in entries {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let Some((group, _)) = parse_side_name(&name) {
            let is_known = found.map_or(true, |found| found.groups.contains_key(&group));
            side_file(&path, is_known, findings);
        } else if is_dir || ![WAL_FILE, IDENTITY_FILE, LOCK_FILE].contains(&name.as_str()) {
            findings.note(&path, None, "not a file of the node store");
        }
    }
}

fn side_file(path: &Path, is_known: bool, findings: &mut Findings) {
    let is_readable_size = path
        .metadata()
        .is_ok_and(|file| file.len() <= MAX_SIDE_BYTES);
    if !is_readable_size {
        findings.damage(path, None, "it is longer than any that is written");
    } else if let Err(error) = read_side(&StdDisk, path) {
        if is_known {
            node_error(path, &error, findings);
        } else {
            findings.note(path, None, error.to_string());
        }
    }
}
