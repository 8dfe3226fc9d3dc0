//! A broker in this process and a client that speaks raw frames to it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use riverrun_record::{BatchBuilder, Compression};
use riverrun_server::{Config, Running};
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
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) struct Broker {
    running: Option<Running>,
    pub(crate) address: SocketAddr,
    pub(crate) data: TempDir,
    tokio: Runtime,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(settings: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().unwrap();
        Self::on(data, settings)
    }

    pub(crate) fn on(data: TempDir, settings: impl FnOnce(&mut Config)) -> Self {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        let tokio = tokio.unwrap();
        let mut config = Config::new(data.path().join("data"));
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.store.wal_bytes = 1 << 20;
        settings(&mut config);
        let running = tokio
            .block_on(riverrun_server::start(config))
            .expect("the broker starts");
        let address = running.address();
        Self {
            running: Some(running),
            address,
            data,
            tokio,
        }
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Stops cleanly and gives the directory back.
    pub(crate) fn stop(mut self) -> TempDir {
        self.tokio
            .block_on(self.running.take().unwrap().stop())
            .expect("a clean stop");
        let Self { data, tokio, .. } = self;
        tokio.shutdown_timeout(Duration::from_secs(5));
        data
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    next: i32,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, next: 1 }
    }

    /// Sends a request without waiting; its correlation id.
    pub(crate) fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        let id = self.next;
        self.next += 1;
        let frame = encode_request(request, version, id, Some("test"))
            .unwrap()
            .into_bytes();
        self.stream.write_all(&frame).unwrap();
        id
    }

    pub(crate) fn receive<R: Request>(&mut self, id: i32, version: i16) -> R::Response {
        let frame = self.frame().expect("an answer");
        assert_eq!(
            frame.get(..4).unwrap(),
            id.to_be_bytes(),
            "answers come in order"
        );
        decode_response(&frame, version).unwrap()
    }

    pub(crate) fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let id = self.send(request, version);
        self.receive::<R>(id, version)
    }

    /// The next frame without its length, or nothing when the broker closed the connection.
    pub(crate) fn frame(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer in time"),
            Err(_) => return None,
        }
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.stream.read_exact(&mut frame).unwrap();
        Some(frame.into())
    }

    /// Whether the broker has closed the connection by now.
    pub(crate) fn is_closed(&mut self) -> bool {
        let before = self.stream.read_timeout().unwrap();
        self.stream
            .set_read_timeout(Some(Duration::from_millis(10)))
            .unwrap();
        let closed = match self.stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(e) => e.kind() != std::io::ErrorKind::WouldBlock,
        };
        self.stream.set_read_timeout(before).unwrap();
        closed
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        // The broker may have closed the connection; whoever calls this looks at what it answered.
        let _ = self.stream.write_all(bytes);
    }

    pub(crate) fn create(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let response = self.create_with(name, partitions, configs);
        let topic = response.topics.first().unwrap();
        assert_eq!(topic.error_code, 0, "{:?}", topic.error_message);
    }

    pub(crate) fn create_with(
        &mut self,
        name: &str,
        num_partitions: i32,
        configs: &[(&str, &str)],
    ) -> CreateTopicsResponse {
        let configs = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig {
                name: (*name).to_owned(),
                value: Some((*value).to_owned()),
            })
            .collect();
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: name.to_owned(),
                num_partitions,
                replication_factor: -1,
                configs,
                ..CreatableTopic::default()
            }],
            timeout_ms: 10_000,
            ..CreateTopicsRequest::default()
        };
        self.call(&request, 7)
    }

    pub(crate) fn produce(&mut self, topic: &str, batch: Bytes) -> PartitionProduceResponse {
        let response = self.call(&produce_request(topic, 0, -1, batch), 9);
        only_row(response)
    }

    pub(crate) fn fetch(&mut self, topic: &str, offset: i64) -> FetchResponse {
        self.call(&fetch_request(topic, offset, 500, 1), 12)
    }
}

pub(crate) fn only_row(mut response: ProduceResponse) -> PartitionProduceResponse {
    response
        .responses
        .pop()
        .unwrap()
        .partition_responses
        .pop()
        .unwrap()
}

pub(crate) fn produce_request(topic: &str, index: i32, acks: i16, batch: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![PartitionProduceData {
                index,
                records: Some(Records::from(batch)),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

pub(crate) fn fetch_request(
    topic: &str,
    fetch_offset: i64,
    max_wait_ms: i32,
    min_bytes: i32,
) -> FetchRequest {
    FetchRequest {
        max_wait_ms,
        min_bytes,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![FetchPartition {
                partition: 0,
                fetch_offset,
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

/// A batch of records without keys.
pub(crate) fn batch(values: &[&[u8]]) -> BytesMut {
    batch_at(now_ms(), values, Compression::None)
}

#[expect(clippy::disallowed_methods, reason = "what a producer does")]
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}

pub(crate) fn batch_at(timestamp_ms: i64, values: &[&[u8]], compression: Compression) -> BytesMut {
    let mut builder = BatchBuilder::new(compression, None);
    for value in values {
        builder
            .append(timestamp_ms, None, Some(value), &[])
            .unwrap();
    }
    builder.build_mut().unwrap()
}

/// The bytes that a fetch brought for its one partition.
pub(crate) fn fetched(response: &FetchResponse) -> Vec<u8> {
    let row = response
        .responses
        .first()
        .unwrap()
        .partitions
        .first()
        .unwrap();
    row.records
        .clone()
        .map(|records| records.into_bytes().to_vec())
        .unwrap_or_default()
}
