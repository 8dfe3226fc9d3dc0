//! One of three replicas: the others serve on, and the damaged one has to be whole again at the end.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::disk::{Data, copy_over};
use super::one::{UNOPENED, ready_or_ended, refused};
use crate::cluster::events::Kept;
use crate::cluster::trio::Trio;
use crate::command::run;
use crate::damage::{Cell, Image, Outcome, Refused, Struck, inflict, lost_bytes};
use crate::kafka::{Reader, create_topic, unique};

const PARTITIONS: usize = 2;
/// The node that is damaged.
const VICTIM: i32 = 2;

/// Three nodes, their directories as they were stopped, and all that they acknowledged.
pub(super) struct Three {
    trio: Trio,
    kept: Kept,
    place: TempDir,
    older: Vec<Image>,
}

impl Three {
    pub(super) fn build() -> Result<Self> {
        let mut trio = Trio::start()?;
        let built = live(&mut trio);
        let (kept, older) = trio.explain(built)?;
        let data = trio.node(VICTIM)?.data();
        let place = tempfile::Builder::new()
            .prefix("damage-")
            .tempdir_in(data.parent().context("no directory")?)?;
        for how in ["killed", "whole"] {
            let place = place.path().join(how);
            std::fs::create_dir(&place)?;
            for (id, data) in trio.ids().into_iter().zip(trio.data()) {
                copy_over(&data, &place.join(id.to_string()))?;
            }
            if how == "killed" {
                trio.start_all()?;
                trio.in_sync(&kept.topic, 3)?;
                for id in trio.ids() {
                    trio.node(id)?.stop()?;
                }
            }
        }
        Ok(Self {
            trio,
            kept,
            place,
            older,
        })
    }

    /// What comes of a cell.
    pub(super) fn see(&mut self, cell: &Cell, spot: u32) -> Result<(Outcome, String)> {
        for (id, data) in self.trio.ids().into_iter().zip(self.trio.data()) {
            copy_over(&self.whole(id, cell.file.is_of_killed()), &data)?;
        }
        let mut data = Data(self.trio.node(VICTIM)?.data());
        let Some(struck) = inflict(cell, spot, &mut data, &self.older) else {
            return Ok((Outcome::Nothing, String::new()));
        };
        let before = data.image();
        let said = self.trio.node(VICTIM)?.log().len();
        let acknowledged: Vec<usize> = self.kept.logs.iter().map(Vec::len).collect();
        let seen = self.heal(&struck, &before, said);
        for id in self.trio.started() {
            self.trio.node(id)?.stop()?;
        }
        for (log, len) in self.kept.logs.iter_mut().zip(acknowledged) {
            log.truncate(len);
        }
        let log = self.trio.node(VICTIM)?.log();
        let log = log.get(said..).unwrap_or_default();
        let what = &struck.what;
        Ok(match seen {
            _ if log.contains("panicked") => {
                (Outcome::Wrong, format!("{what}: it panicked: {log}"))
            }
            Ok(outcome) => (outcome, what.clone()),
            Err(error) => (Outcome::Wrong, format!("{what}: {error:#}\n{log}")),
        })
    }

    fn whole(&self, id: i32, killed: bool) -> PathBuf {
        let how = if killed { "killed" } else { "whole" };
        self.place.path().join(how).join(id.to_string())
    }

    fn heal(&mut self, struck: &Struck, before: &Image, said: usize) -> Result<Outcome> {
        for id in self.trio.ids() {
            self.trio.spawn(id)?;
        }
        let outcome = self.start_victim(struck, before, said)?;
        self.trio.wait_ready()?;
        self.trio.in_sync(&self.kept.topic, 3)?;
        self.kept.add(&self.trio.brokers(), 10)?;
        // It serves all by itself with one of the others.
        self.lead_by_victim()?;
        Ok(outcome)
    }

    /// The damaged node starts; where it refuses to, its operator sets the directory aside.
    fn start_victim(&mut self, struck: &Struck, before: &Image, said: usize) -> Result<Outcome> {
        let node = self.trio.node(VICTIM)?;
        let Some(status) = ready_or_ended(node)? else {
            return Ok(Outcome::Healed);
        };
        let log = node.log().get(said..).unwrap_or_default().to_owned();
        if !log.contains("copy of an older one") {
            refused(node, struck, status, &log)?;
        }
        let all = Refused {
            node: log.contains(UNOPENED),
            ..Refused::default()
        };
        let lost = lost_bytes(before, &Data(node.data()).image(), &all);
        let what = "a start that was refused";
        ensure!(lost.is_empty(), "{what}: {}", lost.join(", "));
        let mut command = Command::new(env!("CARGO_BIN_EXE_riverrun"));
        command
            .args(["node", "set-aside", "--yes"])
            .arg(node.data());
        run(&mut command, b"", Duration::from_secs(30))?;
        node.spawn()?;
        Ok(Outcome::SetAside)
    }

    fn lead_by_victim(&mut self) -> Result<()> {
        let others: Vec<i32> = self
            .trio
            .ids()
            .into_iter()
            .filter(|id| *id != VICTIM)
            .collect();
        for other in others {
            self.trio.kill(other)?;
            self.trio.in_sync(&self.kept.topic, 2)?;
            let view = self.trio.agree(&self.kept.topic)?;
            for partition in 0..PARTITIONS {
                let leader = view.leader(partition).context("nobody leads")?;
                ensure!(leader != other, "a dead node is named as the leader");
            }
            let reader = Reader::without_checksums(&self.trio.brokers())?;
            self.kept.check_by(&reader)?;
            self.trio.spawn(other)?;
            self.trio.wait_ready()?;
            self.trio.in_sync(&self.kept.topic, 3)?;
        }
        Ok(())
    }
}

fn live(trio: &mut Trio) -> Result<(Kept, Vec<Image>)> {
    let brokers = trio.brokers();
    let topic = unique("damaged");
    create_topic(&brokers, &topic, PARTITIONS, &[("segment.bytes", "8192")])?;
    let mut kept = Kept::empty(topic, PARTITIONS);
    for _ in 0..4 {
        kept.add(&brokers, 20)?;
    }
    // A change of members, which every replica remembers.
    trio.in_sync(&kept.topic, 3)?;
    trio.kill(3)?;
    trio.wipe(3)?;
    trio.spawn(3)?;
    trio.wait_ready()?;
    trio.in_sync(&kept.topic, 3)?;
    kept.add(&brokers, 20)?;
    trio.node(VICTIM)?.stop()?;
    let mut older = vec![Data(trio.node(VICTIM)?.data()).image()];
    trio.spawn(VICTIM)?;
    trio.wait_ready()?;
    for _ in 0..6 {
        kept.add(&brokers, 20)?;
    }
    trio.in_sync(&kept.topic, 3)?;
    for _ in 0..2 {
        for id in trio.ids() {
            trio.node(id)?.stop()?;
        }
        trio.start_all()?;
        trio.in_sync(&kept.topic, 3)?;
    }
    kept.add(&brokers, 10)?;
    older.push(Data(trio.node(VICTIM)?.data()).image());
    kept.add(&brokers, 2)?;
    trio.in_sync(&kept.topic, 3)?;
    for id in trio.ids() {
        trio.kill(id)?;
    }
    Ok((kept, older))
}
