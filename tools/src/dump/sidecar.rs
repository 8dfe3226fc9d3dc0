//! A `.raft` sidecar: its header, and a line for each entry.

use riverrun_replication::conf;
use riverrun_storage::EntryKind;
use riverrun_storage::format::sidecar::{Header, MAX_CONF_LEN, RECORD_LEN, Record};
use riverrun_storage::recovered::LogStart;

use super::Options;
use super::input::{Failure, Input};
use super::line::{Line, Value};
use super::report::Report;

/// More than the longest header.
const HEADER_READ_BYTES: usize = MAX_CONF_LEN + 4096;

/// The header and its length, or what is wrong with it.
pub(super) fn read_header(
    input: &mut Input,
) -> Result<Result<(Header, usize), &'static str>, Failure> {
    Ok(Header::decode(input.at(0, HEADER_READ_BYTES)?))
}

/// What stands in the place of an entry's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Good(Record),
    /// Nothing but zeros: a place that was never written, or not synced.
    Zeros,
    /// Bytes that are not this entry's record.
    Bad,
    /// The file ends within the record.
    Cut,
}

/// The places of entries in a sidecar, one after another.
#[derive(Debug)]
pub(super) struct Slots {
    input: Input,
    index: u64,
    position: u64,
}

impl Slots {
    /// Those behind a header of this length, whose first entry has this index.
    pub(super) fn new(input: Input, header_len: usize, first_index: u64) -> Self {
        Self {
            input,
            index: first_index,
            position: header_len as u64,
        }
    }

    /// The next entry's index, where its record lies, and what is there.
    pub(super) fn next(&mut self) -> Result<Option<(u64, u64, Slot)>, Failure> {
        let (index, position) = (self.index, self.position);
        let bytes = self.input.at(position, RECORD_LEN)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let slot = match bytes.first_chunk::<RECORD_LEN>() {
            None => Slot::Cut,
            Some(bytes) => match Record::decode(index, bytes) {
                Some(record) => Slot::Good(record),
                None if bytes.iter().all(|byte| *byte == 0) => Slot::Zeros,
                None => Slot::Bad,
            },
        };
        self.index = index.saturating_add(1);
        self.position = position + RECORD_LEN as u64;
        Ok(Some((index, position, slot)))
    }

    pub(super) fn input(&self) -> &Input {
        &self.input
    }
}

/// The name of an entry's kind.
pub(super) fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Data => "data",
        EntryKind::Noop => "noop",
        EntryKind::Conf => "conf",
        EntryKind::Command => "command",
        EntryKind::Hole => "hole",
    }
}

/// A configuration as people read it; none where it is not in our encoding.
pub(super) fn conf_text(bytes: &[u8]) -> String {
    let Ok(conf) = conf::decode_conf(bytes) else {
        return if bytes.is_empty() {
            String::new()
        } else {
            format!("{} bytes", bytes.len())
        };
    };
    let mut text = format!("voters {:?}", conf.get_voters());
    for (name, members) in [
        ("learners", conf.get_learners()),
        ("outgoing", conf.get_voters_outgoing()),
        ("learners next", conf.get_learners_next()),
    ] {
        if !members.is_empty() {
            text.push_str(&format!(" {name} {members:?}"));
        }
    }
    text
}

/// The place before a log's or a segment's first entry.
pub(super) fn start_text(start: &LogStart) -> String {
    format!(
        "index {} term {} offset {}",
        start.prev_index, start.prev_term, start.offset
    )
}

/// Shows a sidecar.
pub(super) fn dump(
    mut input: Input,
    base_offset: Option<i64>,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    report.title("raft sidecar", input.len())?;
    let (header_len, prev_index) = match read_header(&mut input)? {
        Ok((header, len)) => {
            show_header(&header, len, report)?;
            if base_offset.is_some_and(|base| base != header.start.offset) {
                let what = "the base offset in the header is not the one of the file's name";
                report.damage(Some(88), what)?;
            }
            (len, header.start.prev_index)
        }
        Err(what) => {
            report.damage(Some(0), what)?;
            let Some(guess) = Header::guess(input.at(0, HEADER_READ_BYTES)?) else {
                return Ok(());
            };
            report.note(
                None,
                "the entries are shown as the damaged header numbers them",
            )?;
            guess
        }
    };
    let first_index = prev_index.saturating_add(1);
    let mut slots = Slots::new(input, header_len, first_index);
    let mut bad: Option<Stretch> = None;
    let mut order = Order::default();
    while let Some((index, position, slot)) = slots.next()? {
        let Slot::Good(record) = slot else {
            bad = Some(Stretch::grown(bad, position, index, slot));
            order = Order::default();
            continue;
        };
        if let Some(stretch) = bad.take() {
            stretch.report(report)?;
        }
        if options.shows_index(index) {
            report.line(&line(index, position, &record))?;
        }
        if let Some(what) = order.take(&record) {
            report.damage(Some(position), what)?;
        }
    }
    match bad {
        Some(stretch) if slots.input().has_changed() => {
            let what = "an entry's record is being written here";
            Ok(report.note(Some(stretch.position), what)?)
        }
        Some(stretch) => stretch.report(report),
        None => Ok(()),
    }
}

fn show_header(header: &Header, len: usize, report: &mut Report<'_>) -> Result<(), Failure> {
    let line = Line::new("header")
        .detail("header_len", len)
        .detail("group", header.identity.group)
        .detail("replica", header.identity.replica)
        .detail("topic_id", header.identity.topic_id)
        .detail("partition", header.identity.partition)
        .detail("birth", start_text(&header.birth))
        .detail("start", start_text(&header.start))
        .detail("durable_segment", Value::OrNone(header.durable_segment))
        .detail("conf_index", header.conf.index)
        .detail("conf", conf_text(&header.conf.bytes));
    Ok(report.line(&line)?)
}

fn line(index: u64, position: u64, record: &Record) -> Line<'static> {
    Line::new("entry")
        .column("position", 10, position)
        .column("index", 10, index)
        .column("term", 6, record.term)
        .column("kind", 7, kind_name(record.kind))
        .column("base_offset", 11, record.base_offset)
        .column("last_offset_delta", 6, record.last_offset_delta)
        .column("payload_position", 10, record.position)
        .column("payload_size", 8, record.len)
}

/// Records that follow each other and cannot be read.
#[derive(Debug)]
struct Stretch {
    position: u64,
    first_index: u64,
    last_index: u64,
    zeros: bool,
    cut: bool,
}

impl Stretch {
    fn grown(before: Option<Self>, position: u64, index: u64, slot: Slot) -> Self {
        let before = before.unwrap_or(Self {
            position,
            first_index: index,
            last_index: index,
            zeros: true,
            cut: true,
        });
        Self {
            last_index: index,
            zeros: before.zeros && slot == Slot::Zeros,
            cut: before.cut && slot == Slot::Cut,
            ..before
        }
    }

    fn report(self, report: &mut Report<'_>) -> Result<(), Failure> {
        let what = if self.cut {
            "the file ends within the record of the entry"
        } else if self.zeros {
            "zeros instead of the records of entries"
        } else {
            "the checksum does not match the records of entries"
        };
        let what = format!("{what} {} to {}", self.first_index, self.last_index);
        Ok(report.damage(Some(self.position), &what)?)
    }
}

/// Whether records follow each other as a log's do.
#[derive(Debug, Default)]
struct Order {
    before: Option<Record>,
}

impl Order {
    fn take(&mut self, record: &Record) -> Option<&'static str> {
        let before = self.before.replace(*record)?;
        if record.term < before.term {
            Some("the term is below that of the entry before")
        } else if next_offset(&before) != Some(record.base_offset) {
            Some("the offset is not the one that follows on the entry before")
        } else {
            None
        }
    }
}

/// The offset behind a record, which may be any bytes whose checksum somebody has computed.
pub(super) fn next_offset(record: &Record) -> Option<i64> {
    let span = if record.kind.moves_offset() {
        i64::from(record.last_offset_delta) + 1
    } else {
        0
    };
    record.base_offset.checked_add(span)
}
