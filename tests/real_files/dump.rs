//! Runs `org.apache.kafka.tools.DumpLogSegments` on a partition's directory and believes nothing
//! that it does not print.

use super::Segment;
use crate::command::run;
use crate::event::{Event, Stored, compare, from_hex};
use crate::installed::Java;
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What there was to see, so that a check of nothing is noticed.
pub(super) struct Seen {
    pub(super) segments: usize,
    pub(super) batches: usize,
    pub(super) records: usize,
    pub(super) compressions: BTreeSet<String>,
    pub(super) index_entries: usize,
    pub(super) time_index_entries: usize,
    pub(super) first_segment: Segment,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} segments, {} batches of {:?}, {} records, {} index entries, {} time index entries",
            self.segments,
            self.batches,
            self.compressions,
            self.records,
            self.index_entries,
            self.time_index_entries
        )
    }
}

/// A batch as the tool prints it.
struct Batch {
    base_offset: i64,
    last_offset: i64,
    position: usize,
    size: usize,
    max_timestamp_ms: i64,
    leader_epoch: i32,
}

/// One file's part of the tool's output.
#[derive(Default)]
struct Section {
    batches: Vec<Batch>,
    records: Vec<Stored>,
    compressions: BTreeSet<String>,
    /// Offset and position.
    index: Vec<(i64, usize)>,
    /// Timestamp and offset.
    time_index: Vec<(i64, i64)>,
}

/// Demands that the tool finds exactly `expected` in a partition's files and nothing wrong.
pub(super) fn check(java: &Java, directory: &Path, expected: &[Stored]) -> Result<Seen> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if [".log", ".index", ".timeindex"]
            .iter()
            .any(|end| name.ends_with(end))
        {
            names.insert(name);
        }
    }
    let segments: Vec<String> = names
        .iter()
        .filter_map(|name| name.strip_suffix(".log"))
        .map(str::to_owned)
        .collect();
    for segment in &segments {
        for end in [".index", ".timeindex"] {
            ensure!(
                names.contains(&format!("{segment}{end}")),
                "{segment}{end} is missing"
            );
        }
    }
    let files: Vec<String> = names
        .iter()
        .map(|name| directory.join(name).display().to_string())
        .collect();
    let mut command = java.tools();
    command
        .arg("org.apache.kafka.tools.DumpLogSegments")
        .args([
            "--files",
            &files.join(","),
            "--deep-iteration",
            "--print-data-log",
        ])
        .args([
            "--key-decoder-class",
            "HexDecoder",
            "--value-decoder-class",
            "HexDecoder",
        ]);
    let said = run(&mut command, b"", Duration::from_secs(120))?;
    let complaints = complaints(&said.err);
    ensure!(
        complaints.is_empty(),
        "it complains: {}",
        complaints.join("\n")
    );
    let sections = parse(&said.text())?;
    judge(&segments, &names, &sections, expected)
}

/// What it says on its standard error, apart from one thing: it begins every file as if the offset
/// before it were -1, and calls it a gap when a segment begins anywhere else than at 0.
fn complaints(said: &str) -> Vec<String> {
    let lines: Vec<&str> = said.lines().collect();
    let mut complaints = Vec::new();
    let mut n = 0;
    while n < lines.len() {
        let follower = lines.get(n + 1).copied().unwrap_or_default();
        if is_first_offset(lines[n], follower) {
            n += 2;
            // One gap a file, and an empty line behind each file's gaps.
            n += usize::from(lines.get(n).is_some_and(|line| line.is_empty()));
        } else {
            complaints.push(lines[n].to_owned());
            n += 1;
        }
    }
    complaints
}

fn is_first_offset(line: &str, follower: &str) -> bool {
    let segment = line
        .strip_prefix("Non-consecutive offsets in ")
        .and_then(|path| Path::new(path).file_stem()?.to_str()?.parse::<i64>().ok());
    segment.is_some_and(|base| follower == format!("  -1 is followed by {base}"))
}

fn judge(
    segments: &[String],
    names: &BTreeSet<String>,
    sections: &BTreeMap<String, Section>,
    expected: &[Stored],
) -> Result<Seen> {
    ensure!(
        sections.keys().eq(names.iter()),
        "it dumped {:?} of {names:?}",
        sections.keys().collect::<Vec<_>>()
    );
    let mut seen = Seen {
        segments: segments.len(),
        batches: 0,
        records: 0,
        compressions: BTreeSet::new(),
        index_entries: 0,
        time_index_entries: 0,
        first_segment: Segment {
            name: segments.first().context("no segment")?.clone(),
            batches: Vec::new(),
        },
    };
    let mut records = Vec::new();
    let mut next_offset = 0;
    let mut epoch = None;
    for name in segments {
        let log = &sections[&format!("{name}.log")];
        ensure!(
            name.parse() == Ok(next_offset),
            "segment {name} begins where offset {next_offset} is due"
        );
        let mut position = 0;
        for batch in &log.batches {
            ensure!(
                (batch.base_offset, batch.position) == (next_offset, position),
                "a batch at offset {} and position {} where {next_offset} and {position} are due",
                batch.base_offset,
                batch.position
            );
            // Nothing was restarted, so one leader wrote everything.
            let epoch = *epoch.get_or_insert(batch.leader_epoch);
            ensure!(
                batch.leader_epoch == epoch,
                "epoch {} after {epoch}",
                batch.leader_epoch
            );
            next_offset = batch.last_offset + 1;
            position += batch.size;
        }
        let index = &sections[&format!("{name}.index")].index;
        let time_index = &sections[&format!("{name}.timeindex")].time_index;
        judge_indexes(log, index, time_index).with_context(|| format!("the indexes of {name}"))?;
        seen.batches += log.batches.len();
        seen.records += log.records.len();
        seen.compressions.extend(log.compressions.iter().cloned());
        seen.index_entries += index.len();
        seen.time_index_entries += time_index.len();
        records.extend(log.records.iter().cloned());
    }
    seen.first_segment.batches = sections[&format!("{}.log", segments[0])]
        .batches
        .iter()
        .map(|batch| (batch.position, batch.size))
        .collect();
    // The tool prints the names of headers but not their values.
    let expected: Vec<Stored> = expected
        .iter()
        .cloned()
        .map(without_header_values)
        .collect();
    compare("what it printed", &expected, &records)?;
    Ok(seen)
}

fn judge_indexes(log: &Section, index: &[(i64, usize)], time_index: &[(i64, i64)]) -> Result<()> {
    let mut last = -1;
    for (offset, position) in index {
        let batch = log
            .batches
            .iter()
            .find(|batch| batch.position == *position)
            .with_context(|| {
                format!("offset {offset} points at position {position}, where no batch begins")
            })?;
        ensure!(
            (batch.base_offset..=batch.last_offset).contains(offset),
            "offset {offset} points at the batch {}..={}",
            batch.base_offset,
            batch.last_offset
        );
        ensure!(*offset > last, "offset {offset} after {last}");
        last = *offset;
    }
    let mut last = (-1, -1);
    for (timestamp_ms, offset) in time_index {
        let batch = log
            .batches
            .iter()
            .find(|batch| (batch.base_offset..=batch.last_offset).contains(offset))
            .with_context(|| {
                format!("timestamp {timestamp_ms} points at offset {offset}, which is not here")
            })?;
        ensure!(
            batch.max_timestamp_ms == *timestamp_ms,
            "timestamp {timestamp_ms} points at offset {offset} of a batch of {}",
            batch.max_timestamp_ms
        );
        ensure!(
            (*timestamp_ms, *offset) > last,
            "{timestamp_ms} at {offset} after {last:?}"
        );
        last = (*timestamp_ms, *offset);
    }
    Ok(())
}

fn without_header_values(mut stored: Stored) -> Stored {
    for (_, value) in &mut stored.event.headers {
        *value = None;
    }
    stored
}

/// Every line must be of a kind that is known, and none of the known kinds is a complaint.
fn parse(text: &str) -> Result<BTreeMap<String, Section>> {
    let mut sections = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("Dumping ") {
            name = Path::new(path)
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            sections.insert(name.clone(), Section::default());
            continue;
        }
        let section = sections
            .get_mut(&name)
            .with_context(|| format!("before any file it says: {line}"))?;
        let fields = fields(line);
        if let Some(start) = line.strip_prefix("Log starting offset: ") {
            let offset: i64 = start.parse()?;
            ensure!(
                name == format!("{offset:020}.log"),
                "{name} says it starts at {offset}"
            );
        } else if line.starts_with("baseOffset: ") {
            section
                .batches
                .push(batch(&fields).with_context(|| line.to_owned())?);
            section
                .compressions
                .insert(text_of(&fields, "compresscodec")?.to_owned());
        } else if line.starts_with("| offset: ") {
            section
                .records
                .push(record(&fields, line).with_context(|| line.to_owned())?);
        } else if line.starts_with("offset: ") && name.ends_with(".index") {
            section
                .index
                .push((number(&fields, "offset")?, number(&fields, "position")?));
        } else if line.starts_with("timestamp: ") && name.ends_with(".timeindex") {
            section
                .time_index
                .push((number(&fields, "timestamp")?, number(&fields, "offset")?));
        } else {
            bail!("about {name} it says: {line}");
        }
    }
    Ok(sections)
}

/// The `name: value` pairs of a line; no value has a space in it, as bytes are printed as digits.
fn fields(line: &str) -> BTreeMap<&str, &str> {
    let words: Vec<&str> = line.split(' ').collect();
    words
        .windows(2)
        .filter_map(|pair| Some((pair[0].strip_suffix(':')?, pair[1])))
        .collect()
}

fn text_of<'a>(fields: &BTreeMap<&str, &'a str>, name: &str) -> Result<&'a str> {
    fields
        .get(name)
        .copied()
        .with_context(|| format!("no {name}"))
}

fn number<T: std::str::FromStr>(fields: &BTreeMap<&str, &str>, name: &str) -> Result<T> {
    let text = text_of(fields, name)?;
    text.parse()
        .ok()
        .with_context(|| format!("{name} is {text}"))
}

fn batch(fields: &BTreeMap<&str, &str>) -> Result<Batch> {
    for (name, due) in [
        ("isvalid", "true"),
        ("magic", "2"),
        ("isTransactional", "false"),
        ("isControl", "false"),
    ] {
        let is = text_of(fields, name)?;
        ensure!(is == due, "{name} is {is}");
    }
    let batch = Batch {
        base_offset: number(fields, "baseOffset")?,
        last_offset: number(fields, "lastOffset")?,
        position: number(fields, "position")?,
        size: number(fields, "size")?,
        max_timestamp_ms: number(fields, "CreateTime")?,
        leader_epoch: number(fields, "partitionLeaderEpoch")?,
    };
    let count: i64 = number(fields, "count")?;
    ensure!(
        batch.last_offset - batch.base_offset + 1 == count,
        "the count is {count}"
    );
    Ok(batch)
}

fn record(fields: &BTreeMap<&str, &str>, line: &str) -> Result<Stored> {
    let bytes = |size: &str, name: &str| -> Result<Option<Vec<u8>>> {
        let length: i64 = number(fields, size)?;
        if length < 0 {
            ensure!(!fields.contains_key(name), "a null {name} is printed");
            return Ok(None);
        }
        let bytes =
            from_hex(text_of(fields, name)?)?.with_context(|| format!("the {name} is null"))?;
        ensure!(
            bytes.len() as i64 == length,
            "the {name} has {} bytes, said to be {length}",
            bytes.len()
        );
        Ok(Some(bytes))
    };
    let (_, names) = line.split_once("headerKeys: [").context("no headers")?;
    let (names, _) = names.split_once(']').context("headers without an end")?;
    let event = Event {
        timestamp_ms: number(fields, "CreateTime")?,
        key: bytes("keySize", "key")?,
        value: bytes("valueSize", "payload")?,
        headers: names
            .split(',')
            .filter(|name| !name.is_empty())
            .map(|name| (name.to_owned(), None))
            .collect(),
    };
    Ok(Stored {
        offset: number(fields, "offset")?,
        event,
    })
}
