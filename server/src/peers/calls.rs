//! Calls to other nodes: one connection for each, made when it is needed, many calls on it at once.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use riverrun_replication::frame::{Frame, Purpose, Refusal};
use rustc_hash::FxHashMap;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{debug, error};

use super::answering::CALL_FRAME_BYTES;
use super::dial::{self, DialError};
use super::link::Address;
use super::source::{Room, Source};
use super::{PeerHost, Shared};
use crate::watched::Kind;

/// The longest call, and the longest answer.
pub(crate) const MAX_CALL_BYTES: usize = 16 << 20;
/// Calls that wait to be written on one connection; more wait for them.
const MAX_UNWRITTEN: usize = 64;
/// A connection without a call under way is closed after so long. Shorter than the other side waits.
const IDLE: Duration = Duration::from_secs(20);

/// Who is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Callee {
    /// A node that [`super::Peers::set_nodes`] named.
    Node(i32),
    /// Whichever node is there.
    At(Address),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// No address of that node is known.
    #[error("no address of that node is known")]
    Unknown,
    /// There is no connection, and there was none: nothing was asked.
    #[error("{0}")]
    Unreachable(String),
    /// The node does not want this one.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// This one does not want the node that is there.
    #[error("not asked: {0}")]
    Unwanted(Refusal),
    /// It did not answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The connection broke before the answer came.
    #[error("the connection broke before the answer came")]
    Broken,
    /// The question is longer than 16 MiB.
    #[error("a call of {0} bytes is too long")]
    TooLong(usize),
}

impl From<DialError> for CallError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Refused(refusal) => Self::Refused(refusal),
            DialError::Unwanted(refusal) => Self::Unwanted(refusal),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

type Answer = oneshot::Sender<Result<Bytes, CallError>>;

/// The connections that calls are made on.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<FxHashMap<(Callee, Address), Arc<Line>>>);

impl Pool {
    pub(super) fn clear(&self) {
        for (_, line) in self.0.lock().drain() {
            line.close(&CallError::Broken);
        }
    }

    /// The connection to somebody, a new one where there is none.
    fn line<H: PeerHost>(&self, shared: &Arc<Shared<H>>, to: (Callee, Address)) -> Arc<Line> {
        let mut lines = self.0.lock();
        if let Some(line) = lines.get(&to)
            && line.is_open()
        {
            return Arc::clone(line);
        }
        lines.retain(|_, line| line.is_open());
        let (line, unwritten) = Line::new();
        let meant = match to.0 {
            Callee::Node(node) => node,
            Callee::At(_) => -1,
        };
        let address = to.1.clone();
        let task = drive(
            Arc::clone(shared),
            Arc::clone(&line),
            address,
            meant,
            unwritten,
        );
        shared.watch.task(Kind::CallLine, task);
        lines.insert(to, Arc::clone(&line));
        line
    }
}

/// A connection for calls.
#[derive(Debug)]
pub(super) struct Line {
    calls: mpsc::Sender<(u64, Bytes)>,
    /// Who waits for an answer; `None` once the connection takes no more calls.
    waiting: Mutex<Option<FxHashMap<u64, Answer>>>,
    next: AtomicU64,
}

impl Line {
    /// A connection to be driven, and the calls that are to be written on it.
    pub(super) fn new() -> (Arc<Self>, mpsc::Receiver<(u64, Bytes)>) {
        let (calls, unwritten) = mpsc::channel(MAX_UNWRITTEN);
        let line = Self {
            calls,
            waiting: Mutex::new(Some(FxHashMap::default())),
            next: AtomicU64::new(0),
        };
        (Arc::new(line), unwritten)
    }

    fn is_open(&self) -> bool {
        self.waiting.lock().is_some()
    }

    /// Ends the connection; whoever waits is told why.
    fn close(&self, why: &CallError) {
        let waiting = self.waiting.lock().take();
        for (_, answer) in waiting.into_iter().flatten() {
            let _ = answer.send(Err(why.clone()));
        }
    }

    /// Ends the connection if nobody waits for an answer.
    fn close_if_idle(&self) -> bool {
        let mut waiting = self.waiting.lock();
        let idle = waiting.as_ref().is_none_or(FxHashMap::is_empty);
        if idle {
            *waiting = None;
        }
        idle
    }

    fn answered(&self, request: u64, body: Bytes) {
        let answer = self
            .waiting
            .lock()
            .as_mut()
            .and_then(|w| w.remove(&request));
        if let Some(answer) = answer {
            let _ = answer.send(Ok(body));
        }
    }

    /// Asks, if the connection still takes calls.
    pub(super) async fn ask(&self, body: Bytes) -> Option<Result<Bytes, CallError>> {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().as_mut()?.insert(request, answer);
        let _forget = Forget(self, request);
        // Where it fails the connection has ended, which is the answer.
        let _ = self.calls.send((request, body)).await;
        Some(answered.await.unwrap_or(Err(CallError::Broken)))
    }
}

/// A call that nobody waits for any more, however the waiting ends.
struct Forget<'a>(&'a Line, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.0.waiting.lock().as_mut() {
            waiting.remove(&self.1);
        }
    }
}

/// See [`super::Peers::call`].
pub(super) async fn call<H: PeerHost>(
    shared: &Arc<Shared<H>>,
    pool: &Pool,
    callee: Callee,
    body: Bytes,
    within: Duration,
) -> Result<Bytes, CallError> {
    if body.len() > MAX_CALL_BYTES {
        return Err(CallError::TooLong(body.len()));
    }
    let address = match &callee {
        Callee::Node(node) => shared.address(*node).ok_or(CallError::Unknown)?,
        Callee::At(address) => address.clone(),
    };
    let ask = async {
        loop {
            let line = pool.line(shared, (callee.clone(), address.clone()));
            // It may have gone idle this moment; the next one is new.
            if let Some(answer) = line.ask(body.clone()).await {
                return answer;
            }
        }
    };
    timeout(within, ask)
        .await
        .unwrap_or(Err(CallError::TimedOut))
}

/// Drives a connection until it ends. When what is returned is dropped, whether or not it was ever polled,
/// whoever waits is told.
pub(super) fn drive<H: PeerHost>(
    shared: Arc<Shared<H>>,
    line: Arc<Line>,
    address: Address,
    meant: i32,
    unwritten: mpsc::Receiver<(u64, Bytes)>,
) -> impl Future<Output = ()> + Send {
    let driven = Driven(line);
    async move {
        let line = &driven.0;
        let mut stop = shared.stop.subscribe();
        let talk = async {
            match dial::dial(&*shared.host, &address, Purpose::Calls, meant).await {
                Ok((stream, _)) => talk(line, stream, unwritten).await,
                Err(error) => line.close(&error.into()),
            }
        };
        tokio::select! {
            () = talk => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

/// However the task ends, whoever waits is told.
struct Driven(Arc<Line>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.close(&CallError::Broken);
    }
}

async fn talk(line: &Line, stream: TcpStream, unwritten: mpsc::Receiver<(u64, Bytes)>) {
    let (read, write) = stream.into_split();
    tokio::select! {
        () = ask(write, unwritten) => {}
        () = listen(line, read) => {}
        () = idle(line) => {}
    }
}

async fn idle(line: &Line) {
    loop {
        let before = line.next.load(Ordering::Relaxed);
        sleep(IDLE).await;
        if line.next.load(Ordering::Relaxed) == before && line.close_if_idle() {
            return;
        }
    }
}

async fn ask(mut stream: OwnedWriteHalf, mut unwritten: mpsc::Receiver<(u64, Bytes)>) {
    while let Some((request, body)) = unwritten.recv().await {
        let segments = match (Frame::Call { request, body }).encode() {
            Ok(segments) => segments,
            // Whoever waits on the line is told that it has ended.
            Err(error) => return error!(%error, "a call cannot be written"),
        };
        for segment in segments {
            if let Err(error) = stream.write_all(&segment).await {
                return debug!(%error, "a call could not be written");
            }
        }
    }
}

async fn listen(line: &Line, stream: OwnedReadHalf) {
    let mut source = Source::new(CALL_FRAME_BYTES);
    loop {
        match source.next() {
            Ok(Some((Frame::Answer { request, body }, _))) => {
                line.answered(request, body);
                continue;
            }
            Ok(Some(_)) => return debug!("a node answered a call with something else"),
            Ok(None) => {}
            Err(error) => return debug!(%error, "a node's answer cannot be read"),
        }
        if source.wanted().is_some() {
            // Answers to our own questions: few, and bounded by them.
            source.supply(Room::default());
        }
        let stream = stream.as_ref();
        match stream.readable().await.and_then(|()| source.read(stream)) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return debug!(%error, "a connection for calls broke"),
        }
    }
}
