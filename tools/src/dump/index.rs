//! Kafka's indexes. Where the `.log` lies beside it, an offset index is held against it, as Apache
//! Kafka's tool does.

use riverrun_storage::format::SegmentFile;
use riverrun_storage::format::index::{OFFSET_ENTRY_LEN, OffsetEntry, TIME_ENTRY_LEN, TimeEntry};

use super::Options;
use super::batches::Batches;
use super::input::{Failure, Input};
use super::line::{Line, Value};
use super::report::Report;

/// Entries of one length, one after another.
#[derive(Debug)]
pub(super) struct Entries {
    input: Input,
    position: u64,
    entry_len: usize,
}

impl Entries {
    pub(super) fn offsets(input: Input) -> Self {
        Self {
            input,
            position: 0,
            entry_len: OFFSET_ENTRY_LEN,
        }
    }

    pub(super) fn times(input: Input) -> Self {
        Self {
            entry_len: TIME_ENTRY_LEN,
            ..Self::offsets(input)
        }
    }

    pub(super) fn input(&self) -> &Input {
        &self.input
    }

    /// The next whole entry and its first byte.
    pub(super) fn next(&mut self) -> Result<Option<(u64, &[u8])>, Failure> {
        let position = self.position;
        if self.input.left(position) < self.entry_len as u64 {
            return Ok(None);
        }
        self.position += self.entry_len as u64;
        Ok(Some((position, self.input.at(position, self.entry_len)?)))
    }

    /// Where a part of an entry lies at the end.
    pub(super) fn torn_at(&self) -> Option<u64> {
        let extra = self.input.len() % self.entry_len as u64;
        (extra > 0).then(|| self.input.len() - extra)
    }
}

const TORN: &str = "the file ends within an entry";

/// Shows an offset index.
pub(super) fn dump_offsets(
    input: Input,
    base_offset: Option<i64>,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    report.title("offset index", input.len())?;
    let base = base_offset.unwrap_or(0);
    let beside = match (base_offset, input.path().parent()) {
        (Some(base), Some(dir)) => {
            Input::open_beside(&SegmentFile::Log.path(dir, base)).unwrap_or(None)
        }
        _ => None,
    };
    let mut log = beside.map(|log| Batches::new(log, base));
    let mut entries = Entries::offsets(input);
    let mut before: Option<OffsetEntry> = None;
    while let Some((position, bytes)) = entries.next()? {
        let entry = OffsetEntry::decode(bytes);
        let offset = base.saturating_add(entry.relative_offset.into());
        if options.shows(offset, offset) {
            report.line(
                &Line::new("index_entry")
                    .column("position", 10, position)
                    .column("offset", 11, offset)
                    .column("log_position", 10, entry.position),
            )?;
        }
        if before.is_some_and(|before| {
            entry.relative_offset <= before.relative_offset || entry.position <= before.position
        }) {
            report.damage(Some(position), "the entry is not above the one before it")?;
        }
        before = Some(entry);
        if let Some(log) = &mut log
            && let Some(what) = against_log(log, offset, entry.position)?
        {
            report.damage(Some(position), &what)?;
        }
    }
    end(&entries, report)
}

/// What is wrong with an entry that says that the batch at a position has this last offset.
fn against_log(log: &mut Batches, offset: i64, position: u32) -> Result<Option<String>, Failure> {
    Ok(match log.at(position.into())? {
        Ok(batch) if batch.last_offset() == offset => None,
        Ok(batch) => Some(format!(
            "the batch at byte {position} of the log has last offset {}, not {offset}",
            batch.last_offset()
        )),
        Err(_) => Some(format!("no batch begins at byte {position} of the log")),
    })
}

/// Shows a time index.
pub(super) fn dump_times(
    input: Input,
    base_offset: Option<i64>,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    report.title("time index", input.len())?;
    let base = base_offset.unwrap_or(0);
    let mut entries = Entries::times(input);
    let mut before: Option<TimeEntry> = None;
    while let Some((position, bytes)) = entries.next()? {
        let entry = TimeEntry::decode(bytes);
        let offset = base.saturating_add(entry.relative_offset.into());
        if options.shows(offset, offset) {
            report.line(
                &Line::new("time_index_entry")
                    .column("position", 10, position)
                    .column("timestamp", 24, Value::Time(entry.timestamp))
                    .column("offset", 11, offset),
            )?;
        }
        if before.is_some_and(|before| {
            entry.timestamp <= before.timestamp || entry.relative_offset < before.relative_offset
        }) {
            report.damage(Some(position), "the entry is not above the one before it")?;
        }
        before = Some(entry);
    }
    end(&entries, report)
}

fn end(entries: &Entries, report: &mut Report<'_>) -> Result<(), Failure> {
    match entries.torn_at() {
        Some(at) if entries.input().has_changed() => {
            Ok(report.note(Some(at), "an entry is being written here")?)
        }
        Some(at) => Ok(report.damage(Some(at), TORN)?),
        None => Ok(()),
    }
}
