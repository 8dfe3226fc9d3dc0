//! What happened, in figures.

use std::fmt;

/// Counts of one or many simulations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is what its name says")]
pub struct Summary {
    pub runs: u64,
    pub simulated_us: u64,
    pub events: u64,
    pub kills: u64,
    pub power_losses: u64,
    pub crashes_inside_a_call: u64,
    pub restarts: u64,
    pub founded: u64,
    pub joined: u64,
    pub elections: u64,
    pub cuts: u64,
    pub snapshots: u64,
    pub network_cuts: u64,
    pub frames_lost: u64,
    pub announcements: u64,
    pub topics_deleted: u64,
    pub changes_asked: u64,
    pub changes_told: u64,
    pub taken_for_dead: u64,
    pub disks_hung: u64,
    pub disk_errors: u64,
    pub disks_full: u64,
    pub disks_refused: u64,
    pub bits_flipped: u64,
    /// Bits that were flipped under a running node.
    pub bits_rotted: u64,
    pub bytes_scrubbed: u64,
    /// Files beside the batches that a scrub found to be wrong.
    pub files_made_anew: u64,
    /// Entries that a scrub found to be bad.
    pub entries_found_bad: u64,
    /// Entries that were bad at rest and were put right.
    pub entries_mended: u64,
    pub disks_lost: u64,
    pub node_files_hurt: u64,
    pub nodes_set_aside: u64,
    pub replicas_replaced: u64,
    pub heads_dropped: u64,
    pub fenced: u64,
    pub flush_rounds: u64,
    pub batches_acknowledged: u64,
    pub batches_unknown: u64,
    pub batches_read: u64,
    pub duplicates_of_plain_producers: u64,
    pub lost_from_memory: u64,
}

impl Summary {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        let pairs = self.fields_mut().into_iter().zip(other.fields());
        for ((_, mine), (_, theirs)) in pairs {
            *mine += theirs;
        }
    }

    fn fields_mut(&mut self) -> [(&'static str, &mut u64); 41] {
        [
            ("runs", &mut self.runs),
            ("simulated us", &mut self.simulated_us),
            ("events", &mut self.events),
            ("kills", &mut self.kills),
            ("power losses", &mut self.power_losses),
            (
                "crashes inside a disk call",
                &mut self.crashes_inside_a_call,
            ),
            ("restarts", &mut self.restarts),
            ("clusters founded", &mut self.founded),
            ("nodes joined", &mut self.joined),
            ("elections", &mut self.elections),
            ("log cuts", &mut self.cuts),
            ("snapshots taken", &mut self.snapshots),
            ("network cuts", &mut self.network_cuts),
            ("frames lost", &mut self.frames_lost),
            ("topics deleted", &mut self.topics_deleted),
            ("changes asked for", &mut self.changes_asked),
            ("changes told of", &mut self.changes_told),
            ("announcements heard", &mut self.announcements),
            ("nodes taken for dead", &mut self.taken_for_dead),
            ("disks hung", &mut self.disks_hung),
            ("disk errors", &mut self.disk_errors),
            ("disks full", &mut self.disks_full),
            ("disks refused", &mut self.disks_refused),
            ("bits flipped", &mut self.bits_flipped),
            ("bits rotted", &mut self.bits_rotted),
            ("bytes scrubbed", &mut self.bytes_scrubbed),
            ("files made anew", &mut self.files_made_anew),
            ("entries found bad", &mut self.entries_found_bad),
            ("entries put right", &mut self.entries_mended),
            ("disks lost", &mut self.disks_lost),
            ("node files hurt", &mut self.node_files_hurt),
            ("nodes set aside", &mut self.nodes_set_aside),
            ("replicas replaced", &mut self.replicas_replaced),
            ("log heads dropped", &mut self.heads_dropped),
            ("groups fenced", &mut self.fenced),
            ("flush rounds", &mut self.flush_rounds),
            ("batches acknowledged", &mut self.batches_acknowledged),
            ("batches of unknown outcome", &mut self.batches_unknown),
            ("batches read", &mut self.batches_read),
            (
                "duplicates of plain producers",
                &mut self.duplicates_of_plain_producers,
            ),
            ("batches lost from memory", &mut self.lost_from_memory),
        ]
    }

    fn fields(&self) -> [(&'static str, u64); 41] {
        let mut copy = *self;
        copy.fields_mut().map(|(name, value)| (name, *value))
    }

    /// Simulated hours.
    #[must_use]
    pub fn hours(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
        let us = self.simulated_us as f64;
        us / 3.6e9
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>14.3} simulated hours", self.hours())?;
        for (name, value) in self.fields() {
            if name != "simulated us" {
                writeln!(f, "{value:>14} {name}")?;
            }
        }
        Ok(())
    }
}
