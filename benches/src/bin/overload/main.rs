//! What a cluster does when it is offered far more than it can take.
//!
//! ```text
//! cargo build --release && cargo run --release -p riverrun-benches --bin overload
//! ```
//! Starts one node, or three, on a temporary directory. First more and more producers, each with five
//! requests in flight, show how many of them it takes most from, and those run for as long as the
//! overload will: what a disk and its cache take for a few seconds says little about a minute. Then
//! `--producers` together offer many times that, each its share of it by a clock and not by what is
//! answered, while a small client writes a record ten times a second and reads it. It fails where a node
//! dies, a request is answered with an error, memory passes the budget of requests by more than a
//! tenth, less than 90 % of the best is acknowledged, or the small client is not as quick as before
//! within five seconds of the end.

#![allow(
    clippy::disallowed_methods,
    reason = "it measures real processes in real time"
)]

mod broker;
mod node;
mod producer;
mod small;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use crate::node::Cluster;
use crate::producer::{Load, Taken};
use crate::small::Small;

/// Offers a cluster more than it can take, and measures what it does.
#[derive(Debug, Parser)]
struct Options {
    /// The program to be measured.
    #[arg(long, default_value = "target/release/riverrun")]
    program: PathBuf,
    /// Nodes, and replicas of each partition.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Producers that overload it.
    #[arg(long, default_value_t = 64)]
    producers: usize,
    /// How many times the best they offer.
    #[arg(long, default_value_t = 10.0)]
    times: f64,
    /// For how long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seconds of each step on the way to the best.
    #[arg(long, default_value_t = 5)]
    step_seconds: u64,
    /// Bytes of a batch, of records of 1 KiB; the default is that of Kafka's producers.
    #[arg(long, default_value_t = 16 << 10)]
    batch_bytes: usize,
    /// Partitions that are written to.
    #[arg(long, default_value_t = 6)]
    partitions: usize,
    /// Requests that a producer has in flight; more are not written. 0: as many as the socket takes.
    #[arg(long, default_value_t = 5)]
    in_flight: usize,
    /// A directory for the nodes' logs.
    #[arg(long)]
    logs: Option<PathBuf>,
    /// `queued.max.request.bytes` of each node.
    #[arg(long, default_value_t = 160 << 20)]
    budget_bytes: u64,
}

const IN_FLIGHT: usize = 5;
const STEPS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// How long the small client is alone, before the others begin.
const ALONE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match measure(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn say(line: &str) {
    println!("{line}");
}

fn measure(options: &Options) -> Result<bool> {
    let mut cluster = Cluster::start(options)?;
    let brokers = cluster.brokers();
    broker::create_topic(&brokers, "small", 1, options.nodes)?;
    let idle = cluster.memory()?;

    let closed = |producers, seconds| Load {
        producers,
        in_flight: IN_FLIGHT,
        bytes_per_s: None,
        seconds,
        batch_bytes: options.batch_bytes,
        partitions: options.partitions,
    };
    let (mut best, mut most_from) = (0.0, 1);
    for producers in STEPS {
        let load = closed(producers, options.step_seconds);
        let taken = run(&brokers, options.nodes, &load, &format!("step-{producers}"))?;
        say(&format!("{producers:>3} producers  {taken}"));
        if taken.mb_per_s() > best {
            (best, most_from) = (taken.mb_per_s(), producers);
        }
    }
    let load = closed(most_from, options.seconds);
    let best = run(&brokers, options.nodes, &load, "best")?;
    say(&format!("best: {most_from:>3}      {best}"));

    let small = Small::start(&brokers)?;
    std::thread::sleep(ALONE);
    let alone = small.times();
    cluster.watch_memory();
    let load = Load {
        producers: options.producers,
        in_flight: options.in_flight,
        bytes_per_s: Some(best.mb_per_s() * 1e6 * options.times),
        ..closed(options.producers, options.seconds)
    };
    let over = run(&brokers, options.nodes, &load, "over")?;
    let beside = small.times();
    let most = cluster.most_memory()?;
    let again = small.until_as_quick_as(&alone, Duration::from_secs(60))?;
    let moves = small.moves();
    small.stop()?;
    let alive = cluster.stop();

    say(&format!("overload       {over}"));
    say(&format!("small client   alone {alone}; beside {beside}"));
    say(&format!(
        "               told {moves} times that another node leads"
    ));
    let mut holds = true;
    let mut judge = |what: &str, seen: String, limit: String, good: bool| {
        holds &= good;
        let verdict = if good { "holds" } else { "BROKEN" };
        say(&format!("{what:<44} {seen:>12} {limit:>14}  {verdict}"));
    };
    let share = over.mb_per_s() / best.mb_per_s();
    judge(
        "acknowledged, of the best",
        format!("{:.0} %", share * 100.0),
        "at least 90 %".to_owned(),
        share >= 0.9,
    );
    let limit = idle + options.budget_bytes + options.budget_bytes / 10;
    judge(
        "memory of a node (anonymous), MiB",
        format!("{}", most >> 20),
        format!("at most {}", limit >> 20),
        most <= limit,
    );
    judge(
        "requests answered with an error, or never",
        format!("{}", over.errors),
        "none".to_owned(),
        over.errors == 0,
    );
    judge(
        "answers to the small client meanwhile",
        format!("{}", beside.count()),
        "some".to_owned(),
        beside.count() > 0,
    );
    judge(
        "as quick as before, s after the end",
        format!("{:.1}", again.as_secs_f64()),
        "at most 5".to_owned(),
        again <= Duration::from_secs(5),
    );
    judge(
        "nodes that live",
        format!("{}", alive.as_ref().map_or(0, |nodes| *nodes)),
        format!("{}", options.nodes),
        alive.is_ok_and(|nodes| nodes == options.nodes),
    );
    Ok(holds)
}

/// One load on a topic of its own, which is deleted afterwards: a minute of it is many gigabytes.
fn run(brokers: &[String], replicas: usize, load: &Load, topic: &str) -> Result<Taken> {
    broker::create_topic(brokers, topic, load.partitions, replicas)?;
    let taken = load.run(brokers, topic).context("the load")?;
    broker::delete_topic(brokers, topic)?;
    Ok(taken)
}
