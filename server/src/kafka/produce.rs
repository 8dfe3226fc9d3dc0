//! Produce: each batch is checked once and handed to its partition's shard; the thread that
//! completes the last of them writes the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use riverrun_record::{BatchSummary, Compression, Limits, TimestampType};
use riverrun_replication::{Acks, Produce, ProduceOutcome, Ticket};
use riverrun_wire::api::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    PlacedRecords, TopicProduceResponse, split_records,
};
use riverrun_wire::api::{ProduceRequest, ProduceResponse};
use riverrun_wire::{ApiKey, ErrorCode, encode_response};
use tokio::time::Instant;
use tracing::error;
use uuid::Uuid;

use super::{Call, Refusal, answer_of};
use crate::broker::Broker;
use crate::error;
use crate::net::answer::Answer;
use crate::net::burst;
use crate::net::connection::{Pending, Waiting};
use crate::net::memory::Lease;
use crate::partition::{NotLeading, Partition};

const FIRST_VERSION_WITH_ZSTD: i16 = 7;
const FIRST_VERSION_WITH_LEADERS: i16 = 10;
const FIRST_VERSION_WITH_TOPIC_IDS: i16 = 13;
/// The longest that a produce waits, whatever its timeout says.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// A produce that waits for its partitions.
#[derive(Debug)]
pub(crate) struct Outstanding {
    version: i16,
    correlation_id: i32,
    /// It is not answered (acks=0).
    is_silent: bool,
    response: ProduceResponse,
    parts: Vec<Part>,
    left: usize,
    deadline: Instant,
    /// A batch was refused for want of a leader.
    lacks_leader: bool,
}

/// One batch on its way; the number in its ticket is its place in the list.
#[derive(Debug)]
struct Part {
    topic: usize,
    partition: usize,
    at: Arc<Partition>,
    log_append_time_ms: i64,
    answered: bool,
}

impl Part {
    fn of((topic, partition, checked): &(usize, usize, Checked)) -> Self {
        Self {
            topic: *topic,
            partition: *partition,
            at: Arc::clone(&checked.at),
            log_append_time_ms: checked.log_append_time_ms,
            answered: false,
        }
    }
}

impl Outstanding {
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn lacks_leader(&self) -> bool {
        self.lacks_leader
    }

    /// Takes in what became of one batch; the answer when it was the last.
    pub(crate) fn produced(
        &mut self,
        broker: &Broker,
        slot: u32,
        outcome: &ProduceOutcome,
        endpoint: impl FnOnce(i32) -> Option<NodeEndpoint>,
    ) -> Option<Answer> {
        let part = self.parts.get_mut(usize::try_from(slot).ok()?)?;
        if std::mem::replace(&mut part.answered, true) {
            return None;
        }
        let row = self
            .response
            .responses
            .get_mut(part.topic)
            .and_then(|topic| topic.partition_responses.get_mut(part.partition))?;
        match outcome {
            Ok(produced) => {
                row.base_offset = produced.base_offset;
                row.log_append_time_ms = part.log_append_time_ms;
                row.log_start_offset = produced.log_start_offset;
            }
            Err(error) => {
                let code = error::of_produce(*error);
                self.lacks_leader |= broker.lacks_leader(&part.at, code);
                refuse(row, code, Some(error.to_string()));
                if matches!(
                    code,
                    ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch
                ) && self.version >= FIRST_VERSION_WITH_LEADERS
                {
                    let (leader_id, leader_epoch) = broker.leader_of(&part.at);
                    row.current_leader = LeaderIdAndEpoch {
                        leader_id,
                        leader_epoch,
                    };
                    if let Some(endpoint) = endpoint(leader_id)
                        && !self.response.node_endpoints.contains(&endpoint)
                    {
                        self.response.node_endpoints.push(endpoint);
                    }
                }
            }
        }
        self.left -= 1;
        (self.left == 0).then(|| self.encode())
    }

    /// The answer to a request whose time is over: what is not known by now stays unknown.
    pub(crate) fn expire(&mut self) -> Answer {
        for part in self.parts.iter_mut().filter(|part| !part.answered) {
            part.answered = true;
            if let Some(row) = self
                .response
                .responses
                .get_mut(part.topic)
                .and_then(|topic| topic.partition_responses.get_mut(part.partition))
            {
                refuse(row, ErrorCode::RequestTimedOut, None);
            }
        }
        self.left = 0;
        self.encode()
    }

    fn encode(&self) -> Answer {
        if self.is_silent {
            return Answer::default();
        }
        match encode_response(&self.response, self.version, self.correlation_id) {
            Ok(encoded) => answer_of(encoded),
            Err(error) => {
                error!(%error, "a produce response cannot be encoded");
                Answer::default()
            }
        }
    }
}

fn refuse(row: &mut PartitionProduceResponse, error: ErrorCode, message: Option<String>) {
    row.error_code = error.number();
    row.error_message = message;
    row.base_offset = -1;
}

/// Why a batch is not even posted.
struct Refused {
    code: ErrorCode,
    message: Option<String>,
    record: Option<i32>,
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self {
            code,
            message: None,
            record: None,
        }
    }
}

impl Refused {
    fn because(code: ErrorCode, message: &str) -> Self {
        Self {
            code,
            message: Some(message.to_owned()),
            record: None,
        }
    }
}

struct Checked {
    batch: BytesMut,
    summary: BatchSummary,
    at: Arc<Partition>,
    log_append_time_ms: i64,
}

pub(crate) fn step(
    call: &Call,
    request: ProduceRequest,
    placed: &[PlacedRecords],
    frame: BytesMut,
    lease: Lease,
) -> Result<(), Refusal> {
    let bytes = frame.len();
    let acks = match request.acks {
        0 => None,
        1 => Some(Acks::Leader),
        _ => Some(Acks::All),
    };
    let mut batches = split_records(frame, placed)?
        .into_iter()
        .zip(placed)
        .peekable();
    let mut response = ProduceResponse::default();
    // One line for the request, about the first of them.
    let mut noted = false;
    let mut lacks_leader = false;
    let mut checked = Vec::with_capacity(placed.len());
    for (t, topic) in request.topic_data.into_iter().enumerate() {
        let found = Topic::find(call, &topic.name, topic.topic_id);
        let mut rows = Vec::with_capacity(topic.partition_data.len());
        for (p, data) in topic.partition_data.into_iter().enumerate() {
            let mut row = PartitionProduceResponse {
                index: data.index,
                ..PartitionProduceResponse::default()
            };
            let batch = batches
                .next_if(|(_, place)| place.topic == t && place.partition == p)
                .map(|(batch, _)| batch);
            let verdict = check_acks(request.acks)
                .and_then(|()| no_transaction(request.transactional_id.as_deref()))
                .and_then(|()| found.partition(data.index))
                .and_then(|at| check(call, at, batch.unwrap_or_default()));
            match verdict {
                Ok(batch) => checked.push((t, p, batch)),
                Err(refused) => {
                    if request.acks == 0 {
                        // Nobody hears an error, so the connection is closed: as Kafka does.
                        return Err(Refusal::Unanswerable(refused.code.name()));
                    }
                    lacks_leader |= found.lacks_leader(call, data.index, refused.code);
                    // Those without words are the ordinary ones: no such topic, another leader.
                    if let Some(why) = refused.message.as_deref().filter(|_| !noted) {
                        noted = true;
                        let log = call.broker.refused_log();
                        log.log(&call.connection, ApiKey::Produce, refused.code, why);
                    }
                    row.record_errors = refused
                        .record
                        .map(|batch_index| BatchIndexAndErrorMessage {
                            batch_index,
                            batch_index_error_message: refused.message.clone(),
                        })
                        .into_iter()
                        .collect();
                    refuse(&mut row, refused.code, refused.message);
                }
            }
            rows.push(row);
        }
        response.responses.push(TopicProduceResponse {
            name: topic.name,
            topic_id: topic.topic_id,
            partition_responses: rows,
        });
    }
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let outstanding = Outstanding {
        version: call.version,
        correlation_id: call.correlation_id,
        is_silent: acks.is_none(),
        response,
        parts: checked.iter().map(Part::of).collect(),
        left: checked.len(),
        deadline: broker_deadline(timeout),
        lacks_leader,
    };
    post(call, acks, outstanding, checked, lease, bytes);
    Ok(())
}

fn post(
    call: &Call,
    acks: Option<Acks>,
    mut outstanding: Outstanding,
    checked: Vec<(usize, usize, Checked)>,
    lease: Lease,
    bytes: usize,
) {
    if checked.is_empty() {
        let answer = outstanding.expire();
        let request = call.connection.open(Pending::Task, lease, 0);
        if outstanding.lacks_leader() {
            call.broker.refused(&call.connection);
        }
        call.connection.answer(request, answer);
        return;
    }
    // One that nobody hears of waits too, until it is written: its memory is given back then, and a
    // client that sends faster than the disk takes is read no faster.
    let request = call
        .connection
        .open(Pending::Produce(Box::new(outstanding)), lease, bytes);
    for (slot, (_, _, checked)) in (0_u32..).zip(checked) {
        let ticket = Ticket {
            connection: call.connection.id(),
            request,
            slot,
        };
        let handle = checked.at.handle();
        let produce = Produce {
            ticket,
            acks: acks.unwrap_or(Acks::Leader),
            batch: checked.batch,
            summary: checked.summary,
            expected_epoch: None,
        };
        call.broker.runtime().produce(handle, produce);
        burst::touch(&call.broker, handle.shard());
    }
}

fn broker_deadline(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(LONGEST_WAIT)
}

enum Topic {
    Found(Arc<crate::topics::Topic>),
    Unknown(ErrorCode),
}

impl Topic {
    fn find(call: &Call, name: &str, id: Uuid) -> Self {
        let topics = call.broker.topics();
        let (found, unknown) = if call.version >= FIRST_VERSION_WITH_TOPIC_IDS {
            (topics.with_id(&id), ErrorCode::UnknownTopicId)
        } else {
            (topics.named(name), ErrorCode::UnknownTopicOrPartition)
        };
        found.map_or(Self::Unknown(unknown), Self::Found)
    }

    fn partition(&self, index: i32) -> Result<&Arc<Partition>, Refused> {
        match self {
            Self::Unknown(code) => Err((*code).into()),
            Self::Found(topic) => {
                let partition = topic
                    .partition(index)
                    .ok_or(ErrorCode::UnknownTopicOrPartition)?;
                partition.here().map_err(Refused::from)
            }
        }
    }

    fn lacks_leader(&self, call: &Call, index: i32, error: ErrorCode) -> bool {
        match self {
            Self::Unknown(_) => false,
            Self::Found(topic) => call.broker.lacks_leader_at(topic.partition(index), error),
        }
    }
}

fn check_acks(acks: i16) -> Result<(), Refused> {
    if (-1..=1).contains(&acks) {
        Ok(())
    } else {
        let message = "acks must be -1, 0 or 1";
        Err(Refused::because(ErrorCode::InvalidRequiredAcks, message))
    }
}

const NO_TRANSACTIONS: &str = "transactions are not served yet";

fn no_transaction(transactional_id: Option<&str>) -> Result<(), Refused> {
    match transactional_id {
        None => Ok(()),
        Some(_) => Err(Refused::because(
            ErrorCode::InvalidTxnState,
            NO_TRANSACTIONS,
        )),
    }
}

/// Everything that can be said about a batch without its partition's shard.
fn check(call: &Call, at: &Arc<Partition>, mut batch: BytesMut) -> Result<Checked, Refused> {
    match at.leading(-1) {
        Ok(_) => {}
        // The shard answers it, with the leader that it knows by then.
        Err(NotLeading::Follower(_)) => {}
        Err(not_leading) => return Err(error::of_not_leading(not_leading).into()),
    }
    if batch.is_empty() {
        let message = "a produce request needs a record batch for each partition";
        return Err(Refused::because(ErrorCode::InvalidRecord, message));
    }
    let settings = at.settings();
    let now_ms = call.broker.now_ms();
    let limits = Limits {
        timestamp_type: settings.timestamp_type,
        timestamp_before_max_ms: settings.timestamp_before_max_ms,
        timestamp_after_max_ms: settings.timestamp_after_max_ms,
        max_batch_bytes: usize::try_from(settings.max_message_bytes).unwrap_or(usize::MAX),
        ..Limits::new(now_ms)
    };
    let summary = riverrun_record::validate(&batch, &limits).map_err(|error| {
        let (code, record) = error::of_batch(&error);
        Refused {
            code,
            message: Some(error.to_string()),
            record,
        }
    })?;
    if summary.is_transactional {
        return Err(Refused::because(
            ErrorCode::InvalidTxnState,
            NO_TRANSACTIONS,
        ));
    }
    if summary.compression == Compression::Zstd && call.version < FIRST_VERSION_WITH_ZSTD {
        let message = "zstd needs version 7 of the produce request";
        return Err(Refused::because(
            ErrorCode::UnsupportedCompressionType,
            message,
        ));
    }
    riverrun_record::apply_timestamps(&mut batch, &summary);
    let log_append_time_ms = match settings.timestamp_type {
        TimestampType::LogAppendTime => now_ms,
        TimestampType::CreateTime => -1,
    };
    Ok(Checked {
        batch,
        summary,
        at: Arc::clone(at),
        log_append_time_ms,
    })
}

/// Carries a shard's outcome to the waiting request.
pub(crate) fn completed(
    broker: &Broker,
    connection: &Arc<crate::net::connection::Connection>,
    ticket: Ticket,
    outcome: &ProduceOutcome,
) {
    let mut unheard = None;
    connection.complete(ticket.request, |waiting: &mut Waiting| {
        match &mut waiting.what {
            Pending::Produce(outstanding) => {
                unheard = outcome.err().filter(|_| outstanding.is_silent);
                let answer = outstanding.produced(broker, ticket.slot, outcome, |node| {
                    let (host, port) = broker.endpoint(node, connection)?;
                    Some(NodeEndpoint {
                        node_id: node,
                        host,
                        port: i32::from(port),
                        rack: None,
                    })
                });
                if answer.is_some() && outstanding.lacks_leader() {
                    broker.refused(connection);
                }
                answer
            }
            _ => None,
        }
    });
    // Nobody hears an error, so the connection is closed: as Kafka does.
    if let Some(error) = unheard {
        let (code, why) = (error::of_produce(error), error.to_string());
        let log = broker.refused_log();
        log.log(connection, ApiKey::Produce, code, &why);
        connection.hang_up();
    }
}
