//! The client library against a real node: what the command line does not reach.

use std::{collections::BTreeMap, time::Duration};

use riverrun_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, Error, ErrorCode, NewTopic, OffsetSpec,
    OutOfRange, Producer, ProducerConfig, ProducerRecord, Start, TopicPartition,
};

use crate::node::Node;

fn client(node: &Node) -> Client {
    let config = ClientConfig {
        operation_timeout: Duration::from_secs(20),
        ..ClientConfig::new([node.address.clone()])
    };
    Client::new(config).unwrap()
}

async fn create(client: &Client, name: &str, partitions: i32) {
    let topic = NewTopic {
        name: name.to_owned(),
        partitions: Some(partitions),
        ..NewTopic::default()
    };
    for (_, result) in client.create_topics(&[topic], false).await.unwrap() {
        result.unwrap();
    }
}

async fn write(producer: &Producer, topic: &str, value: &str, timestamp_ms: i64) -> Option<i64> {
    let record = ProducerRecord::to(topic)
        .partition(0)
        .value(value.to_owned());
    let delivery = producer
        .send(record.timestamp_ms(timestamp_ms))
        .await
        .unwrap();
    delivery.wait().await.unwrap().offset
}

#[tokio::test]
async fn the_cluster_is_described_and_topics_grow() {
    let node = Node::start();
    let client = client(&node);
    let cluster = client.describe_cluster().await.unwrap();
    assert_eq!(cluster.brokers.len(), 1);
    assert_eq!(cluster.controller, Some(cluster.brokers[0].id));
    assert_eq!(cluster.brokers[0].address(), node.address);
    assert!(cluster.id.is_some());
    let quorum = client.describe_quorum().await.unwrap();
    assert_eq!(quorum.leader, cluster.controller);
    assert_eq!(quorum.voters.len(), 1);
    assert!(quorum.voters[0].log_end_offset >= Some(quorum.high_watermark));
    assert!(quorum.observers.is_empty());

    create(&client, "grows", 1).await;
    let grow = |count| [("grows".to_owned(), count)];
    let asked = client.create_partitions(&grow(4), true).await.unwrap();
    assert!(asked[0].1.is_ok());
    assert_eq!(
        client
            .describe_topic("grows")
            .await
            .unwrap()
            .partitions
            .len(),
        1
    );
    let done = client.create_partitions(&grow(4), false).await.unwrap();
    assert!(done[0].1.is_ok(), "{done:?}");
    assert_eq!(
        client
            .describe_topic("grows")
            .await
            .unwrap()
            .partitions
            .len(),
        4
    );
    let shrunk = client.create_partitions(&grow(2), false).await.unwrap();
    let error = shrunk[0].1.as_ref().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::InvalidPartitions), "{error}");
    let unknown = client
        .create_partitions(&[("nope".to_owned(), 2)], false)
        .await
        .unwrap();
    assert!(unknown[0].1.is_err());
    let producer = Producer::new(client.clone(), ProducerConfig::default()).unwrap();
    let record = ProducerRecord::to("grows").partition(3).value("x");
    assert_eq!(
        producer
            .send(record)
            .await
            .unwrap()
            .wait()
            .await
            .unwrap()
            .offset,
        Some(0)
    );
}

#[tokio::test]
async fn offsets_are_found_by_time_even_where_times_fall() {
    let node = Node::start();
    let client = client(&node);
    create(&client, "times", 1).await;
    let producer = Producer::new(client.clone(), ProducerConfig::default()).unwrap();
    // Each in a batch of its own; the times are out of order on purpose.
    let times = [5_000, 9_000, 7_000, 1_000, 8_000];
    for (n, time) in (0..).zip(times) {
        assert_eq!(write(&producer, "times", "x", time).await, Some(n));
    }
    let place = TopicPartition::new("times", 0);
    for (spec, offset, time) in [
        (OffsetSpec::Start, Some(0), None),
        (OffsetSpec::End, Some(5), None),
        (OffsetSpec::Timestamp(0), Some(0), Some(5_000)),
        (OffsetSpec::Timestamp(5_001), Some(1), Some(9_000)),
        (OffsetSpec::Timestamp(9_001), None, None),
        (OffsetSpec::MaxTimestamp, Some(1), Some(9_000)),
    ] {
        let listed = client.list_offsets(&[(place.clone(), spec)]).await.unwrap();
        let found = listed[&place];
        assert_eq!(
            (found.offset, found.timestamp_ms),
            (offset, time),
            "{spec:?}"
        );
    }
    let places = BTreeMap::from([(place.clone(), Start::Timestamp(9_001))]);
    assert_eq!(client.resolve(&places).await.unwrap()[&place], 5);
}

#[tokio::test]
async fn a_reader_beyond_the_end_is_told_or_moved() {
    let node = Node::start();
    let client = client(&node);
    create(&client, "short", 1).await;
    let producer = Producer::new(client.clone(), ProducerConfig::default()).unwrap();
    write(&producer, "short", "one", 1).await;
    let place = TopicPartition::new("short", 0);
    let mut strict = Consumer::new(client.clone(), ConsumerConfig::default()).unwrap();
    strict
        .assign([(place.clone(), Start::Offset(9))])
        .await
        .unwrap();
    let error = strict.next().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::OffsetOutOfRange {
                start: 0,
                end: 1,
                ..
            }
        ),
        "{error}"
    );
    let config = ConsumerConfig {
        out_of_range: OutOfRange::Start,
        ..ConsumerConfig::default()
    };
    let mut lenient = Consumer::new(client, config).unwrap();
    lenient.assign([(place, Start::Offset(9))]).await.unwrap();
    assert_eq!(
        lenient.next().await.unwrap().records[0].value.as_deref(),
        Some(&b"one"[..])
    );
}

#[tokio::test]
async fn a_topic_that_is_made_anew_is_another_topic() {
    let node = Node::start();
    let client = client(&node);
    create(&client, "again", 1).await;
    let producer = Producer::new(client.clone(), ProducerConfig::default()).unwrap();
    let place = TopicPartition::new("again", 0);
    let mut consumer = Consumer::new(client.clone(), ConsumerConfig::default()).unwrap();
    consumer.assign([(place, Start::Beginning)]).await.unwrap();
    for n in 0..3 {
        assert_eq!(write(&producer, "again", "old", 1).await, Some(n));
    }
    while consumer.next().await.unwrap().next_offset < 3 {}
    let old = client.describe_topic("again").await.unwrap().id;
    // By another client, so that this one's picture is out of date.
    assert_eq!(node.run("topic delete again --yes").ok(), "deleted again\n");
    node.run("topic create again").ok();
    assert_eq!(write(&producer, "again", "new", 1).await, Some(0));
    assert_ne!(client.describe_topic("again").await.unwrap().id, old);
    // The reader stands where nothing is: it is told so, and does not wait for what will come
    // to be there under the same number.
    let error = consumer.next().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::OffsetOutOfRange { offset: 3, .. } | Error::UnknownTopic { .. }
        ),
        "{error}"
    );
}
