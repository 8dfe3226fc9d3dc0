//! Connections between nodes: links that carry messages one way, and calls.
//!
//! | File | Thing |
//! |---|---|
//! | this one | [`Peers`], what the broker holds, and [`PeerHost`], what it is told by |
//! | `dial` | connecting, and the handshake |
//! | `link` | the outgoing link to a node: its task, its socket |
//! | `outbox` | who writes to that socket: whoever queued, and nobody waits |
//! | `waiting` | what waits for it, bounded |
//! | `accept` | the listener and the handshake of who connects |
//! | `receive` | an accepted link: messages to the shards, and whether its node lives |
//! | `source` | bytes to frames, with the memory for them |
//! | `calls`, `answering` | questions to a node and their answers |
//!
//! Every node dials every other one whose address it is told. What was dialled is for sending, what
//! was accepted is for receiving, so there is one ordered link for each direction of each pair.
//! Links are driven by a thread of their own: a worker that is held up by a disk must not make this
//! node look dead. It calls nothing that could be held up; what it has to tell the broker is told by
//! a task of the broker's runtime, in order.

mod accept;
mod answering;
mod calls;
mod dial;
mod link;
mod outbox;
mod receive;
mod source;
#[cfg(test)]
pub(crate) mod tests;
mod waiting;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use riverrun_replication::frame::{Hello, Refusal};
use riverrun_replication::message::PeerMessage;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::kafka::refused::RefusedLog;
use crate::net::memory::Budget;
use crate::watched::{Kind, Watch};

pub(crate) use accept::serve;
pub(crate) use calls::{CallError, Callee};
pub(crate) use link::Address;
pub(crate) use waiting::Target;

use link::{Link, Lost};
use receive::Heard;
use source::Spare;

/// Without a byte for so long a link is closed, by either side.
const SILENCE: Duration = Duration::from_secs(3);
/// Without a byte for so long a node counts as gone.
const GONE: Duration = Duration::from_secs(1);

/// The lock that `outbox` is built on. The model in `tests/outbox_model.rs` compiles the same file
/// against another `sync`, whose locks are loom's.
mod sync {
    pub(crate) use parking_lot::Mutex;
}

/// The broker, as its links see it. Unless said otherwise calls come from tasks of the broker's
/// runtime with nothing held, and may run shards.
pub(crate) trait PeerHost: Send + Sync + 'static {
    /// Who this node is now. Purpose and the node that is meant are filled in by the caller.
    fn local(&self) -> Hello;

    /// The memory that frames are read into.
    fn memory(&self) -> &Budget;

    /// Whether a node may talk to this one: judged for whoever connects, and for whoever answers
    /// where this node connected. Cluster ids are compared before. Comes from any thread and must
    /// not block.
    ///
    /// # Errors
    /// Why not.
    fn admit(&self, hello: &Hello) -> Result<(), Refusal>;

    /// Messages of a node, in the order in which it queued them. The next ones are read when this
    /// returns.
    fn messages(&self, from: i32, messages: Vec<PeerMessage>);

    /// What a node announced, in one order with its messages.
    fn announced(&self, from: i32, announcement: Bytes);

    /// What was sent to these replicas may not have arrived.
    fn unreachable(&self, targets: Vec<Target>);

    /// The link to a node is up: it takes announcements from now on, and knows none of the former.
    fn link_up(&self, node: i32, incarnation: u64);

    /// The link from a node is up, or it is heard again after it counted as gone. Comes before the
    /// first of its messages.
    fn peer_heard(&self, node: i32, incarnation: u64);

    /// A node counts as gone: its process was killed, or nothing was heard of it for a second.
    fn peer_gone(&self, node: i32);

    /// A node does not want a link from this one; tried again in a second. Of a node that this one
    /// does not want [`PeerHost::admit`] knows.
    fn refused(&self, node: i32, refusal: &Refusal);

    /// Answers a node's call. There may be 64 at once for each of its connections.
    fn call(&self, from: Hello, body: Bytes) -> impl Future<Output = Bytes> + Send;
}

/// What the broker is told.
#[derive(Debug)]
enum Event {
    LinkUp(i32, u64),
    /// With somebody who waits until it has been told.
    Heard(i32, u64, Option<oneshot::Sender<()>>),
    Gone(i32),
    Refused(i32, Refusal),
}

/// What all connections share.
#[derive(Debug)]
struct Shared<H> {
    host: Arc<H>,
    watch: Watch,
    /// When this began: times are kept as milliseconds since.
    since: Instant,
    links: RwLock<BTreeMap<i32, Dialled>>,
    /// Who was ever heard.
    heard: RwLock<BTreeMap<i32, Arc<Heard>>>,
    lost: Arc<Lost>,
    events: mpsc::UnboundedSender<Event>,
    spare: Spare,
    refusals: RefusedLog,
    connections: AtomicU64,
    stop: watch::Sender<bool>,
}

/// A link and where it goes.
#[derive(Debug)]
struct Dialled {
    link: Arc<Link>,
    address: watch::Sender<Option<Address>>,
}

impl<H> Shared<H> {
    fn report(&self, event: Event) {
        // The other end is gone only where the broker's runtime is.
        let _ = self.events.send(event);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    fn address(&self, node: i32) -> Option<Address> {
        let links = self.links.read();
        links
            .get(&node)
            .and_then(|dialled| dialled.address.borrow().clone())
    }
}

/// The connections of this node with others.
#[derive(Debug)]
pub(crate) struct Peers<H: PeerHost> {
    shared: Arc<Shared<H>>,
    calls: calls::Pool,
    /// The runtime of the links' thread.
    links: Handle,
}

impl<H: PeerHost> Peers<H> {
    /// Begins without any node. Must be called in the broker's runtime.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub(crate) fn start(host: Arc<H>, watch: &Watch) -> io::Result<Self> {
        let (events, told) = mpsc::unbounded_channel();
        let stop = watch::Sender::new(false);
        let links = links_thread(watch, stop.subscribe())?;
        let lost = Arc::new(Lost::default());
        let telling = tell(Arc::clone(&host), told, Arc::clone(&lost));
        watch.task(Kind::PeerEvents, telling);
        let shared = Arc::new(Shared {
            host,
            watch: watch.clone(),
            since: Instant::now(),
            links: RwLock::default(),
            heard: RwLock::default(),
            lost,
            events,
            spare: Spare::default(),
            refusals: RefusedLog::default(),
            connections: AtomicU64::new(0),
            stop,
        });
        Ok(Self {
            shared,
            calls: calls::Pool::default(),
            links,
        })
    }

    /// The nodes that there are, by id, and where: links to new ones are made, to others ended.
    pub(crate) fn set_nodes(&self, mut nodes: BTreeMap<i32, Address>) {
        nodes.remove(&self.shared.host.local().node);
        let mut links = self.shared.links.write();
        links.retain(|node, dialled| {
            let stays = nodes.contains_key(node);
            if !stays {
                dialled.address.send_replace(None);
            }
            stays
        });
        self.shared
            .heard
            .write()
            .retain(|node, heard| nodes.contains_key(node) || heard.is_open());
        for (node, address) in nodes {
            if let Some(dialled) = links.get(&node) {
                dialled.address.send_if_modified(|known| {
                    let moved = known.as_ref() != Some(&address);
                    *known = Some(address);
                    moved
                });
                continue;
            }
            let link = Arc::new(Link::new(node, &self.shared.lost));
            let (sender, address) = watch::channel(Some(address));
            let shared = Arc::clone(&self.shared);
            let run = link::run(shared, Arc::clone(&link), address);
            let watch = &self.shared.watch;
            watch.task_on(&self.links, Kind::Link, run);
            links.insert(
                node,
                Dialled {
                    link,
                    address: sender,
                },
            );
        }
    }

    fn link(&self, node: i32) -> Option<Arc<Link>> {
        let links = self.shared.links.read();
        links.get(&node).map(|dialled| Arc::clone(&dialled.link))
    }

    /// Queues a message for a replica on a node; [`flush`] at the end of this thread's turn sends it.
    /// May be called with a shard's lock held.
    pub(crate) fn queue(&self, node: i32, message: PeerMessage) {
        match self.link(node) {
            Some(link) => {
                if link.queue(message) {
                    touch(link);
                }
            }
            None => self.shared.lost.add([(message.group, message.to)]),
        }
    }

    /// Queues an announcement for a node. It is forgotten while there is no link to it: when there is
    /// one, [`PeerHost::link_up`] asks for all of them.
    pub(crate) fn announce(&self, node: i32, announcement: Bytes) {
        if let Some(link) = self.link(node) {
            link.announce(announcement);
            touch(link);
        }
    }

    /// Queues an announcement for every node.
    pub(crate) fn announce_all(&self, announcement: &Bytes) {
        for dialled in self.shared.links.read().values() {
            dialled.link.announce(announcement.clone());
            touch(Arc::clone(&dialled.link));
        }
    }

    /// How long ago anything came from a node on its link; `None` before its first.
    pub(crate) fn last_heard(&self, node: i32) -> Option<Duration> {
        let heard = Arc::clone(self.shared.heard.read().get(&node)?);
        let ago = self.shared.now_ms().saturating_sub(heard.at_ms()?);
        Some(Duration::from_millis(ago))
    }

    /// Asks a node something and waits for its answer.
    ///
    /// # Errors
    /// [`CallError`]; the node may have carried the call out all the same.
    pub(crate) async fn call(
        &self,
        callee: Callee,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, CallError> {
        calls::call(&self.shared, &self.calls, callee, body, within).await
    }

    /// Ends every link and call, and the accepted connections with them.
    pub(crate) fn stop(&self) {
        self.shared.stop.send_replace(true);
        self.shared.links.write().clear();
        self.calls.clear();
    }
}

impl<H: PeerHost> Drop for Peers<H> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A thread for the links, and the handle to give it work.
fn links_thread(watch: &Watch, stop: watch::Receiver<bool>) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    watch.runtime(Kind::PeerLinks, runtime, async move {
        let mut stop = stop;
        // Its sender goes with the links.
        let _ = stop.wait_for(|stop| *stop).await;
    })?;
    Ok(handle)
}

/// Tells the broker, one thing after another.
async fn tell<H: PeerHost>(
    host: Arc<H>,
    mut events: mpsc::UnboundedReceiver<Event>,
    lost: Arc<Lost>,
) {
    loop {
        tokio::select! {
            event = events.recv() => match event {
                // The links are gone.
                None => return,
                Some(Event::LinkUp(node, incarnation)) => host.link_up(node, incarnation),
                Some(Event::Heard(node, incarnation, told)) => {
                    host.peer_heard(node, incarnation);
                    if let Some(told) = told {
                        let _ = told.send(());
                    }
                }
                Some(Event::Gone(node)) => host.peer_gone(node),
                Some(Event::Refused(node, refusal)) => host.refused(node, &refusal),
            },
            targets = lost.take() => host.unreachable(targets),
        }
    }
}

thread_local! {
    /// The links that this thread queued something for in its turn.
    static TOUCHED: RefCell<Vec<Arc<Link>>> = const { RefCell::new(Vec::new()) };
}

fn touch(link: Arc<Link>) {
    TOUCHED.with_borrow_mut(|touched| {
        if !touched.iter().any(|known| Arc::ptr_eq(known, &link)) {
            touched.push(link);
        }
    });
}

/// Writes what this thread queued since it last did this: one frame for each node.
pub(crate) fn flush() {
    for link in TOUCHED.with_borrow_mut(std::mem::take) {
        link.pump_from_outside();
    }
}
