//! What the process may have open, and what it says of it: to the controller, which orders no replica more
//! than there is room for, and to whoever accepts connections.

use std::sync::OnceLock;

use riverrun_replication::controller::Room;
use riverrun_storage::descriptors::Shares;
use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// The limit that this process runs under, once it is known.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    limit: OnceLock<Option<u64>>,
}

impl Descriptors {
    /// Takes as many as the process may have: the usual limit is meant for programs that `select`.
    pub(crate) fn take(&self) {
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            limit.current = limit.maximum;
            if let Err(error) = setrlimit(Resource::Nofile, limit) {
                warn!(%error, "the limit of open files cannot be raised");
            }
        }
        let _ = self.limit.set(getrlimit(Resource::Nofile).current);
    }

    /// `None` where nothing limits it.
    fn shares(&self) -> Option<(u64, Shares)> {
        let limit = self.limit.get().copied().flatten()?;
        Some((limit, Shares::of(limit)))
    }

    /// What the controller is told.
    pub(crate) fn room(&self) -> Option<Room> {
        let (descriptors, shares) = self.shares()?;
        Some(Room {
            descriptors,
            // That of group 0 is nobody's to order.
            replicas: u32::try_from(shares.replicas - 1).unwrap_or(u32::MAX),
        })
    }

    /// Replicas that may be open at once.
    pub(crate) fn replicas(&self) -> usize {
        self.shares().map_or(usize::MAX, |(_, s)| s.replicas)
    }

    /// Connections of clients that may be open at once.
    pub(crate) fn connections(&self) -> usize {
        self.shares().map_or(usize::MAX, |(_, s)| s.connections)
    }
}
