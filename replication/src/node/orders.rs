//! Replicas without an open log: those that recovery refused, those that wait for room, those that
//! are being removed. A replica is created once (R3), so they stand in the way of another creation,
//! and their files are there until the controller's order takes them away.

use std::sync::atomic::Ordering;

use riverrun_storage::node::RoundItem;
use riverrun_storage::planted::{self, Bug};
use riverrun_storage::{LogError, LogIdentity};

use super::{GroupOrder, Node, OpenError, Refused};
use crate::partition::Partition;

/// Why there is no open log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The disk was too full to open it.
    NoRoom,
    /// Its files cannot be taken.
    Refused,
    /// It is being removed; with whether the WAL says so already.
    Removing { recorded: bool },
}

/// A replica that the node store knows and that has no open log here.
#[derive(Debug, Clone)]
pub(super) struct Unopened {
    identity: LogIdentity,
    why: Why,
}

impl Refused {
    /// Whether the replica can be had yet: the disk was too full to open it, and the order to create
    /// it opens it once there is room.
    #[must_use]
    pub fn waits_for_room(&self) -> bool {
        waits_for_room(&self.error)
    }
}

fn waits_for_room(error: &OpenError) -> bool {
    matches!(error, OpenError::Log(LogError::Full { .. }))
}

impl Node {
    /// Notes a replica whose log could not be opened.
    pub(super) fn is_unopened(&self, identity: &LogIdentity, error: &OpenError) {
        let why = if waits_for_room(error) {
            Why::NoRoom
        } else {
            Why::Refused
        };
        let unopened = Unopened {
            identity: identity.clone(),
            why,
        };
        self.unopened.lock().insert(identity.group, unopened);
    }

    /// What an order to create a replica comes to that the node store has already: opened, where it
    /// waits for room. `None` where there is no such replica.
    pub(super) fn known_already(&self, order: &GroupOrder) -> Result<Option<Partition>, OpenError> {
        let group = order.identity.group;
        let known = self.unopened.lock().get(&group).cloned();
        let Some(known) = known.filter(|known| known.identity == order.identity) else {
            return Ok(None);
        };
        match known.why {
            Why::NoRoom => self.open_again(order).map(Some),
            Why::Refused if planted::is(Bug::R3) => Ok(None),
            Why::Refused | Why::Removing { .. } => Err(OpenError::Refused(group)),
        }
    }

    /// Opens a log for which there was no room. What its recovery does is recorded before anything is
    /// appended, as at a start.
    fn open_again(&self, order: &GroupOrder) -> Result<Partition, OpenError> {
        let group = order.identity.group;
        let _one = self.round.lock();
        let record = self.store.read_group(group)?;
        let record = record.ok_or(OpenError::Refused(group))?;
        let opened = self.open_group(&record, order.settings.clone());
        if let Err(error) = &opened {
            self.is_unopened(&order.identity, error);
        } else {
            self.unopened.lock().remove(&group);
        }
        while self.store.needs_idle_round() {
            self.store.idle_round()?;
        }
        opened
    }

    /// Drops the writes that wait for a group's files, and waits until nobody is at them and what
    /// came of it is posted. Blocks; for the removal of a group that brings nothing new.
    pub fn finish_writes_of(&self, group: u64) {
        if let Some(files) = self.files_of(group) {
            files.lane.clear();
            files.until_nobody_writes();
        }
    }

    /// Forgets a replica and deletes its files, open or not. What cannot be done is done by the next
    /// call, or by the next start. Blocks.
    ///
    /// The caller has seen to it that nothing of the replica is under way in a shard or a flusher.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn remove_group(&self, group: u64) -> Result<(), OpenError> {
        let open = self.files.write().remove(&group);
        if let Some(files) = open {
            // A writer that is at it ends before its files go; the next one finds that they are gone.
            files.gone.store(true, Ordering::SeqCst);
            files.lane.clear();
            drop(files.log.lock());
            let identity = files.identity.clone();
            let why = Why::Removing { recorded: false };
            let mut unopened = self.unopened.lock();
            unopened.insert(group, Unopened { identity, why });
        }
        let known = self.unopened.lock().get(&group).cloned();
        let Some(Unopened { identity, why }) = known else {
            return Ok(());
        };
        {
            let mut wanted = self.wanted.lock();
            wanted.items.retain(|i| i.group != group);
            wanted.ops.retain(|(g, _)| *g != group);
        }
        if why != (Why::Removing { recorded: true }) {
            self.round_of(vec![RoundItem {
                group,
                removed: true,
                ..RoundItem::default()
            }])?;
            if let Some(known) = self.unopened.lock().get_mut(&group) {
                known.why = Why::Removing { recorded: true };
            }
        }
        self.delete_files(&identity)?;
        self.unopened.lock().remove(&group);
        tracing::info!(group, topic_id = %identity.topic_id, "deleted a replica");
        Ok(())
    }

    fn delete_files(&self, identity: &LogIdentity) -> Result<(), OpenError> {
        match self.disk.remove_dir_all(&self.directory_of(identity)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(OpenError::Io {
                what: "delete a replica's directory",
                source,
            }),
            _ => Ok(()),
        }
    }

    /// At a start: deletes what an earlier life had removed and not deleted. A directory that a later
    /// replica has is not theirs any more.
    pub(super) fn delete_removed(&self, removed: &[LogIdentity], kept: &[LogIdentity]) {
        for identity in removed {
            let dir = self.directory_of(identity);
            if kept.iter().any(|kept| self.directory_of(kept) == dir)
                || !self.disk.exists(&dir).unwrap_or(false)
            {
                continue;
            }
            // It is in nobody's way, but for the room that it takes.
            match self.delete_files(identity) {
                Ok(()) => tracing::info!(group = identity.group, "deleted a removed replica"),
                Err(error) => {
                    tracing::warn!(group = identity.group, %error, "a removed replica's files stay");
                }
            }
        }
    }
}
