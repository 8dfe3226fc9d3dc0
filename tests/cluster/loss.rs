//! Directories that were emptied, and old copies of them that were put back.

use super::events::{Kept, copy, refuses_produce, serves_nobody};
use super::trio::{Trio, until};
use super::view::view;
use crate::command::run;
use crate::fsync::requests::Connection;
use anyhow::{Context, Result, ensure};
use std::process::Command;
use std::time::Duration;

const PARTITIONS: usize = 3;

/// Three nodes and a topic that all of them have.
fn with_events() -> Result<(Trio, Kept)> {
    let mut trio = Trio::start()?;
    let begun = (|| {
        let mut kept = Kept::create(&trio.brokers(), PARTITIONS)?;
        kept.add(&trio.brokers(), 300)?;
        trio.in_sync(&kept.topic, 3)?;
        Ok(kept)
    })();
    let kept = trio.explain(begun)?;
    Ok((trio, kept))
}

/// A node whose disk was emptied comes back as a new replica by the controller's order, is filled,
/// and counts again.
pub(super) fn a_wiped_node_is_filled() -> Result<()> {
    let (mut trio, mut kept) = with_events()?;
    let result = filled(&mut trio, &mut kept);
    trio.explain(result)
}

fn filled(trio: &mut Trio, kept: &mut Kept) -> Result<()> {
    let before = trio.until_voters(1, &[1, 2, 3])?;
    trio.kill(2)?;
    trio.wipe(2)?;
    kept.add(&trio.brokers(), 100)?;
    trio.spawn(2)?;
    trio.wait_ready()?;
    let broker = trio.address(1)?;
    let after = until("node 2 votes with its new directory", || {
        let quorum = trio.until_voters(1, &[1, 2, 3])?;
        Ok((quorum.voter(2) != before.voter(2)).then_some(quorum))
    })?;
    ensure!(
        after.voter(1) == before.voter(1) && after.voter(3) == before.voter(3),
        "other voters were changed: {before:?}, {after:?}"
    );
    trio.in_sync(&kept.topic, 3)?;
    for partition in 0..PARTITIONS {
        ensure!(view(&broker, &kept.topic)?.replicas(partition) == [1, 2, 3]);
    }
    let orders = replaced(trio, 1)?;
    ensure!(
        orders.len() == PARTITIONS && orders.iter().all(|order| order.contains("\"node\":2")),
        "the controller's orders are {orders:?}"
    );
    // What is committed now tells every replica that the change of members is through.
    kept.add(&trio.brokers(), 50)?;
    // It has what the others had: with it alone beside one of them, everything is there.
    for id in [1, 3] {
        trio.kill(id)?;
        kept.add(&trio.brokers(), 50)
            .with_context(|| format!("without node {id}"))?;
        kept.check(&trio.brokers())
            .with_context(|| format!("without node {id}"))?;
        trio.spawn(id)?;
        trio.wait_ready()?;
        trio.in_sync(&kept.topic, 3)?;
    }
    kept.check(&trio.brokers())
}

/// The orders to replace a replica, in a node's log of group 0.
fn replaced(trio: &mut Trio, id: i32) -> Result<Vec<String>> {
    let log = trio.node(id)?.data().join("__cluster_metadata-0");
    let mut dump = Command::new(env!("CARGO_BIN_EXE_riverrun"));
    dump.args(["log", "dump"])
        .arg(log)
        .args(["--records", "--format", "json"]);
    let said = run(&mut dump, b"", Duration::from_secs(30))?.text();
    let orders = said.lines().filter(|line| line.contains("ReplaceReplica"));
    Ok(orders.map(str::to_owned).collect())
}

/// What an emptied node has once voted for and held counts for nothing: with it and one other there
/// is no majority.
pub(super) fn a_wiped_node_makes_no_majority() -> Result<()> {
    let (mut trio, kept) = with_events()?;
    let result = no_majority(&mut trio, kept);
    trio.explain(result)
}

fn no_majority(trio: &mut Trio, mut kept: Kept) -> Result<()> {
    trio.kill(1)?;
    trio.kill(2)?;
    trio.wipe(2)?;
    let said = trio.node(2)?.log().len();
    trio.spawn(2)?;
    trio.until_says(2, said, "nobody leads the controller's group")?;
    serves_nobody(&trio.address(2)?)?;
    leads_nothing(trio, 3, &kept)?;
    refuses_produce(&trio.address(3)?, &kept.topic)?;
    trio.spawn(1)?;
    trio.wait_ready()?;
    trio.in_sync(&kept.topic, 3)?;
    kept.check(&trio.brokers())?;
    kept.add(&trio.brokers(), 100)?;
    kept.check(&trio.brokers())
}

/// A node shows the topic as it is, and that nobody leads it.
fn leads_nothing(trio: &Trio, id: i32, kept: &Kept) -> Result<()> {
    let broker = trio.address(id)?;
    let shown = until(&format!("node {id} shows that nobody leads"), || {
        let shown = view(&broker, &kept.topic)?;
        let led = (0..PARTITIONS).any(|partition| shown.leader(partition).is_some());
        Ok((!led).then_some(shown))
    })?;
    ensure!(shown.partitions() == PARTITIONS, "{shown:?}");
    Ok(())
}

/// With two of three emptied there is no majority that knows anything: they wait and say for what,
/// and nobody guesses.
pub(super) fn two_wiped_nodes_are_no_cluster() -> Result<()> {
    let (mut trio, kept) = with_events()?;
    let result = two_wiped(&mut trio, &kept);
    trio.explain(result)
}

fn two_wiped(trio: &mut Trio, kept: &Kept) -> Result<()> {
    for id in trio.ids() {
        trio.kill(id)?;
    }
    for id in [2, 3] {
        trio.wipe(id)?;
    }
    // Two empty directories are not three: nothing is founded behind the back of the first.
    let first = format!("1@{}", trio.node(1)?.for_nodes());
    for id in [2, 3] {
        trio.spawn(id)?;
    }
    for id in [2, 3] {
        trio.until_says(id, 0, &format!("waiting for {first} to found"))?;
        serves_nobody(&trio.address(id)?)?;
    }
    trio.spawn(1)?;
    trio.node(1)?.wait_ready()?;
    for id in [2, 3] {
        trio.until_says(id, 0, "waiting for the cluster to take this node")?;
        trio.until_says(id, 0, "nobody leads the controller's group")?;
        serves_nobody(&trio.address(id)?)?;
    }
    leads_nothing(trio, 1, kept)?;
    let broker = trio.address(1)?;
    refuses_produce(&broker, &kept.topic)?;
    let created = Connection::open(&broker)?.create_topic("made-up", &[]);
    ensure!(created.is_err(), "a topic was created");
    leads_nothing(trio, 1, kept)?;
    for id in [2, 3] {
        serves_nobody(&trio.address(id)?)?;
    }
    Ok(())
}

/// An older copy of a data directory does not come back as the node that it once was.
pub(super) fn an_older_copy_is_refused() -> Result<()> {
    let (mut trio, mut kept) = with_events()?;
    let result = older_copy(&mut trio, &mut kept, 0);
    trio.explain(result)
}

/// Nor does one that has been started more often, while nobody heard, than the directory was.
pub(super) fn a_copy_that_catches_up_is_refused() -> Result<()> {
    let (mut trio, mut kept) = with_events()?;
    let result = older_copy(&mut trio, &mut kept, 2);
    trio.explain(result)
}

/// `unheard` starts of the copy are ended before the others are there.
fn older_copy(trio: &mut Trio, kept: &mut Kept, unheard: usize) -> Result<()> {
    trio.kill(2)?;
    let data = trio.node(2)?.data();
    let (old, aside) = (data.with_extension("old"), data.with_extension("aside"));
    copy(&data, &old)?;
    trio.spawn(2)?;
    trio.wait_ready()?;
    kept.add(&trio.brokers(), 100)?;
    trio.in_sync(&kept.topic, 3)?;
    trio.kill(2)?;
    std::fs::rename(&data, &aside)?;
    std::fs::rename(&old, &data)?;
    if unheard > 0 {
        trio.kill(1)?;
        trio.kill(3)?;
        for _ in 0..unheard {
            trio.spawn(2)?;
            trio.wait_ready()?;
            trio.kill(2)?;
        }
        trio.spawn(1)?;
        trio.spawn(3)?;
        trio.wait_ready()?;
    }
    let said = trio.node(2)?.log().len();
    trio.spawn(2)?;
    let status = until("the node with the older copy stops", || {
        trio.node(2)?.ended()
    })?;
    ensure!(!status.success(), "it ended with {status}");
    let log = trio.node(2)?.log();
    let new = log.get(said..).unwrap_or_default();
    ensure!(
        new.contains("copy of an older one"),
        "it does not say what is wrong"
    );
    kept.check(&trio.brokers())?;
    // What it was before serves on.
    std::fs::rename(&data, &old)?;
    std::fs::rename(&aside, &data)?;
    trio.spawn(2)?;
    trio.wait_ready()?;
    trio.in_sync(&kept.topic, 3)?;
    kept.add(&trio.brokers(), 100)?;
    kept.check(&trio.brokers())
}

/// A node that cannot tell who it is says no word and names the file; set aside by its operator, it joins
/// anew and is filled, and what it had lies there still.
pub(super) fn an_identity_is_damaged() -> Result<()> {
    let (mut trio, mut kept) = with_events()?;
    let result = set_aside(&mut trio, &mut kept);
    trio.explain(result)
}

fn set_aside(trio: &mut Trio, kept: &mut Kept) -> Result<()> {
    trio.kill(3)?;
    let data = trio.node(3)?.data();
    let identity = data.join("node/identity");
    let mut bytes = std::fs::read(&identity)?;
    // It is there twice: one bit of each is enough.
    bytes.iter_mut().for_each(|byte| *byte ^= 1);
    std::fs::write(&identity, &bytes)?;
    trio.spawn(3)?;
    let ended = trio.node(3)?.wait_end()?;
    let said = trio.node(3)?.log();
    ensure!(!ended.success(), "it started: {said}");
    ensure!(
        said.contains(&identity.display().to_string()) && said.contains("byte"),
        "{said}"
    );
    let retire = |more: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_riverrun"));
        command.args(["node", "set-aside", more]).arg(&data);
        run(&mut command, b"", Duration::from_secs(30))
    };
    retire("--dry-run")?;
    ensure!(std::fs::read(&identity)? == bytes, "a look moves nothing");
    retire("--yes")?;
    ensure!(std::fs::read(data.join("set-aside-1/node/identity"))? == bytes);
    trio.spawn(3)?;
    trio.wait_ready()?;
    trio.in_sync(&kept.topic, 3)?;
    kept.add(&trio.brokers(), 50)?;
    trio.kill(1)?;
    kept.add(&trio.brokers(), 50)?;
    kept.check(&trio.brokers())
}
