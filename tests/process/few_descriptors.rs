//! A broker that may have few files and sockets open: it says no to what it cannot carry out, and all that
//! it has said yes to can be used to the last of them.

use super::fsync::requests::Connection;
use super::node::{Node, foreign_brokers};
use super::trial::{skip, trial};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use riverrun_record::{BatchBuilder, Compression};
use riverrun_storage::descriptors::Shares;
use riverrun_wire::ErrorCode;
use riverrun_wire::api::create_partitions::CreatePartitionsTopic;
use riverrun_wire::api::create_topics::CreatableTopic;
use riverrun_wire::api::metadata::{MetadataRequestTopic, MetadataResponsePartition};
use riverrun_wire::api::{
    ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest, MetadataRequest,
};
use std::ffi::OsString;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the first life may have open, and the second one.
const LIMIT: u64 = 450;
const LOWER: u64 = 200;
/// The limit of a life is what stands in the file beside its data.
const LIMITED: &str = "ulimit -n \"$(cat \"$RIVERRUN_TEST_DIRECTORY/limit\" 2>/dev/null || echo 450)\" \
    && exec \"$@\"";
/// Kafka's code for what a cluster does not take, and that of `riverrun cluster health` where something is
/// wrong.
const POLICY_VIOLATION: i16 = ErrorCode::PolicyViolation.number();
const UNHEALTHY: i32 = 10;
const SOON: Duration = Duration::from_secs(30);

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "few_descriptors::what_cannot_be_carried_out_is_refused_and_the_rest_is_served",
        || {
            if foreign_brokers().is_some() || std::env::var_os("RIVERRUN_TEST_NODE").is_some() {
                return Err(skip("few descriptors", "the broker is not ours"));
            }
            let command = ["sh", "-c", LIMITED, "sh"];
            let command = command.iter().map(OsString::from).collect();
            let mut node = Node::start_under(command, Vec::new())?;
            let result = live(&mut node);
            node.explain(result)
        },
    )]
}

fn live(node: &mut Node) -> Result<()> {
    let broker = node.brokers();
    let shares = Shares::of(LIMIT);
    let mut client = Connection::open(&broker)?;
    client.create_topic("keep", &[])?;
    ensure!(client.produce("keep", 100)? == 0, "the first produce");

    refused(create(&mut client, "many", 400, false)?)?;
    refused(create(&mut client, "many", 400, true)?)?;
    ensure!(partitions(&mut client, "many")?.is_none(), "it is there");
    refused(grow(&mut client, "keep", 400)?)?;
    let kept = partitions(&mut client, "keep")?.context("keep is gone")?;
    ensure!(kept.len() == 1, "keep has {} partitions", kept.len());

    // What is left when group 0 and "keep" have theirs, to the last.
    let room = i32::try_from(shares.replicas)? - 2;
    refused(create(&mut client, "fits", room + 1, false)?)?;
    let (code, said) = create(&mut client, "fits", room, false)?;
    ensure!(code == 0, "{room} partitions: error {code}, {said:?}");
    refused(create(&mut client, "more", 1, false)?)?;
    write_to_all(&mut client, room)?;

    // Connections have a share of their own, and what exists goes on beside them.
    let mut others = Vec::new();
    for _ in 1..shares.connections {
        let mut other = Connection::open(&broker)?;
        other.call(&ApiVersionsRequest::default(), 3)?;
        others.push(other);
    }
    let refused = Connection::open(&broker)?.call(&ApiVersionsRequest::default(), 3);
    ensure!(refused.is_err(), "one connection more was taken");
    write_to_all(&mut client, room)?;
    others.truncate(shares.connections / 2);
    let deadline = Instant::now() + SOON;
    while Connection::open(&broker)?
        .call(&ApiVersionsRequest::default(), 3)
        .is_err()
    {
        ensure!(Instant::now() < deadline, "nobody is let in any more");
    }
    drop(others);
    let log = node.log();
    ensure!(
        !log.contains("Too many open files"),
        "it ran into its limit"
    );

    fewer(node, room)
}

/// It is started with a lower limit: it opens what it can, names the rest, and has lost nothing when it is
/// started with the former one.
fn fewer(node: &mut Node, room: i32) -> Result<()> {
    let limit = node.data().parent().context("a directory")?.join("limit");
    let open = Shares::of(LOWER).replicas - 1;
    let since = node.log().len();
    ensure!(node.stop()?.success(), "it does not end well");
    std::fs::write(&limit, LOWER.to_string())?;
    node.spawn()?;
    node.wait_ready()?;
    let mut client = Connection::open(&node.brokers())?;
    let deadline = Instant::now() + SOON;
    let offline = loop {
        let keep = partitions(&mut client, "keep")?.context("keep is gone")?;
        let fits = partitions(&mut client, "fits")?.context("fits is gone")?;
        let all = keep.iter().chain(&fits);
        let (led, other): (Vec<_>, Vec<_>) = all.partition(|p| p.leader_id >= 0);
        if led.len() == open {
            break other
                .iter()
                .filter(|p| !p.offline_replicas.is_empty())
                .count();
        }
        let led = led.len();
        ensure!(Instant::now() < deadline, "{led} are led, not {open}");
    };
    let all = usize::try_from(room)? + 1;
    ensure!(offline == all - open, "{offline} of {all} are named");
    ensure!(client.produce("keep", 100)? == 0, "an older topic");
    refused(create(&mut client, "more", 1, false)?)?;
    let health = Command::new(env!("CARGO_BIN_EXE_riverrun"))
        .args(["cluster", "health", "-b", &node.brokers()])
        .output()?;
    ensure!(health.status.code() == Some(UNHEALTHY), "{}", health.status);
    let log = node.log();
    let said = log.get(since..).unwrap_or_default();
    ensure!(said.contains("ulimit -n"), "it does not say why");
    ensure!(
        !said.contains("Too many open files"),
        "it ran into its limit"
    );

    ensure!(node.stop()?.success(), "it does not end well");
    std::fs::remove_file(&limit)?;
    node.spawn()?;
    node.wait_ready()?;
    let mut client = Connection::open(&node.brokers())?;
    write_to_all(&mut client, room)?;
    // Each partition has had two events before.
    for partition in 0..room {
        let sent = client.send_batch("fits", partition, batch()?)?;
        let offset = client.offset_within(sent, SOON)?;
        ensure!(offset == Some(3), "partition {partition}: {offset:?}");
    }
    Ok(())
}

/// A refusal that says which node, what its limit is, and what to do.
fn refused((code, said): (i16, Option<String>)) -> Result<()> {
    ensure!(code == POLICY_VIOLATION, "error {code}: {said:?}");
    let said = said.context("without a word")?;
    let names = ["node 1", "ulimit -n"]
        .iter()
        .all(|what| said.contains(what));
    ensure!(names, "it says: {said}");
    Ok(())
}

fn batch() -> Result<bytes::Bytes> {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.append(1_700_000_000_000, None, Some(b"an event"), &[])?;
    Ok(builder.build()?)
}

fn write_to_all(client: &mut Connection, partitions: i32) -> Result<()> {
    for partition in 0..partitions {
        let sent = client.send_batch("fits", partition, batch()?)?;
        let code = client.answer_within(sent, SOON)?;
        ensure!(code == Some(0), "partition {partition}: {code:?}");
    }
    Ok(())
}

fn create(
    client: &mut Connection,
    name: &str,
    partitions: i32,
    validate_only: bool,
) -> Result<(i16, Option<String>)> {
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: -1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 20_000,
        validate_only,
    };
    let answer = client.call(&request, 5)?;
    let topic = answer.topics.into_iter().next().context("no topic")?;
    Ok((topic.error_code, topic.error_message))
}

fn grow(client: &mut Connection, name: &str, count: i32) -> Result<(i16, Option<String>)> {
    let topic = CreatePartitionsTopic {
        name: name.to_owned(),
        count,
        assignments: None,
    };
    let request = CreatePartitionsRequest {
        topics: vec![topic],
        timeout_ms: 20_000,
        validate_only: false,
    };
    let answer = client.call(&request, 2)?;
    let topic = answer.results.into_iter().next().context("no topic")?;
    Ok((topic.error_code, topic.error_message))
}

/// The partitions of a topic, where it is there.
fn partitions(
    client: &mut Connection,
    name: &str,
) -> Result<Option<Vec<MetadataResponsePartition>>> {
    let asked = MetadataRequestTopic {
        name: Some(name.to_owned()),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![asked]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    let answer = client.call(&request, 12)?;
    let topic = answer.topics.into_iter().next().context("no topic")?;
    Ok((topic.error_code == 0).then_some(topic.partitions))
}
