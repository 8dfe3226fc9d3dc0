//! What the partitions of one fetch have for it, within its limits.

use std::sync::Arc;

use riverrun_replication::{ProduceError, Published, Ticket};
use riverrun_wire::api::fetch::{
    EpochEndOffset, FetchTopic, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData,
};
use riverrun_wire::api::{FetchRequest, FetchResponse};
use riverrun_wire::{ErrorCode, Records};
use rustc_hash::FxHashSet;
use tracing::warn;

use super::room::Room;
use crate::broker::Broker;
use crate::error;
use crate::kafka::Call;
use crate::net::burst;
use crate::partition::Partition;
use crate::repair;

const FIRST_VERSION_WITH_TOPIC_IDS: i16 = 13;
const FIRST_VERSION_WITH_LEADERS: i16 = 12;
const FIRST_VERSION_WITH_ENDPOINTS: i16 = 16;
const READ_COMMITTED: i8 = 1;

/// A fetch and how far it has come.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) call: Call,
    /// Known once the slot is open.
    pub(super) request: Option<u64>,
    min_bytes: usize,
    max_bytes: usize,
    read_committed: bool,
    topics: Vec<JobTopic>,
    parts: Vec<Part>,
    /// The groups of the parts. A partition is read once for a fetch, however often it is named.
    groups: FxHashSet<u64>,
    /// A partition that is not here is led by nobody that this node knows.
    lacks_leader: bool,
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
    /// The last look found the partition to end at the offset: what there is at the next one has been
    /// written since, and is in memory.
    at_end: bool,
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
    /// It has to be read from the disk first.
    Cold,
}

impl Found {
    fn row(row: PartitionData) -> Self {
        Self::Row {
            row: Box::new(row),
            more: false,
        }
    }
}

/// Where batches are read from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reads<'a> {
    /// From memory: whoever evaluates must not wait for a disk.
    Memory,
    /// From the disk where they are not in memory, or not known to be what was written.
    Disk(&'a Room),
}

/// What comes of a look at the partitions.
pub(super) enum Verdict {
    /// The answer.
    Answer(FetchResponse),
    /// There is too little.
    Wait,
    /// What there is has to be read from the disk first.
    Cold,
}

/// Whether the answer is given now whatever it holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Only if there is enough.
    Wait,
    /// The time is over.
    Over,
}

impl Job {
    pub(super) fn new(call: &Call, request: FetchRequest) -> Self {
        let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0);
        let mut job = Self {
            call: call.clone(),
            request: None,
            min_bytes: usize::try_from(request.min_bytes).unwrap_or(0),
            max_bytes: max_bytes.min(call.broker.config().fetch_max_bytes),
            read_committed: request.isolation_level == READ_COMMITTED,
            topics: Vec::with_capacity(request.topics.len()),
            parts: Vec::new(),
            groups: FxHashSet::default(),
            lacks_leader: false,
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
                    Some(partition) => partition.here().cloned().inspect_err(|error| {
                        let broker = &self.call.broker;
                        self.lacks_leader |= broker.lacks_leader_at(Some(partition), *error);
                    }),
                },
            };
            if let Ok(at) = &at
                && !self.groups.insert(at.handle().group())
            {
                continue;
            }
            self.parts.push(Part {
                index: part.partition,
                leader_epoch: part.current_leader_epoch,
                last_fetched_epoch: part.last_fetched_epoch,
                offset: part.fetch_offset,
                max_bytes: usize::try_from(part.partition_max_bytes).unwrap_or(0),
                at,
                leadership: Leadership::Unasked,
                at_end: false,
            });
        }
        let parts = from..self.parts.len();
        self.topics.push(JobTopic {
            name: topic.topic,
            id: topic.topic_id,
            parts,
        });
    }

    /// The most that the answer may hold.
    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    pub(super) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.parts
            .iter()
            .filter_map(|part| part.at.as_ref().ok().cloned())
            .collect()
    }

    /// Takes in that the leadership of a partition was confirmed or not.
    pub(super) fn confirmed(&mut self, slot: u32, result: Result<Published, ProduceError>) {
        let part = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.parts.get_mut(slot));
        if let Some(part) = part {
            part.leadership = Leadership::Confirmed(result);
        }
    }

    /// The answer, if it is to be given now. With `ask`, leaderships that have to be confirmed are
    /// asked about; their answers come back through [`Parked::confirmed`]. With [`Reads::Disk`] it
    /// blocks.
    pub(super) fn evaluate(
        &mut self,
        patience: Patience,
        reads: Reads<'_>,
        ask: Option<&Broker>,
    ) -> Verdict {
        let mut left = self.max_bytes;
        let mut total = 0_usize;
        let mut now = patience == Patience::Over || self.parts.is_empty();
        let mut rows = Vec::with_capacity(self.parts.len());
        let mut endpoints: Vec<NodeEndpoint> = Vec::new();
        for slot in 0..self.parts.len() {
            let Some(part) = self.parts.get(slot) else {
                break;
            };
            let row = match self.read(part, left, total == 0, reads) {
                Found::Row { row, more } => {
                    // A partition that has reached its limit would not gain by waiting.
                    now |= more;
                    row
                }
                Found::Cold => return Verdict::Cold,
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
            let at_end = row.error_code == 0 && row.high_watermark == part.offset;
            if let Some(part) = self.parts.get_mut(slot) {
                part.at_end = at_end;
            }
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
        if now {
            Verdict::Answer(self.respond(rows, endpoints))
        } else {
            Verdict::Wait
        }
    }

    fn respond(
        &self,
        rows: Vec<(usize, Box<PartitionData>)>,
        node_endpoints: Vec<NodeEndpoint>,
    ) -> FetchResponse {
        let broker = &self.call.broker;
        let lacks_leader = |(slot, row): &(usize, Box<PartitionData>)| {
            let at = self.parts.get(*slot).and_then(|part| part.at.as_ref().ok());
            let error = ErrorCode::from_number(row.error_code);
            at.zip(error)
                .is_some_and(|(at, error)| broker.lacks_leader(at, error))
        };
        if self.lacks_leader || rows.iter().any(lacks_leader) {
            broker.refused(&self.call.connection);
        }
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
    fn read(&self, part: &Part, left: usize, is_first: bool, reads: Reads<'_>) -> Found {
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
            let reader = at.handle().reader();
            let fetched = match reads {
                Reads::Memory if part.at_end => {
                    reader.fetch_written(part.offset, ceiling, max, is_first)
                }
                Reads::Memory => reader.fetch_in_memory(part.offset, ceiling, max, is_first),
                Reads::Disk(room) => room
                    .read(reader, part.offset, ceiling, (max, is_first))
                    .map(Some),
            };
            match fetched {
                Ok(None) => return Found::Cold,
                Ok(Some(fetched)) => {
                    more = fetched.next_offset < ceiling;
                    row.records = Some(Records::from(fetched.batches));
                }
                Err(error) => {
                    warn!(group = at.handle().group(), %error, "a partition cannot be read");
                    row = error_row(
                        part.index,
                        repair::of_read(&self.call.broker, at.handle(), &error),
                    );
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

pub(super) fn error_row(index: i32, error: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index: index,
        error_code: error.number(),
        high_watermark: -1,
        records: Some(Records::default()),
        ..PartitionData::default()
    }
}
