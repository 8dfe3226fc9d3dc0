//! A partition that this node has a replica of, as the handlers see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use riverrun_replication::{PartitionHandle, Published, Role};

use crate::config::TopicSettings;
use crate::kafka::fetch::Parked;

/// Replication's handle, the topic's settings, and the fetches that wait for it to move.
#[derive(Debug)]
pub(crate) struct Partition {
    handle: PartitionHandle,
    settings: Mutex<Arc<TopicSettings>>,
    waiters: Waiters,
    /// Its topic is being deleted or is gone.
    closed: AtomicBool,
}

impl Partition {
    pub(crate) fn new(handle: PartitionHandle, settings: Arc<TopicSettings>) -> Self {
        Self {
            handle,
            settings: Mutex::new(settings),
            waiters: Waiters::default(),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn handle(&self) -> &PartitionHandle {
        &self.handle
    }

    pub(crate) fn settings(&self) -> Arc<TopicSettings> {
        Arc::clone(&self.settings.lock())
    }

    pub(crate) fn set_settings(&self, settings: Arc<TopicSettings>) {
        *self.settings.lock() = settings;
    }

    pub(crate) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// What may be seen of it now, for requests that only a leader answers; `epoch` is the leader
    /// epoch that the client knows, or -1.
    pub(crate) fn leading(&self, epoch: i32) -> Result<Published, NotLeading> {
        if self.is_closed() {
            return Err(NotLeading::Closed);
        }
        let published = self.handle.published();
        // The epoch is compared first, as Kafka does: a client that knows a newer leader learns
        // that we are behind, whatever we believe to be.
        let ours = published.leader_epoch();
        if epoch >= 0 && epoch > ours {
            return Err(NotLeading::UnknownEpoch);
        }
        if epoch >= 0 && epoch < ours {
            return Err(NotLeading::FencedEpoch);
        }
        match published.role {
            Role::Leader => Ok(published),
            Role::Follower => Err(NotLeading::Follower(published)),
            Role::Fenced => Err(NotLeading::Fenced),
        }
    }
}

/// Why a partition does not answer as a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotLeading {
    /// Another replica leads.
    Follower(Published),
    /// Its storage failed.
    Fenced,
    /// Its topic is being deleted.
    Closed,
    /// The client knows a newer leader.
    UnknownEpoch,
    /// The client knows only an older leader.
    FencedEpoch,
}

/// The parked fetches of a partition. A fetch that finds too little registers, looks once more,
/// and only then is left alone; so a commit between the two looks is not missed.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    list: Mutex<Vec<Arc<Parked>>>,
    /// Length of the list, so that a partition nobody waits for costs a load.
    count: AtomicUsize,
}

impl Waiters {
    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn add(&self, fetch: &Arc<Parked>) {
        let mut list = self.list.lock();
        list.push(Arc::clone(fetch));
        self.count.store(list.len(), Ordering::SeqCst);
    }

    pub(crate) fn remove(&self, fetch: &Arc<Parked>) {
        let mut list = self.list.lock();
        list.retain(|known| !Arc::ptr_eq(known, fetch));
        self.count.store(list.len(), Ordering::SeqCst);
    }

    /// Those that wait now. They stay registered until they are answered.
    pub(crate) fn all(&self) -> Vec<Arc<Parked>> {
        self.list.lock().clone()
    }
}
