//! A started broker, spoken to in raw frames: what is served, and what bad input gets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{
    Broker, Client, batch, batch_at, fetch_request, fetched, now_ms, only_row, produce_request,
};
use riverrun_record::{BatchBuilder, BatchView, Compression};
use riverrun_wire::api::create_partitions::CreatePartitionsTopic;
use riverrun_wire::api::delete_topics::DeleteTopicState;
use riverrun_wire::api::describe_configs::DescribeConfigsResource;
use riverrun_wire::api::describe_quorum::{DescribeQuorumPartition, DescribeQuorumTopic};
use riverrun_wire::api::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use riverrun_wire::api::metadata::MetadataRequestTopic;
use riverrun_wire::api::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use riverrun_wire::api::*;
use riverrun_wire::{ApiKey, ErrorCode, decode_response};

fn code(number: i16) -> ErrorCode {
    ErrorCode::from_number(number).unwrap()
}

fn metadata(client: &mut Client, topic: &str, create: bool) -> MetadataResponse {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(topic.to_owned()),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: create,
        ..MetadataRequest::default()
    };
    client.call(&request, 12)
}

fn list_offset(client: &mut Client, topic: &str, timestamp: i64, version: i16) -> (i16, i64, i64) {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: topic.to_owned(),
            partitions: vec![ListOffsetsPartition {
                timestamp,
                ..ListOffsetsPartition::default()
            }],
        }],
        ..ListOffsetsRequest::default()
    };
    let response = client.call(&request, version);
    let row = &response.topics[0].partitions[0];
    (row.error_code, row.timestamp, row.offset)
}

#[test]
fn answers_which_versions_it_serves() {
    let broker = Broker::start();
    let mut client = broker.client();
    for version in 0..=5 {
        let request = ApiVersionsRequest {
            client_software_name: "test".to_owned(),
            client_software_version: "1.0".to_owned(),
            ..ApiVersionsRequest::default()
        };
        let response = client.call(&request, version);
        assert_eq!(response.error_code, 0);
        let keys: Vec<_> = response.api_keys.iter().map(|api| api.api_key).collect();
        assert_eq!(
            keys,
            ApiKey::ALL
                .iter()
                .map(|key| key.number())
                .collect::<Vec<_>>()
        );
        let produce = &response.api_keys[0];
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
    }
    // A version of the future is answered in version 0 with the range of this API.
    let mut frame = vec![0, 0, 0, 10];
    frame.extend_from_slice(&[0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff]);
    client.write(&frame);
    let answer = client.frame().unwrap();
    assert_eq!(answer[..4], [0, 0, 0, 7]);
    let response: ApiVersionsResponse = decode_response(&answer, 0).unwrap();
    assert_eq!(code(response.error_code), ErrorCode::UnsupportedVersion);
    assert_eq!(response.api_keys.len(), 1);
    assert_eq!(response.api_keys[0].api_key, 18);
    assert_eq!(response.api_keys[0].max_version, 5);
    // Names that are none (KIP-511), and another cluster (KIP-1242).
    let request = ApiVersionsRequest {
        client_software_name: "not a name".to_owned(),
        client_software_version: "1".to_owned(),
        ..ApiVersionsRequest::default()
    };
    assert_eq!(
        code(client.call(&request, 3).error_code),
        ErrorCode::InvalidRequest
    );
    let request = ApiVersionsRequest {
        client_software_name: "a".to_owned(),
        client_software_version: "1".to_owned(),
        cluster_id: Some("other".to_owned()),
        ..ApiVersionsRequest::default()
    };
    assert_eq!(
        code(client.call(&request, 5).error_code),
        ErrorCode::RebootstrapRequired
    );
    broker.stop();
}

/// One node is the one voter, and leads.
fn describes_its_quorum(client: &mut Client) {
    let ask = |topic: &str, index: i32| DescribeQuorumTopic {
        topic_name: topic.to_owned(),
        partitions: vec![
            DescribeQuorumPartition {
                partition_index: index
            };
            2
        ],
    };
    let request = DescribeQuorumRequest {
        topics: vec![
            ask("__cluster_metadata", 0),
            ask("auto", 0),
            ask("__cluster_metadata", 1),
        ],
    };
    for version in ApiKey::DescribeQuorum.versions() {
        let described = client.call(&request, version);
        assert_eq!((described.error_code, described.topics.len()), (0, 3));
        let log = &described.topics[0].partitions[0];
        assert_eq!(described.topics[0].partitions.len(), 1);
        assert_eq!((log.error_code, log.leader_id), (0, 1));
        assert!(log.leader_epoch > 0 && log.high_watermark > 0);
        let [voter] = log.current_voters.as_slice() else {
            panic!("{log:?}")
        };
        assert_eq!(voter.replica_id, 1);
        assert!(voter.log_end_offset >= log.high_watermark);
        assert_eq!(voter.last_fetch_timestamp, -1);
        assert_eq!(voter.last_caught_up_timestamp > 0, version >= 1);
        assert_eq!(voter.replica_directory_id.is_nil(), version < 2);
        assert_eq!(log.observers, []);
        assert_eq!(described.nodes.len(), usize::from(version >= 2));
        for other in &described.topics[1..] {
            let error = code(other.partitions[0].error_code);
            assert_eq!(error, ErrorCode::UnknownTopicOrPartition);
        }
    }
}

#[test]
fn produces_and_fetches_and_finds_it_again_after_a_restart() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("events", 1, &[]);
    let first = client.produce("events", batch(&[b"a", b"b"]).freeze());
    assert_eq!(
        (first.error_code, first.base_offset),
        (0, 0),
        "{:?}",
        first.error_message
    );
    let second = client.produce("events", batch(&[b"c"]).freeze());
    assert_eq!((second.error_code, second.base_offset), (0, 2));
    let response = client.fetch("events", 0);
    let row = &response.responses[0].partitions[0];
    assert_eq!(
        (row.error_code, row.high_watermark, row.log_start_offset),
        (0, 3, 0)
    );
    let bytes = fetched(&response);
    let offsets: Vec<_> = riverrun_record::batches(&bytes)
        .map(|b| b.unwrap().base_offset())
        .collect();
    assert_eq!(offsets, [0, 2]);
    // An offset inside a batch brings the whole batch.
    let bytes = fetched(&client.fetch("events", 1));
    assert_eq!(BatchView::parse(&bytes).unwrap().base_offset(), 0);
    // The end is empty, beyond it is out of range.
    assert!(fetched(&client.fetch("events", 3)).is_empty());
    let beyond = client.fetch("events", 4);
    let error = beyond.responses[0].partitions[0].error_code;
    assert_eq!(code(error), ErrorCode::OffsetOutOfRange);
    let cluster = metadata(&mut client, "events", false);

    let data = broker.stop();
    let broker = Broker::on(data, |_| {});
    let mut client = broker.client();
    let again = metadata(&mut client, "events", false);
    assert_eq!(again.cluster_id, cluster.cluster_id);
    assert_eq!(again.topics[0].topic_id, cluster.topics[0].topic_id);
    let row = client.fetch("events", 0);
    assert_eq!(row.responses[0].partitions[0].high_watermark, 3);
    let third = client.produce("events", batch(&[b"d"]).freeze());
    assert_eq!(third.base_offset, 3);
    broker.stop();
}

#[test]
fn an_idempotent_retry_is_answered_with_the_first_offset() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("once", 1, &[]);
    let id = client.call(&InitProducerIdRequest::default(), 4);
    assert_eq!(id.error_code, 0);
    let sequenced = |sequence: i32| {
        let mut builder = BatchBuilder::new(Compression::None, None).producer(
            id.producer_id,
            id.producer_epoch,
            sequence,
        );
        builder.append(now_ms(), None, Some(b"x"), &[]).unwrap();
        builder.build_mut().unwrap().freeze()
    };
    for sequence in 0..3 {
        assert_eq!(
            client.produce("once", sequenced(sequence)).base_offset,
            i64::from(sequence)
        );
    }
    let again = client.produce("once", sequenced(1));
    assert_eq!((again.error_code, again.base_offset), (0, 1));
    let gap = client.produce("once", sequenced(7));
    assert_eq!(code(gap.error_code), ErrorCode::OutOfOrderSequenceNumber);
    let other = client.call(&InitProducerIdRequest::default(), 4);
    assert_ne!(other.producer_id, id.producer_id);
    let transactional = InitProducerIdRequest {
        transactional_id: Some("t".to_owned()),
        ..InitProducerIdRequest::default()
    };
    assert_eq!(
        code(client.call(&transactional, 4).error_code),
        ErrorCode::InvalidRequest
    );
    broker.stop();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("pipe", 1, &[]);
    let mut ids = Vec::new();
    for i in 0..200 {
        let value = format!("{i}");
        let request = produce_request("pipe", 0, -1, batch(&[value.as_bytes()]).freeze());
        ids.push((client.send(&request, 9), true));
        if i % 10 == 0 {
            ids.push((
                client.send(
                    &MetadataRequest {
                        topics: None,
                        ..MetadataRequest::default()
                    },
                    12,
                ),
                false,
            ));
        }
    }
    let mut next = 0;
    for (id, is_produce) in ids {
        if is_produce {
            let row = only_row(client.receive::<ProduceRequest>(id, 9));
            assert_eq!((row.error_code, row.base_offset), (0, next));
            next += 1;
        } else {
            client.receive::<MetadataRequest>(id, 12);
        }
    }
    broker.stop();
}

#[test]
fn a_parked_fetch_is_answered_by_the_commit_and_by_its_deadline() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("wait", 1, &[]);
    let started = Instant::now();
    let response = client.call(&fetch_request("wait", 0, 300, 1), 12);
    assert!(fetched(&response).is_empty());
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_millis(290) && waited < Duration::from_secs(5),
        "{waited:?}"
    );
    let id = client.send(&fetch_request("wait", 0, 15_000, 1), 12);
    std::thread::sleep(Duration::from_millis(100));
    let started = Instant::now();
    broker.client().produce("wait", batch(&[b"now"]).freeze());
    let response = client.receive::<FetchRequest>(id, 12);
    assert!(!fetched(&response).is_empty());
    assert!(started.elapsed() < Duration::from_secs(5));
    // Too little for min.bytes: the second batch completes it.
    let id = client.send(&fetch_request("wait", 1, 15_000, 120), 12);
    let mut other = broker.client();
    other.produce("wait", batch(&[b"1"]).freeze());
    other.produce("wait", batch(&[b"2"]).freeze());
    let response = client.receive::<FetchRequest>(id, 12);
    assert!(fetched(&response).len() >= 120);
    // A deleted topic is no reason to wait.
    let id = client.send(&fetch_request("wait", 3, 15_000, 1), 12);
    let delete = DeleteTopicsRequest {
        topic_names: vec!["wait".to_owned()],
        timeout_ms: 10_000,
        ..DeleteTopicsRequest::default()
    };
    assert_eq!(other.call(&delete, 5).responses[0].error_code, 0);
    let response = client.receive::<FetchRequest>(id, 12);
    let error = response.responses[0].partitions[0].error_code;
    assert_eq!(code(error), ErrorCode::UnknownTopicOrPartition);
    broker.stop();
}

#[test]
fn limits_of_a_fetch_are_kept_and_the_first_batch_comes_whole() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("big", 1, &[]);
    let value = vec![7_u8; 10_000];
    for _ in 0..3 {
        client.produce("big", batch(&[&value]).freeze());
    }
    let mut request = fetch_request("big", 0, 0, 1);
    request.topics[0].partitions[0].partition_max_bytes = 100;
    let bytes = fetched(&client.call(&request, 12));
    assert_eq!(riverrun_record::batches(&bytes).count(), 1);
    request.topics[0].partitions[0].partition_max_bytes = 25_000;
    let bytes = fetched(&client.call(&request, 12));
    assert_eq!(riverrun_record::batches(&bytes).count(), 2);
    request.topics[0].partitions[0].partition_max_bytes = 1 << 20;
    request.max_bytes = 1;
    let bytes = fetched(&client.call(&request, 12));
    assert_eq!(riverrun_record::batches(&bytes).count(), 1);
    // A session that nobody opened.
    let continued = FetchRequest {
        session_id: 5,
        session_epoch: 3,
        ..request
    };
    let error = client.call(&continued, 12).error_code;
    assert_eq!(code(error), ErrorCode::FetchSessionIdNotFound);
    broker.stop();
}

#[test]
fn fetches_by_topic_id() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("id", 1, &[]);
    let id = metadata(&mut client, "id", false).topics[0].topic_id;
    assert!(!id.is_nil());
    let mut produce = produce_request("", 0, -1, batch(&[b"x"]).freeze());
    produce.topic_data[0].topic_id = id;
    let row = only_row(client.call(&produce, 13));
    assert_eq!(row.error_code, 0, "{:?}", row.error_message);
    let mut request = fetch_request("", 0, 100, 1);
    request.topics[0].topic_id = id;
    for version in 13..=18 {
        assert!(!fetched(&client.call(&request, version)).is_empty());
    }
    request.topics[0].topic_id = uuid::Uuid::new_v4();
    let error = client.call(&request, 17).responses[0].partitions[0].error_code;
    assert_eq!(code(error), ErrorCode::UnknownTopicId);
    produce.topic_data[0].topic_id = uuid::Uuid::new_v4();
    produce.topic_data[0].partition_data[0].records = Some(batch(&[b"x"]).freeze().into());
    assert_eq!(
        code(only_row(client.call(&produce, 13)).error_code),
        ErrorCode::UnknownTopicId
    );
    broker.stop();
}

#[test]
fn leader_epochs_are_compared() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("epoch", 1, &[]);
    client.produce("epoch", batch(&[b"x"]).freeze());
    let epoch = metadata(&mut client, "epoch", false).topics[0].partitions[0].leader_epoch;
    assert!(epoch >= 1);
    for (asked, expected) in [
        (epoch, ErrorCode::None),
        (epoch + 1, ErrorCode::UnknownLeaderEpoch),
        (epoch - 1, ErrorCode::FencedLeaderEpoch),
    ] {
        let mut request = fetch_request("epoch", 0, 100, 1);
        request.topics[0].partitions[0].current_leader_epoch = asked;
        let row = client
            .call(&request, 12)
            .responses
            .remove(0)
            .partitions
            .remove(0);
        assert_eq!(code(row.error_code), expected);
    }
    for (asked, expected) in [(epoch, (epoch, 1)), (epoch + 5, (-1, -1))] {
        let request = OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![OffsetForLeaderTopic {
                topic: "epoch".to_owned(),
                partitions: vec![OffsetForLeaderPartition {
                    leader_epoch: asked,
                    ..OffsetForLeaderPartition::default()
                }],
            }],
        };
        let row = client
            .call(&request, 4)
            .topics
            .remove(0)
            .partitions
            .remove(0);
        assert_eq!(
            (row.error_code, row.leader_epoch, row.end_offset),
            (0, expected.0, expected.1)
        );
    }
    broker.stop();
}

#[test]
fn offsets_are_listed_by_time_and_by_name() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("times", 1, &[]);
    let empty = list_offset(&mut client, "times", -3, 7);
    assert_eq!(empty, (0, -1, -1));
    let now = now_ms();
    for (at, timestamp) in [now - 3000, now - 1000, now - 2000].into_iter().enumerate() {
        let bytes = batch_at(timestamp, &[b"x"], Compression::Lz4).freeze();
        assert_eq!(client.produce("times", bytes).base_offset, at as i64);
    }
    assert_eq!(list_offset(&mut client, "times", -1, 1), (0, -1, 3));
    assert_eq!(list_offset(&mut client, "times", -2, 11), (0, -1, 0));
    assert_eq!(list_offset(&mut client, "times", -3, 7), (0, now - 1000, 1));
    assert_eq!(list_offset(&mut client, "times", -4, 8), (0, -1, 0));
    assert_eq!(list_offset(&mut client, "times", -5, 9), (0, -1, -1));
    assert_eq!(list_offset(&mut client, "times", -6, 11), (0, -1, -1));
    assert_eq!(
        list_offset(&mut client, "times", now - 2500, 5),
        (0, now - 1000, 1)
    );
    assert_eq!(list_offset(&mut client, "times", now, 5), (0, -1, -1));
    let too_old = list_offset(&mut client, "times", -3, 6).0;
    assert_eq!(code(too_old), ErrorCode::UnsupportedVersion);
    let unknown = list_offset(&mut client, "nowhere", -1, 5).0;
    assert_eq!(code(unknown), ErrorCode::UnknownTopicOrPartition);
    broker.stop();
}

#[test]
fn topics_are_created_on_demand_described_grown_and_deleted() {
    let broker = Broker::start();
    let mut client = broker.client();
    let absent = metadata(&mut client, "auto", false);
    assert_eq!(
        code(absent.topics[0].error_code),
        ErrorCode::UnknownTopicOrPartition
    );
    let created = metadata(&mut client, "auto", true);
    assert_eq!(created.topics[0].error_code, 0);
    assert_eq!(created.topics[0].partitions[0].leader_id, 1);
    assert_eq!(created.brokers[0].port, i32::from(broker.address.port()));
    let bad = metadata(&mut client, "not/allowed", true);
    assert_eq!(
        code(bad.topics[0].error_code),
        ErrorCode::InvalidTopicException
    );

    let grow = |count: i32| CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: "auto".to_owned(),
            count,
            assignments: None,
        }],
        timeout_ms: 10_000,
        validate_only: false,
    };
    assert_eq!(client.call(&grow(3), 3).results[0].error_code, 0);
    let error = client.call(&grow(2), 3).results[0].error_code;
    assert_eq!(code(error), ErrorCode::InvalidPartitions);
    let grown = metadata(&mut client, "auto", false);
    assert_eq!(grown.topics[0].partitions.len(), 3);
    let row = only_row(client.call(&produce_request("auto", 2, 1, batch(&[b"x"]).freeze()), 9));
    assert_eq!(row.error_code, 0);

    let page = DescribeTopicPartitionsRequest {
        response_partition_limit: 2,
        ..DescribeTopicPartitionsRequest::default()
    };
    let first = client.call(&page, 0);
    assert_eq!(first.topics[0].partitions.len(), 2);
    let cursor = first.next_cursor.unwrap();
    assert_eq!(
        (cursor.topic_name.as_str(), cursor.partition_index),
        ("auto", 2)
    );
    let rest = client.call(
        &DescribeTopicPartitionsRequest {
            cursor: Some(cursor),
            ..page
        },
        0,
    );
    assert_eq!(rest.topics[0].partitions.len(), 1);
    assert_eq!(rest.next_cursor, None);

    let cluster = client.call(&DescribeClusterRequest::default(), 2);
    assert_eq!(Some(cluster.cluster_id), grown.cluster_id);
    assert_eq!(cluster.brokers.len(), 1);
    describes_its_quorum(&mut client);

    let delete = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: None,
            topic_id: grown.topics[0].topic_id,
        }],
        timeout_ms: 10_000,
        ..DeleteTopicsRequest::default()
    };
    let deleted = client.call(&delete, 6);
    assert_eq!(
        deleted.responses[0].error_code, 0,
        "{:?}",
        deleted.responses[0].error_message
    );
    let gone = client.call(&delete, 6);
    assert_eq!(
        code(gone.responses[0].error_code),
        ErrorCode::UnknownTopicId
    );
    // The same name is another topic.
    let again = metadata(&mut client, "auto", true);
    assert_ne!(again.topics[0].topic_id, grown.topics[0].topic_id);
    assert!(fetched(&client.call(&fetch_request("auto", 0, 0, 0), 12)).is_empty());
    let data = broker.stop();
    let broker = Broker::on(data, |_| {});
    let topics = broker.client().call(
        &MetadataRequest {
            topics: None,
            ..MetadataRequest::default()
        },
        12,
    );
    assert_eq!(topics.topics.len(), 1);
    broker.stop();
}

#[test]
fn topics_are_refused_with_the_reason() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("there", 2, &[]);
    let long = "x".repeat(250);
    for (name, partitions, configs, expected) in [
        ("there", 1, vec![], ErrorCode::TopicAlreadyExists),
        ("../etc", 1, vec![], ErrorCode::InvalidTopicException),
        ("..", 1, vec![], ErrorCode::InvalidTopicException),
        (long.as_str(), 1, vec![], ErrorCode::InvalidTopicException),
        ("zero", 0, vec![], ErrorCode::InvalidPartitions),
        ("many", 1_000_000, vec![], ErrorCode::InvalidPartitions),
        (
            "conf",
            1,
            vec![("retention.ms", "5")],
            ErrorCode::InvalidConfig,
        ),
        (
            "conf",
            1,
            vec![("no.such.setting", "5")],
            ErrorCode::InvalidConfig,
        ),
    ] {
        let response = client.create_with(name, partitions, &configs);
        let topic = &response.topics[0];
        assert_eq!(code(topic.error_code), expected, "{name}");
        assert!(
            topic.error_message.as_ref().is_some_and(|m| !m.is_empty()),
            "{name}"
        );
    }
    let response = client.create_with("good", 2, &[("max.message.bytes", "2000")]);
    let topic = &response.topics[0];
    assert_eq!((topic.num_partitions, topic.replication_factor), (2, 1));
    assert!(!topic.topic_id.is_nil());
    let configs = topic.configs.as_ref().unwrap();
    let max = configs
        .iter()
        .find(|c| c.name == "max.message.bytes")
        .unwrap();
    assert_eq!((max.value.as_deref(), max.config_source), (Some("2000"), 1));

    let describe = DescribeConfigsRequest {
        resources: vec![
            DescribeConfigsResource {
                resource_type: 2,
                resource_name: "good".to_owned(),
                configuration_keys: None,
            },
            DescribeConfigsResource {
                resource_type: 4,
                resource_name: "1".to_owned(),
                configuration_keys: None,
            },
        ],
        include_synonyms: true,
        include_documentation: true,
    };
    let described = client.call(&describe, 4);
    let topic = &described.results[0];
    assert_eq!(topic.configs.len(), 14);
    assert!(
        topic
            .configs
            .iter()
            .all(|c| c.documentation.is_some() && c.config_type > 0)
    );
    let max = topic
        .configs
        .iter()
        .find(|c| c.name == "max.message.bytes")
        .unwrap();
    let sources: Vec<_> = max
        .synonyms
        .iter()
        .map(|s| (s.name.as_str(), s.source))
        .collect();
    assert_eq!(
        sources,
        [("max.message.bytes", 1), ("message.max.bytes", 5)]
    );
    assert!(
        described.results[1]
            .configs
            .iter()
            .any(|c| c.name == "num.partitions")
    );

    let validate = CreateTopicsRequest {
        topics: vec![create_topics::CreatableTopic {
            name: "only-looked-at".to_owned(),
            num_partitions: -1,
            replication_factor: 3,
            ..create_topics::CreatableTopic::default()
        }],
        validate_only: true,
        ..CreateTopicsRequest::default()
    };
    let response = client.call(&validate, 7);
    assert_eq!(
        code(response.topics[0].error_code),
        ErrorCode::InvalidReplicationFactor
    );
    broker.stop();
}

/// What a batch is refused with; the log stays empty throughout.
#[test]
fn bad_batches_are_refused_by_name() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create(
        "strict",
        1,
        &[
            ("max.message.bytes", "100000"),
            ("message.timestamp.before.max.ms", "60000"),
        ],
    );
    let good = batch(&[b"value"]);
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut wrong_magic = good.clone();
    wrong_magic[16] = 1;
    let mut two = good.clone();
    two.extend_from_slice(&good);
    let mut cut = good.clone();
    cut.truncate(40);
    let huge = vec![1_u8; 200_000];
    let bomb = {
        let zeros = vec![0_u8; 30 << 20];
        batch_at(now_ms(), &[&zeros], Compression::Zstd)
    };
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    let transactional = {
        let mut builder = BatchBuilder::new(Compression::None, None)
            .producer(1, 0, 0)
            .transactional(true);
        builder.append(now_ms(), None, Some(b"x"), &[]).unwrap();
        builder.build_mut().unwrap()
    };
    for (what, bytes, expected) in [
        ("a flipped bit", flipped.freeze(), ErrorCode::CorruptMessage),
        (
            "another magic",
            wrong_magic.freeze(),
            ErrorCode::InvalidRecord,
        ),
        ("two batches", two.freeze(), ErrorCode::InvalidRecord),
        ("half a batch", cut.freeze(), ErrorCode::CorruptMessage),
        ("nothing", Bytes::new(), ErrorCode::InvalidRecord),
        (
            "a large one",
            batch(&[&huge]).freeze(),
            ErrorCode::MessageTooLarge,
        ),
        (
            "the far future",
            batch_at(now_ms() + 7_200_000, &[b"x"], Compression::None).freeze(),
            ErrorCode::InvalidTimestamp,
        ),
        (
            "the past",
            batch_at(0, &[b"x"], Compression::None).freeze(),
            ErrorCode::InvalidTimestamp,
        ),
        ("a bomb", bomb.freeze(), ErrorCode::MessageTooLarge),
        (
            "a transaction",
            transactional.freeze(),
            ErrorCode::InvalidTxnState,
        ),
    ] {
        let row = client.produce("strict", bytes);
        assert_eq!(code(row.error_code), expected, "{what}");
        assert!(row.error_message.is_some(), "{what}");
    }
    let row = only_row(client.call(&produce_request("strict", 0, 2, good.clone().freeze()), 9));
    assert_eq!(code(row.error_code), ErrorCode::InvalidRequiredAcks);
    let row = only_row(client.call(&produce_request("strict", 5, -1, good.clone().freeze()), 9));
    assert_eq!(code(row.error_code), ErrorCode::UnknownTopicOrPartition);
    let zstd = batch_at(now_ms(), &[b"x"], Compression::Zstd).freeze();
    let row = only_row(client.call(&produce_request("strict", 0, -1, zstd), 6));
    assert_eq!(code(row.error_code), ErrorCode::UnsupportedCompressionType);
    assert_eq!(client.produce("strict", good.freeze()).base_offset, 0);
    broker.stop();
}

#[test]
fn log_append_time_is_stamped_by_the_broker() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let before = now_ms();
    let row = client.produce("stamped", batch_at(5, &[b"x"], Compression::Gzip).freeze());
    assert_eq!(row.error_code, 0);
    assert!(row.log_append_time_ms >= before && row.log_append_time_ms <= now_ms());
    let bytes = fetched(&client.fetch("stamped", 0));
    let view = BatchView::parse(&bytes).unwrap();
    assert_eq!(view.max_timestamp(), row.log_append_time_ms);
    assert!(view.crc_is_valid());
    broker.stop();
}

#[test]
fn acks_0_is_not_answered_and_its_errors_close_the_connection() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("quiet", 1, &[]);
    client.send(&produce_request("quiet", 0, 0, batch(&[b"x"]).freeze()), 9);
    let row = client.produce("quiet", batch(&[b"y"]).freeze());
    assert_eq!(row.base_offset, 1);
    client.send(
        &produce_request("nowhere", 0, 0, batch(&[b"x"]).freeze()),
        9,
    );
    assert_eq!(client.frame(), None);
    broker.stop();
}

/// What only the shard can say about a produce without acknowledgement ends its connection too;
/// and many of them are written one by one, in order, with other requests between them.
#[test]
fn acks_0_waits_its_turn_and_a_refusal_of_the_shard_closes_the_connection() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("quiet", 1, &[]);
    let value = vec![5_u8; 100_000];
    // Far more than a connection may have unanswered.
    for round in 0..300 {
        let request = produce_request("quiet", 0, 0, batch(&[&value]).freeze());
        client.send(&request, 9);
        if round % 100 == 99 {
            let row = client.produce("quiet", batch(&[b"answered"]).freeze());
            assert_eq!(
                (row.error_code, row.base_offset),
                (0, round + 1 + round / 100)
            );
        }
    }
    let id = client.call(&InitProducerIdRequest::default(), 4);
    let mut builder =
        BatchBuilder::new(Compression::None, None).producer(id.producer_id, id.producer_epoch, 0);
    builder.append(now_ms(), None, Some(b"x"), &[]).unwrap();
    let first = builder.build_mut().unwrap();
    let mut gap = first.clone();
    riverrun_record::stamp_producer(&mut gap, id.producer_id, id.producer_epoch, 7);
    for batch in [first, gap] {
        client.send(&produce_request("quiet", 0, 0, batch.freeze()), 9);
    }
    assert_eq!(client.frame(), None);
    let row = broker.client().produce("quiet", batch(&[b"on"]).freeze());
    assert_eq!((row.error_code, row.base_offset), (0, 304));
    broker.stop();
}

/// Each of these gets a closed connection, and everybody else is served on.
#[test]
fn bad_frames_close_their_connection_and_no_other() {
    let broker = Broker::with(|config| {
        config.max_request_bytes = 1 << 20;
        config.frame = Duration::from_millis(300);
        config.first_byte = Duration::from_millis(300);
    });
    let mut bystander = broker.client();
    bystander.create("calm", 1, &[]);
    let header = |key: i16, version: i16, rest: &[u8]| {
        let mut body = Vec::new();
        body.extend_from_slice(&key.to_be_bytes());
        body.extend_from_slice(&version.to_be_bytes());
        body.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff]);
        body.extend_from_slice(rest);
        let mut frame = (body.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&body);
        frame
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a negative length", vec![0xff, 0xff, 0xff, 0xff, 0]),
        ("a length over the limit", vec![0x7f, 0xff, 0xff, 0xff, 0]),
        (
            "garbage",
            b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec(),
        ),
        ("an unknown api", header(999, 0, &[])),
        ("an api that is not served", header(10, 0, &[])),
        ("an old produce", header(0, 2, &[0; 20])),
        ("a version of the future", header(3, 99, &[0; 20])),
        (
            "a count that the bytes cannot hold",
            header(3, 1, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        ("an empty frame", vec![0, 0, 0, 0]),
        ("a body that ends early", header(1, 4, &[0, 0])),
        ("half a frame", vec![0, 0, 0, 100, 0, 3, 0, 1]),
        ("half a length", vec![0, 0]),
        ("nothing at all", vec![]),
    ];
    for (what, bytes) in cases {
        let mut client = broker.client();
        client.write(&bytes);
        assert_eq!(client.frame(), None, "{what}");
        let row = bystander.produce("calm", batch(&[b"on"]).freeze());
        assert_eq!(row.error_code, 0, "after {what}");
    }
    broker.stop();
}

/// A request that came before the bad one in the same read is still answered.
#[test]
fn what_came_before_garbage_is_answered() {
    let broker = Broker::start();
    let mut client = broker.client();
    let versions = ApiVersionsRequest::default();
    let mut bytes = riverrun_wire::encode_request(&versions, 0, 1, None)
        .unwrap()
        .into_bytes()
        .to_vec();
    bytes.extend_from_slice(&[0xff; 8]);
    client.stream.write_all(&bytes).unwrap();
    client.receive::<ApiVersionsRequest>(1, 0);
    assert_eq!(client.frame(), None);
    broker.stop();
}

/// Claims of large frames hold back neither small requests nor memory.
#[test]
fn claims_without_bytes_cost_nothing() {
    let broker = Broker::with(|config| {
        config.request_memory_bytes = 32 << 20;
        config.max_request_bytes = 16 << 20;
    });
    let claims: Vec<_> = (0..50)
        .map(|_| {
            let mut client = broker.client();
            client.write(&(16_u32 << 20).to_be_bytes());
            client.write(&[0; 100]);
            client
        })
        .collect();
    let mut client = broker.client();
    client.create("small", 1, &[]);
    let row = client.produce("small", batch(&[b"x"]).freeze());
    assert_eq!(row.error_code, 0);
    drop(claims);
    // With the claims gone, a large one is served again.
    client.create("large", 1, &[("max.message.bytes", "10000000")]);
    let value = vec![9_u8; 5 << 20];
    let row = client.produce("large", batch(&[&value]).freeze());
    assert_eq!(row.error_code, 0, "{:?}", row.error_message);
    let mut request = fetch_request("large", 0, 100, 1);
    request.topics[0].partitions[0].partition_max_bytes = 1;
    assert!(fetched(&client.call(&request, 12)).len() > 5 << 20);
    broker.stop();
}

/// A claim that nothing comes of holds memory only until somebody else wants it.
#[test]
fn silent_claims_give_way_to_who_sends() {
    let broker = Broker::with(|config| {
        config.request_memory_bytes = 32 << 20;
        config.max_request_bytes = 16 << 20;
    });
    let mut client = broker.client();
    client.create("large", 1, &[("max.message.bytes", "10000000")]);
    let mut claims: Vec<_> = (0..3)
        .map(|_| {
            let mut claim = broker.client();
            // Behind a request in the same read: when that is answered, the claim has been heard.
            let versions = ApiVersionsRequest::default();
            let asked = riverrun_wire::encode_request(&versions, 0, 1, None).unwrap();
            let mut bytes = asked.into_bytes().to_vec();
            bytes.extend_from_slice(&(12_u32 << 20).to_be_bytes());
            bytes.extend_from_slice(&[0; 100]);
            claim.write(&bytes);
            claim.receive::<ApiVersionsRequest>(1, 0);
            claim
        })
        .collect();
    let begun = Instant::now();
    let row = client.produce("large", batch(&[&vec![9_u8; 5 << 20]]).freeze());
    assert_eq!(row.error_code, 0, "{:?}", row.error_message);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "waited for as long as a claim may take: {:?}",
        begun.elapsed()
    );
    let closed = claims
        .iter_mut()
        .map(Client::is_closed)
        .filter(|closed| *closed)
        .count();
    assert!(closed > 0, "no claim was closed");
    broker.stop();
}

#[test]
fn an_address_that_others_can_reach_is_refused() {
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let data = tempfile::tempdir().unwrap();
    let mut config = riverrun_server::Config::new(data.path().join("data"));
    config.listen = "0.0.0.0:0".parse().unwrap();
    let error = tokio
        .block_on(riverrun_server::start(config.clone()))
        .unwrap_err();
    assert!(error.to_string().contains("--insecure"), "{error}");
    config.insecure = true;
    config.store.wal_bytes = 1 << 20;
    let running = tokio.block_on(riverrun_server::start(config)).unwrap();
    tokio.block_on(running.stop()).unwrap();
}

/// With flushing a thousand produces one by one wake the flusher once each at most (it may be awake
/// still when the next one comes), without it never. `replication/tests/wakes.rs` counts exactly.
#[test]
fn an_uncontended_produce_wakes_the_flusher_only_where_it_flushes() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("cached", 1, &[("write.caching", "true")]);
    client.create("flushed", 1, &[]);
    let before = broker.running().flusher_wakes();
    for _ in 0..1000 {
        assert_eq!(
            client
                .produce("flushed", batch(&[b"x"]).freeze())
                .error_code,
            0
        );
    }
    let flushed = broker.running().flusher_wakes() - before;
    assert!((1..=1020).contains(&flushed), "{flushed}");
    let before = broker.running().flusher_wakes();
    let started = Instant::now();
    for _ in 0..1000 {
        assert_eq!(
            client.produce("cached", batch(&[b"x"]).freeze()).error_code,
            0
        );
    }
    // A round may start every 100 ms for what is unflushed, and for nothing else.
    let rounds = started.elapsed().as_millis() as u64 / 100 + 2;
    let cached = broker.running().flusher_wakes() - before;
    assert!(cached <= rounds, "{cached} wakes, {rounds} rounds");
    broker.stop();
}

/// A stop answers what was asked, parked fetches with what is there, and only then hangs up.
#[test]
fn a_stop_answers_what_was_asked() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create("last", 1, &[]);
    let fetch = client.send(&fetch_request("last", 0, 60_000, 1), 12);
    let mut producer = broker.client();
    let ids: Vec<_> = (0..50)
        .map(|_| producer.send(&produce_request("last", 0, -1, batch(&[b"x"]).freeze()), 9))
        .collect();
    // The first answer shows that the broker has read the requests of its time.
    producer.receive::<ProduceRequest>(ids[0], 9);
    let parked = client.send(&fetch_request("last", 1000, 60_000, 1), 12);
    let started = Instant::now();
    let stopping = std::thread::spawn(move || broker.stop());
    client.receive::<FetchRequest>(fetch, 12);
    // It is answered if it was read before the stop, and the connection ends in any case.
    if let Some(answer) = client.frame() {
        assert_eq!(answer[..4], parked.to_be_bytes());
        assert_eq!(client.frame(), None);
    }
    while producer.frame().is_some() {}
    stopping.join().unwrap();
    assert!(started.elapsed() < Duration::from_secs(8));
}

/// A client that never reads its answers costs a bounded number of slots, and then its connection.
#[test]
fn a_client_that_does_not_read_is_hung_up_on() {
    let broker = Broker::with(|config| config.stall = Duration::from_millis(300));
    let mut client = broker.client();
    client.create("deaf", 1, &[("max.message.bytes", "2000000")]);
    let value = vec![3_u8; 1_000_000];
    client.produce("deaf", batch(&[&value]).freeze());
    let mut deaf = broker.client();
    let frame = riverrun_wire::encode_request(&fetch_request("deaf", 0, 0, 1), 12, 1, None);
    let frame = frame.unwrap().into_bytes();
    // Far more answers than both socket buffers hold.
    for _ in 0..60 {
        deaf.write(&frame);
    }
    std::thread::sleep(Duration::from_millis(1500));
    let mut whole = 0;
    deaf.stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut bytes = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut deaf.stream, &mut bytes) {
            Ok(0) => break,
            Ok(n) => whole += n,
            Err(e) => {
                assert_ne!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock,
                    "the connection is still open"
                );
                break;
            }
        }
    }
    assert!(whole < 60_000_000, "{whole}");
    assert_eq!(
        client.produce("deaf", batch(&[b"x"]).freeze()).error_code,
        0
    );
    broker.stop();
}

/// Every API in every version, with bodies of random bytes and of sound ones that were damaged:
/// an answer or a closed connection, and the broker serves on.
#[test]
fn random_bodies_harm_nobody() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        hook(info);
    }));
    let broker = Broker::start();
    let mut bystander = broker.client();
    bystander.create("calm", 1, &[]);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let sound: Vec<(ApiKey, i16, Vec<u8>)> = vec![
        (
            ApiKey::Produce,
            9,
            encoded(&produce_request("calm", 0, -1, batch(&[b"x"]).freeze()), 9),
        ),
        (
            ApiKey::Fetch,
            12,
            encoded(&fetch_request("calm", 0, 0, 1), 12),
        ),
        (
            ApiKey::Metadata,
            12,
            encoded(&MetadataRequest::default(), 12),
        ),
    ];
    for round in 0..6 {
        for key in ApiKey::ALL {
            for version in key.versions() {
                let len = random() % 60;
                let body: Vec<u8> = (0..len).map(|_| (random() >> 33) as u8).collect();
                let mut frame = key.number().to_be_bytes().to_vec();
                frame.extend_from_slice(&version.to_be_bytes());
                frame.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff]);
                if key.is_flexible(version) {
                    frame.push(0);
                }
                // Half of them begin as most requests do, with small counts.
                if round % 2 == 0 {
                    frame.extend_from_slice(&[0, 0, 0, 1]);
                }
                frame.extend_from_slice(&body);
                poke(&broker, &frame);
            }
        }
        for (_, _, sound) in &sound {
            for _ in 0..60 {
                let mut frame = sound.clone();
                let at = random() as usize % frame.len().saturating_sub(8) + 8;
                frame[at] ^= 1 << (random() % 8);
                poke(&broker, &frame);
            }
        }
    }
    let row = bystander.produce("calm", batch(&[b"on"]).freeze());
    assert_eq!(row.error_code, 0);
    broker.stop();
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "something panicked");
}

fn encoded<R: riverrun_wire::Request>(request: &R, version: i16) -> Vec<u8> {
    let frame = riverrun_wire::encode_request(request, version, 1, None)
        .unwrap()
        .into_bytes();
    frame[4..].to_vec()
}

/// Sends one frame and hangs up after a moment, whatever came.
fn poke(broker: &Broker, body: &[u8]) {
    let mut client = broker.client();
    client.write(&(body.len() as u32).to_be_bytes());
    client.write(body);
    client
        .stream
        .set_read_timeout(Some(Duration::from_millis(3)))
        .unwrap();
    let mut byte = [0];
    let _ = std::io::Read::read(&mut client.stream, &mut byte);
}
