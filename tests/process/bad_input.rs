//! Bad input of every kind, sent to a running broker: each gets the protocol's error or a closed
//! connection and one line in the log, none of it costs memory to speak of, and everybody else is
//! served on.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::fsync::requests::Connection;
use super::kafka::{PATIENCE, now_ms};
use super::node::{Node, foreign_brokers};
use super::trial::{note, skip, trial};
use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use libtest_mimic::Trial;
use riverrun_record::{BatchBuilder, Compression};
use riverrun_wire::ErrorCode;
use riverrun_wire::api::create_topics::CreatableTopic;
use riverrun_wire::api::metadata::MetadataRequestTopic;
use riverrun_wire::api::{CreateTopicsRequest, MetadataRequest};

/// What the process may have had at its most, with a frame of the largest size read among the rest.
const MOST_MEMORY_BYTES: u64 = 400 << 20;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "bad_input::each_kind_gets_an_answer_or_a_closed_connection_and_one_line",
        || {
            if foreign_brokers().is_some() || std::env::var_os("RIVERRUN_TEST_NODE").is_some() {
                return Err(skip(
                    "bad input",
                    "the log that it is looked for in is ours",
                ));
            }
            let mut node = Node::start()?;
            let result = all(&mut node);
            node.explain(result)
        },
    )]
}

fn all(node: &mut Node) -> Result<()> {
    let mut bystander = Connection::open(&node.brokers())?;
    bystander.create_topic("calm", &[])?;
    let mut served = || -> Result<()> {
        let error = bystander.produce("calm", 100)?;
        ensure!(error == 0, "somebody else's produce got error {error}");
        Ok(())
    };
    served()?;
    let before = node.most_memory()?;
    for (what, bytes) in frames() {
        closed(node, &bytes).with_context(|| what)?;
        served().with_context(|| format!("after {what}"))?;
    }
    for (what, batch, expected) in batches()? {
        refused(node, batch, expected).with_context(|| what)?;
        served().with_context(|| format!("after {what}"))?;
    }
    for name in ["a/b", "..", "", "\u{1b}[31m\nserving", &"x".repeat(250)] {
        forbidden(node, name).with_context(|| format!("a topic of the name {name:?}"))?;
    }
    future(node)?;
    served()?;
    let most = node.most_memory()?;
    note(format_args!(
        "bad input: {} MiB of memory at most, {} before it",
        most >> 20,
        before >> 20
    ));
    ensure!(most < MOST_MEMORY_BYTES, "{most} bytes of memory");
    let status = node.stop()?;
    ensure!(status.success(), "it ended with {status}");
    let log = node.log();
    ensure!(!log.contains("panicked"), "something panicked");
    ensure!(
        !log.contains('\u{1b}'),
        "the log holds what a terminal obeys"
    );
    Ok(())
}

/// A request with a header of version 1, and what follows it.
fn request(api: i16, version: i16, rest: &[u8]) -> Vec<u8> {
    let mut body = api.to_be_bytes().to_vec();
    body.extend(version.to_be_bytes());
    body.extend([0, 0, 0, 1, 0xff, 0xff]);
    body.extend(rest);
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

/// What no answer can be given to.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let mut many_topics = 2_000_000_u32.to_be_bytes().to_vec();
    many_topics.resize(4 + 2 * 2_000_000, 0);
    let mut many_in_produce = vec![0xff, 0xff, 0, 1, 0, 0, 0, 1];
    many_in_produce.extend(3_000_000_u32.to_be_bytes());
    many_in_produce.resize(12 + 6 * 3_000_000, 0);
    let many_small = {
        let mut topics = 900_000_u32.to_be_bytes().to_vec();
        topics.resize(4 + 2 * 900_000, 0);
        topics
    };
    vec![
        ("a negative length", vec![0xff, 0xff, 0xff, 0xff, 0]),
        ("a length over the limit", vec![0x7f, 0xff, 0xff, 0xff, 0]),
        (
            "one byte over the limit",
            104_857_601_u32.to_be_bytes().to_vec(),
        ),
        (
            "text",
            b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec(),
        ),
        (
            "a hello of TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        ),
        ("an empty frame", vec![0, 0, 0, 0]),
        ("an unknown api", request(999, 0, &[])),
        ("an api that is not served", request(10, 0, &[])),
        ("a version of the past", request(0, 2, &[0; 20])),
        ("a version of the future", request(3, 99, &[0; 20])),
        ("a negative version", request(3, -1, &[0; 20])),
        (
            "a count that the bytes cannot hold",
            request(3, 1, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        (
            "a length that the bytes cannot hold",
            request(3, 1, &[0, 0, 0, 1, 0x7f, 0xff, b'a']),
        ),
        ("a body that ends early", request(1, 4, &[0, 0])),
        (
            "a request of topics that is too long",
            request(3, 1, &many_topics),
        ),
        ("too many topics", request(3, 1, &many_small)),
        (
            "a produce of too many topics",
            request(0, 3, &many_in_produce),
        ),
    ]
}

/// The broker hangs up, and says why in one line.
fn closed(node: &Node, bytes: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(node.brokers())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let port = stream.local_addr()?.port();
    // It may hang up before it has read everything.
    drop(stream.write_all(bytes));
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => bail!("the connection is still open: {e}"),
    }
    ensure!(answer.is_empty(), "an answer of {} bytes", answer.len());
    let line = line_of(node, port)?;
    ensure!(line.contains("closed a connection"), "the line is: {line}");
    Ok(())
}

/// The one line about a connection.
fn line_of(node: &Node, port: u16) -> Result<String> {
    let peer = format!("127.0.0.1:{port} ");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = node.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&peer)).collect();
        match lines[..] {
            [] if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            [] => bail!("no line in the log"),
            [line] => return Ok(line.to_owned()),
            _ => bail!("more than one line: {lines:#?}"),
        }
    }
}

fn batch_of(compression: Compression, timestamp_ms: i64, value: &[u8]) -> Result<BytesMut> {
    let mut builder = BatchBuilder::new(compression, None);
    builder.append(timestamp_ms, None, Some(value), &[])?;
    Ok(builder.build_mut()?)
}

/// The batch with the checksum of its bytes.
fn checked(mut batch: BytesMut) -> Bytes {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

/// What each batch is refused with.
fn batches() -> Result<Vec<(&'static str, Bytes, ErrorCode)>> {
    let now = now_ms();
    let good = batch_of(Compression::None, now, b"value")?;
    // Changes that its maker would have made, with the right checksum.
    let with = |changes: &[(usize, &[u8])]| {
        let mut batch = good.clone();
        for (at, bytes) in changes {
            batch[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        checked(batch)
    };
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut two = good.clone();
    two.extend_from_slice(&good);
    let bomb = |compression| batch_of(compression, now, &vec![0; 200 << 20]);
    let huge_snappy = {
        let mut batch = batch_of(Compression::Snappy, now, &[7; 1000])?;
        // The length that a block of snappy begins with, behind the header of its framing.
        batch[61 + 20..61 + 22].copy_from_slice(&[0xff, 0xff]);
        checked(batch)
    };
    use ErrorCode::{CorruptMessage, InvalidRecord, InvalidTimestamp, MessageTooLarge};
    Ok(vec![
        ("a wrong checksum", flipped.freeze(), CorruptMessage),
        (
            "half a batch",
            good.clone().freeze().slice(..40),
            CorruptMessage,
        ),
        (
            "a length beyond the bytes",
            with(&[(8, &[0, 1, 0, 0])]),
            CorruptMessage,
        ),
        (
            "the magic of old messages",
            with(&[(16, &[1])]),
            InvalidRecord,
        ),
        (
            "the magic of the future",
            with(&[(16, &[3])]),
            InvalidRecord,
        ),
        ("two batches", two.freeze(), InvalidRecord),
        ("nothing", Bytes::new(), InvalidRecord),
        (
            "a count of two thousand millions",
            with(&[
                (23, &[0x7f, 0xff, 0xff, 0xfe]),
                (57, &[0x7f, 0xff, 0xff, 0xff]),
            ]),
            MessageTooLarge,
        ),
        (
            "a record longer than its batch",
            with(&[(61, &[0x7e])]),
            InvalidRecord,
        ),
        (
            "an offset delta of 1 in the first record",
            with(&[(64, &[2])]),
            InvalidRecord,
        ),
        (
            "a time to which no delta can be added",
            with(&[(27, &(i64::MAX - 1).to_be_bytes())]),
            InvalidTimestamp,
        ),
        (
            "a time in the year 2200",
            batch_of(Compression::None, 7_258_118_400_000, b"x")?.freeze(),
            InvalidTimestamp,
        ),
        (
            "an oversized record",
            batch_of(Compression::None, now, &vec![1; 90 << 20])?.freeze(),
            MessageTooLarge,
        ),
        (
            "a bomb of gzip",
            bomb(Compression::Gzip)?.freeze(),
            MessageTooLarge,
        ),
        (
            "a bomb of lz4",
            bomb(Compression::Lz4)?.freeze(),
            MessageTooLarge,
        ),
        (
            "a bomb of zstd",
            bomb(Compression::Zstd)?.freeze(),
            MessageTooLarge,
        ),
        (
            "a block of snappy that claims too much",
            huge_snappy,
            InvalidRecord,
        ),
    ])
}

/// The broker answers with the error, says so in one line, and the connection goes on.
fn refused(node: &Node, batch: Bytes, expected: ErrorCode) -> Result<()> {
    let mut connection = Connection::open(&node.brokers())?;
    let sent = connection.send_batch("calm", 0, batch)?;
    let code = connection
        .answer_within(sent, PATIENCE)?
        .context("no answer")?;
    let code = ErrorCode::from_number(code).context("an unknown error code")?;
    ensure!(
        code == expected,
        "{} is due, not {}",
        expected.name(),
        code.name()
    );
    let line = line_of(node, connection.port()?)?;
    ensure!(
        line.contains("refused a request") && line.contains(code.name()),
        "the line is: {line}"
    );
    let error = connection.produce("calm", 10)?;
    ensure!(error == 0, "the next one got error {error}");
    Ok(())
}

fn forbidden(node: &Node, name: &str) -> Result<()> {
    let mut connection = Connection::open(&node.brokers())?;
    let create = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            ..CreatableTopic::default()
        }],
        timeout_ms: 10_000,
        ..CreateTopicsRequest::default()
    };
    let response = connection.call(&create, 5)?;
    let code = response.topics.first().context("no topic")?.error_code;
    ensure!(
        code == ErrorCode::InvalidTopicException.number(),
        "error {code}"
    );
    line_of(node, connection.port()?)?;
    let mut connection = Connection::open(&node.brokers())?;
    let ask = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(name.to_owned()),
            ..MetadataRequestTopic::default()
        }]),
        ..MetadataRequest::default()
    };
    let response = connection.call(&ask, 9)?;
    let code = response.topics.first().context("no topic")?.error_code;
    ensure!(
        code == ErrorCode::InvalidTopicException.number(),
        "error {code}"
    );
    line_of(node, connection.port()?)?;
    Ok(())
}

/// A version of ApiVersions that nobody knows yet is answered in version 0.
fn future(node: &Node) -> Result<()> {
    let mut stream = TcpStream::connect(node.brokers())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&request(18, 77, &[1, 2, 3]))?;
    let mut head = [0; 10];
    stream.read_exact(&mut head)?;
    ensure!(head[4..8] == [0, 0, 0, 1], "an answer to another request");
    ensure!(
        head[8..10] == [0, 35],
        "another answer than UNSUPPORTED_VERSION"
    );
    let line = line_of(node, stream.local_addr()?.port())?;
    ensure!(line.contains("UNSUPPORTED_VERSION"), "the line is: {line}");
    Ok(())
}
