//! kcat, with the librdkafka of the distribution (2.0.2 on Debian 12): the oldest client here.

use super::{COMPRESSIONS, LIBRDKAFKA_SENDS_PLAIN};
use crate::command::{Said, run};
use crate::event::{Event, Stored, compare, from_offset};
use crate::installed::machine_program;
use crate::kafka::{PATIENCE, Reader, create_topic, now_ms, unique};
use crate::raw::is_stored_as;
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Between messages and between key and value: bytes that no key or value here has.
const MESSAGE_END: u8 = 0x1e;
const KEY_END: u8 = 0x1f;
/// Every length before its bytes, so that nothing in them can be mistaken for a separator.
const FORMAT: &str = "%p %o %T %K %S %k%s %h\\x1e";

type Pair = (Option<Vec<u8>>, Option<Vec<u8>>);
/// What one run of kcat produces: the partition, whether empty means null, the headers, the rest.
struct Load {
    partition: usize,
    nulls: bool,
    headers: Vec<(&'static str, Option<&'static str>)>,
    pairs: Vec<Pair>,
}

fn kcat() -> Result<Command> {
    Ok(Command::new(machine_program("kcat", "kcat", "kcat")?))
}

pub(super) fn records(brokers: &str) -> Result<()> {
    kcat()?;
    for compression in COMPRESSIONS {
        check(brokers, compression).with_context(|| format!("compression {compression}"))?;
    }
    Ok(())
}

fn check(brokers: &str, compression: &str) -> Result<()> {
    let topic = &unique(&format!("kcat-{compression}"));
    create_topic(brokers, topic, 2, &[])?;
    let begun_ms = now_ms();
    let loads = loads();
    for load in &loads {
        produce(brokers, topic, compression, load)?;
    }

    // What librdkafka reads through the other client, compared with what went in. kcat lets nobody
    // choose a timestamp, so those are taken from here and only held against the clock.
    if compression != LIBRDKAFKA_SENDS_PLAIN {
        is_stored_as(brokers, topic, 2, compression)?;
    }
    let reader = Reader::new(brokers)?;
    let logs = reader.read_all(topic, 2)?;
    for (partition, log) in logs.iter().enumerate() {
        let mut expected = expected(&loads, partition);
        for (expected, got) in expected.iter_mut().zip(log) {
            let timestamp_ms = got.event.timestamp_ms;
            ensure!(
                (begun_ms..=now_ms()).contains(&timestamp_ms),
                "partition {partition}: a timestamp of {timestamp_ms} is not of this run"
            );
            expected.event.timestamp_ms = timestamp_ms;
        }
        compare(
            &format!("partition {partition} as the rdkafka crate reads it"),
            &expected,
            log,
        )?;
    }

    let middle = logs[0].len() as i64 / 2;
    // The second load of partition 0 came from a later run of kcat.
    let second = &logs[0][loads[0].pairs.len()];
    let since = crate::event::offset_at(&logs[0], second.event.timestamp_ms).unwrap();
    ensure!(since > 0, "both runs of kcat fell into one millisecond");
    for (what, partition, from, expected) in [
        ("from the start", 0, "beginning".to_owned(), &logs[0][..]),
        ("from the start", 1, "beginning".to_owned(), &logs[1][..]),
        ("from offset 0", 0, "0".to_owned(), &logs[0][..]),
        (
            "from the middle",
            0,
            middle.to_string(),
            from_offset(&logs[0], middle),
        ),
        (
            "from a timestamp",
            0,
            format!("s@{}", second.event.timestamp_ms),
            from_offset(&logs[0], since),
        ),
        (
            "the last three",
            0,
            "-3".to_owned(),
            &logs[0][logs[0].len() - 3..],
        ),
        ("from the end", 0, "end".to_owned(), &[]),
    ] {
        let got = consume(brokers, topic, partition, &from)?;
        compare(&format!("partition {partition}, {what}"), expected, &got)?;
    }
    at_the_end(brokers, topic, logs[1].len() as i64)
}

fn loads() -> Vec<Load> {
    let text = |n: usize| format!("value {n} {}", "and so on ".repeat(n % 60)).into_bytes();
    let bytes = |n: usize| {
        (0..200)
            .map(|i| (i * 7 + n) as u8)
            .filter(|b| ![MESSAGE_END, KEY_END].contains(b))
            .collect()
    };
    let pairs = |nulls: bool, base: usize| -> Vec<Pair> {
        let absent = || (!nulls).then(Vec::new);
        (base..base + 60)
            .map(|n| match n % 6 {
                // kcat drops a message that is empty as a whole unless it stands for nulls.
                0 if nulls => (None, None),
                1 => (absent(), Some(text(n))),
                2 => (Some(format!("key-{n}").into_bytes()), absent()),
                3 => (Some(vec![0x80, n as u8 | 0x40, 0xff]), Some(bytes(n))),
                _ => (Some(format!("key-{}", n % 9).into_bytes()), Some(text(n))),
            })
            .collect()
    };
    let headers = vec![
        ("origin", Some("kcat")),
        ("null", None),
        ("empty", Some("")),
        ("origin", Some("again")),
    ];
    vec![
        Load {
            partition: 0,
            nulls: true,
            headers: headers.clone(),
            pairs: pairs(true, 0),
        },
        Load {
            partition: 1,
            nulls: false,
            headers: Vec::new(),
            pairs: pairs(false, 60),
        },
        Load {
            partition: 0,
            nulls: false,
            headers,
            pairs: pairs(false, 120),
        },
    ]
}

fn expected(loads: &[Load], partition: usize) -> Vec<Stored> {
    let mut log = Vec::new();
    for load in loads.iter().filter(|load| load.partition == partition) {
        for (key, value) in &load.pairs {
            let headers = load.headers.iter().map(|(name, value)| {
                (
                    (*name).to_owned(),
                    value.map(|value| value.as_bytes().to_vec()),
                )
            });
            let event = Event {
                timestamp_ms: 0,
                key: key.clone(),
                value: value.clone(),
                headers: headers.collect(),
            };
            log.push(Stored {
                offset: log.len() as i64,
                event,
            });
        }
    }
    log
}

fn produce(brokers: &str, topic: &str, compression: &str, load: &Load) -> Result<()> {
    let mut input = Vec::new();
    for (key, value) in &load.pairs {
        input.extend(key.iter().flatten());
        input.push(KEY_END);
        input.extend(value.iter().flatten());
        input.push(MESSAGE_END);
    }
    let mut command = kcat()?;
    command
        .args([
            "-P",
            "-b",
            brokers,
            "-t",
            topic,
            "-z",
            compression,
            "-p",
            &load.partition.to_string(),
        ])
        .args([
            "-D",
            "\\x1e",
            "-K",
            "\\x1f",
            "-X",
            "acks=all",
            "-X",
            "enable.idempotence=true",
        ]);
    if load.nulls {
        command.arg("-Z");
    }
    for (name, value) in &load.headers {
        command.arg("-H").arg(match value {
            Some(value) => format!("{name}={value}"),
            None => (*name).to_owned(),
        });
    }
    run(&mut command, &input, PATIENCE)?;
    Ok(())
}

fn consumer(brokers: &str, topic: &str, partition: usize, from: &str) -> Result<Command> {
    let mut command = kcat()?;
    command
        .args([
            "-C",
            "-b",
            brokers,
            "-t",
            topic,
            "-p",
            &partition.to_string(),
            "-o",
            from,
        ])
        .args([
            "-f",
            FORMAT,
            "-X",
            "fetch.wait.max.ms=20",
            "-X",
            "check.crcs=true",
        ]);
    Ok(command)
}

fn consume(brokers: &str, topic: &str, partition: usize, from: &str) -> Result<Vec<Stored>> {
    let said = run(
        consumer(brokers, topic, partition, from)?.arg("-e"),
        b"",
        PATIENCE,
    )?;
    parse(&said.out)
}

/// Reads what [`FORMAT`] wrote.
fn parse(mut output: &[u8]) -> Result<Vec<Stored>> {
    let mut log = Vec::new();
    while !output.is_empty() {
        let mut number = || -> Result<i64> {
            let end = output
                .iter()
                .position(|byte| *byte == b' ')
                .context("half a line from kcat")?;
            let (digits, rest) = output.split_at(end);
            output = &rest[1..];
            Ok(std::str::from_utf8(digits)?.parse()?)
        };
        let (_partition, offset, timestamp_ms) = (number()?, number()?, number()?);
        let (key, value) = (number()?, number()?);
        let mut bytes = |length: i64| -> Result<Option<Vec<u8>>> {
            let Ok(length) = usize::try_from(length) else {
                return Ok(None);
            };
            let (bytes, rest) = output
                .split_at_checked(length)
                .context("kcat's output ends inside a record")?;
            output = rest;
            Ok(Some(bytes.to_vec()))
        };
        let (key, value) = (bytes(key)?, bytes(value)?);
        let end = output
            .iter()
            .position(|byte| *byte == MESSAGE_END)
            .context("a record without an end")?;
        let (headers, rest) = output.split_at(end);
        output = &rest[1..];
        let headers = std::str::from_utf8(headers)?.trim_start().to_owned();
        let headers = headers
            .split(',')
            .filter(|header| !header.is_empty())
            .map(|header| {
                let (name, value) = header.split_once('=').unwrap_or((header, ""));
                // This is how kcat prints a null, and no value here is that word.
                (
                    name.to_owned(),
                    (value != "NULL").then(|| value.as_bytes().to_vec()),
                )
            });
        let event = Event {
            timestamp_ms,
            key,
            value,
            headers: headers.collect(),
        };
        log.push(Stored { offset, event });
    }
    Ok(log)
}

/// A kcat that stands at the end of partition 1 prints what another one produces then.
fn at_the_end(brokers: &str, topic: &str, end: i64) -> Result<()> {
    let mut command = consumer(brokers, topic, 1, "end")?;
    let child = command
        .args(["-c", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut child = KilledOnDrop(child);
    let mut heard = BufReader::new(child.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("Reached end of topic") {
        line.clear();
        ensure!(
            heard.read_line(&mut line)? > 0,
            "kcat ended without reaching the end of the topic"
        );
    }
    ensure!(
        line.contains(&format!("at offset {end}")),
        "kcat found another end than {end}: {line}"
    );
    let load = Load {
        partition: 1,
        nulls: false,
        headers: Vec::new(),
        pairs: vec![(Some(b"late".to_vec()), Some(b"after the end".to_vec()))],
    };
    produce(brokers, topic, "none", &load)?;
    let mut out = Vec::new();
    child.0.stdout.take().unwrap().read_to_end(&mut out)?;
    let got = parse(&out)?;
    let [stored] = &got[..] else {
        bail!("after the end: {got:?}")
    };
    ensure!(
        stored.offset == end && stored.event.value.as_deref() == Some(b"after the end".as_slice()),
        "after the end, at offset {end}: {stored:?}"
    );
    Ok(())
}

/// A child that does not outlive the test that waits for it.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The first thing anybody does: no topic, and a line of text goes in and comes out.
pub(super) fn creates_a_topic(brokers: &str) -> Result<()> {
    let topic = &unique("kcat-fresh");
    let mut command = kcat()?;
    run(
        command.args(["-P", "-b", brokers, "-t", topic]),
        b"hello\nworld\n",
        PATIENCE,
    )?;
    let mut command = kcat()?;
    command.args([
        "-C",
        "-b",
        brokers,
        "-t",
        topic,
        "-o",
        "beginning",
        "-e",
        "-q",
    ]);
    let mut lines: Vec<String> = run(&mut command, b"", PATIENCE)?
        .text()
        .lines()
        .map(str::to_owned)
        .collect();
    // Without a key the two may lie in different partitions.
    lines.sort();
    ensure!(lines == ["hello", "world"], "kcat read {lines:?}");
    Ok(())
}

pub(super) fn lists(brokers: &str) -> Result<()> {
    let topic = &unique("kcat-listed");
    create_topic(brokers, topic, 4, &[])?;
    let mut command = kcat()?;
    let said: Said = run(command.args(["-L", "-J", "-b", brokers]), b"", PATIENCE)?;
    let listed: serde_json::Value = serde_json::from_slice(&said.out)?;
    let topics = listed["topics"].as_array().context("no topics")?;
    let mine = topics
        .iter()
        .find(|entry| entry["topic"] == topic.as_str())
        .context("the topic is not listed")?;
    let partitions = mine["partitions"].as_array().context("no partitions")?;
    ensure!(partitions.len() == 4, "4 partitions expected: {mine}");
    let broker = &listed["brokers"][0]["id"];
    for partition in partitions {
        ensure!(
            &partition["leader"] == broker,
            "another leader than broker {broker}: {partition}"
        );
    }
    // A consumer's own question for one topic is another code path than the list of all.
    let mut command = kcat()?;
    let ask = format!("{topic}:0:{}", now_ms());
    let said = run(
        command.args(["-Q", "-b", brokers, "-t", &ask]),
        b"",
        Duration::from_secs(30),
    )?
    .text();
    ensure!(
        said.contains("[0] offset -1") || said.contains("[0] offset 0"),
        "an empty partition's offset: {said}"
    );
    Ok(())
}
