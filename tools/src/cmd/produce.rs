//! `riverrun produce`: lines in, records out.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read, Write},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use riverrun_client::{
    Acks, Compression, Delivery, Producer, ProducerConfig, ProducerRecord, RecordMetadata,
};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::{
    cli::{AcksArg, Codec, Format, Global, ProduceArgs},
    cmd::connect,
    output::{self, Stdout},
};

/// Longest line: what fits into a request with room for the rest of a record.
const MAX_LINE_BYTES: u64 = (1 << 20) - 4096;
/// Lines read ahead of the producer.
const LINES_AHEAD: usize = 256;
/// Records sent and not answered for.
const MAX_UNANSWERED: usize = 50_000;

pub(super) async fn run(global: &Global, args: ProduceArgs) -> anyhow::Result<()> {
    let client = connect(global).await?;
    let acks = match args.acks {
        AcksArg::All => Acks::All,
        AcksArg::One => Acks::Leader,
        AcksArg::Zero => Acks::None,
    };
    let config = ProducerConfig {
        acks,
        idempotence: acks == Acks::All,
        compression: match args.compression {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        },
        max_block: client.config().operation_timeout,
        delivery_timeout: client.config().operation_timeout,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(client, config)?;
    let mut lines = read_lines();
    let shape = Shape::new(&args);
    let mut report = Report {
        out: (!args.quiet).then(output::stdout),
        format: global.format,
    };
    let mut unanswered: VecDeque<(u64, Delivery)> = VecDeque::new();
    let mut failure = None;
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut number = 0;
    loop {
        // What is answered is reported before anything is waited for.
        while failure.is_none()
            && unanswered
                .front()
                .is_some_and(|(_, d)| d.try_get().is_some())
        {
            failure = answer(&mut unanswered, &mut report).await;
        }
        if failure.is_some() {
            break;
        }
        let full = unanswered.len() >= MAX_UNANSWERED;
        tokio::select! {
            biased;
            _ = &mut interrupted => break,
            line = lines.recv(), if !full => {
                let Some(line) = line else { break };
                number += 1;
                let sent = match line {
                    Ok(line) => producer.send(shape.record(line)).await.map_err(anyhow::Error::from),
                    Err(error) => Err(error),
                };
                match sent.with_context(|| format!("line {number}")) {
                    Ok(delivery) => unanswered.push_back((number, delivery)),
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
            }
            () = idle(&unanswered), if !unanswered.is_empty() => {}
        }
        if lines.is_empty() {
            report.flush()?;
        }
    }
    // Whatever stopped us, what was sent before it is answered for.
    producer.flush().await;
    while !unanswered.is_empty() {
        let failed = answer(&mut unanswered, &mut report).await;
        failure = failure.or(failed);
    }
    report.flush()?;
    producer.close().await;
    failure.map_or(Ok(()), Err)
}

/// Waits until the oldest record is answered.
async fn idle(unanswered: &VecDeque<(u64, Delivery)>) {
    if let Some((_, delivery)) = unanswered.front() {
        delivery.ready().await;
    }
}

/// Takes the oldest record's answer in, and returns what went wrong with it.
async fn answer(
    unanswered: &mut VecDeque<(u64, Delivery)>,
    report: &mut Report,
) -> Option<anyhow::Error> {
    let (number, delivery) = unanswered.pop_front()?;
    let written = match delivery.wait().await {
        Ok(metadata) => report.written(&metadata),
        Err(error) => Err(error.into()),
    };
    written.with_context(|| format!("line {number}")).err()
}

/// How a line becomes a record.
struct Shape {
    topic: Arc<str>,
    partition: Option<i32>,
    key: Option<Bytes>,
    delimiter: Option<Vec<u8>>,
    headers: Vec<(Bytes, Option<Bytes>)>,
    null_empty: bool,
}

impl Shape {
    fn new(args: &ProduceArgs) -> Self {
        let header = |(name, value): &(String, String)| {
            (Bytes::from(name.clone()), Some(Bytes::from(value.clone())))
        };
        Self {
            topic: args.topic.as_str().into(),
            partition: args.partition,
            key: args.key.clone().map(Bytes::from),
            delimiter: args.key_delimiter.as_ref().map(|d| d.as_bytes().to_vec()),
            headers: args.headers.iter().map(header).collect(),
            null_empty: args.null_empty,
        }
    }

    fn record(&self, line: Bytes) -> ProducerRecord {
        let some = |bytes: Bytes| (!self.null_empty || !bytes.is_empty()).then_some(bytes);
        let found = self.delimiter.as_ref().and_then(|d| {
            let at = line.windows(d.len()).position(|window| window == d)?;
            Some((line.slice(..at), line.slice(at + d.len()..)))
        });
        let (key, value) = match found {
            Some((key, value)) => (some(key), value),
            None => (self.key.clone(), line),
        };
        ProducerRecord {
            topic: self.topic.clone(),
            partition: self.partition,
            key,
            value: some(value),
            headers: self.headers.clone(),
            timestamp_ms: None,
        }
    }
}

/// Says where records went.
struct Report {
    out: Option<Stdout>,
    format: Format,
}

#[derive(Debug, Serialize)]
struct Written<'a> {
    topic: &'a str,
    partition: i32,
    offset: Option<i64>,
    ts: i64,
}

impl Report {
    fn written(&mut self, record: &RecordMetadata) -> anyhow::Result<()> {
        let Some(out) = &mut self.out else {
            return Ok(());
        };
        match (self.format, record.offset) {
            (Format::Json, offset) => {
                let written = Written {
                    topic: &record.topic,
                    partition: record.partition,
                    offset,
                    ts: record.timestamp_ms,
                };
                serde_json::to_writer(&mut *out, &written).map_err(io::Error::from)?;
                writeln!(out)?;
            }
            (Format::Table, Some(offset)) => {
                writeln!(out, "{}/{} @{offset}", record.topic, record.partition)?
            }
            // Nobody said where it is.
            (Format::Table, None) => writeln!(out, "{}/{} @?", record.topic, record.partition)?,
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// Reads standard input on a thread of its own: it cannot be waited for in any other way.
fn read_lines() -> mpsc::Receiver<anyhow::Result<Bytes>> {
    let (lines, receiver) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let mut input = BufReader::with_capacity(64 << 10, io::stdin().lock());
        while let Some(line) = next_line(&mut input).transpose() {
            let failed = line.is_err();
            if lines.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// The next line without its end, or nothing at the end of the input.
fn next_line(input: &mut impl BufRead) -> anyhow::Result<Option<Bytes>> {
    let mut line = Vec::new();
    input
        .take(MAX_LINE_BYTES)
        .read_until(b'\n', &mut line)
        .context("standard input could not be read")?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 == MAX_LINE_BYTES {
        bail!(anyhow!("it is longer than {MAX_LINE_BYTES} bytes"));
    }
    Ok(Some(line.into()))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::cast_possible_truncation,
        reason = "tests"
    )]
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn shape(line: &[&str]) -> Shape {
        let args = ["riverrun", "produce", "t"].iter().chain(line);
        let Command::Produce(args) = Cli::try_parse_from(args).unwrap().command else {
            panic!("produce")
        };
        Shape::new(&args)
    }

    fn key_and_value(shape: &Shape, line: &'static str) -> (Option<Bytes>, Option<Bytes>) {
        let record = shape.record(Bytes::from_static(line.as_bytes()));
        (record.key, record.value)
    }

    #[test]
    fn a_delimiter_splits_at_its_first_place() {
        let shape = shape(&["-K:"]);
        let some = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        assert_eq!(
            key_and_value(&shape, "k1:{\"id\":1}"),
            (some("k1"), some("{\"id\":1}"))
        );
        assert_eq!(key_and_value(&shape, "no key"), (None, some("no key")));
        assert_eq!(key_and_value(&shape, ":v"), (some(""), some("v")));
        assert_eq!(key_and_value(&shape, "k:"), (some("k"), some("")));
    }

    #[test]
    fn an_empty_value_may_be_a_tombstone() {
        let some = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        assert_eq!(
            key_and_value(&shape(&["-K:", "-Z"]), "k:"),
            (some("k"), None)
        );
        assert_eq!(
            key_and_value(&shape(&["-k", "x"]), ""),
            (some("x"), some(""))
        );
    }

    #[test]
    fn lines_are_bytes_and_the_last_may_lack_its_end() {
        let mut input = &b"a\r\n\n\xff"[..];
        assert_eq!(next_line(&mut input).unwrap().unwrap(), &b"a\r"[..]);
        assert_eq!(next_line(&mut input).unwrap().unwrap(), &b""[..]);
        assert_eq!(next_line(&mut input).unwrap().unwrap(), &b"\xff"[..]);
        assert!(next_line(&mut input).unwrap().is_none());
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let long = vec![b'x'; MAX_LINE_BYTES as usize + 10];
        assert!(next_line(&mut &long[..]).is_err());
    }
}
