//! An accepted connection for calls: each is handed to the broker, and answered when it is done.

use std::future::pending;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use riverrun_replication::frame::{Frame, FrameError, HEADER_BYTES, Hello};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info};

use super::calls::MAX_CALL_BYTES;
use super::source::{Room, Source, room_of_call};
use super::{PeerHost, Shared};
use crate::watched::Kind;

/// Calls of one connection that are being answered; more are not read.
const MAX_AT_ONCE: usize = 64;
/// A caller that asks nothing for so long is hung up on.
const IDLE: Duration = Duration::from_secs(60);
/// How long a caller may take nothing of an answer.
const STALL: Duration = Duration::from_secs(5);
/// What a call takes in its frame beside its bytes: kind and request id.
pub(super) const CALL_FRAME_BYTES: usize = MAX_CALL_BYTES + HEADER_BYTES + 1 + 8;

#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("closed by the caller")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("idle")]
    Idle,
    #[error("the caller does not read its answers")]
    Stalled,
}

/// Answers calls until the connection ends; those under way then are given up.
pub(super) async fn run<H: PeerHost>(shared: &Arc<Shared<H>>, hello: Hello, mut stream: TcpStream) {
    let node = hello.node;
    match answer(shared, hello, &mut stream).await {
        Ended::Frame(error) => info!(node, %error, "closed a connection for calls"),
        ended => debug!(node, reason = %ended, "a connection for calls ended"),
    }
}

async fn answer<H: PeerHost>(
    shared: &Arc<Shared<H>>,
    hello: Hello,
    stream: &mut TcpStream,
) -> Ended {
    let mut source = Source::new(CALL_FRAME_BYTES);
    let mut calls: JoinSet<(u64, Bytes)> = JoinSet::new();
    let mut heard_at = Instant::now();
    // Kept over everything else that happens meanwhile, or the place in the queue would be lost.
    let mut memory = None;
    loop {
        while calls.len() < MAX_AT_ONCE {
            match source.next() {
                Ok(Some((Frame::Call { request, body }, room))) => {
                    let host = Arc::clone(&shared.host);
                    let hello = hello.clone();
                    let call = carry_out(host, hello, request, (body, room));
                    shared.watch.in_set(&mut calls, Kind::Call, call);
                }
                Ok(Some(_)) => return FrameError::Value("kind").into(),
                Ok(None) => break,
                Err(error) => return error.into(),
            }
        }
        let reads = calls.len() < MAX_AT_ONCE;
        if let (None, Some(bytes)) = (&memory, source.wanted().filter(|_| reads)) {
            memory = Some(Box::pin(room_of_call(shared.host.memory(), bytes)));
        }
        let waits = memory.is_some();
        tokio::select! {
            Some(done) = calls.join_next(), if !calls.is_empty() => {
                heard_at = Instant::now();
                // One that panicked has no answer; its caller's time runs out.
                if let Ok((request, body)) = done
                    && let Err(ended) = write(stream, request, body).await
                {
                    return ended;
                }
            }
            room = reserved(&mut memory) => {
                memory = None;
                source.supply(room);
            }
            ready = stream.readable(), if reads && !waits => {
                match ready.and_then(|()| source.read(stream)) {
                    Ok(0) => return Ended::Closed,
                    Ok(_) => heard_at = Instant::now(),
                    Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                    Err(error) => return error.into(),
                }
            }
            () = sleep_until(heard_at + IDLE), if calls.is_empty() && !waits => {
                return Ended::Idle;
            }
        }
    }
}

/// The memory that is waited for, if any is.
async fn reserved(memory: &mut Option<impl Future<Output = Room> + Unpin>) -> Room {
    match memory {
        Some(memory) => memory.await,
        None => pending().await,
    }
}

async fn carry_out<H: PeerHost>(
    host: Arc<H>,
    hello: Hello,
    request: u64,
    (body, _room): (Bytes, Room),
) -> (u64, Bytes) {
    (request, host.call(hello, body).await)
}

async fn write(stream: &mut TcpStream, request: u64, body: Bytes) -> Result<(), Ended> {
    for segment in (Frame::Answer { request, body }).encode()? {
        let mut rest = segment;
        while !rest.is_empty() {
            let written = timeout(STALL, stream.write_buf(&mut rest));
            if written.await.map_err(|_| Ended::Stalled)?? == 0 {
                return Err(Ended::Closed);
            }
        }
    }
    Ok(())
}
