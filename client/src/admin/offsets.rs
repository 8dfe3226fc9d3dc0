//! Which offset stands where: at the start, the end, a time.

use std::{collections::BTreeMap, time::Duration};

use riverrun_wire::{
    ErrorCode,
    api::{
        ListOffsetsRequest, ListOffsetsResponse,
        list_offsets::{ListOffsetsPartition, ListOffsetsTopic},
    },
};

use crate::{
    cluster::{Client, Lane},
    error::{Error, Result, error_code},
    retry::Retry,
};

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

impl TopicPartition {
    /// A partition of a topic.
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

/// A place in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first record that is there.
    Start,
    /// The next one to come.
    End,
    /// The first at or after this time, in milliseconds since 1970.
    Timestamp(i64),
    /// One with the greatest timestamp.
    MaxTimestamp,
}

impl OffsetSpec {
    fn code(self) -> i64 {
        match self {
            Self::End => -1,
            Self::Start => -2,
            Self::MaxTimestamp => -3,
            // Times before 1970 have no place in the protocol: nothing is older than that.
            Self::Timestamp(ms) => ms.max(0),
        }
    }
}

/// An offset that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset; `None` if no record fits (all are older than the time, or there are none).
    pub offset: Option<i64>,
    /// The record's timestamp, if it was asked for by time.
    pub timestamp_ms: Option<i64>,
    /// The epoch of the leader that wrote the record, where it is known.
    pub leader_epoch: Option<i32>,
}

impl Client {
    /// The offsets at these places, each asked of the partition's leader.
    ///
    /// # Errors
    /// If a partition does not exist, or its leader does not answer within `operation_timeout`.
    pub async fn list_offsets(
        &self,
        places: &[(TopicPartition, OffsetSpec)],
    ) -> Result<BTreeMap<TopicPartition, ListedOffset>> {
        let mut listed = BTreeMap::new();
        let mut open: BTreeMap<TopicPartition, OffsetSpec> = places.iter().cloned().collect();
        let what = "offsets were not found";
        let mut retry = Retry::new(self.config(), self.config().operation_timeout);
        loop {
            let mut failure = None;
            for (node, asked) in self.by_leader(&open, &mut failure).await? {
                match retry.attempt(what, self.ask_offsets(node, &asked)).await {
                    Ok(response) => {
                        self.read_offsets(response, &mut open, &mut listed, &mut failure)?
                    }
                    Err(error) => failure = Some(error),
                }
            }
            if open.is_empty() {
                return Ok(listed);
            }
            let failure = failure.unwrap_or(Error::Protocol {
                broker: "the leader".to_owned(),
                what: "its answer to ListOffsets leaves a partition out",
            });
            retry.pause(failure, what).await?;
            let topics: Vec<String> = open.keys().map(|p| p.topic.clone()).collect();
            let asked = self.refresh(&topics, false, None);
            let _ = retry.attempt(what, asked).await;
        }
    }

    /// Sorts partitions by the node that leads them.
    async fn by_leader(
        &self,
        open: &BTreeMap<TopicPartition, OffsetSpec>,
        failure: &mut Option<Error>,
    ) -> Result<BTreeMap<i32, Vec<(TopicPartition, OffsetSpec, i32)>>> {
        let mut by_leader: BTreeMap<i32, Vec<_>> = BTreeMap::new();
        for (place, spec) in open {
            let topic = self.topic(&place.topic).await?;
            let Some(partition) = topic.partition(place.partition) else {
                return Err(Error::UnknownPartition {
                    topic: place.topic.clone(),
                    partition: place.partition,
                });
            };
            match partition.leader {
                Some(leader) => {
                    by_leader.entry(leader).or_default().push((
                        place.clone(),
                        *spec,
                        partition.leader_epoch,
                    ));
                }
                None => {
                    let what = format!("{}/{}", place.topic, place.partition);
                    *failure = Some(Error::refused(what, ErrorCode::LeaderNotAvailable, None));
                }
            }
        }
        Ok(by_leader)
    }

    async fn ask_offsets(
        &self,
        node: i32,
        asked: &[(TopicPartition, OffsetSpec, i32)],
    ) -> Result<ListOffsetsResponse> {
        let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for (place, spec, epoch) in asked {
            topics
                .entry(&place.topic)
                .or_default()
                .push(ListOffsetsPartition {
                    partition_index: place.partition,
                    current_leader_epoch: *epoch,
                    timestamp: spec.code(),
                });
        }
        let topics = topics.into_iter();
        let request = ListOffsetsRequest {
            replica_id: -1,
            isolation_level: 0,
            topics: topics
                .map(|(name, partitions)| ListOffsetsTopic {
                    name: name.to_owned(),
                    partitions,
                })
                .collect(),
            timeout_ms: i32::try_from(self.config().request_timeout.as_millis())
                .unwrap_or(i32::MAX),
        };
        let within = self.config().request_timeout;
        let answer = async {
            let connection = self.node(node, Lane::General).await?;
            connection.call(&request, within).await
        };
        let places = || {
            let places = asked.iter().map(|(place, ..)| place);
            places
                .map(|p| (p.topic.as_str().into(), p.partition))
                .collect()
        };
        self.unless_deposed(node, Duration::ZERO, places, answer)
            .await
    }

    fn read_offsets(
        &self,
        response: ListOffsetsResponse,
        open: &mut BTreeMap<TopicPartition, OffsetSpec>,
        listed: &mut BTreeMap<TopicPartition, ListedOffset>,
        failure: &mut Option<Error>,
    ) -> Result<()> {
        for topic in response.topics {
            for partition in topic.partitions {
                let place = TopicPartition::new(topic.name.clone(), partition.partition_index);
                let code = error_code(partition.error_code);
                if code == ErrorCode::None {
                    if open.remove(&place).is_some() {
                        let some = |value: i64| (value >= 0).then_some(value);
                        listed.insert(
                            place,
                            ListedOffset {
                                offset: some(partition.offset),
                                timestamp_ms: some(partition.timestamp),
                                leader_epoch: (partition.leader_epoch >= 0)
                                    .then_some(partition.leader_epoch),
                            },
                        );
                    }
                    continue;
                }
                let error = Error::refused(
                    format!("offsets of {}/{}", place.topic, place.partition),
                    code,
                    None,
                );
                if !code.is_retriable() {
                    return Err(error);
                }
                *failure = Some(error);
            }
        }
        Ok(())
    }
}
