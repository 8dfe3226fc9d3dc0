//! The settings of a topic.

use riverrun_wire::{
    ErrorCode,
    api::{DescribeConfigsRequest, describe_configs::DescribeConfigsResource},
};

use crate::{
    cluster::Client,
    error::{Error, Result, error_code},
};

const TOPIC_RESOURCE: i8 = 2;

/// Where a setting's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigSource {
    /// The topic itself.
    Topic,
    /// The broker, by a change at run time.
    DynamicBroker,
    /// The broker's configuration file.
    Broker,
    /// Nobody set it.
    Default,
    /// Something else.
    Other(i8),
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// Its value; `None` where it is secret or has none.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it cannot be changed.
    pub read_only: bool,
    /// What it means, in the broker's words.
    pub documentation: Option<String>,
}

impl Client {
    /// The settings of a topic, by name.
    ///
    /// # Errors
    /// If the topic does not exist, or no broker answers in time.
    pub async fn describe_topic_configs(&self, topic: &str) -> Result<Vec<ConfigEntry>> {
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: TOPIC_RESOURCE,
                resource_name: topic.to_owned(),
                configuration_keys: None,
            }],
            include_synonyms: false,
            include_documentation: false,
        };
        let response = self
            .ask_any(&request, "settings were not described")
            .await?;
        let Some(result) = response
            .results
            .into_iter()
            .find(|r| r.resource_name == topic)
        else {
            return Err(Error::Protocol {
                broker: "the broker".to_owned(),
                what: "its answer to DescribeConfigs leaves the topic out",
            });
        };
        match error_code(result.error_code) {
            ErrorCode::None => {}
            ErrorCode::UnknownTopicOrPartition => {
                return Err(Error::UnknownTopic {
                    topic: topic.to_owned(),
                });
            }
            code => {
                return Err(Error::refused(
                    format!("settings of {topic}"),
                    code,
                    result.error_message,
                ));
            }
        }
        let entries = result.configs.into_iter();
        let mut entries: Vec<_> = entries
            .map(|c| ConfigEntry {
                name: c.name,
                value: c.value,
                source: match c.config_source {
                    1 => ConfigSource::Topic,
                    2 | 3 => ConfigSource::DynamicBroker,
                    4 => ConfigSource::Broker,
                    5 => ConfigSource::Default,
                    other => ConfigSource::Other(other),
                },
                read_only: c.read_only,
                documentation: c.documentation,
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}
