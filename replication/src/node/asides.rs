//! Directories that were set aside: under another name, with a note of why. Nothing opens, counts or votes
//! from them; each goes when what its reason waits for is proven (R10, R11), or by an operator's order.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;

use riverrun_storage::disk::is_of_machine;
use riverrun_storage::format::SegmentFile;
use riverrun_storage::format::aside::{self, Note, Reason, is_aside};
use riverrun_storage::format::sidecar::Header;
use riverrun_storage::planted::{self, Bug};
use riverrun_storage::{LogIdentity, LogStart, OpenMode};
use uuid::Uuid;

use super::{GroupOrder, Node, OpenError};
use crate::asides::Aside;

/// Names that are tried where one is taken.
const MOST_NAMES: u32 = 1000;
/// The header of a new log's sidecar is never longer.
const TORN_HEADER_BYTES: u64 = 1024;
/// Bytes of a sidecar that hold its header.
const HEADER_BYTES: u64 = u16::MAX as u64;

/// Bytes of a note, and more.
const NOTE_BYTES: usize = 4096;

/// What lies where a replica is to be created.
enum Leftover {
    /// A part of a log without an entry.
    Empty,
    /// A little that cannot be read.
    Unclear,
    /// More than that.
    Log,
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

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
        aside
            .map(|entry| {
                let note = self.read_note(&self.data.join(&entry.name))?;
                Ok(Aside {
                    name: entry.name,
                    note,
                })
            })
            .collect()
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
            let name_stray = || {
                let owner = self.owner_of(&dir).map_err(io("look into a directory"))?;
                let (group, replica) = owner.map_or((0, 0), |owner| (owner.group, owner.replica));
                let identity = LogIdentity {
                    group,
                    replica,
                    topic_id,
                    partition,
                };
                self.note_aside(&dir, &identity, Reason::Unrecorded)?;
                self.move_aside(&dir, &identity)
            };
            let moved = name_stray();
            match moved {
                Ok(name) => tracing::warn!(?name, "set a directory aside that no record speaks of"),
                Err(error) => tracing::warn!(%error, name = entry.name, "a stray directory stays"),
            }
        }
        Ok(())
    }

    /// What a directory says of why it was set aside; none where it has no such note, or one that cannot be
    /// read: then it stays until an operator removes it. That is said once a start.
    ///
    /// # Errors
    /// Those of the machine.
    fn read_note(&self, dir: &Path) -> std::io::Result<Option<Note>> {
        let path = dir.join(aside::FILE_NAME);
        let read = || -> std::io::Result<Vec<u8>> {
            let file = self.disk.open(&path, OpenMode::ReadOnly)?;
            let mut bytes = vec![0; to_usize(file.len()?).min(NOTE_BYTES)];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        };
        let why = match read() {
            Ok(bytes) => match Note::decode(&bytes) {
                Ok(note) => return Ok(Some(note)),
                Err(what) => format!("damaged at byte 0: {what}"),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if is_of_machine(&error) => return Err(error),
            Err(error) => error.to_string(),
        };
        if self.said_of_notes.lock().insert(path.clone()) {
            tracing::warn!(file = %path.display(), why, "why a directory was set aside cannot be read: it stays");
        }
        Ok(None)
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
        match self
            .leftover(&dir, self.header_bytes(order))
            .map_err(io("look into a directory"))?
        {
            // Left by a creation that was cut off before it was recorded: nothing in it was ever promised.
            Leftover::Empty => {
                return self
                    .disk
                    .remove_dir_all(&dir)
                    .map_err(io("clear a directory for a new replica"));
            }
            // Most likely the same, but nothing says so.
            Leftover::Unclear => {
                let nobody = LogIdentity {
                    group: 0,
                    replica: 0,
                    ..order.identity.clone()
                };
                self.note_aside(&dir, &nobody, Reason::Unrecorded)?;
                let name = self.move_aside(&dir, &nobody)?;
                tracing::warn!(
                    ?name,
                    "set aside what lay in the way of a new replica and cannot be read"
                );
                return Ok(());
            }
            Leftover::Log => {}
        }
        match self.owner_of(&dir).map_err(io("look into a directory"))? {
            Some(owner) if owner.replica != order.identity.replica => {
                self.note_aside(&dir, &owner, Reason::Unrecorded)?;
                let name = self.move_aside(&dir, &owner)?;
                tracing::warn!(?name, "set aside what lay in the way of a new replica");
                Ok(())
            }
            _ => Err(OpenError::Occupied { path: dir }),
        }
    }

    /// Bytes of the sidecar's header that an order's creation begins with.
    fn header_bytes(&self, order: &GroupOrder) -> u64 {
        let header = Header {
            identity: order.identity.clone(),
            birth: LogStart::default(),
            start: LogStart::default(),
            durable_segment: -1,
            conf: order.conf(),
        };
        header.encode().len() as u64
    }

    /// Whether a directory holds a log without an entry, or a part of one, and nothing else. `header` is how long
    /// the header of such a one is.
    fn leftover(&self, dir: &Path, header: u64) -> std::io::Result<Leftover> {
        let mut found = Leftover::Empty;
        for entry in self.disk.read_dir(dir)? {
            let Some((base, file)) = SegmentFile::parse(&entry.name) else {
                let is_ours = matches!(
                    entry.name.as_str(),
                    "partition.metadata" | "leader-epoch-checkpoint"
                ) || entry.name.ends_with(".tmp");
                if !is_ours {
                    return Ok(Leftover::Log);
                }
                continue;
            };
            let len = self
                .disk
                .open(&dir.join(&entry.name), OpenMode::ReadOnly)?
                .len()?;
            let is_empty = match file {
                SegmentFile::Raft => match self.header_of(dir, &entry.name)? {
                    Some((_, header)) => header == len,
                    // A creation that was cut off may have left half of the header.
                    None if len <= header => true,
                    None => {
                        found = Leftover::Unclear;
                        len <= TORN_HEADER_BYTES
                    }
                },
                _ => len == 0,
            };
            if base != 0 || !is_empty {
                return Ok(Leftover::Log);
            }
        }
        Ok(found)
    }

    /// Whose log lies in a directory, by the header of a sidecar; none where no header can be read.
    fn owner_of(&self, dir: &Path) -> std::io::Result<Option<LogIdentity>> {
        for entry in self.disk.read_dir(dir)? {
            let file = SegmentFile::parse(&entry.name).map(|(_, file)| file);
            if file == Some(SegmentFile::Raft)
                && let Some((header, _)) = self.header_of(dir, &entry.name)?
            {
                return Ok(Some(header.identity));
            }
        }
        Ok(None)
    }

    /// The header of a sidecar and its length; none where it is damaged, which is said.
    fn header_of(&self, dir: &Path, name: &str) -> std::io::Result<Option<(Header, u64)>> {
        let path = dir.join(name);
        let file = self.disk.open(&path, OpenMode::ReadOnly)?;
        let mut bytes = vec![0; to_usize(file.len()?.min(HEADER_BYTES))];
        file.read_exact_at(&mut bytes, 0)?;
        match Header::decode(&bytes) {
            Ok((header, len)) => Ok(Some((header, len as u64))),
            Err(what) => {
                tracing::warn!(file = %path.display(), byte = 0, what, "a header cannot be read");
                Ok(None)
            }
        }
    }
}
