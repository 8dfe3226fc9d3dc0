//! Replicas without an open log. Three words, never mixed (docs/damage.md):
//!
//! * **unavailable**: the machine or the disk did not answer. Nothing is known against the files; they are
//!   tried again, and nobody is replaced for it (R16);
//! * **damaged**: bytes that were durable are not what they were. The replica knows what it voted and
//!   acknowledged; its files stay as they are until they are repaired (R6);
//! * **lost**: it cannot know that any more. Only such a one is replaced (R9).
//!
//! A replica is created once (R3), so each of them stands in the way of another creation under its id.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use riverrun_storage::node::{NODE_DIR, NodeError, RoundItem};
use riverrun_storage::planted::{self, Bug};
use riverrun_storage::{GroupRecord, LogError, LogIdentity};

use super::{GroupOrder, Node, OpenError};
use crate::config::GroupSettings;
use crate::group::BootError;
use crate::partition::Partition;
use crate::reconciler::Standing;
use riverrun_storage::format::aside::Reason;

/// A replica that the node store knows, or the controller has ordered, and that has no open log here.
#[derive(Debug, Clone)]
pub struct Unopened {
    /// Whose files they are.
    pub identity: LogIdentity,
    /// What is the matter with it.
    pub standing: Standing,
    /// The same in words, with the file where there is one.
    pub why: String,
    /// The node store knows of it: its removal has to be recorded.
    pub(super) recorded: bool,
    /// Requests that would have been its, since it was last tried.
    pub(super) wanted: u64,
    /// A file of which the disk refuses a place, and since when.
    pub(super) refused: Option<(PathBuf, Duration)>,
}

impl Node {
    /// The replicas without an open log, by group.
    #[must_use]
    pub fn unopened(&self) -> Vec<Unopened> {
        self.unopened.lock().values().cloned().collect()
    }

    /// The replica of a group, if it is here and has no open log.
    #[must_use]
    pub fn unopened_of(&self, group: u64) -> Option<Unopened> {
        self.unopened.lock().get(&group).cloned()
    }

    /// Whose replica of a group is here, open or not.
    #[must_use]
    pub fn identity_of(&self, group: u64) -> Option<LogIdentity> {
        let open = self.files_of(group).map(|files| files.identity.clone());
        open.or_else(|| Some(self.unopened_of(group)?.identity))
    }

    /// Whether the replica of a group has a directory here.
    ///
    /// # Errors
    /// The disk's.
    pub fn has_files(&self, group: u64) -> std::io::Result<bool> {
        match self.identity_of(group) {
            Some(identity) => self.disk.exists(&self.directory_of(&identity)),
            None => Ok(false),
        }
    }

    /// Somebody would have had use for a replica that is not open: it is tried before others.
    pub fn want(&self, group: u64) {
        if let Some(unopened) = self.unopened.lock().get_mut(&group) {
            unopened.wanted += 1;
        }
    }

    /// Notes a replica whose log could not be opened.
    pub(super) fn is_unopened(&self, identity: &LogIdentity, error: &OpenError) -> Unopened {
        let standing = self.judge(error);
        let unopened = Unopened {
            identity: identity.clone(),
            standing,
            why: error.to_string(),
            recorded: true,
            wanted: 0,
            refused: None,
        };
        let mut unopened = unopened;
        let mut all = self.unopened.lock();
        if let Some(path) = error.refused_file() {
            let known = all
                .get(&identity.group)
                .and_then(|known| known.refused.clone());
            let known = known.filter(|(of, _)| of == path);
            unopened.refused = known.or_else(|| Some((path.clone(), self.disk.now())));
        }
        // It is said once, not at each try.
        if all.get(&identity.group).map(|known| known.standing) != Some(standing) {
            let (group, replica) = (identity.group, identity.replica);
            tracing::error!(group, replica, %standing, %error, "a replica is not open");
        }
        all.insert(identity.group, unopened.clone());
        unopened
    }

    /// Notes a replica that is lost though nothing tried to open it: the node store has no record of it
    /// and must not begin it anew (R3, R12).
    pub fn note_lost(&self, identity: &LogIdentity, why: String) {
        let (group, replica) = (identity.group, identity.replica);
        tracing::error!(group, replica, why, "a replica is lost");
        let unopened = Unopened {
            identity: identity.clone(),
            standing: Standing::Lost,
            why,
            recorded: false,
            wanted: 0,
            refused: None,
        };
        self.unopened.lock().insert(group, unopened);
    }

    /// What an error says of a replica.
    fn judge(&self, error: &OpenError) -> Standing {
        let log = match error {
            OpenError::Log(log) | OpenError::Group(BootError::Log(log)) => log,
            OpenError::Group(
                BootError::Missing { .. } | BootError::Conf(_) | BootError::Raft(_),
            ) => {
                return Standing::Damaged;
            }
            OpenError::Store(_) | OpenError::Io { .. } | OpenError::TooMany { .. } => {
                return Standing::Unavailable;
            }
            OpenError::Exists(_) | OpenError::Refused(_) | OpenError::Occupied { .. } => {
                return Standing::Lost;
            }
        };
        if planted::is(Bug::ErrorIsLost) && !matches!(log, LogError::Full { .. }) {
            return Standing::Lost;
        }
        if log.is_unavailable() {
            return Standing::Unavailable;
        }
        // What is missing together with everything else is not missing: the disk is not there (R16). Nor is it
        // where nobody can tell.
        let node = self.data.join(NODE_DIR);
        if !matches!(self.disk.exists(&node), Ok(true)) {
            return Standing::Unavailable;
        }
        match log {
            LogError::Missing { .. } | LogError::Foreign { .. } => Standing::Lost,
            _ => Standing::Damaged,
        }
    }

    /// What an order to create a replica comes to that is known here and not open. `None` where there is no
    /// such replica.
    pub(super) fn known_already(&self, order: &GroupOrder) -> Option<OpenError> {
        let group = order.identity.group;
        let known = self.unopened.lock().get(&group).cloned()?;
        if known.identity != order.identity
            || (planted::is(Bug::R3) && known.standing != Standing::Unavailable)
        {
            return None;
        }
        Some(OpenError::Refused(group))
    }

    /// Tries again to open what was unavailable, those first that were asked for most: with one replay of
    /// the WAL for all of them, which keeps no round waiting (R16). What recovery does is recorded before
    /// anything is appended, as at a start. Blocks.
    pub fn retry_unavailable(
        &self,
        settings: impl Fn(&LogIdentity) -> GroupSettings,
    ) -> Vec<Partition> {
        let mut waiting: Vec<(u64, u64)> = {
            let unopened = self.unopened.lock();
            let waiting = unopened
                .iter()
                .filter(|(_, of)| of.standing == Standing::Unavailable);
            waiting.map(|(group, of)| (of.wanted, *group)).collect()
        };
        if waiting.is_empty() {
            return Vec::new();
        }
        waiting.sort_by_key(|(wanted, group)| (std::cmp::Reverse(*wanted), *group));
        let groups: BTreeSet<u64> = waiting.iter().map(|(_, group)| *group).collect();
        let mut records = match self.store.read_groups(&groups) {
            Ok(records) => records,
            Err(error) => {
                tracing::debug!(%error, "the node store cannot be read again yet");
                return Vec::new();
            }
        };
        let mut opened = Vec::new();
        for (_, group) in waiting {
            let Some(record) = records.remove(&group) else {
                continue;
            };
            match self.open_again(&record, settings(&record.identity)) {
                Ok(partition) => opened.push(partition),
                Err(error) => {
                    let unopened = self.is_unopened(&record.identity, &error);
                    // Whatever meets the next one as well is not this one's own.
                    if unopened.standing == Standing::Unavailable && error.is_of_machine() {
                        break;
                    }
                }
            }
        }
        opened
    }

    fn open_again(
        &self,
        record: &GroupRecord,
        settings: GroupSettings,
    ) -> Result<Partition, OpenError> {
        let group = record.identity.group;
        self.check_room(group)?;
        let lenient = self.given_up_disk(group);
        let disk = match &lenient {
            Some(lenient) => Arc::new(lenient.clone()),
            None => Arc::clone(&self.disk),
        };
        let (log, dir) = self.open_log(disk, record, &settings)?;
        let _one = self.round.lock();
        if self.unopened_of(group).map(|known| known.standing) != Some(Standing::Unavailable) {
            // It was removed meanwhile.
            return Err(OpenError::Refused(group));
        }
        self.store.log_opened(group, log.last_index());
        while self.store.needs_idle_round() {
            self.store.idle_round()?;
        }
        let partition = self.start_group(record, log, dir, settings)?;
        if let Some(lenient) = lenient {
            lenient.settle();
            for (path, position) in lenient.given_up() {
                tracing::error!(
                    group,
                    file = %path.display(),
                    position,
                    "the disk has refused a place of a log for ten minutes while it gives others: what lies \
                     there counts as bad"
                );
            }
        }
        self.unopened.lock().remove(&group);
        tracing::info!(
            group,
            replica = record.identity.replica,
            "a replica is open again"
        );
        Ok(partition)
    }

    /// Drops the writes that wait for a group's files, and waits until nobody is at them and what
    /// came of it is posted. Blocks; for the removal of a group that brings nothing new.
    pub fn finish_writes_of(&self, group: u64) {
        if let Some(files) = self.files_of(group) {
            files.lane.clear();
            files.until_nobody_writes();
        }
    }

    /// Takes a replica out of service for good, open or not: its removal is recorded, and its directory set
    /// aside under another name. Nothing is deleted. What cannot be done is done by the next call, or by
    /// the next start. Blocks.
    ///
    /// The caller has seen to it that nothing of the replica is under way in a shard or a flusher.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn set_aside(&self, group: u64, reason: Reason) -> Result<(), OpenError> {
        let _orders = self.orders.lock();
        let open = self.files.write().remove(&group);
        if let Some(files) = open {
            // A writer that is at it ends before its files go; the next one finds that they are gone.
            files.gone.store(true, Ordering::SeqCst);
            files.lane.clear();
            drop(files.log.lock());
            let unopened = Unopened {
                identity: files.identity.clone(),
                standing: Standing::Lost,
                why: "it is being removed".to_owned(),
                recorded: true,
                wanted: 0,
                refused: None,
            };
            self.unopened.lock().insert(group, unopened);
        }
        let Some(known) = self.unopened_of(group) else {
            return Ok(());
        };
        {
            let mut wanted = self.wanted.lock();
            wanted.items.retain(|i| i.group != group);
            wanted.ops.retain(|(g, _)| *g != group);
        }
        let directory = self.directory_of(&known.identity);
        self.note_aside(&directory, &known.identity, reason)?;
        if known.recorded {
            self.round_of(vec![RoundItem {
                group,
                removed: true,
                ..RoundItem::default()
            }])?;
            if let Some(known) = self.unopened.lock().get_mut(&group) {
                known.recorded = false;
            }
        }
        let name = self.move_aside(&directory, &known.identity)?;
        self.unopened.lock().remove(&group);
        let replica = known.identity.replica;
        tracing::info!(
            group,
            replica,
            reason = reason.text(),
            ?name,
            "set a replica aside"
        );
        if planted::is(Bug::DeleteBeforeFilled)
            && let Some(name) = name
        {
            self.delete_aside(&name)?;
        }
        Ok(())
    }

    /// At a start: finishes what an earlier life had begun to set aside. A directory that a later replica
    /// has is not theirs any more.
    pub(super) fn finish_asides(&self, removed: &[LogIdentity], kept: &BTreeMap<u64, GroupRecord>) {
        for identity in removed {
            let dir = self.directory_of(identity);
            let is_kept = |kept: &GroupRecord| self.directory_of(&kept.identity) == dir;
            if kept.values().any(is_kept) {
                continue;
            }
            // It is in nobody's way yet: whoever wants the name moves it first. Mostly it is not there any more.
            if let Err(error) = self.move_aside(&dir, identity) {
                tracing::warn!(group = identity.group, %error, "a removed replica is not set aside yet");
            }
        }
    }
}

impl OpenError {
    /// Whether the error is of the machine, and would meet every other file as well (R16).
    #[must_use]
    pub fn is_of_machine(&self) -> bool {
        self.source_of_disk()
            .is_some_and(riverrun_storage::disk::is_of_machine)
            || matches!(
                self,
                Self::Log(LogError::Full { .. }) | Self::TooMany { .. }
            )
    }

    /// Whether it is such an error that may pass by itself.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.source_of_disk()
            .is_some_and(riverrun_storage::disk::may_pass)
            || matches!(self, Self::Log(LogError::Full { .. }))
    }

    /// The file of which the disk refused a place.
    fn refused_file(&self) -> Option<&PathBuf> {
        let (Self::Log(log) | Self::Group(BootError::Log(log))) = self else {
            return None;
        };
        match log {
            LogError::Io { path, .. } if log.is_of_one_place() => Some(path),
            _ => None,
        }
    }

    /// Whether it says that bytes at rest are bad, and nothing of the machine.
    pub(super) fn is_of_bytes(&self) -> bool {
        matches!(self, Self::Log(log) if !log.is_unavailable())
    }

    fn source_of_disk(&self) -> Option<&std::io::Error> {
        match self {
            Self::Log(LogError::Io { source, .. })
            | Self::Group(BootError::Log(LogError::Io { source, .. }))
            | Self::Store(NodeError::Io { source, .. })
            | Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
