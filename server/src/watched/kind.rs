//! What threads and tasks there are, and what the end of each does.

/// A thread, a task, or a piece of work on a thread that may block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The thread that flushes, one round after the other.
    Flusher,
    /// The thread that ticks every group.
    Ticker,
    /// The thread of the links to other nodes.
    PeerLinks,
    /// Accepts clients.
    Accept,
    /// Accepts other nodes.
    AcceptNodes,
    /// Tells the broker what its links notice.
    PeerEvents,
    /// The link to another node.
    Link,
    /// Makes the node what the image says.
    Reconcile,
    /// The duties of the leader of group 0.
    Duties,
    /// Tells other nodes who leads what.
    Leaders,
    /// Has replicas replaced that cannot go on.
    Replacement,
    /// Deletes what was set aside and is proven to be needed by nobody.
    Asides,
    /// Opens replicas again that were unavailable.
    Reopen,
    /// Puts right, with other replicas' entries, what is bad at rest.
    Repair,
    /// Reads what nobody asks for, and finds what is bad at rest.
    Scrub,
    /// Looks once whether the nodes of the settings are of this cluster.
    CheckCluster,
    /// Makes a start known once somebody leads group 0.
    LateRegistration,
    /// Serves a client's connection.
    Connection,
    /// Serves the connection of another node.
    NodeConnection,
    /// Answers a call of another node.
    Call,
    /// A connection for calls to another node.
    CallLine,
    /// Answers a request that has to wait.
    Request,
    /// A turn of a shard whose holder has done its share.
    ShardTurn,
    /// Writes of a group whose files are slow.
    LaneWriter,
    /// Writes an image of the cluster's state.
    Checkpoint,
    /// Reads for a fetch what is not in memory.
    DiskRead,
    /// Searches a log by time.
    DiskSearch,
    /// Creates, opens, closes and deletes files for a task that waits.
    Files,
}

/// What the end of something does, where it was not meant to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The process ends, with an exit status of its own.
    Process,
    /// The connection that it served is closed.
    Connection,
    /// Whoever waits for it is told, or waits no longer than he would have.
    Asker,
}

#[cfg(test)]
impl End {
    /// As the table of the architecture says it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Process => "the process ends",
            Self::Connection => "its connection is closed",
            Self::Asker => "whoever waits is told",
        }
    }
}

impl Kind {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 28] = [
        Self::Flusher,
        Self::Ticker,
        Self::PeerLinks,
        Self::Accept,
        Self::AcceptNodes,
        Self::PeerEvents,
        Self::Link,
        Self::Reconcile,
        Self::Duties,
        Self::Leaders,
        Self::Replacement,
        Self::Asides,
        Self::Reopen,
        Self::Repair,
        Self::Scrub,
        Self::CheckCluster,
        Self::LateRegistration,
        Self::Connection,
        Self::NodeConnection,
        Self::Call,
        Self::CallLine,
        Self::Request,
        Self::ShardTurn,
        Self::LaneWriter,
        Self::Checkpoint,
        Self::DiskRead,
        Self::DiskSearch,
        Self::Files,
    ];

    /// What it is called: the name of a thread, and in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Flusher => "flusher",
            Self::Ticker => "ticker",
            Self::PeerLinks => "peer-links",
            Self::Accept => "accept",
            Self::AcceptNodes => "accept-nodes",
            Self::PeerEvents => "peer-events",
            Self::Link => "link",
            Self::Reconcile => "reconcile",
            Self::Duties => "duties",
            Self::Leaders => "leaders",
            Self::Replacement => "replacement",
            Self::Asides => "asides",
            Self::Reopen => "reopen",
            Self::Repair => "repair",
            Self::Scrub => "scrub",
            Self::CheckCluster => "check-cluster",
            Self::LateRegistration => "late-register",
            Self::Connection => "connection",
            Self::NodeConnection => "node-connection",
            Self::Call => "call",
            Self::CallLine => "call-line",
            Self::Request => "request",
            Self::ShardTurn => "shard-turn",
            Self::LaneWriter => "lane-writer",
            Self::Checkpoint => "checkpoint",
            Self::DiskRead => "disk-read",
            Self::DiskSearch => "disk-search",
            Self::Files => "files",
        }
    }

    /// What its end does.
    pub(crate) fn end(self) -> End {
        match self {
            Self::Connection
            | Self::NodeConnection
            | Self::CallLine
            | Self::Request
            | Self::DiskRead => End::Connection,
            Self::Call | Self::DiskSearch | Self::Files => End::Asker,
            _ => End::Process,
        }
    }

    /// Whether it may return while the node serves.
    pub(crate) fn may_return(self) -> bool {
        match self {
            // Where the node that it goes to is removed.
            Self::Link => true,
            Self::CheckCluster | Self::LateRegistration => true,
            Self::ShardTurn | Self::LaneWriter | Self::Checkpoint => true,
            _ => self.end() != End::Process,
        }
    }

    /// Whether it goes on when the node stops: what ends it is the end of the links.
    pub(crate) fn outlives_stop(self) -> bool {
        matches!(self, Self::PeerEvents | Self::Link | Self::CallLine)
    }
}
