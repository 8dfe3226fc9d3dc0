//! Every command of the README, run as it stands, in the order in which it stands, with its output
//! compared.
//!
//! Two things are different from a reader's terminal: `cargo run --release --` is the binary that
//! cargo has built for the tests (that `cargo run` would choose this binary is checked apart), and
//! the address is one that was free.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests of real processes, which live in real time"
)]

#[path = "../cli/node.rs"]
#[allow(dead_code, reason = "the tests of the command line need more of it")]
mod node;

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    sync::{Arc, Mutex},
};

use libtest_mimic::{Arguments, Failed, Trial};
use node::{Node, RIVERRUN};

const DEV: &str = "cargo run --release -- dev";
const TESTS: &str = "cargo test --workspace";
const DEFAULT_ADDRESS: &str = "127.0.0.1:9092";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn main() -> ExitCode {
    let skipped = Arc::new(Mutex::new(Vec::new()));
    let noted = skipped.clone();
    let trials = vec![
        Trial::test("the_tour_of_the_readme_runs_as_written", move || {
            tour(&noted)
        }),
        Trial::test("cargo_run_starts_this_binary", cargo_run),
        Trial::test("the_readme_is_short_and_its_links_lead_somewhere", links),
    ];
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    for line in skipped.lock().unwrap().iter() {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    conclusion.exit_code()
}

/// A command and what should come of it; no lines where the README shows none.
#[derive(Debug, PartialEq)]
struct Step {
    command: String,
    output: Vec<String>,
}

/// The commands of the README's blocks: `$` lines of a `console` block, all lines of an `sh` block.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut block = None;
    for line in text.lines() {
        if let Some(info) = line.strip_prefix("```") {
            block = if block.is_some() {
                None
            } else {
                Some(info.to_owned())
            };
            continue;
        }
        match (block.as_deref(), line.strip_prefix("$ ")) {
            (Some("console"), Some(command)) => steps.push(Step {
                command: command.to_owned(),
                output: Vec::new(),
            }),
            (Some("console"), None) => steps.last_mut().unwrap().output.push(line.to_owned()),
            (Some("sh"), _) => steps.push(Step {
                command: line.to_owned(),
                output: Vec::new(),
            }),
            (Some(other), _) => panic!("a block of {other:?}: {line}"),
            (None, _) => {}
        }
    }
    steps
}

fn tour(skipped: &Mutex<Vec<String>>) -> Result<(), Failed> {
    let steps = steps(&std::fs::read_to_string(root().join("README.md"))?);
    assert!(
        steps.iter().any(|s| s.command == TESTS),
        "the README names the test command"
    );
    let place = tempfile::tempdir()?;
    // A reader's directory: the binary where `cargo run --release` leaves it.
    let release = place.path().join("target/release");
    std::fs::create_dir_all(&release)?;
    std::os::unix::fs::symlink(RIVERRUN, release.join("riverrun"))?;

    let mut node: Option<Node> = None;
    let mut cluster = Cluster::default();
    // What one terminal keeps from line to line.
    let mut exports = String::new();
    let mut ran = 0;
    for step in steps.iter().filter(|s| s.command != TESTS) {
        let command = &step.command;
        if command == DEV {
            let started = Node::start();
            let greeting = started
                .greeting
                .join("\n")
                .replace(&started.address, DEFAULT_ADDRESS);
            compare(command, &step.output, &greeting.lines().collect::<Vec<_>>());
            node = Some(started);
            ran += 1;
            continue;
        }
        if command.starts_with("riverrun server ") {
            // The reader has stopped the first node.
            node = None;
            cluster.start(command, place.path())?;
            ran += 1;
            continue;
        }
        let address = match &node {
            Some(node) => node.address.clone(),
            None => cluster.here(DEFAULT_ADDRESS)?,
        };
        if command.starts_with("export ") {
            exports = format!("{exports}{command}; ");
            continue;
        }
        let program = command.split(' ').next().unwrap_or_default();
        if program == "kcat" && !on_path("kcat") {
            assert!(
                std::env::var("RIVERRUN_REQUIRE_CLIENTS").is_err(),
                "kcat is required and missing: apt-get install kcat"
            );
            let line =
                "SKIPPED: the README's kcat line (kcat is not on the path; apt-get install kcat)"
                    .to_owned();
            let _ = writeln!(std::io::stderr(), "{line}");
            skipped.lock().unwrap().push(line);
            continue;
        }
        let line = format!(
            "set -o pipefail; {exports}{}",
            command.replace(DEFAULT_ADDRESS, &address)
        );
        let output = Command::new("bash")
            .args(["-c", &line])
            .current_dir(place.path())
            .env("RIVERRUN_BROKERS", &address)
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {errors}");
        let text = String::from_utf8(output.stdout)?;
        compare(command, &step.output, &text.lines().collect::<Vec<_>>());
        ran += 1;
    }
    assert!(ran >= 12, "{ran} commands ran");
    Ok(())
}

/// The nodes that the README starts on terminals of their own, each address at a port that was free.
#[derive(Default)]
struct Cluster {
    addresses: BTreeMap<String, String>,
    nodes: Vec<Child>,
}

impl Cluster {
    /// Runs a line as it stands but for its addresses.
    fn start(&mut self, command: &str, place: &Path) -> Result<(), Failed> {
        let mut line = String::new();
        let mut rest = command;
        while let Some(at) = rest.find("127.0.0.1:") {
            let digits = rest[at + 10..]
                .chars()
                .take_while(char::is_ascii_digit)
                .count();
            let (before, address) = (&rest[..at], &rest[at..at + 10 + digits]);
            line = format!("{line}{before}{}", self.place_of(address)?);
            rest = &rest[at + 10 + digits..];
        }
        line.push_str(rest);
        let args = line.split(' ').skip(1);
        let log = std::fs::File::create(place.join(format!("{}.log", self.nodes.len())))?;
        let child = Command::new(RIVERRUN)
            .args(args)
            .current_dir(place)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.nodes.push(child);
        Ok(())
    }

    fn place_of(&mut self, address: &str) -> Result<String, Failed> {
        if let Some(known) = self.addresses.get(address) {
            return Ok(known.clone());
        }
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        self.addresses.insert(address.to_owned(), free.to_string());
        Ok(free.to_string())
    }

    fn here(&self, address: &str) -> Result<String, Failed> {
        let known = self.addresses.get(address);
        Ok(known.ok_or("the README begins with a node")?.clone())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// Output as the README shows it; `...` stands for any lines.
fn compare(command: &str, expected: &[String], found: &[&str]) {
    let matches = match expected.iter().position(|line| line == "...") {
        None => expected
            .iter()
            .map(String::as_str)
            .eq(found.iter().copied()),
        Some(at) => {
            found.len() >= at
                && expected[..at]
                    .iter()
                    .map(String::as_str)
                    .eq(found[..at].iter().copied())
        }
    };
    assert!(
        matches,
        "{command}\nthe README says {expected:#?}\nit printed {found:#?}"
    );
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// `cargo run` without a package takes the one default-run of the workspace.
fn cargo_run() -> Result<(), Failed> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(root())
        .output()?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("packages")?;
    let runs: Vec<_> = packages
        .iter()
        .filter_map(|p| p["default_run"].as_str().map(|run| (run, p)))
        .collect();
    assert_eq!(runs.len(), 1, "more than one default-run, or none");
    let (run, package) = runs[0];
    assert_eq!(
        (run, package["name"].as_str()),
        ("riverrun", Some("riverrun-tools"))
    );
    Ok(())
}

/// At most 100 lines, and every link to a file of ours finds it.
fn links() -> Result<(), Failed> {
    let text = std::fs::read_to_string(root().join("README.md"))?;
    assert!(
        text.lines().count() <= 100,
        "{} lines",
        text.lines().count()
    );
    for link in text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
    {
        assert!(
            link.starts_with("http") || root().join(link).exists(),
            "{link} leads nowhere"
        );
    }
    Ok(())
}
