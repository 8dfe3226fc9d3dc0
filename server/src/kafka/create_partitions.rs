//! CreatePartitions: answered when the new partitions have leaders, or the timeout is over.

use std::collections::BTreeMap;
use std::time::Duration;

use riverrun_replication::controller::Outcome;
use riverrun_wire::ErrorCode;
use riverrun_wire::api::create_partitions::{CreatePartitionsTopic, CreatePartitionsTopicResult};
use riverrun_wire::api::{CreatePartitionsRequest, CreatePartitionsResponse};
use uuid::Uuid;

use super::Call;
use crate::catalog::ChangeError;
use crate::error;

const LONGEST_WAIT: Duration = Duration::from_secs(300);

type Refused = (ErrorCode, String);

pub(crate) async fn handle(
    call: Call,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let wait = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let mut results = Vec::new();
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.as_str()).or_default() += 1;
    }
    for topic in &request.topics {
        // A name that stands there twice is answered once.
        let Some(named) = named.remove(topic.name.as_str()) else {
            continue;
        };
        let outcome = if named > 1 {
            Err((
                ErrorCode::InvalidRequest,
                "the topic is named twice".to_owned(),
            ))
        } else {
            add(&call, topic, request.validate_only).await
        };
        results.push((topic.name.clone(), outcome));
    }
    let ready = async {
        call.broker.catalog().shown().await;
        for (_, outcome) in &results {
            if let Ok(Some(id)) = outcome {
                call.broker.until_led(id).await;
            }
        }
    };
    let in_time = tokio::time::timeout(wait.min(LONGEST_WAIT), ready)
        .await
        .is_ok();
    let rows = results
        .into_iter()
        .map(|(name, outcome)| row(name, outcome, in_time))
        .collect();
    CreatePartitionsResponse {
        results: rows,
        ..CreatePartitionsResponse::default()
    }
}

fn row(
    name: String,
    outcome: Result<Option<Uuid>, Refused>,
    in_time: bool,
) -> CreatePartitionsTopicResult {
    let outcome = match outcome {
        Ok(Some(_)) if !in_time => Err((
            ErrorCode::RequestTimedOut,
            "the partitions are created, and not all have leaders yet".to_owned(),
        )),
        outcome => outcome,
    };
    let (error_code, error_message) = match outcome {
        Ok(_) => (0, None),
        Err((error, message)) => (error.number(), Some(message)),
    };
    CreatePartitionsTopicResult {
        name,
        error_code,
        error_message,
    }
}

/// The topic's id when partitions were added, nothing when it was only looked at.
async fn add(
    call: &Call,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<Option<Uuid>, Refused> {
    let broker = &call.broker;
    let found = broker.topics().named(&topic.name).ok_or_else(|| {
        let error = ErrorCode::UnknownTopicOrPartition;
        (error, error.message().to_owned())
    })?;
    let have = found.partitions.len();
    if usize::try_from(topic.count).is_ok_and(|count| count <= have) || topic.count < 0 {
        let message = format!("the topic has {have} partitions; give more than that");
        return Err((ErrorCode::InvalidPartitions, message));
    }
    let assignments: Option<Vec<Vec<i32>>> = topic.assignments.as_ref().map(|given| {
        given
            .iter()
            .map(|assignment| assignment.broker_ids.clone())
            .collect()
    });
    let seed = broker.seed();
    let plan = |controller: &riverrun_replication::controller::Controller| {
        controller.plan_create_partitions(&found.id, topic.count, assignments.as_deref(), seed)
    };
    if validate_only {
        let mut planned = Ok(());
        broker
            .catalog()
            .plan(|controller| planned = plan(controller).map(drop));
        return planned
            .map(|()| None)
            .map_err(|r| (error::of_rejection(&r), r.to_string()));
    }
    let refused = |error: ChangeError| broker.refused_change(&call.connection, &error);
    match broker
        .catalog()
        .change_one(broker, plan)
        .await
        .map_err(refused)?
    {
        Outcome::Partitions { topic, .. } => Ok(Some(topic)),
        _ => Ok(None),
    }
}
