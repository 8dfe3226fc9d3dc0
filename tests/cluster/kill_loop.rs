//! Kill loops on three real nodes, with replication 3: two topics, one under librdkafka and one
//! under our own client, each with an idempotent producer and a consumer that run all the time.

use super::ours::{OurReader, OurTail, OurWriter};
use super::trio::{Trio, until};
use super::view::{controller, view};
use crate::kafka::{PATIENCE, Reader};
use crate::kill_loop::{PARTITIONS, RANDOM_READS, Run, Tail, Writer, setting};
use crate::trial::{fresh_seed, note};
use anyhow::{Context, Result, ensure};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::thread;
use std::time::{Duration, Instant};

/// Events sent in one go, of each topic: some 0.4 MB/s.
const BURST: usize = 6;

/// What is done to the cluster in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// One node, and the others go on meanwhile.
    One,
    /// The node that leads group 0 together with one that leads a partition.
    Leaders,
    /// Every node at once.
    All,
    /// One node, and then again while it recovers.
    Recovering,
}

const BLOWS: [Blow; 4] = [Blow::One, Blow::Leaders, Blow::All, Blow::Recovering];

pub(super) fn acknowledged_events_survive() -> Result<()> {
    let rounds: usize = setting("RIVERRUN_CLUSTER_KILL_ROUNDS").unwrap_or(20);
    let seed = setting("RIVERRUN_CLUSTER_KILL_SEED").unwrap_or_else(fresh_seed);
    note(format_args!(
        "kill loop on three nodes: {rounds} rounds, RIVERRUN_CLUSTER_KILL_SEED={seed}"
    ));
    let mut trio = Trio::start()?;
    let result = Loop::begin(&trio, seed).and_then(|run| run.rounds(&mut trio, rounds));
    trio.explain(result.with_context(|| format!("RIVERRUN_CLUSTER_KILL_SEED={seed}")))
}

/// Everything that goes on beside the killing.
struct Loop {
    rng: ChaCha8Rng,
    /// By librdkafka, and by our client.
    runs: [Run; 2],
    writers: (Writer, OurWriter),
    tails: (Tail, OurTail),
}

impl Loop {
    fn begin(trio: &Trio, seed: u64) -> Result<Loop> {
        let (brokers, data) = (trio.brokers(), trio.data());
        let theirs = Run::begin(brokers.clone(), &data, seed, Reader::new(&brokers)?)?;
        let ours = OurReader::new(&brokers)?;
        let ours = Run::begin(brokers, &data, seed ^ 1, ours)?;
        Ok(Loop {
            rng: ChaCha8Rng::seed_from_u64(seed),
            writers: (
                Writer::start(&theirs, BURST)?,
                OurWriter::start(&ours, BURST),
            ),
            tails: (Tail::start(&theirs)?, OurTail::start(&ours)),
            runs: [theirs, ours],
        })
    }

    fn rounds(mut self, trio: &mut Trio, rounds: usize) -> Result<()> {
        let begun = Instant::now();
        let mut order = Vec::new();
        for round in 0..rounds {
            if order.is_empty() {
                order.extend(BLOWS);
                order.shuffle(&mut self.rng);
            }
            let blow = order.pop().unwrap_or(Blow::One);
            let context = || format!("in round {round}, {blow:?}");
            self.until_progress().with_context(context)?;
            thread::sleep(Duration::from_millis(self.rng.random_range(0..300)));
            self.strike(trio, blow).with_context(context)?;
            trio.wait_ready().with_context(context)?;
            self.until_progress().with_context(context)?;
            self.check(round).with_context(context)?;
        }
        self.until_progress()?;
        let context = "after the last kill, while writing goes on";
        for run in &self.runs {
            run.check_everything(&mut self.rng).context(context)?;
        }
        self.finish(begun.elapsed(), rounds)
    }

    fn strike(&mut self, trio: &mut Trio, blow: Blow) -> Result<()> {
        let rng = &mut self.rng;
        let ids = trio.ids();
        let one = ids[rng.random_range(0..ids.len())];
        match blow {
            Blow::One => {
                trio.kill(one)?;
                self.until_progress()
                    .with_context(|| format!("while node {one} is down"))?;
                trio.spawn(one)
            }
            Blow::Recovering => {
                trio.kill(one)?;
                trio.spawn(one)?;
                thread::sleep(Duration::from_millis(self.rng.random_range(0..300)));
                trio.kill(one)?;
                trio.spawn(one)
            }
            Blow::All => {
                for id in &ids {
                    trio.kill(*id)?;
                }
                ids.into_iter().try_for_each(|id| trio.spawn(id))
            }
            Blow::Leaders => {
                let controller = trio.controller()?;
                let mut others = Vec::new();
                for run in &self.runs {
                    others.extend(trio.agree(&run.topic)?.leaders());
                }
                others.retain(|(leader, _)| *leader != controller);
                let mut leaders = vec![controller];
                // It may be that one node leads everything.
                if !others.is_empty() {
                    leaders.push(others[rng.random_range(0..others.len())].0);
                }
                for leader in &leaders {
                    trio.kill(*leader)?;
                }
                self.is_answered(trio, &leaders)
                    .with_context(|| format!("while {leaders:?} are down"))?;
                leaders.into_iter().try_for_each(|id| trio.spawn(id))
            }
        }
    }

    /// Whoever is left says of all partitions where they are, and names no leader that is gone; and
    /// where a majority is left, the new leaders.
    fn is_answered(&self, trio: &Trio, killed: &[i32]) -> Result<()> {
        let left = trio.started();
        for id in &left {
            let broker = trio.address(*id)?;
            until(
                &format!("node {id} names no controller that was killed"),
                || Ok((!killed.contains(&controller(&broker)?)).then_some(())),
            )?;
        }
        for run in &self.runs {
            for id in &left {
                let broker = trio.address(*id)?;
                let shown = until(
                    &format!("node {id} names no leader that was killed"),
                    || {
                        let shown = view(&broker, &run.topic)?;
                        Ok((!shown.names_any(killed)).then_some(shown))
                    },
                )?;
                ensure!(shown.partitions() == PARTITIONS, "{shown:?}");
                for partition in 0..PARTITIONS {
                    let replicas = shown.replicas(partition);
                    ensure!(replicas == trio.ids(), "{partition} is on {replicas:?}");
                }
            }
            if left.len() > 1 {
                trio.agree(&run.topic)?;
            }
        }
        Ok(())
    }

    fn until_progress(&self) -> Result<()> {
        self.runs.iter().try_for_each(Run::until_progress)
    }

    /// What was acknowledged is there; all of it is read of the one topic and of the other in turn.
    fn check(&mut self, round: usize) -> Result<()> {
        for (number, run) in self.runs.iter().enumerate() {
            run.ledger.intact()?;
            run.check_watermarks()?;
            if number == round % 2 {
                run.check_places(&mut self.rng, RANDOM_READS)?;
                run.check_all()?;
            } else {
                run.check_some(&mut self.rng)?;
            }
        }
        Ok(())
    }

    fn finish(mut self, took: Duration, rounds: usize) -> Result<()> {
        let (theirs, ours) = self.writers;
        theirs.finish(PATIENCE)?;
        ours.finish()?;
        let (theirs, ours) = self.tails;
        theirs.finish().context("librdkafka's consumer")?;
        ours.finish().context("our consumer")?;
        let mut events = 0;
        let mut segments = 0;
        for run in &self.runs {
            run.ledger.intact()?;
            run.check_watermarks()?;
            run.check_everything(&mut self.rng)
                .context("after the last write")?;
            events += run.ledger.acknowledged_in_all();
            segments += run.segment_boundaries()?.len();
        }
        note(format_args!(
            "kill loop on three nodes: {rounds} rounds in {} s, {events} events in {segments} segments",
            took.as_secs()
        ));
        Ok(())
    }
}
