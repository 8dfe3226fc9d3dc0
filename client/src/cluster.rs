//! A cluster as one thing to talk to: connections to its brokers and the picture of its metadata.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use parking_lot::Mutex;
use riverrun_wire::{
    ErrorCode, Request,
    api::{MetadataRequest, MetadataResponse, metadata::MetadataRequestTopic},
};
use tokio::sync::Mutex as AsyncMutex;

use crate::{
    config::ClientConfig,
    connection::Connection,
    error::{Error, Result},
    metadata::{BrokerInfo, Picture, TopicInfo},
    retry::Retry,
};

/// What a connection is for. A fetch may wait at the broker for a long time and answers come in
/// order, so fetches, produces and everything else have a connection each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    General,
    Produce,
    Fetch,
}

/// A client of one cluster; clones share connections and metadata.
///
/// Producers, consumers and administration are built on it. Nothing is sent before it is needed.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

type Slot = Arc<AsyncMutex<Option<Connection>>>;

#[derive(Debug)]
struct Shared {
    config: ClientConfig,
    picture: Mutex<Picture>,
    /// Connections by address and purpose. The inner lock is held while connecting, so that one
    /// caller connects and the others wait for it.
    connections: Mutex<BTreeMap<(String, Lane), Slot>>,
    /// Held while metadata is asked for.
    refreshing: AsyncMutex<()>,
}

impl Client {
    /// A client that will ask these brokers first.
    ///
    /// # Errors
    /// If no broker is named, or one not as `host:port`.
    pub fn new(config: ClientConfig) -> Result<Self> {
        if config.brokers.is_empty() {
            return Err(Error::InvalidConfig {
                what: "at least one broker must be named",
            });
        }
        let has_port = |broker: &String| {
            broker
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if !config.brokers.iter().all(has_port) {
            return Err(Error::InvalidConfig {
                what: "a broker must be named as host:port",
            });
        }
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                picture: Mutex::default(),
                connections: Mutex::default(),
                refreshing: AsyncMutex::default(),
            }),
        })
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.shared.config
    }

    /// Waits until a broker can be reached.
    ///
    /// # Errors
    /// If none can be within this time, or what answers does not speak the protocol.
    pub async fn reach(&self, within: Duration) -> Result<()> {
        let mut retry = Retry::new(&self.shared.config, within);
        loop {
            match self.any().await {
                Ok(_) => return Ok(()),
                Err(error) => match retry.pause(error, "").await {
                    // Which addresses were tried says more than for how long.
                    Err(Error::GaveUp {
                        last: Some(last), ..
                    }) => return Err(*last),
                    other => other?,
                },
            }
        }
    }

    /// A topic's partitions, as known or asked for now.
    ///
    /// # Errors
    /// If the topic does not exist, or no broker answers within `operation_timeout`.
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicInfo>> {
        self.topic_within(name, false, self.shared.config.operation_timeout)
            .await
    }

    pub(crate) fn known_topic(&self, name: &str) -> Option<Arc<TopicInfo>> {
        self.shared.picture.lock().topics.get(name).cloned()
    }

    pub(crate) fn broker(&self, node: i32) -> Option<BrokerInfo> {
        self.shared.picture.lock().brokers.get(&node).cloned()
    }

    pub(crate) fn controller(&self) -> Option<i32> {
        self.shared.picture.lock().controller
    }

    pub(crate) fn brokers(&self) -> Vec<BrokerInfo> {
        self.shared
            .picture
            .lock()
            .brokers
            .values()
            .cloned()
            .collect()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.shared.picture.lock().generation
    }

    /// Drops what is known of a topic.
    pub(crate) fn forget(&self, topic: &str) {
        self.shared.picture.lock().topics.remove(topic);
    }

    /// Takes in a newer leader that an answer named.
    pub(crate) fn lead(&self, topic: &str, partition: i32, leader: i32, epoch: i32) -> bool {
        self.shared
            .picture
            .lock()
            .lead(topic, partition, leader, epoch)
    }

    /// As [`Client::topic`]; `create` lets the broker create it by its defaults.
    pub(crate) async fn topic_within(
        &self,
        name: &str,
        create: bool,
        within: Duration,
    ) -> Result<Arc<TopicInfo>> {
        if let Some(topic) = self.known_topic(name) {
            return Ok(topic);
        }
        let mut retry = Retry::new(&self.shared.config, within);
        loop {
            let seen = self.generation();
            let error = match self.refresh(&[name.to_owned()], create, Some(seen)).await {
                Ok(mut refused) => match (self.known_topic(name), refused.remove(name)) {
                    (Some(topic), None) => return Ok(topic),
                    // Without leave to create it, a topic that is not there stays away.
                    (_, Some(ErrorCode::UnknownTopicOrPartition)) if !create => {
                        return Err(Error::UnknownTopic {
                            topic: name.to_owned(),
                        });
                    }
                    (_, Some(code)) => Error::refused(format!("topic {name}"), code, None),
                    // Another call's answer was taken for ours, without this topic in it.
                    (None, None) => continue,
                },
                Err(error) => error,
            };
            retry
                .pause(error, &format!("topic {name} was not found"))
                .await?;
        }
    }

    /// Asks for metadata of these topics, unless an answer newer than the one `seen` has been taken
    /// in since. Says which topics were refused, and why.
    pub(crate) async fn refresh(
        &self,
        topics: &[String],
        create: bool,
        seen: Option<u64>,
    ) -> Result<BTreeMap<String, ErrorCode>> {
        let _alone = self.shared.refreshing.lock().await;
        if seen.is_some_and(|seen| seen != self.generation())
            && topics.iter().all(|t| self.known_topic(t).is_some())
        {
            return Ok(BTreeMap::new());
        }
        let named = |name: &String| MetadataRequestTopic {
            name: Some(name.clone()),
            ..MetadataRequestTopic::default()
        };
        let response = self
            .metadata(Some(topics.iter().map(named).collect()), create)
            .await?;
        Ok(self.shared.picture.lock().take(response))
    }

    /// Asks for metadata of all topics and takes it in.
    pub(crate) async fn refresh_all(&self) -> Result<Vec<Arc<TopicInfo>>> {
        let response = self.metadata(None, false).await?;
        let names: Vec<_> = response
            .topics
            .iter()
            .filter_map(|t| t.name.clone())
            .collect();
        let mut picture = self.shared.picture.lock();
        picture.take(response);
        Ok(names
            .iter()
            .filter_map(|name| picture.topics.get(name).cloned())
            .collect())
    }

    async fn metadata(
        &self,
        topics: Option<Vec<MetadataRequestTopic>>,
        create: bool,
    ) -> Result<MetadataResponse> {
        let mut request = MetadataRequest {
            topics,
            allow_auto_topic_creation: true,
            ..MetadataRequest::default()
        };
        let connection = self.any().await?;
        // Before version 4 a broker decides by itself whether to create a topic.
        if connection.version::<MetadataRequest>(i16::MAX)? >= 4 {
            request.allow_auto_topic_creation = create;
        }
        connection
            .call(&request, self.shared.config.request_timeout)
            .await
    }

    /// A connection to any broker: one that is open, or else the first that can be reached.
    pub(crate) async fn any(&self) -> Result<Connection> {
        let known = self.brokers().into_iter().map(|b| b.address());
        let mut addresses: Vec<String> = known.collect();
        addresses.extend(self.shared.config.brokers.iter().cloned());
        let open = addresses
            .iter()
            .find_map(|address| self.open_connection(address));
        if let Some(connection) = open {
            return Ok(connection);
        }
        let mut tried = String::new();
        let mut seen = std::collections::BTreeSet::new();
        for address in addresses.into_iter().filter(|a| seen.insert(a.clone())) {
            match self.connect(&address, Lane::General).await {
                Ok(connection) => return Ok(connection),
                Err(Error::Connection { source, .. }) => {
                    let _ = write!(
                        tried,
                        "{}{address}: {source}",
                        if tried.is_empty() { "" } else { ", " }
                    );
                }
                Err(error) => {
                    let _ = write!(
                        tried,
                        "{}{address}: {error}",
                        if tried.is_empty() { "" } else { ", " }
                    );
                }
            }
        }
        Err(Error::NoBroker { tried })
    }

    fn open_connection(&self, address: &str) -> Option<Connection> {
        let slot = self.slot(address, Lane::General);
        let slot = slot.try_lock().ok()?;
        slot.as_ref().filter(|c| c.is_open()).cloned()
    }

    /// A connection to a node, opened if there is none.
    pub(crate) async fn node(&self, node: i32, lane: Lane) -> Result<Connection> {
        let Some(broker) = self.broker(node) else {
            return Err(Error::NoBroker {
                tried: format!("node {node} is not among the brokers"),
            });
        };
        self.connect(&broker.address(), lane).await
    }

    async fn connect(&self, address: &str, lane: Lane) -> Result<Connection> {
        let slot = self.slot(address, lane);
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|c| c.is_open()) {
            return Ok(connection.clone());
        }
        *slot = None;
        let connection = Connection::open(address, &self.shared.config).await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    fn slot(&self, address: &str, lane: Lane) -> Slot {
        let mut connections = self.shared.connections.lock();
        connections
            .entry((address.to_owned(), lane))
            .or_default()
            .clone()
    }

    /// Asks the controller, or any broker while the controller is not known.
    pub(crate) async fn ask_controller<R: Request>(&self, request: &R) -> Result<R::Response> {
        if self.generation() == 0 {
            self.refresh(&[], false, Some(0)).await?;
        }
        let connection = match self.controller() {
            Some(node) => self.node(node, Lane::General).await?,
            None => self.any().await?,
        };
        connection
            .call(request, self.shared.config.request_timeout)
            .await
    }

    /// Asks any broker, and another one as long as there is time.
    pub(crate) async fn ask_any<R: Request + Clone>(
        &self,
        request: &R,
        what: &str,
    ) -> Result<R::Response> {
        self.ask_any_in(|_| request.clone(), what).await
    }

    /// The same with a request that depends on the version that is spoken.
    pub(crate) async fn ask_any_in<R: Request>(
        &self,
        request: impl Fn(i16) -> R,
        what: &str,
    ) -> Result<R::Response> {
        let within = self.shared.config.request_timeout;
        let mut retry = Retry::new(&self.shared.config, self.shared.config.operation_timeout);
        loop {
            let error = match self.any().await {
                Ok(connection) => {
                    let version = connection.version::<R>(i16::MAX)?;
                    match connection.send(&request(version), version, within) {
                        Ok(awaited) => match awaited.answer().await {
                            Ok(response) => return Ok(response),
                            Err(error) => error,
                        },
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            retry.pause(error, what).await?;
        }
    }
}
