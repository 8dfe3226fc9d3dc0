//! What a replica knows of the others: their lives, whether they introduced themselves in this
//! term, and whether they are whole. The rules are R1, R2, R2b and R3 of docs/safety.md.

use std::collections::BTreeMap;

/// Another replica of the group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peer {
    /// The greatest incarnation of its node heard of; 0: none.
    pub incarnation: u64,
    /// The leader's term in which it introduced itself in that incarnation; 0: not yet.
    pub greeted_term: u64,
    /// It holds as committed what this leader's log contradicts, or lacks what it acknowledged in this term
    /// (R2b, R14); nothing it says counts.
    pub contradicted: bool,
    /// It said that it may have lost acknowledged entries.
    pub recovering: bool,
    /// It said that some of its bytes are bad.
    pub marred: bool,
    /// Ticks since anything was heard of it.
    pub silent_ticks: u32,
    /// Ticks since it was last caught up with the leader.
    pub lagging_ticks: u32,
}

/// The others by replica id.
#[derive(Debug, Default)]
pub struct Peers {
    peers: BTreeMap<u64, Peer>,
}

/// What to make of a message's incarnations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is from a life that is over, or for one: drop it.
    Over,
    /// It is for an earlier life of this node, from somebody who does not know of this one.
    Mistaken {
        /// It is also the first of a new life of the sender.
        new: bool,
    },
    /// It is from the life that is known.
    Known,
    /// It is the first of a new life.
    New,
}

impl Peers {
    /// What is known of a replica.
    #[must_use]
    pub fn get(&self, replica: u64) -> Peer {
        self.peers.get(&replica).copied().unwrap_or_default()
    }

    /// What is known of a replica, to be changed.
    pub fn entry(&mut self, replica: u64) -> &mut Peer {
        self.peers.entry(replica).or_default()
    }

    /// Keeps the members of a configuration and forgets others.
    pub fn retain(&mut self, members: &[u64]) {
        self.peers.retain(|id, _| members.contains(id));
    }

    /// Looks at a message's incarnations. `own` is this node's; `to` is what the sender takes it to
    /// be, 0 where it does not know.
    ///
    /// The sender's life is learned from a mistaken message, too: two that know each other's former
    /// life would else take every answer for mistaken, for ever.
    pub fn hear(&mut self, replica: u64, from: u64, to: u64, own: u64) -> Life {
        let peer = self.peers.entry(replica).or_default();
        if from < peer.incarnation || to > own {
            return Life::Over;
        }
        let new = from > peer.incarnation;
        if new {
            *peer = Peer {
                incarnation: from,
                lagging_ticks: peer.lagging_ticks,
                ..Peer::default()
            };
        }
        if to != 0 && to != own {
            return Life::Mistaken { new };
        }
        peer.silent_ticks = 0;
        if new { Life::New } else { Life::Known }
    }

    /// A tick of time.
    pub fn tick(&mut self) {
        for peer in self.peers.values_mut() {
            peer.silent_ticks = peer.silent_ticks.saturating_add(1);
            peer.lagging_ticks = peer.lagging_ticks.saturating_add(1);
        }
    }
}
