//! The outgoing link to a node: dialled by a task of its own, written to by whoever queues.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use riverrun_replication::frame::{Frame, Purpose, encode_messages};
use riverrun_replication::message::PeerMessage;
use rustc_hash::FxHashSet;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, error, info};

use super::dial::{self, DialError};
use super::outbox::{Outbox, Pumped, Sink, Wrote};
use super::waiting::{Batch, Queue, State, Target, may_be_dropped};
use super::{Event, PeerHost, SILENCE, Shared};

/// How often a node that says nothing else says that it lives.
const PING: Duration = Duration::from_millis(100);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);
/// Slices handed to one `writev`.
const SLICES: usize = 64;
/// Bytes after which a writer leaves the rest to the link's task.
const MAX_BYTES_A_CALL: usize = 4 << 20;

/// Where a node is reached.
pub(crate) type Address = (String, u16);

/// Replicas that something did not reach, until somebody tells their groups.
#[derive(Debug, Default)]
pub(super) struct Lost {
    targets: Mutex<FxHashSet<Target>>,
    any: Notify,
}

impl Lost {
    pub(super) fn add(&self, targets: impl IntoIterator<Item = Target>) {
        let mut lost = self.targets.lock();
        let before = lost.len();
        lost.extend(targets);
        if lost.len() > before {
            self.any.notify_one();
        }
    }

    /// Waits for some.
    pub(super) async fn take(&self) -> Vec<Target> {
        loop {
            self.any.notified().await;
            let lost = std::mem::take(&mut *self.targets.lock());
            if !lost.is_empty() {
                let mut lost: Vec<Target> = lost.into_iter().collect();
                lost.sort_unstable();
                return lost;
            }
        }
    }
}

/// The socket, and what is half in it.
#[derive(Debug)]
struct Out {
    stream: Option<Arc<TcpStream>>,
    segments: VecDeque<Bytes>,
    /// Whom the messages in `segments` are for.
    in_flight: Vec<Target>,
    /// Whom appends and snapshots were sent over this connection: the last of them may be lost with
    /// it, wherever it was.
    sent: FxHashSet<Target>,
    /// Something was written since this was last looked at.
    wrote: bool,
    lost: Arc<Lost>,
}

/// A frame of its own; nothing, which is said, where it is longer than any frame.
fn alone(frame: Frame) -> Vec<Bytes> {
    frame.encode().unwrap_or_else(|error| {
        error!(%error, "a frame to another node is not sent");
        Vec::new()
    })
}

impl Out {
    fn begin(&mut self, batch: Batch) {
        let segments = match batch {
            Batch::Messages(messages) => self.encode(&messages),
            Batch::Announce(body) => alone(Frame::Announce(body)),
            Batch::Ping => alone(Frame::Ping),
        };
        self.segments.extend(segments);
    }

    fn encode(&mut self, messages: &[PeerMessage]) -> Vec<Bytes> {
        let Ok(segments) = encode_messages(messages) else {
            // One of them is longer than any frame: the others go alone.
            let mut segments = Vec::new();
            for message in messages {
                match encode_messages([message]) {
                    Ok(frame) => {
                        self.remember(message);
                        segments.extend(frame);
                    }
                    Err(error) => {
                        let (group, to) = (message.group, message.to);
                        error!(group, to, %error, "a message to another replica is not sent");
                        self.lost.add([(group, to)]);
                    }
                }
            }
            return segments;
        };
        for message in messages {
            self.remember(message);
        }
        segments
    }

    fn remember(&mut self, message: &PeerMessage) {
        let target = (message.group, message.to);
        self.in_flight.push(target);
        if may_be_dropped(message) {
            self.sent.insert(target);
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.wrote |= written > 0;
        while let Some(first) = self.segments.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.segments.pop_front();
        }
        self.in_flight.clear();
    }
}

impl Sink<Batch> for Out {
    fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    fn write(&mut self, batch: Option<Batch>) -> Wrote {
        if let Some(batch) = batch {
            self.begin(batch);
        }
        let Some(stream) = self.stream.clone() else {
            // Closed meanwhile: nothing is taken from a closed queue.
            return Wrote::All;
        };
        let mut budget = MAX_BYTES_A_CALL;
        while !self.segments.is_empty() {
            if budget == 0 {
                return Wrote::Blocked;
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            for (slice, segment) in slices.iter_mut().zip(&self.segments) {
                *slice = IoSlice::new(segment);
                used += 1;
            }
            match stream.try_write_vectored(slices.get(..used).unwrap_or_default()) {
                Ok(0) => return Wrote::Broken,
                Ok(written) => {
                    self.advance(written);
                    budget = budget.saturating_sub(written);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Wrote::Blocked,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Wrote::Broken,
            }
        }
        Wrote::All
    }
}

/// A link.
#[derive(Debug)]
pub(super) struct Link {
    node: i32,
    outbox: Outbox<Queue, Out>,
    /// Others leave something for the task: the socket takes no more, or is broken.
    attention: Notify,
    /// The node has just been heard: no need to wait before it is dialled.
    there: Notify,
    lost: Arc<Lost>,
}

impl Link {
    pub(super) fn new(node: i32, lost: &Arc<Lost>) -> Self {
        let out = Out {
            stream: None,
            segments: VecDeque::new(),
            in_flight: Vec::new(),
            sent: FxHashSet::default(),
            wrote: false,
            lost: Arc::clone(lost),
        };
        Self {
            node,
            outbox: Outbox::new(Queue::default(), out),
            attention: Notify::new(),
            there: Notify::new(),
            lost: Arc::clone(lost),
        }
    }

    /// Queues a message; false where it is dropped, which is reported.
    pub(super) fn queue(&self, message: PeerMessage) -> bool {
        match self.outbox.post(|queue| queue.message(message)) {
            Ok(()) => true,
            Err(target) => {
                self.lost.add([target]);
                false
            }
        }
    }

    pub(super) fn announce(&self, body: Bytes) {
        self.outbox.post(|queue| queue.announce(body));
    }

    /// Writes what is queued; what the socket does not take is left to the link's task.
    pub(super) fn pump_from_outside(&self) {
        if let Pumped::Left | Pumped::Broken = self.outbox.pump() {
            self.attention.notify_one();
        }
    }

    /// Dials soon, if the link is down.
    pub(super) fn is_there(&self) {
        self.there.notify_one();
    }

    fn open(&self, stream: &Arc<TcpStream>) {
        self.outbox.with_both(|queue, out| {
            out.stream = Some(Arc::clone(stream));
            queue.set_state(State::Up);
        });
    }

    /// Ends the connection, if there is one, and reports all that may not have arrived.
    fn close(&self, state: State) {
        let (queued, in_flight, sent) = self.outbox.with_both(|queue, out| {
            out.stream = None;
            out.segments.clear();
            queue.set_state(state);
            (
                queue.clear(),
                std::mem::take(&mut out.in_flight),
                std::mem::take(&mut out.sent),
            )
        });
        self.lost.add(queued);
        self.lost.add(in_flight);
        self.lost.add(sent);
    }
}

/// Why a connection of a link ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("closed by the node")]
    Closed,
    #[error("the node takes nothing")]
    Stalled,
    #[error("the node sent something on a link of ours")]
    Spoke,
    #[error("the node has another address")]
    Moved,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Keeps a link up until it has no address any more. When what is returned is dropped, whether or not it was
/// ever polled, what waits for the link is reported.
pub(super) fn run<H: PeerHost>(
    shared: Arc<Shared<H>>,
    link: Arc<Link>,
    address: watch::Receiver<Option<Address>>,
) -> impl Future<Output = ()> + Send {
    let kept = Kept(link);
    async move { keep_up(&shared, &kept.0, address).await }
}

async fn keep_up<H: PeerHost>(
    shared: &Shared<H>,
    link: &Link,
    mut address: watch::Receiver<Option<Address>>,
) {
    let mut backoff = Backoff::new(u64::from(link.node.cast_unsigned()));
    // What the last failure was, so that a node that stays away is one line.
    let mut said = String::new();
    loop {
        let Some(to) = address.borrow_and_update().clone() else {
            return;
        };
        let dialled = tokio::select! {
            dialled = dial::dial(&*shared.host, &to, Purpose::Link, link.node) => dialled,
            changed = address.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        match dialled {
            Ok((stream, hello)) => {
                info!(
                    node = link.node,
                    incarnation = hello.incarnation,
                    "linked to a node"
                );
                said.clear();
                backoff.reset();
                let stream = Arc::new(stream);
                link.open(&stream);
                shared.report(Event::LinkUp(link.node, hello.incarnation));
                let ended = tokio::select! {
                    ended = drive(link, &stream) => ended,
                    _ = address.changed() => Ended::Moved,
                };
                link.close(State::Connecting);
                info!(node = link.node, reason = %ended, "a link ended");
            }
            Err(error) => {
                link.close(State::Down);
                if let DialError::Refused(refusal) = &error {
                    shared.report(Event::Refused(link.node, refusal.clone()));
                }
                if let DialError::Refused(_) | DialError::Unwanted(_) = &error {
                    backoff.longest();
                }
                let text = error.to_string();
                if text == said {
                    debug!(node = link.node, %error, "no link");
                } else {
                    info!(node = link.node, host = to.0, port = to.1, %error, "no link to a node");
                    said = text;
                }
            }
        }
        tokio::select! {
            () = sleep(backoff.next()) => {}
            () = link.there.notified() => {}
            _ = address.changed() => {}
        }
    }
}

/// The task may end anywhere; what waits is reported however it does.
struct Kept(Arc<Link>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.close(State::Down);
    }
}

/// Writes what others could not, pings, and notices the end.
async fn drive(link: &Link, stream: &TcpStream) -> Ended {
    let mut ping = interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut blocked_since: Option<Instant> = None;
    loop {
        let interest = match blocked_since {
            Some(_) => Interest::READABLE | Interest::WRITABLE,
            None => Interest::READABLE,
        };
        tokio::select! {
            // Others may leave something without end, and it is looked at below in any case.
            biased;
            _ = ping.tick() => {
                let wrote = link.outbox.with_both(|queue, out| {
                    let wrote = std::mem::take(&mut out.wrote);
                    if !wrote {
                        queue.ping();
                    }
                    wrote
                });
                if wrote {
                    blocked_since = blocked_since.map(|_| Instant::now());
                }
                if blocked_since.is_some_and(|since| since.elapsed() >= SILENCE) {
                    return Ended::Stalled;
                }
            }
            ready = stream.ready(interest) => {
                match ready {
                    Ok(ready) if ready.is_readable() || ready.is_read_closed() => {
                        match stream.try_read(&mut [0]) {
                            Ok(0) => return Ended::Closed,
                            Ok(_) => return Ended::Spoke,
                            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                            Err(error) => return Ended::Io(error),
                        }
                    }
                    Ok(_) => {}
                    Err(error) => return Ended::Io(error),
                }
            }
            () = link.attention.notified() => {}
        }
        match link.outbox.pump() {
            Pumped::Idle | Pumped::Busy => blocked_since = None,
            Pumped::Left => {
                blocked_since.get_or_insert_with(Instant::now);
            }
            Pumped::Broken => return Ended::Closed,
        }
    }
}

/// The pause between attempts: doubled each time, never in step with others'.
#[derive(Debug)]
struct Backoff {
    pause: Duration,
    random: u64,
}

impl Backoff {
    fn new(seed: u64) -> Self {
        Self {
            pause: FIRST_BACKOFF,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    fn reset(&mut self) {
        self.pause = FIRST_BACKOFF;
    }

    fn longest(&mut self) {
        self.pause = LONGEST_BACKOFF;
    }

    /// Between half of the pause and all of it.
    fn next(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let pause = self.pause;
        self.pause = (2 * pause).min(LONGEST_BACKOFF);
        pause / 2 + (pause / 2).mul_f64((self.random % 1000) as f64 / 1000.0)
    }
}
