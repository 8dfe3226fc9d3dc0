//! What a start does: it founds the directory, or replays what the last process has left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::WAL_FILE;
use super::config::{Boot, NodeRecovery, WalDamage};
use super::error::NodeError;
use super::identity::{IdentityFile, NodeIdentity, StandingDamage, Start, WalEnd};
use super::image::{Image, Replay};
use super::side::{parse_side_name, read_side, side_path};
use super::store::{Core, Shared};
use super::wal::chain::{Chain, ChainEnd, Step, follow};
use super::wal::preamble::{Geometry, Mark, MarkPoint, Preamble, to_usize};
use super::wal::ring::{Ring, capacity_of};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::entry::LogEntry;
use crate::planted::{self, Bug};
use crate::recovered::GroupRecord;

impl Core {
    pub(super) fn found(
        shared: &Shared,
        identity_path: &Path,
        boot: Boot,
    ) -> Result<(Self, NodeRecovery), NodeError> {
        let wal_path = shared.node_dir.join(WAL_FILE);
        let directory_id = boot.new_directory_id;
        let bytes = shared.config.wal_bytes;
        let ring = Ring::create(&*shared.disk, &wal_path, directory_id, bytes, 1)?;
        // The identity is written last: a directory without it is not founded yet.
        let identity = NodeIdentity {
            directory_id,
            cluster_id: None,
            node_id: boot.node_id,
            incarnation: 1,
            kernel_boot_id: boot.kernel_boot_id,
            clean: false,
            starts: vec![Start {
                incarnation: 1,
                token: boot.start_token,
            }],
            heard: None,
            wal_end: None,
            damage: None,
        };
        let identity = IdentityFile::create(&*shared.disk, identity_path, identity)?;
        let recovery = NodeRecovery {
            directory_id,
            cluster_id: None,
            incarnation: 1,
            founded: true,
            unclean_power_loss: false,
            groups: BTreeMap::new(),
            removed: Vec::new(),
            damage: None,
            replayed_records: 0,
            wal_end: ChainEnd::Clean,
        };
        Ok((Self::new(ring, Image::default(), identity), recovery))
    }

    pub(super) fn resume(
        shared: &Shared,
        identity_path: &Path,
        boot: Boot,
    ) -> Result<(Self, NodeRecovery), NodeError> {
        let mut identity = IdentityFile::open(&*shared.disk, identity_path, OpenMode::Existing)?;
        let stored = identity.identity().clone();
        if stored.node_id != boot.node_id {
            return Err(NodeError::OtherNode {
                stored: stored.node_id,
                given: boot.node_id,
            });
        }
        let path = shared.node_dir.join(WAL_FILE);
        if !shared.disk.exists(&path).map_err(NodeError::io(&path))? {
            return Err(NodeError::damaged(&path, 0, "the file is missing"));
        }
        let file = shared
            .disk
            .open(&path, OpenMode::Existing)
            .map_err(NodeError::io(&path))?;
        let preamble = Preamble::read(&*file, &path)?;
        if preamble.directory_id != stored.directory_id {
            return Err(NodeError::damaged(
                &path,
                16,
                "it belongs to another data directory",
            ));
        }
        let (geometry, mark) = (preamble.geometry, preamble.newest_mark(&path)?);
        if geometry.capacity != capacity_of(shared.config.wal_bytes) {
            // It stays as it was founded: a ring is not moved with what it holds.
            tracing::warn!(
                ring_bytes = geometry.capacity,
                wanted_bytes = capacity_of(shared.config.wal_bytes),
                "the node WAL keeps the size that it was founded with: the configured one counts for a \
                 new data directory only"
            );
        }
        let left_at = stored.wal_end.filter(|_| stored.clean);
        let reached = left_at.map(|end| end.round);
        let chain =
            follow(&*file, geometry, mark.point, None, reached).map_err(NodeError::io(&path))?;
        if chain.seen_round < mark.must_reach {
            let position = geometry.offset(chain.tail.position);
            let what = "the states that the last checkpoint wrote are not readable";
            return Err(NodeError::damaged(&path, position, what));
        }
        check_end(&chain, left_at, geometry, &path, identity_path)?;
        let incarnation = stored.incarnation + 1;
        let generation = u32::try_from(incarnation).unwrap_or(u32::MAX);
        if chain.tail.generation >= generation {
            let what = "the incarnation is below that of the WAL: an older copy was put back";
            return Err(NodeError::damaged(identity_path, 56, what));
        }
        let unclean_power_loss = !stored.clean && stored.kernel_boot_id != boot.kernel_boot_id;
        let (mut replay, loaded) = replay_chain(&*shared.disk, &shared.node_dir, &chain, &path)?;
        let replayed_records = chain.steps.len();
        let (groups, damage) = take_records(&mut replay, geometry);
        // R12: durable before the first round of this start, which may write the gap away.
        let standing = match &damage {
            Some(_) if !planted::is(Bug::DamageForgotten) => Some(StandingDamage {
                since: incarnation,
                ordered_below: u64::MAX,
            }),
            _ => stored.damage,
        };

        // Durable before anything is appended or answered (R2, R3).
        // After a hard stop of the machine the old boot id stays until the caller has noted durably
        // which groups may be short: a second stop before that must find the same.
        let kernel_boot_id = if unclean_power_loss {
            stored.kernel_boot_id.clone()
        } else {
            boot.kernel_boot_id
        };
        identity.write(NodeIdentity {
            incarnation,
            kernel_boot_id,
            clean: false,
            starts: stored.starts_with(Start {
                incarnation,
                token: boot.start_token,
            }),
            wal_end: None,
            damage: standing,
            ..stored.clone()
        })?;
        let ring = Ring::resume(file, path, geometry, mark, chain.tail, generation);
        let from = chain.last_round.start - mark.point.position;
        let to = chain.last_round.end - mark.point.position;
        let range = to_usize(from)..to_usize(to);
        let last_round = chain.bytes.get(range).unwrap_or_default();
        ring.write_again(chain.last_round.start, last_round)
            .map_err(NodeError::io(&ring.path))?;

        let mut image = replay.image;
        let recovery = NodeRecovery {
            directory_id: stored.directory_id,
            cluster_id: stored.cluster_id,
            incarnation,
            founded: false,
            unclean_power_loss,
            removed: std::mem::take(&mut image.removed),
            replayed_records,
            wal_end: chain.end,
            groups,
            damage,
        };
        let mut core = Self::new(ring, image, identity);
        core.damaged = recovery.damage.is_some();
        for (group, record) in &recovery.groups {
            if let Some(last) = record.entries.last() {
                core.dirty.insert(*group, None);
                core.last_in_wal.insert(*group, last.index);
            }
        }
        // What a side file holds may have been cut since: it is written anew, or forgotten.
        let sided = core
            .image
            .groups
            .iter()
            .filter(|(_, state)| state.side_file != 0);
        core.dirty.extend(sided.map(|(group, _)| (*group, None)));
        core.sides_in_use = loaded;
        core.find_sides(shared)?;
        Ok((core, recovery))
    }

    /// What a boot would find now, entries included.
    pub(super) fn replay_live(
        &self,
        shared: &Shared,
    ) -> Result<(Image, BTreeSet<(u64, u64)>), NodeError> {
        self.live().replay(shared)
    }

    /// The live part of the ring as it is now.
    pub(super) fn live(&self) -> Live {
        Live {
            file: Arc::clone(&self.ring.file),
            path: self.ring.path.clone(),
            geometry: self.ring.geometry,
            mark: self.ring.mark,
            tail: self.ring.tail,
        }
    }

    /// Side files that nothing names are removed.
    pub(super) fn find_sides(&mut self, shared: &Shared) -> Result<(), NodeError> {
        let names = shared
            .disk
            .read_dir(&shared.node_dir)
            .map_err(NodeError::io(&shared.node_dir))?;
        for entry in names {
            let Some((group, number)) = parse_side_name(&entry.name) else {
                continue;
            };
            self.next_side = self.next_side.max(number + 1);
            if !self.sides_in_use.contains(&(group, number)) {
                let path = side_path(&shared.node_dir, group, number);
                shared
                    .disk
                    .remove_file(&path)
                    .map_err(NodeError::io(&path))?;
            }
        }
        Ok(())
    }
}

/// The part of the ring that a boot would read. It stays as it is until the start mark moves.
#[derive(Debug)]
pub(super) struct Live {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    geometry: Geometry,
    pub(super) mark: Mark,
    tail: MarkPoint,
}

impl Live {
    /// Replays it; also the side files that its records name.
    pub(super) fn replay(
        &self,
        shared: &Shared,
    ) -> Result<(Image, BTreeSet<(u64, u64)>), NodeError> {
        let limit = Some(self.tail.position);
        let chain = follow(&*self.file, self.geometry, self.mark.point, limit, None)
            .map_err(NodeError::io(&self.path))?;
        if chain.tail.round != self.tail.round {
            let position = self.geometry.offset(chain.tail.position);
            let what = "a record that was written by this process is not readable";
            return Err(NodeError::damaged(&self.path, position, what));
        }
        let (replay, loaded) = replay_chain(&*shared.disk, &shared.node_dir, &chain, &self.path)?;
        Ok((replay.image, loaded))
    }
}

/// R14: a clean stop has named where the WAL ended. One that goes on behind that has an older identity
/// beside it; one that ends there otherwise is another WAL.
pub(super) fn check_end(
    chain: &Chain,
    left_at: Option<WalEnd>,
    geometry: Geometry,
    path: &Path,
    identity_path: &Path,
) -> Result<(), NodeError> {
    let Some(end) = left_at else { return Ok(()) };
    if chain.tail.round > end.round {
        let what = "the node WAL goes on behind the stop that the identity speaks of: an older copy of \
                    the identity was put back";
        return Err(NodeError::damaged(identity_path, 2896, what));
    }
    let is_whole = !chain
        .steps
        .iter()
        .any(|step| matches!(step, Step::Gap { .. }));
    if is_whole && chain.tail.prev_crc != end.prev_crc {
        let position = geometry.offset(chain.tail.position);
        let what = "it does not end as the last clean stop has left it: another copy was put back";
        return Err(NodeError::damaged(path, position, what));
    }
    Ok(())
}

/// Replays a chain; also the side files that its records name.
pub(super) fn replay_chain(
    disk: &dyn Disk,
    node_dir: &Path,
    chain: &Chain,
    path: &Path,
) -> Result<(Replay, BTreeSet<(u64, u64)>), NodeError> {
    let mut replay = Replay::default();
    let mut named = BTreeSet::new();
    let mut load = |group, number| -> Result<Vec<LogEntry>, NodeError> {
        named.insert((group, number));
        read_side(disk, &side_path(node_dir, group, number))
    };
    for step in &chain.steps {
        match step {
            Step::Gap { from, to } => replay.gap(*from, *to),
            Step::Record {
                position,
                header,
                body,
            } => {
                let Some(body) = chain.body(header, body) else {
                    let what = "a good record is of a kind that this program does not know";
                    return Err(NodeError::damaged(path, *position, what));
                };
                replay.record(header, &body, &mut load)?;
            }
        }
    }
    Ok((replay, named))
}

/// Takes out what recovery is told; groups of which too little is left are taken out of the image.
pub(super) fn take_records(
    replay: &mut Replay,
    geometry: Geometry,
) -> (BTreeMap<u64, GroupRecord>, Option<WalDamage>) {
    let affected = replay.settle();
    let mut groups = BTreeMap::new();
    let mut lost = Vec::new();
    for (group, state) in &mut replay.image.groups {
        // A cut that was carried out, and whose end lies in the gap, would take what was appended since
        // (W2, R14): whoever cannot know has lost what it acknowledged.
        let unsure = affected.contains(group) && state.unfinished_cut.is_some();
        match state.take_record().filter(|_| !unsure) {
            Some(record) => {
                groups.insert(*group, record);
            }
            None => lost.push((*group, state.replica)),
        }
    }
    replay
        .image
        .groups
        .retain(|group, _| groups.contains_key(group));
    let damage = (!replay.gaps.is_empty() || !affected.is_empty()).then(|| WalDamage {
        places: replay
            .gaps
            .iter()
            .map(|(from, to)| (geometry.offset(*from), to - from))
            .collect(),
        affected: affected
            .iter()
            .copied()
            .filter(|group| groups.contains_key(group))
            .collect(),
        lost,
    });
    (groups, damage)
}
