//! One fetch from one broker: the request, and what its answer says of each partition.

use std::{collections::BTreeMap, sync::Arc};

use riverrun_wire::{
    ErrorCode,
    api::{
        FetchRequest, FetchResponse,
        fetch::{FetchPartition, FetchTopic, PartitionData},
    },
};
use uuid::Uuid;

use super::decode::{DecodeConfig, Decoded, decode};
use crate::{
    admin::TopicPartition,
    cluster::{Client, Lane},
    config::ConsumerConfig,
    error::{Error, Result, error_code},
};

/// The first version that names topics by their ids.
const FIRST_WITH_TOPIC_IDS: i16 = 13;

/// What is asked of one partition.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) place: TopicPartition,
    pub(super) topic: Arc<str>,
    pub(super) topic_id: Uuid,
    pub(super) generation: u64,
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    /// Epoch of the last batch that was read.
    pub(super) last_epoch: Option<i32>,
}

/// What the answer says of one partition.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) decoded: Decoded,
    pub(super) high_watermark: i64,
    pub(super) trouble: Option<Trouble>,
}

/// Why a partition was not read, or not to the end of what was sent.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Worth another attempt.
    Passing(Error),
    /// The offset is not there.
    OutOfRange,
    /// What was read is no longer part of the log from this offset on.
    Diverged(i64),
    /// It stays so.
    Lasting(Error),
}

/// Asks a broker for these partitions, until it answers or is silent while another one leads.
pub(super) async fn fetch(
    client: &Client,
    node: i32,
    asked: &[Asked],
    config: &ConsumerConfig,
) -> Result<BTreeMap<TopicPartition, Told>> {
    let places = || {
        let places = asked.iter().map(|a| (a.topic.clone(), a.place.partition));
        places.collect()
    };
    let told = ask(client, node, asked, config);
    client
        .unless_deposed(node, config.fetch_max_wait, places, told)
        .await
}

async fn ask(
    client: &Client,
    node: i32,
    asked: &[Asked],
    config: &ConsumerConfig,
) -> Result<BTreeMap<TopicPartition, Told>> {
    let connection = client.node(node, Lane::Fetch).await?;
    let by_id = asked.iter().all(|a| !a.topic_id.is_nil());
    let cap = if by_id {
        i16::MAX
    } else {
        FIRST_WITH_TOPIC_IDS - 1
    };
    let version = connection.version::<FetchRequest>(cap)?;
    let request = request(asked, version, config);
    let within = config.fetch_max_wait + client.config().request_timeout;
    let response = connection.send(&request, version, within)?.answer().await?;
    let code = error_code(response.error_code);
    if code != ErrorCode::None {
        return Err(Error::refused(
            format!("a fetch from {}", connection.broker()),
            code,
            None,
        ));
    }
    Ok(read(client, asked, response, config))
}

fn request(asked: &[Asked], version: i16, config: &ConsumerConfig) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for a in asked {
        let partition = FetchPartition {
            partition: a.place.partition,
            current_leader_epoch: a.leader_epoch,
            fetch_offset: a.offset,
            // With it a broker can tell us that what we read is no longer part of the log.
            last_fetched_epoch: a.last_epoch.filter(|_| version >= 12).unwrap_or(-1),
            partition_max_bytes: config.partition_max_bytes,
            ..FetchPartition::default()
        };
        // The order of partitions is the caller's: brokers fill their answer in it.
        match topics.last_mut().filter(|t| *t.topic == *a.topic) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(FetchTopic {
                topic: a.topic.to_string(),
                topic_id: a.topic_id,
                partitions: vec![partition],
            }),
        }
    }
    FetchRequest {
        max_wait_ms: i32::try_from(config.fetch_max_wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: config.fetch_min_bytes,
        max_bytes: config.fetch_max_bytes,
        topics,
        ..FetchRequest::default()
    }
}

fn read(
    client: &Client,
    asked: &[Asked],
    response: FetchResponse,
    config: &ConsumerConfig,
) -> BTreeMap<TopicPartition, Told> {
    let mut answers = BTreeMap::new();
    for topic in response.responses {
        for partition in topic.partitions {
            answers.insert(
                (
                    topic.topic.clone(),
                    topic.topic_id,
                    partition.partition_index,
                ),
                partition,
            );
        }
    }
    let mut told = BTreeMap::new();
    for a in asked {
        let by_name = answers.remove(&(a.topic.to_string(), Uuid::nil(), a.place.partition));
        let answer =
            by_name.or_else(|| answers.remove(&(String::new(), a.topic_id, a.place.partition)));
        let Some(answer) = answer else { continue };
        let leader = &answer.current_leader;
        if leader.leader_id >= 0 {
            client.lead(
                &a.topic,
                a.place.partition,
                leader.leader_id,
                leader.leader_epoch,
            );
        }
        told.insert(a.place.clone(), tell(a, answer, config));
    }
    told
}

fn tell(asked: &Asked, answer: PartitionData, config: &ConsumerConfig) -> Told {
    let place = &asked.place;
    let nothing = |trouble| Told {
        decoded: Decoded {
            next_offset: asked.offset,
            ..Decoded::default()
        },
        high_watermark: answer.high_watermark,
        trouble: Some(trouble),
    };
    let code = error_code(answer.error_code);
    match code {
        ErrorCode::None => {}
        ErrorCode::OffsetOutOfRange => return nothing(Trouble::OutOfRange),
        code => {
            let error = Error::refused(
                format!("a fetch of {}/{}", place.topic, place.partition),
                code,
                None,
            );
            return nothing(
                if code.is_retriable() && code != ErrorCode::CorruptMessage {
                    Trouble::Passing(error)
                } else {
                    Trouble::Lasting(error)
                },
            );
        }
    }
    if answer.diverging_epoch.end_offset >= 0 {
        return nothing(Trouble::Diverged(answer.diverging_epoch.end_offset));
    }
    let bytes = answer
        .records
        .map(riverrun_wire::Records::into_bytes)
        .unwrap_or_default();
    let limits = DecodeConfig {
        check_crcs: config.check_crcs,
        max_decompressed_bytes: config.max_decompressed_bytes,
    };
    let (decoded, error) = decode(&bytes, asked.offset, limits);
    let trouble = error.map(|source| {
        Trouble::Lasting(Error::CorruptBatch {
            topic: place.topic.clone(),
            partition: place.partition,
            offset: decoded.next_offset,
            source,
        })
    });
    Told {
        decoded,
        high_watermark: answer.high_watermark,
        trouble,
    }
}
