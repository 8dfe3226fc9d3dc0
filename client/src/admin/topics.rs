//! Creating, listing, growing and deleting topics, and the cluster itself.

use std::{sync::Arc, time::Duration};

use riverrun_wire::{
    ErrorCode, Request,
    api::{
        CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest,
        create_partitions::CreatePartitionsTopic,
        create_topics::{CreatableTopic, CreatableTopicConfig},
        delete_topics::DeleteTopicState,
        describe_cluster::DescribeClusterBroker,
    },
};
use uuid::Uuid;

use crate::{
    cluster::Client,
    error::{Error, Result, error_code},
    metadata::{BrokerInfo, TopicInfo},
    retry::Retry,
};

/// A topic to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Number of partitions; `None` is the broker's default.
    pub partitions: Option<i32>,
    /// Number of replicas of each; `None` is the broker's default.
    pub replication: Option<i16>,
    /// Its settings.
    pub configs: Vec<(String, String)>,
}

/// A topic that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its name.
    pub name: String,
    /// Its id; nil where the broker does not say.
    pub id: Uuid,
    /// Number of partitions, where the broker says.
    pub partitions: Option<i32>,
    /// Number of replicas, where the broker says.
    pub replication: Option<i16>,
}

/// A cluster and its brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Node that takes administrative requests, if one does.
    pub controller: Option<i32>,
    /// Its brokers, by node id.
    pub brokers: Vec<BrokerInfo>,
    /// Brokers that have registered and are taken for gone, by node id; where the broker asked
    /// does not say, none.
    pub fenced: Vec<BrokerInfo>,
}

/// What became of each of several things, in the order in which they were asked for.
type Each<T> = Vec<(String, Result<T>)>;

impl Client {
    /// All topics, by name.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub async fn list_topics(&self) -> Result<Vec<Arc<TopicInfo>>> {
        let what = "topics were not listed";
        let mut retry = Retry::new(self.config(), self.config().operation_timeout);
        loop {
            match retry.attempt(what, self.refresh_all()).await {
                Ok(mut topics) => {
                    topics.sort_by(|a, b| a.name.cmp(&b.name));
                    return Ok(topics);
                }
                Err(error) => retry.pause(error, what).await?,
            }
        }
    }

    /// A topic's partitions, asked for now.
    ///
    /// # Errors
    /// If the topic does not exist, or no broker answers in time.
    pub async fn describe_topic(&self, name: &str) -> Result<Arc<TopicInfo>> {
        let names = [name.to_owned()];
        let what = format!("topic {name} was not described");
        let mut retry = Retry::new(self.config(), self.config().operation_timeout);
        loop {
            let seen = self.generation();
            let asked = self.refresh(&names, false, Some(seen));
            let error = match retry.attempt(&what, asked).await {
                Ok(refused) => match (refused.get(name), self.known_topic(name)) {
                    (None, Some(topic)) => return Ok(topic),
                    (None, None) | (Some(ErrorCode::UnknownTopicOrPartition), _) => {
                        return Err(Error::UnknownTopic {
                            topic: name.to_owned(),
                        });
                    }
                    (Some(code), _) => Error::refused(format!("topic {name}"), *code, None),
                },
                Err(error) => error,
            };
            retry.pause(error, &what).await?;
        }
    }

    /// Creates topics; each succeeds or fails for itself. `dry_run` only asks whether they could be
    /// created.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        dry_run: bool,
    ) -> Result<Each<CreatedTopic>> {
        let creatable = |topic: &NewTopic| CreatableTopic {
            name: topic.name.clone(),
            num_partitions: topic.partitions.unwrap_or(-1),
            replication_factor: topic.replication.unwrap_or(-1),
            configs: topic
                .configs
                .iter()
                .map(|(name, value)| CreatableTopicConfig {
                    name: name.clone(),
                    value: Some(value.clone()),
                })
                .collect(),
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: topics.iter().map(creatable).collect(),
            timeout_ms: self.server_timeout_ms(),
            validate_only: dry_run,
        };
        let response = self
            .administer(&request, "topics were not created", |r| {
                r.topics.iter().map(|t| t.error_code).collect()
            })
            .await?;
        let mut results = Vec::new();
        for topic in topics {
            let answer = response.topics.iter().find(|t| t.name == topic.name);
            let result = match answer.map(|t| (t, error_code(t.error_code))) {
                None => Err(left_out("CreateTopics")),
                Some((t, ErrorCode::None)) => Ok(CreatedTopic {
                    name: t.name.clone(),
                    id: t.topic_id,
                    partitions: (t.num_partitions > 0).then_some(t.num_partitions),
                    replication: (t.replication_factor > 0).then_some(t.replication_factor),
                }),
                Some((t, code)) => Err(Error::refused(
                    format!("topic {}", topic.name),
                    code,
                    t.error_message.clone(),
                )),
            };
            results.push((topic.name.clone(), result));
        }
        Ok(results)
    }

    /// Deletes topics with all their records; each succeeds or fails for itself.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub async fn delete_topics(&self, names: &[String]) -> Result<Each<()>> {
        let request = DeleteTopicsRequest {
            topics: names
                .iter()
                .map(|name| DeleteTopicState {
                    name: Some(name.clone()),
                    topic_id: Uuid::nil(),
                })
                .collect(),
            topic_names: names.to_vec(),
            timeout_ms: self.server_timeout_ms(),
        };
        let response = self
            .administer(&request, "topics were not deleted", |r| {
                r.responses.iter().map(|t| t.error_code).collect()
            })
            .await?;
        let answer = |name: &String| {
            let found = response
                .responses
                .iter()
                .find(|t| t.name.as_ref() == Some(name))?;
            Some((found.error_code, found.error_message.clone()))
        };
        for name in names {
            self.forget(name);
        }
        Ok(names
            .iter()
            .map(|name| (name.clone(), outcome(name, answer(name), "DeleteTopics")))
            .collect())
    }

    /// Raises topics' numbers of partitions; each succeeds or fails for itself.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub async fn create_partitions(
        &self,
        topics: &[(String, i32)],
        dry_run: bool,
    ) -> Result<Each<()>> {
        let request = CreatePartitionsRequest {
            topics: topics
                .iter()
                .map(|(name, count)| CreatePartitionsTopic {
                    name: name.clone(),
                    count: *count,
                    assignments: None,
                })
                .collect(),
            timeout_ms: self.server_timeout_ms(),
            validate_only: dry_run,
        };
        let response = self
            .administer(&request, "partitions were not added", |r| {
                r.results.iter().map(|t| t.error_code).collect()
            })
            .await?;
        let answer = |name: &String| {
            let found = response.results.iter().find(|t| &t.name == name)?;
            Some((found.error_code, found.error_message.clone()))
        };
        for (name, _) in topics {
            self.forget(name);
        }
        Ok(topics
            .iter()
            .map(|(name, _)| {
                (
                    name.clone(),
                    outcome(name, answer(name), "CreatePartitions"),
                )
            })
            .collect())
    }

    /// The cluster and its brokers, asked for now.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub async fn describe_cluster(&self) -> Result<ClusterInfo> {
        let request = |version| DescribeClusterRequest {
            include_fenced_brokers: version >= 2,
            ..DescribeClusterRequest::default()
        };
        let what = "the cluster was not described";
        let mut response = self.ask_any_in(request, what).await?;
        let code = error_code(response.error_code);
        if code != ErrorCode::None {
            return Err(Error::refused("the cluster", code, response.error_message));
        }
        response.brokers.sort_by_key(|broker| broker.broker_id);
        let brokers = response.brokers.into_iter();
        let (fenced, brokers): (Vec<_>, Vec<_>) = brokers.partition(|broker| broker.is_fenced);
        let info = |broker: DescribeClusterBroker| BrokerInfo {
            id: broker.broker_id,
            host: broker.host,
            port: broker.port,
            rack: broker.rack,
        };
        Ok(ClusterInfo {
            id: Some(response.cluster_id).filter(|id| !id.is_empty()),
            controller: (response.controller_id >= 0).then_some(response.controller_id),
            brokers: brokers.into_iter().map(info).collect(),
            fenced: fenced.into_iter().map(info).collect(),
        })
    }

    /// Asks the controller, and again where it says it is not one, or cannot be reached.
    ///
    /// A request whose answer is lost may have been carried out: the next one then says that the
    /// topic exists, or does not exist any more, and that is reported as it is.
    async fn administer<R: Request>(
        &self,
        request: &R,
        what: &str,
        codes: impl Fn(&R::Response) -> Vec<i16>,
    ) -> Result<R::Response> {
        let mut retry = Retry::new(self.config(), self.config().operation_timeout);
        loop {
            let error = match retry.attempt(what, self.ask_controller(request)).await {
                Ok(response) => {
                    let again = codes(&response).into_iter().map(error_code).find(|c| {
                        matches!(
                            c,
                            ErrorCode::NotController | ErrorCode::ThrottlingQuotaExceeded
                        )
                    });
                    match again {
                        None => return Ok(response),
                        Some(code) => Error::refused("the controller", code, None),
                    }
                }
                Err(error) => error,
            };
            retry.pause(error, what).await?;
            // The controller may be another one by now.
            let _ = retry.attempt(what, self.refresh(&[], false, None)).await;
        }
    }

    /// How long the server may take: a little less than we wait.
    fn server_timeout_ms(&self) -> i32 {
        let within = self
            .config()
            .request_timeout
            .saturating_sub(Duration::from_secs(1));
        i32::try_from(within.as_millis()).unwrap_or(i32::MAX)
    }
}

fn outcome(name: &str, answer: Option<(i16, Option<String>)>, api: &'static str) -> Result<()> {
    let Some((code, message)) = answer else {
        return Err(left_out(api));
    };
    match error_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(Error::refused(format!("topic {name}"), code, message)),
    }
}

fn left_out(api: &'static str) -> Error {
    let what = match api {
        "CreateTopics" => "its answer to CreateTopics leaves a topic out",
        "DeleteTopics" => "its answer to DeleteTopics leaves a topic out",
        _ => "its answer leaves out what was asked for",
    };
    Error::Protocol {
        broker: "the controller".to_owned(),
        what,
    }
}
