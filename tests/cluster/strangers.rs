//! Nodes that are not of the cluster, and are not let in.

use super::events::{Kept, copy, serves_nobody};
use super::trio::{Trio, until};
use crate::kafka::create_topic;
use anyhow::{Context, Result, ensure};

/// A node with the number of one that lives is not let in, and takes nothing from it.
pub(super) fn a_number_is_given_once() -> Result<()> {
    let mut trio = Trio::prepare(4, |_| Vec::new())?;
    let result = same_number(&mut trio);
    trio.explain(result)
}

fn same_number(trio: &mut Trio) -> Result<()> {
    let first = trio.node(1)?.for_nodes();
    trio.spawn(1)?;
    trio.wait_ready()?;
    for id in [2, 3] {
        trio.configure(id, [format!("controller.quorum.bootstrap.servers={first}")])?;
        trio.spawn(id)?;
    }
    trio.wait_ready()?;
    let before = trio.until_voters(1, &[1, 2, 3])?;
    let mut kept = Kept::create(&trio.brokers(), 3)?;
    kept.add(&trio.brokers(), 100)?;
    trio.in_sync(&kept.topic, 3)?;
    // Node 4 comes as a second node 2.
    let settings = [
        format!("controller.quorum.bootstrap.servers={first}"),
        "node.id=2".to_owned(),
    ];
    trio.node(4)?.set(settings);
    trio.spawn(4)?;
    until("the second node 2 is refused and says so", || {
        let node = trio.node(4)?;
        let said = node.log().contains("node.id 2");
        let ended = node.ended()?;
        ensure!(
            ended.is_none_or(|status| !status.success()),
            "it ended as if all were well"
        );
        Ok((said || ended.is_some()).then_some(()))
    })?;
    ensure!(
        trio.node(4)?.log().contains("node.id 2"),
        "it does not say what is wrong"
    );
    serves_nobody(&trio.address(4)?)?;
    ensure!(
        trio.until_voters(1, &[1, 2, 3])? == before,
        "the node that was there was replaced"
    );
    if trio.started().contains(&4) {
        trio.kill(4)?;
    }
    // The first node 2 is what it was.
    trio.until_voters(2, &[1, 2, 3])?;
    kept.add(&trio.brokers(), 100)?;
    trio.in_sync(&kept.topic, 3)?;
    kept.check(&trio.brokers())
}

/// A directory of another cluster does not make its node one of this cluster.
pub(super) fn another_clusters_directory_is_refused() -> Result<()> {
    let mut others = Trio::prepare(2, |_| Vec::new())?;
    let mut trio = match Trio::start() {
        Ok(trio) => trio,
        Err(error) => return others.explain(Err(error)),
    };
    let result = foreign(&mut trio, &mut others);
    let result = others.explain(result);
    trio.explain(result)
}

fn foreign(trio: &mut Trio, others: &mut Trio) -> Result<()> {
    let mut kept = Kept::create(&trio.brokers(), 3)?;
    kept.add(&trio.brokers(), 100)?;
    trio.in_sync(&kept.topic, 3)?;
    // A node 2 of another cluster, which was founded alone.
    others.spawn(2)?;
    others.wait_ready()?;
    let theirs = Kept::create(&others.address(2)?, 1)?;
    others.kill(2)?;
    trio.kill(2)?;
    let (own, aside) = (
        trio.node(2)?.data(),
        trio.node(2)?.data().with_extension("own"),
    );
    std::fs::rename(&own, &aside)?;
    copy(&others.node(2)?.data(), &own)?;
    let said = trio.node(2)?.log().len();
    trio.spawn(2)?;
    until(
        "node 2 ends, since its directory is of another cluster",
        || trio.node(2)?.ended(),
    )?;
    let log = trio.node(2)?.log();
    let new = log.get(said..).unwrap_or_default();
    ensure!(
        new.contains("another cluster"),
        "it does not say that it is of another cluster"
    );
    // It was no help to the others, and has told nobody of its topics.
    kept.add(&trio.brokers(), 50)?;
    for id in [1, 3] {
        let shown = super::view::metadata(&trio.address(id)?, &[&theirs.topic])?;
        let topic = shown.topics.first().context("no topic")?;
        ensure!(
            topic.error_code != 0,
            "node {id} shows a topic of the other"
        );
    }
    // With its own directory it is one of them again.
    std::fs::remove_dir_all(&own)?;
    std::fs::rename(&aside, &own)?;
    trio.spawn(2)?;
    trio.wait_ready()?;
    trio.in_sync(&kept.topic, 3)?;
    create_topic(&trio.address(2)?, &format!("{}-2", kept.topic), 1, &[])?;
    kept.check(&trio.brokers())
}
