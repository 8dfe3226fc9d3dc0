//! What a node is started with, and what its settings must come to together.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use riverrun_replication::CACHING_WINDOW;
use riverrun_storage::node::NodeConfig;

use super::listeners::{Listeners, Place, is_wildcard};
use super::served::SETTINGS;
use super::setting::{SettingError, nearest};
use super::topic::{self, TopicSettings};
use super::{alternate, known};
use crate::net::connection::Deadlines;

/// A voter of the controller: an entry of `controller.quorum.voters`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Voter {
    /// Its `node.id`.
    pub id: i32,
    /// The host of its listener for nodes.
    pub host: String,
    /// And the port.
    pub port: u16,
}

/// What a broker is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// `log.dirs`: the data directory.
    pub data_dir: PathBuf,
    /// `listeners`: where Kafka's protocol is spoken.
    pub listen: SocketAddr,
    /// `advertised.listeners`: what clients are told to connect to. Without it each client is told
    /// the address that it reached us by.
    pub advertised: Option<(String, u16)>,
    /// `listeners`, the one that `controller.listener.names` names: where the nodes of the cluster
    /// speak to each other. Without it no other node can join.
    pub controller_listen: Option<SocketAddr>,
    /// Where other nodes find that listener. Without it they are told the address that was bound.
    pub controller_advertised: Option<(String, u16)>,
    /// What the listeners are called, and the hosts that they were given.
    pub(crate) listeners: Listeners,
    /// Allows an address that is not loopback although there is no authentication.
    pub insecure: bool,
    /// `node.id`
    pub node_id: i32,
    /// `broker.rack`
    pub rack: Option<String>,
    /// `controller.quorum.voters`: the nodes that found a cluster together, by their number.
    pub quorum_voters: Vec<Voter>,
    /// `controller.quorum.bootstrap.servers`: nodes of a running cluster, to join it by. This node
    /// itself is none of them.
    pub bootstrap_servers: Vec<(String, u16)>,
    /// `broker.session.timeout.ms`: how long the controller waits for a sign of a node.
    pub session_timeout: Duration,
    /// `replica.lag.time.max.ms`: how long a replica may lag and count as in sync.
    pub replica_lag: Duration,
    /// `log.scrub.interval.ms`: everything is read once in this time and looked at, whether or not anybody asks
    /// for it. Without it nothing is.
    pub scrub_interval: Option<Duration>,
    /// `log.write.caching.window.ms`: how old the oldest byte that is not synced may be while something is
    /// acknowledged from memory.
    pub caching_window: Duration,
    /// `default.replication.factor`: of topics that are created without a number. Without it three,
    /// or as many as there are brokers.
    pub default_replication: Option<u16>,
    /// `num.partitions`: of topics that are created without a number.
    pub num_partitions: i32,
    /// `auto.create.topics.enable`
    pub auto_create_topics: bool,
    /// `socket.request.max.bytes`
    pub max_request_bytes: usize,
    /// `queued.max.request.bytes`: the budget that request bodies are reserved from.
    pub request_memory_bytes: usize,
    /// `max.connections`
    pub max_connections: usize,
    /// `fetch.max.bytes`
    pub fetch_max_bytes: usize,
    /// `connections.max.idle.ms`
    pub max_idle: Duration,
    /// From connecting to the first byte.
    pub first_byte: Duration,
    /// For the rest of a request that has begun, besides the time its length takes on a slow link.
    pub frame: Duration,
    /// For a client to take anything of an answer that it is sent.
    pub stall: Duration,
    /// How long a stop waits for connections to drain.
    pub drain: Duration,
    /// Bytes of commands behind which the cluster's state is written as an image. No setting: tests
    /// take a small one.
    pub controller_checkpoint_bytes: u64,
    /// Shards that the groups are spread over; 0 means one a core.
    pub shards: usize,
    /// The node's write-ahead log.
    pub store: NodeConfig,
    /// The defaults of topic settings (`log.segment.bytes` and so on).
    pub topic: TopicSettings,
}

impl Config {
    /// A node on loopback over a data directory, everything else at its default.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9092)),
            advertised: None,
            controller_listen: None,
            controller_advertised: None,
            listeners: Listeners::default(),
            insecure: false,
            node_id: 1,
            rack: None,
            quorum_voters: Vec::new(),
            bootstrap_servers: Vec::new(),
            session_timeout: Duration::from_secs(9),
            replica_lag: Duration::from_secs(30),
            scrub_interval: Some(Duration::from_secs(7 * 24 * 3600)),
            caching_window: CACHING_WINDOW,
            default_replication: None,
            num_partitions: 1,
            auto_create_topics: true,
            max_request_bytes: 100 << 20,
            request_memory_bytes: 160 << 20,
            max_connections: 16_384,
            fetch_max_bytes: 55 << 20,
            max_idle: Duration::from_secs(600),
            first_byte: Duration::from_secs(30),
            frame: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            drain: Duration::from_secs(10),
            controller_checkpoint_bytes: riverrun_replication::controller::CHECKPOINT_MIN_BYTES,
            shards: 0,
            store: NodeConfig::default(),
            topic: TopicSettings::default(),
        }
    }

    /// A node of a cluster, before anything is set: it has a listener for other nodes, and no
    /// directory yet.
    #[must_use]
    pub fn of_cluster() -> Self {
        Self {
            controller_listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9093))),
            ..Self::new("")
        }
    }

    /// Sets a node setting by its name.
    ///
    /// The names and protocols of listeners are set before the listeners, and those before what
    /// is advertised; [`Config::load`] sees to that.
    ///
    /// # Errors
    /// When the name is not served or the value is refused.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) {
            return setting.apply(self, value);
        }
        if let Some(setting) = topic::SETTINGS.iter().find(|s| s.synonym == Some(name)) {
            return setting.apply(&mut self.topic, value);
        }
        if let Some(alternate) = alternate::find(name) {
            return alternate.apply(self, value);
        }
        Err(unknown(name))
    }

    /// Whether it is to be one of several nodes: it founds a cluster with others, or joins one.
    #[must_use]
    pub fn is_one_of_several(&self) -> bool {
        self.quorum_voters.len() > 1 || !self.bootstrap_servers.is_empty()
    }

    /// What the settings come to together: fills in what follows from others, and says what does
    /// not fit. `Ok` is what was left out, and why.
    ///
    /// # Errors
    /// Everything that does not fit.
    pub(crate) fn settle(&mut self) -> Result<Vec<(&'static str, String)>, Vec<SettingError>> {
        let mut left_out = Vec::new();
        let mut wrong = Vec::new();
        let asked = self.bootstrap_servers.len();
        let others = std::mem::take(&mut self.bootstrap_servers);
        self.bootstrap_servers = others.into_iter().filter(|at| !self.is_own(at)).collect();
        if self.bootstrap_servers.len() < asked {
            let of_all = if self.bootstrap_servers.is_empty() {
                "; there is no other, so it founds a cluster of its own where its directory is empty"
            } else {
                ""
            };
            let why = format!("a node does not join by itself{of_all}");
            left_out.push(("controller.quorum.bootstrap.servers", why));
        }
        self.settle_quorum(&mut wrong);
        self.settle_addresses(&mut wrong);
        self.check_loopback(&mut wrong);
        if self.data_dir.as_os_str().is_empty() {
            wrong.push(missing(
                "log.dirs",
                "a directory to keep the events in is needed",
            ));
        }
        if wrong.is_empty() {
            Ok(left_out)
        } else {
            Err(wrong)
        }
    }

    fn settle_quorum(&mut self, wrong: &mut Vec<SettingError>) {
        const VOTERS: &str = "controller.quorum.voters";
        if self.is_one_of_several() && self.controller_listen.is_none() {
            let why = format!(
                "the nodes speak to each other by the listener {0}; add {0}://HOST:PORT",
                self.listeners.controller
            );
            wrong.push(self.unfit("listeners", why));
        }
        if self.quorum_voters.is_empty() {
            return;
        }
        if !self.bootstrap_servers.is_empty() {
            let why = "voters found a new cluster, controller.quorum.bootstrap.servers joins a \
                       running one; give one of the two";
            wrong.push(self.unfit(VOTERS, why.to_owned()));
        }
        let own = self.quorum_voters.iter().find(|v| v.id == self.node_id);
        let Some(own) = own.cloned() else {
            let why = format!(
                "node.id {} is not among them; to join a running cluster give \
                 controller.quorum.bootstrap.servers instead",
                self.node_id
            );
            return wrong.push(self.unfit(VOTERS, why));
        };
        if self.controller_advertised.is_some() {
            return;
        }
        match self.controller_listen {
            Some(listens) if listens.port() != own.port => {
                let why = format!(
                    "they say that node {} is at port {}, and its listener {} is at {}; if that \
                     is meant, name the listener in advertised.listeners",
                    own.id,
                    own.port,
                    self.listeners.controller,
                    listens.port()
                );
                wrong.push(self.unfit(VOTERS, why));
            }
            _ => self.controller_advertised = Some((own.host, own.port)),
        }
    }

    /// Where others find it: what was advertised, else the host that a listener was given.
    fn settle_addresses(&mut self, wrong: &mut Vec<SettingError>) {
        let named = |host: &Option<String>, address: SocketAddr| {
            let host = host.clone().unwrap_or_else(|| address.ip().to_string());
            (!is_wildcard(&host)).then_some((host, address.port()))
        };
        let is_one_of_several = self.is_one_of_several();
        let client = named(&self.listeners.client_host, self.listen);
        if is_one_of_several && self.advertised.is_none() {
            if client.is_none() {
                let why = "with several nodes a client must be told where each of them is: give \
                           advertised.listeners, or a listener that names its host";
                wrong.push(missing("advertised.listeners", why));
            }
            self.advertised = client.filter(|(_, port)| *port != 0);
        }
        let Some(address) = self.controller_listen else {
            return;
        };
        let nodes = named(&self.listeners.controller_host, address);
        if self.controller_advertised.is_none() {
            if is_one_of_several && nodes.is_none() {
                let why = format!(
                    "other nodes must be told where to find this one: name {} in \
                     advertised.listeners, or its host in listeners",
                    self.listeners.controller
                );
                wrong.push(missing("advertised.listeners", why));
            }
            self.controller_advertised = nodes.filter(|(_, port)| *port != 0);
        }
    }

    /// Who can connect may do everything, so who can is asked for by name.
    fn check_loopback(&self, wrong: &mut Vec<SettingError>) {
        let addresses = [Some(self.listen), self.controller_listen];
        for address in addresses.into_iter().flatten() {
            if !self.insecure && !address.ip().is_loopback() {
                let why = format!(
                    "{address} is not loopback, and nobody is asked for a password; listen on \
                     127.0.0.1, or allow it with --insecure"
                );
                wrong.push(self.unfit("listeners", why));
            }
        }
    }

    /// Whether an address is that of this node's own listener for nodes.
    fn is_own(&self, (host, port): &(String, u16)) -> bool {
        let Some(listens) = self.controller_listen else {
            return false;
        };
        let advertised = self.controller_advertised.as_ref();
        if advertised.is_some_and(|(own, at)| own.eq_ignore_ascii_case(host) && at == port) {
            return true;
        }
        let is_here = |ip: std::net::IpAddr| {
            ip == listens.ip() || ip.is_loopback() && listens.ip().is_unspecified()
        };
        let given = self.listeners.controller_host.as_ref();
        let is_named = given.is_some_and(|own| own.eq_ignore_ascii_case(host));
        let place = Place {
            host: host.clone(),
            port: *port,
        };
        let is_host = is_named || super::listeners::resolve(&place).is_ok_and(|a| is_here(a.ip()));
        *port == listens.port() && is_host
    }

    /// A setting that does not fit the others.
    fn unfit(&self, name: &'static str, reason: String) -> SettingError {
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        SettingError::Value {
            name,
            value: setting.map(|s| (s.get)(self)).unwrap_or_default(),
            reason,
        }
    }

    pub(crate) fn deadlines(&self) -> Deadlines {
        Deadlines {
            first_byte: self.first_byte,
            idle: self.max_idle,
            frame: self.frame,
            held: HELD,
            stall: self.stall,
        }
    }
}

/// A client on a bad line is silent for as long as it takes to send a lost packet a few times.
const HELD: Duration = Duration::from_secs(2);

fn missing(name: &'static str, reason: impl Into<String>) -> SettingError {
    SettingError::Missing {
        name,
        reason: reason.into(),
    }
}

/// Every name of a setting that is served, for whatever it is set.
pub(crate) fn served_names() -> impl Iterator<Item = &'static str> {
    let of_topics = topic::SETTINGS.iter().filter_map(|setting| setting.synonym);
    let names = SETTINGS.iter().map(|setting| setting.name).chain(of_topics);
    names.chain(alternate::ALTERNATES.iter().map(|a| a.name))
}

/// A name that nobody knows, with the one that was perhaps meant: a near one, or the node's name of
/// what is a topic's.
pub(crate) fn unknown(name: &str) -> SettingError {
    let of_topic = topic::SETTINGS.iter().find(|setting| setting.name == name);
    SettingError::Unknown {
        name: name.chars().take(200).collect(),
        nearest: of_topic
            .and_then(|setting| setting.synonym)
            .or_else(|| nearest(name, served_names().chain(known::names()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn settings_take_effect_or_are_refused() {
        let mut config = Config::new("/data");
        config.set("num.partitions", "6").unwrap();
        config.set("log.segment.bytes", "1048576").unwrap();
        config.set("listeners", "PLAINTEXT://127.0.0.1:0").unwrap();
        config
            .set("advertised.listeners", "PLAINTEXT://broker:9093")
            .unwrap();
        assert_eq!(config.num_partitions, 6);
        assert_eq!(config.topic.segment_bytes, 1 << 20);
        assert_eq!(config.advertised, Some(("broker".to_owned(), 9093)));
        for (name, value) in [
            ("log.dirs", "/a,/b"),
            ("log.retention.ms", "5"),
            ("process.roles", "broker"),
            ("process.roles", "controller"),
            ("controller.listener.names", "A,B"),
            ("controller.quorum.voters", "1@a:1,1@b:1"),
            ("controller.quorum.voters", "1@a:1,2@a:1"),
            ("controller.quorum.voters", "1@a:0"),
            ("controller.quorum.voters", "a:1"),
            ("controller.quorum.bootstrap.servers", "a"),
            ("default.replication.factor", "0"),
            ("inter.broker.listener.name", "CONTROLLER"),
            ("listeners", "CONTROLLER://127.0.0.1:0"),
            ("listeners", "PLAINTEXT://127.0.0.1:0,SSL://127.0.0.1:0"),
            ("listeners", "127.0.0.1:0"),
            ("advertised.listeners", "PLAINTEXT://0.0.0.0:9092"),
            ("advertised.listeners", "OTHER://a:9092"),
        ] {
            let refused = config.set(name, value).unwrap_err();
            assert!(matches!(refused, SettingError::Value { .. }), "{refused}");
        }
        let error = config.set("num.partition", "6").unwrap_err();
        assert!(error.to_string().contains("num.partitions"), "{error}");
        let error = config.set("retention.ms", "-1").unwrap_err();
        assert!(error.to_string().contains("log.retention.ms"), "{error}");
    }

    #[test]
    fn every_value_is_accepted_as_a_value_of_its_setting() {
        let mut given = Config::of_cluster();
        given.data_dir = "/data".into();
        given.advertised = Some(("::1".to_owned(), 9092));
        given.controller_advertised = Some(("host".to_owned(), 9093));
        given.default_replication = Some(3);
        given.rack = Some("a".to_owned());
        given.bootstrap_servers = vec![("a".to_owned(), 1), ("::1".to_owned(), 2)];
        given
            .set("controller.quorum.voters", "2@b:2,1@[::1]:1")
            .unwrap();
        for config in [Config::new("/data"), given] {
            for setting in SETTINGS {
                let value = (setting.get)(&config);
                let mut again = config.clone();
                setting.apply(&mut again, &value).unwrap();
                assert_eq!((setting.get)(&again), value, "{}", setting.name);
            }
        }
    }

    #[test]
    fn names_are_sorted_and_documented() {
        let names = SETTINGS.windows(2);
        let mut names = names.map(|w| (w.first().unwrap().name, w.last().unwrap().name));
        assert!(names.all(|(one, next)| one < next));
        assert!(SETTINGS.iter().all(|setting| setting.doc.ends_with('.')));
    }
}
