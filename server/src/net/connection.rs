//! One connection: its socket, its answer slots, and the task that reads it.
//!
//! The task reads once per wake-up, hands every complete request of that read to the API table
//! and only then awaits again. Answers are written by whoever completes them; the task writes
//! only what the socket did not take. It reads nothing while answers cannot be written, so a
//! client that does not read its answers stops being served and costs no memory.

use std::cell::RefCell;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BufMut;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use rustix::net::{Shutdown, shutdown};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tracing::{debug, info};

use super::answer::{Answer, Socket};
use super::answers::{Answers, Pumped};
use super::burst;
use super::frames::{Assembler, Frame, Unfinished};
use super::memory::{Lease, SMALL_BYTES};
use crate::broker::Broker;
use crate::kafka::fetch::Parked;
use crate::kafka::produce::Outstanding;

/// Unanswered requests of one connection before its task stops reading.
const MAX_UNANSWERED: usize = 256;
/// Bytes of unanswered produces of one connection before its task stops reading: enough to keep a
/// flush round busy, little enough that a few clients cannot fill a partition's uncommitted tail.
const MAX_UNANSWERED_BYTES: usize = 8 << 20;
/// The buffer that every read without a long body goes through; one per thread.
const READ_BYTES: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// What a slot keeps of a request that waits for its answer.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) what: Pending,
    /// The memory of the request, given back with the answer.
    _lease: Lease,
}

/// Who will answer.
#[derive(Debug)]
pub(crate) enum Pending {
    /// The shards, partition by partition.
    Produce(Box<Outstanding>),
    /// A commit on one of the partitions, or the deadline.
    Fetch(Arc<Parked>),
    /// A task of its own.
    Task,
}

/// How long a connection may be silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    /// From connecting to the first byte.
    pub(crate) first_byte: Duration,
    /// Between requests.
    pub(crate) idle: Duration,
    /// For the rest of a frame that has begun, besides the time that what has come of it takes at
    /// [`SLOWEST_BYTES_PER_S`].
    pub(crate) frame: Duration,
    /// For any byte of a large frame while others wait for the memory that it holds.
    pub(crate) held: Duration,
    /// For the socket to take anything of an answer.
    pub(crate) stall: Duration,
}

/// How long the client of a connection that is closed behind an answer may take to read it, and what
/// else was asked may take to be answered.
const LEAVE: Duration = Duration::from_millis(500);
/// What is read at once of what such a client has sent since.
const DROPPED_BYTES: usize = 4 << 10;

const SLOWEST_BYTES_PER_S: u64 = 64 << 10;

/// One client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    id: u64,
    stream: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    opened: Instant,
    answers: Answers<Waiting, Answer>,
    /// Set before `attention` is notified; what others leave for the task.
    attention: Notify,
    broken: AtomicBool,
    /// The task waits for the last answers to be written.
    draining: AtomicBool,
    /// It is to be closed behind what has been asked.
    sent_away: AtomicBool,
    client: Mutex<Option<Arc<str>>>,
}

impl Connection {
    pub(crate) fn new(id: u64, stream: TcpStream, peer: SocketAddr) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        Ok(Self {
            id,
            stream,
            peer,
            local,
            opened: Instant::now(),
            answers: Answers::new(MAX_UNANSWERED, MAX_UNANSWERED_BYTES),
            attention: Notify::new(),
            broken: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            sent_away: AtomicBool::new(false),
            client: Mutex::new(None),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The address that the client reached us by.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    /// What the client calls itself.
    pub(crate) fn client(&self) -> Option<Arc<str>> {
        self.client.lock().clone()
    }

    /// Remembers what the client calls itself, for the log.
    pub(crate) fn set_client(&self, name: &str) {
        *self.client.lock() = Some(Arc::from(name));
    }

    /// Opens the slot of the request being stepped. Only the connection's own task does.
    pub(crate) fn open(&self, what: Pending, lease: Lease, weight: usize) -> u64 {
        self.answers.open(
            Waiting {
                what,
                _lease: lease,
            },
            weight,
        )
    }

    /// Posts an answer and sees to it that it is written.
    pub(crate) fn answer(self: &Arc<Self>, request: u64, answer: Answer) {
        self.complete(request, |_| Some(answer));
    }

    /// Lets `f` look at a waiting request and perhaps answer it.
    pub(crate) fn complete(
        self: &Arc<Self>,
        request: u64,
        f: impl FnOnce(&mut Waiting) -> Option<Answer>,
    ) {
        if self.answers.post(request, f) {
            burst::answered(self);
        }
    }

    /// Writes what is ready; what the socket does not take is left to the connection's task.
    pub(crate) fn pump_from_outside(&self) {
        let (pumped, room) = self.answers.pump(&Socket(&self.stream));
        if pumped == Pumped::Broken {
            self.broken.store(true, Ordering::SeqCst);
        }
        let last = self.draining.load(Ordering::SeqCst);
        if room || last || matches!(pumped, Pumped::Left | Pumped::Broken) {
            self.attention.notify_one();
        }
    }

    /// The same on the connection's own task, which needs no waking.
    fn pump(&self) -> Pumped {
        self.answers.pump(&Socket(&self.stream)).0
    }

    /// Answers the produces whose time is over.
    fn expire_produces(self: &Arc<Self>, now: Instant) {
        let mut over = Vec::new();
        self.answers.each_waiting(|request, waiting| {
            if let Pending::Produce(produce) = &waiting.what
                && produce.deadline() <= now
            {
                over.push(request);
            }
        });
        for request in over {
            self.complete(request, |waiting| match &mut waiting.what {
                Pending::Produce(produce) => Some(produce.expire()),
                _ => None,
            });
        }
    }

    /// The parked fetches and their deadlines.
    fn parked(&self) -> Vec<(u64, Arc<Parked>)> {
        let mut parked = Vec::new();
        self.answers.each_waiting(|request, waiting| {
            if let Pending::Fetch(fetch) = &waiting.what {
                parked.push((request, Arc::clone(fetch)));
            }
        });
        parked
    }

    /// Lets the task look at the deadlines of what waits again.
    pub(crate) fn look_again(&self) {
        self.attention.notify_one();
    }

    /// Has the connection closed when what has been asked is answered. Comes before the answer that it
    /// is closed behind, whose slot is open by the time that the task looks.
    pub(crate) fn send_away(&self) {
        self.sent_away.store(true, Ordering::SeqCst);
        self.attention.notify_one();
    }

    /// Ends the connection from outside; its task does the rest.
    pub(crate) fn hang_up(&self) {
        self.broken.store(true, Ordering::SeqCst);
        self.attention.notify_one();
    }
}

/// The connections by id, for whoever completes a request by its ticket.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    by_id: RwLock<FxHashMap<u64, Arc<Connection>>>,
}

impl Connections {
    pub(crate) fn get(&self, id: u64) -> Option<Arc<Connection>> {
        self.by_id.read().get(&id).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.read().len()
    }

    pub(crate) fn insert(&self, connection: Arc<Connection>) {
        self.by_id.write().insert(connection.id, connection);
    }

    pub(crate) fn hang_up_all(&self) {
        for connection in self.by_id.read().values() {
            connection.hang_up();
        }
    }

    fn remove(&self, id: u64) {
        self.by_id.write().remove(&id);
    }
}

/// Why a task stops serving its connection.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("closed by the client")]
    Eof,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] super::frames::FrameError),
    #[error("{0}")]
    Refused(#[from] crate::kafka::Refusal),
    #[error("{0}")]
    Silent(&'static str),
    #[error("drained")]
    Drained,
    #[error("this node hears no majority of the cluster, and nobody leads what was asked for")]
    SentAway,
    #[error("closed while answering")]
    Broken,
}

/// Serves a connection until it ends. From now on it is known, and forgotten when what is returned is
/// dropped, whether or not that was ever polled.
pub(crate) fn serve(
    broker: Arc<Broker>,
    connection: Arc<Connection>,
) -> impl Future<Output = ()> + Send {
    broker.connections().insert(Arc::clone(&connection));
    let known = Known { broker, connection };
    async move { known.serve().await }
}

/// A connection that is known. What is left of it goes when its task ends, however it does.
struct Known {
    broker: Arc<Broker>,
    connection: Arc<Connection>,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.broker.connections().remove(self.connection.id);
        for (_, fetch) in self.connection.parked() {
            fetch.forget();
        }
        self.connection.answers.close();
    }
}

impl Known {
    async fn serve(&self) {
        let Self { broker, connection } = self;
        let stop = broker.watch().draining();
        let mut task = Task {
            broker,
            connection,
            assembler: Assembler::new(broker.config().max_request_bytes),
            blocked_since: None,
            draining: false,
            leaves_at: None,
            heard_at: Instant::now(),
            frame_since: None,
            heard_anything: false,
        };
        if let Some(until) = broker.held_until(connection) {
            let mut stop = stop.clone();
            let _ = timeout_at(until, stop.wait_for(|stop| *stop)).await;
            task.heard_at = Instant::now();
        }
        let ended = task.run(stop).await;
        match ended {
            Ended::Eof | Ended::Drained | Ended::Broken | Ended::Io(_) => {
                debug!(peer = %connection.peer, reason = %ended, "connection ended");
            }
            Ended::Frame(_) | Ended::Refused(_) | Ended::Silent(_) | Ended::SentAway => {
                let client = connection.client();
                let client = client.as_deref().unwrap_or("unknown");
                if let Some(left_out) = broker.refused_log().take(Instant::now()) {
                    info!(peer = %connection.peer, client, reason = %ended, left_out, "closed a connection");
                }
            }
        }
    }
}

struct Task<'a> {
    broker: &'a Arc<Broker>,
    connection: &'a Arc<Connection>,
    assembler: Assembler,
    /// Since when the socket has taken nothing of what is left for it.
    blocked_since: Option<Instant>,
    draining: bool,
    /// When it ends at the latest, once it is to be closed behind its answers.
    leaves_at: Option<Instant>,
    heard_at: Instant,
    heard_anything: bool,
    /// When the frame that is being read began.
    frame_since: Option<Instant>,
}

impl Task<'_> {
    async fn run(&mut self, mut stop: watch::Receiver<bool>) -> Ended {
        let mut timer = pin!(sleep_until(self.heard_at + self.deadlines().first_byte));
        let budget = self.broker.budget();
        // Kept over everything else that happens meanwhile, or the place in the queue would be lost.
        let mut memory = None;
        loop {
            if self.connection.broken.load(Ordering::SeqCst) {
                return Ended::Broken;
            }
            if self.leaves_at.is_none() && self.connection.sent_away.load(Ordering::SeqCst) {
                self.leaves_at = Some(Instant::now() + LEAVE);
                self.drain();
            }
            if self.draining && self.connection.answers.is_empty() {
                return self.end().await;
            }
            self.arm(timer.as_mut());
            let interest = self.interest();
            if let (None, Some(bytes)) = (&memory, self.assembler.wanted()) {
                memory = Some(Box::pin(budget.reserve(bytes)));
            }
            tokio::select! {
                biased;
                () = self.connection.attention.notified() => self.pump(),
                lease = reserved(&mut memory), if !self.draining => {
                    memory = None;
                    if let Err(ended) = self.supply(lease) {
                        return ended;
                    }
                }
                ready = ready(&self.connection.stream, interest) => {
                    let ready = match ready {
                        Ok(ready) => ready,
                        Err(error) => return Ended::Io(error),
                    };
                    if ready.is_writable() && self.blocked_since.take().is_some() {
                        self.pump();
                    }
                    if interest.is_some_and(Interest::is_readable)
                        && (ready.is_readable() || ready.is_read_closed())
                        && let Err(ended) = self.read()
                    {
                        return ended;
                    }
                }
                () = timer.as_mut() => {
                    if let Err(ended) = self.expire() {
                        return ended;
                    }
                }
                _ = stop.wait_for(|stop| *stop), if !self.draining => {
                    self.drain();
                }
            }
        }
    }

    /// Reads nothing any more, and answers what waits with what is there.
    fn drain(&mut self) {
        self.draining = true;
        self.connection.draining.store(true, Ordering::SeqCst);
        self.answer_parked(None);
    }

    /// All that was asked is answered. What the client has sent since is read and dropped: a socket that
    /// is closed over it takes the answers back.
    async fn end(&self) -> Ended {
        let Some(until) = self.leaves_at else {
            return Ended::Drained;
        };
        let stream = &self.connection.stream;
        if shutdown(stream, Shutdown::Write).is_ok() {
            let left = async {
                let mut dropped = vec![0; DROPPED_BYTES];
                while stream.readable().await.is_ok() {
                    match stream.try_read(&mut dropped) {
                        Ok(0) => return,
                        Ok(_) => {}
                        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    }
                }
            };
            let _ = timeout_at(until, left).await;
        }
        Ended::SentAway
    }

    fn deadlines(&self) -> Deadlines {
        self.broker.config().deadlines()
    }

    fn pump(&mut self) {
        match self.connection.pump() {
            Pumped::Idle | Pumped::Busy => self.blocked_since = None,
            Pumped::Left => {
                self.blocked_since.get_or_insert_with(Instant::now);
            }
            Pumped::Broken => self.connection.broken.store(true, Ordering::SeqCst),
        }
    }

    fn interest(&self) -> Option<Interest> {
        if self.blocked_since.is_some() {
            Some(Interest::WRITABLE)
        } else if !self.draining
            && self.assembler.wanted().is_none()
            && self.connection.answers.has_room()
        {
            Some(Interest::READABLE)
        } else {
            None
        }
    }

    /// One read, and every complete request in it.
    fn read(&mut self) -> Result<(), Ended> {
        let connection = self.connection;
        let broker = self.broker;
        let assembler = &mut self.assembler;
        let mut frames = Vec::new();
        let mut on_frame = |frame: Frame| frames.push(frame);
        let read = if let Some((buf, missing)) = assembler.space() {
            let read = connection.stream.try_read_buf(&mut buf.limit(missing));
            assembler.filled(&mut on_frame);
            read
        } else {
            SCRATCH
                .with_borrow_mut(|scratch| {
                    // What comes behind a body without memory is kept: nothing but its length does
                    // while memory is short.
                    let most = if broker.budget().is_short() {
                        assembler.missing_of_length()
                    } else {
                        scratch.len()
                    };
                    let scratch = scratch.get_mut(..most).unwrap_or_default();
                    let read = connection.stream.try_read(scratch)?;
                    Ok(assembler
                        .feed(
                            scratch.get(..read).unwrap_or_default(),
                            broker.budget(),
                            &mut on_frame,
                        )
                        .map(|()| read))
                })
                .and_then(|fed: Result<usize, _>| fed.map_err(io::Error::other))
        };
        let refused = match read {
            Ok(0) => return Err(Ended::Eof),
            Ok(_) => None,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            // What came before a refused length is still served.
            Err(e) => match e.downcast::<super::frames::FrameError>() {
                Ok(refused) => Some(refused),
                Err(error) => return Err(error.into()),
            },
        };
        self.heard(!frames.is_empty());
        self.step(frames)?;
        refused.map_or(Ok(()), |refused| Err(refused.into()))
    }

    fn heard(&mut self, whole_frames: bool) {
        let now = Instant::now();
        self.heard_at = now;
        self.heard_anything = true;
        match self.assembler.unfinished() {
            Some(_) if self.frame_since.is_none() || whole_frames => self.frame_since = Some(now),
            Some(_) => {}
            None => self.frame_since = None,
        }
    }

    fn step(&self, frames: Vec<Frame>) -> Result<(), Ended> {
        burst::run(self.broker, || {
            for frame in frames {
                crate::kafka::step(self.broker, self.connection, frame)?;
            }
            Ok(())
        })
    }

    /// Goes on with a frame whose memory was waited for.
    fn supply(&mut self, lease: Lease) -> Result<(), Ended> {
        let mut frames = Vec::new();
        let supplied = self
            .assembler
            .supply(lease, self.broker.budget(), &mut |frame| frames.push(frame));
        self.heard(true);
        self.step(frames)?;
        Ok(supplied?)
    }

    /// The timer is only ever moved to an earlier time here; when it fires too early it is set
    /// anew. So a consumer that polls thousands of times a second moves it twice a second.
    fn arm(&self, timer: std::pin::Pin<&mut Sleep>) {
        let mut next = self.silent_until();
        self.connection
            .answers
            .each_waiting(|_, waiting| match &waiting.what {
                Pending::Fetch(fetch) => next = next.min(fetch.deadline().unwrap_or(next)),
                Pending::Produce(produce) => next = next.min(produce.deadline()),
                Pending::Task => {}
            });
        if next < timer.deadline() || timer.is_elapsed() {
            timer.reset(next);
        }
    }

    fn silent_until(&self) -> Instant {
        if let Some(leaves_at) = self.leaves_at {
            return leaves_at;
        }
        let deadlines = self.deadlines();
        if let Some(since) = self.blocked_since {
            return since + deadlines.stall;
        }
        match (self.frame_since, self.assembler.unfinished()) {
            (Some(since), Some(frame)) => {
                // Looked at again and again, as others may come to want what it holds.
                let over = self.frame_is_over(since, frame);
                if frame.claimed > SMALL_BYTES {
                    over.min(Instant::now() + deadlines.held)
                } else {
                    over
                }
            }
            _ if self.heard_anything => self.heard_at + deadlines.idle,
            _ => self.heard_at + deadlines.first_byte,
        }
    }

    /// When a frame that began then has had all its time: what has come of it counts, not its claim.
    fn frame_is_over(&self, since: Instant, frame: Unfinished) -> Instant {
        let taken = Duration::from_secs(frame.received as u64 / SLOWEST_BYTES_PER_S);
        since + self.deadlines().frame + taken
    }

    /// Whether the frame that is being read holds memory that others wait for, and nothing comes of it.
    fn holds_back_others(&self, now: Instant) -> bool {
        self.assembler
            .unfinished()
            .is_some_and(|frame| frame.claimed > SMALL_BYTES)
            && self.broker.budget().large_is_wanted()
            && now >= self.heard_at + self.deadlines().held
    }

    fn expire(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        self.answer_parked(Some(now));
        let waits_for_memory = self.assembler.wanted().is_some();
        if self.blocked_since.is_none() && !waits_for_memory && self.holds_back_others(now) {
            return Err(Ended::Silent("it holds memory that others wait for"));
        }
        if now < self.silent_until() {
            return Ok(());
        }
        if self.leaves_at.is_some() {
            return Err(Ended::SentAway);
        }
        if self.blocked_since.is_some() {
            return Err(Ended::Silent("it does not read its answers"));
        }
        if waits_for_memory {
            // It waits for us, not we for it.
            self.frame_since = Some(now);
            return Ok(());
        }
        if self.frame_since.is_some() {
            return Err(Ended::Silent("the rest of a request did not come in time"));
        }
        if !self.heard_anything {
            return Err(Ended::Silent("no request came after connecting"));
        }
        if self.connection.answers.is_empty() {
            return Err(Ended::Silent("idle"));
        }
        // It waits for us, not we for it.
        self.heard_at = now;
        Ok(())
    }

    /// Answers the parked fetches whose time is over, or all of them, with what is there.
    fn answer_parked(&self, now: Option<Instant>) {
        burst::run(self.broker, || {
            if let Some(now) = now {
                self.connection.expire_produces(now);
            }
            for (_, fetch) in self.connection.parked() {
                if now.is_none_or(|now| fetch.deadline().is_some_and(|until| until <= now)) {
                    fetch.expire(self.broker);
                }
            }
        });
    }
}

/// The memory that is waited for, if any is.
async fn reserved(memory: &mut Option<impl Future<Output = Lease> + Unpin>) -> Lease {
    match memory {
        Some(memory) => memory.await,
        None => pending().await,
    }
}

async fn ready(stream: &TcpStream, interest: Option<Interest>) -> io::Result<tokio::io::Ready> {
    match interest {
        Some(interest) => stream.ready(interest).await,
        None => pending().await,
    }
}
