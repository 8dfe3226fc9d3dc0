//! The way to one broker: requests leave in order, answers are waited for beside that. A request is
//! given up, as one of which nobody knows what became, when its broker is silent and another one
//! leads by now.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use riverrun_wire::{
    Records,
    api::{
        ProduceRequest, ProduceResponse,
        produce::{PartitionProduceData, TopicProduceData},
    },
};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    Shared,
    delivery::Delivered,
    queue::Verdict,
    sender::{Answered, Event},
    verdict,
};
use crate::{
    cluster::Lane,
    connection::{Awaited, Connection},
    error::{Error, Result},
};

/// The first version that names topics by their ids.
const FIRST_WITH_TOPIC_IDS: i16 = 13;

/// A batch on its way.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) topic: Arc<str>,
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
    pub(super) batch: u64,
    pub(super) bytes: Bytes,
}

/// One request: at most one batch of each partition.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) batches: Vec<Sent>,
}

impl Job {
    fn places(&self) -> Vec<(Arc<str>, i32)> {
        let batches = self.batches.iter();
        batches.map(|b| (b.topic.clone(), b.partition)).collect()
    }
}

/// Carries requests to a node until nobody sends any more.
pub(super) async fn run(
    node: i32,
    shared: Arc<Shared>,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    events: mpsc::UnboundedSender<Event>,
) {
    while let Some(job) = jobs.recv().await {
        let sent = async {
            let connection = shared.client.node(node, Lane::Produce).await?;
            send(&connection, &shared, &job).await
        };
        let client = &shared.client;
        let sent = client.unless_deposed(node, Duration::ZERO, || job.places(), sent);
        match sent.await {
            Ok(Some(awaited)) => {
                let (shared, events) = (shared.clone(), events.clone());
                tokio::spawn(async move {
                    let (client, answer) = (&shared.client, awaited.answer());
                    let answer =
                        client.unless_deposed(node, Duration::ZERO, || job.places(), answer);
                    let answered = match answer.await {
                        Ok(response) => read(&job, response, node, &shared),
                        Err(error) => failed(&job, &error, node),
                    };
                    // The producer may have been dropped.
                    let _ = events.send(Event::Answered(answered));
                });
            }
            Ok(None) => {
                let delivered = Delivered {
                    base_offset: None,
                    log_append_time_ms: None,
                };
                let verdicts = job
                    .batches
                    .into_iter()
                    .map(|s| (s, Verdict::Written(delivered)))
                    .collect();
                let _ = events.send(Event::Answered(Answered {
                    node,
                    verdicts,
                    stale: false,
                }));
            }
            Err(error) => {
                let _ = events.send(Event::Answered(failed(&job, &error, node)));
            }
        }
    }
}

/// Sends a request; with `acks=0` there is nothing to wait for once it has left.
async fn send(
    connection: &Connection,
    shared: &Shared,
    job: &Job,
) -> Result<Option<Awaited<ProduceRequest>>> {
    let by_id = job.batches.iter().all(|s| !s.topic_id.is_nil());
    let cap = if by_id {
        i16::MAX
    } else {
        FIRST_WITH_TOPIC_IDS - 1
    };
    let version = connection.version::<ProduceRequest>(cap)?;
    let request = request(job, shared);
    if shared.is_answered() {
        let within = shared.config.ack_timeout + shared.client.config().request_timeout;
        return connection.send(&request, version, within).map(Some);
    }
    connection
        .send_unanswered(&request, version)?
        .await
        .map(|()| None)
}

fn request(job: &Job, shared: &Shared) -> ProduceRequest {
    let mut topics: BTreeMap<&str, TopicProduceData> = BTreeMap::new();
    for sent in &job.batches {
        let topic = topics
            .entry(&sent.topic)
            .or_insert_with(|| TopicProduceData {
                name: sent.topic.to_string(),
                topic_id: sent.topic_id,
                partition_data: Vec::new(),
            });
        topic.partition_data.push(PartitionProduceData {
            index: sent.partition,
            records: Some(Records::from(sent.bytes.clone())),
        });
    }
    ProduceRequest {
        transactional_id: None,
        acks: shared.config.acks.code(),
        timeout_ms: i32::try_from(shared.config.ack_timeout.as_millis()).unwrap_or(i32::MAX),
        topic_data: topics.into_values().collect(),
    }
}

/// Matches an answer with what was sent. A batch that it leaves out may or may not be stored.
fn read(job: &Job, response: ProduceResponse, node: i32, shared: &Shared) -> Answered {
    let mut stale = false;
    let mut answers = BTreeMap::new();
    for topic in &response.responses {
        for partition in &topic.partition_responses {
            answers.insert(
                (topic.name.as_str(), topic.topic_id, partition.index),
                partition,
            );
        }
    }
    let verdicts = job.batches.iter().map(|sent| {
        let by_name = answers.get(&(&*sent.topic, Uuid::nil(), sent.partition));
        let Some(answer) = by_name.or_else(|| answers.get(&("", sent.topic_id, sent.partition)))
        else {
            let what = "its answer to Produce leaves a partition out";
            return (
                sent.clone(),
                Verdict::Unknown(Error::Protocol {
                    broker: format!("node {node}"),
                    what,
                }),
            );
        };
        let leader = &answer.current_leader;
        if leader.leader_id >= 0 {
            shared.client.lead(
                &sent.topic,
                sent.partition,
                leader.leader_id,
                leader.leader_epoch,
            );
        }
        let (verdict, is_stale) = verdict::of(&sent.topic, answer, shared.config.idempotence);
        stale |= is_stale;
        (sent.clone(), verdict)
    });
    let verdicts = verdicts.collect();
    Answered {
        node,
        verdicts,
        stale,
    }
}

fn failed(job: &Job, error: &Error, node: i32) -> Answered {
    let verdicts = job
        .batches
        .iter()
        .map(|sent| (sent.clone(), verdict::of_failure(error)))
        .collect();
    Answered {
        node,
        verdicts,
        stale: true,
    }
}
