//! Metadata: brokers, topics, leaders; and the creation of topics that a client asks for.

use std::sync::Arc;
use std::time::Duration;

use riverrun_replication::controller::{CreateTopicRequest, Rejection, check_topic_name};
use riverrun_replication::cut_off::concerns_others;
use riverrun_wire::api::metadata::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use riverrun_wire::api::{MetadataRequest, MetadataResponse};
use riverrun_wire::{ApiKey, Decode, ErrorCode, Reader};
use rustc_hash::FxHashSet;
use tracing::info;
use uuid::Uuid;

use super::{Call, Refusal, Reply};
use crate::broker::Broker;
use crate::error;
use crate::net::answer::Answer;
use crate::net::connection::Connection;
use crate::topics::{Topic, TopicPartition};

const FIRST_VERSION_BY_ID: i16 = 12;
/// How long the first question for a new topic waits for its leaders.
const AUTO_CREATE_WAIT: Duration = Duration::from_secs(5);

/// All operations on a topic, and on the cluster, as bits: there is no authorisation yet.
const TOPIC_OPERATIONS: i32 = 3576;
const CLUSTER_OPERATIONS: i32 = 8096;

/// Answers at once, unless topics have to be created first.
pub(crate) fn step(call: Call, reader: &mut Reader<'_>) -> Result<Reply, Refusal> {
    let request = MetadataRequest::decode(reader, call.version)?;
    let missing = missing_topics(&call, &request);
    if missing.is_empty() {
        return answer(&call, &request).map(Reply::Now);
    }
    Ok(Reply::Later(Box::pin(async move {
        create(&call, missing).await;
        answer(&call, &request)
    })))
}

/// Who asks for topics by name and is told of a partition that nobody leads may have come to the wrong
/// node (X2); whoever looks at all topics, as `cluster health` does, is only told.
fn answer(call: &Call, request: &MetadataRequest) -> Result<Answer, Refusal> {
    let response = respond(call, request);
    let own = call.broker.config().node_id;
    let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    let lacks_leader = partitions.any(|partition| {
        partition.leader_id < 0 && concerns_others(own, partition.replica_nodes.iter().copied())
    });
    if lacks_leader && !request.all_topics(call.version) {
        call.broker.refused(&call.connection);
    }
    call.answer(&response)
}

/// The topics that are asked for, are not there, and may be created.
fn missing_topics(call: &Call, request: &MetadataRequest) -> Vec<String> {
    let may_create = request.allow_auto_topic_creation && call.broker.config().auto_create_topics;
    if !may_create || request.all_topics(call.version) {
        return Vec::new();
    }
    let mut names: Vec<String> = request
        .topics
        .iter()
        .flatten()
        .filter_map(|topic| topic.name.clone())
        .filter(|name| check_topic_name(name).is_ok())
        .filter(|name| call.broker.topics().named(name).is_none())
        .collect();
    names.sort();
    names.dedup();
    names
}

pub(crate) async fn create(call: &Call, names: Vec<String>) {
    let broker = &call.broker;
    let partitions = broker.config().num_partitions;
    let created = broker
        .catalog()
        .change(broker, |controller| {
            // A name that is taken by now, or that may not be, is seen in the answer.
            let plan = |name: &String| {
                let request = CreateTopicRequest {
                    name: name.clone(),
                    id: Uuid::new_v4(),
                    partitions,
                    replication: broker.config().default_replication,
                    seed: broker.seed(),
                    ..CreateTopicRequest::default()
                };
                let planned = controller.plan_create_topic(request);
                if let Err(rejection @ Rejection::NoRoom { .. }) = &planned {
                    let (error, why) = (error::of_rejection(rejection), rejection.to_string());
                    let log = broker.refused_log();
                    log.log(&call.connection, ApiKey::Metadata, error, &why);
                }
                planned.ok()
            };
            Ok(names.iter().filter_map(plan).collect())
        })
        .await;
    if let Err(error) = created {
        broker.refused_change(&call.connection, &error);
        info!(%error, "topics were not created on demand");
        return;
    }
    let ready = async {
        broker.catalog().shown().await;
        for name in &names {
            if let Some(topic) = broker.topics().named(name) {
                broker.until_led(&topic.id).await;
            }
        }
    };
    let _ = tokio::time::timeout(AUTO_CREATE_WAIT, ready).await;
}

fn respond(call: &Call, request: &MetadataRequest) -> MetadataResponse {
    let broker = &call.broker;
    MetadataResponse {
        brokers: brokers(broker, &call.connection),
        cluster_id: Some(broker.cluster_id()),
        controller_id: broker.controller_node(),
        topics: topics(call, request),
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            CLUSTER_OPERATIONS
        } else {
            i32::MIN
        },
        ..MetadataResponse::default()
    }
}

fn brokers(broker: &Broker, connection: &Connection) -> Vec<MetadataResponseBroker> {
    broker
        .nodes(connection)
        .into_iter()
        .map(|node| MetadataResponseBroker {
            node_id: node.id,
            host: node.host,
            port: i32::from(node.port),
            rack: node.rack,
        })
        .collect()
}

fn topics(call: &Call, request: &MetadataRequest) -> Vec<MetadataResponseTopic> {
    let broker = &call.broker;
    let operations = if request.include_topic_authorized_operations {
        TOPIC_OPERATIONS
    } else {
        i32::MIN
    };
    let show = |topic: &Arc<Topic>| MetadataResponseTopic {
        name: Some(topic.name.to_string()),
        topic_id: topic.id,
        partitions: (0..)
            .zip(&topic.partitions)
            .map(|(i, p)| partition(broker, i, p))
            .collect(),
        topic_authorized_operations: operations,
        ..MetadataResponseTopic::default()
    };
    if request.all_topics(call.version) {
        return broker.topics().all().iter().map(show).collect();
    }
    let refuse = |name: Option<String>, topic_id: Uuid, error: ErrorCode| MetadataResponseTopic {
        error_code: error.number(),
        name,
        topic_id,
        ..MetadataResponseTopic::default()
    };
    let mut rows = Vec::new();
    // A topic is shown once, however often it is asked for: a large one may not be multiplied.
    let mut seen = FxHashSet::default();
    for asked in request.topics.iter().flatten() {
        if !seen.insert((&asked.name, asked.topic_id)) {
            continue;
        }
        let by_id = asked.name.is_none() || !asked.topic_id.is_nil();
        rows.push(match &asked.name {
            // Versions 10 and 11 carry an id which nobody has ever answered.
            name if by_id && call.version < FIRST_VERSION_BY_ID => {
                let name = name.clone().or(Some(String::new()));
                refuse(name, asked.topic_id, ErrorCode::InvalidRequest)
            }
            None => match broker.topics().with_id(&asked.topic_id) {
                Some(topic) => show(&topic),
                None => refuse(None, asked.topic_id, ErrorCode::UnknownTopicId),
            },
            Some(name) => match broker.topics().named(name) {
                Some(topic) => show(&topic),
                None => {
                    let error = check_topic_name(name).map_or_else(
                        |rejection| {
                            let error = error::of_rejection(&rejection);
                            let why = rejection.to_string();
                            let log = broker.refused_log();
                            log.log(&call.connection, ApiKey::Metadata, error, &why);
                            error
                        },
                        |()| ErrorCode::UnknownTopicOrPartition,
                    );
                    refuse(Some(name.clone()), Uuid::nil(), error)
                }
            },
        });
    }
    rows
}

fn partition(broker: &Broker, index: i32, partition: &TopicPartition) -> MetadataResponsePartition {
    let state = broker.state_of(partition);
    MetadataResponsePartition {
        error_code: state.error.number(),
        partition_index: index,
        leader_id: state.leader,
        leader_epoch: state.leader_epoch,
        replica_nodes: state.replicas,
        isr_nodes: state.in_sync,
        offline_replicas: state.offline,
    }
}
