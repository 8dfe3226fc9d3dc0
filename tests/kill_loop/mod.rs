//! The kill loop: one node under an idempotent producer and a consumer, SIGKILL at random moments,
//! while it recovers too. Every acknowledged event must be there once, in order, at the offset
//! that was acknowledged, wherever a consumer begins, while writing goes on.
//!
//! Killing a process says nothing about what an fsync is worth, as the page cache survives it;
//! it says that no moment of the broker's life is one from which it cannot come back.

mod beside;
mod ledger;
mod run;
mod tail;
mod writer;

pub(crate) use beside::{Beside, Followed};
pub(crate) use ledger::{Ledger, PARTITIONS};
pub(crate) use run::{RANDOM_READS, Run, Take};
pub(crate) use tail::Tail;
pub(crate) use writer::Writer;

use crate::kafka::{PATIENCE, Reader};
use crate::node::{Node, foreign_brokers};
use crate::trial::{fresh_seed, note, skip, trial};
use anyhow::{Context, Result};
use libtest_mimic::Trial;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

/// Events sent in one go: some 2 MB/s in all.
const BURST: usize = 30;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![trial(
        "kill_loop::acknowledged_events_survive_sigkill",
        || {
            if foreign_brokers().is_some() {
                return Err(skip(
                    "the kill loop",
                    "the broker in RIVERRUN_TEST_BROKERS is not ours to kill",
                ));
            }
            let rounds = setting("RIVERRUN_KILL_ROUNDS").unwrap_or(20);
            let seed = setting("RIVERRUN_KILL_SEED").unwrap_or_else(fresh_seed);
            note(format_args!(
                "kill loop: {rounds} rounds, RIVERRUN_KILL_SEED={seed}"
            ));
            let mut node = Node::start()?;
            let result = kill_loop(&mut node, rounds, seed);
            node.explain(result.with_context(|| format!("RIVERRUN_KILL_SEED={seed}")))
        },
    )];
    trials.extend(ledger::trials());
    trials
}

pub(crate) fn setting<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

fn kill_loop(node: &mut Node, rounds: u32, seed: u64) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let reader = Reader::new(&node.brokers())?;
    let run = Run::begin(node.brokers(), &[node.data()], seed, reader)?;
    let writer = Writer::start(&run, BURST)?;
    let tail = Tail::start(&run)?;

    let mut ready_after = Duration::from_millis(300);
    let mut killed_recovering = 0;
    for round in 0..rounds {
        let context = || format!("in round {round}");
        run.until_progress().with_context(context)?;
        run.check_some(&mut rng).with_context(context)?;
        thread::sleep(Duration::from_millis(rng.random_range(0..500)));
        let acknowledged = run.ledger.acknowledged_in_all();
        node.kill()?;
        node.spawn()?;
        // Now and then again before it is ready, perhaps more than once.
        while rng.random_range(0..3) == 0 {
            thread::sleep(ready_after.mul_f64(rng.random_range(0.0..1.2)));
            node.kill()?;
            node.spawn()?;
            killed_recovering += 1;
        }
        ready_after = node.wait_ready().with_context(context)?;
        run.check_watermarks().with_context(|| {
            format!("after kill {round}, {acknowledged} acknowledged before it")
        })?;
        run.ledger.intact().with_context(context)?;
    }

    run.until_progress()?;
    run.check_everything(&mut rng)
        .context("after the last kill, while writing goes on")?;
    writer.finish(PATIENCE)?;
    run.ledger.intact()?;
    tail.finish()
        .context("the consumer that ran all the time")?;
    run.check_watermarks()?;
    run.check_everything(&mut rng)
        .context("after the last write")?;
    note(format_args!(
        "kill loop: {rounds} kills and {killed_recovering} more while recovering, {} events in {} segments",
        run.ledger.acknowledged_in_all(),
        run.segment_boundaries()?.len()
    ));
    Ok(())
}
