//! Clients that nobody here wrote, and real data, on three nodes with replication 3: before, during
//! and after SIGKILL of each node in turn.

use super::trio::Trio;
use crate::clients::{Body, RECORDS_BY, java};
use crate::real_input;
use crate::trial::{fresh_seed, note, trial};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::thread;
use std::time::Instant;

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial(
            "cluster::clients::real_input_comes_back_whatever_node_is_killed",
            real_input_comes_back,
        ),
        trial("cluster::clients::java_administers_topics", || {
            let mut trio = Trio::start()?;
            let result = java::records(&trio.brokers());
            trio.explain(result)
        }),
    ];
    trials.extend(RECORDS_BY.map(|(name, body)| {
        let named = format!("cluster::clients::{name}_while_each_node_is_killed");
        trial(named, move || each_node_is_killed(name, body))
    }));
    trials
}

/// The client does all that it does on one node, produces and joins at the start, a middle offset, a
/// timestamp and the end: with all nodes, with each killed on the way and away to the end, and with
/// all of them back.
fn each_node_is_killed(name: &str, body: Body) -> Result<()> {
    let seed = fresh_seed();
    let mut trio = Trio::start()?;
    let result = killed_in_turn(&mut trio, seed, body);
    trio.explain(result.with_context(|| format!("{name}, seed {seed}")))
}

fn killed_in_turn(trio: &mut Trio, seed: u64, body: Body) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let brokers = trio.brokers();
    let begun = Instant::now();
    body(&brokers).context("before any kill")?;
    let takes = begun.elapsed();
    for id in trio.ids() {
        let asked = brokers.clone();
        let running = thread::spawn(move || body(&asked));
        thread::sleep(takes.mul_f64(rng.random_range(0.0..0.8)));
        trio.kill(id)?;
        let finished = running.join().unwrap();
        finished.with_context(|| format!("while node {id} is killed"))?;
        trio.spawn(id)?;
        trio.wait_ready()?;
    }
    body(&brokers).context("after every node was killed")
}

fn real_input_comes_back() -> Result<()> {
    let sets = real_input::sets()?;
    let mut trio = Trio::start()?;
    let result = comes_back(&mut trio, sets);
    trio.explain(result)
}

fn comes_back(trio: &mut Trio, mut sets: Vec<real_input::Set>) -> Result<()> {
    let brokers = trio.brokers();
    let mut largest = sets.pop().context("no data sets")?;
    for set in &mut sets {
        set.produce(&brokers)?;
        set.check(&brokers).context("before any kill")?;
    }
    // The largest is being produced while the nodes are killed.
    let asked = brokers.clone();
    let producing = thread::spawn(move || {
        largest.produce(&asked)?;
        anyhow::Ok(largest)
    });
    let mut kills = 0;
    for id in trio.ids() {
        trio.kill(id)?;
        kills += 1;
        for set in &mut sets {
            set.check(&brokers)
                .with_context(|| format!("while node {id} is down"))?;
        }
        trio.spawn(id)?;
        trio.wait_ready()?;
        for set in &mut sets {
            set.check(&brokers)
                .with_context(|| format!("after node {id} came back"))?;
        }
    }
    ensure!(kills == 3, "{kills} kills");
    sets.push(
        producing
            .join()
            .unwrap()
            .context("while nodes were killed")?,
    );
    for set in &mut sets {
        set.check(&brokers).context("after every node was killed")?;
    }
    note(format_args!(
        "real input on three nodes: read back after {kills} kills"
    ));
    Ok(())
}
