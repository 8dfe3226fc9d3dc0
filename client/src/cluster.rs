//! A cluster as one thing to talk to: connections to its brokers and the picture of its metadata.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use riverrun_wire::{
    ErrorCode, Request,
    api::{MetadataRequest, MetadataResponse, metadata::MetadataRequestTopic},
};
use tokio::{
    sync::Mutex as AsyncMutex,
    task::JoinSet,
    time::{Instant, sleep},
};

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
    /// When a broker, by address, last failed or kept silent; forgotten when it answers.
    troubled: Mutex<BTreeMap<String, Instant>>,
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
                troubled: Mutex::default(),
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
        self.shared.picture.lock().forget(topic);
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
        let names = [name.to_owned()];
        let what = format!("topic {name} was not found");
        let mut retry = Retry::new(&self.shared.config, within);
        loop {
            let seen = self.generation();
            let asked = self.refresh(&names, create, Some(seen));
            let error = match retry.attempt(&what, asked).await {
                Ok(mut refused) => match (self.known_topic(name), refused.remove(name)) {
                    (Some(topic), None) => return Ok(topic),
                    // Without leave to create it, a topic that is not there stays away.
                    (_, Some(ErrorCode::UnknownTopicOrPartition)) if !create => {
                        return Err(Error::UnknownTopic {
                            topic: name.to_owned(),
                        });
                    }
                    (_, Some(code)) => Error::refused(format!("topic {name}"), code, None),
                    (None, None) => {
                        return Err(Error::Protocol {
                            broker: "a broker".to_owned(),
                            what: "its answer to Metadata leaves a topic out",
                        });
                    }
                },
                Err(error) => error,
            };
            retry.pause(error, &what).await?;
        }
    }

    /// Asks for metadata of these topics, unless each was in an answer newer than the one `seen`.
    /// Says which topics were refused, and why.
    pub(crate) async fn refresh(
        &self,
        topics: &[String],
        create: bool,
        seen: Option<u64>,
    ) -> Result<BTreeMap<String, ErrorCode>> {
        let _alone = self.shared.refreshing.lock().await;
        if seen.is_some_and(|seen| self.shared.picture.lock().is_newer(topics, seen)) {
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
        let within = self.shared.config.request_timeout;
        self.first(move |connection| {
            let mut request = MetadataRequest {
                topics: topics.clone(),
                allow_auto_topic_creation: true,
                ..MetadataRequest::default()
            };
            async move {
                // Before version 4 a broker decides by itself whether to create a topic.
                if connection.version::<MetadataRequest>(i16::MAX)? >= 4 {
                    request.allow_auto_topic_creation = create;
                }
                connection.call(&request, within).await
            }
        })
        .await
    }

    /// A connection to any broker.
    async fn any(&self) -> Result<Connection> {
        self.first(|connection| std::future::ready(Ok(connection)))
            .await
    }

    /// Asks one broker after another, the next one when the last has failed or kept silent for
    /// `unresponsive_after`; the first answer counts. What is asked may so be asked of several.
    async fn first<T, A, F>(&self, ask: A) -> Result<T>
    where
        T: Send + 'static,
        A: Fn(Connection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut brokers = self.by_trust().into_iter();
        let mut asked = JoinSet::new();
        let mut tried = Vec::new();
        let mut refused = None;
        let mut begin = |asked: &mut JoinSet<_>| {
            let address = brokers.next()?;
            let (client, ask, broker) = (self.clone(), ask.clone(), address.clone());
            asked.spawn(async move {
                let answer = match client.connect(&broker, Lane::General).await {
                    Ok(connection) => ask(connection).await.map_err(Unserved::Asked),
                    Err(error) => Err(Unserved::Unreached(error)),
                };
                (broker, answer)
            });
            Some(address)
        };
        let mut last = begin(&mut asked);
        loop {
            let silence = self.shared.config.unresponsive_after;
            let answered = tokio::select! {
                answered = asked.join_next() => answered,
                () = sleep(silence), if last.is_some() => {
                    if let Some(silent) = std::mem::replace(&mut last, begin(&mut asked)) {
                        self.distrust(silent);
                    }
                    continue;
                }
            };
            match answered {
                Some(Ok((broker, Ok(answer)))) => {
                    self.shared.troubled.lock().remove(&broker);
                    return Ok(answer);
                }
                Some(Ok((broker, Err(unserved)))) => {
                    match unserved {
                        Unserved::Unreached(Error::Connection { source, .. }) => {
                            tried.push(format!("{broker}: {source}"));
                        }
                        Unserved::Unreached(error) => tried.push(format!("{broker}: {error}")),
                        Unserved::Asked(error) => refused = refused.or(Some(error)),
                    }
                    self.distrust(broker);
                    last = begin(&mut asked);
                }
                // A panic has been reported by the runtime.
                Some(Err(_)) => last = begin(&mut asked),
                None => {
                    let tried = tried.join(", ");
                    return Err(refused.unwrap_or(Error::NoBroker { tried }));
                }
            }
        }
    }

    /// The addresses of all brokers that are known or were named: those that were not found failing
    /// first and among them those with an open connection, the last to fail last.
    fn by_trust(&self) -> Vec<String> {
        let known = self.brokers().into_iter().map(|b| b.address());
        let mut addresses: Vec<String> = known.collect();
        addresses.extend(self.shared.config.brokers.iter().cloned());
        let mut seen = BTreeSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        let troubled = self.shared.troubled.lock().clone();
        addresses.sort_by_cached_key(|address| {
            (troubled.get(address).copied(), !self.is_connected(address))
        });
        addresses
    }

    fn distrust(&self, address: String) {
        self.shared.troubled.lock().insert(address, Instant::now());
    }

    fn is_connected(&self, address: &str) -> bool {
        let slot = self.slot(address, Lane::General);
        let slot = slot.try_lock();
        slot.is_ok_and(|slot| slot.as_ref().is_some_and(Connection::is_open))
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

    /// Waits for an answer of `node` about these partitions, until that node is silent while another
    /// one leads one of them. It may take as long as is `allowed` before it counts as silent. The
    /// partitions are asked for only then.
    pub(crate) async fn unless_deposed<T>(
        &self,
        node: i32,
        allowed: Duration,
        places: impl Fn() -> Vec<(Arc<str>, i32)>,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let topics = || {
            let names = places().into_iter().map(|(topic, _)| topic.to_string());
            names.collect::<BTreeSet<_>>().into_iter().collect()
        };
        let leader = |(topic, partition): (Arc<str>, i32)| {
            self.known_topic(&topic)?.partition(partition)?.leader
        };
        let leads_elsewhere = || {
            let mut leaders = places().into_iter().filter_map(leader);
            leaders.any(|leads| leads != node)
        };
        let silent = async {
            sleep(allowed).await;
            self.succeeded(node, topics, leads_elsewhere).await
        };
        tokio::select! {
            answer = answer => answer,
            silent = silent => Err(silent),
        }
    }

    /// Ends, with an error, when by the cluster's metadata another node has come in the place of
    /// this one. Metadata is asked for as long as that is not so: whoever waits for this waits for
    /// an answer of `node` that does not come.
    async fn succeeded(
        &self,
        node: i32,
        topics: impl Fn() -> Vec<String>,
        has_successor: impl Fn() -> bool,
    ) -> Error {
        loop {
            let seen = self.generation();
            sleep(self.shared.config.unresponsive_after).await;
            let broker = self.broker(node);
            let broker = broker.map_or_else(|| format!("node {node}"), |b| b.address());
            self.distrust(broker.clone());
            if let Err(error) = self.refresh(&topics(), false, Some(seen)).await {
                tracing::debug!(%error, broker, "a broker is silent, and no other answers");
            }
            if has_successor() {
                return Error::Deposed { broker };
            }
        }
    }

    /// Asks the controller, or any broker while the controller is not known.
    pub(crate) async fn ask_controller<R: Request>(&self, request: &R) -> Result<R::Response> {
        if self.generation() == 0 {
            self.refresh(&[], false, Some(0)).await?;
        }
        let within = self.shared.config.request_timeout;
        // Asked of several, a change that the first is still busy with would be refused by the
        // second.
        let Some(node) = self.controller() else {
            return self.any().await?.call(request, within).await;
        };
        let answer = async {
            let connection = self.node(node, Lane::General).await?;
            connection.call(request, within).await
        };
        // That another one is named says nothing: brokers of Kafka name any that lives.
        tokio::select! {
            answer = answer => answer,
            silent = self.succeeded(node, Vec::new, || self.broker(node).is_none()) => Err(silent),
        }
    }

    /// Asks any broker, and another one as long as there is time.
    pub(crate) async fn ask_any<R>(&self, request: &R, what: &str) -> Result<R::Response>
    where
        R: Request + Clone + Send + Sync + 'static,
        R::Response: Send + 'static,
    {
        let request = request.clone();
        self.ask_any_in(move |_| request.clone(), what).await
    }

    /// The same with a request that depends on the version that is spoken.
    pub(crate) async fn ask_any_in<R>(
        &self,
        request: impl Fn(i16) -> R + Clone + Send + Sync + 'static,
        what: &str,
    ) -> Result<R::Response>
    where
        R: Request + Send + Sync + 'static,
        R::Response: Send + 'static,
    {
        let within = self.shared.config.request_timeout;
        let mut retry = Retry::new(&self.shared.config, self.shared.config.operation_timeout);
        loop {
            let request = request.clone();
            let asked = self.first(move |connection| {
                let request = request.clone();
                async move {
                    let version = connection.version::<R>(i16::MAX)?;
                    let awaited = connection.send(&request(version), version, within)?;
                    awaited.answer().await
                }
            });
            match retry.attempt(what, asked).await {
                Ok(response) => return Ok(response),
                Err(error) => retry.pause(error, what).await?,
            }
        }
    }
}

/// Why a broker did not answer.
enum Unserved {
    /// It could not be connected to.
    Unreached(Error),
    /// It was, and what was asked of it failed.
    Asked(Error),
}
