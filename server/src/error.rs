//! Errors: those that end a start, and the one place where anything becomes a Kafka error code.

use std::net::SocketAddr;
use std::path::PathBuf;

use riverrun_record::BatchError;
use riverrun_replication::ProduceError;
use riverrun_replication::controller::Rejection;
use riverrun_storage::LogError;
use riverrun_wire::ErrorCode;

use crate::catalog::ChangeError;
use crate::config::SettingError;
use crate::partition::NotLeading;

/// Why a broker cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no authentication yet, and others could connect.
    #[error(
        "refusing to listen on {address}, which is not loopback, without authentication; \
         listen on 127.0.0.1, or allow it with --insecure"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error("cannot use the data directory {}: {what}", path.display())]
    Data {
        /// The directory.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// The controller's log does not answer, or not as it should.
    #[error("the cluster's state cannot be read: {0}")]
    Controller(String),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// What was acknowledged can no longer be made durable, so nothing more may be (I10).
    #[error("stopped: {0}; check the disk and start again")]
    Fatal(String),
    /// A thread or a task ended that the node cannot go on without.
    #[error("stopped: its {what} {how}, without which it would only look alive")]
    Ended {
        /// What ended.
        what: &'static str,
        /// How.
        how: &'static str,
    },
}

impl StartError {
    /// The exit status of a process that ends with it.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            // A fault of the program, not of what it was given: `EX_SOFTWARE` of sysexits.h.
            Self::Ended { .. } => 70,
            _ => 1,
        }
    }
}

/// What a read that the log refused is answered. Where bytes at rest are not what was written, the client is
/// told so of their range alone, and may go on behind it.
pub(crate) fn of_read(error: &LogError) -> ErrorCode {
    match error {
        LogError::BadBatch { .. } | LogError::Unreadable { .. } => ErrorCode::CorruptMessage,
        LogError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        _ => ErrorCode::KafkaStorageError,
    }
}

/// What a produce that replication refused is answered.
pub(crate) fn of_produce(error: ProduceError) -> ErrorCode {
    match error {
        // The client looks up the leader and tries again.
        ProduceError::NotLeader => ErrorCode::NotLeaderOrFollower,
        ProduceError::FencedEpoch => ErrorCode::FencedLeaderEpoch,
        ProduceError::UnknownEpoch => ErrorCode::UnknownLeaderEpoch,
        ProduceError::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
        // Clients take it for a success without an offset.
        ProduceError::DuplicateSequence => ErrorCode::DuplicateSequenceNumber,
        ProduceError::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
        ProduceError::NotEnoughReplicas => ErrorCode::NotEnoughReplicas,
        // The first failed flush is final (I10); the client looks for another leader.
        ProduceError::Storage => ErrorCode::KafkaStorageError,
        // Retriable, and the only such code that says "later".
        ProduceError::Busy => ErrorCode::RequestTimedOut,
        // Its topic is being deleted; nothing follows the closing command (L8).
        ProduceError::Closed => ErrorCode::UnknownTopicOrPartition,
        // An error that a later version of replication adds: retriable, and visibly not ours.
        _ => ErrorCode::UnknownServerError,
    }
}

/// What a request to a partition that does not lead here is answered.
pub(crate) fn of_not_leading(why: NotLeading) -> ErrorCode {
    match why {
        NotLeading::Follower(_) => ErrorCode::NotLeaderOrFollower,
        NotLeading::Fenced => ErrorCode::KafkaStorageError,
        NotLeading::Closed => ErrorCode::UnknownTopicOrPartition,
        NotLeading::UnknownEpoch => ErrorCode::UnknownLeaderEpoch,
        NotLeading::FencedEpoch => ErrorCode::FencedLeaderEpoch,
    }
}

/// What a batch that is not taken is answered, and the record that is to blame.
pub(crate) fn of_batch(error: &BatchError) -> (ErrorCode, Option<i32>) {
    match error {
        // Damaged on the way: the client may send it again.
        BatchError::Incomplete { .. }
        | BatchError::Corrupt { .. }
        | BatchError::CrcMismatch { .. } => (ErrorCode::CorruptMessage, None),
        BatchError::TooLarge { .. } => (ErrorCode::MessageTooLarge, None),
        BatchError::TooManyRecords { .. } => (ErrorCode::MessageTooLarge, None),
        // Kafka's answer to an old format in a version that allows only v2.
        BatchError::UnsupportedMagic { .. } | BatchError::InvalidBatch { .. } => {
            (ErrorCode::InvalidRecord, None)
        }
        BatchError::InvalidRecord { index, .. } => (ErrorCode::InvalidRecord, Some(*index)),
        BatchError::InvalidTimestamp { index, .. } => (ErrorCode::InvalidTimestamp, Some(*index)),
        BatchError::InvalidTimestampType => (ErrorCode::InvalidTimestamp, None),
        BatchError::UnsupportedCompression { .. } => (ErrorCode::UnsupportedCompressionType, None),
        // Its checksum holds, so sending it again would change nothing.
        BatchError::Decompression { .. } => (ErrorCode::InvalidRecord, None),
        // A bomb, or a batch that consumers would choke on.
        BatchError::DecompressedTooLarge { .. } => (ErrorCode::MessageTooLarge, None),
        // Compressing is the producer's; and an error that a later version of the crate adds.
        _ => (ErrorCode::InvalidRecord, None),
    }
}

/// What a change of the cluster's state that did not happen is answered.
pub(crate) fn of_change(error: &ChangeError) -> ErrorCode {
    match error {
        ChangeError::Rejected(rejection) => of_rejection(rejection),
        // The controller has moved or is moving: the client finds it again.
        ChangeError::Write(ProduceError::NotLeader) => ErrorCode::NotController,
        ChangeError::Write(error) => of_produce(*error),
        // Retriable: the client looks whether it is there, and asks again where it is not.
        ChangeError::OutcomeUnknown => ErrorCode::RequestTimedOut,
        ChangeError::Refused(_) | ChangeError::Stopping => ErrorCode::NotController,
    }
}

/// What a request that the controller refuses is answered.
pub(crate) fn of_rejection(rejection: &Rejection) -> ErrorCode {
    match rejection {
        Rejection::TopicExists => ErrorCode::TopicAlreadyExists,
        Rejection::InvalidTopicName { .. } | Rejection::CollidingTopicName { .. } => {
            ErrorCode::InvalidTopicException
        }
        Rejection::InvalidPartitions { .. } => ErrorCode::InvalidPartitions,
        Rejection::InvalidReplicationFactor { .. } => ErrorCode::InvalidReplicationFactor,
        // What Kafka's users read where a cluster takes no more: final, and the words say why.
        Rejection::NoRoom { .. } => ErrorCode::PolicyViolation,
        Rejection::InvalidAssignment { .. } => ErrorCode::InvalidReplicaAssignment,
        Rejection::InvalidConfig { .. } => ErrorCode::InvalidConfig,
        // A topic that is being deleted is gone for everybody but its name.
        Rejection::UnknownTopic | Rejection::TopicClosing => ErrorCode::UnknownTopicOrPartition,
        Rejection::UnknownBroker => ErrorCode::BrokerIdNotRegistered,
        Rejection::StaleIncarnation { .. } => ErrorCode::StaleBrokerEpoch,
        // The client's request could not have named these.
        _ => ErrorCode::InvalidRequest,
    }
}

/// What a setting that is refused is answered.
pub(crate) fn of_setting(_: &SettingError) -> ErrorCode {
    ErrorCode::InvalidConfig
}
