//! Single produces over one connection, with the answer awaited or its absence watched.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use riverrun_record::{BatchBuilder, Compression};
use riverrun_wire::api::create_topics::{CreatableTopic, CreatableTopicConfig};
use riverrun_wire::api::fetch::{FetchPartition, FetchTopic};
use riverrun_wire::api::produce::{
    PartitionProduceData, PartitionProduceResponse, TopicProduceData,
};
use riverrun_wire::api::{
    CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse, ProduceRequest,
    ProduceResponse,
};
use riverrun_wire::{Records, Request, decode_response, encode_request};
use rustix::net::{AddressFamily, SocketType};

const CREATE_TOPICS_VERSION: i16 = 5;
const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;
const ANSWER_MAX_BYTES: usize = 1 << 20;
/// What an answer may take that is not held back on purpose.
const PATIENCE: Duration = Duration::from_secs(30);

/// A produce that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent(i32);

pub(crate) struct Connection {
    stream: TcpStream,
    /// What a produce says of how long its answer may take.
    pub(crate) timeout_ms: i32,
    /// How long [`Connection::call`] waits.
    pub(crate) patience: Duration,
    next: i32,
    received: BytesMut,
}

impl Connection {
    pub(crate) fn open(brokers: &str) -> Result<Self> {
        Self::over(TcpStream::connect(brokers)?)
    }

    fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            timeout_ms: 30_000,
            patience: PATIENCE,
            next: 1,
            received: BytesMut::new(),
        })
    }

    /// One from an address of its own, which must be one of this machine.
    pub(crate) fn open_from(address: Ipv4Addr, broker: &str) -> Result<Self> {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        rustix::net::bind(&socket, &SocketAddrV4::new(address, 0))?;
        rustix::net::connect(&socket, &broker.parse::<SocketAddrV4>()?)?;
        Self::over(TcpStream::from(socket))
    }

    /// Whether the broker closes it within that time, and has sent nothing more before.
    pub(crate) fn is_closed_within(&mut self, limit: Duration) -> Result<bool> {
        ensure!(self.received.is_empty(), "an answer to nothing");
        self.stream.set_read_timeout(Some(limit))?;
        match self.stream.read(&mut [0]) {
            Ok(0) => Ok(true),
            Ok(_) => bail!("an answer to nothing"),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// The port by which a broker's log names this connection.
    pub(crate) fn port(&self) -> Result<u16> {
        Ok(self.stream.local_addr()?.port())
    }

    fn next_id(&mut self) -> i32 {
        self.next += 1;
        self.next
    }

    /// Creates a topic of one partition, with as many replicas as the broker thinks right.
    pub(crate) fn create_topic(&mut self, name: &str, configs: &[(&str, &str)]) -> Result<()> {
        let configs = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig {
                name: (*name).to_owned(),
                value: Some((*value).to_owned()),
            })
            .collect();
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: 1,
            replication_factor: -1,
            assignments: Vec::new(),
            configs,
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 20_000,
            validate_only: false,
        };
        let response: CreateTopicsResponse = self.call(&request, CREATE_TOPICS_VERSION)?;
        let topic = response.topics.first().context("no topic in the answer")?;
        ensure!(
            topic.error_code == 0,
            "creating {name}: error {}",
            topic.error_code
        );
        Ok(())
    }

    /// Sends any request and waits for its answer.
    pub(crate) fn call<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        let id = self.next_id();
        let frame = encode_request(request, version, id, Some("test"))?;
        self.stream.write_all(&frame.into_bytes())?;
        let answer = self
            .frame(id, self.patience)?
            .with_context(|| format!("no answer to {}", R::API.name()))?;
        Ok(decode_response(&answer, version)?)
    }

    /// Sends one batch with acks=all whose record has a value of so many bytes.
    pub(crate) fn send_produce(&mut self, topic: &str, bytes: usize) -> Result<Sent> {
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.append(1_700_000_000_000, None, Some(&vec![b'x'; bytes]), &[])?;
        self.send_batch(topic, 0, builder.build()?)
    }

    /// The same with bytes that may be no batch, to any partition.
    pub(crate) fn send_batch(&mut self, topic: &str, index: i32, batch: Bytes) -> Result<Sent> {
        let partition = PartitionProduceData {
            index,
            records: Some(Records::from(batch)),
        };
        let topic = TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![partition],
            ..TopicProduceData::default()
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: self.timeout_ms,
            topic_data: vec![topic],
            ..ProduceRequest::default()
        };
        let id = self.next_id();
        let frame = encode_request(&request, PRODUCE_VERSION, id, Some("test"))?;
        self.stream.write_all(&frame.into_bytes())?;
        Ok(Sent(id))
    }

    /// The error code of the answer, `None` where there is none in that time.
    pub(crate) fn answer_within(&mut self, sent: Sent, limit: Duration) -> Result<Option<i16>> {
        Ok(self.produced(sent, limit)?.map(|row| row.error_code))
    }

    /// The offset that the answer names, -1 in a refusal; `None` where there is no answer in that time.
    pub(crate) fn offset_within(&mut self, sent: Sent, limit: Duration) -> Result<Option<i64>> {
        Ok(self.produced(sent, limit)?.map(|row| row.base_offset))
    }

    fn produced(
        &mut self,
        sent: Sent,
        limit: Duration,
    ) -> Result<Option<PartitionProduceResponse>> {
        let Some(answer) = self.frame(sent.0, limit)? else {
            return Ok(None);
        };
        let response = decode_response::<ProduceResponse>(&answer, PRODUCE_VERSION)?;
        let topic = response.responses.into_iter().next();
        let partition = topic.and_then(|topic| topic.partition_responses.into_iter().next());
        Ok(Some(partition.context("no partition in the answer")?))
    }

    /// Sends and waits: the error code.
    pub(crate) fn produce(&mut self, topic: &str, bytes: usize) -> Result<i16> {
        let sent = self.send_produce(topic, bytes)?;
        self.answer_within(sent, PATIENCE)?
            .context("no answer to a produce")
    }

    /// Sends a fetch that does not wait for more than there is.
    pub(crate) fn send_fetch(&mut self, topic: &str, offset: i64, max_bytes: i32) -> Result<Sent> {
        let partition = FetchPartition {
            partition: 0,
            fetch_offset: offset,
            partition_max_bytes: max_bytes,
            ..FetchPartition::default()
        };
        let topic = FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![partition],
            ..FetchTopic::default()
        };
        let request = FetchRequest {
            max_wait_ms: 100,
            min_bytes: 1,
            session_epoch: -1,
            topics: vec![topic],
            ..FetchRequest::default()
        };
        let id = self.next_id();
        let frame = encode_request(&request, FETCH_VERSION, id, Some("fsync"))?;
        self.stream.write_all(&frame.into_bytes())?;
        Ok(Sent(id))
    }

    /// The batches of the answer, `None` where there is none in that time.
    pub(crate) fn batches_within(&mut self, sent: Sent, limit: Duration) -> Result<Option<Bytes>> {
        let Some(answer) = self.frame(sent.0, limit)? else {
            return Ok(None);
        };
        let response = decode_response::<FetchResponse>(&answer, FETCH_VERSION)?;
        let topic = response.responses.into_iter().next();
        let partition = topic.and_then(|topic| topic.partitions.into_iter().next());
        let partition = partition.context("no partition in the answer")?;
        ensure!(
            partition.error_code == 0,
            "a fetch got error {}",
            partition.error_code
        );
        let records = partition.records.context("no records in the answer")?;
        Ok(Some(records.into_bytes()))
    }

    /// The next response frame, without its length.
    fn frame(&mut self, id: i32, limit: Duration) -> Result<Option<Bytes>> {
        let end = Instant::now() + limit;
        loop {
            if let Some(head) = self.received.first_chunk::<4>() {
                let length = u32::from_be_bytes(*head) as usize;
                ensure!(length <= ANSWER_MAX_BYTES, "an answer of {length} bytes");
                if self.received.len() >= 4 + length {
                    let frame = self.received.split_to(4 + length).freeze().slice(4..);
                    ensure!(
                        frame.starts_with(&id.to_be_bytes()),
                        "an answer to another request"
                    );
                    return Ok(Some(frame));
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the connection was closed"),
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}
