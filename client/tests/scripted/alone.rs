//! One broker that fails.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use riverrun_client::{
    Acks, Client, ClientConfig, Compression, Consumer, ConsumerConfig, Delivery, Error, ErrorCode,
    OffsetSpec, OutOfRange, Producer, ProducerConfig, ProducerRecord, Start, TopicPartition,
};
use riverrun_wire::ApiKey;

use super::{
    assert_each_once_in_order,
    broker::{Act, Broker},
    client, config, consumer, filled, offsets, place, producer, read, send, send_all,
};

#[tokio::test]
async fn records_are_stored_once_in_order_whatever_is_lost_on_the_way() {
    let broker = Broker::start(1).await;
    broker.script(
        ApiKey::Produce,
        [
            Act::StoreAndDrop,
            Act::Drop,
            Act::StoreAndRefuse(ErrorCode::RequestTimedOut),
            Act::Refuse(ErrorCode::NotLeaderOrFollower),
            Act::Serve,
            Act::Garbage,
            Act::Hang,
        ],
    );
    let producer = producer(&broker);
    let deliveries = send_all(&producer, 0, 200).await;
    assert_eq!(offsets(deliveries).await, (0..200).collect::<Vec<i64>>());
    assert_each_once_in_order(&broker, 0, 200);
    producer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_store_each_record_once_in_order() {
    for seed in 0..12 {
        let broker = Broker::start(3).await;
        broker.state.lock().random = Some(seed);
        let producer = producer(&broker);
        let mut deliveries = BTreeMap::<i32, Vec<Delivery>>::new();
        for n in 0..150 {
            for partition in 0..3 {
                deliveries
                    .entry(partition)
                    .or_default()
                    .push(send(&producer, partition, format!("value {n}")).await);
            }
            if n % 40 == 0 {
                producer.flush().await;
            }
        }
        for (partition, deliveries) in deliveries {
            assert_eq!(
                offsets(deliveries).await,
                (0..150).collect::<Vec<i64>>(),
                "seed {seed}"
            );
            assert_each_once_in_order(&broker, partition, 150);
        }
    }
}

#[tokio::test]
async fn a_record_that_is_refused_for_good_says_so_and_the_next_one_goes_on() {
    let broker = Broker::start(1).await;
    broker.script(ApiKey::Produce, [Act::Refuse(ErrorCode::MessageTooLarge)]);
    let producer = producer(&broker);
    let refused = send(&producer, 0, "too large".to_owned()).await;
    let error = refused.wait().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge));
    assert!(!error.is_retriable());
    // Its number is missing now: the producer goes on in another epoch.
    assert_eq!(
        send(&producer, 0, "next".to_owned())
            .await
            .wait()
            .await
            .unwrap()
            .offset,
        Some(0)
    );
    assert_eq!(broker.count(ApiKey::InitProducerId), 1);
    assert_eq!(broker.values(0), ["next"]);
}

#[tokio::test]
async fn a_silent_broker_costs_bounded_memory_and_time() {
    let broker = Broker::start(1).await;
    broker.script(ApiKey::Produce, [Act::Hang; 100]);
    let config = ProducerConfig {
        buffer_bytes: 4_000,
        max_request_bytes: 2_000,
        max_block: Duration::from_millis(100),
        delivery_timeout: Duration::from_millis(700),
        ack_timeout: Duration::from_millis(1),
        ..config()
    };
    let producer = Producer::new(client(&broker), config).unwrap();
    let begun = Instant::now();
    let mut deliveries = Vec::new();
    let full = loop {
        match producer
            .send(ProducerRecord::to("t").value(vec![0; 100]))
            .await
        {
            Ok(delivery) => deliveries.push(delivery),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::GaveUp { .. }), "{full}");
    assert!(deliveries.len() < 40);
    for delivery in deliveries {
        assert!(delivery.wait().await.unwrap_err().is_retriable());
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    // All memory is free again.
    let large = ProducerRecord::to("t").value(vec![0; 1_800]);
    let _ = producer.send(large).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_at_once() {
    let broker = Broker::start(2).await;
    let producer = producer(&broker);
    let to =
        |topic: &str, partition: i32| ProducerRecord::to(topic).partition(partition).value("v");
    let large = producer
        .send(ProducerRecord::to("t").value(vec![0; 2 << 20]))
        .await
        .unwrap_err();
    assert!(matches!(large, Error::RecordTooLarge { .. }));
    let partition = producer.send(to("t", 2)).await.unwrap_err();
    assert!(matches!(
        partition,
        Error::UnknownPartition { partition: 2, .. }
    ));
    let config = ProducerConfig {
        auto_create_topics: false,
        ..config()
    };
    let strict = Producer::new(client(&broker), config).unwrap();
    assert!(matches!(
        strict.send(to("u", 0)).await.unwrap_err(),
        Error::UnknownTopic { .. }
    ));
}

#[tokio::test]
async fn settings_that_cannot_hold_together_are_refused() {
    let broker = Broker::start(1).await;
    for config in [
        ProducerConfig {
            acks: Acks::Leader,
            ..config()
        },
        ProducerConfig {
            max_in_flight: 6,
            ..config()
        },
        ProducerConfig {
            max_in_flight: 0,
            ..config()
        },
        ProducerConfig {
            batch_bytes: 2 << 20,
            ..config()
        },
        ProducerConfig {
            buffer_bytes: 1 << 10,
            ..config()
        },
    ] {
        assert!(matches!(
            Producer::new(client(&broker), config),
            Err(Error::InvalidConfig { .. })
        ));
    }
    assert!(Client::new(ClientConfig::new(Vec::<String>::new())).is_err());
    assert!(Client::new(ClientConfig::new(["localhost"])).is_err());
}

#[tokio::test]
async fn keys_have_their_partition_and_keyless_records_are_spread() {
    let broker = Broker::start(3).await;
    let producer = producer(&broker);
    for n in 0..300 {
        let record = ProducerRecord::to("t").value(format!("{n}"));
        let _ = producer.send(record).await.unwrap();
        let keyed = ProducerRecord::to("t")
            .key(format!("key {}", n % 7))
            .value("keyed");
        let delivery = producer.send(keyed).await.unwrap();
        let expected = riverrun_client::partition_of_key(format!("key {}", n % 7).as_bytes(), 3);
        assert_eq!(delivery.partition(), expected as i32);
    }
    producer.flush().await;
    for partition in 0..3 {
        let plain = broker
            .values(partition)
            .iter()
            .filter(|v| *v != "keyed")
            .count();
        assert!(plain > 30, "{plain} in {partition}");
    }
}

#[tokio::test]
async fn every_compression_and_no_acknowledgement() {
    for compression in [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let broker = Broker::start(1).await;
        let config = ProducerConfig {
            compression,
            acks: Acks::None,
            idempotence: false,
            ..config()
        };
        let producer = Producer::new(client(&broker), config).unwrap();
        let deliveries = send_all(&producer, 0, 50).await;
        for delivery in deliveries {
            assert_eq!(delivery.wait().await.unwrap().offset, None);
        }
        // Sent is not stored: nobody says when it is.
        let begun = Instant::now();
        while broker.values(0).len() < 50 && begun.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_each_once_in_order(&broker, 0, 50);
    }
}

#[tokio::test]
async fn dropping_a_producer_answers_everything() {
    let broker = Broker::start(1).await;
    broker.script(ApiKey::Produce, [Act::Hang; 100]);
    let producer = producer(&broker);
    let deliveries = send_all(&producer, 0, 20).await;
    drop(producer);
    for delivery in deliveries {
        assert!(matches!(delivery.wait().await, Err(Error::Closed)));
    }
}

#[tokio::test]
async fn an_older_broker_is_asked_again_in_a_version_it_knows() {
    for max in [0, 2, 3] {
        let broker = Broker::start(1).await;
        broker.state.lock().max_api_versions = max;
        assert_eq!(
            client(&broker).topic("t").await.unwrap().partitions.len(),
            1
        );
        let newest = *ApiKey::ApiVersions.versions().end();
        let asked = broker
            .state
            .lock()
            .seen
            .iter()
            .filter(|(_, api, _)| *api == ApiKey::ApiVersions)
            .map(|s| s.2)
            .collect::<Vec<_>>();
        assert_eq!(asked, [newest, max]);
    }
}

#[tokio::test]
async fn what_is_no_broker_is_told_from_one_that_is_not_there() {
    let broker = Broker::start(1).await;
    broker.script(ApiKey::ApiVersions, [Act::Absurd, Act::Garbage]);
    for _ in 0..2 {
        let error = client(&broker).reach(Duration::ZERO).await.unwrap_err();
        assert!(error.to_string().contains("broke the protocol"), "{error}");
    }
    let nobody = Client::new(ClientConfig::new(["127.0.0.1:1"])).unwrap();
    let error = nobody.reach(Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(matches!(error, Error::NoBroker { .. }) && error.is_retriable());
}

#[tokio::test]
async fn reading_begins_anywhere_and_leaves_nothing_out() {
    let broker = filled(100).await;
    for (start, first) in [
        (Start::Beginning, 0),
        (Start::Offset(33), 33),
        (Start::AfterBeginning(7), 7),
        (Start::BeforeEnd(10), 90),
        (Start::BeforeEnd(1_000), 0),
    ] {
        let mut consumer = consumer(&broker, start, ConsumerConfig::default()).await;
        assert_eq!(consumer.position(&place()), Some(first));
        let offsets = read(&mut consumer, (100 - first) as usize).await;
        assert_eq!(offsets, (first..100).collect::<Vec<_>>());
    }
    // Behind the end: what comes next.
    let mut consumer = consumer(&broker, Start::End, ConsumerConfig::default()).await;
    let producer = producer(&broker);
    let _ = send(&producer, 0, "new".to_owned()).await;
    assert_eq!(read(&mut consumer, 1).await, [100]);
}

#[tokio::test]
async fn a_lost_connection_loses_no_record() {
    let broker = filled(100).await;
    let lost = [
        Act::Drop,
        Act::Serve,
        Act::Refuse(ErrorCode::NotLeaderOrFollower),
        Act::Serve,
        Act::Garbage,
        Act::Serve,
    ];
    broker.script(ApiKey::Fetch, lost);
    let mut consumer = consumer(&broker, Start::Beginning, ConsumerConfig::default()).await;
    assert_eq!(read(&mut consumer, 100).await, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn fetching_ahead_stops_at_its_limit_and_goes_on() {
    let broker = filled(100).await;
    let config = ConsumerConfig {
        prefetch_bytes: 1,
        ..ConsumerConfig::default()
    };
    let mut consumer = consumer(&broker, Start::Beginning, config).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(broker.count(ApiKey::Fetch), 1);
    assert_eq!(read(&mut consumer, 100).await, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn damage_stops_the_partition_and_names_the_offset() {
    let broker = filled(100).await;
    broker.script(ApiKey::Fetch, [Act::Serve, Act::Corrupt]);
    let mut consumer = consumer(&broker, Start::Beginning, ConsumerConfig::default()).await;
    let first = consumer.next().await.unwrap();
    let error = consumer.next().await.unwrap_err();
    let Error::CorruptBatch { offset, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(offset, first.next_offset);
    // It was damaged on the way only: reading can go on where it stopped.
    consumer.seek(&place(), offset).unwrap();
    assert_eq!(read(&mut consumer, 1).await[0], offset);
}

#[tokio::test]
async fn an_offset_that_is_not_there_is_an_error_or_moves_by_choice() {
    let broker = filled(50).await;
    broker.state.lock().log_start = 20;
    let mut strict = consumer(&broker, Start::Offset(5), ConsumerConfig::default()).await;
    let error = strict.next().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::OffsetOutOfRange {
                offset: 5,
                start: 20,
                end: 50,
                ..
            }
        ),
        "{error}"
    );
    strict.seek(&place(), 20).unwrap();
    assert!(read(&mut strict, 1).await[0] == 20);
    let config = ConsumerConfig {
        out_of_range: OutOfRange::Start,
        ..ConsumerConfig::default()
    };
    let mut lenient = consumer(&broker, Start::Offset(5), config).await;
    assert_eq!(read(&mut lenient, 1).await[0], 20);
}

#[tokio::test]
async fn a_log_that_lost_its_end_is_reported() {
    let broker = filled(50).await;
    broker.script(ApiKey::Fetch, [Act::Serve, Act::Diverge(1)]);
    let mut consumer = consumer(&broker, Start::Beginning, ConsumerConfig::default()).await;
    consumer.next().await.unwrap();
    let error = consumer.next().await.unwrap_err();
    assert!(
        matches!(error, Error::LogTruncated { end: 1, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn offsets_are_listed_and_a_missing_partition_is_named() {
    let broker = filled(5).await;
    let client = client(&broker);
    let listed = client
        .list_offsets(&[(place(), OffsetSpec::End)])
        .await
        .unwrap();
    assert_eq!(listed[&place()].offset, Some(5));
    let missing = TopicPartition::new("t", 9);
    let error = client
        .list_offsets(&[(missing, OffsetSpec::End)])
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        Error::UnknownPartition { partition: 9, .. }
    ));
}

#[tokio::test]
async fn a_record_that_is_never_sent_says_what_it_waited_for() {
    let broker = Broker::start(1).await;
    broker.state.lock().is_leaderless = true;
    let config = ProducerConfig {
        delivery_timeout: Duration::from_millis(200),
        ..config()
    };
    let producer = Producer::new(client(&broker), config).unwrap();
    let error = send(&producer, 0, "x".to_owned())
        .await
        .wait()
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::LeaderNotAvailable), "{error}");
}

/// Asked for the other way round, a record that comes between the questions would be at or after
/// the time and before the end, where nobody reads it.
#[tokio::test]
async fn a_time_is_looked_up_after_the_end_is_known() {
    let broker = filled(5).await;
    let places = BTreeMap::from([(place(), Start::Timestamp(1_000_000))]);
    let starts = client(&broker).resolve(&places).await.unwrap();
    assert_eq!(starts[&place()], 5, "nothing is that new");
    assert_eq!(broker.state.lock().asked_offsets, [-1, 1_000_000]);
}

#[tokio::test]
async fn a_broker_that_is_not_ready_yet_is_asked_again() {
    let broker = filled(5).await;
    broker.script(
        ApiKey::Fetch,
        [Act::Refuse(ErrorCode::OffsetNotAvailable); 3],
    );
    broker.script(ApiKey::Metadata, [Act::Drop, Act::Hang]);
    let mut consumer = consumer(&broker, Start::Offset(0), ConsumerConfig::default()).await;
    assert_eq!(read(&mut consumer, 5).await.len(), 5);
}

#[tokio::test]
async fn what_cannot_be_read_for_long_is_said_and_still_tried() {
    let broker = filled(5).await;
    broker.state.lock().is_leaderless = true;
    let client = Client::new(ClientConfig {
        operation_timeout: Duration::from_millis(200),
        retry_backoff: Duration::from_millis(5),
        ..ClientConfig::new([broker.address.clone()])
    })
    .unwrap();
    let mut consumer = Consumer::new(client, ConsumerConfig::default()).unwrap();
    consumer
        .assign([(place(), Start::Offset(0))])
        .await
        .unwrap();
    let error = consumer.next().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::LeaderNotAvailable), "{error}");
    broker.state.lock().is_leaderless = false;
    assert_eq!(read(&mut consumer, 5).await.len(), 5);
}
