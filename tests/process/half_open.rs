//! What anybody can do to the ports of a node without knowing anything: claim large frames and send
//! no more, send garbage, and pretend to be another node. None of it costs memory to speak of or
//! fills the log, and whoever is served goes on being served.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::fsync::requests::Connection;
use super::kafka::PATIENCE;
use super::node::{Node, foreign_brokers};
use super::trial::{fresh_seed, note, skip, trial};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use libtest_mimic::Trial;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use riverrun_replication::frame::{Answered, Frame, Hello, Purpose, RefusalCode};
use uuid::Uuid;

const HALF_OPEN: usize = 200;
/// The largest request that is read.
const CLAIM: u32 = 100 << 20;
/// What a node keeps for the bodies of requests.
const BUDGET: u64 = 160 << 20;
/// Connections with garbage, to each port.
const GARBAGE: usize = 1500;
/// What a node writes about strangers in a second.
const LINES_PER_S: u64 = 100;
/// The longest that somebody beside all that may wait for an answer, on a machine with much to do.
pub(crate) const SERVED_WITHIN_MS: u64 = 8000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "half_open::claims_and_garbage_cost_no_memory_and_nobody_becomes_a_peer",
        || {
            if foreign_brokers().is_some() || std::env::var_os("RIVERRUN_TEST_NODE").is_some() {
                return Err(skip(
                    "half-open connections",
                    "the port for nodes, the log and the memory are ours",
                ));
            }
            let mut node = Node::founder(&[])?;
            let result = all(&mut node);
            node.explain(result)
        },
    )]
}

fn all(node: &mut Node) -> Result<()> {
    let brokers = node.brokers();
    Connection::open(&brokers)?.create_topic("calm", &[])?;
    let before = node.most_memory()?;
    // One whose requests fit one read, and one whose batches are as large as a producer's are.
    let bystanders = [100, 500_000].map(Bystander::new);
    let stop = AtomicBool::new(false);
    thread::scope(|threads| -> Result<()> {
        let each = bystanders.iter();
        let serving: Vec<_> = each
            .map(|bystander| threads.spawn(|| bystander.serve(&brokers, &stop)))
            .collect();
        let done = attack(node, &bystanders);
        stop.store(true, Ordering::SeqCst);
        for thread in serving {
            thread.join().expect("it does not panic")?;
        }
        done
    })?;
    let most = node.most_memory()?;
    for Bystander {
        bytes,
        answers,
        slowest_ms,
    } in bystanders
    {
        let (answers, slowest_ms) = (answers.into_inner(), slowest_ms.into_inner());
        note(format_args!(
            "half open: {answers} produces of {bytes} bytes beside it, each answered in {slowest_ms} ms"
        ));
        ensure!(
            slowest_ms < SERVED_WITHIN_MS,
            "a produce of {bytes} bytes was answered in {slowest_ms} ms"
        );
    }
    note(format_args!(
        "half open: {} MiB of memory at most, {} before it",
        most >> 20,
        before >> 20
    ));
    ensure!(
        most < before + BUDGET + BUDGET / 10,
        "{most} bytes of memory, {before} before"
    );
    let status = node.stop()?;
    ensure!(status.success(), "it ended with {status}");
    ensure!(!node.log().contains("panicked"), "something panicked");
    Ok(())
}

/// Somebody who has nothing to do with it, and produces all the while.
pub(crate) struct Bystander {
    bytes: usize,
    answers: AtomicU64,
    slowest_ms: AtomicU64,
}

impl Bystander {
    /// The longest that it waited for an answer so far.
    pub(crate) fn slowest_ms(&self) -> u64 {
        self.slowest_ms.load(Ordering::SeqCst)
    }

    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            bytes,
            answers: AtomicU64::new(0),
            slowest_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn serve(&self, brokers: &str, stop: &AtomicBool) -> Result<()> {
        let mut connection = Connection::open(brokers)?;
        while !stop.load(Ordering::SeqCst) {
            let begun = Instant::now();
            let error = connection
                .produce("calm", self.bytes)
                .with_context(|| format!("a produce of {} bytes beside it", self.bytes))?;
            ensure!(error == 0, "somebody else's produce got error {error}");
            let took = u64::try_from(begun.elapsed().as_millis())?;
            self.slowest_ms.fetch_max(took, Ordering::SeqCst);
            self.answers.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Waits until it has been answered a few times from now on.
    pub(crate) fn goes_on(&self) -> Result<()> {
        let before = self.answers.load(Ordering::SeqCst);
        let deadline = Instant::now() + PATIENCE;
        while self.answers.load(Ordering::SeqCst) < before + 10 {
            ensure!(
                Instant::now() < deadline,
                "produces of {} bytes are not answered beside it",
                self.bytes
            );
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

fn attack(node: &Node, bystanders: &[Bystander]) -> Result<()> {
    nobody_becomes_a_peer(node)?;
    let (clients, nodes) = (node.brokers(), node.for_nodes());
    let open = |port: &str, claim| -> Result<Vec<TcpStream>> {
        let claims = (0..HALF_OPEN).map(|_| claimed(port, claim));
        let claims: Result<_> = claims.collect();
        claims.with_context(|| format!("claims to {port}"))
    };
    let held = open(&clients, CLAIM.to_be_bytes())?;
    let refused = open(&nodes, CLAIM.to_le_bytes())?;
    // Half a hello: nodes have a few seconds to say who they are.
    let mut greeting = open(&nodes, 4000_u32.to_le_bytes())?;
    for bystander in bystanders {
        bystander.goes_on()?;
    }
    garbage(node)?;
    for mut stream in refused {
        let answer = closed(&mut stream).context("a claim to the port for nodes")?;
        ensure!(answer.is_empty(), "it is answered {answer:?}");
    }
    for stream in &mut greeting {
        closed(stream).context("half a hello")?;
    }
    for bystander in bystanders {
        bystander.goes_on()?;
    }
    drop(held);
    Ok(())
}

/// A connection that claims a frame and sends little of it.
fn claimed(port: &str, claim: [u8; 4]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(port)?;
    stream.write_all(&claim)?;
    // A port that refuses the claim may have hung up already.
    drop(stream.write_all(&[0x11; 1000]));
    Ok(stream)
}

/// Everything that comes until the other side closes.
fn closed(stream: &mut TcpStream) -> Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Ok(answer),
        Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(answer),
        Err(e) => bail!("the connection is still open: {e}"),
    }
}

/// Random bytes to both ports, from so many connections that a line for each would fill the log.
fn garbage(node: &Node) -> Result<()> {
    let seed = fresh_seed();
    note(format_args!(
        "half open: the garbage is that of seed {seed}"
    ));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let lines = |log: &str| log.matches("closed a connection").count() as u64;
    let said = lines(&node.log());
    let begun = Instant::now();
    for port in [node.brokers(), node.for_nodes()] {
        for _ in 0..GARBAGE {
            let mut bytes = vec![0; random.random_range(8..600)];
            random.fill_bytes(&mut bytes);
            // A length that no port takes, so that every connection is closed for what it says.
            bytes[..8].fill(0xff);
            let mut stream = TcpStream::connect(&port)?;
            drop(stream.write_all(&bytes));
            drop(stream.shutdown(Shutdown::Write));
            let answer = closed(&mut stream)?;
            ensure!(
                answer.is_empty(),
                "garbage got an answer of {} bytes",
                answer.len()
            );
        }
    }
    let periods = begun.elapsed().as_secs() + 2;
    let said = lines(&node.log()) - said;
    note(format_args!(
        "half open: {said} lines about {} connections with garbage in {:?}",
        2 * GARBAGE,
        begun.elapsed()
    ));
    // Each port counts for itself.
    ensure!(said > 0, "no line about garbage");
    ensure!(said <= 2 * LINES_PER_S * periods, "{said} lines in the log");
    Ok(())
}

fn bytes_of(frame: &Frame) -> Result<Vec<u8>> {
    Ok(frame.encode()?.concat())
}

/// Sends it to a port and gives what is answered before the connection is closed.
fn sent(port: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(port)?;
    stream.write_all(bytes)?;
    closed(&mut stream)
}

/// A client that speaks Kafka's protocol, one that skips the introduction and one that comes with
/// another cluster's id are all turned away at the port for nodes.
fn nobody_becomes_a_peer(node: &Node) -> Result<()> {
    let port = node.for_nodes();
    let hello = Frame::Hello(Hello {
        purpose: Purpose::Link,
        cluster_id: Uuid::from_u128(0xf0e1),
        node: 2,
        directory_id: Uuid::from_u128(2),
        incarnation: 1,
        meant: 1,
        starts: Vec::new(),
    });
    let foreign = sent(&port, &bytes_of(&hello)?)?;
    match Frame::decode(Bytes::from(foreign)).context("the answer to another cluster's node")? {
        Frame::HelloAnswer(Answered {
            refusal: Some(refusal),
            ..
        }) => ensure!(refusal.code == RefusalCode::Cluster, "refused: {refusal}"),
        other => bail!("another cluster's node is answered {other:?}"),
    }
    let mut bent = bytes_of(&hello)?;
    *bent.last_mut().context("a hello")? ^= 1;
    let call = Frame::Call {
        request: 1,
        body: Bytes::from_static(b"delete it all"),
    };
    let api_versions = [&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1][..], &[0xff; 2]].concat();
    for (what, bytes) in [
        ("a client of Kafka's protocol", api_versions),
        ("a hello with a wrong checksum", bent),
        (
            "messages without a hello",
            bytes_of(&Frame::Messages(Vec::new()))?,
        ),
        ("a call without a hello", bytes_of(&call)?),
        (
            "an announcement without a hello",
            bytes_of(&Frame::Announce(Bytes::new()))?,
        ),
    ] {
        let answer = sent(&port, &bytes).with_context(|| what)?;
        ensure!(answer.is_empty(), "{what} is answered {answer:?}");
    }
    // And nobody becomes one at the other port.
    let answer = sent(&node.brokers(), &bytes_of(&hello)?)?;
    ensure!(
        answer.is_empty(),
        "a hello at the port for clients is answered"
    );
    Ok(())
}
