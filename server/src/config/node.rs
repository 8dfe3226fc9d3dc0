//! The settings of a node.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use riverrun_storage::node::NodeConfig;

use super::setting::{Kind, Setting, SettingError, boolean, nearest, number};
use super::topic::{self, TopicSettings};
use crate::net::connection::Deadlines;

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
    /// Allows an address that is not loopback although there is no authentication.
    pub insecure: bool,
    /// `node.id`
    pub node_id: i32,
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
            insecure: false,
            node_id: 1,
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

    /// Sets a node setting by its name.
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
        let topic_names = topic::SETTINGS.iter().filter_map(|setting| setting.synonym);
        let names = SETTINGS
            .iter()
            .map(|setting| setting.name)
            .chain(topic_names);
        Err(SettingError::Unknown {
            name: name.chars().take(200).collect(),
            nearest: nearest(name, names),
        })
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

fn size(value: &str, least: usize) -> Result<usize, String> {
    number(value, least..=i32::MAX as usize)
}

/// Every setting of a node that is served (those that give topics their defaults stand in the
/// table of topic settings), in the order of their names.
pub(crate) const SETTINGS: &[Setting<Config>] = &[
    Setting {
        name: "advertised.listeners",
        kind: Kind::String,
        synonym: None,
        doc: "What clients are told to connect to, as PLAINTEXT://HOST:PORT. Empty: the address \
              that each of them reached this node by.",
        get: |c| {
            c.advertised
                .as_ref()
                .map(|(host, port)| format!("PLAINTEXT://{host}:{port}"))
                .unwrap_or_default()
        },
        set: |c, value| {
            let address = value.strip_prefix("PLAINTEXT://").unwrap_or(value);
            let parsed = address.rsplit_once(':').and_then(|(host, port)| {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let port = port.parse().ok().filter(|port| *port != 0)?;
                (!host.is_empty()).then(|| (host.to_owned(), port))
            });
            c.advertised = Some(parsed.ok_or("PLAINTEXT://HOST:PORT is needed")?);
            Ok(())
        },
    },
    Setting {
        name: "auto.create.topics.enable",
        kind: Kind::Boolean,
        synonym: None,
        doc: "Create a topic when a client asks for its metadata and allows that.",
        get: |c| c.auto_create_topics.to_string(),
        set: |c, value| {
            c.auto_create_topics = boolean(value)?;
            Ok(())
        },
    },
    Setting {
        name: "connections.max.idle.ms",
        kind: Kind::Long,
        synonym: None,
        doc: "Close connections that have been silent for so long.",
        get: |c| c.max_idle.as_millis().to_string(),
        set: |c, value| {
            c.max_idle = Duration::from_millis(number(value, 1..=1 << 40)?);
            Ok(())
        },
    },
    Setting {
        name: "fetch.max.bytes",
        kind: Kind::Int,
        synonym: None,
        doc: "The most that one fetch is answered with; a first batch that is larger is still \
              sent whole.",
        get: |c| c.fetch_max_bytes.to_string(),
        set: |c, value| {
            c.fetch_max_bytes = size(value, 1024)?;
            Ok(())
        },
    },
    Setting {
        name: "listeners",
        kind: Kind::List,
        synonym: None,
        doc: "Where Kafka's protocol is spoken, as PLAINTEXT://ADDRESS:PORT.",
        get: |c| format!("PLAINTEXT://{}", c.listen),
        set: |c, value| {
            let address = value.strip_prefix("PLAINTEXT://").unwrap_or(value);
            c.listen = address
                .parse()
                .map_err(|_| "one PLAINTEXT://ADDRESS:PORT is needed".to_owned())?;
            Ok(())
        },
    },
    Setting {
        name: "log.dirs",
        kind: Kind::List,
        synonym: None,
        doc: "The data directory. One a node: several disks are several nodes, or one volume.",
        get: |c| c.data_dir.display().to_string(),
        set: |c, value| {
            if value.is_empty() || value.contains(',') {
                return Err(
                    "one data directory is needed: there is one WAL and one flush round \
                            a node; several disks are several nodes, or one volume"
                        .to_owned(),
                );
            }
            c.data_dir = PathBuf::from(value);
            Ok(())
        },
    },
    Setting {
        name: "max.connections",
        kind: Kind::Int,
        synonym: None,
        doc: "The most connections at once; further ones are closed.",
        get: |c| c.max_connections.to_string(),
        set: |c, value| {
            c.max_connections = size(value, 1)?;
            Ok(())
        },
    },
    Setting {
        name: "node.id",
        kind: Kind::Int,
        synonym: None,
        doc: "The number of this node in its cluster.",
        get: |c| c.node_id.to_string(),
        set: |c, value| {
            c.node_id = number(value, 0..=i32::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "num.partitions",
        kind: Kind::Int,
        synonym: None,
        doc: "Partitions of a topic that is created without a number.",
        get: |c| c.num_partitions.to_string(),
        set: |c, value| {
            c.num_partitions = number(value, 1..=10_000)?;
            Ok(())
        },
    },
    Setting {
        name: "queued.max.request.bytes",
        kind: Kind::Long,
        synonym: None,
        doc: "Memory for the bodies of requests that are not answered yet; beyond it connections \
              are not read.",
        get: |c| c.request_memory_bytes.to_string(),
        set: |c, value| {
            c.request_memory_bytes = number(value, 1 << 20..=1 << 40)?;
            Ok(())
        },
    },
    Setting {
        name: "socket.request.max.bytes",
        kind: Kind::Int,
        synonym: None,
        doc: "The largest request that is read.",
        get: |c| c.max_request_bytes.to_string(),
        set: |c, value| {
            c.max_request_bytes = size(value, 1024)?;
            Ok(())
        },
    },
];

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
        assert!(config.set("log.dirs", "/a,/b").is_err());
        assert!(config.set("log.retention.ms", "5").is_err());
        let error = config.set("num.partition", "6").unwrap_err();
        assert!(error.to_string().contains("num.partitions"), "{error}");
    }

    #[test]
    fn every_default_is_accepted_as_a_value_of_its_setting() {
        let mut config = Config::new("/data");
        config.advertised = Some(("host".to_owned(), 9092));
        for setting in SETTINGS {
            let value = (setting.get)(&config);
            setting.apply(&mut config.clone(), &value).unwrap();
        }
    }

    #[test]
    fn names_are_sorted() {
        let sorted = SETTINGS
            .windows(2)
            .all(|w| w.first().unwrap().name < w.last().unwrap().name);
        assert!(sorted);
    }
}
