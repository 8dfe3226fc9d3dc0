//! The nodes that are measured.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{Options, broker};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Nodes on a directory that goes with them.
pub(crate) struct Cluster {
    nodes: Vec<Child>,
    brokers: Vec<String>,
    data: TempDir,
    watch: Option<Watch>,
}

struct Watch {
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Anonymous memory of a process in bytes: what it allocated, and not the files that it maps.
fn anonymous(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: u64 = kib.context("the memory of a node")?.parse()?;
    Ok(kib << 10)
}

/// Where a node's log goes.
fn log(logs: Option<&Path>, node: i32) -> Result<Stdio> {
    Ok(match logs {
        None => Stdio::null(),
        Some(logs) => {
            fs::create_dir_all(logs)?;
            File::create(logs.join(format!("{node}.log")))?.into()
        }
    })
}

impl Cluster {
    /// Starts nodes and waits until they serve.
    pub(crate) fn start(options: &Options) -> Result<Self> {
        let (program, count) = (&options.program, options.nodes);
        let budget = options.budget_bytes;
        let data = tempfile::tempdir_in(".")?;
        let ports: Vec<(u16, u16)> = (0..count)
            .map(|_| Ok((free_port()?, free_port()?)))
            .collect::<Result<_>>()?;
        let voters: Vec<String> = ports
            .iter()
            .zip(1..)
            .map(|((_, port), node)| format!("{node}@127.0.0.1:{port}"))
            .collect();
        let mut cluster = Self {
            nodes: Vec::new(),
            brokers: ports
                .iter()
                .map(|(port, _)| format!("127.0.0.1:{port}"))
                .collect(),
            data,
            watch: None,
        };
        for ((client, peer), node) in ports.iter().zip(1..) {
            let directory = cluster.data.path().join(format!("{node}"));
            let child = Command::new(program)
                .arg("server")
                .args(["--set", &format!("node.id={node}")])
                .args(["--set", &format!("log.dirs={}", directory.display())])
                .args([
                    "--set",
                    &format!("controller.quorum.voters={}", voters.join(",")),
                ])
                .args(["--set", &format!("queued.max.request.bytes={budget}")])
                .arg("--set")
                .arg(format!(
                    "listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{peer}"
                ))
                .stdout(Stdio::null())
                .stderr(log(options.logs.as_deref(), node)?)
                .spawn()
                .with_context(|| format!("starting {}", program.display()))?;
            cluster.nodes.push(child);
        }
        let begun = Instant::now();
        for broker in &cluster.brokers {
            while broker::Connection::open(broker)
                .and_then(|mut c| c.nodes())
                .ok()
                != Some(count)
            {
                ensure!(
                    begun.elapsed() < Duration::from_secs(30),
                    "{broker} does not serve"
                );
                thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(cluster)
    }

    /// Where clients find them.
    pub(crate) fn brokers(&self) -> Vec<String> {
        self.brokers.clone()
    }

    /// Memory of the node that has most.
    pub(crate) fn memory(&self) -> Result<u64> {
        let each = self.nodes.iter().map(|node| anonymous(node.id()));
        Ok(each
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .max()
            .unwrap_or(0))
    }

    /// Looks at it from now on.
    pub(crate) fn watch_memory(&mut self) {
        let most = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let pids: Vec<u32> = self.nodes.iter().map(Child::id).collect();
        let (to, until) = (Arc::clone(&most), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                for pid in &pids {
                    to.fetch_max(anonymous(*pid).unwrap_or(0), Ordering::Relaxed);
                }
                thread::sleep(LOOK);
            }
        });
        self.watch = Some(Watch { most, stop, thread });
    }

    /// The most that a node had since then.
    pub(crate) fn most_memory(&mut self) -> Result<u64> {
        let watch = self.watch.take().context("nobody watches")?;
        watch.stop.store(true, Ordering::Relaxed);
        ensure!(watch.thread.join().is_ok(), "the watch over memory ended");
        Ok(watch.most.load(Ordering::Relaxed))
    }

    /// Ends them; how many were there still.
    pub(crate) fn stop(mut self) -> Result<usize> {
        let mut alive = 0;
        for node in &mut self.nodes {
            alive += usize::from(node.try_wait()?.is_none());
        }
        Ok(alive)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            drop(node.kill());
            drop(node.wait());
        }
    }
}
