//! What a boot would find in a data directory, without being one: nothing is written, no lock is
//! taken, so a running node's directory can be looked at too. What was read while it was written may
//! then look damaged; who cares reads it again and compares [`Survey::tail`].

use std::collections::BTreeMap;
use std::path::Path;

use super::boot::{check_end, replay_chain, take_records};
use super::config::WalDamage;
use super::error::NodeError;
use super::identity::{NodeIdentity, read_identity};
use super::wal::MarkPoint;
use super::wal::chain::{ChainEnd, follow};
use super::wal::preamble::Preamble;
use super::{IDENTITY_FILE, NODE_DIR, WAL_FILE};
use crate::disk::{Disk, OpenMode};
use crate::recovered::{GroupRecord, LogIdentity};

/// What the node store's files say.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Who the directory is.
    pub identity: NodeIdentity,
    /// Every group that was created and not removed: what the recovery of its log would be given.
    pub groups: BTreeMap<u64, GroupRecord>,
    /// Replicas whose removal the WAL still shows; their files may be there.
    pub removed: Vec<LogIdentity>,
    /// Damage in the WAL or its side files.
    pub damage: Option<WalDamage>,
    /// How the WAL ends.
    pub end: ChainEnd,
    /// Where the next round would be written. It moves whenever a node works.
    pub tail: MarkPoint,
    /// Records of the WAL that count.
    pub records: usize,
}

/// Reads a data directory's node store and changes nothing.
pub fn survey(disk: &dyn Disk, data_dir: &Path) -> Result<Survey, NodeError> {
    let node_dir = data_dir.join(NODE_DIR);
    let identity_path = node_dir.join(IDENTITY_FILE);
    let identity = read_identity(disk, &identity_path)?;
    let path = node_dir.join(WAL_FILE);
    let file = disk
        .open(&path, OpenMode::ReadOnly)
        .map_err(NodeError::io(&path))?;
    let preamble = Preamble::read(&*file, &path)?;
    if preamble.directory_id != identity.directory_id {
        return Err(NodeError::damaged(
            &path,
            16,
            "it belongs to another data directory",
        ));
    }
    let mark = preamble.newest_mark(&path)?;
    let left_at = identity.wal_end.filter(|_| identity.clean);
    let reached = left_at.map(|end| end.round);
    let chain = follow(&*file, preamble.geometry, mark.point, None, reached)
        .map_err(NodeError::io(&path))?;
    if chain.seen_round < mark.must_reach {
        let position = preamble.geometry.offset(chain.tail.position);
        let what = "the states that the last checkpoint wrote are not readable";
        return Err(NodeError::damaged(&path, position, what));
    }
    check_end(&chain, left_at, preamble.geometry, &path, &identity_path)?;
    if u64::from(chain.tail.generation) > identity.incarnation {
        let what = "the incarnation is below that of the WAL: an older copy was put back";
        return Err(NodeError::damaged(&identity_path, 56, what));
    }
    let (mut replay, _) = replay_chain(disk, &node_dir, &chain, &path)?;
    let (groups, damage) = take_records(&mut replay, preamble.geometry);
    Ok(Survey {
        identity,
        groups,
        removed: std::mem::take(&mut replay.image.removed),
        damage,
        end: chain.end,
        tail: chain.tail,
        records: chain.steps.len(),
    })
}
