//! The `rdkafka` crate, with the librdkafka that it builds.

use super::{COMPRESSIONS, LIBRDKAFKA_SENDS_PLAIN, PARTITIONS, plan};
use crate::event::{Stored, compare, from_offset};
use crate::kafka::{Next, PATIENCE, Reader, admin, create_topic, produce, unique, wait};
use crate::raw::is_stored_as;
use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::admin::{AdminOptions, NewPartitions, ResourceSpecifier};
use rdkafka::topic_partition_list::Offset;
use std::time::{Duration, Instant};

pub(super) fn records(brokers: &str) -> Result<()> {
    for compression in COMPRESSIONS {
        check(brokers, compression).with_context(|| format!("compression {compression}"))?;
    }
    Ok(())
}

fn check(brokers: &str, compression: &str) -> Result<()> {
    let plan = plan(true);
    let topic = &unique(&format!("rdkafka-{compression}"));
    create_topic(brokers, topic, PARTITIONS, &[])?;
    let settings = [("compression.type", compression), ("batch.size", "8192")];
    let events = plan
        .events
        .iter()
        .map(|(partition, event)| (Some(*partition), event));
    let delivered = produce(brokers, topic, &settings, events)?;
    let mut next = [0; PARTITIONS];
    for (number, (at, (partition, event))) in delivered.iter().zip(&plan.events).enumerate() {
        ensure!(
            (at.partition, at.offset) == (*partition, next[*partition]),
            "event {number} was acknowledged as {at:?}, its place is {partition}/{}",
            next[*partition]
        );
        ensure!(
            at.timestamp_ms == event.timestamp_ms,
            "event {number}: the acknowledged timestamp is {}, not {}",
            at.timestamp_ms,
            event.timestamp_ms
        );
        next[*partition] += 1;
    }

    if compression != LIBRDKAFKA_SENDS_PLAIN {
        is_stored_as(brokers, topic, PARTITIONS, compression)?;
    }
    let reader = Reader::new(brokers)?;
    expect(&reader, topic, "from the start", &plan.logs, |_| {
        Offset::Beginning
    })?;
    expect(&reader, topic, "from offset 0", &plan.logs, |_| {
        Offset::Offset(0)
    })?;
    let middles: Vec<Vec<Stored>> = plan
        .places
        .iter()
        .zip(&plan.logs)
        .map(|(place, log)| from_offset(log, place.middle).to_vec())
        .collect();
    expect(&reader, topic, "from the middle", &middles, |p| {
        Offset::Offset(plan.places[p].middle)
    })?;

    let mut since = Vec::new();
    for (partition, place) in plan.places.iter().enumerate() {
        let offset = reader.offset_at(topic, partition, place.timestamp_ms)?;
        ensure!(
            offset == Some(place.timestamp_offset),
            "partition {partition} at {}: offset {offset:?}, not {}",
            place.timestamp_ms,
            place.timestamp_offset
        );
        since.push(from_offset(&plan.logs[partition], place.timestamp_offset).to_vec());
        let after_all = reader.offset_at(topic, partition, i64::MAX / 2)?;
        ensure!(
            after_all.is_none(),
            "partition {partition} after all timestamps: {after_all:?}"
        );
        let before_all = reader.offset_at(topic, partition, 0)?;
        ensure!(
            before_all == Some(0),
            "partition {partition} before all timestamps: {before_all:?}"
        );
    }
    expect(&reader, topic, "from a timestamp", &since, |p| {
        Offset::Offset(plan.places[p].timestamp_offset)
    })?;

    at_the_end(brokers, topic, &reader, &plan.extras)?;
    let all: Vec<Vec<Stored>> = plan
        .logs
        .iter()
        .zip(&plan.extras)
        .map(|(log, extra)| log.iter().chain([extra]).cloned().collect())
        .collect();
    expect(&reader, topic, "all of it once more", &all, |_| {
        Offset::Beginning
    })
}

/// Stands at the end of every partition, sees nothing old, and then exactly what is produced.
fn at_the_end(brokers: &str, topic: &str, reader: &Reader, extras: &[Stored]) -> Result<()> {
    let nothing = vec![Vec::new(); extras.len()];
    expect(reader, topic, "from the end", &nothing, |_| Offset::End)?;
    let events = extras
        .iter()
        .enumerate()
        .map(|(partition, stored)| (Some(partition), &stored.event));
    produce(brokers, topic, &[], events)?;
    let mut got: Vec<Vec<Stored>> = vec![Vec::new(); extras.len()];
    let deadline = Instant::now() + PATIENCE;
    while got.iter().any(Vec::is_empty) {
        if let Some(Next::Record(partition, stored)) = reader.next(Duration::from_millis(100))? {
            got[partition].push(stored);
        }
        ensure!(
            Instant::now() < deadline,
            "what came after the end was not read in {PATIENCE:?}: {got:?}"
        );
    }
    for (partition, (extra, got)) in extras.iter().zip(&got).enumerate() {
        compare(
            &format!("partition {partition} after the end"),
            std::slice::from_ref(extra),
            got,
        )?;
    }
    Ok(())
}

fn expect(
    reader: &Reader,
    topic: &str,
    what: &str,
    expected: &[Vec<Stored>],
    from: impl Fn(usize) -> Offset,
) -> Result<()> {
    let places: Vec<_> = (0..expected.len())
        .map(|partition| (partition, from(partition)))
        .collect();
    let got = reader.read(topic, &places)?;
    for (partition, (expected, got)) in expected.iter().zip(&got).enumerate() {
        compare(&format!("partition {partition}, {what}"), expected, got)?;
    }
    Ok(())
}

pub(super) fn administration(brokers: &str) -> Result<()> {
    let topic = &unique("rdkafka-admin");
    let admin = admin(brokers)?;
    let reader = Reader::new(brokers)?;
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));

    create_topic(brokers, topic, 2, &[("segment.bytes", "2097152")])?;
    ensure!(
        reader.partitions(topic)? == 2,
        "a topic created with 2 partitions has others"
    );
    let again = create_topic(brokers, topic, 2, &[]);
    ensure!(
        again
            .as_ref()
            .is_err_and(|error| format!("{error:#}").contains("TopicAlreadyExists")),
        "creating a topic twice: {again:?}"
    );

    let described = wait(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options))??
        .remove(0)
        .map_err(|code| anyhow!("describing the topic: {code}"))?;
    for (name, value) in [
        ("segment.bytes", "2097152"),
        ("retention.ms", "-1"),
        ("cleanup.policy", "delete"),
    ] {
        let entry = described
            .get(name)
            .with_context(|| format!("{name} is not described"))?;
        ensure!(
            entry.value.as_deref() == Some(value),
            "{name} is {:?}, not {value}",
            entry.value
        );
    }
    let is_default = described
        .get("cleanup.policy")
        .is_some_and(|entry| entry.is_default);
    ensure!(
        is_default,
        "cleanup.policy was not given and is not shown as a default"
    );

    for result in wait(admin.create_partitions([&NewPartitions::new(topic, 5)], &options))?? {
        result.map_err(|(name, code)| anyhow!("adding partitions to {name}: {code}"))?;
    }
    let deadline = Instant::now() + PATIENCE;
    while reader.partitions(topic)? != 5 {
        ensure!(
            Instant::now() < deadline,
            "the added partitions are not shown"
        );
    }

    for result in wait(admin.delete_topics(&[topic], &options))?? {
        result.map_err(|(name, code)| anyhow!("deleting {name}: {code}"))?;
    }
    let twice = wait(admin.delete_topics(&[topic], &options))??;
    ensure!(
        matches!(
            twice.first(),
            Some(Err((
                _,
                rdkafka::types::RDKafkaErrorCode::UnknownTopicOrPartition
            )))
        ),
        "deleting a topic twice: {twice:?}"
    );
    Ok(())
}
