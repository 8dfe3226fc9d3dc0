//! The directory of one partition.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use riverrun_replication::controller::Controller;
use riverrun_storage::GroupRecord;
use riverrun_storage::format::log_start::{self, StartFile};
use riverrun_storage::format::{SegmentFile, leader_epochs, partition_metadata};
use riverrun_storage::recovered::LogStart;

use super::durability::Durability;
use super::findings::Findings;
use super::producers::SnapshotCheck;
use super::segment::{Tally, Walk};
use crate::dump::directory::list;
use crate::dump::input::{Failure, Input};
use crate::dump::kind::Kind;
use crate::dump::sidecar::read_header;
use crate::dump::{checkpoint, leader_epochs as epochs_file, log_start as start_file};

/// What is known of a partition when all of it was gone through.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) tally: Tally,
    /// First and next offset, where there is a log.
    pub(super) offsets: Option<(i64, i64)>,
    pub(super) last_index: Option<u64>,
    pub(super) findings: Findings,
}

/// The files of a partition by what they are.
#[derive(Debug, Default)]
struct Listing {
    segments: BTreeMap<i64, BTreeSet<SegmentFile>>,
    snapshots: BTreeSet<i64>,
    checkpoints: Vec<PathBuf>,
}

/// Whether a directory is that of a partition.
pub(super) fn is_one(dir: &Path) -> bool {
    list(dir).is_ok_and(|entries| {
        entries
            .iter()
            .any(|(path, is_dir)| !is_dir && segment_file(path).is_some())
    })
}

fn segment_file(path: &Path) -> Option<(i64, SegmentFile)> {
    SegmentFile::parse(path.file_name()?.to_str()?)
}

/// Checks everything in a partition's directory, against what the node WAL says of it if that is
/// known.
pub(super) fn check(dir: &Path, record: Option<&GroupRecord>) -> Checked {
    let mut checked = Checked::default();
    if let Err(failure) = check_into(dir, record, &mut checked) {
        let (position, what) = match failure {
            Failure::Read { position, source } => {
                (Some(position), format!("a file cannot be read: {source}"))
            }
            Failure::Output(error) => (None, error.to_string()),
        };
        checked.findings.damage(dir, position, what);
    }
    checked
}

fn check_into(
    dir: &Path,
    record: Option<&GroupRecord>,
    checked: &mut Checked,
) -> Result<(), Failure> {
    let findings = &mut checked.findings;
    let entries = match list(dir) {
        Ok(entries) => entries,
        Err(error) => {
            findings.damage(dir, None, format!("it cannot be listed: {error}"));
            return Ok(());
        }
    };
    let listing = sort(&entries, findings);
    let durability = Durability::new(record);
    let known_start = starts_at(dir, record, findings)?;
    topic_id(dir, record, findings)?;
    controller_images(&listing.checkpoints, known_start, findings)?;
    let first = listing.segments.keys().next().copied();
    let from = known_start.map(|start| start.offset).or(first);
    let Some(from) = from.filter(|_| first.is_some()) else {
        findings.damage(dir, None, "the log is gone: it has no segment");
        return Ok(());
    };
    let producers = SnapshotCheck::new(dir, listing.snapshots.iter().copied(), from);
    let mut walk = Walk {
        durability: &durability,
        findings,
        producers,
        state: known_start,
        birth: None,
        epochs: Vec::new(),
        tally: Tally::default(),
        is_whole: true,
        durable_segment: durable_segment(dir, listing.segments.keys().copied()),
    };
    let mut last_log = None;
    if !listing.segments.contains_key(&from) {
        let path = SegmentFile::Log.path(dir, from);
        walk.findings
            .damage(&path, None, "the log's first segment is missing");
    }
    for (base, files) in &listing.segments {
        if *base < from {
            let path = SegmentFile::Log.path(dir, *base);
            walk.findings.note(
                &path,
                None,
                "it lies before the log's start; the next start removes it",
            );
        } else if *base > from && !files.contains(&SegmentFile::Log) {
            let path = SegmentFile::Raft.path(dir, *base);
            let demanded = walk.durability.record().is_none()
                || walk.state.is_none_or(|state| {
                    durability
                        .next_demanded(state.prev_index.saturating_add(1))
                        .is_some()
                });
            walk.findings.add(
                demanded,
                &path,
                None,
                "a segment without its .log".to_owned(),
            );
        } else {
            walk.segment(dir, *base)?;
            last_log = Some(SegmentFile::Log.path(dir, *base));
        }
    }
    let Walk {
        findings,
        producers,
        state,
        epochs,
        tally,
        is_whole,
        ..
    } = walk;
    checked.tally = tally;
    if let (Some(state), Some(log)) = (state, last_log) {
        end(&durability, &state, &log, findings);
        producers.finish(state.offset, findings)?;
        checked.offsets = Some((from, state.offset));
        checked.last_index = Some(state.prev_index);
    }
    leader_epochs(dir, &epochs, is_whole, findings)
}

/// The newest segment that a header calls wholly synced, or -1. What cannot be read says nothing here; it is
/// looked at when its segment is.
fn durable_segment(dir: &Path, bases: impl Iterator<Item = i64>) -> i64 {
    let of = |base: i64| {
        let mut input = Input::open(&SegmentFile::Raft.path(dir, base)).ok()?;
        let (header, _) = read_header(&mut input).ok()?.ok()?;
        Some(header.durable_segment)
    };
    bases.filter_map(of).max().unwrap_or(-1)
}

fn sort(entries: &[(PathBuf, bool)], findings: &mut Findings) -> Listing {
    let mut listing = Listing::default();
    for (path, is_dir) in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if *is_dir {
            findings.note(path, None, "a directory that is not looked into");
        } else if let Some((base, file)) = SegmentFile::parse(&name) {
            if file == SegmentFile::Snapshot {
                listing.snapshots.insert(base);
            } else {
                listing.segments.entry(base).or_default().insert(file);
            }
        } else if name.ends_with(".tmp") || name.ends_with(".new") {
            findings.note(path, None, "left by something unfinished");
        } else {
            match Kind::of_name(&name) {
                Some(Kind::Checkpoint) => listing.checkpoints.push(path.clone()),
                Some(
                    Kind::LeaderEpochs | Kind::PartitionMetadata | Kind::LogStart | Kind::Aside,
                ) => {}
                Some(Kind::BadPlaces) => {
                    findings.note(
                        path,
                        None,
                        "entries were found to be bad and not put right yet",
                    );
                }
                _ => findings.note(path, None, "not a file of a partition"),
            }
        }
    }
    listing
}

/// The whole of a small file that may be missing.
fn small(
    path: &Path,
    max_bytes: usize,
    findings: &mut Findings,
) -> Result<Option<Vec<u8>>, Failure> {
    match Input::open_beside(path) {
        Ok(None) => Ok(None),
        Ok(Some(mut input)) => match input.whole(max_bytes) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Failure::Read { position, source }) => {
                findings.damage(path, position, format!("it cannot be read: {source}"));
                Ok(None)
            }
            Err(failure) => Err(failure),
        },
        Err(error) => {
            findings.damage(path, None, format!("it cannot be opened: {error}"));
            Ok(None)
        }
    }
}

/// Where the log begins: behind a head that was dropped, or where the WAL says.
fn starts_at(
    dir: &Path,
    record: Option<&GroupRecord>,
    findings: &mut Findings,
) -> Result<Option<LogStart>, Failure> {
    let known = record.map(|record| record.start);
    let path = dir.join(log_start::FILE_NAME);
    let Some(bytes) = small(&path, start_file::MAX_BYTES, findings)? else {
        return Ok(known);
    };
    let file = match StartFile::decode(&bytes) {
        Ok(file) => file,
        Err(what) => {
            findings.damage(&path, 0, what);
            return Ok(None);
        }
    };
    if let Some(record) = record {
        if (file.group, file.replica) != (record.identity.group, record.identity.replica) {
            let what = format!(
                "it belongs to group {}, replica {}",
                file.group, file.replica
            );
            findings.damage(&path, 8, what);
        }
        if file.birth != record.start {
            findings.add(
                record.unfinished_cut.is_none(),
                &path,
                Some(24),
                "the log is that of before its reset".to_owned(),
            );
            return Ok(known);
        }
    }
    Ok(Some(file.start))
}

fn topic_id(
    dir: &Path,
    record: Option<&GroupRecord>,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let path = dir.join(partition_metadata::FILE_NAME);
    let Some(bytes) = small(&path, epochs_file::MAX_TEXT_BYTES, findings)? else {
        findings.rebuilt(&path, None, "the file is missing");
        return Ok(());
    };
    match std::str::from_utf8(&bytes)
        .ok()
        .and_then(partition_metadata::decode)
    {
        None => findings.rebuilt(&path, 0, "it does not name a topic id"),
        Some(id) if record.is_some_and(|record| record.identity.topic_id != id) => {
            findings.damage(
                &path,
                11,
                format!("it names the topic {id}, which is another one"),
            );
        }
        Some(_) => {}
    }
    Ok(())
}

/// An image of the controller's state says what the log says up to it: one that is damaged is passed over, as
/// long as there is another, or the log has its beginning.
fn controller_images(
    paths: &[PathBuf],
    start: Option<LogStart>,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let mut bad = Vec::new();
    for path in paths {
        if let Some(bytes) = small(path, checkpoint::MAX_BYTES, findings)?
            && let Err(error) = Controller::from_checkpoint(&bytes)
        {
            bad.push((path, error.what));
        }
    }
    let is_needless = bad.len() < paths.len() || start.is_some_and(|start| start.prev_index == 0);
    for (path, what) in bad {
        if is_needless {
            let what = format!("{what}; another image, or the log itself, is read instead");
            findings.note(path, 0, what);
        } else {
            findings.damage(path, 0, what);
        }
    }
    Ok(())
}

/// Whether the log goes as far as the WAL says that it is durable.
fn end(durability: &Durability<'_>, state: &LogStart, log: &Path, findings: &mut Findings) {
    let next = state.prev_index.saturating_add(1);
    if let Some(missing) = durability.next_demanded(next) {
        let what = format!(
            "the log ends with entry {}, though entry {missing} was durable",
            state.prev_index
        );
        let len = std::fs::metadata(log).map(|log| log.len()).ok();
        findings.damage(log, len, what);
    }
    let only_in_wal = durability.wal_from(next);
    if only_in_wal > 0 {
        let what = format!(
            "{only_in_wal} more entries are in the node WAL only; the next start writes them here"
        );
        findings.note(log, None, what);
    }
}

/// Kafka's list of epochs is written when a segment is begun and at a clean stop: it may lack the
/// newest, and otherwise says what the log says.
fn leader_epochs(
    dir: &Path,
    epochs: &[(i32, i64)],
    is_whole: bool,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let path = dir.join(leader_epochs::FILE_NAME);
    let Some(bytes) = small(&path, epochs_file::MAX_TEXT_BYTES, findings)? else {
        return Ok(());
    };
    let (listed, bad) = leader_epochs::read(&String::from_utf8_lossy(&bytes));
    if let Some((position, what)) = bad {
        findings.rebuilt(&path, position as u64, what);
    } else if is_whole {
        for (epoch, offset) in listed {
            if !epochs.contains(&(epoch, offset)) {
                let what =
                    format!("epoch {epoch} does not begin at offset {offset}, or not any more");
                findings.note(&path, None, what);
            }
        }
    }
    Ok(())
}
