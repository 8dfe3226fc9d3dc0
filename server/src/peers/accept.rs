//! Who connects: bounded until it has introduced itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use riverrun_replication::frame::{
    Answered, Frame, FrameError, Hello, Purpose, Refusal, RefusalCode,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::dial::{self, DialError};
use super::{PeerHost, Peers, Shared, answering, receive};
use crate::watched::Kind;

/// Connections that have not introduced themselves.
const MAX_GREETING: usize = 256;
/// Links, and as many connections for calls.
const MAX_OF_A_PURPOSE: usize = 256;
/// How long an introduction, and its answer, may take.
const GREETING: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
/// Pause after a failed accept; most often the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts nodes until `stop`, or until the links are stopped; then ends their connections.
pub(crate) async fn serve<H: PeerHost>(listener: TcpListener, peers: Arc<Peers<H>>) {
    let shared = Arc::clone(&peers.shared);
    drop(peers);
    let mut stop = shared.watch.draining();
    let mut stopped = shared.stop.subscribe();
    let greeting = Arc::new(Semaphore::new(MAX_GREETING));
    let [links, callers] = [(); 2].map(|()| Arc::new(Semaphore::new(MAX_OF_A_PURPOSE)));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            _ = stopped.wait_for(|stop| *stop) => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a node's connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&greeting).try_acquire_owned() else {
            if let Some(left_out) = shared.refusals.take(Instant::now()) {
                info!(%peer, left_out, "closed a connection: too many have not said who they are");
            }
            continue;
        };
        let guest = Guest {
            peer,
            links: Arc::clone(&links),
            callers: Arc::clone(&callers),
        };
        let welcome = guest.welcome(Arc::clone(&shared), stream, permit);
        shared
            .watch
            .in_set(&mut tasks, Kind::NodeConnection, welcome);
    }
    drop(listener);
    tasks.shutdown().await;
}

/// Somebody who connected.
struct Guest {
    peer: SocketAddr,
    links: Arc<Semaphore>,
    callers: Arc<Semaphore>,
}

impl Guest {
    async fn welcome<H: PeerHost>(
        self,
        shared: Arc<Shared<H>>,
        mut stream: TcpStream,
        permit: OwnedSemaphorePermit,
    ) {
        let greeted = timeout(GREETING, self.greet(&shared, &mut stream)).await;
        drop(permit);
        let hello = match greeted.map_err(DialError::from).flatten() {
            Ok(hello) => hello,
            // It went away without a word of its own: whoever looks whether this node lives does.
            Err(error @ DialError::Io(_)) => {
                return debug!(peer = %self.peer, %error, "it went away");
            }
            Err(error) => {
                if let Some(left_out) = shared.refusals.take(Instant::now()) {
                    info!(peer = %self.peer, %error, left_out, "closed a connection to the node port");
                }
                return;
            }
        };
        let places = match hello.purpose {
            Purpose::Link => self.links,
            Purpose::Calls => self.callers,
        };
        let Ok(_place) = places.try_acquire_owned() else {
            return warn!(peer = %self.peer, "closed a connection of a node: there are too many");
        };
        match hello.purpose {
            Purpose::Link => receive::run(&shared, hello, stream).await,
            Purpose::Calls => answering::run(&shared, hello, stream).await,
        }
    }

    /// Reads the introduction and answers it.
    async fn greet<H: PeerHost>(
        &self,
        shared: &Shared<H>,
        stream: &mut TcpStream,
    ) -> Result<Hello, DialError> {
        stream.set_nodelay(true)?;
        let (hello, judged) = match dial::receive(stream).await {
            Ok(Frame::Hello(hello)) => {
                let judged = judge(&*shared.host, &hello);
                (Some(hello), judged)
            }
            Ok(_) => return Err(FrameError::Value("kind").into()),
            // A good frame of somebody else, or of another version: told so.
            Err(DialError::Frame(error @ (FrameError::Version(_) | FrameError::Magic))) => {
                let refusal = Refusal::new(RefusalCode::Version, error.to_string());
                (None, Err(refusal))
            }
            Err(error) => return Err(error),
        };
        let mut own = shared.host.local();
        if let Some(hello) = &hello {
            own.purpose = hello.purpose;
            own.meant = hello.node;
        }
        let answer = Answered {
            hello: own,
            refusal: judged.clone().err(),
        };
        dial::send(stream, Frame::HelloAnswer(answer)).await?;
        judged.map_err(DialError::Unwanted)?;
        hello.ok_or(DialError::Frame(FrameError::Magic))
    }
}

fn judge<H: PeerHost>(host: &H, hello: &Hello) -> Result<(), Refusal> {
    dial::same_cluster(host, hello)?;
    let own = host.local().node;
    let wrong = |text| Err(Refusal::new(RefusalCode::Node, text));
    if hello.meant != -1 && hello.meant != own {
        return wrong(format!("this is node {own}, not node {}", hello.meant));
    }
    if hello.purpose == Purpose::Link && hello.node < 0 {
        return wrong("a link is between nodes that have an id".to_owned());
    }
    if hello.purpose == Purpose::Link && hello.node == own {
        return wrong(format!(
            "this is node {own}, too: no two may have the same id"
        ));
    }
    host.admit(hello)
}
