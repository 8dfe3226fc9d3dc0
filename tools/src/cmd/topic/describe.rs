//! `riverrun topic describe`.

use std::{collections::BTreeMap, io::Write};

use riverrun_client::{Client, ConfigEntry, ConfigSource, OffsetSpec, TopicInfo, TopicPartition};
use serde::Serialize;

use crate::{
    base64,
    cli::{Format, Global, TopicDescribeArgs},
    cmd::connect,
    output,
};

#[derive(Debug, Serialize)]
struct Topic {
    name: String,
    id: String,
    internal: bool,
    partitions: Vec<Partition>,
    configs: Vec<Config>,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: i32,
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
    offline: Vec<i32>,
    start_offset: Option<i64>,
    end_offset: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Config {
    name: String,
    value: Option<String>,
    source: &'static str,
    read_only: bool,
}

pub(super) async fn run(global: &Global, args: &TopicDescribeArgs) -> anyhow::Result<()> {
    let client = connect(global).await?;
    let mut topics = Vec::new();
    let mut failed = Vec::new();
    for name in &args.names {
        match describe(&client, name).await {
            Ok(topic) => topics.push(topic),
            Err(error) => failed.push(error),
        }
    }
    let mut out = output::stdout();
    match global.format {
        Format::Json => output::json(&mut out, &topics)?,
        Format::Table => {
            for (n, topic) in topics.iter().enumerate() {
                if n > 0 {
                    writeln!(out)?;
                }
                table(&mut out, topic)?;
            }
        }
    }
    super::reported(&mut out, failed)
}

async fn describe(client: &Client, name: &str) -> riverrun_client::Result<Topic> {
    let info = client.describe_topic(name).await?;
    let configs = client.describe_topic_configs(name).await?;
    // Only what has a leader can be asked for its offsets.
    let led = |spec| {
        let led = info.partitions.iter().filter(|p| p.leader.is_some());
        led.map(|p| (TopicPartition::new(name, p.number), spec))
            .collect::<Vec<_>>()
    };
    let starts = client.list_offsets(&led(OffsetSpec::Start)).await?;
    let ends = client.list_offsets(&led(OffsetSpec::End)).await?;
    Ok(topic(&info, configs, |partition| {
        let place = TopicPartition::new(name, partition);
        let of = |map: &BTreeMap<_, riverrun_client::ListedOffset>| {
            map.get(&place).and_then(|l| l.offset)
        };
        (of(&starts), of(&ends))
    }))
}

fn topic(
    info: &TopicInfo,
    configs: Vec<ConfigEntry>,
    offsets: impl Fn(i32) -> (Option<i64>, Option<i64>),
) -> Topic {
    let partition = |p: &riverrun_client::PartitionInfo| {
        let (start_offset, end_offset) = offsets(p.number);
        Partition {
            partition: p.number,
            leader: p.leader,
            leader_epoch: p.leader_epoch,
            replicas: p.replicas.clone(),
            in_sync: p.in_sync.clone(),
            offline: p.offline.clone(),
            start_offset,
            end_offset,
        }
    };
    let config = |c: ConfigEntry| Config {
        name: c.name,
        value: c.value,
        source: match c.source {
            ConfigSource::Topic => "topic",
            ConfigSource::DynamicBroker => "dynamic-broker",
            ConfigSource::Broker => "broker",
            ConfigSource::Default => "default",
            _ => "other",
        },
        read_only: c.read_only,
    };
    Topic {
        name: info.name.to_string(),
        id: base64::url(info.id.as_bytes()),
        internal: info.is_internal,
        partitions: info.partitions.iter().map(partition).collect(),
        configs: configs.into_iter().map(config).collect(),
    }
}

fn table(out: &mut impl Write, topic: &Topic) -> anyhow::Result<()> {
    writeln!(out, "{}  (id {})", topic.name, topic.id)?;
    writeln!(out)?;
    let number = |n: Option<i64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let nodes = |nodes: &[i32]| {
        nodes
            .iter()
            .map(i32::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    let row = |p: &Partition| {
        vec![
            p.partition.to_string(),
            number(p.leader.map(i64::from)),
            p.leader_epoch.to_string(),
            nodes(&p.replicas),
            nodes(&p.in_sync),
            number(p.start_offset),
            number(p.end_offset),
        ]
    };
    let header = [
        "PARTITION",
        "LEADER",
        "EPOCH",
        "REPLICAS",
        "IN-SYNC",
        "START",
        "END",
    ];
    output::table(out, &header, topic.partitions.iter().map(row))?;
    let set: Vec<_> = topic
        .configs
        .iter()
        .filter(|c| c.source != "default")
        .collect();
    if !set.is_empty() {
        writeln!(out)?;
        let row = |c: &&Config| {
            vec![
                c.name.clone(),
                c.value.clone().unwrap_or_else(|| "-".to_owned()),
                c.source.to_owned(),
            ]
        };
        output::table(out, &["SETTING", "VALUE", "FROM"], set.iter().map(row))?;
    }
    Ok(())
}
