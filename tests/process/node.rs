//! One broker process, started on a directory, killed, started again.

use super::command::tail;
use super::installed::target_dir;
use super::raw::answers;
use super::trial::fresh_seed;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a broker may take from its start to its first answer before that is a failure.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long a broker may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How a broker is started.
enum Form {
    /// `riverrun dev`.
    Dev,
    /// `riverrun server`, with a port for other nodes and settings beside its places.
    Server { nodes: u16, settings: Vec<String> },
}

/// A broker on a directory of its own and a port that stays the same when it is started again.
pub(crate) struct Node {
    child: Option<Child>,
    directory: TempDir,
    port: u16,
    form: Form,
    /// Everything it wrote to its standard output and error, of all its lives.
    log: Arc<Mutex<String>>,
    /// Who reads that, of this life.
    readers: Vec<thread::JoinHandle<()>>,
    /// Whether this life has said where it listens.
    listening: Arc<OnceLock<()>>,
    /// What every life is started by, if it is not started as it is.
    command: Vec<OsString>,
    /// What every life finds in its environment beside ours.
    environment: Vec<(&'static str, OsString)>,
}

impl Node {
    /// A broker on an empty directory that answers.
    pub(crate) fn start() -> Result<Node> {
        Node::start_with(Vec::new())
    }

    /// The same, with more in its environment.
    pub(crate) fn start_with(environment: Vec<(&'static str, OsString)>) -> Result<Node> {
        Node::start_under(Vec::new(), environment)
    }

    /// The same, as the arguments of another command, which must become it.
    pub(crate) fn start_under(
        command: Vec<OsString>,
        environment: Vec<(&'static str, OsString)>,
    ) -> Result<Node> {
        let mut node = Node::prepare(Form::Dev, command, environment)?;
        node.spawn()?;
        node.wait_ready()?;
        Ok(node)
    }

    /// A node of a cluster on an empty directory, which is not started: see [`Node::set`].
    pub(crate) fn of_cluster(environment: Vec<(&'static str, OsString)>) -> Result<Node> {
        let nodes = free_port()?;
        let settings = Vec::new();
        Node::prepare(Form::Server { nodes, settings }, Vec::new(), environment)
    }

    /// The same, which founds its cluster alone and has these settings. It serves when this returns.
    pub(crate) fn founder(settings: &[String]) -> Result<Node> {
        let mut node = Node::of_cluster(Vec::new())?;
        let own = [
            "node.id=1".to_owned(),
            format!("controller.quorum.voters=1@{}", node.for_nodes()),
        ];
        node.set(own.into_iter().chain(settings.iter().cloned()));
        node.spawn()?;
        node.wait_ready()?;
        Ok(node)
    }

    fn prepare(
        form: Form,
        command: Vec<OsString>,
        environment: Vec<(&'static str, OsString)>,
    ) -> Result<Node> {
        let tmp = target_dir()?.join("tmp");
        std::fs::create_dir_all(&tmp)?;
        Ok(Node {
            child: None,
            directory: tempfile::Builder::new().prefix("node-").tempdir_in(tmp)?,
            port: free_port()?,
            form,
            log: Arc::default(),
            readers: Vec::new(),
            listening: Arc::default(),
            command,
            environment,
        })
    }

    /// Settings of a node of a cluster, which every later life is started with.
    pub(crate) fn set(&mut self, given: impl IntoIterator<Item = String>) {
        if let Form::Server { settings, .. } = &mut self.form {
            *settings = given.into_iter().collect();
        }
    }

    /// Where other nodes reach it, if they can.
    pub(crate) fn for_nodes(&self) -> String {
        match self.form {
            Form::Dev => String::new(),
            Form::Server { nodes, .. } => format!("127.0.0.1:{nodes}"),
        }
    }

    /// Whether a life of it was begun and not ended by us.
    pub(crate) fn is_started(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The directory of the process as the process sees it, which may be another file system.
    pub(crate) fn inside(&self) -> Result<PathBuf> {
        let child = self.child.as_ref().context("the broker is not running")?;
        let root = PathBuf::from(format!("/proc/{}/root", child.id()));
        Ok(root.join(self.directory.path().strip_prefix("/")?))
    }

    /// Everything it has written so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The most memory that the process ever had, in bytes.
    pub(crate) fn most_memory(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    /// What it has allocated now, in bytes: without the files that it maps, its own code among them.
    pub(crate) fn allocated_memory(&self) -> Result<u64> {
        self.memory("RssAnon:")
    }

    fn memory(&self, what: &'static str) -> Result<u64> {
        let child = self.child.as_ref().context("the broker is not running")?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(what));
        let line = line.context(what)?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// Starts the process and does not wait for anything.
    pub(crate) fn spawn(&mut self) -> Result<()> {
        assert!(self.child.is_none(), "a node has one life at a time");
        let program = std::env::var_os("RIVERRUN_TEST_NODE")
            .unwrap_or_else(|| OsString::from(env!("CARGO_BIN_EXE_riverrun")));
        let mut words = self.command.iter().chain([&program]);
        let mut command = Command::new(words.next().unwrap_or(&program));
        let mut child = command
            .args(words)
            .args(self.arguments())
            .envs(self.environment.iter().cloned())
            .env("RIVERRUN_TEST_DIRECTORY", self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        self.listening = Arc::default();
        let stdout = child.stdout.take().unwrap();
        let stderr = child.stderr.take().unwrap();
        let listening = Some(Arc::clone(&self.listening));
        self.readers = vec![self.gather(stdout, listening), self.gather(stderr, None)];
        self.child = Some(child);
        Ok(())
    }

    fn arguments(&self) -> Vec<OsString> {
        let data = self.data().into_os_string();
        match &self.form {
            Form::Dev => vec![
                "dev".into(),
                "--data".into(),
                data,
                "--kafka".into(),
                self.brokers().into(),
            ],
            Form::Server { settings, .. } => {
                let mut directory = OsString::from("log.dirs=");
                directory.push(data);
                let (kafka, nodes) = (self.brokers(), self.for_nodes());
                let listeners = format!("listeners=PLAINTEXT://{kafka},CONTROLLER://{nodes}");
                let given = settings.iter().map(OsString::from);
                let places = [directory, listeners.into()];
                let set = |value: OsString| [OsString::from("--set"), value];
                let all = places.into_iter().chain(given).flat_map(set);
                std::iter::once("server".into()).chain(all).collect()
            }
        }
    }

    fn gather(
        &self,
        stream: impl Read + Send + 'static,
        listening: Option<Arc<OnceLock<()>>>,
    ) -> thread::JoinHandle<()> {
        let log = Arc::clone(&self.log);
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let said_where = line.contains("kafka://");
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
                drop(log);
                if let (true, Some(listening)) = (said_where, &listening) {
                    listening.get_or_init(|| ());
                }
            }
        })
    }

    /// The process has ended: all that it wrote is in the log when this returns.
    fn is_over(&mut self) {
        self.child = None;
        for reader in self.readers.drain(..) {
            drop(reader.join());
        }
    }

    /// Waits until the process has said where it listens and answers there; how long that took.
    pub(crate) fn wait_ready(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < READY_LIMIT {
            let child = self.child.as_mut().context("the broker is not running")?;
            if let Some(status) = child.try_wait()? {
                bail!(
                    "the broker ended with {status} while starting\n{}",
                    self.tail()
                );
            }
            if self.listening.get().is_some() {
                match answers(&self.brokers()) {
                    Ok(()) => return Ok(begun.elapsed()),
                    Err(error) => last = Some(error),
                }
            }
            thread::sleep(Duration::from_millis(2));
        }
        bail!(
            "the broker did not answer in {READY_LIMIT:?} ({last:?})\n{}",
            self.tail()
        );
    }

    /// Whether it has said where it listens and answers there.
    pub(crate) fn is_ready(&self) -> bool {
        self.listening.get().is_some() && answers(&self.brokers()).is_ok()
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn wait_end(&mut self) -> Result<ExitStatus> {
        let child = self.child.as_mut().context("the broker is not running")?;
        let begun = Instant::now();
        while begun.elapsed() < STOP_LIMIT {
            if let Some(status) = child.try_wait()? {
                self.is_over();
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(2));
        }
        bail!("the broker goes on\n{}", self.tail());
    }

    /// How the process has ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let child = self.child.as_mut().context("the broker is not running")?;
        let status = child.try_wait()?;
        if status.is_some() {
            self.is_over();
        }
        Ok(status)
    }

    /// SIGKILL, and the process is gone when this returns.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the broker is not running")?;
        if let Some(status) = child.try_wait()? {
            bail!("the broker ended by itself with {status}\n{}", self.tail());
        }
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGSTOP: the process keeps its connections and does nothing any more.
    pub(crate) fn freeze(&self) -> Result<()> {
        let child = self.child.as_ref().context("the broker is not running")?;
        Ok(kill_process(Pid::from_child(child), Signal::STOP)?)
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the broker is not running")?;
        kill_process(Pid::from_child(&child), Signal::TERM)?;
        let begun = Instant::now();
        while begun.elapsed() < STOP_LIMIT {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(2));
        }
        child.kill()?;
        child.wait()?;
        bail!(
            "the broker did not end in {STOP_LIMIT:?} after SIGTERM\n{}",
            self.tail()
        );
    }

    /// The last lines of what it wrote.
    pub(crate) fn tail(&self) -> String {
        format!(
            "the broker's last lines:\n{}",
            tail(&self.log.lock().unwrap())
        )
    }

    /// Adds to an error what the broker wrote, and keeps its directory for a look inside.
    pub(crate) fn explain<T>(mut self, result: Result<T>) -> Result<T> {
        result.map_err(|error| anyhow::anyhow!("{error:#}{}", self.keep()))
    }

    /// Ends it, and keeps its directory and all that it wrote for a look inside; says where.
    pub(crate) fn keep(&mut self) -> String {
        let dead = match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => format!("; the broker had ended with {status}"),
            _ => String::new(),
        };
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        self.directory.disable_cleanup(true);
        drop(std::fs::write(
            self.directory.path().join("log"),
            self.log(),
        ));
        format!(
            "{dead}\n{}\nits directory and log are kept: {}",
            self.tail(),
            self.directory.path().display()
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A broker that several tests share: the one that the environment names, or one of ours that is
/// started by the first test that asks and ends with the last that holds it.
#[derive(Default)]
pub(crate) struct SharedNode(OnceLock<Result<Node, String>>);

impl SharedNode {
    pub(crate) fn brokers(&self) -> Result<String> {
        if let Some(brokers) = foreign_brokers() {
            return Ok(brokers);
        }
        match self
            .0
            .get_or_init(|| Node::start().map_err(|error| format!("{error:#}")))
        {
            Ok(node) => Ok(node.brokers()),
            Err(error) => bail!("{error}"),
        }
    }

    /// Adds to an error what the broker wrote.
    pub(crate) fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match self.0.get() {
            Some(Ok(node)) if error.downcast_ref::<super::trial::Skip>().is_none() => {
                anyhow::anyhow!("{error:#}\n{}", node.tail())
            }
            _ => error,
        })
    }
}

/// The broker that the environment names in the place of ours. It is not ours to kill.
pub(crate) fn foreign_brokers() -> Option<String> {
    std::env::var("RIVERRUN_TEST_BROKERS")
        .ok()
        .filter(|brokers| !brokers.is_empty())
}

/// The directories of the partitions under a data directory, by Kafka's rule `<something>-<n>`.
pub(crate) fn partition_directories(data: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data).with_context(|| format!("reading {}", data.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let numbered = name
            .rsplit_once('-')
            .is_some_and(|(_, n)| n.parse::<u32>().is_ok());
        if path.is_dir() && numbered && !name.starts_with("__cluster_metadata") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The number of the partition that a directory holds.
pub(crate) fn partition_number(directory: &Path) -> Option<usize> {
    directory
        .file_name()?
        .to_str()?
        .rsplit_once('-')?
        .1
        .parse()
        .ok()
}

/// A port that nothing listens on, below the range from which outgoing connections are given
/// theirs: a client that retries a dead port inside that range may end up connected to itself, and
/// the broker then finds its port taken.
fn free_port() -> Result<u16> {
    let range =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(32_768_u16);
    let top = lowest.max(12_000);
    for _ in 0..1000 {
        let port = 10_000 + (fresh_seed() % u64::from(top - 10_000)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between 10000 and {top}");
}
