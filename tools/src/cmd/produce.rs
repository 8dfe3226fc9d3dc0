//! `riverrun produce`: lines in, records out.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read, Write},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use riverrun_client::{
    Acks, Compression, Delivery, Producer, ProducerConfig, ProducerRecord, RecordMetadata,
};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::{
    cli::{AcksArg, Codec, Format, Global, ProduceArgs},
    cmd::connect,
    failure::Advised,
    output::{self, Stdout},
};

/// Longest line: what fits into a request with room for the rest of a record.
const MAX_LINE_BYTES: u64 = (1 << 20) - 4096;
/// Bytes of one read from standard input.
const READ_BYTES: usize = 64 << 10;
/// Such reads ahead of the producer.
const READS_AHEAD: usize = 16;
/// The longest that a broker may take over one batch, whatever the command may wait.
const LONGEST_ACK: Duration = Duration::from_secs(30);
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
        ack_timeout: client.config().operation_timeout.min(LONGEST_ACK),
        ..ProducerConfig::default()
    };
    let mut session = Session {
        producer: Producer::new(client, config)?,
        shape: Shape::new(&args),
        report: Report {
            out: (!args.quiet).then(output::stdout),
            format: global.format,
        },
        unanswered: VecDeque::new(),
        number: 0,
    };
    let mut failure = tokio::select! {
        sent = session.send_all(read_lines()) => sent.err(),
        // No more lines; what was sent is answered for. A second one ends the process.
        _ = tokio::signal::ctrl_c() => {
            tokio::spawn(async {
                let _ = tokio::signal::ctrl_c().await;
                std::process::exit(130);
            });
            None
        }
    };
    // Whatever stopped us, what was sent before it is answered for.
    session.producer.flush().await;
    while !session.unanswered.is_empty() {
        let answered = session.answer().await;
        failure = failure.or(answered.err());
    }
    session.report.flush()?;
    session.producer.close().await;
    failure.map_or(Ok(()), Err)
}

/// Lines on their way to be records, and records on their way to be answered.
struct Session {
    producer: Producer,
    shape: Shape,
    report: Report,
    /// Records in the order of their lines, each with its line's number.
    unanswered: VecDeque<(u64, Delivery)>,
    number: u64,
}

impl Session {
    /// Sends every line, and reports records as they are answered.
    async fn send_all(&mut self, mut lines: mpsc::Receiver<Lines>) -> anyhow::Result<()> {
        loop {
            while self.oldest_is_answered() {
                self.answer().await?;
            }
            if lines.is_empty() {
                self.report.flush()?;
            }
            let full = self.unanswered.len() >= MAX_UNANSWERED;
            tokio::select! {
                biased;
                read = lines.recv(), if !full => {
                    let Some(Lines { lines, failed }) = read else { return Ok(()) };
                    for line in lines {
                        self.number += 1;
                        let sent = self.producer.send(self.shape.record(line)).await;
                        let delivery = sent.with_context(|| format!("line {}", self.number))?;
                        self.unanswered.push_back((self.number, delivery));
                    }
                    if let Some(error) = failed {
                        return Err(error.context(format!("line {}", self.number + 1)));
                    }
                }
                () = oldest(&self.unanswered), if !self.unanswered.is_empty() => {}
            }
        }
    }

    fn oldest_is_answered(&self) -> bool {
        let oldest = self.unanswered.front();
        oldest.is_some_and(|(_, delivery)| delivery.try_get().is_some())
    }

    /// Takes the oldest record's answer in.
    async fn answer(&mut self) -> anyhow::Result<()> {
        let Some((number, delivery)) = self.unanswered.pop_front() else {
            return Ok(());
        };
        let written = match delivery.wait().await {
            Ok(metadata) => self.report.written(&metadata),
            Err(error) => Err(error.into()),
        };
        written.with_context(|| format!("line {number}"))
    }
}

/// Waits until the oldest record is answered.
async fn oldest(unanswered: &VecDeque<(u64, Delivery)>) {
    if let Some((_, delivery)) = unanswered.front() {
        delivery.ready().await;
    }
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

/// Lines that were there to be read at once, and what ended the input if it did not end in peace.
struct Lines {
    lines: Vec<Bytes>,
    failed: Option<anyhow::Error>,
}

/// Reads standard input on a thread of its own: it cannot be waited for in any other way.
fn read_lines() -> mpsc::Receiver<Lines> {
    let (sender, receiver) = mpsc::channel(READS_AHEAD);
    std::thread::spawn(move || {
        let mut input = BufReader::with_capacity(READ_BYTES, io::stdin().lock());
        loop {
            let mut lines = Vec::new();
            let failed = loop {
                match next_line(&mut input) {
                    Ok(Some(line)) => lines.push(line),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
                if !input.buffer().contains(&b'\n') {
                    break None;
                }
            };
            let ended = failed.is_some() || lines.is_empty();
            if sender.blocking_send(Lines { lines, failed }).is_err() || ended {
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
        bail!(Advised {
            what: format!("it is longer than {MAX_LINE_BYTES} bytes"),
            next: "split it into records, or keep the large part elsewhere",
        });
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
