//! Real input: npm's `vega-datasets`. Falling timestamps, thousands of equal rows, keys with very
//! uneven shares. Every value is a row's bytes as they stand in the file, the header `n` is its
//! number, and what is read is compared as the full list of `n`, in order, not as a set. All of it
//! is read again after SIGKILL.

use crate::event::{Event, Stored, compare, from_offset, offset_at};
use crate::installed::vega_datasets;
use crate::kafka::{Delivered, Reader, create_topic, now_ms, produce, unique};
use crate::node::{Node, foreign_brokers};
use crate::raw::watermarks;
use crate::trial::{note, trial};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rdkafka::topic_partition_list::Offset;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fs;
use std::path::Path;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "real_input::every_row_comes_back_also_after_sigkill",
            || {
                let data = vega_datasets()?;
                match foreign_brokers() {
                    Some(brokers) => all_sets(&data, &brokers).map(drop),
                    None => {
                        let mut node = Node::start()?;
                        let result = before_and_after_a_kill(&data, &mut node);
                        node.explain(result)
                    }
                }
            },
        ),
        trial("real_input::murmur2_is_kafkas", murmur2_is_kafkas),
    ]
}

fn before_and_after_a_kill(data: &Path, node: &mut Node) -> Result<()> {
    let mut sets = all_sets(data, &node.brokers())?;
    node.kill()?;
    node.spawn()?;
    node.wait_ready().context("after SIGKILL")?;
    for set in &mut sets {
        set.check(&node.brokers()).context("after SIGKILL")?;
    }
    Ok(())
}

/// Every data set, the largest last.
pub(crate) fn sets() -> Result<Vec<Set>> {
    let data = vega_datasets()?;
    Ok(vec![
        flights_20k(&data)?,
        earthquakes(&data)?,
        flights_200k(&data)?,
    ])
}

/// Produces every data set and reads it back.
fn all_sets(data: &Path, brokers: &str) -> Result<Vec<Set>> {
    let mut sets = vec![flights_20k(data)?, flights_200k(data)?, earthquakes(data)?];
    for set in &mut sets {
        set.produce(brokers)?;
        set.check(brokers)?;
        let sizes: Vec<usize> = set.logs.iter().map(Vec::len).collect();
        note(format_args!(
            "real input: {} has {sizes:?} rows in its partitions",
            set.name
        ));
    }
    Ok(sets)
}

/// One file of the package as a topic.
pub(crate) struct Set {
    name: &'static str,
    topic: String,
    settings: Vec<(&'static str, &'static str)>,
    rows: Vec<Event>,
    /// By partition: computed from the file where there are keys, from what was acknowledged where
    /// there are none. Complete after [`Set::produce`].
    logs: Vec<Vec<Stored>>,
}

#[derive(Deserialize)]
struct Flight<'a> {
    date: &'a str,
    origin: &'a str,
}

fn flights_20k(data: &Path) -> Result<Set> {
    let text = read(data, "flights-20k.json")?;
    let mut rows = Vec::new();
    for (n, row) in rows_of(&text)?.into_iter().enumerate() {
        let flight: Flight<'_> = serde_json::from_str(row.get())?;
        rows.push(event(n, parse_date(flight.date)?, Some(flight.origin), row));
    }
    ensure!(
        rows.len() == 20_000,
        "flights-20k.json has {} rows",
        rows.len()
    );
    Ok(Set::new(
        "flights-20k",
        6,
        vec![("compression.type", "lz4")],
        rows,
    ))
}

fn flights_200k(data: &Path) -> Result<Set> {
    let text = read(data, "flights-200k.json")?;
    let begun_ms = now_ms();
    // CreateTime now: producers that send in bursts give hundreds of records one millisecond.
    let rows: Vec<Event> = rows_of(&text)?
        .into_iter()
        .enumerate()
        .map(|(n, row)| event(n, begun_ms + n as i64 / 400, None, row))
        .collect();
    ensure!(
        rows.len() == 200_000,
        "flights-200k.json has {} rows",
        rows.len()
    );
    Ok(Set::new(
        "flights-200k",
        6,
        vec![("sticky.partitioning.linger.ms", "2")],
        rows,
    ))
}

#[derive(Deserialize)]
struct Earthquakes<'a> {
    #[serde(borrow)]
    features: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Feature<'a> {
    id: &'a str,
    properties: Properties,
}

#[derive(Deserialize)]
struct Properties {
    time: i64,
}

fn earthquakes(data: &Path) -> Result<Set> {
    let text = read(data, "earthquakes.json")?;
    let mut rows = Vec::new();
    for (n, row) in serde_json::from_str::<Earthquakes<'_>>(&text)?
        .features
        .into_iter()
        .enumerate()
    {
        let feature: Feature<'_> = serde_json::from_str(row.get())?;
        rows.push(event(n, feature.properties.time, Some(feature.id), row));
    }
    ensure!(
        rows.len() > 1000
            && rows
                .windows(2)
                .all(|pair| pair[0].timestamp_ms >= pair[1].timestamp_ms),
        "the times of earthquakes.json are meant to fall"
    );
    Ok(Set::new(
        "earthquakes",
        3,
        vec![("compression.type", "zstd")],
        rows,
    ))
}

fn read(data: &Path, name: &str) -> Result<String> {
    fs::read_to_string(data.join(name)).with_context(|| format!("reading {name}"))
}

fn rows_of(text: &str) -> Result<Vec<&RawValue>> {
    Ok(serde_json::from_str(text)?)
}

fn event(n: usize, timestamp_ms: i64, key: Option<&str>, row: &RawValue) -> Event {
    Event {
        timestamp_ms,
        key: key.map(|key| key.as_bytes().to_vec()),
        value: Some(row.get().as_bytes().to_vec()),
        headers: vec![("n".to_owned(), Some(n.to_string().into_bytes()))],
    }
}

/// Milliseconds since 1970 of a date like `2001/01/31 22:27`, in UTC.
fn parse_date(date: &str) -> Result<i64> {
    let numbers: Vec<i64> = date
        .split(['/', ' ', ':'])
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| date.to_owned())?;
    let [year, month, day, hour, minute] = numbers[..] else {
        anyhow::bail!("not a date: {date}");
    };
    // Days since 1970 in the proleptic Gregorian calendar, counting years from March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Ok(((days * 24 + hour) * 60 + minute) * 60_000)
}

impl Set {
    fn new(
        name: &'static str,
        partitions: usize,
        settings: Vec<(&'static str, &'static str)>,
        rows: Vec<Event>,
    ) -> Set {
        Set {
            name,
            topic: unique(name),
            settings,
            rows,
            logs: vec![Vec::new(); partitions],
        }
    }

    pub(crate) fn produce(&mut self, brokers: &str) -> Result<()> {
        // Segments of 1 MiB, the smallest that Kafka allows too: the larger sets have several.
        create_topic(
            brokers,
            &self.topic,
            self.logs.len(),
            &[("segment.bytes", "1048576")],
        )?;
        let mut settings = vec![("partitioner", "murmur2_random")];
        settings.extend(&self.settings);
        let events = self.rows.iter().map(|row| (None, row));
        let delivered = produce(brokers, &self.topic, &settings, events)?;
        let rows = std::mem::take(&mut self.rows);
        for (n, (row, at)) in rows.iter().zip(&delivered).enumerate() {
            self.place(n, row, *at)
                .with_context(|| format!("row {n} of {}", self.name))?;
        }
        self.rows = rows;
        Ok(())
    }

    /// The next row's place: the end of the partition that its key decides, in the file's order.
    fn place(&mut self, n: usize, row: &Event, at: Delivered) -> Result<()> {
        let partition = match &row.key {
            Some(key) => (murmur2(key) & 0x7fff_ffff) as usize % self.logs.len(),
            None => at.partition,
        };
        let log = self
            .logs
            .get_mut(partition)
            .context("a partition that does not exist")?;
        let offset = log.len() as i64;
        ensure!(
            (at.partition, at.offset, at.timestamp_ms) == (partition, offset, row.timestamp_ms),
            "acknowledged as {at:?}, its place is {partition}/{offset} at {}",
            row.timestamp_ms
        );
        let headers = vec![("n".to_owned(), Some(n.to_string().into_bytes()))];
        ensure!(row.headers == headers, "the row's header is not its number");
        log.push(Stored {
            offset,
            event: row.clone(),
        });
        Ok(())
    }

    /// Joins at the start, a middle offset, timestamps and the end.
    pub(crate) fn check(&mut self, brokers: &str) -> Result<()> {
        self.joined(brokers).with_context(|| self.name)
    }

    fn joined(&mut self, brokers: &str) -> Result<()> {
        let reader = Reader::new(brokers)?;
        self.join(&reader, "the start", |_| 0)?;
        self.join(&reader, "the middle", |log| log.len() as i64 / 2)?;
        for share in [1, 3, 7] {
            // The timestamp of a row somewhere inside, and the moment after it.
            for after in [0, 1] {
                let at = |log: &[Stored]| log[log.len() * share / 8].event.timestamp_ms + after;
                for (partition, log) in self.logs.iter().enumerate() {
                    self.look_up(&reader, partition, at(log))?;
                }
                self.join(&reader, "a timestamp", |log| {
                    offset_at(log, at(log)).unwrap_or(log.len() as i64)
                })?;
            }
        }
        for (partition, log) in self.logs.iter().enumerate() {
            let times = log.iter().map(|stored| stored.event.timestamp_ms);
            let (first, last) = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
            for timestamp_ms in [0, first, last, last + 1] {
                self.look_up(&reader, partition, timestamp_ms)?;
            }
            let marks = watermarks(brokers, &self.topic, partition)?;
            ensure!(
                marks == (0, log.len() as i64),
                "partition {partition}: watermarks {marks:?} of {} rows",
                log.len()
            );
        }
        self.join_the_end(brokers, &reader)
    }

    /// The broker's answer for a timestamp against the one computed from the file.
    fn look_up(&self, reader: &Reader, partition: usize, timestamp_ms: i64) -> Result<()> {
        let expected = offset_at(&self.logs[partition], timestamp_ms);
        let got = reader.offset_at(&self.topic, partition, timestamp_ms)?;
        ensure!(
            got == expected,
            "partition {partition} at {timestamp_ms}: offset {got:?}, not {expected:?}"
        );
        Ok(())
    }

    fn join(&self, reader: &Reader, what: &str, from: impl Fn(&[Stored]) -> i64) -> Result<()> {
        let places: Vec<_> = self
            .logs
            .iter()
            .map(|log| Offset::Offset(from(log)))
            .enumerate()
            .collect();
        let got = reader.read(&self.topic, &places)?;
        for (partition, (log, got)) in self.logs.iter().zip(&got).enumerate() {
            compare(
                &format!("partition {partition} from {what}"),
                from_offset(log, from(log)),
                got,
            )?;
        }
        Ok(())
    }

    /// A consumer at the end is given nothing old, and then exactly what comes.
    fn join_the_end(&mut self, brokers: &str, reader: &Reader) -> Result<()> {
        let places: Vec<_> = (0..self.logs.len())
            .map(|partition| (partition, Offset::End))
            .collect();
        for (partition, got) in reader.read(&self.topic, &places)?.iter().enumerate() {
            compare(&format!("partition {partition} from the end"), &[], got)?;
        }
        // The last row once more, as the next of its partition.
        let n = self.rows.len();
        let mut row = self.rows[n - 1].clone();
        row.headers = vec![("n".to_owned(), Some(n.to_string().into_bytes()))];
        let delivered = produce(
            brokers,
            &self.topic,
            &[("partitioner", "murmur2_random")],
            [(None, &row)],
        )?;
        let at = delivered[0];
        self.place(n, &row, at)?;
        let got = reader.take(&self.topic, at.partition, Offset::OffsetTail(1), 1)?;
        let log = &self.logs[at.partition];
        compare("what came after the end", &log[log.len() - 1..], &got)?;
        self.rows.push(row);
        Ok(())
    }
}

/// The hash by which Kafka's own producers choose a partition for a key.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().unwrap()).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (n, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * n);
        }
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

/// The values that Apache Kafka's own unit test gives for its hash.
fn murmur2_is_kafkas() -> Result<()> {
    for (key, expected) in [
        ("21", -973_932_308_i32),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        (
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        ),
        ("abc", 479_470_107),
    ] {
        let got = murmur2(key.as_bytes()).cast_signed();
        ensure!(
            got == expected,
            "the hash of {key:?} is {got}, not {expected}"
        );
    }
    Ok(())
}
