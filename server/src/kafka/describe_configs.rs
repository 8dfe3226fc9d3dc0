//! DescribeConfigs: exactly the settings that are served, from the tables.

use std::collections::BTreeSet;

use riverrun_replication::controller::check_topic_name;
use riverrun_wire::ErrorCode;
use riverrun_wire::api::describe_configs::{
    DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult,
    DescribeConfigsSynonym,
};
use riverrun_wire::api::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::Call;
use crate::config::served;
use crate::config::setting::Setting;
use crate::config::topic;
use crate::config::{Config, TopicSettings};
use crate::error;
use crate::topics::Topic;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Source {
    Topic = 1,
    Node = 4,
    Default = 5,
}

type Refused = (ErrorCode, String);

pub(crate) fn handle(call: &Call, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    // Each is described once: what is shown of one is a thousand times what asks for it.
    let mut seen = BTreeSet::new();
    let asked = request
        .resources
        .iter()
        .filter(|resource| seen.insert((resource.resource_type, &resource.resource_name)));
    let results = asked.map(|resource| {
        let described = match resource.resource_type {
            TOPIC => describe_topic(call, &resource.resource_name),
            BROKER => describe_broker(call.broker.config(), &resource.resource_name),
            other => Err((
                ErrorCode::InvalidRequest,
                format!("resources of type {other} are not served: only topics and brokers are"),
            )),
        };
        shape(resource, described, &request)
    });
    DescribeConfigsResponse {
        results: results.collect(),
        ..DescribeConfigsResponse::default()
    }
}

fn shape(
    resource: &DescribeConfigsResource,
    described: Result<Vec<DescribeConfigsResourceResult>, Refused>,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResult {
    let mut result = DescribeConfigsResult {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
        ..DescribeConfigsResult::default()
    };
    match described {
        Err((error, message)) => {
            result.error_code = error.number();
            result.error_message = Some(message);
        }
        Ok(mut rows) => {
            if let Some(keys) = &resource.configuration_keys {
                let keys: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
                rows.retain(|row| keys.contains(row.name.as_str()));
            }
            for row in &mut rows {
                if !request.include_synonyms {
                    row.synonyms.clear();
                }
                if !request.include_documentation {
                    row.documentation = None;
                }
            }
            result.configs = rows;
        }
    }
    result
}

fn describe_topic(call: &Call, name: &str) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
    check_topic_name(name).map_err(|r| (error::of_rejection(&r), r.to_string()))?;
    let topic = call.broker.topics().named(name).ok_or_else(|| {
        (
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::UnknownTopicOrPartition.message().to_owned(),
        )
    })?;
    Ok(topic_rows(&topic, call.broker.config()))
}

/// The settings of a topic with where each comes from.
pub(crate) fn topic_rows(topic: &Topic, config: &Config) -> Vec<DescribeConfigsResourceResult> {
    let built_in = TopicSettings::default();
    topic::SETTINGS
        .iter()
        .map(|setting| {
            let value = (setting.get)(&topic.settings);
            let mut synonyms = Vec::new();
            let mut add = |name: &str, value: String, source: Source| {
                synonyms.push(DescribeConfigsSynonym {
                    name: name.to_owned(),
                    value: Some(value),
                    source: source as i8,
                });
            };
            if topic.given.contains_key(setting.name) {
                add(setting.name, value.clone(), Source::Topic);
            }
            if let Some(node_name) = setting.synonym {
                let of_node = (setting.get)(&config.topic);
                let default = (setting.get)(&built_in);
                if of_node != default {
                    add(node_name, of_node, Source::Node);
                }
                add(node_name, default, Source::Default);
            }
            row(setting, value, false, synonyms)
        })
        .collect()
}

fn row<T>(
    setting: &Setting<T>,
    value: String,
    read_only: bool,
    synonyms: Vec<DescribeConfigsSynonym>,
) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult {
        name: setting.name.to_owned(),
        value: Some(value),
        read_only,
        config_source: synonyms
            .first()
            .map_or(Source::Default as i8, |synonym| synonym.source),
        is_sensitive: false,
        synonyms,
        config_type: setting.kind as i8,
        documentation: Some(setting.doc.to_owned()),
    }
}

fn describe_broker(
    config: &Config,
    name: &str,
) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
    if name.is_empty() {
        // The defaults of the whole cluster, of which there are none.
        return Ok(Vec::new());
    }
    if name.parse() != Ok(config.node_id) {
        let message = format!(
            "this is broker {}, not {name}; ask that one",
            config.node_id
        );
        return Err((ErrorCode::InvalidRequest, message));
    }
    let built_in = Config::new(&config.data_dir);
    let mut rows: Vec<_> = served::SETTINGS
        .iter()
        .map(|setting| of_node(setting, setting.name, config, &built_in))
        .collect();
    let built_in = TopicSettings::default();
    for setting in topic::SETTINGS {
        if let Some(name) = setting.synonym {
            rows.push(of_node(setting, name, &config.topic, &built_in));
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

fn of_node<T>(
    setting: &Setting<T>,
    name: &str,
    now: &T,
    built_in: &T,
) -> DescribeConfigsResourceResult {
    let value = (setting.get)(now);
    let default = (setting.get)(built_in);
    let synonym = |value: &String, source: Source| DescribeConfigsSynonym {
        name: name.to_owned(),
        value: Some(value.clone()),
        source: source as i8,
    };
    let mut synonyms = Vec::new();
    if value != default {
        synonyms.push(synonym(&value, Source::Node));
    }
    synonyms.push(synonym(&default, Source::Default));
    let mut row = row(setting, value, true, synonyms);
    row.name = name.to_owned();
    row
}
