//! `riverrun dev`: one node for development.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use riverrun_server::Config;
use serde::Serialize;

use super::service;
use crate::cli::{DevArgs, Format};
use crate::failure::{Advised, Usage};

/// Where the other commands look without `-b`.
const DEFAULT_ADDRESS: &str = "127.0.0.1:9092";

/// Runs a node until it is told to stop.
pub(crate) fn run(args: &DevArgs, format: Format) -> anyhow::Result<()> {
    let temporary = match &args.data {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("riverrun-")
                .tempdir()
                .map_err(|error| Advised {
                    what: format!("cannot make a temporary directory: {error}"),
                    next: "name a directory with --data DIR",
                })?,
        ),
    };
    let data = match (&args.data, &temporary) {
        (Some(data), _) => data.as_path(),
        (None, Some(temporary)) => temporary.path(),
        (None, None) => anyhow::bail!("there is no directory to keep the events in"),
    };
    let mut config = Config::new(data);
    config.listen = address(&args.kafka)?;
    config.insecure = args.insecure;
    service::run(config, |address| {
        // A reader that went away is no reason to stop serving.
        let _ = match format {
            Format::Table => announce(address, data, temporary.is_some()),
            Format::Json => service::announce_json(&Where {
                kafka: address.to_string(),
                data: data.to_string_lossy(),
                temporary: temporary.is_some(),
            }),
        };
    })
}

fn address(text: &str) -> anyhow::Result<SocketAddr> {
    text.to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| {
            Usage(format!(
                "{text} is not an address to listen on; give HOST:PORT"
            ))
            .into()
        })
}

/// Where a node is, for scripts.
#[derive(Debug, Serialize)]
struct Where<'a> {
    kafka: String,
    data: Cow<'a, str>,
    /// Whether the directory is removed at the end.
    temporary: bool,
}

fn announce(address: SocketAddr, data: &Path, temporary: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on kafka://{address}")?;
    let kept = if temporary {
        "; removed at the end, keep it with --data DIR"
    } else {
        ""
    };
    writeln!(out, "events are kept in {}{kept}", data.display())?;
    let brokers = if address.to_string() == DEFAULT_ADDRESS {
        String::new()
    } else {
        format!(" -b {address}")
    };
    writeln!(out, "\nPaste these into another terminal:")?;
    writeln!(out, "  riverrun topic create events -p 3{brokers}")?;
    writeln!(
        out,
        "  echo 'hello, river' | riverrun produce events{brokers}"
    )?;
    writeln!(out, "  riverrun consume events -o start -n 1{brokers}")?;
    out.flush()
}
