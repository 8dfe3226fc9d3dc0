//! What of a cluster is not as it should be.

use std::io::Write;
use std::sync::Arc;

use riverrun_client::{ClusterInfo, PartitionInfo, QuorumInfo, TopicInfo};
use serde::Serialize;

use crate::output;

/// A cluster, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) healthy: bool,
    /// The nodes that answer clients.
    brokers: Vec<i32>,
    /// Those that have registered and are taken for gone.
    fenced: Vec<i32>,
    /// The node that leads the controller's log.
    controller: Option<i32>,
    /// Those that vote on it.
    voters: Vec<i32>,
    /// Voters that are not among the brokers.
    missing_voters: Vec<i32>,
    partitions: usize,
    /// Nobody can write to these or read from them.
    leaderless: Vec<Partition>,
    /// These have fewer replicas in sync than replicas.
    under_replicated: Vec<Partition>,
    /// These have replicas that are out of service.
    offline: Vec<Partition>,
}

/// A partition that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Partition {
    topic: String,
    partition: i32,
    leader: Option<i32>,
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
    offline: Vec<i32>,
}

impl Report {
    pub(super) fn new(
        cluster: &ClusterInfo,
        quorum: &QuorumInfo,
        topics: &[Arc<TopicInfo>],
    ) -> Self {
        let brokers: Vec<i32> = cluster.brokers.iter().map(|broker| broker.id).collect();
        let voters: Vec<i32> = quorum.voters.iter().map(|voter| voter.node).collect();
        let missing = voters.iter().filter(|voter| !brokers.contains(voter));
        let those = |is_wrong: fn(&PartitionInfo) -> bool| -> Vec<Partition> {
            let partitions = topics.iter().flat_map(|topic| {
                let wrong = topic.partitions.iter().filter(move |p| is_wrong(p));
                wrong.map(|partition| Partition {
                    topic: topic.name.to_string(),
                    partition: partition.number,
                    leader: partition.leader,
                    replicas: partition.replicas.clone(),
                    in_sync: partition.in_sync.clone(),
                    offline: partition.offline.clone(),
                })
            });
            partitions.collect()
        };
        let mut report = Self {
            healthy: false,
            missing_voters: missing.copied().collect(),
            brokers,
            fenced: cluster.fenced.iter().map(|broker| broker.id).collect(),
            controller: quorum.leader,
            voters,
            partitions: topics.iter().map(|topic| topic.partitions.len()).sum(),
            leaderless: those(|partition| partition.leader.is_none()),
            under_replicated: those(|partition| partition.in_sync.len() < partition.replicas.len()),
            offline: those(|partition| !partition.offline.is_empty()),
        };
        report.healthy = report.controller.is_some()
            && report.fenced.is_empty()
            && report.missing_voters.is_empty()
            && report.leaderless.is_empty()
            && report.under_replicated.is_empty()
            && report.offline.is_empty();
        report
    }

    /// For people: one line of each number, and the partitions that are not as they should be.
    pub(super) fn table(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let leader = self
            .controller
            .map_or_else(|| "nobody".to_owned(), |id| id.to_string());
        let but = |wrong: &[i32], is: &str| match wrong {
            [] => String::new(),
            wrong => format!(", {} {is}", nodes(wrong)),
        };
        let gone = but(&self.fenced, "gone");
        let missing = but(&self.missing_voters, "missing");
        writeln!(
            out,
            "healthy           {}",
            if self.healthy { "yes" } else { "no" }
        )?;
        writeln!(out, "brokers           {}{gone}", nodes(&self.brokers))?;
        writeln!(
            out,
            "controller        led by {leader}, voters {}{missing}",
            nodes(&self.voters)
        )?;
        writeln!(out, "partitions        {}", self.partitions)?;
        writeln!(out, "leaderless        {}", self.leaderless.len())?;
        writeln!(out, "under-replicated  {}", self.under_replicated.len())?;
        writeln!(out, "offline replicas  {}", self.offline.len())?;
        let mut wrong: Vec<&Partition> = Vec::new();
        let all = [&self.leaderless, &self.under_replicated, &self.offline];
        for partition in all.into_iter().flatten() {
            if !wrong.contains(&partition) {
                wrong.push(partition);
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        wrong.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        writeln!(out)?;
        let header = [
            "TOPIC",
            "PARTITION",
            "LEADER",
            "REPLICAS",
            "IN-SYNC",
            "OFFLINE",
        ];
        let rows = wrong.into_iter().map(|partition| {
            let leader = partition.leader.map(|leader| leader.to_string());
            vec![
                partition.topic.clone(),
                partition.partition.to_string(),
                leader.unwrap_or_else(|| "-".to_owned()),
                nodes(&partition.replicas),
                nodes(&partition.in_sync),
                nodes(&partition.offline),
            ]
        });
        output::table(out, &header, rows)
    }
}

fn nodes(nodes: &[i32]) -> String {
    if nodes.is_empty() {
        return "-".to_owned();
    }
    let texts: Vec<_> = nodes.iter().map(i32::to_string).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use riverrun_client::{BrokerInfo, QuorumReplica};

    use super::*;

    fn cluster(brokers: &[i32], fenced: &[i32]) -> ClusterInfo {
        let broker = |id: &i32| BrokerInfo {
            id: *id,
            host: "h".to_owned(),
            port: 9092,
            rack: None,
        };
        ClusterInfo {
            id: None,
            controller: None,
            brokers: brokers.iter().map(broker).collect(),
            fenced: fenced.iter().map(broker).collect(),
        }
    }

    fn quorum(leader: Option<i32>) -> QuorumInfo {
        let voter = |node| QuorumReplica {
            node,
            directory: uuid::Uuid::nil(),
            log_end_offset: None,
            last_fetch_ms: None,
            last_caught_up_ms: None,
        };
        QuorumInfo {
            leader,
            leader_epoch: 1,
            high_watermark: 0,
            voters: [1, 2, 3].map(voter).to_vec(),
            observers: Vec::new(),
        }
    }

    fn topics(leader: Option<i32>, in_sync: &[i32], offline: &[i32]) -> Vec<Arc<TopicInfo>> {
        let partition = |number, leader, in_sync: &[i32], offline: &[i32]| PartitionInfo {
            number,
            leader,
            leader_epoch: 1,
            replicas: vec![1, 2, 3],
            in_sync: in_sync.to_vec(),
            offline: offline.to_vec(),
        };
        vec![Arc::new(TopicInfo {
            name: "t".into(),
            id: uuid::Uuid::nil(),
            is_internal: false,
            partitions: vec![
                partition(0, Some(1), &[1, 2, 3], &[]),
                partition(1, leader, in_sync, offline),
            ],
        })]
    }

    fn text(report: &Report) -> String {
        let mut out = Vec::new();
        report.table(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_cluster_is_well_when_nothing_is_wrong() {
        let fine = topics(Some(2), &[1, 2, 3], &[]);
        let report = Report::new(&cluster(&[1, 2, 3], &[]), &quorum(Some(3)), &fine);
        assert!(report.healthy);
        let text = text(&report);
        assert!(
            text.contains("led by 3, voters 1,2,3\n") && !text.contains("TOPIC"),
            "{text}"
        );
    }

    #[test]
    fn each_thing_that_is_wrong_makes_it_unwell_and_is_named() {
        let fine = || topics(Some(2), &[1, 2, 3], &[]);
        for (brokers, leader, topics, says) in [
            (&[1, 2, 3][..], None, fine(), "led by nobody"),
            (&[1, 3], Some(1), fine(), "voters 1,2,3, 2 missing"),
            (
                &[1, 2, 3],
                Some(1),
                topics(None, &[1, 2, 3], &[]),
                "leaderless        1",
            ),
            (
                &[1, 2, 3],
                Some(1),
                topics(Some(1), &[1, 3], &[]),
                "under-replicated  1",
            ),
            (
                &[1, 2, 3],
                Some(1),
                topics(Some(1), &[1, 2, 3], &[2]),
                "offline replicas  1",
            ),
        ] {
            let report = Report::new(&cluster(brokers, &[]), &quorum(leader), &topics);
            let text = text(&report);
            assert!(
                !report.healthy && text.starts_with("healthy           no"),
                "{text}"
            );
            assert!(text.contains(says), "{text}");
        }
        let report = Report::new(&cluster(&[1, 2, 3], &[4]), &quorum(Some(1)), &fine());
        assert!(!report.healthy && text(&report).contains("brokers           1,2,3, 4 gone\n"));
        // One that is wrong in every way is shown once.
        let worst = topics(None, &[], &[1, 2, 3]);
        let text = text(&Report::new(
            &cluster(&[1, 2, 3], &[]),
            &quorum(Some(1)),
            &worst,
        ));
        let last = text.lines().last().unwrap();
        let words: Vec<_> = last.split_whitespace().collect();
        assert_eq!(words, ["t", "1", "-", "1,2,3", "-", "1,2,3"]);
        assert_eq!(
            text.lines().filter(|line| line.starts_with("t ")).count(),
            1
        );
    }
}
