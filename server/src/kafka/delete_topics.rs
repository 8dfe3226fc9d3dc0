//! DeleteTopics: by name or id, answered when every partition has closed (L8).

use std::collections::BTreeMap;
use std::time::Duration;

use riverrun_replication::controller::Outcome;
use riverrun_wire::ErrorCode;
use riverrun_wire::api::delete_topics::DeletableTopicResult;
use riverrun_wire::api::{DeleteTopicsRequest, DeleteTopicsResponse};
use uuid::Uuid;

use super::Call;
use crate::error;

const FIRST_VERSION_BY_ID: i16 = 6;
const LONGEST_WAIT: Duration = Duration::from_secs(300);

type Refused = (ErrorCode, String);

struct Wanted {
    name: Option<String>,
    id: Uuid,
    state: Result<(), Refused>,
}

pub(crate) async fn handle(call: Call, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let wait = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let mut wanted = want(&call, &request);
    mark(&call, &mut wanted).await;
    let broker = &call.broker;
    let marked: Vec<Uuid> = wanted
        .iter()
        .filter(|w| w.state.is_ok())
        .map(|w| w.id)
        .collect();
    let gone = async {
        let mut applied = broker.catalog().watch();
        let is_gone = || {
            broker
                .catalog()
                .read(|image| marked.iter().all(|id| !image.topics.contains_key(id)))
        };
        while !is_gone() && applied.changed().await.is_ok() {}
    };
    if tokio::time::timeout(wait.min(LONGEST_WAIT), gone)
        .await
        .is_err()
    {
        for topic in wanted.iter_mut().filter(|topic| topic.state.is_ok()) {
            if broker
                .catalog()
                .read(|image| image.topics.contains_key(&topic.id))
            {
                let message = "the topic is being deleted; not all of its partitions have closed";
                topic.state = Err((ErrorCode::RequestTimedOut, message.to_owned()));
            }
        }
    }
    DeleteTopicsResponse {
        responses: wanted.into_iter().map(row).collect(),
        ..DeleteTopicsResponse::default()
    }
}

fn want(call: &Call, request: &DeleteTopicsRequest) -> Vec<Wanted> {
    let asked: Vec<(Option<String>, Uuid)> = if call.version >= FIRST_VERSION_BY_ID {
        request
            .topics
            .iter()
            .map(|topic| (topic.name.clone(), topic.topic_id))
            .collect()
    } else {
        request
            .topic_names
            .iter()
            .map(|name| (Some(name.clone()), Uuid::nil()))
            .collect()
    };
    let mut wanted: Vec<Wanted> = Vec::with_capacity(asked.len());
    let mut asked_at: BTreeMap<(Option<String>, Uuid), usize> = BTreeMap::new();
    // A topic may be named by its name here and by its id there.
    let mut found_at: BTreeMap<Uuid, usize> = BTreeMap::new();
    for (name, id) in asked {
        let asked = (name.clone(), id);
        let before = match asked_at.get(&asked) {
            Some(at) => *at,
            None => {
                let found = find(call, name, id);
                let known = found_at.get(&found.id).filter(|_| found.state.is_ok());
                let at = known.copied().unwrap_or(wanted.len());
                asked_at.insert(asked, at);
                if at == wanted.len() {
                    if found.state.is_ok() {
                        found_at.insert(found.id, at);
                    }
                    wanted.push(found);
                    continue;
                }
                at
            }
        };
        if let Some(first) = wanted.get_mut(before) {
            first.state = Err((
                ErrorCode::InvalidRequest,
                "the topic is named twice".to_owned(),
            ));
        }
    }
    wanted
}

fn find(call: &Call, name: Option<String>, id: Uuid) -> Wanted {
    let topics = call.broker.topics();
    let unknown = |error: ErrorCode| Err((error, error.message().to_owned()));
    let found = match &name {
        Some(_) if !id.is_nil() => {
            let message = "a topic is named by its name or by its id, not by both";
            Err((ErrorCode::InvalidRequest, message.to_owned()))
        }
        Some(name) => topics
            .named(name)
            .map_or_else(|| unknown(ErrorCode::UnknownTopicOrPartition), Ok),
        None => topics
            .with_id(&id)
            .map_or_else(|| unknown(ErrorCode::UnknownTopicId), Ok),
    };
    match found {
        Ok(topic) => Wanted {
            name: Some(topic.name.to_string()),
            id: topic.id,
            state: Ok(()),
        },
        Err(refused) => Wanted {
            name,
            id,
            state: Err(refused),
        },
    }
}

async fn mark(call: &Call, wanted: &mut [Wanted]) {
    let broker = &call.broker;
    let mut written = Vec::new();
    let changed = broker.catalog().change(broker, |controller| {
        let mut commands = Vec::new();
        let open = wanted.iter_mut().enumerate();
        for (at, topic) in open.filter(|(_, w)| w.state.is_ok()) {
            match controller.plan_delete_topic(&topic.id) {
                Ok(command) => {
                    commands.push(command);
                    written.push(at);
                }
                Err(rejection) => {
                    topic.state = Err((error::of_rejection(&rejection), rejection.to_string()));
                }
            }
        }
        Ok(commands)
    });
    let changed = changed.await;
    let mut refuse = |at: usize, refused: Refused| {
        if let Some(topic) = wanted.get_mut(at) {
            topic.state = Err(refused);
        }
    };
    match changed {
        Ok(outcomes) => {
            for (at, outcome) in written.into_iter().zip(outcomes) {
                if let Outcome::Rejected(rejection) = outcome {
                    refuse(at, (error::of_rejection(&rejection), rejection.to_string()));
                }
            }
        }
        Err(error) => {
            let refused = broker.refused_change(&call.connection, &error);
            for at in written {
                refuse(at, refused.clone());
            }
        }
    }
}

fn row(topic: Wanted) -> DeletableTopicResult {
    let mut row = DeletableTopicResult {
        name: topic.name,
        topic_id: topic.id,
        ..DeletableTopicResult::default()
    };
    if let Err((error, message)) = topic.state {
        row.error_code = error.number();
        row.error_message = Some(message);
    }
    row
}
