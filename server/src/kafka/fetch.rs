//! Fetch: answered with slices of the log, or parked until a commit on one of its partitions, or
//! until its time is over.
//!
//! A fetch that finds too little is registered with its partitions and then looks once more; a
//! commit is published before the registered fetches are looked at. So one of the two sees it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use riverrun_replication::{ProduceError, Published, Ticket};
use riverrun_wire::api::fetch::{
    EpochEndOffset, FetchTopic, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData,
};
use riverrun_wire::api::{FetchRequest, FetchResponse};
use riverrun_wire::{ErrorCode, Records};
use tokio::time::Instant;
use tracing::warn;

use super::{Call, Refusal};
use crate::broker::Broker;
use crate::error;
use crate::net::burst;
use crate::net::connection::Pending;
use crate::net::memory::Lease;
use crate::partition::Partition;

const FIRST_VERSION_WITH_TOPIC_IDS: i16 = 13;
const FIRST_VERSION_WITH_LEADERS: i16 = 12;
const FIRST_VERSION_WITH_ENDPOINTS: i16 = 16;
const FIRST_VERSION_WITH_REPLICA_STATE: i16 = 15;
const READ_COMMITTED: i8 = 1;
/// The longest that a fetch is parked, whatever it asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// A fetch that waits. Shared by the connection's slot and the partitions that it waits for.
#[derive(Debug)]
pub(crate) struct Parked {
    deadline: Instant,
    /// Taken when it is answered or its connection ends.
    job: Mutex<Option<Job>>,
}

#[derive(Debug)]
struct Job {
    call: Call,
    /// Known once the slot is open.
    request: Option<u64>,
    min_bytes: usize,
    max_bytes: usize,
    read_committed: bool,
    topics: Vec<JobTopic>,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct JobTopic {
    name: String,
    id: uuid::Uuid,
    parts: std::ops::Range<usize>,
}

#[derive(Debug)]
struct Part {
    index: i32,
    leader_epoch: i32,
    last_fetched_epoch: i32,
    offset: i64,
    max_bytes: usize,
    at: Result<Arc<Partition>, ErrorCode>,
    leadership: Leadership,
}

/// Whether a majority has said, after the fetch came, that this is still the leader (L5).
#[derive(Debug, Clone, Copy)]
enum Leadership {
    Unasked,
    Asked,
    Confirmed(Result<Published, ProduceError>),
}

/// What one partition has for the fetch.
enum Found {
    Row {
        row: Box<PartitionData>,
        /// There is more below the watermark than the limits let through.
        more: bool,
    },
    /// Nothing can be said yet: a new leader, or a leadership to be confirmed.
    NotYet,
    Confirm,
}

impl Found {
    fn row(row: PartitionData) -> Self {
        Self::Row {
            row: Box::new(row),
            more: false,
        }
    }
}

/// Whether the answer is given now whatever it holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// Only if there is enough.
    Wait,
    /// The time is over.
    Over,
}

pub(crate) fn step(call: &Call, request: FetchRequest, lease: Lease) -> Result<(), Refusal> {
    if let Some(error) = refuse_whole(call, &request) {
        let answer = call.answer(&whole_error(call, &request, error))?;
        let slot = call.connection.open(Pending::Task, lease, 0);
        call.connection.answer(slot, answer);
        return Ok(());
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let patience = if wait.is_zero() {
        Patience::Over
    } else {
        Patience::Wait
    };
    let mut job = Job::new(call, request);
    if let Some(response) = job.evaluate(patience, None) {
        let answer = call.answer(&response)?;
        let slot = call.connection.open(Pending::Task, lease, 0);
        call.connection.answer(slot, answer);
        return Ok(());
    }
    let parked = Arc::new(Parked {
        deadline: deadline(wait),
        job: Mutex::new(Some(job)),
    });
    let slot = call
        .connection
        .open(Pending::Fetch(Arc::clone(&parked)), lease, 0);
    let partitions = parked.begin(slot);
    for partition in partitions {
        partition.waiters().add(&parked);
    }
    parked.look(&call.broker);
    Ok(())
}

fn deadline(wait: Duration) -> Instant {
    Instant::now() + wait.min(LONGEST_WAIT)
}

/// What concerns the whole request. There are no sessions here: the answer's session id is always
/// 0, so a request that continues one is told that it is not found and begins anew.
fn refuse_whole(call: &Call, request: &FetchRequest) -> Option<ErrorCode> {
    let replica = if call.version >= FIRST_VERSION_WITH_REPLICA_STATE {
        request.replica_state.replica_id
    } else {
        request.replica_id
    };
    if replica >= 0 {
        // Replicas do not fetch in this cluster; a client must never be taken for one.
        return Some(ErrorCode::ClusterAuthorizationFailed);
    }
    let is_full = request.session_epoch == 0 || request.session_epoch == -1;
    (!is_full).then_some(ErrorCode::FetchSessionIdNotFound)
}

fn whole_error(call: &Call, request: &FetchRequest, error: ErrorCode) -> FetchResponse {
    const FIRST_VERSION_WITH_TOP_LEVEL_ERROR: i16 = 7;
    if call.version >= FIRST_VERSION_WITH_TOP_LEVEL_ERROR {
        return FetchResponse {
            error_code: error.number(),
            ..FetchResponse::default()
        };
    }
    let rows = |topic: &FetchTopic| FetchableTopicResponse {
        topic: topic.topic.clone(),
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|p| error_row(p.partition, error))
            .collect(),
    };
    FetchResponse {
        responses: request.topics.iter().map(rows).collect(),
        ..FetchResponse::default()
    }
}

fn error_row(index: i32, error: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index: index,
        error_code: error.number(),
        high_watermark: -1,
        records: Some(Records::default()),
        ..PartitionData::default()
    }
}

impl Parked {
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Notes the slot and returns the partitions to register with.
    fn begin(&self, request: u64) -> Vec<Arc<Partition>> {
        let mut guard = self.job.lock();
        let Some(job) = guard.as_mut() else {
            return Vec::new();
        };
        job.request = Some(request);
        job.partitions()
    }

    /// Looks whether there is enough now, and answers if so.
    pub(crate) fn look(self: &Arc<Self>, broker: &Broker) {
        self.settle(broker, Patience::Wait);
    }

    /// Answers with what is there.
    pub(crate) fn expire(self: &Arc<Self>, broker: &Broker) {
        self.settle(broker, Patience::Over);
    }

    /// Inside a burst, so that nothing is stepped while the job is locked.
    fn settle(self: &Arc<Self>, broker: &Broker, patience: Patience) {
        burst::run(broker, || self.settle_now(broker, patience));
    }

    fn settle_now(self: &Arc<Self>, broker: &Broker, patience: Patience) {
        let (job, response) = {
            let mut guard = self.job.lock();
            let Some(job) = guard.as_mut() else { return };
            let Some(response) = job.evaluate(patience, Some(broker)) else {
                return;
            };
            let Some(job) = guard.take() else { return };
            (job, response)
        };
        self.leave(&job);
        let Some(request) = job.request else { return };
        match job.call.answer(&response) {
            Ok(answer) => job.call.connection.answer(request, answer),
            Err(refusal) => {
                warn!(%refusal, "closing a connection");
                job.call.connection.hang_up();
            }
        }
    }

    /// Takes in that the leadership of a partition was confirmed or not.
    pub(crate) fn confirmed(
        self: &Arc<Self>,
        broker: &Broker,
        slot: u32,
        result: Result<Published, ProduceError>,
    ) {
        if let Some(part) = self
            .job
            .lock()
            .as_mut()
            .and_then(|job| job.parts.get_mut(usize::try_from(slot).ok()?))
        {
            part.leadership = Leadership::Confirmed(result);
        }
        self.look(broker);
    }

    /// The connection has ended.
    pub(crate) fn forget(self: &Arc<Self>) {
        let job = self.job.lock().take();
        if let Some(job) = job {
            self.leave(&job);
        }
    }

    fn leave(self: &Arc<Self>, job: &Job) {
        for partition in job.partitions() {
            partition.waiters().remove(self);
        }
    }
}

impl Job {
    fn new(call: &Call, request: FetchRequest) -> Self {
        let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0);
        let mut job = Self {
            call: call.clone(),
            request: None,
            min_bytes: usize::try_from(request.min_bytes).unwrap_or(0),
            max_bytes: max_bytes.min(call.broker.config().fetch_max_bytes),
            read_committed: request.isolation_level == READ_COMMITTED,
            topics: Vec::with_capacity(request.topics.len()),
            parts: Vec::new(),
        };
        for topic in request.topics {
            job.add(topic);
        }
        job
    }

    fn add(&mut self, topic: FetchTopic) {
        let topics = self.call.broker.topics();
        let (found, unknown) = if self.call.version >= FIRST_VERSION_WITH_TOPIC_IDS {
            (topics.with_id(&topic.topic_id), ErrorCode::UnknownTopicId)
        } else {
            (
                topics.named(&topic.topic),
                ErrorCode::UnknownTopicOrPartition,
            )
        };
        let from = self.parts.len();
        for part in topic.partitions {
            let at = match &found {
                None => Err(unknown),
                Some(topic) => match topic.partition(part.partition) {
                    None => Err(ErrorCode::UnknownTopicOrPartition),
                    Some(partition) => partition.here().cloned(),
                },
            };
            self.parts.push(Part {
                index: part.partition,
                leader_epoch: part.current_leader_epoch,
                last_fetched_epoch: part.last_fetched_epoch,
                offset: part.fetch_offset,
                max_bytes: usize::try_from(part.partition_max_bytes).unwrap_or(0),
                at,
                leadership: Leadership::Unasked,
            });
        }
        let parts = from..self.parts.len();
        self.topics.push(JobTopic {
            name: topic.topic,
            id: topic.topic_id,
            parts,
        });
    }

    fn partitions(&self) -> Vec<Arc<Partition>> {
        self.parts
            .iter()
            .filter_map(|part| part.at.as_ref().ok().cloned())
            .collect()
    }

    /// The answer, if it is to be given now. With `ask`, leaderships that have to be confirmed are
    /// asked about; their answers come back through [`Parked::confirmed`].
    fn evaluate(&mut self, patience: Patience, ask: Option<&Broker>) -> Option<FetchResponse> {
        let mut left = self.max_bytes;
        let mut total = 0_usize;
        let mut now = patience == Patience::Over || self.parts.is_empty();
        let mut rows = Vec::with_capacity(self.parts.len());
        let mut endpoints: Vec<NodeEndpoint> = Vec::new();
        for slot in 0..self.parts.len() {
            let Some(part) = self.parts.get(slot) else {
                break;
            };
            let row = match self.read(part, left, total == 0) {
                Found::Row { row, more } => {
                    // A partition that has reached its limit would not gain by waiting.
                    now |= more;
                    row
                }
                Found::NotYet if patience == Patience::Wait => continue,
                Found::Confirm if patience == Patience::Wait => {
                    if let Some(broker) = ask {
                        self.ask(broker, slot);
                    }
                    continue;
                }
                Found::NotYet | Found::Confirm => {
                    Box::new(error_row(part.index, ErrorCode::OffsetNotAvailable))
                }
            };
            let bytes = row.records.as_ref().map_or(0, Records::len);
            now |= row.error_code != 0 || row.diverging_epoch.end_offset >= 0;
            total += bytes;
            left = left.saturating_sub(bytes);
            if row.current_leader.leader_id >= 0
                && self.call.version >= FIRST_VERSION_WITH_ENDPOINTS
                && let Some(endpoint) = self.endpoint(row.current_leader.leader_id)
                && !endpoints.contains(&endpoint)
            {
                endpoints.push(endpoint);
            }
            rows.push((slot, row));
        }
        now |= total >= self.min_bytes && rows.len() == self.parts.len();
        now |= total > 0 && total >= self.min_bytes;
        now.then(|| self.respond(rows, endpoints))
    }

    fn respond(
        &self,
        rows: Vec<(usize, Box<PartitionData>)>,
        node_endpoints: Vec<NodeEndpoint>,
    ) -> FetchResponse {
        let mut rows = rows.into_iter().peekable();
        let responses = self
            .topics
            .iter()
            .map(|topic| FetchableTopicResponse {
                topic: topic.name.clone(),
                topic_id: topic.id,
                partitions: topic
                    .parts
                    .clone()
                    .zip(self.parts.iter().skip(topic.parts.start))
                    .map(|(slot, part)| match rows.next_if(|(at, _)| *at == slot) {
                        Some((_, row)) => *row,
                        // Another partition's answer is ready first; every partition is answered.
                        None => self.empty_row(part),
                    })
                    .collect(),
            })
            .collect();
        FetchResponse {
            responses,
            node_endpoints,
            ..FetchResponse::default()
        }
    }

    fn empty_row(&self, part: &Part) -> PartitionData {
        let watermark = part.at.as_ref().map(|at| at.handle().published());
        match watermark {
            Ok(published) if published.ready => self.row(part, &published),
            _ => error_row(part.index, ErrorCode::OffsetNotAvailable),
        }
    }

    fn row(&self, part: &Part, published: &Published) -> PartitionData {
        PartitionData {
            partition_index: part.index,
            high_watermark: published.high_watermark,
            last_stable_offset: published.last_stable_offset,
            log_start_offset: published.log_start_offset,
            // Null where the client did not ask to be told, empty where there are none.
            aborted_transactions: self.read_committed.then(Vec::new),
            records: Some(Records::default()),
            ..PartitionData::default()
        }
    }

    /// What one partition has, `left` being what the whole answer may still hold.
    fn read(&self, part: &Part, left: usize, is_first: bool) -> Found {
        let at = match &part.at {
            Ok(at) => at,
            Err(error) => return Found::row(error_row(part.index, *error)),
        };
        let published = match at.leading(part.leader_epoch) {
            Ok(published) => published,
            Err(not_leading) => {
                let error = error::of_not_leading(not_leading);
                return Found::row(self.not_leading_row(part, at, error));
            }
        };
        if !published.ready {
            return Found::NotYet;
        }
        let out_of_range = |published: &Published| {
            let mut row = error_row(part.index, ErrorCode::OffsetOutOfRange);
            row.log_start_offset = published.log_start_offset;
            Found::row(row)
        };
        if part.offset < published.log_start_offset {
            return out_of_range(&published);
        }
        if part.offset > published.end_offset {
            return match part.leadership {
                Leadership::Confirmed(Ok(confirmed)) if part.offset > confirmed.end_offset => {
                    out_of_range(&confirmed)
                }
                Leadership::Confirmed(Ok(_)) => Found::NotYet,
                Leadership::Confirmed(Err(error)) => {
                    let error = error::of_produce(error);
                    Found::row(self.not_leading_row(part, at, error))
                }
                Leadership::Unasked | Leadership::Asked => Found::Confirm,
            };
        }
        if part.last_fetched_epoch >= 0
            && let Some(row) = self.diverging(part, at, &published)
        {
            return Found::row(row);
        }
        let ceiling = if self.read_committed {
            published.last_stable_offset
        } else {
            published.high_watermark
        };
        let mut row = self.row(part, &published);
        let mut more = false;
        if part.offset < ceiling && (left > 0 || is_first) {
            let max = part.max_bytes.min(left);
            match at
                .handle()
                .reader()
                .fetch(part.offset, ceiling, max, is_first)
            {
                Ok(fetched) => {
                    more = fetched.next_offset < ceiling;
                    row.records = Some(Records::from(fetched.batches));
                }
                Err(error) => {
                    warn!(group = at.handle().group(), %error, "a partition cannot be read");
                    row = error_row(part.index, ErrorCode::KafkaStorageError);
                }
            }
        }
        Found::Row {
            row: Box::new(row),
            more,
        }
    }

    fn not_leading_row(&self, part: &Part, at: &Arc<Partition>, error: ErrorCode) -> PartitionData {
        let mut row = error_row(part.index, error);
        if self.call.version >= FIRST_VERSION_WITH_LEADERS
            && matches!(
                error,
                ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch
            )
        {
            let (leader_id, leader_epoch) = self.call.broker.leader_of(at);
            row.current_leader = LeaderIdAndEpoch {
                leader_id,
                leader_epoch,
            };
        }
        row
    }

    /// Whether the client's log parted from this one before its offset.
    fn diverging(
        &self,
        part: &Part,
        at: &Arc<Partition>,
        published: &Published,
    ) -> Option<PartitionData> {
        let reader = at.handle().reader();
        let end = published.high_watermark;
        let (epoch, end_offset) = if part.last_fetched_epoch >= published.leader_epoch() {
            (published.leader_epoch(), end)
        } else {
            reader.end_offset_for_epoch(part.last_fetched_epoch, end)?
        };
        if epoch >= part.last_fetched_epoch && end_offset >= part.offset.min(end) {
            return None;
        }
        let mut row = self.row(part, published);
        row.diverging_epoch = EpochEndOffset { epoch, end_offset };
        Some(row)
    }

    fn endpoint(&self, node: i32) -> Option<NodeEndpoint> {
        let (host, port) = self.call.broker.endpoint(node, &self.call.connection)?;
        Some(NodeEndpoint {
            node_id: node,
            host,
            port: i32::from(port),
            rack: None,
        })
    }

    fn ask(&mut self, broker: &Broker, slot: usize) {
        let (Some(request), Some(part), Ok(number)) =
            (self.request, self.parts.get_mut(slot), u32::try_from(slot))
        else {
            return;
        };
        if let (Ok(at), Leadership::Unasked) = (&part.at, part.leadership) {
            part.leadership = Leadership::Asked;
            let ticket = Ticket {
                connection: self.call.connection.id(),
                request,
                slot: number,
            };
            broker.runtime().confirm(at.handle(), ticket);
            burst::touch(broker, at.handle().shard());
        }
    }
}
