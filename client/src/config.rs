//! What can be set, with Kafka's defaults unless a field says why not.

use std::time::Duration;

use riverrun_record::Compression;

/// How to reach a cluster, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Brokers to ask first, `host:port`.
    pub brokers: Vec<String>,
    /// Name that the brokers see in their logs and metrics.
    pub client_id: String,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// How long a request may go unanswered before its connection is given up.
    pub request_timeout: Duration,
    /// How long a broker may keep silent before others are asked the same, or whether another one
    /// leads by now. A fetch may besides wait for records.
    pub unresponsive_after: Duration,
    /// How long a call that may try again does so (everything but producing and fetching).
    pub operation_timeout: Duration,
    /// First pause before something is tried again; doubled each time, with up to a fifth of
    /// jitter either way.
    pub retry_backoff: Duration,
    /// Longest such pause.
    pub retry_backoff_max: Duration,
    /// Age at which metadata is asked for again although nothing has failed.
    pub metadata_max_age: Duration,
    /// Largest answer that is read; a longer one closes the connection before it takes memory.
    pub max_frame_bytes: usize,
}

impl ClientConfig {
    /// The defaults, with these brokers to ask first.
    pub fn new<B: Into<String>>(brokers: impl IntoIterator<Item = B>) -> Self {
        Self {
            brokers: brokers.into_iter().map(Into::into).collect(),
            client_id: "riverrun".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            unresponsive_after: Duration::from_secs(1),
            operation_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            metadata_max_age: Duration::from_secs(300),
            max_frame_bytes: 128 << 20,
        }
    }
}

/// When a produced batch counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// A majority of the replicas has it (on disk, unless the topic opted out).
    #[default]
    All,
    /// The leader has written it; it may still be lost.
    Leader,
    /// It was sent; nobody answers.
    None,
}

impl Acks {
    pub(crate) fn code(self) -> i16 {
        match self {
            Self::All => -1,
            Self::Leader => 1,
            Self::None => 0,
        }
    }
}

/// How a producer batches, retries and orders.
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// When a batch counts as written.
    pub acks: Acks,
    /// Whether a retry is stored once and in order. Needs `Acks::All`; without it batches of one
    /// partition are sent one at a time, so that a retry cannot overtake.
    pub idempotence: bool,
    /// Compression of the batches.
    pub compression: Compression,
    /// The codec's level; `None` is its default.
    pub compression_level: Option<i32>,
    /// Size, before compression, at which a batch is sent at once.
    pub batch_bytes: usize,
    /// How long a batch that is not full waits for more records.
    pub linger: Duration,
    /// Memory for records that are not answered yet; sending waits when it is used up.
    pub buffer_bytes: usize,
    /// Largest record, and most bytes of batches in one request.
    pub max_request_bytes: usize,
    /// Requests on their way to one broker at once; at most 5 with idempotence, which is how
    /// many batches a broker remembers.
    pub max_in_flight: usize,
    /// How long sending may wait for memory and for the topic's metadata.
    pub max_block: Duration,
    /// From the first record of a batch to its success or failure, retries included.
    pub delivery_timeout: Duration,
    /// How long the leader may wait for its followers.
    pub ack_timeout: Duration,
    /// Whether a topic that is not there may be created by the broker's defaults.
    pub auto_create_topics: bool,
    /// Seed of the choice of partitions for records without a key; `None` draws one.
    pub seed: Option<u64>,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotence: true,
            compression: Compression::None,
            compression_level: None,
            batch_bytes: 16 << 10,
            linger: Duration::from_millis(5),
            buffer_bytes: 32 << 20,
            max_request_bytes: 1 << 20,
            max_in_flight: 5,
            max_block: Duration::from_secs(60),
            delivery_timeout: Duration::from_secs(120),
            ack_timeout: Duration::from_secs(30),
            auto_create_topics: true,
            seed: None,
        }
    }
}

/// How a consumer fetches.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// How long a broker may wait for `fetch_min_bytes`.
    pub fetch_max_wait: Duration,
    /// Bytes that a broker waits for before it answers.
    pub fetch_min_bytes: i32,
    /// Most bytes in one answer, except that a first batch always comes whole.
    pub fetch_max_bytes: i32,
    /// The same for one partition.
    pub partition_max_bytes: i32,
    /// Bytes fetched ahead of the reader, in all; fetching pauses above it.
    pub prefetch_bytes: usize,
    /// Most bytes that one batch may decompress to.
    pub max_decompressed_bytes: usize,
    /// Whether each batch's checksum is verified.
    pub check_crcs: bool,
    /// What to do at an offset that is not there.
    pub out_of_range: OutOfRange,
}

/// What a consumer does at an offset that is not there (any more, or yet).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutOfRange {
    /// Report it: nothing is skipped in silence.
    #[default]
    Fail,
    /// Go on at the first record that is there.
    Start,
    /// Go on behind the last one.
    End,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            fetch_max_wait: Duration::from_millis(500),
            fetch_min_bytes: 1,
            fetch_max_bytes: 50 << 20,
            partition_max_bytes: 1 << 20,
            prefetch_bytes: 64 << 20,
            max_decompressed_bytes: 256 << 20,
            check_crcs: true,
            out_of_range: OutOfRange::Fail,
        }
    }
}
