//! A node of our own (`riverrun dev`, or `riverrun server`), on a port of its own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The binary that cargo has just built.
pub(crate) const RIVERRUN: &str = env!("CARGO_BIN_EXE_riverrun");

/// How long anything here may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running node; killed when dropped.
pub(crate) struct Node {
    child: Child,
    errors: Option<thread::JoinHandle<String>>,
    /// What it printed when it was ready: for `dev` up to and with the three lines to paste.
    pub(crate) greeting: Vec<String>,
    pub(crate) address: String,
    _data: Option<tempfile::TempDir>,
}

impl Node {
    /// On an empty directory that is removed with it.
    pub(crate) fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut node = Self::start_on(data.path());
        node._data = Some(data);
        node
    }

    /// On a temporary directory that the node makes, and removes if it ends in peace.
    pub(crate) fn start_temporary() -> Self {
        Self::spawn_dev(Command::new(RIVERRUN).args(["dev", "--kafka", "127.0.0.1:0"]))
    }

    pub(crate) fn start_on(data: &Path) -> Self {
        let mut command = Command::new(RIVERRUN);
        command.args(["dev", "--kafka", "127.0.0.1:0", "--data"]);
        Self::spawn_dev(command.arg(data))
    }

    /// A node where this one was.
    pub(crate) fn start_again(&self, data: &Path) -> Self {
        let mut command = Command::new(RIVERRUN);
        command.args(["dev", "--kafka", &self.address, "--data"]);
        Self::spawn_dev(command.arg(data))
    }

    /// `riverrun server` with these arguments and settings.
    pub(crate) fn start_server(args: &[&str], settings: &[String]) -> Self {
        let mut command = Command::new(RIVERRUN);
        command.arg("server").args(args);
        for setting in settings {
            command.args(["--set", setting]);
        }
        Self::spawn(&mut command, |greeting| {
            greeting
                .last()
                .is_some_and(|line| line.starts_with("events are kept in"))
        })
    }

    fn spawn_dev(command: &mut Command) -> Self {
        let is_whole = |greeting: &[String]| {
            let lines = greeting.iter().filter(|line| line.starts_with("  "));
            lines.count() == 3
        };
        Self::spawn(command, is_whole)
    }

    fn spawn(command: &mut Command, is_whole: impl Fn(&[String]) -> bool) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut greeting: Vec<String> = Vec::new();
        while !is_whole(&greeting) {
            let Some(Ok(line)) = lines.next() else {
                let _ = child.kill();
                panic!("the node ended: {greeting:?} {}", errors.join().unwrap());
            };
            greeting.push(line);
        }
        // What it prints later must not fill the pipe.
        thread::spawn(move || lines.for_each(drop));
        let address = greeting[0]
            .strip_prefix("listening on kafka://")
            .unwrap()
            .to_owned();
        Self {
            child,
            errors: Some(errors),
            greeting,
            address,
            _data: None,
        }
    }

    /// Runs `riverrun` with these arguments (split at spaces) against this node.
    pub(crate) fn run(&self, line: &str) -> Run {
        self.feed(line, b"")
    }

    /// The same with standard input.
    pub(crate) fn feed(&self, line: &str, input: &[u8]) -> Run {
        let args: Vec<_> = line.split(' ').collect();
        run_with(&self.address, &args, input)
    }

    /// Ends the node without a warning.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it wrote to its standard error, once it has ended.
    pub(crate) fn errors(&mut self) -> String {
        self.errors.take().unwrap().join().unwrap()
    }

    /// Asks the node to end, and waits until it has.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let kill = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(kill.success());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// What it printed, if it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }

    /// What it printed, line by line.
    #[track_caller]
    pub(crate) fn lines(self) -> Vec<String> {
        self.ok().lines().map(str::to_owned).collect()
    }

    /// What it said of its failure, which must name a next step.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        let advice = ["next:", "For more information, try '--help'", "Usage: "];
        assert!(
            advice.iter().any(|advice| self.err.contains(advice)),
            "no next step: {}",
            self.err
        );
        self.err
    }
}

/// Runs `riverrun` with brokers from the environment.
pub(crate) fn run_with(brokers: &str, args: &[&str], input: &[u8]) -> Run {
    let mut command = Command::new(RIVERRUN);
    let mut child = command
        .args(args)
        .env("RIVERRUN_BROKERS", brokers)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that stops reading closes its end, which is its good right.
    let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
    let id = child.id();
    let (done, waited) = std::sync::mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if waited.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
        }
    });
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    drop(done);
    watch.join().unwrap();
    feeder.join().unwrap();
    Run {
        code: status.code(),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
    }
}
