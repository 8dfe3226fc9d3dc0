//! What can go wrong, by what the caller can do about it.

use std::{io, sync::Arc, time::Duration};

use riverrun_record::BatchError;
use riverrun_wire::{ErrorCode, WireError};

/// The result of the client's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not done.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// None of the known brokers could be reached.
    #[error("no broker answered ({tried})")]
    NoBroker {
        /// Each address with what was found there.
        tried: String,
    },
    /// A connection failed.
    #[error("connection to {broker} failed: {source}")]
    Connection {
        /// The broker's address.
        broker: String,
        /// What the operating system says.
        source: Arc<io::Error>,
    },
    /// The broker, or another call's failure, closed the connection.
    #[error("connection to {broker} was closed before the answer")]
    Disconnected {
        /// The broker's address.
        broker: String,
    },
    /// No answer in time.
    #[error("{broker} did not answer {api} within {} ms", after.as_millis())]
    Timeout {
        /// The broker's address.
        broker: String,
        /// What was asked.
        api: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// No answer for a while, and what was asked for is led by another broker by now.
    #[error("{broker} kept silent, and another broker has taken its place")]
    Deposed {
        /// The broker that was asked.
        broker: String,
    },
    /// Everything that could be tried again was, until the time was up.
    #[error("{what} within {} ms{}", after.as_millis(), because(last.as_deref()))]
    GaveUp {
        /// What did not happen.
        what: String,
        /// How long it was tried.
        after: Duration,
        /// The last failure.
        last: Option<Box<Error>>,
    },
    /// The broker sent bytes that are no answer.
    #[error("{broker} sent what is no answer to {api}: {source}")]
    Malformed {
        /// The broker's address.
        broker: String,
        /// What was asked.
        api: &'static str,
        /// What is wrong with the bytes.
        source: WireError,
    },
    /// The broker sent an answer that was not asked for, or left something out of one.
    #[error("{broker} broke the protocol: {what}")]
    Protocol {
        /// The broker's address.
        broker: String,
        /// What it did.
        what: &'static str,
    },
    /// A request cannot be written as asked.
    #[error("{api} cannot be sent: {source}")]
    Unsendable {
        /// What was to be asked.
        api: &'static str,
        /// Why it cannot.
        source: WireError,
    },
    /// Client and broker have no version of an API in common.
    #[error("{broker} does not serve {api} in a version that this client speaks")]
    UnsupportedVersion {
        /// The broker's address.
        broker: String,
        /// The API.
        api: &'static str,
    },
    /// The broker said no.
    #[error("{what}: {}{}", code.message(), detail(*code, message.as_deref()))]
    Refused {
        /// What was asked.
        what: String,
        /// The protocol's error code.
        code: ErrorCode,
        /// The broker's own words, if it had any.
        message: Option<String>,
    },
    /// The topic is not there.
    #[error("topic {topic} does not exist")]
    UnknownTopic {
        /// Its name.
        topic: String,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}")]
    UnknownPartition {
        /// Its name.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// A record is larger than this producer sends.
    #[error("record of {len} bytes is larger than max_request_bytes, {limit}")]
    RecordTooLarge {
        /// Bytes of the record in its batch, at most.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// A record cannot be put into a batch.
    #[error("record cannot be sent: {source}")]
    InvalidRecord {
        /// Why.
        source: BatchError,
    },
    /// A fetched batch is damaged.
    #[error("batch at offset {offset} of {topic}/{partition} cannot be read: {source}")]
    CorruptBatch {
        /// Its topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Where it was expected.
        offset: i64,
        /// What is wrong with it.
        source: BatchError,
    },
    /// The offset is not there (any more, or yet).
    #[error("offset {offset} of {topic}/{partition} is not there: it holds {start} up to {end}")]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset asked for.
        offset: i64,
        /// The first that is there.
        start: i64,
        /// The next one to come.
        end: i64,
    },
    /// What was read has since been replaced: the partition lost its end and went on.
    #[error(
        "{topic}/{partition} was truncated to {end} after offset {offset} had been read; \
         what was read from {end} on is no longer part of it"
    )]
    LogTruncated {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The position of the reader.
        offset: i64,
        /// Where what was read and what is there part.
        end: i64,
    },
    /// Settings that cannot hold together.
    #[error("{what}")]
    InvalidConfig {
        /// Which, and why.
        what: &'static str,
    },
    /// The producer or consumer was closed.
    #[error("closed")]
    Closed,
}

fn because(last: Option<&Error>) -> String {
    last.map_or_else(String::new, |last| format!("; the last failure: {last}"))
}

fn detail(code: ErrorCode, message: Option<&str>) -> String {
    match message.filter(|m| !m.is_empty()) {
        Some(message) => format!(" ({}: {message})", code.name()),
        None => format!(" ({})", code.name()),
    }
}

/// The code of a number that a broker sent; one that is not known says no more than that
/// something is wrong.
pub(crate) fn error_code(number: i16) -> ErrorCode {
    ErrorCode::from_number(number).unwrap_or(ErrorCode::UnknownServerError)
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::NoBroker { .. }
            | Self::Connection { .. }
            | Self::Disconnected { .. }
            | Self::Timeout { .. }
            | Self::Deposed { .. }
            | Self::GaveUp { .. } => true,
            Self::Refused { code, .. } => code.is_retriable(),
            _ => false,
        }
    }

    /// The protocol's error code, where a broker gave one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::GaveUp {
                last: Some(last), ..
            } => last.code(),
            _ => None,
        }
    }

    pub(crate) fn refused(
        what: impl Into<String>,
        code: ErrorCode,
        message: Option<String>,
    ) -> Self {
        Self::Refused {
            what: what.into(),
            code,
            message,
        }
    }
}
