//! Names that Kafka knows and this broker does not serve, and what comes of each.
//!
//! A file that was written for Kafka loads: what has no meaning here is passed over with one line
//! that says why. Not passed over is what somebody relies on: who may connect and do what, what is
//! deleted, where it is kept, limits. Such a name is refused, unless its value is what is so
//! anyway.

/// What comes of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is passed over, whatever its value.
    Ignored,
    /// It is refused, whatever its value.
    Refused,
    /// It is passed over with one of these values, which say what is so anyway.
    Only(&'static [&'static str]),
}

/// Names that share a reason.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) verdict: Verdict,
    /// Completes "it is ignored (or refused): ...".
    pub(crate) reason: &'static str,
    /// Whole names; one that ends with a star stands for all that begin so.
    pub(crate) names: &'static [&'static str],
}

impl Known {
    /// Whether a value is refused.
    pub(crate) fn refuses(&self, value: &str) -> bool {
        match self.verdict {
            Ignored => false,
            Refused => true,
            Only(values) => !values.iter().any(|v| v.eq_ignore_ascii_case(value.trim())),
        }
    }
}

/// What is known of a name: a whole name counts before a family that it belongs to.
pub(crate) fn find(name: &str) -> Option<&'static Known> {
    let stands_in = |known: &&Known| known.names.contains(&name);
    let belongs_to = |known: &&Known| {
        let mut families = known.names.iter().filter_map(|name| family(name));
        families.any(|family| name.starts_with(family))
    };
    let whole = KNOWN.iter().find(stands_in);
    whole.or_else(|| KNOWN.iter().find(belongs_to))
}

fn family(name: &'static str) -> Option<&'static str> {
    name.strip_suffix('*')
}

/// The whole names, for suggestions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let all = KNOWN.iter().flat_map(|known| known.names.iter().copied());
    all.filter(|name| family(name).is_none())
}

use Verdict::{Ignored, Only, Refused};

pub(crate) const KNOWN: &[Known] = &[
    // Who may connect, and what he may do.
    Known {
        verdict: Refused,
        reason: "there is no TLS yet; a listener speaks PLAINTEXT",
        names: &["ssl.*"],
    },
    Known {
        verdict: Refused,
        reason: "there is no SASL yet; nobody is asked who he is",
        names: &[
            "sasl.*",
            "delegation.token.secret.key",
            "delegation.token.master.key",
        ],
    },
    Known {
        verdict: Only(&[""]),
        reason: "there is no authorizer yet; whoever can connect may do everything",
        names: &[
            "authorizer.class.name",
            "super.users",
            "principal.builder.class",
            "security.providers",
        ],
    },
    Known {
        verdict: Only(&["true"]),
        reason: "there are no ACLs yet; whoever can connect may do everything",
        names: &["allow.everyone.if.no.acl.found"],
    },
    Known {
        verdict: Only(&["PLAINTEXT"]),
        reason: "there is no TLS and no SASL yet; nodes speak to each other in the clear",
        names: &["security.inter.broker.protocol"],
    },
    Known {
        verdict: Only(&["0"]),
        reason: "nobody is authenticated, so nobody can be asked again",
        names: &["connections.max.reauth.ms"],
    },
    Known {
        verdict: Ignored,
        reason: "there are no delegation tokens, and nobody is authenticated",
        names: &[
            "connection.failed.authentication.delay.ms",
            "delegation.token.expiry.check.interval.ms",
            "delegation.token.expiry.time.ms",
            "delegation.token.max.lifetime.ms",
            "early.start.listeners",
            "password.encoder.*",
        ],
    },
    Known {
        verdict: Refused,
        reason: "settings of a single listener are not served; all listeners share the node's",
        names: &["listener.name.*"],
    },
    Known {
        verdict: Only(&[""]),
        reason: "values are taken as they stand; nothing is looked up for them",
        names: &["config.providers"],
    },
    Known {
        verdict: Refused,
        reason: "values are taken as they stand; nothing is looked up for them",
        names: &["config.providers.*"],
    },
    // Limits that somebody relies on.
    Known {
        verdict: Only(&[""]),
        reason: "no Java class is loaded, so the policy would not be followed",
        names: &[
            "alter.config.policy.class.name",
            "client.quota.callback.class",
            "create.topic.policy.class.name",
        ],
    },
    Known {
        verdict: Only(&["2147483647"]),
        reason: "connections are limited together (max.connections), not by address or by rate",
        names: &["max.connection.creation.rate", "max.connections.per.ip"],
    },
    Known {
        verdict: Only(&[""]),
        reason: "connections are limited together (max.connections), not by address or by rate",
        names: &["max.connections.per.ip.overrides"],
    },
    Known {
        verdict: Only(&["9223372036854775807"]),
        reason: "there are no quotas yet",
        names: &["quota.consumer.default", "quota.producer.default"],
    },
    Known {
        verdict: Ignored,
        reason: "there are no quotas yet, so there is nothing to measure for them",
        names: &[
            "alter.log.dirs.replication.quota.window.num",
            "alter.log.dirs.replication.quota.window.size.seconds",
            "controller.quota.window.num",
            "controller.quota.window.size.seconds",
            "quota.window.num",
            "quota.window.size.seconds",
            "replication.quota.window.num",
            "replication.quota.window.size.seconds",
        ],
    },
    Known {
        verdict: Only(&["true"]),
        reason: "whoever can connect may delete topics",
        names: &["delete.topic.enable"],
    },
    Known {
        verdict: Ignored,
        reason: "what a batch may decompress to is bounded in proportion to what was sent",
        names: &["max.decompressed.message.bytes"],
    },
    // Where events are kept, and for how long.
    Known {
        verdict: Only(&[""]),
        reason: "the controller's log lies with the others in log.dirs: there is one directory and \
                 one write-ahead log a node",
        names: &["metadata.log.dir"],
    },
    Known {
        verdict: Only(&[""]),
        reason: "there is one directory a node; to empty it, take the node out of the cluster",
        names: &["cordoned.log.dirs"],
    },
    Known {
        verdict: Only(&["false"]),
        reason: "there is no tiered storage yet; all events stay on the node's own disk",
        names: &["remote.log.storage.system.enable"],
    },
    Known {
        verdict: Ignored,
        reason: "there is no tiered storage yet",
        names: &[
            "follower.fetch.last.tiered.offset.enable",
            "log.local.retention.bytes",
            "log.local.retention.ms",
            "log.remote.copy.lag.bytes",
            "log.remote.copy.lag.ms",
            "remote.*",
            "rlmm.config.*",
            "rsm.config.*",
        ],
    },
    Known {
        verdict: Ignored,
        reason: "nothing is deleted by age or size yet, so nobody looks for what could be",
        names: &["log.retention.check.interval.ms"],
    },
    Known {
        verdict: Ignored,
        reason: "there is no compaction yet; log.cleanup.policy=compact is refused",
        names: &["log.cleaner.*"],
    },
    // What the log does by itself.
    Known {
        verdict: Ignored,
        reason: "acks=all is answered from the disk of a majority, and flushes follow each other \
                 without a pause; with write.caching one is due within two ticks",
        names: &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
    },
    Known {
        verdict: Ignored,
        reason: "how far a log is durable stands in the write-ahead log, with every flush",
        names: &[
            "log.flush.offset.checkpoint.interval.ms",
            "log.flush.start.offset.checkpoint.interval.ms",
            "replica.high.watermark.checkpoint.interval.ms",
        ],
    },
    Known {
        verdict: Ignored,
        reason: "segments, indexes and their files are laid out by the store itself",
        names: &[
            "log.index.size.max.bytes",
            "log.initial.task.delay.ms",
            "log.preallocate",
            "log.roll.jitter.hours",
            "log.roll.jitter.ms",
            "log.segment.delete.delay.ms",
        ],
    },
    Known {
        verdict: Ignored,
        reason: "batches are stored as they were sent",
        names: &[
            "compression.gzip.level",
            "compression.lz4.level",
            "compression.zstd.level",
        ],
    },
    Known {
        verdict: Ignored,
        reason: "record batches have one format, the current one",
        names: &[
            "inter.broker.protocol.version",
            "log.message.downconversion.enable",
            "log.message.format.version",
        ],
    },
    Known {
        verdict: Refused,
        reason: "Kafka 4 does not know it any more; set log.message.timestamp.before.max.ms and \
                 log.message.timestamp.after.max.ms",
        names: &["log.message.timestamp.difference.max.ms"],
    },
    Known {
        verdict: Ignored,
        reason: "a log whose disk fails is out of service at once; with the write-ahead log the node is",
        names: &["log.dir.failure.timeout.ms"],
    },
    Known {
        verdict: Ignored,
        reason: "there are no transactions yet, and what is known of an idempotent producer is kept",
        names: &[
            "producer.id.expiration.check.interval.ms",
            "producer.id.expiration.ms",
        ],
    },
    // Threads, sockets, memory.
    Known {
        verdict: Ignored,
        reason: "work is spread over the processor's cores; there are no pools to size",
        names: &[
            "background.threads",
            "num.io.threads",
            "num.network.threads",
            "num.recovery.threads.per.data.dir",
            "num.replica.alter.log.dirs.threads",
            "num.replica.fetchers",
        ],
    },
    Known {
        verdict: Ignored,
        reason: "the kernel sizes the buffers of sockets, and their backlog is fixed",
        names: &[
            "replica.socket.receive.buffer.bytes",
            "socket.listen.backlog.size",
            "socket.receive.buffer.bytes",
            "socket.send.buffer.bytes",
        ],
    },
    Known {
        verdict: Ignored,
        reason: "requests are held to memory (queued.max.request.bytes), and each connection to \
                 its own share",
        names: &["max.request.partition.size.limit", "queued.max.requests"],
    },
    Known {
        verdict: Ignored,
        reason: "what waits for something is woken by it; there is no purgatory to sweep",
        names: &[
            "delete.records.purgatory.purge.interval.requests",
            "fetch.purgatory.purge.interval.requests",
            "producer.purgatory.purge.interval.requests",
            "share.fetch.purgatory.purge.interval.requests",
        ],
    },
    Known {
        verdict: Ignored,
        reason: "fetch sessions are not kept; every fetch is a full one",
        names: &["max.incremental.fetch.session.cache.slots"],
    },
    // Replication and the controller.
    Known {
        verdict: Ignored,
        reason: "a partition's replicas are a Raft group: its leader sends, nobody fetches",
        names: &[
            "replica.fetch.backoff.ms",
            "replica.fetch.max.bytes",
            "replica.fetch.min.bytes",
            "replica.fetch.response.max.bytes",
            "replica.fetch.wait.max.ms",
            "replica.socket.timeout.ms",
        ],
    },
    Known {
        verdict: Ignored,
        reason: "clients are sent to the leader; followers are not read from",
        names: &["replica.selector.class"],
    },
    Known {
        verdict: Ignored,
        reason: "a partition's Raft group elects its leader, who has all that was acknowledged",
        names: &[
            "auto.leader.rebalance.enable",
            "leader.imbalance.check.interval.seconds",
            "leader.imbalance.per.broker.percentage",
            "unclean.leader.election.enable",
            "unclean.leader.election.interval.ms",
        ],
    },
    Known {
        verdict: Ignored,
        reason: "the controller is a Raft group like any partition's, with the same timing",
        names: &[
            "controller.quorum.append.linger.ms",
            "controller.quorum.election.backoff.max.ms",
            "controller.quorum.election.timeout.ms",
            "controller.quorum.fetch.max.bytes",
            "controller.quorum.fetch.snapshot.max.bytes",
            "controller.quorum.fetch.timeout.ms",
            "controller.quorum.request.timeout.ms",
            "controller.quorum.retry.backoff.ms",
            "controller.socket.timeout.ms",
            "initial.broker.registration.timeout.ms",
            "request.timeout.ms",
            "socket.connection.setup.timeout.max.ms",
            "socket.connection.setup.timeout.ms",
        ],
    },
    Known {
        verdict: Ignored,
        reason: "a node that joins becomes a voter while there are fewer than three",
        names: &["controller.quorum.auto.join.enable"],
    },
    Known {
        verdict: Ignored,
        reason: "nodes prove to each other that they live, ten times a second",
        names: &["broker.heartbeat.interval.ms"],
    },
    Known {
        verdict: Ignored,
        reason: "a node that is told to stop answers what it was asked and closes cleanly, always",
        names: &["controlled.shutdown.*", "server.max.startup.time.ms"],
    },
    Known {
        verdict: Ignored,
        reason: "the controller's log is cut behind the images that it writes of its state",
        names: &[
            "controller.performance.always.log.threshold.ms",
            "controller.performance.sample.period.ms",
            "internal.metadata.delete.delay.millis",
            "internal.metadata.log.segment.bytes",
            "internal.metadata.max.batch.size.in.bytes",
            "metadata.log.max.record.bytes.between.snapshots",
            "metadata.log.max.snapshot.interval.ms",
            "metadata.log.segment.bytes",
            "metadata.log.segment.min.bytes",
            "metadata.log.segment.ms",
            "metadata.max.idle.interval.ms",
            "metadata.max.retention.bytes",
            "metadata.max.retention.ms",
        ],
    },
    // What is not there yet.
    Known {
        verdict: Ignored,
        reason: "there are no consumer groups yet",
        names: &[
            "group.consumer.*",
            "group.coordinator.*",
            "group.initial.rebalance.delay.ms",
            "group.max.session.timeout.ms",
            "group.max.size",
            "group.min.session.timeout.ms",
            "group.streams.*",
            "offset.metadata.max.bytes",
            "offsets.*",
        ],
    },
    Known {
        verdict: Ignored,
        reason: "there are no share groups yet",
        names: &[
            "errors.deadletterqueue.*",
            "group.share.*",
            "share.coordinator.*",
        ],
    },
    Known {
        verdict: Ignored,
        reason: "there are no transactions yet",
        names: &[
            "add.partitions.to.txn.*",
            "transaction.*",
            "transactional.id.expiration.ms",
        ],
    },
    Known {
        verdict: Ignored,
        reason: "no Java class is loaded, and there are no metrics to report yet",
        names: &[
            "auto.include.jmx.reporter",
            "kafka.metrics.polling.interval.secs",
            "kafka.metrics.reporters",
            "metric.reporters",
            "metrics.num.samples",
            "metrics.recording.level",
            "metrics.sample.window.ms",
            "telemetry.max.bytes",
        ],
    },
    Known {
        verdict: Ignored,
        reason: "only finished versions of the protocol are spoken",
        names: &[
            "unstable.api.versions.enable",
            "unstable.feature.versions.enable",
        ],
    },
    // What Kafka itself has given up.
    Known {
        verdict: Ignored,
        reason: "there is no ZooKeeper; the nodes keep the cluster's state themselves",
        names: &["zookeeper.*"],
    },
    Known {
        verdict: Ignored,
        reason: "a node has the number that node.id gives it",
        names: &["broker.id.generation.enable", "reserved.broker.max.id"],
    },
    Known {
        verdict: Refused,
        reason: "Kafka 4 does not know it any more; set listeners and advertised.listeners",
        names: &[
            "advertised.host.name",
            "advertised.port",
            "control.plane.listener.name",
            "host.name",
            "port",
        ],
    },
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_stands_there_once_and_every_reason_reads_on() {
        let mut seen = BTreeSet::new();
        for known in KNOWN {
            assert!(!known.reason.ends_with('.') && !known.names.is_empty());
            for name in known.names {
                assert!(seen.insert(*name), "{name}");
            }
        }
    }

    #[test]
    fn a_whole_name_counts_before_its_family() {
        assert_eq!(find("ssl.keystore.location").unwrap().verdict, Refused);
        assert_eq!(find("remote.log.reader.threads").unwrap().verdict, Ignored);
        let enable = find("remote.log.storage.system.enable").unwrap();
        assert!(enable.refuses("true") && !enable.refuses(" False "));
        assert!(find("log.dirs").is_none() && find("remote").is_none());
    }
}
