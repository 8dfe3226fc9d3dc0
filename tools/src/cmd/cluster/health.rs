//! `riverrun cluster health`.

use std::{io::Write, time::Duration};

use riverrun_client::Client;

use super::report::Report;
use crate::{
    cli::{Format, Global, HealthArgs},
    cmd,
    failure::{self, Unhealthy},
    output,
};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one of several looks may take: the next one finds who has come meanwhile.
const LOOK: Duration = Duration::from_secs(5);

pub(super) async fn run(global: &Global, args: &HealthArgs) -> anyhow::Result<()> {
    if args.watch || args.exit_when_healthy {
        return watch(global, args).await;
    }
    let client = cmd::connect(global).await?;
    let report = look(&client).await?;
    show(&report, global.format)?;
    if report.healthy {
        Ok(())
    } else {
        Err(Unhealthy.into())
    }
}

async fn look(client: &Client) -> riverrun_client::Result<Report> {
    let cluster = client.describe_cluster().await?;
    let quorum = client.describe_quorum().await?;
    let topics = client.list_topics().await?;
    Ok(Report::new(&cluster, &quorum, &topics))
}

/// Shows each state that differs from the one before, until all is well where that ends it.
async fn watch(global: &Global, args: &HealthArgs) -> anyhow::Result<()> {
    let timeout = Duration::from_secs(global.timeout).min(LOOK);
    let client = cmd::client(global, timeout)?;
    let mut shown: Option<Result<Report, String>> = None;
    loop {
        let seen = look(&client).await.map_err(anyhow::Error::from);
        let now = match &seen {
            Ok(report) => Ok(report.clone()),
            Err(error) => Err(error.to_string()),
        };
        if shown.as_ref() != Some(&now) {
            match &seen {
                Ok(report) => show(report, global.format)?,
                Err(error) => failure::report(error),
            }
        }
        if args.exit_when_healthy && seen.is_ok_and(|report| report.healthy) {
            return Ok(());
        }
        shown = Some(now);
        tokio::time::sleep(PAUSE).await;
    }
}

fn show(report: &Report, format: Format) -> anyhow::Result<()> {
    let mut out = output::stdout();
    match format {
        Format::Json => output::json(&mut out, report)?,
        Format::Table => report.table(&mut out)?,
    }
    out.flush()?;
    Ok(())
}
