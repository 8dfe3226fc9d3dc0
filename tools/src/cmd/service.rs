//! A node in this process: its threads, its signals, and where scripts read that it is there.

use std::io::{self, Write};
use std::net::SocketAddr;

use anyhow::Context;
use riverrun_server::Config;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs a node until it is told to stop; `ready` is told where it listens.
pub(crate) fn run(config: Config, ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads of the node")?;
    let ended = runtime.block_on(async {
        let (interrupt, terminate) = signals()?;
        riverrun_server::run(config, ready, stopped(interrupt, terminate)).await?;
        anyhow::Ok(())
    });
    // Where the node could not go on, a thread of it may never end.
    runtime.shutdown_background();
    ended
}

/// Writes where a node is, as one line of JSON.
pub(crate) fn announce_json(place: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, place)?;
    writeln!(out)?;
    out.flush()
}

fn signals() -> anyhow::Result<(Signal, Signal)> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    Ok((
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
    ))
}

/// Ends with the first signal; a second one ends the process at once.
async fn stopped(mut interrupt: Signal, mut terminate: Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(1);
    });
}
