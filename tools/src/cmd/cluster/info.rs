//! `riverrun cluster info`.

use std::io::Write;

use riverrun_client::{BrokerInfo, ClusterInfo, QuorumInfo, QuorumReplica};
use serde::Serialize;

use crate::{
    base64,
    cli::{Format, Global},
    cmd::connect,
    output,
};

#[derive(Debug, Serialize)]
struct Cluster {
    id: Option<String>,
    brokers: Vec<Broker>,
    controller: Controller,
}

#[derive(Debug, Serialize)]
struct Broker {
    node: i32,
    address: String,
    rack: Option<String>,
    /// Whether it is taken for gone.
    fenced: bool,
}

/// The log that the cluster's state is kept in.
#[derive(Debug, Serialize)]
struct Controller {
    leader: Option<i32>,
    epoch: i32,
    high_watermark: i64,
    replicas: Vec<Replica>,
}

#[derive(Debug, Serialize)]
struct Replica {
    node: i32,
    /// `leader`, `voter` or `observer`.
    role: &'static str,
    directory: String,
    end_offset: Option<i64>,
}

pub(super) async fn run(global: &Global) -> anyhow::Result<()> {
    let client = connect(global).await?;
    let cluster = client.describe_cluster().await?;
    let quorum = client.describe_quorum().await?;
    let cluster = shape(cluster, &quorum);
    let mut out = output::stdout();
    match global.format {
        Format::Json => output::json(&mut out, &cluster)?,
        Format::Table => table(&mut out, &cluster)?,
    }
    out.flush()?;
    Ok(())
}

fn shape(cluster: ClusterInfo, quorum: &QuorumInfo) -> Cluster {
    let broker = |broker: BrokerInfo, fenced: bool| Broker {
        node: broker.id,
        address: broker.address(),
        rack: broker.rack,
        fenced,
    };
    let live = cluster.brokers.into_iter().map(|live| broker(live, false));
    let gone = cluster.fenced.into_iter().map(|gone| broker(gone, true));
    let replica = |replica: &QuorumReplica, role: &'static str| Replica {
        node: replica.node,
        role: if quorum.leader == Some(replica.node) {
            "leader"
        } else {
            role
        },
        directory: base64::url(replica.directory.as_bytes()),
        end_offset: replica.log_end_offset,
    };
    let voters = quorum.voters.iter().map(|voter| replica(voter, "voter"));
    let observers = quorum.observers.iter();
    let observers = observers.map(|observer| replica(observer, "observer"));
    Cluster {
        id: cluster.id,
        brokers: live.chain(gone).collect(),
        controller: Controller {
            leader: quorum.leader,
            epoch: quorum.leader_epoch,
            high_watermark: quorum.high_watermark,
            replicas: voters.chain(observers).collect(),
        },
    }
}

fn table(out: &mut impl Write, cluster: &Cluster) -> anyhow::Result<()> {
    writeln!(out, "cluster {}", cluster.id.as_deref().unwrap_or("-"))?;
    writeln!(out)?;
    let rows = cluster.brokers.iter().map(|broker| {
        let rack = broker.rack.clone().unwrap_or_else(|| "-".to_owned());
        let state = if broker.fenced { "gone" } else { "live" };
        vec![
            broker.node.to_string(),
            broker.address.clone(),
            rack,
            state.to_owned(),
        ]
    });
    output::table(out, &["BROKER", "ADDRESS", "RACK", "STATE"], rows)?;
    writeln!(out)?;
    let rows = cluster.controller.replicas.iter().map(|replica| {
        let end = replica.end_offset.map(|offset| offset.to_string());
        vec![
            replica.node.to_string(),
            replica.role.to_owned(),
            end.unwrap_or_else(|| "-".to_owned()),
        ]
    });
    output::table(out, &["CONTROLLER", "ROLE", "END"], rows)
}
