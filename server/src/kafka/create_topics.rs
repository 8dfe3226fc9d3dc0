//! CreateTopics: answered when the new partitions have leaders, or the timeout is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use riverrun_replication::controller::{
    Command, Controller, CreateTopicRequest, Outcome, Rejection,
};
use riverrun_wire::api::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult,
};
use riverrun_wire::api::{CreateTopicsRequest, CreateTopicsResponse};
use riverrun_wire::{ApiKey, ErrorCode};
use uuid::Uuid;

use super::Call;
use super::describe_configs::topic_rows;
use crate::error;
use crate::topics::Topic;

const LONGEST_WAIT: Duration = Duration::from_secs(300);

type Refused = (ErrorCode, String);

/// A topic of the request on its way.
struct Wanted {
    name: String,
    given: BTreeMap<String, String>,
    state: Result<Planned, Refused>,
}

struct Planned {
    request: CreateTopicRequest,
    partitions: usize,
    replication: usize,
}

pub(crate) async fn handle(call: Call, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let wait = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let mut wanted = want(&call, &request.topics);
    if request.validate_only {
        call.broker.catalog().plan(|controller| {
            for topic in &mut wanted {
                topic.plan(controller);
            }
        });
    } else {
        create(&call, &mut wanted).await;
        let ready = until_led(&call, &mut wanted);
        let _ = tokio::time::timeout(wait.min(LONGEST_WAIT), ready).await;
    }
    let validate_only = request.validate_only;
    let refused = wanted.iter().find_map(|topic| match &topic.state {
        Err((error @ ErrorCode::InvalidTopicException, why)) => Some((*error, why)),
        _ => None,
    });
    if let Some((error, why)) = refused {
        let log = call.broker.refused_log();
        log.log(&call.connection, ApiKey::CreateTopics, error, why);
    }
    let topics = wanted
        .into_iter()
        .map(|topic| row(&call, topic, validate_only))
        .collect();
    CreateTopicsResponse {
        topics,
        ..CreateTopicsResponse::default()
    }
}

fn want(call: &Call, topics: &[CreatableTopic]) -> Vec<Wanted> {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for topic in topics {
        if !seen.insert(topic.name.as_str()) {
            twice.insert(topic.name.as_str());
        }
    }
    // A name that stands there twice is answered once.
    let mut done = BTreeSet::new();
    topics
        .iter()
        .filter(|topic| done.insert(topic.name.as_str()))
        .map(|topic| {
            let given: Result<BTreeMap<_, _>, Refused> = topic
                .configs
                .iter()
                .map(|config| match &config.value {
                    Some(value) => Ok((config.name.clone(), value.clone())),
                    None => {
                        let message = format!("setting {} needs a value", config.name);
                        Err((ErrorCode::InvalidConfig, message))
                    }
                })
                .collect();
            let state = if twice.contains(topic.name.as_str()) {
                Err((
                    ErrorCode::InvalidRequest,
                    "the topic is named twice".to_owned(),
                ))
            } else {
                given.clone().and_then(|given| planned(call, topic, given))
            };
            Wanted {
                name: topic.name.clone(),
                given: given.unwrap_or_default(),
                state,
            }
        })
        .collect()
}

fn planned(
    call: &Call,
    topic: &CreatableTopic,
    configs: BTreeMap<String, String>,
) -> Result<Planned, Refused> {
    let config = call.broker.config();
    config
        .topic
        .with(&configs)
        .map_err(|e| (error::of_setting(&e), e.to_string()))?;
    let refuse = |error: ErrorCode, message: &str| Err((error, message.to_owned()));
    let assignments = match assignments(topic)? {
        Some(_) if topic.num_partitions != -1 || topic.replication_factor != -1 => {
            let message = "with an assignment, partitions and replication factor must be -1";
            return refuse(ErrorCode::InvalidRequest, message);
        }
        assignments => assignments,
    };
    let partitions = match topic.num_partitions {
        -1 => config.num_partitions,
        count if count > 0 => count,
        _ => {
            return refuse(
                ErrorCode::InvalidPartitions,
                "give at least one partition, or -1",
            );
        }
    };
    let replication = match topic.replication_factor {
        -1 => config.default_replication,
        count => match u16::try_from(count) {
            Ok(count) if count > 0 => Some(count),
            _ => {
                let message = "give a replication factor of at least 1, or -1";
                return refuse(ErrorCode::InvalidReplicationFactor, message);
            }
        },
    };
    let request = CreateTopicRequest {
        name: topic.name.clone(),
        id: Uuid::new_v4(),
        partitions,
        replication,
        assignments,
        configs,
        seed: call.broker.seed(),
    };
    Ok(Planned {
        request,
        partitions: 0,
        replication: 0,
    })
}

/// The brokers of each partition, in order of the partitions.
fn assignments(topic: &CreatableTopic) -> Result<Option<Vec<Vec<i32>>>, Refused> {
    if topic.assignments.is_empty() {
        return Ok(None);
    }
    let by_index: BTreeMap<i32, &Vec<i32>> = topic
        .assignments
        .iter()
        .map(|a| (a.partition_index, &a.broker_ids))
        .collect();
    let is_dense = by_index.len() == topic.assignments.len()
        && by_index
            .keys()
            .zip(0..)
            .all(|(index, expected)| *index == expected);
    if !is_dense {
        let message = "the assignment must name each partition from 0 on once";
        return Err((ErrorCode::InvalidReplicaAssignment, message.to_owned()));
    }
    Ok(Some(by_index.into_values().cloned().collect()))
}

impl Wanted {
    fn refuse(&mut self, rejection: &Rejection) {
        self.state = Err((error::of_rejection(rejection), rejection.to_string()));
    }

    /// The command that creates it, if it may be created.
    fn plan(&mut self, controller: &Controller) -> Option<Command> {
        let Ok(planned) = &mut self.state else {
            return None;
        };
        match controller.plan_create_topic(planned.request.clone()) {
            Ok(command) => {
                if let Command::CreateTopic(create) = &command {
                    planned.partitions = create.partitions.len();
                    planned.replication = create.partitions.first().map_or(0, |p| p.nodes.len());
                }
                Some(command)
            }
            Err(rejection) => {
                self.refuse(&rejection);
                None
            }
        }
    }
}

async fn create(call: &Call, wanted: &mut [Wanted]) {
    let broker = &call.broker;
    let mut written = Vec::new();
    let changed = broker
        .catalog()
        .change(broker, |controller| {
            let mut commands = Vec::new();
            for (at, topic) in wanted.iter_mut().enumerate() {
                if let Some(command) = topic.plan(controller) {
                    commands.push(command);
                    written.push(at);
                }
            }
            Ok(commands)
        })
        .await;
    match changed {
        Ok(outcomes) => {
            for (at, outcome) in written.iter().zip(outcomes) {
                if let (Some(topic), Outcome::Rejected(rejection)) = (wanted.get_mut(*at), outcome)
                {
                    topic.refuse(&rejection);
                }
            }
        }
        Err(error) => {
            let refused = broker.refused_change(&call.connection, &error);
            for at in written {
                if let Some(topic) = wanted.get_mut(at) {
                    topic.state = Err(refused.clone());
                }
            }
        }
    }
}

/// Waits for leaders. What is cut off by the timeout has been marked as timed out before.
async fn until_led(call: &Call, wanted: &mut [Wanted]) {
    let timed_out = || {
        let message = "the topic is created, and not all of its partitions have leaders yet";
        Err((ErrorCode::RequestTimedOut, message.to_owned()))
    };
    let mut waiting = Vec::new();
    for topic in wanted.iter_mut().filter(|topic| topic.state.is_ok()) {
        waiting.push((std::mem::replace(&mut topic.state, timed_out()), topic));
    }
    if waiting.is_empty() {
        return;
    }
    call.broker.catalog().shown().await;
    for (state, topic) in waiting {
        if let Ok(planned) = &state {
            call.broker.until_led(&planned.request.id).await;
        }
        topic.state = state;
    }
}

fn row(call: &Call, topic: Wanted, validate_only: bool) -> CreatableTopicResult {
    let mut row = CreatableTopicResult {
        name: topic.name,
        ..CreatableTopicResult::default()
    };
    match topic.state {
        Err((error, message)) => {
            row.error_code = error.number();
            row.error_message = Some(message);
        }
        Ok(planned) => {
            if !validate_only {
                row.topic_id = planned.request.id;
            }
            row.num_partitions = i32::try_from(planned.partitions).unwrap_or(i32::MAX);
            row.replication_factor = i16::try_from(planned.replication).unwrap_or(i16::MAX);
            row.configs = Some(configs(call, &row.name, topic.given));
        }
    }
    row
}

fn configs(call: &Call, name: &str, given: BTreeMap<String, String>) -> Vec<CreatableTopicConfigs> {
    let config = call.broker.config();
    let settings = config.topic.with(&given).unwrap_or_default();
    let shown = Topic {
        id: Uuid::nil(),
        name: Arc::from(name),
        given,
        settings: Arc::new(settings),
        partitions: Vec::new(),
    };
    topic_rows(&shown, config)
        .into_iter()
        .map(|row| CreatableTopicConfigs {
            name: row.name,
            value: row.value,
            read_only: row.read_only,
            config_source: row.config_source,
            is_sensitive: row.is_sensitive,
        })
        .collect()
}
