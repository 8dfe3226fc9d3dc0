//! Idempotent producers that nobody here wrote, with several requests under way, through one hand-over of
//! leadership after another: nothing is stored twice, and nothing is lost.
//!
//! A node whose disk hangs hands each partition that waits for it to another one. The disks are hung in
//! turn, with clients writing to every partition of default topics.

use super::trio::{Trio, until};
use super::view::view;
use crate::command::run;
use crate::event::Event;
use crate::fsync::Shim;
use crate::installed::java;
use crate::kafka::{PATIENCE, Reader, create_topic, now_ms, produce, unique};
use crate::trial::note;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PARTITIONS: usize = 24;
/// Hand-overs after which a client may end.
const HAND_OVERS: usize = 100;
/// The disks are hung no longer, however many there were.
const LONGEST: Duration = Duration::from_secs(25);
/// One disk is hung no longer: a partition that nobody writes to waits for no disk, and stays where it is.
const LONGEST_HANG: Duration = Duration::from_secs(2);
/// Fewer prove nothing.
const FEWEST: usize = 25;
/// What a client sends in a second.
const EVENTS_A_SECOND: usize = 1000;
const JAVA_EVENTS: usize = 20_000;

/// Writes to a topic until it is over, or as much as it will; how many events were acknowledged.
type Writer = fn(&str, &str, &AtomicBool) -> Result<usize>;

pub(super) fn librdkafka_stores_nothing_twice() -> Result<()> {
    nothing_is_stored_twice(by_rdkafka)
}

pub(super) fn java_stores_nothing_twice() -> Result<()> {
    java("Java's ProducerPerformance")?;
    nothing_is_stored_twice(by_java)
}

fn nothing_is_stored_twice(writer: Writer) -> Result<()> {
    let shims = (0..3).map(|_| Shim::new()).collect::<Result<Vec<_>>>()?;
    let mut environments = shims.iter().map(Shim::environment);
    let mut trio = Trio::start_with(|_| environments.next().unwrap_or_default())?;
    let result = through(&mut trio, &shims, writer);
    for shim in &shims {
        shim.set("p")?;
    }
    trio.explain(result)
}

fn through(trio: &mut Trio, shims: &[Shim], writer: Writer) -> Result<()> {
    let brokers = trio.brokers();
    let topic = unique("handed");
    create_topic(&brokers, &topic, PARTITIONS, &[])?;
    trio.in_sync(&topic, 3)?;
    let is_over = AtomicBool::new(false);
    let (sent, handed) = thread::scope(|scope| {
        let writing = scope.spawn(|| writer(&brokers, &topic, &is_over));
        let handed = hand_over(trio, shims, &topic, || writing.is_finished());
        is_over.store(true, Ordering::Relaxed);
        let sent = writing.join().unwrap().context("the producer")?;
        anyhow::Ok((sent, handed?))
    })?;
    stored_once(&brokers, &topic, sent)?;
    note(format_args!("{handed} hand-overs under {sent} events"));
    ensure!(handed >= FEWEST, "{handed} hand-overs");
    Ok(())
}

/// Hangs one disk after the other until its node leads nothing that is written to; how many partitions got another
/// leader.
fn hand_over(
    trio: &Trio,
    shims: &[Shim],
    topic: &str,
    is_over: impl Fn() -> bool,
) -> Result<usize> {
    let begun = Instant::now();
    let mut handed = 0;
    for id in trio.ids().into_iter().cycle() {
        if handed >= HAND_OVERS || begun.elapsed() > LONGEST || is_over() {
            break;
        }
        let shim = shims.get(usize::try_from(id - 1)?).context("no shim")?;
        let led = led_by(trio, topic, id)?;
        shim.set("b")?;
        let hung = Instant::now();
        let moved = until(&format!("node {id} leads nothing"), || {
            let rest = led_by(trio, topic, id)?;
            let is_enough = rest == 0 || hung.elapsed() > LONGEST_HANG || is_over();
            Ok(is_enough.then_some(led - rest.min(led)))
        });
        shim.set("p")?;
        handed += moved?;
        trio.agree(topic)?;
    }
    Ok(handed)
}

/// Partitions of which a node says itself that it leads them.
fn led_by(trio: &Trio, topic: &str, id: i32) -> Result<usize> {
    let own = view(&trio.address(id)?, topic)?;
    let led = (0..own.partitions()).filter(|number| own.leader(*number) == Some(id));
    Ok(led.count())
}

/// Every value is the number of its event.
fn by_rdkafka(brokers: &str, topic: &str, is_over: &AtomicBool) -> Result<usize> {
    let most = EVENTS_A_SECOND * usize::try_from(2 * LONGEST.as_secs())?;
    let timestamp_ms = now_ms();
    let events: Vec<Event> = (0..most)
        .map(|number| Event {
            timestamp_ms,
            key: None,
            value: Some(number.to_string().into_bytes()),
            headers: Vec::new(),
        })
        .collect();
    let begun = Instant::now();
    let paced = events.iter().enumerate().take_while(|(number, _)| {
        let due = Duration::from_millis(*number as u64);
        thread::sleep(due.saturating_sub(begun.elapsed()));
        !is_over.load(Ordering::Relaxed)
    });
    let spread = paced.map(|(number, event)| (Some(number % PARTITIONS), event));
    let settings = [
        ("max.in.flight.requests.per.connection", "5"),
        ("linger.ms", "0"),
        ("batch.num.messages", "4"),
    ];
    Ok(produce(brokers, topic, &settings, spread)?.len())
}

fn by_java(brokers: &str, topic: &str, _: &AtomicBool) -> Result<usize> {
    let mut command = java("Java's ProducerPerformance")?.tools();
    command
        .args([
            "org.apache.kafka.tools.ProducerPerformance",
            "--bootstrap-server",
            brokers,
        ])
        .args(["--topic", topic, "--payload-monotonic"])
        .args(["--num-records", &JAVA_EVENTS.to_string()])
        .args(["--throughput", &EVENTS_A_SECOND.to_string()])
        .args([
            "--command-property",
            "acks=all",
            "enable.idempotence=true",
            "max.in.flight.requests.per.connection=5",
            "linger.ms=0",
            // A few events, so that several batches of a partition are under way.
            "batch.size=200",
        ]);
    let said = run(&mut command, b"", 2 * LONGEST + PATIENCE)?.text();
    let all = format!("{JAVA_EVENTS} records sent");
    ensure!(said.contains(&all), "it said: {said}");
    Ok(JAVA_EVENTS)
}

/// The values of a topic are the numbers below a count, each once.
fn stored_once(brokers: &str, topic: &str, count: usize) -> Result<()> {
    let mut numbers = BTreeSet::new();
    let mut twice = Vec::new();
    for stored in Reader::new(brokers)?
        .read_all(topic, PARTITIONS)?
        .into_iter()
        .flatten()
    {
        let value = String::from_utf8(stored.event.value.unwrap_or_default())?;
        let number: usize = value.parse()?;
        if !numbers.insert(number) {
            twice.push(number);
        }
    }
    ensure!(twice.is_empty(), "{topic}: stored twice: {twice:?}");
    let lost: Vec<usize> = (0..count).filter(|n| !numbers.contains(n)).collect();
    ensure!(lost.is_empty(), "{topic}: lost: {lost:?}");
    ensure!(numbers.len() == count, "{topic}: {} values", numbers.len());
    Ok(())
}
