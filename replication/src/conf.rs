//! Configurations of a group and changes to them, in our own encoding.
//!
//! ```text
//! configuration  version u8 = 1 | auto leave u8 | 4 x (count u16 | count x replica u64)
//!                in the order voters, learners, outgoing voters, learners next
//! change         version u8 = 1 | transition u8 | count u16 | count x (kind u8 | replica u64)
//!                an empty payload is the change that leaves a joint configuration
//! ```
//! All numbers are little-endian. The Raft library's own encoding is never written or read from
//! outside, so no foreign byte reaches its parser.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};

/// Most members that an encoded configuration may name in one of its lists.
const MAX_MEMBERS: usize = 64;
const VERSION: u8 = 1;

/// A stored or received configuration that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a configuration of {0} bytes that this version cannot read")]
pub struct BadConf(pub usize);

/// Encodes a configuration.
#[must_use]
pub fn encode_conf(conf: &ConfState) -> Bytes {
    let lists = [
        conf.get_voters(),
        conf.get_learners(),
        conf.get_voters_outgoing(),
        conf.get_learners_next(),
    ];
    let mut out = BytesMut::with_capacity(2 + lists.iter().map(|l| 2 + 8 * l.len()).sum::<usize>());
    out.put_u8(VERSION);
    out.put_u8(u8::from(conf.get_auto_leave()));
    for list in lists {
        out.put_u16_le(u16::try_from(list.len()).unwrap_or(u16::MAX));
        for id in list {
            out.put_u64_le(*id);
        }
    }
    out.freeze()
}

/// Decodes a configuration.
///
/// # Errors
/// [`BadConf`] where the bytes are not exactly one configuration of this version.
pub fn decode_conf(bytes: &[u8]) -> Result<ConfState, BadConf> {
    let bad = BadConf(bytes.len());
    let mut input = bytes;
    if input.remaining() < 2 || input.get_u8() != VERSION {
        return Err(bad);
    }
    let auto_leave = input.get_u8() != 0;
    let mut lists: [Vec<u64>; 4] = Default::default();
    for list in &mut lists {
        if input.remaining() < 2 {
            return Err(bad);
        }
        let count = usize::from(input.get_u16_le());
        if count > MAX_MEMBERS || input.remaining() < 8 * count {
            return Err(bad);
        }
        list.extend((0..count).map(|_| input.get_u64_le()));
    }
    if input.has_remaining() {
        return Err(bad);
    }
    let [voters, learners, outgoing, next] = lists;
    let mut conf = ConfState::default();
    conf.set_voters(voters);
    conf.set_learners(learners);
    conf.set_voters_outgoing(outgoing);
    conf.set_learners_next(next);
    conf.set_auto_leave(auto_leave);
    Ok(conf)
}

/// One step of a membership change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Make the replica a voter.
    AddVoter(u64),
    /// Make the replica a learner: it is filled, and does not count.
    AddLearner(u64),
    /// Remove the replica.
    Remove(u64),
}

/// The library's form of a change. No steps: leave the joint configuration.
#[must_use]
pub fn conf_change(changes: &[Change]) -> ConfChangeV2 {
    let mut out = ConfChangeV2::default();
    for change in changes {
        let (kind, id) = match *change {
            Change::AddVoter(id) => (ConfChangeType::AddNode, id),
            Change::AddLearner(id) => (ConfChangeType::AddLearnerNode, id),
            Change::Remove(id) => (ConfChangeType::RemoveNode, id),
        };
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = id;
        out.mut_changes().push(single);
    }
    out.set_transition(ConfChangeTransition::Auto);
    out
}

/// Encodes a change for a log entry. No steps: the empty payload.
#[must_use]
pub fn encode_change(changes: &[Change]) -> Bytes {
    if changes.is_empty() {
        return Bytes::new();
    }
    let mut out = BytesMut::with_capacity(4 + 9 * changes.len());
    out.put_u8(VERSION);
    out.put_u8(0);
    out.put_u16_le(u16::try_from(changes.len()).unwrap_or(u16::MAX));
    for change in changes {
        let (kind, id) = match *change {
            Change::AddVoter(id) => (0, id),
            Change::AddLearner(id) => (1, id),
            Change::Remove(id) => (2, id),
        };
        out.put_u8(kind);
        out.put_u64_le(id);
    }
    out.freeze()
}

/// Decodes a change.
///
/// # Errors
/// [`BadConf`] where the bytes are not exactly one change of this version.
pub fn decode_change(bytes: &[u8]) -> Result<Vec<Change>, BadConf> {
    let bad = BadConf(bytes.len());
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut input = bytes;
    if input.remaining() < 4 || input.get_u8() != VERSION || input.get_u8() != 0 {
        return Err(bad);
    }
    let count = usize::from(input.get_u16_le());
    if count == 0 || count > MAX_MEMBERS || input.remaining() != 9 * count {
        return Err(bad);
    }
    let mut changes = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = input.get_u8();
        let id = input.get_u64_le();
        changes.push(match kind {
            0 => Change::AddVoter(id),
            1 => Change::AddLearner(id),
            2 => Change::Remove(id),
            _ => return Err(bad),
        });
    }
    Ok(changes)
}

/// Every replica that one of the lists names, once each, in order.
fn once_each(lists: &[&[u64]]) -> Vec<u64> {
    let mut all = lists.concat();
    all.sort_unstable();
    all.dedup();
    all
}

/// The voters of a configuration, of both halves where it is joint, once each, in order.
#[must_use]
pub fn voters(conf: &ConfState) -> Vec<u64> {
    once_each(&[conf.get_voters(), conf.get_voters_outgoing()])
}

/// Whether a change and the configurations that it leads to can be encoded: no list of either names
/// more members than a reader accepts.
#[must_use]
pub fn fits(conf: &ConfState, changes: &[Change]) -> bool {
    let added = changes
        .iter()
        .filter(|change| !matches!(change, Change::Remove(_)))
        .count();
    changes.len() <= MAX_MEMBERS && members(conf).len() + added <= MAX_MEMBERS
}

/// Every replica that a configuration names, once each, in order.
#[must_use]
pub fn members(conf: &ConfState) -> Vec<u64> {
    once_each(&[
        conf.get_voters(),
        conf.get_learners(),
        conf.get_voters_outgoing(),
        conf.get_learners_next(),
    ])
}

/// Whether the replica votes in this configuration.
#[must_use]
pub fn is_voter(conf: &ConfState, replica: u64) -> bool {
    conf.get_voters().contains(&replica) || conf.get_voters_outgoing().contains(&replica)
}

/// Whether `yes` holds for a majority of the voters, of both halves where the configuration is joint.
pub fn majority(conf: &ConfState, yes: impl Fn(u64) -> bool) -> bool {
    let of = |list: &[u64]| list.iter().filter(|id| yes(**id)).count() * 2 > list.len();
    of(conf.get_voters())
        && (conf.get_voters_outgoing().is_empty() || of(conf.get_voters_outgoing()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn configurations_and_changes_survive_their_encoding() {
        let mut conf = ConfState::default();
        conf.set_voters(vec![1, 2, u64::MAX]);
        conf.set_learners(vec![4]);
        conf.set_voters_outgoing(vec![9]);
        conf.set_auto_leave(true);
        assert_eq!(decode_conf(&encode_conf(&conf)).unwrap(), conf);
        let changes = vec![
            Change::AddVoter(7),
            Change::AddLearner(8),
            Change::Remove(9),
        ];
        assert_eq!(decode_change(&encode_change(&changes)).unwrap(), changes);
        assert!(decode_change(&encode_change(&[])).unwrap().is_empty());
    }

    #[test]
    fn every_cut_or_changed_byte_is_an_answer_not_a_panic() {
        let mut conf = ConfState::default();
        conf.set_voters(vec![1, 2, 3]);
        let bytes = encode_conf(&conf).to_vec();
        for end in 0..bytes.len() {
            assert!(decode_conf(bytes.get(..end).unwrap()).is_err());
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            *changed.get_mut(at).unwrap() = 0xff;
            let _ = decode_conf(&changed);
            let _ = decode_change(&changed);
        }
    }
}
