//! Questions to a broker over one connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use riverrun_wire::api::create_topics::CreatableTopic;
use riverrun_wire::api::metadata::MetadataRequestTopic;
use riverrun_wire::api::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest};
use riverrun_wire::{Request, decode_response, encode_request};

const CREATE_TOPICS: i16 = 5;
const DELETE_TOPICS: i16 = 4;
const METADATA: i16 = 9;
const ANSWER_MAX_BYTES: usize = 4 << 20;
/// How long an answer is waited for: what Kafka's clients wait (`request.timeout.ms`).
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const CLIENT: &str = "overload";

/// A connection.
pub(crate) struct Connection {
    stream: TcpStream,
    next: i32,
}

impl Connection {
    pub(crate) fn open(broker: &str) -> Result<Self> {
        let stream = TcpStream::connect(broker)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, next: 0 })
    }

    /// Asks and waits.
    pub(crate) fn call<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        self.next += 1;
        let frame = encode_request(request, version, self.next, Some(CLIENT))?;
        self.stream.write_all(&frame.into_bytes())?;
        let answer = read_frame(&mut self.stream)?;
        ensure!(
            answer.starts_with(&self.next.to_be_bytes()),
            "an answer to another request"
        );
        Ok(decode_response(&answer, version)?)
    }

    /// How many nodes it knows.
    pub(crate) fn nodes(&mut self) -> Result<usize> {
        let request = MetadataRequest {
            topics: Some(Vec::new()),
            ..MetadataRequest::default()
        };
        Ok(self.call(&request, METADATA)?.brokers.len())
    }
}

/// The next answer, without its length.
pub(crate) fn read_frame(stream: &mut TcpStream) -> Result<Bytes> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    ensure!(length <= ANSWER_MAX_BYTES, "an answer of {length} bytes");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer.into())
}

fn first(brokers: &[String]) -> Result<Connection> {
    Connection::open(brokers.first().context("no broker")?)
}

/// Creates a topic.
pub(crate) fn create_topic(
    brokers: &[String],
    name: &str,
    partitions: usize,
    replicas: usize,
) -> Result<()> {
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.to_owned(),
            num_partitions: i32::try_from(partitions)?,
            replication_factor: i16::try_from(replicas)?,
            ..CreatableTopic::default()
        }],
        timeout_ms: 30_000,
        validate_only: false,
    };
    let response = first(brokers)?.call(&request, CREATE_TOPICS)?;
    let error = response.topics.first().context("an answer")?.error_code;
    ensure!(error == 0, "creating {name}: error {error}");
    Ok(())
}

/// Deletes one.
pub(crate) fn delete_topic(brokers: &[String], name: &str) -> Result<()> {
    let request = DeleteTopicsRequest {
        topic_names: vec![name.to_owned()],
        timeout_ms: 30_000,
        ..DeleteTopicsRequest::default()
    };
    let response = first(brokers)?.call(&request, DELETE_TOPICS)?;
    let error = response.responses.first().context("an answer")?.error_code;
    ensure!(error == 0, "deleting {name}: error {error}");
    Ok(())
}

/// The address of the leader of each partition of a topic.
pub(crate) fn leaders(brokers: &[String], topic: &str) -> Result<Vec<String>> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(topic.to_owned()),
                ..MetadataRequestTopic::default()
            }]),
            ..MetadataRequest::default()
        };
        let response = first(brokers)?.call(&request, METADATA)?;
        let known = response.topics.into_iter().next().context("a topic")?;
        let mut partitions = known.partitions;
        partitions.sort_by_key(|partition| partition.partition_index);
        let leaders: Option<Vec<String>> = partitions
            .iter()
            .map(|partition| {
                let mut nodes = response.brokers.iter();
                let node = nodes.find(|node| node.node_id == partition.leader_id)?;
                Some(format!("{}:{}", node.host, node.port))
            })
            .collect();
        match leaders {
            Some(leaders) if !leaders.is_empty() => return Ok(leaders),
            _ => thread::sleep(Duration::from_millis(50)),
        }
    }
    bail!("{topic} has no leaders")
}
