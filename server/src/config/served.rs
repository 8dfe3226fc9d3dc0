//! The settings of a node that are served, one row each.

use std::fmt::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use riverrun_replication::controller::MAX_REPLICAS;

use super::listeners::{self, Listener, Place, reachable, resolve, upper, write_place};
use super::node::{Config, Voter};
use super::setting::{Kind, Setting, boolean, number, only};

/// Items with commas between them.
fn list<T>(
    items: impl Iterator<Item = T>,
    write: impl Fn(&mut String, T) -> fmt::Result,
) -> String {
    let mut text = String::new();
    for item in items {
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to memory does not fail.
        let _ = write(&mut text, item);
    }
    text
}

/// Reads `ID@HOST:PORT,...`, each id and each place once; in the order of the ids.
fn voters(value: &str) -> Result<Vec<Voter>, String> {
    let mut voters: Vec<Voter> = Vec::new();
    for entry in listeners::entries(value) {
        let (id, at) = entry
            .split_once('@')
            .ok_or_else(|| format!("{entry:?} is not ID@HOST:PORT"))?;
        let place = reachable(at)?;
        let voter = Voter {
            id: number(id.trim(), 0..=i32::MAX)?,
            host: place.host,
            port: place.port,
        };
        if voters.iter().any(|other| other.id == voter.id) {
            return Err(format!("node {} stands there twice", voter.id));
        }
        let is_there = |other: &&Voter| (&other.host, other.port) == (&voter.host, voter.port);
        if let Some(other) = voters.iter().find(is_there) {
            return Err(format!(
                "nodes {} and {} are at one address",
                other.id, voter.id
            ));
        }
        voters.push(voter);
    }
    voters.sort();
    Ok(voters)
}

fn size(value: &str, least: usize) -> Result<usize, String> {
    number(value, least..=i32::MAX as usize)
}

/// Every setting of a node that is served (those that give topics their defaults stand in the
/// table of topic settings), in the order of their names.
pub(crate) const SETTINGS: &[Setting<Config>] = &[
    Setting {
        name: "advertised.listeners",
        kind: Kind::List,
        synonym: None,
        doc: "What clients, and by the controller's listener other nodes, are told to connect to, \
              as NAME://HOST:PORT. Without it a single node tells each client the address that it \
              was reached by; one of several takes the hosts of its listeners.",
        get: |c| {
            let client = c.advertised.as_ref().map(|at| (&c.listeners.client, at));
            let nodes = c.controller_advertised.as_ref();
            let nodes = nodes.map(|at| (&c.listeners.controller, at));
            list(
                client.into_iter().chain(nodes),
                |f, (name, (host, port))| {
                    write!(f, "{name}://")?;
                    write_place(f, host, *port)
                },
            )
        },
        set: |c, value| {
            (c.advertised, c.controller_advertised) = (None, None);
            for Listener { name, place } in listeners::listeners(value)? {
                let place = reachable(&place.to_string())?;
                let place = Some((place.host, place.port));
                if c.listeners.is_controller(&name) {
                    c.controller_advertised = place;
                } else if name == c.listeners.client {
                    c.advertised = place;
                } else {
                    return Err(format!("listeners has no {name}"));
                }
            }
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
        name: "broker.rack",
        kind: Kind::String,
        synonym: None,
        doc: "Where this node stands. Replicas of a partition are spread over racks.",
        get: |c| c.rack.clone().unwrap_or_default(),
        set: |c, value| {
            c.rack = Some(value.to_owned()).filter(|rack| !rack.is_empty());
            Ok(())
        },
    },
    Setting {
        name: "broker.session.timeout.ms",
        kind: Kind::Int,
        synonym: None,
        doc: "How long the controller waits for a sign of a node before it takes it for gone.",
        get: |c| c.session_timeout.as_millis().to_string(),
        set: |c, value| {
            c.session_timeout = Duration::from_millis(number(value, 1000..=i32::MAX as u64)?);
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
        name: "controller.listener.names",
        kind: Kind::List,
        synonym: None,
        doc: "The listener that carries all that nodes say to each other. One name.",
        get: |c| c.listeners.controller.clone(),
        set: |c, value| {
            let mut names = listeners::entries(value);
            c.listeners.controller = match (names.next(), names.next()) {
                (Some(name), None) => upper(name),
                _ => return Err("one name is needed: nodes have one listener".to_owned()),
            };
            Ok(())
        },
    },
    Setting {
        name: "controller.quorum.bootstrap.servers",
        kind: Kind::List,
        synonym: None,
        doc: "Nodes of a running cluster, as HOST:PORT of their listeners for nodes. A node with \
              an empty directory joins that cluster.",
        get: |c| {
            list(c.bootstrap_servers.iter(), |f, (host, port)| {
                write_place(f, host, *port)
            })
        },
        set: |c, value| {
            let places = listeners::entries(value).map(reachable);
            let places = places.map(|place| place.map(|place| (place.host, place.port)));
            c.bootstrap_servers = places.collect::<Result<_, _>>()?;
            Ok(())
        },
    },
    Setting {
        name: "controller.quorum.voters",
        kind: Kind::List,
        synonym: None,
        doc: "The nodes that found a new cluster together, as ID@HOST:PORT of their listeners for \
              nodes. The same line on each of them.",
        get: |c| {
            list(c.quorum_voters.iter(), |f, voter| {
                write!(f, "{}@", voter.id)?;
                write_place(f, &voter.host, voter.port)
            })
        },
        set: |c, value| {
            c.quorum_voters = voters(value)?;
            Ok(())
        },
    },
    Setting {
        name: "default.replication.factor",
        kind: Kind::Int,
        synonym: None,
        doc: "Replicas of a topic that is created without a number. -1: three, or as many as there \
              are brokers.",
        get: |c| c.default_replication.map_or(-1, i32::from).to_string(),
        set: |c, value| {
            c.default_replication = match value {
                "-1" => None,
                _ => u16::try_from(number(value, 1..=MAX_REPLICAS)?).ok(),
            };
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
        name: "inter.broker.listener.name",
        kind: Kind::String,
        synonym: None,
        doc: "Only the name of the listener for clients is served: nodes speak to each other by \
              the one that controller.listener.names names.",
        get: |c| c.listeners.client.clone(),
        set: |c, value| {
            let why = "nodes speak to each other by the listener that controller.listener.names \
                       names";
            only(&upper(value), &c.listeners.client, why)
        },
    },
    Setting {
        name: "listener.security.protocol.map",
        kind: Kind::String,
        synonym: None,
        doc: "What each listener speaks, as NAME:PROTOCOL. Only PLAINTEXT is served; the names of \
              listeners that this node does not have mean nothing.",
        get: |c| c.listeners.protocols_text(),
        set: |c, value| {
            c.listeners.protocols = listeners::protocols(value)?;
            Ok(())
        },
    },
    Setting {
        name: "listeners",
        kind: Kind::List,
        synonym: None,
        doc: "Where this node listens, as NAME://HOST:PORT: one listener for clients, and the one \
              that controller.listener.names names for the other nodes. No host means every \
              address of the machine; one that is not loopback needs --insecure.",
        get: |c| {
            let client = Some((&c.listeners.client, c.listen));
            let nodes = c.controller_listen.map(|at| (&c.listeners.controller, at));
            list(client.into_iter().chain(nodes), |f, (name, at)| {
                write!(f, "{name}://{at}")
            })
        },
        set: |c, value| {
            let mut client = None;
            let mut nodes = None;
            for Listener { name, place } in listeners::listeners(value)? {
                c.listeners.check_protocol(&name)?;
                if c.listeners.is_controller(&name) {
                    nodes = Some(place);
                } else if client.is_none() {
                    client = Some((name, place));
                } else {
                    return Err(
                        "one listener for clients is served, beside the one for nodes that \
                                controller.listener.names names"
                            .to_owned(),
                    );
                }
            }
            let (name, place) =
                client.ok_or("a listener for clients is needed: NAME://HOST:PORT")?;
            let host = |place: &Place| Some(place.host.clone()).filter(|host| !host.is_empty());
            c.listen = resolve(&place)?;
            c.listeners.client = name;
            c.listeners.client_host = host(&place);
            c.controller_listen = nodes.as_ref().map(resolve).transpose()?;
            c.listeners.controller_host = nodes.as_ref().and_then(host);
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
        name: "log.scrub.interval.ms",
        kind: Kind::Long,
        synonym: None,
        doc: "Everything is read from the disk once in this time and looked at, whether or not anybody asks \
              for it, so that bytes that went bad are found while other replicas have them. -1: nothing is.",
        get: |c| match c.scrub_interval {
            Some(interval) => interval.as_millis().to_string(),
            None => "-1".to_owned(),
        },
        set: |c, value| {
            let ms: i64 = number(value, -1..=1 << 40)?;
            c.scrub_interval = match ms {
                -1 => None,
                0..1000 => return Err("-1, or a second and more, is needed".to_owned()),
                ms => Some(Duration::from_millis(ms.unsigned_abs())),
            };
            Ok(())
        },
    },
    Setting {
        name: "log.write.caching.window.ms",
        kind: Kind::Long,
        synonym: None,
        doc: "How old the oldest byte on its way to disk may be while a topic with write.caching is \
              answered from memory; beyond it answers wait for the disk. A power cut takes no more \
              than was acknowledged in a stretch of that length.",
        get: |c| c.caching_window.as_millis().to_string(),
        set: |c, value| {
            c.caching_window = Duration::from_millis(number(value, 150..=60_000)?);
            Ok(())
        },
    },
    Setting {
        name: "max.connections",
        kind: Kind::Int,
        synonym: None,
        doc: "The most connections at once, if the limit of open files allows them (ulimit -n); further ones are closed.",
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
        name: "process.roles",
        kind: Kind::List,
        synonym: None,
        doc: "What a node is. Only broker,controller is served: every node is both.",
        get: |_| "broker,controller".to_owned(),
        set: |_, value| {
            let mut roles: Vec<_> = listeners::entries(value).collect();
            roles.sort_unstable();
            let why = "every node keeps events, and up to three of them the cluster's state";
            only(&roles.join(","), "broker,controller", why)
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
        name: "replica.lag.time.max.ms",
        kind: Kind::Long,
        synonym: None,
        doc: "How long a replica may lag behind its leader and count as in sync.",
        get: |c| c.replica_lag.as_millis().to_string(),
        set: |c, value| {
            c.replica_lag = Duration::from_millis(number(value, 100..=1 << 40)?);
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
