//! Requests that ask for more than their bytes are worth: what is answered is bounded by what is
//! there, not by how often it is named, and nothing is quadratic in a request.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Broker, Client, batch, fetch_request, fetched, produce_request};
use riverrun_wire::ErrorCode;
use riverrun_wire::api::create_partitions::CreatePartitionsTopic;
use riverrun_wire::api::delete_topics::DeleteTopicState;
use riverrun_wire::api::describe_configs::DescribeConfigsResource;
use riverrun_wire::api::metadata::MetadataRequestTopic;
use riverrun_wire::api::produce::TopicProduceData;
use riverrun_wire::api::*;

/// How long any of these may take. Quadratic ones would take minutes.
const PATIENCE: Duration = Duration::from_secs(15);

fn code(number: i16) -> ErrorCode {
    ErrorCode::from_number(number).unwrap()
}

fn named(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic {
        name: Some(name.to_owned()),
        ..MetadataRequestTopic::default()
    }
}

fn metadata(client: &mut Client, topics: Vec<MetadataRequestTopic>) -> MetadataResponse {
    let request = MetadataRequest {
        topics: Some(topics),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    client.call(&request, 12)
}

#[test]
fn what_is_named_a_thousand_times_is_answered_once() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("t", 20, &[]);
    let answer = metadata(&mut client, vec![named("t"); 1000]);
    assert_eq!(answer.topics.len(), 1);
    assert_eq!(answer.topics[0].partitions.len(), 20);
    let by_id = MetadataRequestTopic {
        topic_id: answer.topics[0].topic_id,
        name: None,
    };
    assert_eq!(metadata(&mut client, vec![by_id; 1000]).topics.len(), 1);

    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: "t".to_owned(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource; 1000],
        include_documentation: true,
        ..DescribeConfigsRequest::default()
    };
    assert_eq!(client.call(&request, 4).results.len(), 1);

    // In one entry of the topic and in many.
    let mut request = fetch_request("t", 0, 30_000, 1);
    let part = request.topics[0].partitions[0].clone();
    request.topics[0].partitions = vec![part; 100];
    request.topics = vec![request.topics[0].clone(); 100];
    let id = client.send(&request, 12);
    let mut other = broker.client();
    let begun = Instant::now();
    for _ in 0..20 {
        let row = other.produce("t", batch(&[b"x"]).freeze());
        assert_eq!(row.error_code, 0);
    }
    let response = client.receive::<FetchRequest>(id, 12);
    assert!(!fetched(&response).is_empty());
    let rows: usize = response.responses.iter().map(|t| t.partitions.len()).sum();
    assert_eq!(rows, 1);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    broker.stop();
}

#[test]
fn a_topic_that_is_named_twice_is_not_deleted() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("kept", 1, &[]);
    client.create("goes", 1, &[]);
    let id = metadata(&mut client, vec![named("kept")]).topics[0].topic_id;
    let by_name = |name: &str| DeleteTopicState {
        name: Some(name.to_owned()),
        ..DeleteTopicState::default()
    };
    let by_id = DeleteTopicState {
        name: None,
        topic_id: id,
    };
    for twice in [
        vec![by_id.clone(), by_id.clone(), by_id.clone()],
        vec![by_name("kept"), by_name("kept")],
        vec![by_name("kept"), by_id.clone(), by_id.clone()],
        vec![by_id.clone(), by_name("kept")],
    ] {
        let request = DeleteTopicsRequest {
            topics: twice,
            timeout_ms: 10_000,
            ..DeleteTopicsRequest::default()
        };
        let answer = client.call(&request, 6);
        assert_eq!(answer.responses.len(), 1);
        let error = answer.responses[0].error_code;
        assert_eq!(code(error), ErrorCode::InvalidRequest);
    }
    let request = DeleteTopicsRequest {
        topics: vec![by_name("goes"), by_name("unknown"), by_name("unknown")],
        timeout_ms: 10_000,
        ..DeleteTopicsRequest::default()
    };
    let answer = client.call(&request, 6);
    let codes: Vec<_> = answer
        .responses
        .iter()
        .map(|row| code(row.error_code))
        .collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::InvalidRequest]);
    let left = metadata(&mut client, vec![named("kept"), named("goes")]);
    let codes: Vec<_> = left.topics.iter().map(|t| code(t.error_code)).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownTopicOrPartition]);
    broker.stop();
}

#[test]
fn many_names_take_time_in_proportion() {
    let broker = Broker::start();
    let mut client = broker.client();
    let names: Vec<String> = (0..150_000).map(|n| format!("{n}")).collect();
    let begun = Instant::now();
    let request = MetadataRequest {
        topics: Some(names.iter().map(|name| named(name)).collect()),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    let answer = client.call(&request, 9);
    assert_eq!(answer.topics.len(), names.len());
    let request = DeleteTopicsRequest {
        topic_names: names.clone(),
        ..DeleteTopicsRequest::default()
    };
    assert_eq!(client.call(&request, 5).responses.len(), names.len());
    let request = CreatePartitionsRequest {
        topics: names
            .iter()
            .map(|name| CreatePartitionsTopic {
                name: name.clone(),
                count: 2,
                assignments: None,
            })
            .collect(),
        ..CreatePartitionsRequest::default()
    };
    assert_eq!(client.call(&request, 3).results.len(), names.len());
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    broker.stop();
}

#[test]
fn a_request_that_would_take_many_times_its_bytes_closes_its_connection() {
    let broker = Broker::start();
    let mut bystander = broker.client();
    bystander.create("calm", 1, &[]);
    let long = named(&"x".repeat(30_000));
    let mut client = broker.client();
    let request = MetadataRequest {
        topics: Some(vec![long; 71]),
        ..MetadataRequest::default()
    };
    client.send(&request, 12);
    assert_eq!(client.frame(), None, "2.1 MB without records");
    let mut client = broker.client();
    let request = DeleteTopicsRequest {
        topic_names: vec![String::new(); 200_001],
        ..DeleteTopicsRequest::default()
    };
    client.send(&request, 5);
    assert_eq!(client.frame(), None, "more than 200,000 names");
    let mut client = broker.client();
    let mut request = produce_request("calm", 0, -1, batch(&[b"x"]).freeze());
    request
        .topic_data
        .resize(200_001, TopicProduceData::default());
    client.send(&request, 9);
    assert_eq!(client.frame(), None, "more than 200,000 topics");
    let row = bystander.produce("calm", batch(&[b"on"]).freeze());
    assert_eq!((row.error_code, row.base_offset), (0, 0));
    broker.stop();
}
