//! One file for each command.

mod cluster;
mod consume;
mod dev;
pub(crate) mod log;
mod node;
mod produce;
mod server;
mod service;
mod topic;

use std::{
    io::{self, IsTerminal},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use riverrun_client::{Client, ClientConfig};
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command, Global};

/// How long a command waits for the first broker: long enough for one that is just starting.
const FIRST_CONTACT: Duration = Duration::from_secs(5);

/// Runs a command.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Dev(args) => {
            trace("info");
            dev::run(&args, cli.global.format)
        }
        Command::Server(args) => {
            trace("info");
            server::run(&args, cli.global.format)
        }
        Command::Log(command) => log::run(&command, cli.global.format),
        Command::Node(command) => node::run(&command, cli.global.format),
        Command::Cluster(command) => online(&cli.global, cluster::run(&cli.global, command)),
        Command::Topic(command) => online(&cli.global, topic::run(&cli.global, command)),
        Command::Produce(args) => online(&cli.global, produce::run(&cli.global, args)),
        Command::Consume(args) => online(&cli.global, consume::run(&cli.global, args)),
    }
}

/// Runs a command that talks to brokers.
fn online(_: &Global, command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    trace("warn");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no threads for the client")?;
    let result = runtime.block_on(command);
    // A thread may still be waiting for standard input; nothing of ours is left to do in it.
    runtime.shutdown_background();
    result
}

/// Writes what the libraries report to standard error, filtered by `RIVERRUN_LOG`.
fn trace(default: &str) {
    let filter =
        EnvFilter::try_from_env("RIVERRUN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // Only one of the two programs in this package runs, and it comes here once.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init();
}

/// A client of the brokers that were named, one of which can be reached.
async fn connect(global: &Global) -> anyhow::Result<Client> {
    let timeout = Duration::from_secs(global.timeout);
    let client = client(global, timeout)?;
    client.reach(timeout.min(FIRST_CONTACT)).await?;
    Ok(client)
}

/// A client of the brokers that were named, whether any of them runs or not.
fn client(global: &Global, timeout: Duration) -> anyhow::Result<Client> {
    let client = Client::new(ClientConfig {
        request_timeout: timeout,
        operation_timeout: timeout,
        connect_timeout: timeout.min(FIRST_CONTACT),
        ..ClientConfig::new(global.brokers.iter().map(|b| with_port(b.trim())))
    });
    client.map_err(|e| crate::failure::Usage(e.to_string()).into())
}

/// Kafka's port, where none is named.
fn with_port(broker: &str) -> String {
    let has_port = broker.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
    });
    match broker {
        _ if has_port => broker.to_owned(),
        _ if broker.matches(':').count() > 1 && !broker.starts_with('[') => {
            format!("[{broker}]:9092")
        }
        // One colon and no port behind it: for the client to refuse.
        _ if broker.contains(':') && !broker.ends_with(']') => broker.to_owned(),
        _ => format!("{broker}:9092"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "ages on the command line count from now; this is the edge"
)]
fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::with_port;

    #[test]
    fn a_broker_without_a_port_has_kafkas() {
        for (given, full) in [
            ("localhost", "localhost:9092"),
            ("localhost:1", "localhost:1"),
            ("::1", "[::1]:9092"),
            ("[::1]", "[::1]:9092"),
            ("[::1]:1", "[::1]:1"),
            ("localhost:99999", "localhost:99999"),
            ("localhost:", "localhost:"),
        ] {
            assert_eq!(with_port(given), full);
        }
    }
}
