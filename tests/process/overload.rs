//! More than a node can take: 64 connections that write produces as fast as their sockets take them,
//! many times what the node keeps memory for. It answers all of them in the end, keeps to its memory,
//! and serves somebody who wants little all the while. (`benches/src/bin/overload` measures how well.)

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::fsync::requests::Connection;
use super::half_open::{Bystander, SERVED_WITHIN_MS};
use super::kafka::PATIENCE;
use super::node::{Node, foreign_brokers};
use super::trial::{fresh_seed, note, skip, trial};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use libtest_mimic::Trial;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use riverrun_record::{BatchBuilder, Compression};

const CONNECTIONS: usize = 64;
/// Batches that each of them writes, and what is in one.
const BATCHES: usize = 24;
const BATCH_BYTES: usize = 256 << 10;
/// What the node keeps for the bodies of requests: all of them together are twelve times that.
const BUDGET: u64 = 32 << 20;
/// The allocator keeps what was given back for a second, for the thread that had it: each of the two
/// that read here may have had the whole budget by turns.
const FREED: u64 = 2 * BUDGET;
/// A buffer for what each connection reads and is answered, and what threads come to.
const BESIDE: u64 = 16 << 20;
/// How often its memory is looked at.
const LOOK: Duration = Duration::from_millis(3);
/// Offsets that are read again.
const SAMPLES: usize = 100;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "overload::a_node_that_is_offered_too_much_answers_all_of_it_in_little_memory",
        || {
            if foreign_brokers().is_some() || std::env::var_os("RIVERRUN_TEST_NODE").is_some() {
                return Err(skip("overload", "settings and memory of the node are ours"));
            }
            let mut node = Node::founder(&[
                format!("queued.max.request.bytes={BUDGET}"),
                format!("socket.request.max.bytes={}", 1 << 20),
            ])?;
            let result = all(&mut node);
            node.explain(result)
        },
    )]
}

fn all(node: &mut Node) -> Result<()> {
    let brokers = node.brokers();
    let mut own = Connection::open(&brokers)?;
    own.create_topic("calm", &[])?;
    own.create_topic("flood", &[])?;
    let before = node.allocated_memory()?;
    let bystander = Bystander::new(100);
    let stop = AtomicBool::new(false);
    let most = AtomicU64::new(0);
    let begun = Instant::now();
    thread::scope(|threads| -> Result<()> {
        let serving = threads.spawn(|| bystander.serve(&brokers, &stop));
        threads.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let now = node.allocated_memory().unwrap_or(u64::MAX);
                most.fetch_max(now, Ordering::SeqCst);
                thread::sleep(LOOK);
            }
        });
        let flooding: Vec<_> = (0..CONNECTIONS)
            .map(|_| threads.spawn(|| flood(&brokers)))
            .collect();
        let flooded: Vec<Result<()>> = flooding
            .into_iter()
            .map(|thread| thread.join().expect("it does not panic"))
            .collect();
        // It goes on when the others have stopped.
        let goes_on = bystander.goes_on();
        stop.store(true, Ordering::SeqCst);
        serving.join().expect("it does not panic")?;
        flooded.into_iter().collect::<Result<()>>()?;
        goes_on
    })?;
    let took = begun.elapsed();
    let most = most.into_inner();
    let slowest_ms = bystander.slowest_ms();
    note(format_args!(
        "overload: {} MiB from {CONNECTIONS} connections in {took:?}; {} MiB of memory at most, {} \
         before; a small produce beside it was answered in {slowest_ms} ms",
        (CONNECTIONS * BATCHES * BATCH_BYTES) >> 20,
        most >> 20,
        before >> 20,
    ));
    ensure!(
        slowest_ms < SERVED_WITHIN_MS,
        "a small produce was answered in {slowest_ms} ms"
    );
    let limit = before + BUDGET + FREED + BESIDE;
    ensure!(
        most < limit,
        "{most} bytes of memory, {before} before, at most {limit}"
    );
    all_is_there(&mut own)?;
    let status = node.stop()?;
    ensure!(status.success(), "it ended with {status}");
    ensure!(!node.log().contains("panicked"), "something panicked");
    Ok(())
}

/// Writes all of its batches before it reads an answer, as the socket takes them.
fn flood(brokers: &str) -> Result<()> {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.append(1_700_000_000_000, None, Some(&vec![b'f'; BATCH_BYTES]), &[])?;
    let batch: Bytes = builder.build()?;
    let mut connection = Connection::open(brokers)?;
    connection.timeout_ms = 120_000;
    let sent: Vec<_> = (0..BATCHES)
        .map(|_| connection.send_batch("flood", 0, batch.clone()))
        .collect::<Result<_>>()
        .context("the node hung up on a producer")?;
    for sent in sent {
        let error = connection.answer_within(sent, PATIENCE)?;
        ensure!(error == Some(0), "a produce got {error:?}");
    }
    Ok(())
}

/// Every batch is one record: all of them lie one after another, and nothing behind them.
fn all_is_there(connection: &mut Connection) -> Result<()> {
    let seed = fresh_seed();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let count = i64::try_from(CONNECTIONS * BATCHES)?;
    let offsets = (0..SAMPLES).map(|_| random.random_range(0..count));
    for offset in offsets.chain([0, count - 1, count]) {
        let sent = connection.send_fetch("flood", offset, 1)?;
        let found = connection.batches_within(sent, Duration::from_secs(30))?;
        let found = found.with_context(|| format!("no answer to a fetch at {offset}"))?;
        let first = riverrun_record::batches(&found).next().transpose()?;
        let first = first.map(|batch| batch.base_offset());
        let expected = (offset < count).then_some(offset);
        ensure!(
            first == expected,
            "at {offset} lies {first:?} (offsets of seed {seed})"
        );
    }
    Ok(())
}
