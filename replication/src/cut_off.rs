//! When a node that is cut off from its cluster sends clients away (X2). Pure.
//!
//! Clients stay with a node that answers, also where it answers that nobody leads: that another node
//! does by now they learn from nobody. So a node that hears no majority closes a connection behind an
//! answer that refused for want of a leader, and the client dials another one. What counts is group
//! 0's voters, as the node has applied them: neither learners nor nodes that were dismantled and stand
//! in the image still.
//!
//! Where the majority is gone for good there is no better node to go to. So the connections that an
//! address has are closed once, and what it opens then is let be for [`PAUSE_MS`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::controller::QuorumImage;

/// For how long a majority was not heard before anybody is sent away.
pub const UNHEARD_MS: u64 = 2_000;
/// How long an address that was sent away is let be.
pub const PAUSE_MS: u64 = 10_000;
/// How long what an address opens after it was sent away waits before it is answered: a client that has
/// dialled this node again looks for another one meanwhile, and stays with the first that answers.
/// librdkafka looks once in a second.
pub const HELD_MS: u64 = 1_500;
/// Addresses that are remembered. Who comes on top of them is let be.
const MAX_ADDRESSES: usize = 4096;

/// Whether a node that has run for `up_ms` has heard no majority of group 0's voters for
/// [`UNHEARD_MS`]; `heard` says how many milliseconds ago anything came from a node, if ever.
#[must_use]
pub fn is_cut_off(
    quorum: &QuorumImage,
    own: i32,
    up_ms: u64,
    heard: impl Fn(i32) -> Option<u64>,
) -> bool {
    let is_alone = quorum.replicas.iter().all(|known| known.at.node == own);
    if is_alone {
        return false;
    }
    let voters = quorum.replicas.iter().filter(|known| known.votes);
    let (mut all, mut heard_lately) = (0_usize, 0_usize);
    for voter in voters {
        let node = voter.at.node;
        let silent_ms = heard(node).unwrap_or(up_ms);
        all += 1;
        heard_lately += usize::from(node == own || silent_ms < UNHEARD_MS);
    }
    all > 0 && heard_lately <= all / 2
}

/// Whether another node than this one has a say in a partition, so that it may be led elsewhere.
#[must_use]
pub fn concerns_others(own: i32, mut replicas: impl Iterator<Item = i32>) -> bool {
    replicas.any(|node| node != own)
}

/// The same of group 0.
#[must_use]
pub fn quorum_concerns_others(own: i32, quorum: &QuorumImage) -> bool {
    let voters = quorum.replicas.iter().filter(|known| known.votes);
    concerns_others(own, voters.map(|known| known.at.node))
}

/// The addresses that were sent away, and when.
#[derive(Debug, Default)]
pub struct SentAway {
    last: BTreeMap<IpAddr, u64>,
    /// Nobody's time is over before that: there is no use in looking for room.
    full_until_ms: u64,
}

impl SentAway {
    /// Whether a connection that was opened then is closed now, where the node is cut off and what it
    /// was asked wants a leader. An address is sent away at most once in [`PAUSE_MS`], with all the
    /// connections that it has at that time.
    pub fn sends_away(&mut self, address: IpAddr, opened_ms: u64, now_ms: u64) -> bool {
        let address = address.to_canonical();
        if let Some(last) = self.last.get(&address)
            && now_ms < last.saturating_add(PAUSE_MS)
        {
            return opened_ms < *last;
        }
        if self.last.len() >= MAX_ADDRESSES && now_ms >= self.full_until_ms {
            self.last
                .retain(|_, last| now_ms < last.saturating_add(PAUSE_MS));
            let oldest = self.last.values().min();
            self.full_until_ms = oldest.map_or(0, |oldest| oldest.saturating_add(PAUSE_MS));
        }
        // An address that is known and comes again has its place.
        let has_room = self.last.len() < MAX_ADDRESSES || self.last.contains_key(&address);
        if has_room {
            self.last.insert(address, now_ms);
        }
        has_room
    }

    /// Until when a connection that is opened now is not answered yet, if it is not.
    #[must_use]
    pub fn held_until(&self, address: IpAddr, now_ms: u64) -> Option<u64> {
        let last = self.last.get(&address.to_canonical())?;
        let until = last.saturating_add(HELD_MS);
        (now_ms < until).then_some(until)
    }
}

#[cfg(test)]
mod tests;
