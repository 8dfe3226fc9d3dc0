//! An asynchronous client of Riverrun, or of anything that speaks Kafka's protocol.
//!
//! What it is: a producer (batches, compression, retries that store once and in order), a consumer
//! of assigned partitions (from an offset, a time, the start, the end), and administration of
//! topics, over `riverrun-wire` and `riverrun-record`. What it is not: part of the broker; it
//! depends on nothing of the server, and the server on nothing of it.
//!
//! | File | Holds |
//! |---|---|
//! | `config` | what can be set |
//! | `error` | what can go wrong, by what to do about it |
//! | `connection/` | one connection: pipelined requests, versions, deadlines |
//! | `metadata` | brokers, topics, leaders |
//! | `cluster` | [`Client`]: connections to brokers, metadata kept current |
//! | `producer/` | [`Producer`]; `queue` holds the rules of order and retries |
//! | `consumer/` | [`Consumer`]; `decode` turns a fetch into records |
//! | `admin/` | creating, describing, deleting topics; offsets |
//!
//! What must never be true:
//! - a record is reported written that no broker acknowledged, or is answered for twice;
//! - with idempotence, a retry is stored twice or out of order;
//! - a consumer skips a record, or shows half a batch, without saying so;
//! - memory is taken by a length that a broker merely states.
//!
//! ```no_run
//! use riverrun_client::{Client, ClientConfig, Producer, ProducerConfig, ProducerRecord};
//!
//! # async fn example() -> Result<(), riverrun_client::Error> {
//! let client = Client::new(ClientConfig::new(["127.0.0.1:9092"]))?;
//! let producer = Producer::new(client, ProducerConfig::default())?;
//! let delivery = producer.send(ProducerRecord::to("orders").key("k1").value("hello")).await?;
//! println!("written at {:?}", delivery.wait().await?.offset);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod admin;
mod cluster;
mod config;
mod connection;
mod consumer;
mod error;
mod metadata;
mod producer;
mod retry;

pub use admin::{
    ClusterInfo, ConfigEntry, ConfigSource, CreatedTopic, ListedOffset, NewTopic, OffsetSpec,
    QuorumInfo, QuorumReplica, TopicPartition,
};
pub use cluster::Client;
pub use config::{Acks, ClientConfig, ConsumerConfig, OutOfRange, ProducerConfig};
pub use consumer::{Consumer, Fetched, Start};
pub use error::{Error, Result};
pub use metadata::{BrokerInfo, PartitionInfo, TopicInfo};
pub use producer::{Delivery, Producer, ProducerRecord, RecordMetadata, partition_of_key};
pub use riverrun_record::{Compression, OwnedRecord as Record};
pub use riverrun_wire::ErrorCode;
