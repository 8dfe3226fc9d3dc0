//! How nodes come to a cluster: together, and by joining.

use super::events::{Kept, serves_nobody};
use super::trio::{Trio, until};
use anyhow::{Context, Result, ensure};

/// A cluster of one grows by joins until the first node can be done without.
pub(super) fn one_grows_to_three() -> Result<()> {
    let mut trio = Trio::prepare(3, |_| Vec::new())?;
    let result = grow(&mut trio);
    trio.explain(result)
}

fn grow(trio: &mut Trio) -> Result<()> {
    trio.spawn(1)?;
    trio.wait_ready()?;
    let mut alone = Kept::create(&trio.address(1)?, 2)?;
    alone.add(&trio.address(1)?, 100)?;
    let first = trio.node(1)?.for_nodes();
    for id in [2, 3] {
        let bootstrap = format!("controller.quorum.bootstrap.servers={first}");
        trio.configure(id, [bootstrap])?;
        trio.spawn(id)?;
        trio.wait_ready()?;
    }
    trio.until_voters(1, &[1, 2, 3])?;
    alone.check(&trio.brokers())?;
    let mut kept = Kept::create(&trio.brokers(), 3)?;
    kept.add(&trio.brokers(), 100)?;
    trio.in_sync(&kept.topic, 3)?;

    trio.kill(1)?;
    kept.add(&trio.brokers(), 100)
        .context("after the first node is gone")?;
    kept.check(&trio.brokers())?;
    let mut late = Kept::create(&trio.brokers(), 3).context("a topic without the first node")?;
    late.add(&trio.brokers(), 100)?;
    late.check(&trio.brokers())?;
    // And each of the two comes back without it.
    for id in [2, 3] {
        trio.kill(id)?;
        trio.spawn(id)?;
        trio.wait_ready()?;
        late.add(&trio.brokers(), 30)
            .with_context(|| format!("after node {id} came back"))?;
    }
    late.check(&trio.brokers())?;
    kept.check(&trio.brokers())
}

/// Nodes that were told of different founders found nothing, and say both lines.
pub(super) fn different_voters_found_nothing() -> Result<()> {
    let mut trio = Trio::prepare(3, |_| Vec::new())?;
    let result = differ(&mut trio);
    trio.explain(result)
}

fn differ(trio: &mut Trio) -> Result<()> {
    let all = trio.voters();
    let (two, _) = all.rsplit_once(',').context("three voters")?;
    for (id, line) in [(1, two), (2, &all)] {
        trio.configure(id, [format!("controller.quorum.voters={line}")])?;
        trio.spawn(id)?;
    }
    // Whoever is first to hear of it ends; the other one may then wait for it.
    let (ended, status) = until("a node refuses the other one's voters", || {
        for id in trio.started() {
            if let Some(status) = trio.node(id)?.ended()? {
                return Ok(Some((id, status)));
            }
        }
        Ok(None)
    })?;
    ensure!(!status.success(), "node {ended} ended with {status}");
    let log = trio.node(ended)?.log();
    let other = format!("controller.quorum.voters is {all}");
    let both = log.contains(two) && log.contains(&all);
    ensure!(both, "node {ended} says neither {two} nor {other}");
    for id in trio.started() {
        serves_nobody(&trio.address(id)?)?;
    }
    Ok(())
}
