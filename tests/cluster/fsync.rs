//! fsync across nodes: an acks=all stands on the disks of a majority, and no single disk stands in
//! its way.

use super::trio::{Trio, until};
use crate::fsync::requests::{Connection, Sent};
use crate::fsync::{ABSENCE, Shim};
use crate::kafka::{PATIENCE, create_topic, unique};
use crate::trial::note;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// Small enough for the write-ahead log, and too large for it.
const SIZES: [usize; 2] = [100, 400_000];
/// Twice the longest time after which a follower of a silent leader stands for election.
const TWO_ELECTION_TIMEOUTS: Duration = Duration::from_secs(2);
/// How often it is measured: others have the processor too.
const ATTEMPTS: usize = 3;
const SUCCESS: i16 = 0;

/// Three nodes with a shim each, and two topics of one partition.
struct Shimmed {
    trio: Trio,
    shims: Vec<Shim>,
    topic: String,
    /// One that opted out of waiting for disks.
    cached: String,
}

impl Shimmed {
    fn start() -> Result<Shimmed> {
        let shims = (0..3).map(|_| Shim::new()).collect::<Result<Vec<_>>>()?;
        let mut environments = shims.iter().map(Shim::environment);
        let trio = Trio::start_with(|_| environments.next().unwrap_or_default())?;
        let mut shimmed = Shimmed {
            trio,
            shims,
            topic: unique("held"),
            cached: unique("cached"),
        };
        let begun = shimmed.begin();
        shimmed.trio.explain(begun)?;
        Ok(shimmed)
    }

    fn begin(&mut self) -> Result<()> {
        let brokers = self.trio.brokers();
        create_topic(&brokers, &self.topic, 1, &[])?;
        create_topic(&brokers, &self.cached, 1, &[("write.caching", "true")])?;
        self.trio.in_sync(&self.topic, 3)?;
        self.trio.in_sync(&self.cached, 3)?;
        ensure!(self.produce()? == SUCCESS, "the first produce");
        Ok(())
    }

    /// Runs a body and lets go of every disk, so that the nodes can end.
    fn run(mut self, body: impl FnOnce(&mut Shimmed) -> Result<()>) -> Result<()> {
        let result = body(&mut self);
        self.set(&[1, 2, 3], "p")?;
        self.trio.explain(result)
    }

    fn set(&self, nodes: &[i32], mode: &str) -> Result<()> {
        for id in nodes {
            let shim = self.shims.get(usize::try_from(id - 1)?);
            shim.context("no such node")?.set(mode)?;
        }
        Ok(())
    }

    /// The leader, and the others.
    fn roles(&self) -> Result<(i32, Vec<i32>)> {
        let leader = self.trio.leader(&self.topic, 0)?;
        let mut others = self.trio.ids();
        others.retain(|id| *id != leader);
        Ok((leader, others))
    }

    fn send(&self, leader: i32, bytes: usize) -> Result<(Connection, Sent)> {
        self.send_to(&self.topic, leader, bytes)
    }

    fn send_to(&self, topic: &str, leader: i32, bytes: usize) -> Result<(Connection, Sent)> {
        let mut connection = Connection::open(&self.trio.address(leader)?)?;
        let sent = connection.send_produce(topic, bytes)?;
        Ok((connection, sent))
    }

    /// One produce to whoever leads: the error code.
    fn produce(&self) -> Result<i16> {
        let (leader, _) = self.roles()?;
        let (mut connection, sent) = self.send(leader, SIZES[0])?;
        let answer = connection.answer_within(sent, PATIENCE)?;
        answer.context("no answer to a produce")
    }

    /// Produces to one node after the other until one acknowledges; how long that took.
    fn until_acknowledged(&self) -> Result<Duration> {
        self.until_acknowledged_in(&self.topic)
    }

    fn until_acknowledged_in(&self, topic: &str) -> Result<Duration> {
        let begun = Instant::now();
        let nodes = self.trio.started();
        until("a produce is acknowledged", || {
            for id in &nodes {
                let Ok((mut connection, sent)) = self.send_to(topic, *id, SIZES[0]) else {
                    continue;
                };
                let soon = Duration::from_millis(100);
                if matches!(connection.answer_within(sent, soon), Ok(Some(SUCCESS))) {
                    return Ok(Some(begun.elapsed()));
                }
            }
            Ok(None)
        })
    }
}

/// With the disks of two of three blocked, nothing is acknowledged, whoever leads.
pub(super) fn two_blocked_disks_hold_every_acknowledgement() -> Result<()> {
    Shimmed::start()?.run(|shimmed| {
        for bytes in SIZES {
            for leader_too in [false, true] {
                let what = || format!("{bytes} bytes, the leader's disk blocked: {leader_too}");
                held(shimmed, bytes, leader_too).with_context(what)?;
            }
        }
        Ok(())
    })
}

fn held(shimmed: &mut Shimmed, bytes: usize, leader_too: bool) -> Result<()> {
    shimmed.trio.in_sync(&shimmed.topic, 3)?;
    let (leader, others) = shimmed.roles()?;
    let blocked = if leader_too {
        [leader, others[0]]
    } else {
        [others[0], others[1]]
    };
    shimmed.set(&blocked, "b")?;
    let (mut connection, sent) = shimmed.send(leader, bytes)?;
    // The nodes and their links are well: who does not wait for disks is answered.
    shimmed
        .until_acknowledged_in(&shimmed.cached)
        .context("write.caching=true does not wait for the disk")?;
    let answer = connection.answer_within(sent, ABSENCE)?;
    ensure!(
        answer != Some(SUCCESS),
        "I5: acks=all was answered while the disks of two of three were blocked"
    );
    shimmed.set(&blocked, "p")?;
    // Leadership may have changed meanwhile: then the answer says so.
    if answer.is_none() {
        let answer = connection.answer_within(sent, PATIENCE)?;
        ensure!(answer.is_some(), "no answer though the disks are let go");
    }
    shimmed.until_acknowledged()?;
    Ok(())
}

/// One blocked disk holds nobody for long, not even where its node leads (W10).
pub(super) fn one_blocked_disk_holds_nothing() -> Result<()> {
    Shimmed::start()?.run(|shimmed| {
        for bytes in SIZES {
            shimmed.trio.in_sync(&shimmed.topic, 3)?;
            let (leader, others) = shimmed.roles()?;
            shimmed.set(&others[..1], "b")?;
            let (mut connection, sent) = shimmed.send(leader, bytes)?;
            let answer = connection.answer_within(sent, TWO_ELECTION_TIMEOUTS)?;
            shimmed.set(&others, "p")?;
            ensure!(
                answer == Some(SUCCESS),
                "a follower's disk is blocked, and {bytes} bytes were answered with {answer:?}"
            );
        }
        let mut shortest = Duration::MAX;
        for _ in 0..ATTEMPTS {
            shimmed.trio.in_sync(&shimmed.topic, 3)?;
            let (leader, _) = shimmed.roles()?;
            shimmed.set(&[leader], "b")?;
            let took = shimmed.until_acknowledged();
            shimmed.set(&[leader], "p")?;
            shortest = shortest.min(took.context("the leader's disk is blocked")?);
        }
        note(format_args!(
            "fsync across nodes: acknowledged {} ms after the leader's disk was blocked",
            shortest.as_millis()
        ));
        ensure!(
            shortest < TWO_ELECTION_TIMEOUTS,
            "W10: an acknowledgement took {shortest:?} at best with the leader's disk blocked"
        );
        Ok(())
    })
}

/// With failing disks on two of three nothing is acknowledged any more.
pub(super) fn two_failed_disks_hold_every_acknowledgement() -> Result<()> {
    Shimmed::start()?.run(|shimmed| {
        let (leader, others) = shimmed.roles()?;
        shimmed.set(&others, "f")?;
        let (mut connection, sent) = shimmed.send(leader, SIZES[0])?;
        // Its node ends when the write-ahead log cannot be synced.
        for id in others {
            let status = shimmed.trio.node(id)?.wait_end()?;
            ensure!(!status.success(), "node {id} ended with {status}");
        }
        let answer = connection.answer_within(sent, 3 * ABSENCE)?;
        ensure!(
            answer != Some(SUCCESS),
            "I10: acks=all was answered though the disks of two of three failed"
        );
        let (mut connection, sent) = shimmed.send(leader, SIZES[0])?;
        let answer = connection.answer_within(sent, 3 * ABSENCE)?;
        ensure!(
            answer != Some(SUCCESS),
            "I10: acks=all was answered by one of three"
        );
        Ok(())
    })
}

/// A failed disk on one node is no more than the loss of that node, where it led too.
pub(super) fn one_failed_disk_holds_nothing() -> Result<()> {
    Shimmed::start()?.run(|shimmed| {
        for is_leader in [false, true] {
            shimmed.trio.in_sync(&shimmed.topic, 3)?;
            let (leader, others) = shimmed.roles()?;
            let failing = if is_leader { leader } else { others[0] };
            shimmed.set(&[failing], "f")?;
            let (connection, sent) = shimmed.send(leader, SIZES[0])?;
            shimmed
                .until_acknowledged()
                .with_context(|| format!("the disk of node {failing} fails, {leader} led"))?;
            let status = shimmed.trio.node(failing)?.wait_end()?;
            ensure!(!status.success(), "node {failing} ended with {status}");
            drop((connection, sent));
            shimmed.set(&[failing], "p")?;
            shimmed.trio.spawn(failing)?;
            shimmed.trio.wait_ready()?;
        }
        Ok(())
    })
}
