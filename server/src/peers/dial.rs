//! Connecting to a node, and both sides of the handshake.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use riverrun_replication::frame::{
    Answered, Frame, FrameError, HEADER_BYTES, Header, Hello, MAX_HELLO_BYTES, Purpose, Refusal,
    RefusalCode,
};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{error::Elapsed, timeout};

use super::link::Address;
use super::{PeerHost, SILENCE};

const CONNECT: Duration = Duration::from_secs(1);
/// From connected to answered.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// Nothing listens there, or it cannot be reached.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It does not answer.
    #[error("no answer in time")]
    TimedOut,
    /// What answered is no node of ours.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// It does not want us.
    #[error("it refused us: {0}")]
    Refused(Refusal),
    /// We do not want it.
    #[error("not accepted: {0}")]
    Unwanted(Refusal),
}

impl From<Elapsed> for DialError {
    fn from(_: Elapsed) -> Self {
        Self::TimedOut
    }
}

/// Opens a socket.
pub(super) async fn connect(to: &Address) -> Result<TcpStream, DialError> {
    let stream = timeout(CONNECT, TcpStream::connect((to.0.as_str(), to.1))).await??;
    // A connection from a free local port to the same port, where nobody listens, reaches itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
    }
    stream.set_nodelay(true)?;
    // A host that fell silent takes no answer back, and the kernel would go on trying for minutes, and
    // long after the host is back.
    set_tcp_user_timeout(&stream, SILENCE.as_millis().try_into().unwrap_or(u32::MAX))
        .map_err(io::Error::from)?;
    Ok(stream)
}

/// Connects and introduces this node; `meant` is the node that shall be there, -1 for any.
pub(super) async fn dial<H: PeerHost>(
    host: &H,
    to: &Address,
    purpose: Purpose,
    meant: i32,
) -> Result<(TcpStream, Hello), DialError> {
    let mut stream = connect(to).await?;
    let hello = Hello {
        purpose,
        meant,
        ..host.local()
    };
    let answered = timeout(HANDSHAKE, async {
        send(&mut stream, Frame::Hello(hello)).await?;
        match receive(&mut stream).await? {
            Frame::HelloAnswer(answered) => Ok::<_, DialError>(answered),
            _ => Err(FrameError::Value("kind").into()),
        }
    });
    let Answered { hello, refusal } = answered.await??;
    if let Some(refusal) = refusal {
        return Err(DialError::Refused(refusal));
    }
    if meant != -1 && hello.node != meant {
        let text = format!("node {} is there, not node {meant}", hello.node);
        return Err(DialError::Unwanted(Refusal::new(RefusalCode::Node, text)));
    }
    same_cluster(host, &hello)
        .and_then(|()| host.admit(&hello))
        .map_err(DialError::Unwanted)?;
    Ok((stream, hello))
}

/// Refuses the node of another cluster.
pub(super) fn same_cluster<H: PeerHost>(host: &H, hello: &Hello) -> Result<(), Refusal> {
    let own = host.local().cluster_id;
    if own.is_nil() || hello.cluster_id.is_nil() || own == hello.cluster_id {
        return Ok(());
    }
    let text = format!(
        "node {} belongs to cluster {}, this one to {own}",
        hello.node, hello.cluster_id
    );
    Err(Refusal::new(RefusalCode::Cluster, text))
}

/// Sends a hello or its answer.
pub(super) async fn send(stream: &mut TcpStream, frame: Frame) -> Result<(), DialError> {
    for segment in frame.encode()? {
        stream.write_all(&segment).await?;
    }
    Ok(())
}

/// Reads a frame of the handshake, and nothing behind it.
pub(super) async fn receive(stream: &mut TcpStream) -> Result<Frame, DialError> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let header = Header::read(header, MAX_HELLO_BYTES)?;
    let mut body = vec![0; header.body_bytes()];
    stream.read_exact(&mut body).await?;
    Ok(header.open(Bytes::from(body))?)
}
