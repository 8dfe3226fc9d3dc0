//! [`NodeStore`]: opening it, and what it keeps in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use super::checkpoint::Phase;
use super::config::{Boot, NodeConfig, NodeRecovery};
use super::error::NodeError;
use super::identity::{IdentityFile, NodeIdentity, StandingDamage, WalEnd};
use super::image::Image;
use super::occupied::occupied_by;
use super::pool::FlushPool;
use super::target::SyncTarget;
use super::wal::RecordBody;
use super::wal::ring::Ring;
use super::{IDENTITY_FILE, LOCK_FILE, NODE_DIR};
use crate::disk::Disk;
use crate::planted::{self, Bug};
use crate::recovered::{FileTrust, GroupRecord};

/// What rounds and checkpoints share with the store.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) data_dir: PathBuf,
    pub(super) node_dir: PathBuf,
    pub(super) config: NodeConfig,
    pub(super) pool: FlushPool,
}

/// What a log's recovery has done that the WAL does not show yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OpenedLog {
    /// The WAL has entries at or above this index that were cut as a torn tail.
    pub(super) cut_from: Option<u64>,
    /// An unfinished cut was carried out.
    pub(super) cut_done: bool,
    /// Its files were not to be trusted, and are new ones (W8).
    pub(super) written_anew: bool,
}

/// The store's state.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) ring: Ring,
    pub(super) image: Image,
    /// Groups with entries in the WAL that no checkpoint has taken up yet, with the log that can be
    /// synced; `None` while it is not open, or fenced.
    pub(super) dirty: BTreeMap<u64, Option<Arc<dyn SyncTarget>>>,
    pub(super) phase: Phase,
    pub(super) checkpoints: u64,
    /// Groups whose durable index is to be stored by the next round (W1).
    pub(super) lagging: BTreeSet<u64>,
    /// What the next round is to say of logs that were opened.
    pub(super) opened: BTreeMap<u64, OpenedLog>,
    /// What the next round is to say of files a flush of which has failed (W8).
    pub(super) trust_due: BTreeMap<u64, FileTrust>,
    /// The last entry that a replay has found of each group whose log is not open.
    pub(super) last_in_wal: BTreeMap<u64, u64>,
    /// Bytes that the state records of all groups take.
    pub(super) state_bytes: u64,
    /// Side files that a boot would read.
    pub(super) sides_in_use: BTreeSet<(u64, u64)>,
    /// Those of them that the newest states name: all that counts once the mark has moved to them.
    pub(super) sides_named: BTreeSet<(u64, u64)>,
    pub(super) next_side: u64,
    /// Whether the live part of the ring has damage in it.
    pub(super) damaged: bool,
    pub(super) in_round: bool,
    /// Set for good when the WAL fails (I10) or the store is closed.
    pub(super) stopped: Option<&'static str>,
    pub(super) failed_logs: Vec<(u64, io::Error)>,
    identity: IdentityFile,
}

/// The store of one node; see the module.
pub struct NodeStore {
    pub(super) shared: Arc<Shared>,
    core: Mutex<Core>,
    _lock: Box<dyn Send + Sync>,
}

impl std::fmt::Debug for NodeStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeStore")
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}

/// Takes a data directory's lock.
pub(super) fn take_lock(
    disk: &dyn Disk,
    node_dir: &Path,
) -> Result<Box<dyn Send + Sync>, NodeError> {
    let path = node_dir.join(LOCK_FILE);
    disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy => {
            NodeError::Locked { path: path.clone() }
        }
        _ => NodeError::io(&path)(error),
    })
}

impl NodeStore {
    /// Takes the directory's lock, founds it where it is empty, and reads what is there. When this
    /// returns, the incarnation is raised and the clean mark taken away, both durable, and all that
    /// was replayed is on the disk.
    pub fn open(
        disk: Arc<dyn Disk>,
        data_dir: &Path,
        config: NodeConfig,
        boot: Boot,
    ) -> Result<(Self, NodeRecovery), NodeError> {
        let node_dir = data_dir.join(NODE_DIR);
        disk.create_dir_all(&node_dir)
            .map_err(NodeError::io(&node_dir))?;
        let lock = take_lock(&*disk, &node_dir)?;
        let pool = FlushPool::new(config.flush_threads);
        let data_dir = data_dir.to_path_buf();
        let shared = Arc::new(Shared {
            disk,
            data_dir,
            node_dir,
            config,
            pool,
        });
        let identity_path = shared.node_dir.join(IDENTITY_FILE);
        let known = shared
            .disk
            .exists(&identity_path)
            .map_err(NodeError::io(&identity_path))?;
        if known {
            // The founder may have been killed between the renaming and the directory's sync: then a
            // power cut would take the identity away from under everything that is said from now on.
            let synced = shared.disk.sync_dir(&shared.node_dir);
            synced.map_err(NodeError::io(&shared.node_dir))?;
        }
        let (core, recovery) = if known {
            Core::resume(&shared, &identity_path, boot)?
        } else {
            if let Some(found) = occupied_by(&shared)?
                && !planted::is(Bug::FoundOverData)
            {
                return Err(NodeError::IdentityGone {
                    path: identity_path,
                    found,
                });
            }
            Core::found(&shared, &identity_path, boot)?
        };
        let store = Self {
            shared,
            core: Mutex::new(core),
            _lock: lock,
        };
        Ok((store, recovery))
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock()
    }

    /// Who this directory is.
    #[must_use]
    pub fn identity(&self) -> NodeIdentity {
        self.core().identity.identity().clone()
    }

    /// Binds the directory to a cluster; durable when this returns.
    pub fn set_cluster_id(&self, cluster_id: Uuid) -> Result<(), NodeError> {
        let mut core = self.core();
        let mut identity = core.identity.identity().clone();
        if identity.cluster_id.is_some_and(|bound| bound != cluster_id) {
            return Err(NodeError::Misuse {
                group: 0,
                what: "bound to another cluster already",
            });
        }
        identity.cluster_id = Some(cluster_id);
        core.identity.write(identity)
    }

    /// Takes over the kernel's boot id after a hard stop of the machine, once the caller has noted
    /// durably which groups may be short (R2).
    pub fn settle_boot(&self, kernel_boot_id: &str) -> Result<(), NodeError> {
        let mut core = self.core();
        let mut identity = core.identity.identity().clone();
        identity.kernel_boot_id = kernel_boot_id.to_owned();
        core.identity.write(identity)
    }

    /// Sets the clean mark. The caller has synced every log and no round is under way; nothing can
    /// be written behind it.
    pub fn close_clean(&self) -> Result<(), NodeError> {
        if self.needs_idle_round() {
            self.idle_round()?;
        }
        let mut core = self.core();
        core.check(0)?;
        let mut identity = core.identity.identity().clone();
        identity.clean = true;
        identity.wal_end = Some(WalEnd {
            round: core.ring.tail.round,
            prev_crc: core.ring.tail.prev_crc,
        });
        core.identity.write(identity)?;
        core.stopped = Some("the node store is closed");
        Ok(())
    }

    /// Notes durably that a peer or the controller has answered this start (R15).
    pub fn is_heard(&self) -> Result<(), NodeError> {
        self.change_identity(|identity| identity.heard = identity.starts.last().copied())
    }

    /// The damage of the WAL that stands (R12).
    #[must_use]
    pub fn damage(&self) -> Option<StandingDamage> {
        self.core().identity.identity().damage
    }

    /// Says below which id the controller had ordered replicas when it first heard of the start that met
    /// the damage.
    pub fn bound_damage(&self, ordered_below: u64) -> Result<(), NodeError> {
        self.change_identity(|identity| {
            if let Some(damage) = &mut identity.damage {
                damage.ordered_below = damage.ordered_below.min(ordered_below);
            }
        })
    }

    /// The damage stands no more: every replica that it may have concerned was accounted for.
    pub fn forget_damage(&self) -> Result<(), NodeError> {
        self.change_identity(|identity| identity.damage = None)
    }

    fn change_identity(&self, change: impl FnOnce(&mut NodeIdentity)) -> Result<(), NodeError> {
        let mut core = self.core();
        let mut identity = core.identity.identity().clone();
        change(&mut identity);
        if identity == *core.identity.identity() {
            return Ok(());
        }
        core.identity.write(identity)
    }

    /// Says that a log's recovery has succeeded: an unfinished cut was carried out, and all that the
    /// WAL or a side file held of it is in its files, synced, up to `last_index`; entries above that
    /// were cut as a torn tail. To be called for each log that was opened, before the first
    /// checkpoint; entries of a log that never opens are moved to a side file by it (W6).
    ///
    /// The next round records all this. It has to end before anything is appended to the log, or the
    /// entries that were cut could meet new ones at the next start (W2): while
    /// [`NodeStore::needs_idle_round`] says so, [`NodeStore::idle_round`] is run first.
    pub fn log_opened(&self, group: u64, last_index: u64) {
        let mut core = self.core();
        core.dirty.remove(&group);
        let trust_due = core.trust_due.remove(&group).is_some();
        let in_wal = core.last_in_wal.remove(&group).unwrap_or(0);
        let Some(state) = core.image.groups.get_mut(&group) else {
            return;
        };
        state.side_file = 0;
        state.reached = state.reached.max(last_index);
        let lagging = state.reached > state.durable_index;
        let opened = OpenedLog {
            cut_from: (in_wal > last_index).then(|| last_index + 1),
            cut_done: state.unfinished_cut.is_some(),
            written_anew: trust_due || state.trust != FileTrust::Sound,
        };
        if lagging {
            core.lagging.insert(group);
        }
        if opened != OpenedLog::default() {
            core.opened.insert(group, opened);
        }
    }

    /// Says that a log can no longer be synced: the next checkpoint moves its entries to a side file.
    pub fn fence(&self, group: u64) {
        if let Some(log) = self.core().dirty.get_mut(&group) {
            *log = None;
        }
    }

    /// Says that a write or flush of the files of a log that was open has failed: the next round
    /// makes it durable that what they hold above the durable index counts as lost (W8), and asks for
    /// itself with [`NodeStore::needs_idle_round`]. What a round, a checkpoint or the making of room
    /// finds by itself needs no call.
    pub fn poison(&self, group: u64) {
        self.core().distrust(group, FileTrust::Poisoned);
    }

    /// The same of a log whose opening has failed: its files are not to be written over (W8).
    pub fn suspect(&self, group: u64) {
        self.core().distrust(group, FileTrust::Suspect);
    }

    /// What the WAL and its side files hold of some groups now: the input for opening their logs anew after
    /// they could not be opened. One replay for all of them, beside the rounds (R16).
    ///
    /// # Errors
    /// The disk's; `Interrupted` where a checkpoint came between, and the call is to be made again.
    pub fn read_groups(
        &self,
        groups: &BTreeSet<u64>,
    ) -> Result<BTreeMap<u64, GroupRecord>, NodeError> {
        let live = {
            let core = self.core();
            core.check(0)?;
            core.live()
        };
        let (mut image, _) = live.replay(&self.shared)?;
        let mut core = self.core();
        core.check(0)?;
        if core.ring.mark != live.mark {
            // Bytes that were read may have been written over, and side files removed.
            let moved = io::Error::from(io::ErrorKind::Interrupted);
            return Err(NodeError::io(&core.ring.path)(moved));
        }
        let mut records = BTreeMap::new();
        for group in groups {
            let replayed = image.groups.get_mut(group);
            let Some(mut record) = replayed.and_then(|state| state.take_record()) else {
                continue;
            };
            let Some(state) = core.image.groups.get(group) else {
                continue;
            };
            record.recovering |= state.flags.recovering;
            let due = core.trust_due.get(group).copied().unwrap_or_default();
            record.trust = record.trust.max(due);
            record.recovering |= due != FileTrust::Sound && record.may_be_short;
            if let Some(last) = record.entries.last() {
                let index = last.index;
                core.last_in_wal.insert(*group, index);
            }
            records.insert(*group, record);
        }
        Ok(records)
    }

    /// Bytes of the ring that hold what a boot would read.
    #[must_use]
    pub fn wal_used_bytes(&self) -> u64 {
        self.core().ring.used()
    }

    /// The positions of the ring that a boot would read, from the start mark to where the next round goes.
    #[must_use]
    pub fn wal_live(&self) -> std::ops::Range<u64> {
        let core = self.core();
        core.ring.mark.point.position..core.ring.tail.position
    }

    /// Where positions of the ring lie in its file: (offset, bytes), in their order.
    #[must_use]
    pub fn wal_places(&self, positions: std::ops::Range<u64>) -> Vec<(u64, u64)> {
        let core = self.core();
        let geometry = core.ring.geometry;
        geometry.spans(positions.start, positions.end).collect()
    }

    /// Logs that a checkpoint found to be failing when a round had to make room by itself.
    #[must_use]
    pub fn take_failed_logs(&self) -> Vec<(u64, io::Error)> {
        std::mem::take(&mut self.core().failed_logs)
    }
}

impl Core {
    pub(super) fn new(ring: Ring, image: Image, identity: IdentityFile) -> Self {
        let state_bytes = image
            .groups
            .values()
            .map(super::image::GroupState::state_bytes)
            .sum();
        Self {
            ring,
            image,
            dirty: BTreeMap::new(),
            phase: Phase::Idle,
            checkpoints: 0,
            lagging: BTreeSet::new(),
            opened: BTreeMap::new(),
            trust_due: BTreeMap::new(),
            last_in_wal: BTreeMap::new(),
            state_bytes,
            sides_in_use: BTreeSet::new(),
            sides_named: BTreeSet::new(),
            next_side: 1,
            damaged: false,
            in_round: false,
            stopped: None,
            failed_logs: Vec::new(),
            identity,
        }
    }

    /// A cut record leaves fewer entries for a log to open with.
    pub(super) fn noted_in_wal(&mut self, group: u64, body: &RecordBody) {
        match body {
            RecordBody::Cut { first, .. } => {
                if let Some(last) = self.last_in_wal.get_mut(&group) {
                    *last = (*last).min(first.saturating_sub(1));
                }
            }
            RecordBody::Reset(_) | RecordBody::Creation { .. } | RecordBody::Removal => {
                self.last_in_wal.remove(&group);
            }
            _ => {}
        }
    }

    pub(super) fn distrust(&mut self, group: u64, trust: FileTrust) {
        if let Some(log) = self.dirty.get_mut(&group) {
            *log = None;
        }
        let known = self.image.groups.get(&group);
        if known.is_some_and(|state| state.trust < trust) {
            let due = self.trust_due.entry(group).or_default();
            *due = trust.max(*due);
        }
    }

    /// Fails when the store has stopped or a round is under way.
    pub(super) fn check(&self, group: u64) -> Result<(), NodeError> {
        if let Some(what) = self.stopped {
            return Err(NodeError::Misuse { group, what });
        }
        if self.in_round {
            return Err(NodeError::Misuse {
                group,
                what: "a flush round is under way",
            });
        }
        Ok(())
    }

    /// Takes the WAL out of service for good.
    pub(super) fn wal_failed(&mut self, source: io::Error) -> NodeError {
        self.stopped = Some("the node WAL has failed");
        super::error::WalFailed { source }.into()
    }
}
