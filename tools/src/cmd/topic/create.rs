//! `riverrun topic create`.

use std::io::Write;

use riverrun_client::{ErrorCode, NewTopic};
use serde::Serialize;

use crate::{
    base64,
    cli::{Format, Global, TopicCreateArgs},
    cmd::connect,
    output,
};

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// False if it was there already, or if only asked for.
    created: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<i16>,
}

pub(super) async fn run(global: &Global, args: TopicCreateArgs) -> anyhow::Result<()> {
    let client = connect(global).await?;
    let topics: Vec<_> = args
        .names
        .into_iter()
        .map(|name| NewTopic {
            name,
            partitions: args.partitions,
            replication: args.replicas,
            configs: args.configs.clone(),
        })
        .collect();
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for (name, result) in client.create_topics(&topics, args.dry_run).await? {
        match result {
            Ok(topic) => rows.push(Row {
                name,
                created: !args.dry_run,
                id: (!topic.id.is_nil()).then(|| base64::url(topic.id.as_bytes())),
                partitions: topic.partitions,
                replicas: topic.replication,
            }),
            Err(error)
                if args.if_not_exists && error.code() == Some(ErrorCode::TopicAlreadyExists) =>
            {
                rows.push(Row {
                    name,
                    created: false,
                    id: None,
                    partitions: None,
                    replicas: None,
                });
            }
            Err(error) => failed.push(error),
        }
    }
    let mut out = output::stdout();
    match global.format {
        Format::Json => output::json(&mut out, &rows)?,
        Format::Table => {
            for row in &rows {
                let done = match (row.created, args.dry_run) {
                    (true, _) => "created",
                    (false, true) => "could create",
                    (false, false) => "there already:",
                };
                write!(out, "{done} {}", row.name)?;
                match row.partitions {
                    Some(1) => write!(out, " (1 partition)")?,
                    Some(n) => write!(out, " ({n} partitions)")?,
                    None => {}
                }
                writeln!(out)?;
            }
        }
    }
    super::reported(&mut out, failed)
}
