//! The node WAL.

use riverrun_record::BatchView;
use riverrun_storage::node::wal::{self, DumpItem, Mark, RecordBody, RecordHeader, WalDump};
use riverrun_storage::{EntryKind, FileTrust, LogEntry, StdDisk};

use super::Options;
use super::input::{Failure, Input};
use super::line::{Line, Value};
use super::records::{self, Meaning};
use super::report::Report;
use super::sidecar::{conf_text, kind_name, start_text};

/// How often a WAL that a running node writes to is read, until it has not moved on meanwhile.
const ATTEMPTS: usize = 5;

/// Shows a WAL.
pub(super) fn dump(
    input: Input,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    report.title("node WAL", input.len())?;
    let mut read = wal::dump(&StdDisk, input.path());
    for _ in 1..ATTEMPTS {
        let looks_bad = match &read {
            Ok(dump) => faults(dump) > 0,
            Err(_) => true,
        };
        if !looks_bad {
            break;
        }
        // The space behind a start mark that has moved is used again, which looks like damage.
        let again = wal::dump(&StdDisk, input.path());
        let same = match (&read, &again) {
            (Ok(before), Ok(now)) => before.marks == now.marks,
            _ => true,
        };
        read = again;
        if same {
            break;
        }
    }
    match read {
        Ok(dump) => show(dump, options, report),
        Err(error) => Ok(report.node_error(&error)?),
    }
}

fn faults(dump: &WalDump) -> usize {
    let is_fault = |item: &&DumpItem| match item {
        DumpItem::Damage { .. } => true,
        DumpItem::End { round, .. } => !reaches(dump, *round),
        DumpItem::Record { body, .. } => body.is_none(),
    };
    dump.items.iter().filter(is_fault).count()
}

fn newest(dump: &WalDump) -> Option<&Mark> {
    dump.marks.iter().flatten().max_by_key(|mark| mark.sequence)
}

/// Whether a chain that ends before this round has all that the last checkpoint wrote.
fn reaches(dump: &WalDump, next_round: u64) -> bool {
    newest(dump).is_none_or(|mark| next_round > mark.must_reach)
}

fn show(dump: WalDump, options: &Options, report: &mut Report<'_>) -> Result<(), Failure> {
    report.line(
        &Line::new("wal")
            .detail("directory_id", dump.directory_id)
            .detail("capacity", dump.capacity),
    )?;
    for (number, mark) in dump.marks.iter().enumerate() {
        match mark {
            Some(mark) => report.line(
                &Line::new("mark")
                    .detail("mark", number)
                    .detail("sequence", mark.sequence)
                    .detail("ring_position", mark.point.position)
                    .detail("round", mark.point.round)
                    .detail("must_reach", mark.must_reach)
                    .detail("prev_crc", Value::Checksum(mark.point.prev_crc))
                    .detail("generation", mark.point.generation),
            )?,
            None => report.note(
                None,
                &format!("start mark {number} is not readable, or not written yet"),
            )?,
        }
    }
    let must_reach = newest(&dump).map_or(0, |mark| mark.must_reach);
    for item in dump {
        match item {
            DumpItem::Record {
                position,
                file_offset,
                header,
                body,
            } => {
                report.line(&line(position, file_offset, &header, body.as_ref()))?;
                match body {
                    None => report.damage(
                        Some(file_offset),
                        "a good record is of a kind that this program does not know",
                    )?,
                    Some(RecordBody::Entry(entry)) if options.records => {
                        let meaning = Meaning::of_group(header.group);
                        show_records(&entry, file_offset, meaning, options, report)?;
                    }
                    Some(_) => {}
                }
            }
            DumpItem::Damage { file_offset, bytes } => {
                let what =
                    format!("records that had been synced are not readable for {bytes} bytes");
                report.damage(Some(file_offset), &what)?;
            }
            DumpItem::End {
                position,
                file_offset,
                round,
                torn,
            } => {
                report.line(
                    &Line::new("end")
                        .detail("position", file_offset)
                        .detail("ring_position", position)
                        .detail("next_round", round)
                        .detail("torn", torn),
                )?;
                if round <= must_reach {
                    let what = "the states that the last checkpoint wrote are not readable";
                    report.damage(Some(file_offset), what)?;
                }
            }
        }
    }
    Ok(())
}

fn line<'a>(
    position: u64,
    file_offset: u64,
    header: &RecordHeader,
    body: Option<&'a RecordBody>,
) -> Line<'a> {
    let line = Line::new("wal_record")
        .column("position", 10, file_offset)
        .column("round", 8, header.round)
        .column("kind", 10, body.map_or("unknown", RecordBody::name))
        .column("group", 6, header.group)
        .column("replica", 8, header.replica)
        .column("sequence", 8, header.sequence)
        .column("size", 8, header.length)
        .column("crc", 8, Value::Checksum(header.crc))
        .detail("last_of_round", header.last)
        .detail("generation", header.generation)
        .detail("ring_position", position);
    match body {
        None | Some(RecordBody::Nothing | RecordBody::CutDone | RecordBody::Removal) => line,
        Some(RecordBody::HardState(state)) => line
            .detail("term", state.term)
            .detail("vote", state.vote)
            .detail("commit", state.commit),
        Some(RecordBody::Entry(entry)) => entry_details(line, entry),
        Some(RecordBody::Cut {
            first,
            durable_index,
        }) => line
            .detail("first", *first)
            .detail("durable_index", *durable_index),
        Some(RecordBody::Conf(conf)) => line
            .detail("conf_index", conf.index)
            .detail("conf", conf_text(&conf.bytes)),
        Some(RecordBody::Durable(index)) => line.detail("durable_index", *index),
        Some(RecordBody::SidecarSynced(index)) => line.detail("sidecar_synced", *index),
        Some(RecordBody::Creation {
            topic_id,
            partition,
            start,
        }) => line
            .detail("topic_id", *topic_id)
            .detail("partition", *partition)
            .detail("start", start_text(start)),
        Some(RecordBody::Reset(start)) => line.detail("start", start_text(start)),
        Some(RecordBody::Flags(flags)) => line
            .detail("may_be_short", flags.may_be_short)
            .detail("recovering", flags.recovering),
        Some(RecordBody::State(state)) => {
            let line = line
                .detail("topic_id", state.topic_id)
                .detail("partition", state.partition)
                .detail("start", start_text(&state.start))
                .detail("term", state.hard_state.term)
                .detail("vote", state.hard_state.vote)
                .detail("commit", state.hard_state.commit)
                .detail("durable_index", state.durable_index)
                .detail("conf_index", state.conf.index)
                .detail("conf", conf_text(&state.conf.bytes))
                .detail("may_be_short", state.flags.may_be_short)
                .detail("recovering", state.flags.recovering)
                .detail("side_file", state.side_file);
            match state.unfinished_cut {
                Some(cut) => line.detail("unfinished_cut", cut),
                None => line,
            }
        }
        Some(RecordBody::FileTrust(trust)) => line.detail("file_trust", trust_name(*trust)),
    }
}

fn trust_name(trust: FileTrust) -> &'static str {
    match trust {
        FileTrust::Sound => "sound",
        FileTrust::Suspect => "suspect",
        FileTrust::Poisoned => "poisoned",
    }
}

/// What an entry says of itself.
pub(super) fn entry_details<'a>(line: Line<'a>, entry: &'a LogEntry) -> Line<'a> {
    let line = line
        .detail("index", entry.index)
        .detail("term", entry.term)
        .detail("entry_kind", kind_name(entry.kind))
        .detail("base_offset", entry.base_offset)
        .detail("last_offset_delta", entry.last_offset_delta)
        .detail("payload_size", entry.payload.len());
    match entry.kind {
        EntryKind::Conf | EntryKind::Command => line.detail("payload", entry.payload.as_ref()),
        EntryKind::Data | EntryKind::Noop | EntryKind::Hole => line,
    }
}

/// The records of an entry that is a batch.
pub(super) fn show_records(
    entry: &LogEntry,
    position: u64,
    meaning: Meaning,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    if entry.kind != EntryKind::Data {
        return Ok(());
    }
    match BatchView::parse(&entry.payload) {
        Ok(batch) => records::show(&batch, position, meaning, options, report),
        Err(error) => Ok(report.damage(Some(position), &error.to_string())?),
    }
}
