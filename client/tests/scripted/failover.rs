//! Several brokers, some of which die, fall silent or lose their place.

use std::time::{Duration, Instant};

use riverrun_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, Error, ErrorCode, OffsetSpec, Producer,
    ProducerConfig, ProducerRecord, Start,
};
use riverrun_wire::ApiKey;

use super::{
    assert_each_once_in_order,
    broker::{Act, Broker},
    config, consumer, filled, offsets, place, producer, read, reading, send, send_all,
};

/// Far above what a test takes: whoever waits for it has failed.
const TOO_LONG: Duration = Duration::from_secs(60);

/// A client that knows the first broker alone, and would wait long for an answer.
fn patient(broker: &Broker) -> ClientConfig {
    ClientConfig {
        request_timeout: TOO_LONG,
        operation_timeout: TOO_LONG,
        unresponsive_after: Duration::from_millis(50),
        retry_backoff: Duration::from_millis(2),
        retry_backoff_max: Duration::from_millis(20),
        ..ClientConfig::new([broker.address.clone()])
    }
}

fn client(broker: &Broker) -> Client {
    Client::new(patient(broker)).unwrap()
}

/// A client that has heard of all brokers from the first.
async fn acquainted(config: ClientConfig) -> Client {
    let client = Client::new(config).unwrap();
    client.topic("t").await.unwrap();
    client
}

/// A client, a producer and a consumer that have been served, and take little time to give up.
async fn at_work(broker: &Broker) -> (Client, Producer, Consumer) {
    let config = ClientConfig {
        operation_timeout: Duration::from_millis(300),
        ..patient(broker)
    };
    let client = acquainted(config).await;
    let mut consumer = reading(client.clone(), Start::Beginning, ConsumerConfig::default()).await;
    let producing = ProducerConfig {
        delivery_timeout: Duration::from_millis(300),
        ack_timeout: TOO_LONG,
        ..super::config()
    };
    let producer = Producer::new(client.clone(), producing).unwrap();
    soon(send(&producer, 0, "before".to_owned()).await.wait())
        .await
        .unwrap();
    soon(consumer.next()).await.unwrap();
    (client, producer, consumer)
}

/// Runs something that has to end long before a request is given up.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    let soon = Duration::from_secs(20);
    tokio::time::timeout(soon, what).await.expect("in time")
}

#[tokio::test]
async fn metadata_comes_from_any_broker_that_lives() {
    let broker = Broker::cluster(3, 1).await;
    let client = acquainted(patient(&broker)).await;
    broker.kill(1);
    broker.elect(0, 2);
    let topic = soon(client.describe_topic("t")).await.unwrap();
    assert_eq!(topic.partition(0).unwrap().leader, Some(2));
    broker.kill(2);
    broker.elect(0, 3);
    let topic = soon(client.describe_topic("t")).await.unwrap();
    assert_eq!(topic.partition(0).unwrap().leader, Some(3));
}

#[tokio::test]
async fn a_silent_broker_is_passed_over_and_asked_last_from_then_on() {
    let broker = Broker::cluster(3, 1).await;
    let client = acquainted(patient(&broker)).await;
    broker.silence(1);
    soon(client.describe_topic("t")).await.unwrap();
    assert_eq!(broker.count_at(1, ApiKey::Metadata), 2);
    for _ in 0..5 {
        soon(client.describe_topic("t")).await.unwrap();
    }
    assert_eq!(broker.count_at(1, ApiKey::Metadata), 2);
    // One that was silent from the start: it takes connections, and says nothing on them.
    let config = ClientConfig {
        brokers: vec![broker.address_of(1), broker.address_of(2)],
        ..patient(&broker)
    };
    let stranger = Client::new(config).unwrap();
    soon(stranger.reach(TOO_LONG)).await.unwrap();
    soon(stranger.topic("t")).await.unwrap();
}

#[tokio::test]
async fn when_no_broker_is_left_that_is_said_in_time() {
    let broker = Broker::cluster(2, 1).await;
    let (client, producer, mut consumer) = at_work(&broker).await;
    broker.kill(1);
    broker.kill(2);
    let error = soon(client.describe_topic("t")).await.unwrap_err();
    let Error::GaveUp {
        last: Some(last), ..
    } = &error
    else {
        panic!("{error}")
    };
    assert!(matches!(**last, Error::NoBroker { .. }), "{error}");
    let [one, two] = [1, 2].map(|node| broker.address_of(node));
    let said = error.to_string();
    assert!(said.contains(&one) && said.contains(&two), "{said}");
    assert!(error.is_retriable());

    let error = soon(send(&producer, 0, "after".to_owned()).await.wait());
    let error = error.await.unwrap_err();
    assert!(matches!(error, Error::GaveUp { .. }), "{error}");
    let error = soon(consumer.next()).await.unwrap_err();
    assert!(matches!(error, Error::GaveUp { .. }), "{error}");
    let error = soon(client.list_offsets(&[(place(), OffsetSpec::End)])).await;
    assert!(matches!(error, Err(Error::GaveUp { .. })), "{error:?}");
}

#[tokio::test]
async fn when_all_brokers_are_silent_that_is_said_in_time() {
    let broker = Broker::cluster(2, 1).await;
    let (client, producer, _consumer) = at_work(&broker).await;
    broker.silence(1);
    broker.silence(2);
    let begun = Instant::now();
    let outcomes = [
        soon(send(&producer, 0, "after".to_owned()).await.wait())
            .await
            .map(drop),
        soon(client.describe_topic("t")).await.map(drop),
        soon(client.list_topics()).await.map(drop),
        soon(client.list_offsets(&[(place(), OffsetSpec::End)]))
            .await
            .map(drop),
        soon(client.describe_cluster()).await.map(drop),
        soon(client.delete_topics(&["t".to_owned()]))
            .await
            .map(drop),
    ];
    for outcome in outcomes {
        assert!(matches!(outcome, Err(Error::GaveUp { .. })), "{outcome:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn what_a_leader_stored_before_it_died_the_next_one_does_not_store_again() {
    let broker = Broker::cluster(3, 1).await;
    broker.script(
        ApiKey::Produce,
        [
            Act::Serve,
            Act::StoreAndDrop,
            Act::Serve,
            Act::Drop,
            Act::StoreAndDrop,
        ],
    );
    let producer = Producer::new(client(&broker), config()).unwrap();
    let mut deliveries = send_all(&producer, 0, 40).await;
    soon(producer.flush()).await;
    for (from, to) in [(1, 2), (2, 3)] {
        // What is on its way when its leader dies is stored, and nobody is told so.
        broker.script(ApiKey::Produce, [Act::StoreAndDrop]);
        let base = deliveries.len();
        for n in base..base + 80 {
            deliveries.push(send(&producer, 0, format!("value {n}")).await);
        }
        broker.kill(from);
        broker.elect(0, to);
        soon(producer.flush()).await;
    }
    assert_eq!(offsets(deliveries).await, (0..200).collect::<Vec<i64>>());
    assert_each_once_in_order(&broker, 0, 200);
}

#[tokio::test]
async fn a_producer_leaves_a_silent_leader_when_another_one_leads() {
    let broker = Broker::cluster(3, 1).await;
    let producing = ProducerConfig {
        ack_timeout: TOO_LONG,
        delivery_timeout: 2 * TOO_LONG,
        ..config()
    };
    let producer = Producer::new(client(&broker), producing).unwrap();
    let mut deliveries = send_all(&producer, 0, 20).await;
    soon(producer.flush()).await;
    // It is silent on a connection that is open...
    broker.silence(1);
    for n in 20..40 {
        deliveries.push(send(&producer, 0, format!("value {n}")).await);
    }
    broker.elect(0, 2);
    soon(producer.flush()).await;
    // ... and so is one that has not been connected to.
    broker.silence(3);
    broker.elect(0, 3);
    for n in 40..60 {
        deliveries.push(send(&producer, 0, format!("value {n}")).await);
    }
    soon(broker.until_asked(3, ApiKey::ApiVersions, 1)).await;
    broker.elect(0, 2);
    soon(producer.flush()).await;
    assert_eq!(offsets(deliveries).await, (0..60).collect::<Vec<i64>>());
    assert_each_once_in_order(&broker, 0, 60);
}

#[tokio::test]
async fn a_consumer_goes_on_at_its_offset_under_every_new_leader() {
    let broker = Broker::cluster(4, 1).await;
    let producer = Producer::new(client(&broker), config()).unwrap();
    soon(async {
        for delivery in send_all(&producer, 0, 300).await {
            delivery.wait().await.unwrap();
        }
    })
    .await;
    // Little is fetched ahead, so that each leader serves a part.
    let config = ConsumerConfig {
        prefetch_bytes: 1,
        ..ConsumerConfig::default()
    };
    let mut consumer = reading(client(&broker), Start::Beginning, config).await;
    let mut read_ = soon(read(&mut consumer, 50)).await;
    broker.kill(1);
    broker.elect(0, 2);
    read_.extend(soon(read(&mut consumer, 50)).await);
    assert!(broker.count_at(2, ApiKey::Fetch) > 0);
    broker.silence(2);
    broker.elect(0, 3);
    read_.extend(soon(read(&mut consumer, 50)).await);
    assert!(broker.count_at(3, ApiKey::Fetch) > 0);
    // Alive, and no longer the leader.
    broker.elect(0, 4);
    read_.extend(soon(read(&mut consumer, 300 - read_.len())).await);
    assert!(broker.count_at(4, ApiKey::Fetch) > 0);
    assert_eq!(read_, (0..300).collect::<Vec<_>>());
    assert_eq!(consumer.position(&place()), Some(300));
}

#[tokio::test]
async fn offsets_are_asked_of_the_leader_of_the_day() {
    let broker = Broker::cluster(3, 1).await;
    let client = acquainted(patient(&broker)).await;
    let end = [(place(), OffsetSpec::End)];
    broker.elect(0, 2);
    let listed = soon(client.list_offsets(&end)).await.unwrap();
    assert_eq!(listed[&place()].leader_epoch, Some(5));
    broker.silence(2);
    broker.elect(0, 3);
    let listed = soon(client.list_offsets(&end)).await.unwrap();
    assert_eq!(listed[&place()].leader_epoch, Some(6));
}

#[tokio::test]
async fn a_silent_controller_is_left_when_it_is_no_longer_a_broker() {
    let broker = Broker::cluster(2, 1).await;
    let client = acquainted(patient(&broker)).await;
    broker.silence(1);
    let fenced = async {
        // Not as soon as it is silent: it may be busy with the change.
        broker.until_asked(2, ApiKey::Metadata, 3).await;
        assert_eq!(broker.count_at(2, ApiKey::DeleteTopics), 0);
        broker.state.lock().fenced.insert(1);
    };
    let names = ["t".to_owned()];
    let (deleted, ()) = soon(async { tokio::join!(client.delete_topics(&names), fenced) }).await;
    assert!(deleted.unwrap().iter().all(|(_, outcome)| outcome.is_ok()));
    assert_eq!(broker.count_at(2, ApiKey::DeleteTopics), 1);
}

/// Every error code that a broker may answer a Produce with, by what becomes of the record.
#[tokio::test]
async fn what_is_worth_a_retry_is_sent_again_and_nothing_else_is() {
    for code in ErrorCode::ALL {
        let broker = Broker::start(1).await;
        let producer = producer(&broker);
        broker.script(ApiKey::Produce, [Act::Refuse(*code)]);
        let delivered = soon(send(&producer, 0, "value 0".to_owned()).await.wait()).await;
        let sent = broker.count(ApiKey::Produce);
        let identities = broker.count(ApiKey::InitProducerId);
        let name = code.name();
        match code {
            // Said to be stored.
            ErrorCode::None | ErrorCode::DuplicateSequenceNumber => {
                assert!(delivered.is_ok() && sent == 1, "{name}: {delivered:?}");
                continue;
            }
            // Known not to be stored, and worth another identity.
            ErrorCode::UnknownProducerId
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::InvalidProducerIdMapping
            | ErrorCode::ProducerFenced => assert_eq!(identities, 2, "{name}"),
            code => {
                assert_eq!(identities, 1, "{name}");
                if !code.is_retriable() {
                    let error = delivered.unwrap_err();
                    assert_eq!((error.code(), sent), (Some(*code), 1), "{error}");
                    assert!(!error.is_retriable(), "{error}");
                    continue;
                }
            }
        }
        assert_eq!(delivered.unwrap().offset, Some(0), "{name}");
        assert_eq!(sent, 2, "{name}");
        assert_each_once_in_order(&broker, 0, 1);
    }
}

/// The same for Fetch: read on, or told once and not asked again.
#[tokio::test]
async fn what_is_worth_a_retry_is_fetched_again_and_nothing_else_is() {
    for code in ErrorCode::ALL {
        let broker = filled(5).await;
        broker.script(ApiKey::Fetch, [Act::Refuse(*code)]);
        let mut consumer = consumer(&broker, Start::Beginning, ConsumerConfig::default()).await;
        let name = code.name();
        // Whether the offset is there is asked of the leader, who has it.
        let asked_again = code.is_retriable() && *code != ErrorCode::CorruptMessage
            || matches!(code, ErrorCode::None | ErrorCode::OffsetOutOfRange);
        if asked_again {
            let offsets = soon(read(&mut consumer, 5)).await;
            assert_eq!(offsets, [0, 1, 2, 3, 4], "{name}");
        } else {
            let error = soon(consumer.next()).await.unwrap_err();
            assert_eq!(error.code(), Some(*code), "{error}");
            assert_eq!(broker.count(ApiKey::Fetch), 1, "{name}");
            // It goes on when it is told to.
            consumer.seek(&place(), 3).unwrap();
            assert_eq!(soon(read(&mut consumer, 2)).await, [3, 4], "{name}");
        }
    }
}

#[tokio::test]
async fn retries_end_and_are_no_more_than_their_pauses_allow() {
    let broker = Broker::start(1).await;
    broker.script(
        ApiKey::Produce,
        vec![Act::Refuse(ErrorCode::NotEnoughReplicas); 10_000],
    );
    let client = Client::new(ClientConfig {
        retry_backoff: Duration::from_millis(20),
        retry_backoff_max: Duration::from_millis(40),
        ..patient(&broker)
    })
    .unwrap();
    let producing = ProducerConfig {
        delivery_timeout: Duration::from_millis(400),
        ..config()
    };
    let producer = Producer::new(client, producing).unwrap();
    let record = ProducerRecord::to("t").partition(0).value("never");
    let delivery = producer.send(record).await.unwrap();
    let error = soon(delivery.wait()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotEnoughReplicas), "{error}");
    let Error::GaveUp { after, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(after, Duration::from_millis(400));
    // Pauses of 20 ms and then of 40.
    let sent = broker.count(ApiKey::Produce);
    assert!((2..=12).contains(&sent), "{sent} requests in 400 ms");
}
