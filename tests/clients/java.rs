//! Apache Kafka's own Java client, and the load tool that comes with it.

use super::scripted;
use crate::command::run;
use crate::installed::java;
use crate::kafka::{Reader, create_topic, unique};
use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) fn records(brokers: &str) -> Result<()> {
    let mut command = java("the Java client")?.client();
    command.arg("Conformance");
    scripted::check("java", command, &[], brokers, true)
}

/// The same without the administration of topics, for brokers that are killed meanwhile.
pub(super) fn records_alone(brokers: &str) -> Result<()> {
    let mut command = java("the Java client")?.client();
    command.arg("Conformance");
    scripted::check("java", command, &["records"], brokers, true)
}

pub(super) fn producer_performance(brokers: &str) -> Result<()> {
    const RECORDS: usize = 20_000;
    let java = java("Java's ProducerPerformance")?;
    let topic = &unique("performance");
    create_topic(brokers, topic, 3, &[])?;
    let mut command = java.tools();
    command
        .args([
            "org.apache.kafka.tools.ProducerPerformance",
            "--bootstrap-server",
            brokers,
        ])
        .args([
            "--topic",
            topic,
            "--num-records",
            &RECORDS.to_string(),
            "--throughput",
            "-1",
        ])
        .args([
            "--payload-monotonic",
            "--command-property",
            "acks=all",
            "compression.type=lz4",
        ]);
    let said = run(&mut command, b"", Duration::from_secs(120))?.text();
    ensure!(
        said.contains(&format!("{RECORDS} records sent")),
        "it said: {said}"
    );

    // With this switch the values are the numbers from 0 on, so that nothing can hide.
    let mut numbers = BTreeSet::new();
    for stored in Reader::new(brokers)?
        .read_all(topic, 3)?
        .into_iter()
        .flatten()
    {
        let value = String::from_utf8(stored.event.value.unwrap_or_default())?;
        let number: usize = value.parse()?;
        ensure!(numbers.insert(number), "the value {number} was read twice");
    }
    ensure!(
        numbers.len() == RECORDS,
        "{} of {RECORDS} values were read",
        numbers.len()
    );
    ensure!(
        numbers.last() == Some(&(RECORDS - 1)),
        "the last value is {:?}",
        numbers.last()
    );
    Ok(())
}
