//! A node that is frozen: its connections stay open, and nothing comes out of them.

use super::ours::{client, runtime};
use super::trio::Trio;
use crate::fsync::requests::Connection;
use crate::kafka::{create_topic, unique};
use anyhow::{Context, Result, ensure};
use riverrun_client::{
    Consumer, ConsumerConfig, NewTopic, Producer, ProducerConfig, ProducerRecord, Start,
    TopicPartition,
};
use std::time::{Duration, Instant};
use tokio::time::timeout;

const PARTITIONS: i32 = 6;
/// Below the 30 s for which a client waits for an answer by default.
const SOON: Duration = Duration::from_secs(20);

/// The node that leads the controller's group and some of the partitions falls silent under a
/// producer, a consumer and whoever creates a topic.
pub(super) fn our_client_does_without_it() -> Result<()> {
    let mut trio = Trio::start()?;
    let result = goes_on(&mut trio);
    trio.explain(result)
}

fn goes_on(trio: &mut Trio) -> Result<()> {
    let topic = unique("frozen");
    create_topic(&trio.brokers(), &topic, PARTITIONS.try_into()?, &[])?;
    let seen = trio.in_sync(&topic, 3)?;
    let frozen = trio.controller()?;
    let leads = (0..PARTITIONS.try_into()?).any(|p| seen.leader(p) == Some(frozen));
    ensure!(leads, "node {frozen} leads nothing");
    runtime()?.block_on(all_through(trio, &topic, frozen))
}

/// Whoever is asked for a change has it made by the next one to lead the controller's group.
pub(super) fn a_change_is_made_without_the_controller() -> Result<()> {
    let mut trio = Trio::start()?;
    let result = changed(&mut trio);
    trio.explain(result)
}

fn changed(trio: &mut Trio) -> Result<()> {
    let topic = unique("before");
    create_topic(&trio.brokers(), &topic, 1, &[])?;
    trio.in_sync(&topic, 3)?;
    let frozen = trio.controller()?;
    let mut others = trio.ids().into_iter().filter(|id| *id != frozen);
    let asked = trio.address(others.next().context("another node")?)?;
    trio.node(frozen)?.freeze()?;
    let begun = Instant::now();
    Connection::open(&asked)?.create_topic(&unique("after"), &[])?;
    let took = begun.elapsed();
    ensure!(took < SOON, "created after {took:?}");
    Ok(())
}

async fn all_through(trio: &mut Trio, topic: &str, frozen: i32) -> Result<()> {
    let client = client(&trio.brokers())?;
    let producer = Producer::new(client.clone(), ProducerConfig::default())?;
    let mut consumer = Consumer::new(client.clone(), ConsumerConfig::default())?;
    let places = (0..PARTITIONS).map(|p| TopicPartition::new(topic, p));
    consumer
        .assign(places.map(|place| (place, Start::Beginning)))
        .await?;
    for round in 0..4 {
        if round == 2 {
            trio.node(frozen)?.freeze()?;
        }
        timeout(SOON, write(&producer, topic, round))
            .await
            .context("writing")??;
        timeout(SOON, read(&mut consumer, round))
            .await
            .context("reading")??;
    }
    let other = NewTopic {
        name: unique("other"),
        ..NewTopic::default()
    };
    let created = timeout(SOON, client.create_topics(&[other], false))
        .await
        .context("creating a topic")??;
    for (name, outcome) in created {
        outcome.with_context(|| name)?;
    }
    Ok(())
}

/// One record to each partition, each of them acknowledged at its offset.
async fn write(producer: &Producer, topic: &str, round: i64) -> Result<()> {
    let mut deliveries = Vec::new();
    for partition in 0..PARTITIONS {
        let record = ProducerRecord::to(topic).partition(partition);
        deliveries.push(producer.send(record.value(format!("{round}"))).await?);
    }
    for delivery in deliveries {
        let offset = delivery.wait().await?.offset;
        ensure!(offset == Some(round), "{offset:?} in round {round}");
    }
    Ok(())
}

/// The record of this round out of each partition, and nothing else.
async fn read(consumer: &mut Consumer, round: i64) -> Result<()> {
    let mut left: Vec<i32> = (0..PARTITIONS).collect();
    while !left.is_empty() {
        let fetched = consumer.next().await?;
        for record in fetched.records {
            ensure!(record.offset == round, "offset {}", record.offset);
            let expected = format!("{round}");
            ensure!(record.value.as_deref() == Some(expected.as_bytes()));
            ensure!(left.contains(&fetched.partition), "read twice");
            left.retain(|p| *p != fetched.partition);
        }
    }
    Ok(())
}
