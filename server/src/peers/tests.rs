#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod callers;
pub(crate) mod dropped;
pub(crate) mod ends;
mod guests;
mod nodes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use riverrun_record::{BatchBuilder, Compression, NO_TIMESTAMP};
use riverrun_replication::frame::{Hello, Purpose, Refusal, RefusalCode};
use riverrun_replication::message::{Body, PeerMessage, RaftKind, RaftMessage};
use riverrun_storage::{EntryKind, LogEntry};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::{PeerHost, Peers, Target, serve};
use crate::net::memory::Budget;
use crate::watched::Watch;

/// More than anything here takes; what is waited for is awaited, not slept for.
const PATIENCE: Duration = Duration::from_secs(20);

fn message(group: u64, body: Body) -> PeerMessage {
    PeerMessage {
        group,
        from: 1,
        to: 2,
        from_incarnation: 1,
        to_incarnation: 1,
        body,
    }
}

pub(crate) fn probe(group: u64, sequence: u64) -> PeerMessage {
    message(group, Body::Probe { term: 1, sequence })
}

fn raft(kind: RaftKind, term: u64, entries: Vec<LogEntry>) -> Body {
    Body::Raft(RaftMessage {
        kind,
        term,
        log_term: 0,
        index: 0,
        commit: 0,
        commit_term: 0,
        reject: false,
        reject_hint: 0,
        request_snapshot: 0,
        priority: 0,
        context: Bytes::new(),
        entries,
        snapshot: None,
    })
}

pub(crate) fn heartbeat(group: u64, term: u64) -> PeerMessage {
    message(group, raft(RaftKind::Heartbeat, term, Vec::new()))
}

/// An append of one event of so many bytes.
pub(crate) fn append(group: u64, value_bytes: usize) -> PeerMessage {
    let mut builder = BatchBuilder::new(Compression::None, None).leader_epoch(1);
    let value = vec![7; value_bytes];
    builder
        .append(NO_TIMESTAMP, None, Some(&value), &[])
        .unwrap();
    let entry = LogEntry {
        index: 1,
        term: 1,
        kind: EntryKind::Data,
        base_offset: 0,
        last_offset_delta: 0,
        payload: builder.build().unwrap(),
    };
    message(group, raft(RaftKind::Append, 1, vec![entry]))
}

/// What a host was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Messages(i32, Vec<PeerMessage>),
    Announced(i32, Bytes),
    Unreachable(Vec<Target>),
    Up(i32, u64),
    Heard(i32, u64),
    Gone(i32),
    Refused(i32, RefusalCode),
}

#[derive(Debug)]
struct Fake {
    hello: Mutex<Hello>,
    budget: Budget,
    told: mpsc::UnboundedSender<Told>,
    /// While it is shut no messages are taken.
    shut: (Mutex<bool>, Condvar),
    /// Incarnations below this are refused.
    least_incarnation: Mutex<u64>,
    calls_under_way: AtomicUsize,
    most_calls: AtomicUsize,
}

impl Fake {
    fn tell(&self, told: Told) {
        let _ = self.told.send(told);
    }

    fn shut(&self, shut: bool) {
        *self.shut.0.lock() = shut;
        self.shut.1.notify_all();
    }
}

impl PeerHost for Fake {
    fn local(&self) -> Hello {
        self.hello.lock().clone()
    }

    fn memory(&self) -> &Budget {
        &self.budget
    }

    fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        if hello.incarnation < *self.least_incarnation.lock() {
            return Err(Refusal::new(RefusalCode::Restored, "a restored disk"));
        }
        Ok(())
    }

    fn messages(&self, from: i32, messages: Vec<PeerMessage>) {
        let mut shut = self.shut.0.lock();
        while *shut {
            self.shut.1.wait(&mut shut);
        }
        drop(shut);
        self.tell(Told::Messages(from, messages));
    }

    fn announced(&self, from: i32, announcement: Bytes) {
        self.tell(Told::Announced(from, announcement));
    }

    fn unreachable(&self, targets: Vec<Target>) {
        self.tell(Told::Unreachable(targets));
    }

    fn link_up(&self, node: i32, incarnation: u64) {
        self.tell(Told::Up(node, incarnation));
    }

    fn peer_heard(&self, node: i32, incarnation: u64) {
        self.tell(Told::Heard(node, incarnation));
    }

    fn peer_gone(&self, node: i32) {
        self.tell(Told::Gone(node));
    }

    fn refused(&self, node: i32, refusal: &Refusal) {
        self.tell(Told::Refused(node, refusal.code));
    }

    /// Echoes; a question that begins with a number waits for so many milliseconds first, and one that
    /// begins with `never` for ever.
    async fn call(&self, from: Hello, body: Bytes) -> Bytes {
        let now = self.calls_under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_calls.fetch_max(now, Ordering::SeqCst);
        let text = String::from_utf8_lossy(body.get(..body.len().min(10)).unwrap()).into_owned();
        if text.starts_with("never") {
            std::future::pending::<()>().await;
        }
        let wait_ms = text.split(' ').next().and_then(|n| n.parse().ok());
        tokio::time::sleep(Duration::from_millis(wait_ms.unwrap_or(0))).await;
        self.calls_under_way.fetch_sub(1, Ordering::SeqCst);
        let prefix = format!("node {}: ", from.node);
        [prefix.as_bytes(), &body].concat().into()
    }
}

/// A node on a real socket.
struct Node {
    id: i32,
    port: u16,
    host: Arc<Fake>,
    peers: Arc<Peers<Fake>>,
    told: mpsc::UnboundedReceiver<Told>,
    watch: Watch,
    serving: JoinHandle<()>,
}

fn hello(node: i32, incarnation: u64, cluster_id: Uuid) -> Hello {
    Hello {
        purpose: Purpose::Link,
        cluster_id,
        node,
        directory_id: Uuid::from_u128(node.unsigned_abs().into()),
        incarnation,
        meant: -1,
        starts: Vec::new(),
    }
}

const CLUSTER: Uuid = Uuid::from_u128(0xc1);

impl Node {
    async fn start(id: i32) -> Self {
        Self::start_at(0, hello(id, 1, CLUSTER)).await
    }

    async fn start_at(port: u16, hello: Hello) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (sender, told) = mpsc::unbounded_channel();
        let id = hello.node;
        let host = Arc::new(Fake {
            hello: Mutex::new(hello),
            budget: Budget::new(1 << 20, 1 << 20),
            told: sender,
            shut: Default::default(),
            least_incarnation: Mutex::new(0),
            calls_under_way: AtomicUsize::new(0),
            most_calls: AtomicUsize::new(0),
        });
        let watch = Watch::default();
        let peers = Arc::new(Peers::start(Arc::clone(&host), &watch).unwrap());
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(serve(listener, Arc::clone(&peers)));
        Self {
            id,
            port,
            host,
            peers,
            told,
            watch,
            serving,
        }
    }

    fn address(&self) -> (String, u16) {
        ("127.0.0.1".to_owned(), self.port)
    }

    /// Tells this node where others are.
    fn knows(&self, others: &[&Self]) {
        let nodes: BTreeMap<_, _> = others.iter().map(|n| (n.id, n.address())).collect();
        self.peers.set_nodes(nodes);
    }

    /// Waits until the host has been told something that `f` is looking for.
    async fn until<R>(&mut self, what: &str, mut f: impl FnMut(&Told) -> Option<R>) -> R {
        let wait = async {
            loop {
                let told = self.told.recv().await.unwrap();
                if let Some(found) = f(&told) {
                    return found;
                }
            }
        };
        let waited = timeout(PATIENCE, wait).await;
        waited.unwrap_or_else(|_| panic!("node {} was never told: {what}", self.id))
    }

    async fn until_told(&mut self, expected: Told) {
        let what = format!("{expected:?}");
        self.until(&what, |told| (*told == expected).then_some(()))
            .await;
    }

    /// Ends it as a kill does: every socket closes, and nothing listens any more.
    async fn kill(self) -> (u16, Hello) {
        self.peers.stop();
        self.watch.drain();
        self.serving.await.unwrap();
        let hello = self.host.hello.lock().clone();
        (self.port, hello)
    }
}

/// Two nodes that are linked both ways.
async fn two() -> (Node, Node) {
    let mut a = Node::start(1).await;
    let mut b = Node::start(2).await;
    a.knows(&[&b]);
    b.knows(&[&a]);
    linked(&mut a, &mut b).await;
    (a, b)
}

/// Waits for both links, in whatever order.
async fn linked(a: &mut Node, b: &mut Node) {
    for (node, other) in [(a, b.id), (b, 0)] {
        let (mut up, mut heard) = (false, false);
        node.until("both links", |told| {
            let is_it = |from: i32| other == 0 || from == other;
            up |= matches!(told, Told::Up(to, _) if is_it(*to));
            heard |= matches!(told, Told::Heard(from, _) if is_it(*from));
            (up && heard).then_some(())
        })
        .await;
    }
}
