//! Directories that were set aside: under another name, with a note of why. Nothing opens, counts or votes
//! from them; each goes when what its reason waits for is proven (R10, R11), or by an operator's order.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;

use riverrun_storage::format::SegmentFile;
use riverrun_storage::format::aside::{self, Note, Reason, is_aside};
use riverrun_storage::format::sidecar::Header;
use riverrun_storage::planted::{self, Bug};
use riverrun_storage::{LogIdentity, OpenMode};
use uuid::Uuid;

use super::{GroupOrder, Node, OpenError};
use crate::asides::Aside;

/// Names that are tried where one is taken.
const MOST_NAMES: u32 = 1000;
/// The header of a new log's sidecar is never longer.
const TORN_HEADER_BYTES: u64 = 1024;
/// Bytes of a sidecar that hold its header.
const HEADER_BYTES: u64 = u16::MAX as u64;

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> OpenError {
    move |source| OpenError::Io { what, source }
}

/// The topic and partition of a directory's name.
fn partition_of(name: &str) -> Option<(Uuid, i32)> {
    let (id, partition) = name.split_once('-')?;
    let id = (id.len() == 32).then(|| Uuid::try_parse(id).ok())??;
    Some((id, partition.parse().ok().filter(|number| *number >= 0)?))
}

impl Node {
    /// What was set aside in the data directory, in the order of the names.
    ///
    /// # Errors
    /// The disk's.
    pub fn asides(&self) -> std::io::Result<Vec<Aside>> {
        let entries = self.disk.read_dir(&self.data)?;
        let aside = entries
            .into_iter()
            .filter(|entry| entry.is_dir && is_aside(&entry.name));
        Ok(aside
            .map(|entry| {
                let note = self.read_note(&self.data.join(&entry.name));
                Aside {
                    name: entry.name,
                    note,
                }
            })
            .collect())
    }

    /// Sets the directories of partitions aside that the node store has no record of and that nothing is to be
    /// made of: left by a removal that was cut off. Not while a damage of the WAL stands: then they may be
    /// what is left of a replica.
    ///
    /// # Errors
    /// The disk's.
    pub fn name_strays(&self) -> std::io::Result<()> {
        let _orders = self.orders.lock();
        if self.store.damage().is_some() {
            return Ok(());
        }
        let here: Vec<String> = {
            let open = self.files.read();
            let open = open
                .values()
                .map(|files| super::directory_name(&files.identity));
            let unopened = self.unopened.lock();
            let unopened = unopened
                .values()
                .map(|of| super::directory_name(&of.identity));
            open.chain(unopened).collect()
        };
        for entry in self.disk.read_dir(&self.data)? {
            let is_stray = entry.is_dir
                && !is_aside(&entry.name)
                && !here.contains(&entry.name)
                && partition_of(&entry.name).is_some();
            let Some((topic_id, partition)) = partition_of(&entry.name).filter(|_| is_stray) else {
                continue;
            };
            let dir = self.data.join(&entry.name);
            let identity = self.owner_of(&dir).unwrap_or(LogIdentity {
                group: 0,
                replica: 0,
                topic_id,
                partition,
            });
            let identity = LogIdentity {
                topic_id,
                partition,
                ..identity
            };
            let moved = self
                .note_aside(&dir, &identity, Reason::Unrecorded)
                .and_then(|()| self.move_aside(&dir, &identity));
            match moved {
                Ok(name) => tracing::warn!(?name, "set a directory aside that no record speaks of"),
                Err(error) => tracing::warn!(%error, name = entry.name, "a stray directory stays"),
            }
        }
        Ok(())
    }

    /// Bytes of the files in a directory that was set aside.
    #[must_use]
    pub fn aside_bytes(&self, name: &str) -> u64 {
        let dir = self.data.join(name);
        let files = self.disk.read_dir(&dir).unwrap_or_default();
        let len_of = |name: &str| {
            let file = self.disk.open(&dir.join(name), OpenMode::ReadOnly).ok()?;
            file.len().ok()
        };
        files.iter().filter_map(|file| len_of(&file.name)).sum()
    }

    fn read_note(&self, dir: &Path) -> Option<Note> {
        let path = dir.join(aside::FILE_NAME);
        let file = self.disk.open(&path, OpenMode::ReadOnly).ok()?;
        let len = usize::try_from(file.len().ok()?).ok()?;
        let mut bytes = vec![0; len.min(4096)];
        file.read_exact_at(&mut bytes, 0).ok()?;
        Note::decode(&bytes).ok()
    }

    /// Writes into a directory why it will be set aside; durable when this returns.
    pub(super) fn note_aside(
        &self,
        dir: &Path,
        identity: &LogIdentity,
        reason: Reason,
    ) -> Result<(), OpenError> {
        if !self.disk.exists(dir).map_err(io("look for a directory"))? {
            return Ok(());
        }
        let note = Note {
            identity: identity.clone(),
            reason,
            incarnation: self.incarnation,
        };
        let path = dir.join(aside::FILE_NAME);
        let write = || {
            let file = self.disk.open(&path, OpenMode::Create)?;
            file.set_len(0)?;
            file.write_all_at(&[IoSlice::new(&note.encode())], 0)?;
            file.sync_data()?;
            self.disk.sync_dir(dir)
        };
        write().map_err(io("note why a directory is set aside"))
    }

    /// Gives a directory the name of one that was set aside, durably, and says which; `None` where it is not
    /// there.
    pub(super) fn move_aside(
        &self,
        dir: &Path,
        identity: &LogIdentity,
    ) -> Result<Option<String>, OpenError> {
        let name = super::directory_name(identity);
        for attempt in 0..MOST_NAMES {
            let to = aside::name_of(&name, identity.replica, self.incarnation, attempt);
            match self.disk.rename_new(dir, &self.data.join(&to)) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(io("set a directory aside")(error)),
                Ok(()) => {
                    if !planted::is(Bug::AsideNotSynced) {
                        self.disk
                            .sync_dir(&self.data)
                            .map_err(io("sync the data directory"))?;
                    }
                    return Ok(Some(to));
                }
            }
        }
        Err(io("set a directory aside")(ErrorKind::AlreadyExists.into()))
    }

    /// Deletes a directory that was set aside. The caller has the proof that nothing in it is needed.
    ///
    /// # Errors
    /// The disk's, and where the name is not that of one that was set aside.
    pub fn delete_aside(&self, name: &str) -> Result<(), OpenError> {
        if !is_aside(name) || name.contains('/') {
            return Err(io("delete what was set aside")(
                ErrorKind::InvalidInput.into(),
            ));
        }
        match self.disk.remove_dir_all(&self.data.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(io("delete what was set aside")(error))
            }
            _ => {
                tracing::info!(name, "deleted what was set aside");
                Ok(())
            }
        }
    }

    /// Makes room for a replica that is to be created where no record of the node store speaks of one. An
    /// empty log that a creation has left is taken away; files of another replica are set aside; those of
    /// this one may not be begun anew (R12).
    pub(super) fn clear_for(&self, order: &GroupOrder) -> Result<(), OpenError> {
        let dir = self.directory_of(&order.identity);
        if !self.disk.exists(&dir).map_err(io("look for a directory"))? {
            return Ok(());
        }
        if planted::is(Bug::CreateOverALog) || planted::is(Bug::R3) {
            return self
                .disk
                .remove_dir_all(&dir)
                .map_err(io("clear a directory for a new replica"));
        }
        if self
            .is_empty_log(&dir)
            .map_err(io("look into a directory"))?
        {
            // Left by a creation that was cut off before it was recorded: nothing in it was ever promised.
            return self
                .disk
                .remove_dir_all(&dir)
                .map_err(io("clear a directory for a new replica"));
        }
        match self.owner_of(&dir) {
            Some(owner) if owner.replica != order.identity.replica => {
                self.note_aside(&dir, &owner, Reason::Unrecorded)?;
                let name = self.move_aside(&dir, &owner)?;
                tracing::warn!(?name, "set aside what lay in the way of a new replica");
                Ok(())
            }
            _ => Err(OpenError::Occupied { path: dir }),
        }
    }

    /// Whether a directory holds a log without an entry, or a part of one, and nothing else.
    fn is_empty_log(&self, dir: &Path) -> std::io::Result<bool> {
        for entry in self.disk.read_dir(dir)? {
            let Some((base, file)) = SegmentFile::parse(&entry.name) else {
                let is_ours = matches!(
                    entry.name.as_str(),
                    "partition.metadata" | "leader-epoch-checkpoint"
                ) || entry.name.ends_with(".tmp");
                if !is_ours {
                    return Ok(false);
                }
                continue;
            };
            let len = self
                .disk
                .open(&dir.join(&entry.name), OpenMode::ReadOnly)?
                .len()?;
            let is_empty = match file {
                // A creation that was cut off may have left half of the header.
                SegmentFile::Raft => match self.header_of(dir, &entry.name) {
                    Some((_, header)) => header == len,
                    None => len <= TORN_HEADER_BYTES,
                },
                _ => len == 0,
            };
            if base != 0 || !is_empty {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whose log lies in a directory, by the header of a sidecar.
    fn owner_of(&self, dir: &Path) -> Option<LogIdentity> {
        let names = self.disk.read_dir(dir).ok()?;
        let mut headers = names.iter().filter_map(|entry| {
            let (_, file) = SegmentFile::parse(&entry.name)?;
            (file == SegmentFile::Raft).then(|| self.header_of(dir, &entry.name))?
        });
        headers.next().map(|(header, _)| header.identity)
    }

    fn header_of(&self, dir: &Path, name: &str) -> Option<(Header, u64)> {
        let file = self.disk.open(&dir.join(name), OpenMode::ReadOnly).ok()?;
        let len = usize::try_from(file.len().ok()?.min(HEADER_BYTES)).ok()?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let (header, len) = Header::decode(&bytes).ok()?;
        Some((header, len as u64))
    }
}
