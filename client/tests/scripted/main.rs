//! The client against brokers that fail on purpose: over real sockets, in milliseconds.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod alone;
mod broker;
mod failover;

use std::time::Duration;

use broker::Broker;
use riverrun_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, Delivery, Producer, ProducerConfig,
    ProducerRecord, Start, TopicPartition,
};

fn client(broker: &Broker) -> Client {
    Client::new(ClientConfig {
        request_timeout: Duration::from_millis(500),
        operation_timeout: Duration::from_secs(3),
        retry_backoff: Duration::from_millis(2),
        retry_backoff_max: Duration::from_millis(20),
        ..ClientConfig::new([broker.address.clone()])
    })
    .unwrap()
}

fn config() -> ProducerConfig {
    ProducerConfig {
        batch_bytes: 300,
        linger: Duration::from_millis(1),
        ack_timeout: Duration::from_millis(500),
        delivery_timeout: Duration::from_secs(20),
        seed: Some(1),
        ..ProducerConfig::default()
    }
}

fn producer(broker: &Broker) -> Producer {
    Producer::new(client(broker), config()).unwrap()
}

async fn send(producer: &Producer, partition: i32, value: String) -> Delivery {
    producer
        .send(ProducerRecord::to("t").partition(partition).value(value))
        .await
        .unwrap()
}

async fn send_all(producer: &Producer, partition: i32, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for n in 0..count {
        deliveries.push(send(producer, partition, format!("value {n}")).await);
    }
    deliveries
}

fn assert_each_once_in_order(broker: &Broker, partition: i32, count: usize) {
    let expected: Vec<_> = (0..count).map(|n| format!("value {n}")).collect();
    assert_eq!(broker.values(partition), expected);
}

async fn offsets(deliveries: Vec<Delivery>) -> Vec<i64> {
    let mut offsets = Vec::new();
    for delivery in deliveries {
        offsets.push(delivery.wait().await.unwrap().offset.unwrap());
    }
    offsets
}

/// A topic with this many records in batches of a few.
async fn filled(count: usize) -> Broker {
    let broker = Broker::start(1).await;
    let producer = producer(&broker);
    for delivery in send_all(&producer, 0, count).await {
        delivery.wait().await.unwrap();
    }
    broker
}

fn place() -> TopicPartition {
    TopicPartition::new("t", 0)
}

async fn consumer(broker: &Broker, start: Start, config: ConsumerConfig) -> Consumer {
    reading(client(broker), start, config).await
}

async fn reading(client: Client, start: Start, config: ConsumerConfig) -> Consumer {
    let config = ConsumerConfig {
        fetch_max_wait: Duration::from_millis(20),
        ..config
    };
    let mut consumer = Consumer::new(client, config).unwrap();
    consumer.assign([(place(), start)]).await.unwrap();
    consumer
}

/// Offsets of the next records, at least this many.
async fn read(consumer: &mut Consumer, count: usize) -> Vec<i64> {
    let mut offsets = Vec::new();
    while offsets.len() < count {
        let fetched = consumer.next().await.unwrap();
        offsets.extend(fetched.records.iter().map(|r| r.offset));
        assert_eq!(fetched.next_offset, offsets.last().unwrap() + 1);
    }
    offsets
}
