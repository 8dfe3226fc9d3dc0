//! The only replica: one process on a damaged directory.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::disk::{Data, copy_over};
use super::reading::served;
use crate::cluster::events::Kept;
use crate::damage::{Cell, Image, Outcome, Refused, Struck, inflict, lost_bytes};
use crate::kafka::{create_topic, unique};
use crate::node::Node;

const PARTITIONS: usize = 2;
/// How the error of a start begins that has changed nothing.
pub(super) const UNOPENED: &str = "error: cannot use the data directory";
/// What a start may take.
const START: Duration = Duration::from_secs(60);

/// A node, its directory as it was stopped, and all that it acknowledged.
pub(super) struct Alone {
    node: Node,
    kept: Kept,
    place: TempDir,
    older: Vec<Image>,
}

impl Alone {
    pub(super) fn build() -> Result<Self> {
        let mut node = Node::founder(&[])?;
        let topic = unique("damaged");
        let brokers = node.brokers();
        create_topic(&brokers, &topic, PARTITIONS, &[("segment.bytes", "8192")])?;
        let mut kept = Kept::empty(topic, PARTITIONS);
        for _ in 0..6 {
            kept.add(&brokers, 20)?;
        }
        node.stop()?;
        let mut older = vec![Data(node.data()).image()];
        // A start takes what the node WAL still has of the batches from there: the next lives find them in the
        // segments alone.
        for more in [6, 4, 0, 0] {
            node.spawn()?;
            node.wait_ready()?;
            for _ in 0..more {
                kept.add(&brokers, 20)?;
            }
            node.stop()?;
        }
        node.spawn()?;
        node.wait_ready()?;
        kept.add(&brokers, 10)?;
        older.push(Data(node.data()).image());
        kept.add(&brokers, 2)?;
        node.kill()?;
        let killed = node.data().with_extension("killed");
        copy_over(&node.data(), &killed)?;
        node.spawn()?;
        node.wait_ready()?;
        node.stop()?;
        let place = tempfile::Builder::new()
            .prefix("damage-")
            .tempdir_in(node.data().parent().context("no directory")?)?;
        copy_over(&node.data(), &place.path().join("whole"))?;
        std::fs::rename(killed, place.path().join("killed"))?;
        Ok(Self {
            node,
            kept,
            place,
            older,
        })
    }

    /// What comes of a cell.
    pub(super) fn see(&mut self, cell: &Cell, spot: u32) -> Result<(Outcome, String)> {
        let name = if cell.file.is_of_killed() {
            "killed"
        } else {
            "whole"
        };
        copy_over(&self.place.path().join(name), &self.node.data())?;
        let mut data = Data(self.node.data());
        let Some(struck) = inflict(cell, spot, &mut data, &self.older) else {
            return Ok((Outcome::Nothing, String::new()));
        };
        let before = data.image();
        let said = self.node.log().len();
        self.node.spawn()?;
        let seen = self.look(&struck, said);
        if self.node.is_started() {
            self.node.stop()?;
        }
        let log = self.node.log().get(said..).unwrap_or_default().to_owned();
        let what = &struck.what;
        let (outcome, why) = match seen {
            Ok((outcome, why)) => (outcome, format!("{what}: {why}")),
            Err(error) => (Outcome::Wrong, format!("{what}: {error:#}\n{log}")),
        };
        if log.contains("panicked") {
            return Ok((Outcome::Wrong, format!("{why}: it panicked:\n{log}")));
        }
        let refused = Refused {
            node: outcome == Outcome::Node && log.contains(UNOPENED),
            ..Refused::default()
        };
        let lost = lost_bytes(&before, &data.image(), &refused);
        if outcome != Outcome::Wrong && !lost.is_empty() {
            return Ok((Outcome::Wrong, format!("{}; {why}", lost.join(", "))));
        }
        Ok((outcome, why))
    }

    fn look(&mut self, struck: &Struck, said: usize) -> Result<(Outcome, String)> {
        if let Some(status) = ready_or_ended(&mut self.node)? {
            let log = self.node.log().get(said..).unwrap_or_default().to_owned();
            return refused(&self.node, struck, status, &log);
        }
        let outcomes = served(&self.node.brokers(), &self.kept)?;
        let worst = outcomes.iter().copied().max().unwrap_or(Outcome::Whole);
        let log = self.node.log().get(said..).unwrap_or_default().to_owned();
        let orders = log.contains("group=0") && log.contains("is not open");
        let worst = if orders {
            worst.max(Outcome::Orders)
        } else {
            worst
        };
        if worst == Outcome::Whole {
            return Ok((worst, String::new()));
        }
        let of_node = struck.paths.iter().any(|path| path.starts_with("node"));
        if !names(&self.node, struck, &log) {
            bail!("{outcomes:?}, and its log names no file of it");
        }
        // The other partition serves all that it has.
        let whole = outcomes.iter().filter(|o| **o == Outcome::Whole).count();
        if whole + struck.paths.len() < outcomes.len() && !of_node {
            bail!("others do not serve: {outcomes:?}");
        }
        Ok((worst, format!("{outcomes:?}")))
    }
}

/// Waits until a node answers, or has ended; how.
pub(super) fn ready_or_ended(node: &mut Node) -> Result<Option<std::process::ExitStatus>> {
    let begun = Instant::now();
    while begun.elapsed() < START {
        if let Some(status) = node.ended()? {
            return Ok(Some(status));
        }
        if node.is_ready() {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("it neither serves nor ends in {START:?}")
}

/// Whether a log names a file that was struck, or one beside it: of a sidecar that is bad it is the `.log` that
/// does not fit any more.
fn names(node: &Node, struck: &Struck, log: &str) -> bool {
    struck.paths.iter().any(|path| {
        let file = node.data().join(path);
        let is_file = path.components().count() > 1 && !path.starts_with("node");
        let named = match file.parent() {
            Some(parent) if is_file => parent,
            _ => &file,
        };
        log.contains(&*named.to_string_lossy())
    })
}

/// A node that does not start says why, and which file it is.
pub(super) fn refused(
    node: &Node,
    struck: &Struck,
    status: std::process::ExitStatus,
    log: &str,
) -> Result<(Outcome, String)> {
    let error = log.lines().find(|line| line.starts_with("error: "));
    let error = error.with_context(|| format!("it ended with {status} without a word: {log}"))?;
    // That a whole directory is an older copy is no single file's.
    let named = names(node, struck, log) || error.contains("a restored disk");
    if !named || !log.contains("next: ") || status.code() != Some(1) {
        bail!("it ended with {status} and does not name the file, or what to do: {log}");
    }
    Ok((Outcome::Node, error.to_owned()))
}
