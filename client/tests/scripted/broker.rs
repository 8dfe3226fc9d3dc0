//! Scripted brokers: they speak the protocol over real sockets, store batches in memory, check
//! sequence numbers as Kafka does, and fail when they are told to. What one of a cluster stores all
//! of them have.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use riverrun_record::{BatchView, batches, increment_sequence, stamp};
use riverrun_wire::{
    ApiKey, Decode, ErrorCode, Message, Reader, Records, RequestHeader,
    api::{
        ApiVersionsResponse, DeleteTopicsRequest, DeleteTopicsResponse, FetchRequest,
        FetchResponse, InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse,
        MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
        api_versions::ApiVersion,
        delete_topics::DeletableTopicResult,
        fetch::{FetchableTopicResponse, PartitionData},
        list_offsets::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        metadata::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
        produce::{PartitionProduceResponse, TopicProduceResponse},
    },
    encode_response,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::AbortHandle,
};
use uuid::Uuid;

/// What the broker does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// What it should.
    Serve,
    /// Refuses every partition in it.
    Refuse(ErrorCode),
    /// Stores, then closes the connection instead of answering.
    StoreAndDrop,
    /// Closes the connection.
    Drop,
    /// Stores, and says that it ran out of time.
    StoreAndRefuse(ErrorCode),
    /// Never answers.
    Hang,
    /// Answers with bytes that are no answer.
    Garbage,
    /// Answers with a length that no frame has.
    Absurd,
    /// Flips a bit in the records of the answer.
    Corrupt,
    /// Tells the client that what it read is no longer part of the log from this offset on.
    Diverge(i64),
}

/// First and last sequence number of a batch, and its offset.
type Remembered = (i32, i32, i64);

/// The epoch of a producer in a partition and its last five batches.
type Remembering = (i16, VecDeque<Remembered>);

/// The state behind the sockets.
#[derive(Debug)]
pub struct State {
    pub partitions: i32,
    /// Stored batches by partition.
    pub logs: BTreeMap<i32, Vec<Bytes>>,
    /// What to do with the next requests of an API; `Serve` once it is empty.
    pub script: BTreeMap<ApiKey, VecDeque<Act>>,
    /// The same, drawn at random for produces.
    pub random: Option<u64>,
    /// The newest ApiVersions that is understood.
    pub max_api_versions: i16,
    /// Requests seen: the node that was asked, the API and its version.
    pub seen: Vec<(i32, ApiKey, i16)>,
    /// Tells of each of them.
    asked: Arc<Notify>,
    /// Nodes that take requests and never answer.
    pub silent: BTreeSet<i32>,
    /// Nodes that are no longer among the brokers.
    pub fenced: BTreeSet<i32>,
    /// Timestamps that ListOffsets was asked for, in order; -1 is the end.
    pub asked_offsets: Vec<i64>,
    pub log_start: i64,
    /// Whether partitions have no leader.
    pub is_leaderless: bool,
    next_producer_id: i64,
    nodes: BTreeMap<i32, Node>,
    /// Node that leads a partition, and since which epoch; the first node where nothing is said.
    leaders: BTreeMap<i32, (i32, i32)>,
    /// The last five batches of each partition and producer id.
    sequences: BTreeMap<(i32, i64), Remembering>,
}

/// The first node of a cluster, and by it all of them.
#[derive(Debug, Clone)]
pub struct Broker {
    pub state: Arc<Mutex<State>>,
    pub address: String,
}

#[derive(Debug, Default)]
struct Node {
    port: u16,
    /// What listens and serves.
    tasks: Vec<AbortHandle>,
}

pub const TOPIC_ID: Uuid = Uuid::from_u128(77);

impl Broker {
    pub async fn start(partitions: i32) -> Self {
        Self::cluster(1, partitions).await
    }

    /// Nodes 1 and so on.
    pub async fn cluster(nodes: i32, partitions: i32) -> Self {
        let state = Arc::new(Mutex::new(State {
            partitions,
            logs: BTreeMap::new(),
            script: BTreeMap::new(),
            random: None,
            max_api_versions: i16::MAX,
            seen: Vec::new(),
            asked: Arc::default(),
            silent: BTreeSet::new(),
            fenced: BTreeSet::new(),
            asked_offsets: Vec::new(),
            log_start: 0,
            is_leaderless: false,
            next_producer_id: 100,
            nodes: BTreeMap::new(),
            leaders: BTreeMap::new(),
            sequences: BTreeMap::new(),
        }));
        let mut addresses = Vec::new();
        for node in 1..=nodes {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            addresses.push(format!("127.0.0.1:{port}"));
            let shared = state.clone();
            let listens = tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let serves = tokio::spawn(serve(stream, node, shared.clone()));
                    let mut state = shared.lock();
                    let tasks = &mut state.nodes.get_mut(&node).unwrap().tasks;
                    tasks.push(serves.abort_handle());
                }
            });
            let tasks = vec![listens.abort_handle()];
            state.lock().nodes.insert(node, Node { port, tasks });
        }
        Self {
            state,
            address: addresses.swap_remove(0),
        }
    }

    pub fn address_of(&self, node: i32) -> String {
        format!("127.0.0.1:{}", self.state.lock().nodes[&node].port)
    }

    /// Ends a node: its connections break, and nothing listens any more.
    pub fn kill(&self, node: i32) {
        let tasks = std::mem::take(&mut self.state.lock().nodes.get_mut(&node).unwrap().tasks);
        tasks.iter().for_each(AbortHandle::abort);
    }

    /// From now on a node takes all requests and answers none.
    pub fn silence(&self, node: i32) {
        self.state.lock().silent.insert(node);
    }

    /// Another node leads from now on.
    pub fn elect(&self, partition: i32, node: i32) {
        let mut state = self.state.lock();
        let (_, epoch) = state.leader(partition);
        state.leaders.insert(partition, (node, epoch + 1));
    }

    /// How often a node was asked this.
    pub fn count_at(&self, node: i32, api: ApiKey) -> usize {
        let state = self.state.lock();
        let asked = |seen: &&(i32, ApiKey, i16)| (seen.0, seen.1) == (node, api);
        state.seen.iter().filter(asked).count()
    }

    /// Waits until a node has been asked this so many times.
    pub async fn until_asked(&self, node: i32, api: ApiKey, count: usize) {
        let asked = self.state.lock().asked.clone();
        loop {
            // Registered before the look, so that none between look and wait is missed.
            let mut next = std::pin::pin!(asked.notified());
            next.as_mut().enable();
            if self.count_at(node, api) >= count {
                return;
            }
            next.await;
        }
    }

    pub fn script(&self, api: ApiKey, acts: impl IntoIterator<Item = Act>) {
        self.state
            .lock()
            .script
            .entry(api)
            .or_default()
            .extend(acts);
    }

    /// The values of all records of a partition, in order.
    pub fn values(&self, partition: i32) -> Vec<Bytes> {
        let state = self.state.lock();
        let stored = state.logs.get(&partition).cloned().unwrap_or_default();
        stored
            .iter()
            .flat_map(|b| riverrun_record::owned_records(b, 1 << 20).unwrap())
            .map(|r| r.unwrap().value.unwrap())
            .collect()
    }

    pub fn count(&self, api: ApiKey) -> usize {
        self.state
            .lock()
            .seen
            .iter()
            .filter(|(_, seen, _)| *seen == api)
            .count()
    }
}

async fn serve(mut stream: TcpStream, node: i32, state: Arc<Mutex<State>>) {
    stream.set_nodelay(true).unwrap();
    while let Ok(len) = stream.read_u32().await {
        let mut frame = BytesMut::zeroed(len as usize);
        if stream.read_exact(&mut frame).await.is_err() {
            return;
        }
        match answer(&frame.freeze(), node, &state) {
            Reply::Bytes(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Reply::Nothing => {}
            Reply::Wait(bytes) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Reply::Hang => std::future::pending().await,
            Reply::Drop => return,
        }
    }
}

enum Reply {
    Bytes(Bytes),
    Wait(Bytes),
    Nothing,
    Hang,
    Drop,
}

fn answer(frame: &Bytes, node: i32, state: &Mutex<State>) -> Reply {
    let mut reader = Reader::new(frame);
    let header = RequestHeader::decode(&mut reader).unwrap();
    let api = header.api().unwrap();
    let mut state = state.lock();
    state.seen.push((node, api, header.api_version));
    state.asked.notify_waiters();
    if state.silent.contains(&node) {
        return Reply::Nothing;
    }
    let act = state.act(api);
    match act {
        Act::Drop => return Reply::Drop,
        Act::Hang => return Reply::Hang,
        Act::Garbage => return Reply::Bytes(Bytes::from_static(&[0, 0, 0, 3, 1, 2, 3])),
        Act::Absurd => return Reply::Bytes(Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 1])),
        _ => {}
    }
    let version = header.api_version;
    let encode = |bytes: Result<riverrun_wire::Encoded, _>| bytes.unwrap().into_bytes();
    match api {
        ApiKey::ApiVersions if version > state.max_api_versions => {
            let refused = ApiVersionsResponse {
                error_code: ErrorCode::UnsupportedVersion.number(),
                api_keys: vec![state.range(ApiKey::ApiVersions)],
                ..ApiVersionsResponse::default()
            };
            Reply::Bytes(encode(encode_response(&refused, 0, header.correlation_id)))
        }
        ApiKey::ApiVersions => {
            let served = ApiVersionsResponse {
                api_keys: ApiKey::ALL.iter().map(|api| state.range(*api)).collect(),
                ..ApiVersionsResponse::default()
            };
            Reply::Bytes(encode(encode_response(
                &served,
                version,
                header.correlation_id,
            )))
        }
        ApiKey::Metadata => reply(&state.metadata(&decode(&mut reader, version)), &header),
        ApiKey::InitProducerId => {
            state.next_producer_id += 1;
            let given = InitProducerIdResponse {
                producer_id: state.next_producer_id,
                ..InitProducerIdResponse::default()
            };
            reply(&given, &header)
        }
        ApiKey::Produce => {
            let request: ProduceRequest = decode(&mut reader, version);
            let response = state.produce(&request, node, act);
            match (request.acks, act) {
                (_, Act::StoreAndDrop) => Reply::Drop,
                (0, _) => Reply::Nothing,
                _ => reply(&response, &header),
            }
        }
        ApiKey::Fetch => {
            let response = state.fetch(&decode(&mut reader, version), node, act);
            let empty = response
                .responses
                .iter()
                .flat_map(|t| &t.partitions)
                .all(|p| p.records.as_ref().is_none_or(Records::is_empty));
            match reply(&response, &header) {
                Reply::Bytes(bytes) if empty => Reply::Wait(bytes),
                other => other,
            }
        }
        ApiKey::ListOffsets => {
            let response = state.list_offsets(&decode(&mut reader, version), node);
            reply(&response, &header)
        }
        ApiKey::DeleteTopics => {
            let request: DeleteTopicsRequest = decode(&mut reader, version);
            let deleted = |name| DeletableTopicResult {
                name: Some(name),
                ..DeletableTopicResult::default()
            };
            let names = request.topics.into_iter().filter_map(|t| t.name);
            let response = DeleteTopicsResponse {
                responses: names.map(deleted).collect(),
                ..DeleteTopicsResponse::default()
            };
            reply(&response, &header)
        }
        other => panic!("{} is not scripted", other.name()),
    }
}

fn decode<M: Decode>(reader: &mut Reader<'_>, version: i16) -> M {
    M::decode(reader, version).unwrap()
}

fn reply<M: Message>(response: &M, header: &RequestHeader) -> Reply {
    Reply::Bytes(
        encode_response(response, header.api_version, header.correlation_id)
            .unwrap()
            .into_bytes(),
    )
}

impl State {
    fn act(&mut self, api: ApiKey) -> Act {
        if let Some(act) = self.script.get_mut(&api).and_then(VecDeque::pop_front) {
            return act;
        }
        let Some(random) = self.random.as_mut().filter(|_| api == ApiKey::Produce) else {
            return Act::Serve;
        };
        *random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        match (*random >> 33) % 10 {
            0 => Act::Refuse(ErrorCode::NotLeaderOrFollower),
            1 => Act::StoreAndDrop,
            2 => Act::Drop,
            3 => Act::StoreAndRefuse(ErrorCode::RequestTimedOut),
            4 => Act::Refuse(ErrorCode::NotEnoughReplicas),
            _ => Act::Serve,
        }
    }

    fn range(&self, api: ApiKey) -> ApiVersion {
        let (min_version, max_version) = api.versions().into_inner();
        let max_version = if api == ApiKey::ApiVersions {
            max_version.min(self.max_api_versions)
        } else {
            max_version
        };
        ApiVersion {
            api_key: api.number(),
            min_version,
            max_version,
        }
    }

    fn metadata(&self, request: &MetadataRequest) -> MetadataResponse {
        let topic = |name: &str| {
            let known = name == "t";
            MetadataResponseTopic {
                error_code: if known {
                    0
                } else {
                    ErrorCode::UnknownTopicOrPartition.number()
                },
                name: Some(name.to_owned()),
                topic_id: TOPIC_ID,
                partitions: (0..if known { self.partitions } else { 0 })
                    .map(|partition_index| {
                        let (leader_id, leader_epoch) = self.leader(partition_index);
                        MetadataResponsePartition {
                            partition_index,
                            leader_id: if self.is_leaderless { -1 } else { leader_id },
                            leader_epoch,
                            replica_nodes: self.nodes.keys().copied().collect(),
                            isr_nodes: self.nodes.keys().copied().collect(),
                            ..MetadataResponsePartition::default()
                        }
                    })
                    .collect(),
                ..MetadataResponseTopic::default()
            }
        };
        let names: Vec<_> = match &request.topics {
            None => vec!["t".to_owned()],
            Some(topics) => topics.iter().filter_map(|t| t.name.clone()).collect(),
        };
        MetadataResponse {
            brokers: self
                .brokers()
                .map(|(node_id, node)| MetadataResponseBroker {
                    node_id: *node_id,
                    host: "127.0.0.1".into(),
                    port: node.port.into(),
                    rack: None,
                })
                .collect(),
            controller_id: self.brokers().next().map_or(-1, |(node_id, _)| *node_id),
            topics: names.iter().map(|name| topic(name)).collect(),
            ..MetadataResponse::default()
        }
    }

    fn brokers(&self) -> impl Iterator<Item = (&i32, &Node)> {
        let nodes = self.nodes.iter();
        nodes.filter(|(node_id, _)| !self.fenced.contains(node_id))
    }

    /// Who leads a partition, and since which epoch.
    fn leader(&self, partition: i32) -> (i32, i32) {
        self.leaders.get(&partition).copied().unwrap_or((1, 4))
    }

    fn produce(&mut self, request: &ProduceRequest, node: i32, act: Act) -> ProduceResponse {
        let mut responses = Vec::new();
        for topic in &request.topic_data {
            let mut partition_responses = Vec::new();
            for data in &topic.partition_data {
                let mut answer = PartitionProduceResponse {
                    index: data.index,
                    ..PartitionProduceResponse::default()
                };
                let outcome = match act {
                    Act::Refuse(code) => Err(code),
                    _ if self.leader(data.index).0 != node => Err(ErrorCode::NotLeaderOrFollower),
                    _ => self.store(data.index, data.records.clone().unwrap().into_bytes()),
                };
                match (outcome, act) {
                    (Ok(_), Act::StoreAndRefuse(code)) | (Err(code), _) => {
                        answer.error_code = code.number();
                        answer.base_offset = -1;
                    }
                    (Ok(base_offset), _) => answer.base_offset = base_offset,
                }
                partition_responses.push(answer);
            }
            responses.push(TopicProduceResponse {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partition_responses,
            });
        }
        ProduceResponse {
            responses,
            ..ProduceResponse::default()
        }
    }

    /// Stores one batch by the rules of idempotence: the next number, or one of the last five.
    fn store(&mut self, partition: i32, bytes: Bytes) -> Result<i64, ErrorCode> {
        let view = BatchView::parse(&bytes).unwrap();
        assert!(
            view.crc_is_valid() && view.total_len() == bytes.len(),
            "exactly one good batch"
        );
        let (id, first, last) = (
            view.producer_id(),
            view.base_sequence(),
            view.last_sequence(),
        );
        if id >= 0 {
            let epoch = view.producer_epoch();
            let (current, known) = self.sequences.entry((partition, id)).or_default();
            if epoch < *current {
                return Err(ErrorCode::InvalidProducerEpoch);
            }
            if epoch > *current && first != 0 {
                return Err(ErrorCode::OutOfOrderSequenceNumber);
            }
            if epoch > *current {
                *current = epoch;
                known.clear();
            }
            if let Some((_, _, offset)) = known.iter().find(|(f, l, _)| (*f, *l) == (first, last)) {
                return Ok(*offset);
            }
            let next = known
                .back()
                .map_or(0, |(_, last, _)| increment_sequence(*last, 1));
            if first != next {
                return Err(ErrorCode::OutOfOrderSequenceNumber);
            }
        }
        let end = self.end(partition);
        if id >= 0 {
            let (_, known) = self.sequences.entry((partition, id)).or_default();
            known.push_back((first, last, end));
            if known.len() > 5 {
                known.pop_front();
            }
        }
        let mut stored = BytesMut::from(&bytes[..]);
        stamp(&mut stored, end, self.leader(partition).1);
        self.logs
            .entry(partition)
            .or_default()
            .push(stored.freeze());
        Ok(end)
    }

    fn end(&self, partition: i32) -> i64 {
        let last = self.logs.get(&partition).and_then(|log| log.last());
        last.map_or(0, |b| BatchView::parse(b).unwrap().next_offset())
    }

    fn fetch(&self, request: &FetchRequest, node: i32, act: Act) -> FetchResponse {
        let mut responses = Vec::new();
        for topic in &request.topics {
            let mut partitions = Vec::new();
            for asked in &topic.partitions {
                let end = self.end(asked.partition);
                let mut data = PartitionData {
                    partition_index: asked.partition,
                    high_watermark: end,
                    last_stable_offset: end,
                    log_start_offset: self.log_start,
                    ..PartitionData::default()
                };
                let out_of_range = asked.fetch_offset < self.log_start || asked.fetch_offset > end;
                match act {
                    Act::Refuse(code) => data.error_code = code.number(),
                    Act::Diverge(offset) => {
                        data.diverging_epoch.epoch = 3;
                        data.diverging_epoch.end_offset = offset;
                    }
                    _ if self.leader(asked.partition).0 != node => {
                        data.error_code = ErrorCode::NotLeaderOrFollower.number();
                    }
                    _ if out_of_range => data.error_code = ErrorCode::OffsetOutOfRange.number(),
                    _ => data.records = Some(self.read(asked.partition, asked.fetch_offset, act)),
                }
                partitions.push(data);
            }
            responses.push(FetchableTopicResponse {
                topic: topic.topic.clone(),
                topic_id: topic.topic_id,
                partitions,
            });
        }
        FetchResponse {
            responses,
            ..FetchResponse::default()
        }
    }

    /// At most three whole batches from the one that holds the offset on, and half of a fourth.
    fn read(&self, partition: i32, offset: i64, act: Act) -> Records {
        let log = self
            .logs
            .get(&partition)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let mut wanted = log
            .iter()
            .filter(|b| BatchView::parse(b).unwrap().next_offset() > offset);
        let mut bytes = BytesMut::new();
        for batch in wanted.by_ref().take(3) {
            bytes.extend_from_slice(batch);
        }
        if let Some(cut_off) = wanted.next() {
            bytes.extend_from_slice(&cut_off[..cut_off.len() / 2]);
        }
        if act == Act::Corrupt {
            let first = batches(&bytes).next().unwrap().unwrap().total_len();
            bytes[first - 1] ^= 1;
        }
        Records::from(bytes.freeze())
    }

    fn list_offsets(&mut self, request: &ListOffsetsRequest, node: i32) -> ListOffsetsResponse {
        let asked = request.topics.iter().flat_map(|t| &t.partitions);
        self.asked_offsets.extend(asked.map(|p| p.timestamp));
        let partition = |p: &riverrun_wire::api::list_offsets::ListOffsetsPartition| {
            let (leader, leader_epoch) = self.leader(p.partition_index);
            if leader != node {
                return ListOffsetsPartitionResponse {
                    partition_index: p.partition_index,
                    error_code: ErrorCode::NotLeaderOrFollower.number(),
                    ..ListOffsetsPartitionResponse::default()
                };
            }
            ListOffsetsPartitionResponse {
                partition_index: p.partition_index,
                offset: match p.timestamp {
                    -2 => self.log_start,
                    -1 => self.end(p.partition_index),
                    _ => -1,
                },
                leader_epoch,
                ..ListOffsetsPartitionResponse::default()
            }
        };
        let topic =
            |t: &riverrun_wire::api::list_offsets::ListOffsetsTopic| ListOffsetsTopicResponse {
                name: t.name.clone(),
                partitions: t.partitions.iter().map(partition).collect(),
            };
        ListOffsetsResponse {
            topics: request.topics.iter().map(topic).collect(),
            ..ListOffsetsResponse::default()
        }
    }
}
