//! Kafka's protocol: the API table, and one file for each API.
//!
//! [`APIS`] is the one list of what is served. Dispatch and the answer to ApiVersions derive from
//! it; an API that is not in it is neither advertised nor answered: as Kafka does, the connection
//! is closed. Produce and Fetch leave a completion behind and return at once; the others answer
//! inline, or in a task of their own where they have to wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use riverrun_wire::{
    ApiKey, Decode, Encoded, ErrorCode, Message, Reader, Request, RequestHeader, WireError,
    encode_response,
};
use tracing::warn;

use crate::broker::Broker;
use crate::net::answer::Answer;
use crate::net::connection::{Connection, Pending};
use crate::net::frames::Frame;
use crate::net::memory::Lease;
use crate::watched::{Kind, Watch};

pub(crate) mod api_versions;
pub(crate) mod create_partitions;
pub(crate) mod create_topics;
pub(crate) mod delete_topics;
pub(crate) mod describe_cluster;
pub(crate) mod describe_configs;
pub(crate) mod describe_quorum;
pub(crate) mod describe_topic_partitions;
pub(crate) mod fetch;
pub(crate) mod init_producer_id;
pub(crate) mod list_offsets;
pub(crate) mod metadata;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod produce;
pub(crate) mod refused;

/// The longest request that carries no records: a client that reads twenty thousand partitions of
/// one broker asks for them with less. What is decoded takes a multiple of it.
const MAX_PLAIN_BYTES: usize = 2 << 20;
/// The most elements of arrays in a request: topics, partitions, replicas, settings.
const MAX_ELEMENTS: usize = 200_000;

/// Why a connection is closed over a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("a request of api key {api_key} version {version}, which is not served")]
    NotServed { api_key: i16, version: i16 },
    #[error("a request that cannot be read: {0}")]
    Malformed(#[from] WireError),
    #[error("a request of {api} of {len} bytes, which is more than {MAX_PLAIN_BYTES}")]
    TooLong { api: &'static str, len: usize },
    #[error("an answer that cannot be written: {0}")]
    Answer(WireError),
    #[error("a produce without acknowledgement failed: {0}")]
    Unanswerable(&'static str),
}

/// One request: who asks, and how the answer is to be written.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) broker: Arc<Broker>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
}

impl Call {
    /// Encodes the answer.
    pub(crate) fn answer<M: Message>(&self, response: &M) -> Result<Answer, Refusal> {
        let encoded = encode_response(response, self.version, self.correlation_id);
        encoded.map(answer_of).map_err(Refusal::Answer)
    }
}

pub(crate) fn answer_of(encoded: Encoded) -> Answer {
    Answer::pieces(encoded.into_segments().into())
}

/// An answer, or the promise of one.
pub(crate) enum Reply {
    Now(Answer),
    Later(Pin<Box<dyn Future<Output = Result<Answer, Refusal>> + Send>>),
}

/// How an API is served.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    /// Needs the frame itself and leaves a completion with the shards.
    Produce,
    /// Answers at once or is parked at the watermarks.
    Fetch,
    /// Anything else.
    Plain(fn(Call, &mut Reader<'_>) -> Result<Reply, Refusal>),
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Produce => "Produce",
            Self::Fetch => "Fetch",
            Self::Plain(_) => "Plain",
        })
    }
}

/// A row of the table. The versions served are those that the codec knows.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) key: ApiKey,
    /// The lowest version that is advertised; only Produce advertises what it refuses, because
    /// librdkafka looks for version 0 before it compresses.
    pub(crate) advertised_from: i16,
    pub(crate) handler: Handler,
}

const fn row(key: ApiKey, handler: Handler) -> Api {
    Api {
        key,
        advertised_from: *key.versions().start(),
        handler,
    }
}

/// Answers inline.
fn inline<R: Request>(
    call: &Call,
    reader: &mut Reader<'_>,
    handle: impl FnOnce(&Call, R) -> R::Response,
) -> Result<Reply, Refusal> {
    let request = R::decode(reader, call.version)?;
    call.answer(&handle(call, request)).map(Reply::Now)
}

/// Answers in a task of its own.
fn later<R: Request + Send + 'static, F>(
    call: Call,
    reader: &mut Reader<'_>,
    handle: impl FnOnce(Call, R) -> F + Send + 'static,
) -> Result<Reply, Refusal>
where
    F: Future<Output = R::Response> + Send,
    R::Response: Send,
{
    let request = R::decode(reader, call.version)?;
    Ok(Reply::Later(Box::pin(async move {
        let response = handle(call.clone(), request).await;
        call.answer(&response)
    })))
}

/// Everything that is served, in the order of the keys.
pub(crate) static APIS: &[Api] = &[
    Api {
        key: ApiKey::Produce,
        advertised_from: 0,
        handler: Handler::Produce,
    },
    row(ApiKey::Fetch, Handler::Fetch),
    row(
        ApiKey::ListOffsets,
        Handler::Plain(|call, r| later(call, r, list_offsets::handle)),
    ),
    row(ApiKey::Metadata, Handler::Plain(metadata::step)),
    row(
        ApiKey::ApiVersions,
        Handler::Plain(|call, r| inline(&call, r, api_versions::handle)),
    ),
    row(
        ApiKey::CreateTopics,
        Handler::Plain(|call, r| later(call, r, create_topics::handle)),
    ),
    row(
        ApiKey::DeleteTopics,
        Handler::Plain(|call, r| later(call, r, delete_topics::handle)),
    ),
    row(
        ApiKey::InitProducerId,
        Handler::Plain(|call, r| later(call, r, init_producer_id::handle)),
    ),
    row(
        ApiKey::OffsetForLeaderEpoch,
        Handler::Plain(|call, r| later(call, r, offset_for_leader_epoch::handle)),
    ),
    row(
        ApiKey::DescribeConfigs,
        Handler::Plain(|call, r| inline(&call, r, describe_configs::handle)),
    ),
    row(
        ApiKey::CreatePartitions,
        Handler::Plain(|call, r| later(call, r, create_partitions::handle)),
    ),
    row(
        ApiKey::DescribeQuorum,
        Handler::Plain(|call, r| later(call, r, describe_quorum::handle)),
    ),
    row(
        ApiKey::DescribeCluster,
        Handler::Plain(|call, r| inline(&call, r, describe_cluster::handle)),
    ),
    row(
        ApiKey::DescribeTopicPartitions,
        Handler::Plain(|call, r| inline(&call, r, describe_topic_partitions::handle)),
    ),
];

fn served(api_key: i16, version: i16) -> Option<&'static Api> {
    APIS.iter()
        .find(|api| api.key.number() == api_key)
        .filter(|api| api.key.versions().contains(&version))
}

/// Steps one request. What it posts to shards and answers is carried out by the caller's burst.
pub(crate) fn step(
    broker: &Arc<Broker>,
    connection: &Arc<Connection>,
    frame: Frame,
) -> Result<(), Refusal> {
    let Frame { body, lease } = frame;
    let mut reader = Reader::borrowed(&body);
    let api_key = reader.i16()?;
    let version = reader.i16()?;
    let Some(api) = served(api_key, version) else {
        if api_key == ApiKey::ApiVersions.number() {
            let correlation_id = reader.i32()?;
            let answer = api_versions::unsupported(correlation_id)?;
            let why = format!("version {version}");
            let error = ErrorCode::UnsupportedVersion;
            broker
                .refused_log()
                .log(connection, ApiKey::ApiVersions, error, &why);
            let request = connection.open(Pending::Task, lease, 0);
            connection.answer(request, answer);
            return Ok(());
        }
        return Err(Refusal::NotServed { api_key, version });
    };
    if body.len() > MAX_PLAIN_BYTES && !matches!(api.handler, Handler::Produce) {
        return Err(Refusal::TooLong {
            api: api.key.name(),
            len: body.len(),
        });
    }
    let mut reader = Reader::borrowed(&body).with_max_elements(MAX_ELEMENTS);
    let header = RequestHeader::decode(&mut reader)?;
    let call = Call {
        broker: Arc::clone(broker),
        connection: Arc::clone(connection),
        version,
        correlation_id: header.correlation_id,
    };
    match api.handler {
        Handler::Produce => {
            let (request, placed) =
                riverrun_wire::api::ProduceRequest::decode_placed(&mut reader, version)?;
            produce::step(&call, request, &placed, body, lease)
        }
        Handler::Fetch => {
            let request = Decode::decode(&mut reader, version)?;
            fetch::step(&call, request, lease)
        }
        Handler::Plain(handle) => {
            let reply = handle(call, &mut reader)?;
            reply_to(broker.watch(), connection, reply, lease);
            Ok(())
        }
    }
}

/// The answer to a request that has to wait. Where it is not given, whatever the reason, no later request of
/// the connection could ever be answered: it is closed.
pub(crate) struct Promised {
    connection: Arc<Connection>,
    kept: bool,
}

impl Promised {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        Self {
            connection: Arc::clone(connection),
            kept: false,
        }
    }

    fn keep(mut self, request: u64, answer: Answer) {
        self.kept = true;
        self.connection.answer(request, answer);
    }

    /// Somebody else answers.
    pub(crate) fn hand_over(mut self) {
        self.kept = true;
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        if !self.kept {
            self.connection.hang_up();
        }
    }
}

fn reply_to(watch: &Watch, connection: &Arc<Connection>, reply: Reply, lease: Lease) {
    let request = connection.open(Pending::Task, lease, 0);
    match reply {
        Reply::Now(answer) => connection.answer(request, answer),
        Reply::Later(answer) => {
            let promised = Promised::new(connection);
            watch.task(Kind::Request, async move {
                match answer.await {
                    Ok(answer) => promised.keep(request, answer),
                    Err(refusal) => {
                        let peer = promised.connection.peer();
                        warn!(%peer, %refusal, "closing a connection");
                    }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_api_of_the_codec_is_served_once_in_order() {
        let keys: Vec<_> = APIS.iter().map(|api| api.key).collect();
        assert_eq!(keys, ApiKey::ALL);
        assert!(
            APIS.iter()
                .all(|api| api.advertised_from <= *api.key.versions().start())
        );
    }

    #[test]
    fn versions_that_are_advertised_and_not_served_are_those_of_produce() {
        let refused: Vec<_> = APIS
            .iter()
            .filter(|api| api.advertised_from < *api.key.versions().start())
            .map(|api| api.key)
            .collect();
        assert_eq!(refused, [ApiKey::Produce]);
        assert!(served(0, 2).is_none());
        assert!(served(0, 3).is_some());
    }
}
