//! Accepts connections.
//!
//! There is no authentication yet, so an address that is not loopback is refused unless the
//! operator asked for it by name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::connection::{self, Connection};
use crate::broker::Broker;
use crate::error::StartError;
use crate::watched::Kind;

const BACKLOG: u32 = 1024;
/// Pause after a failed accept; most often the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds `address`, or says why it is refused.
pub(crate) fn bind(address: SocketAddr, insecure: bool) -> Result<TcpListener, StartError> {
    if !address.ip().is_loopback() {
        if !insecure {
            return Err(StartError::NotLoopback { address });
        }
        warn!(%address, "listening without authentication on an address that others can reach");
    }
    let bind = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|source| StartError::Bind { address, source })
}

/// Accepts until `stop`, then waits until every connection is drained.
pub(crate) async fn accept(broker: Arc<Broker>, listener: TcpListener) {
    let mut stop = broker.watch().draining();
    let mut tasks = JoinSet::new();
    let mut next_id = 1_u64;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let open = broker.connections().len();
        if open >= broker.config().max_connections {
            info!(%peer, "refused a connection: max.connections are open");
            continue;
        }
        // The rest is for files and for other nodes: what exists goes on.
        if open >= broker.descriptors().connections() {
            info!(%peer, open, "refused a connection: the limit of open files allows no more (ulimit -n)");
            continue;
        }
        let connection = match Connection::new(next_id, stream, peer) {
            Ok(connection) => Arc::new(connection),
            Err(_gone_already) => continue,
        };
        next_id += 1;
        let serving = connection::serve(Arc::clone(&broker), connection);
        broker.watch().in_set(&mut tasks, Kind::Connection, serving);
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}
