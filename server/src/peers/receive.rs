//! An accepted link: its messages go to the shards on the thread that read them, and it tells
//! whether its node lives.

use std::io::{self, ErrorKind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use riverrun_replication::frame::{Frame, FrameError, Hello, MAX_FRAME_BYTES};
use riverrun_replication::message::PeerMessage;
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use super::dial::{self, DialError};
use super::source::Source;
use super::{Event, GONE, PeerHost, SILENCE, Shared};

/// From one look whether a node's address refuses to the next; doubled each time.
const FIRST_LOOK: Duration = Duration::from_millis(5);

/// What is known of a node by its links to this one.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Milliseconds since the start, and one; 0: never; the greatest number while something of it is
    /// being taken, however long that takes.
    at_ms: AtomicU64,
    current: Mutex<Option<Current>>,
    /// Held by the link that is read: the one before it is done when the next begins.
    reading: tokio::sync::Mutex<()>,
}

/// The newest link of a node.
#[derive(Debug)]
struct Current {
    connection: u64,
    /// To end it when a newer one comes.
    replaced: Arc<Notify>,
    /// It is still open.
    open: bool,
    /// The broker was told that the node is gone.
    gone: bool,
}

impl Heard {
    pub(super) fn at_ms(&self) -> Option<u64> {
        self.at_ms.load(Ordering::Relaxed).checked_sub(1)
    }

    pub(super) fn is_open(&self) -> bool {
        self.current
            .lock()
            .as_ref()
            .is_some_and(|current| current.open)
    }

    fn set(&self, now_ms: u64) {
        self.at_ms.store(now_ms + 1, Ordering::Relaxed);
    }

    fn set_busy(&self) {
        self.at_ms.store(u64::MAX, Ordering::Relaxed);
    }

    /// Looks at the link, unless a newer one took its place.
    fn with<R>(&self, connection: u64, f: impl FnOnce(&mut Current) -> R) -> Option<R> {
        let mut current = self.current.lock();
        let current = current.as_mut()?;
        (current.connection == connection).then(|| f(current))
    }
}

/// Why a link is read no more.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("closed by the node")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("nothing came for {} s", SILENCE.as_secs())]
    Silent,
    #[error("a newer link took its place")]
    Replaced,
}

/// Reads a link until it ends, and then finds out whether its node is gone.
pub(super) async fn run<H: PeerHost>(shared: &Arc<Shared<H>>, hello: Hello, stream: TcpStream) {
    let node = hello.node;
    let heard = Arc::clone(shared.heard.write().entry(node).or_default());
    let replaced = Arc::new(Notify::new());
    let connection = shared.next_connection();
    let (told, wait_until_told) = oneshot::channel();
    {
        let mut current = heard.current.lock();
        let before = current.replace(Current {
            connection,
            replaced: Arc::clone(&replaced),
            open: true,
            gone: false,
        });
        if let Some(before) = before {
            before.replaced.notify_one();
        }
        // Under the lock, so that what an older link has to say comes before.
        shared.report(Event::Heard(node, hello.incarnation, Some(told)));
    }
    // Its process has just come, or come back: the link to it need not wait for its turn.
    if let Some(dialled) = shared.links.read().get(&node) {
        dialled.link.is_there();
    }
    let mut reader = Reader {
        shared,
        heard: &heard,
        hello: &hello,
        connection,
        replaced: &replaced,
        heard_at: Instant::now(),
    };
    let mut read = Read {
        shared,
        heard: &heard,
        node,
        connection,
        judged: false,
    };
    let ended = {
        // The link before it hands its last messages on first.
        let _reading = heard.reading.lock().await;
        heard.set(shared.now_ms());
        let _ = wait_until_told.await;
        reader.heard_at = Instant::now();
        reader.read(&stream).await
    };
    let heard_at = reader.heard_at;
    drop(stream);
    match &ended {
        Ended::Frame(error) => info!(node, %error, "closed a node's link"),
        ended => debug!(node, reason = %ended, "a node's link ended"),
    }
    heard.with(connection, |current| current.open = false);
    look_whether_gone(shared, &heard, node, connection, heard_at).await;
    read.judged = true;
}

/// A link that is read. Where that ends before it was found out whether its node is gone (what the broker
/// does with a message may panic, and the task may be dropped), it counts as gone: it must not count as
/// heard for ever.
struct Read<'a, H: PeerHost> {
    shared: &'a Shared<H>,
    heard: &'a Arc<Heard>,
    node: i32,
    connection: u64,
    judged: bool,
}

impl<H: PeerHost> Drop for Read<'_, H> {
    fn drop(&mut self) {
        let Self {
            shared,
            heard,
            node,
            connection,
            judged,
        } = *self;
        if !judged {
            // It may have been busy; a newer link says itself when it is heard.
            let is_newest = heard.with(connection, |current| current.open = false);
            if is_newest.is_some() {
                heard.set(shared.now_ms());
            }
            tell_gone(shared, heard, node, connection);
        }
        forget(shared, node, heard);
    }
}

/// Forgets a node that has no link any more and that nobody named.
fn forget<H: PeerHost>(shared: &Shared<H>, node: i32, heard: &Arc<Heard>) {
    if shared.address(node).is_some() {
        return;
    }
    let mut all = shared.heard.write();
    // The table's and this one: a newer link takes its own while it holds the table.
    if Arc::strong_count(heard) <= 2 {
        all.remove(&node);
    }
}

struct Reader<'a, H> {
    shared: &'a Shared<H>,
    heard: &'a Heard,
    hello: &'a Hello,
    connection: u64,
    replaced: &'a Notify,
    heard_at: Instant,
}

impl<H: PeerHost> Reader<'_, H> {
    async fn read(&mut self, stream: &TcpStream) -> Ended {
        let mut source = Source::new(MAX_FRAME_BYTES);
        let mut timer = pin!(sleep_until(self.heard_at + GONE));
        let host = &*self.shared.host;
        loop {
            if let Err(error) = self.step(&mut source) {
                return error.into();
            }
            if let Some(bytes) = source.wanted() {
                // It waits for us: its silence is ours.
                tokio::select! {
                    biased;
                    () = self.replaced.notified() => return Ended::Replaced,
                    room = self.shared.spare.room(host.memory(), bytes) => source.supply(room),
                }
                self.heard_now();
            }
            tokio::select! {
                biased;
                () = self.replaced.notified() => return Ended::Replaced,
                ready = stream.readable() => match ready.and_then(|()| source.read(stream)) {
                    Ok(0) => return Ended::Closed,
                    Ok(_) => self.heard_now(),
                    Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                    Err(error) => return error.into(),
                },
                () = timer.as_mut() => {
                    let silent = self.heard_at.elapsed();
                    if silent >= SILENCE {
                        return Ended::Silent;
                    }
                    if silent >= GONE {
                        self.gone();
                        timer.as_mut().reset(self.heard_at + SILENCE);
                    } else {
                        timer.as_mut().reset(self.heard_at + GONE);
                    }
                }
            }
        }
    }

    /// Hands on every whole frame that is there, all messages at once: so their groups turn once.
    fn step(&self, source: &mut Source) -> Result<(), FrameError> {
        let node = self.hello.node;
        let mut messages = Vec::new();
        let mut rooms = Vec::new();
        let ended = loop {
            match source.next() {
                Ok(None) => break Ok(()),
                Ok(Some((Frame::Messages(more), room))) => {
                    if messages.is_empty() {
                        messages = more;
                    } else {
                        messages.extend(more);
                    }
                    rooms.push(room);
                }
                Ok(Some((Frame::Announce(body), _))) => {
                    self.hand_on(std::mem::take(&mut messages));
                    self.shared.host.announced(node, body);
                }
                Ok(Some((Frame::Ping, _))) => {}
                Ok(Some(_)) => break Err(FrameError::Value("kind")),
                Err(error) => break Err(error),
            }
        };
        // What came before a bad frame is good.
        self.hand_on(messages);
        ended
    }

    fn hand_on(&self, messages: Vec<PeerMessage>) {
        if messages.is_empty() {
            return;
        }
        self.heard.set_busy();
        self.shared.host.messages(self.hello.node, messages);
        self.heard.set(self.shared.now_ms());
    }

    fn heard_now(&mut self) {
        self.heard_at = Instant::now();
        self.heard.set(self.shared.now_ms());
        let Hello {
            node, incarnation, ..
        } = *self.hello;
        self.heard.with(self.connection, |current| {
            if std::mem::take(&mut current.gone) {
                self.shared.report(Event::Heard(node, incarnation, None));
            }
        });
    }

    fn gone(&self) {
        tell_gone(self.shared, self.heard, self.hello.node, self.connection);
    }
}

/// Tells the broker that a node is gone, once, and unless it has a newer link.
fn tell_gone<H: PeerHost>(shared: &Shared<H>, heard: &Heard, node: i32, connection: u64) {
    heard.with(connection, |current| {
        if !std::mem::replace(&mut current.gone, true) {
            shared.report(Event::Gone(node));
        }
    });
}

/// A node whose link ended is gone where its address refuses a connection, which is how a killed
/// process is known; or a second after it was last heard, unless it has made another link. A process
/// that is being killed may lose its links before its listener, so one good connection says little.
async fn look_whether_gone<H: PeerHost>(
    shared: &Shared<H>,
    heard: &Heard,
    node: i32,
    connection: u64,
    heard_at: Instant,
) {
    let gone_at = heard_at + GONE;
    let mut pause = FIRST_LOOK;
    while heard.with(connection, |current| !current.gone) == Some(true) {
        let refused = match shared.address(node) {
            None => false,
            Some(address) => {
                let dialled = dial::connect(&address).await;
                matches!(dialled, Err(DialError::Io(e)) if e.kind() == ErrorKind::ConnectionRefused)
            }
        };
        if refused || Instant::now() >= gone_at {
            return tell_gone(shared, heard, node, connection);
        }
        sleep_until(gone_at.min(Instant::now() + pause)).await;
        pause *= 2;
    }
}
