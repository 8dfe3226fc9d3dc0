//! `riverrun topic list`.

use std::io::Write;

use serde::Serialize;

use crate::{
    base64,
    cli::{Format, Global, TopicListArgs},
    cmd::connect,
    output,
};

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    id: String,
    partitions: usize,
    replicas: usize,
    internal: bool,
}

pub(super) async fn run(global: &Global, args: &TopicListArgs) -> anyhow::Result<()> {
    let client = connect(global).await?;
    let topics = client.list_topics().await?;
    let rows: Vec<_> = topics
        .iter()
        .filter(|t| args.internal || !t.is_internal)
        .map(|t| Row {
            name: t.name.to_string(),
            id: base64::url(t.id.as_bytes()),
            partitions: t.partitions.len(),
            replicas: t
                .partitions
                .iter()
                .map(|p| p.replicas.len())
                .max()
                .unwrap_or(0),
            internal: t.is_internal,
        })
        .collect();
    let mut out = output::stdout();
    match global.format {
        Format::Json => output::json(&mut out, &rows)?,
        Format::Table => {
            let row = |r: Row| vec![r.name, r.partitions.to_string(), r.replicas.to_string()];
            output::table(
                &mut out,
                &["NAME", "PARTITIONS", "REPLICAS"],
                rows.into_iter().map(row),
            )?;
        }
    }
    out.flush()?;
    Ok(())
}
