//! Who leads what, by the word of the leaders themselves (L6). Pure.
//!
//! A node tells every other one what it leads: all of it when a link is up, and then each change. A
//! link is ordered, and another link begins with all of it again, so nothing is repeated or
//! acknowledged. The greater term wins; who leads no longer says so, in the same term. Who was killed
//! says nothing any more: its word counts while it is heard, and only in the start that gave it.
//! Metadata is answered by the greater of this table and the node's own replica.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use riverrun_storage::planted::{self, Bug};

use crate::api::{Published, Role};
use crate::partition::PartitionHandle;

/// Partitions that one announcement tells of; a table is told in several.
const MAX_ENTRIES: usize = 10_000;

#[derive(Clone, PartialEq, Message)]
struct Announcement {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(uint64, tag = "1")]
    group: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    /// Whether the node leads in that term; it says so, too, when it has ceased to.
    #[prost(bool, tag = "3")]
    leads: bool,
    /// The replicas in sync.
    #[prost(uint64, repeated, tag = "4")]
    in_sync: Vec<u64>,
}

/// A leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lead {
    /// Its term.
    pub term: u64,
    /// Its node; `None`: it has ceased to lead.
    pub node: Option<i32>,
    /// The replicas in sync with it.
    pub in_sync: Arc<[u64]>,
}

/// What other nodes have said.
#[derive(Debug, Default)]
pub struct LeaderTable {
    leads: BTreeMap<u64, Lead>,
    /// Nodes that are not heard. They may come back and lead as before.
    gone: BTreeSet<i32>,
}

impl LeaderTable {
    /// What the leader of a group has said; one whose node is gone leads nothing.
    #[must_use]
    pub fn get(&self, group: u64) -> Option<Lead> {
        let mut lead = self.leads.get(&group)?.clone();
        lead.node = lead.node.filter(|node| !self.gone.contains(node));
        Some(lead)
    }

    /// A node is not heard any more.
    pub fn gone(&mut self, node: i32) {
        self.gone.insert(node);
    }

    /// A node is heard again.
    pub fn heard(&mut self, node: i32) {
        self.gone.remove(&node);
    }

    /// A node was started anew: what it led it leads no more, unless it says so again.
    pub fn started(&mut self, node: i32) {
        for lead in self.leads.values_mut() {
            lead.node = lead.node.filter(|known| *known != node);
        }
    }

    /// Takes in what a node says of itself; whether anything is new. Bytes that are no announcement
    /// change nothing.
    pub fn hear(&mut self, node: i32, announcement: Bytes) -> bool {
        let announcement = match Announcement::decode(announcement) {
            Ok(announcement) => announcement,
            Err(error) => {
                tracing::warn!(node, %error, "a node's word of what it leads cannot be read");
                return false;
            }
        };
        let mut any = false;
        for entry in announcement.entries {
            if !entry.leads {
                any |= self.ceased(node, &entry);
                continue;
            }
            let known = self.leads.get(&entry.group);
            let counts = known.is_none_or(|known| {
                let same = known.node.is_none_or(|other| other == node);
                entry.term > known.term
                    || (entry.term == known.term && same)
                    || planted::is(Bug::L6)
            });
            if !counts {
                continue;
            }
            let lead = Lead {
                term: entry.term,
                node: Some(node),
                in_sync: entry.in_sync.into(),
            };
            if known != Some(&lead) {
                any = true;
                self.leads.insert(entry.group, lead);
            }
        }
        any
    }

    /// A node says that it does not lead. Its term may be one in which nobody ever does (a vote that was
    /// asked for and lost with the power): all that it ends is what it led itself.
    fn ceased(&mut self, node: i32, entry: &Entry) -> bool {
        let led = self.leads.get_mut(&entry.group);
        let led = led.filter(|lead| lead.node == Some(node) && lead.term <= entry.term);
        let Some(lead) = led else { return false };
        lead.node = None;
        lead.in_sync = Arc::default();
        true
    }

    /// What this node's own replica of a group shows. That somebody leads in a term stays known when the
    /// replica goes or is out of service: nobody is told of an earlier leader then.
    pub fn know(&mut self, group: u64, published: &Published, leader: Option<i32>) {
        let node = match published.role {
            Role::Follower if leader.is_some() => leader,
            // It is named as long as it shows that it leads, and not by this.
            Role::Leader => None,
            Role::Follower | Role::Fenced => return,
        };
        let term = published.term;
        let known = self.leads.get(&group);
        if known.is_none_or(|known| (known.term, known.node) < (term, node)) {
            let in_sync = Arc::default();
            let lead = Lead {
                term,
                node,
                in_sync,
            };
            self.leads.insert(group, lead);
        }
    }

    /// A group is no more.
    pub fn forget(&mut self, group: u64) {
        self.leads.remove(&group);
    }
}

/// The leader of a group and its term, as a node knows them: by what it was told, and by its own
/// replica, given as its term and the node that it takes for the leader. Of the same term counts who
/// knows of a leader.
#[must_use]
pub fn newest(told: Option<&Lead>, own: Option<(u64, Option<i32>)>) -> Option<(u64, Option<i32>)> {
    told.map(|lead| (lead.term, lead.node))
        .into_iter()
        .chain(own)
        .max()
}

/// What a node's own replica says of its group, given the node and the one that it takes for the
/// leader's. One that is out of service says nothing.
#[must_use]
pub fn by_own_replica(
    published: &Published,
    node: i32,
    leader: Option<i32>,
) -> Option<(u64, Option<i32>)> {
    match published.role {
        Role::Leader => Some((published.term, Some(node))),
        Role::Follower => Some((published.term, leader)),
        Role::Fenced => None,
    }
}

/// What a node says of its replicas, in one or more announcements.
#[must_use]
pub fn announce(handles: &[PartitionHandle]) -> Vec<Bytes> {
    let of_one = |handle: &PartitionHandle| {
        let published = handle.published();
        Entry {
            group: handle.group(),
            term: published.term,
            leads: published.role == Role::Leader,
            in_sync: handle.in_sync().to_vec(),
        }
    };
    let of_some = |some: &[PartitionHandle]| {
        let entries = some.iter().map(of_one).collect();
        Announcement { entries }.encode_to_vec().into()
    };
    handles.chunks(MAX_ENTRIES).map(of_some).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(group: u64, term: u64, leads: bool) -> Bytes {
        let entry = Entry {
            group,
            term,
            leads,
            in_sync: vec![group * 10],
        };
        let entries = vec![entry];
        Announcement { entries }.encode_to_vec().into()
    }

    fn leads(table: &LeaderTable) -> Option<(u64, Option<i32>)> {
        table.get(5).map(|lead| (lead.term, lead.node))
    }

    #[test]
    fn l6_the_greater_term_wins_whatever_comes_last() {
        let mut table = LeaderTable::default();
        assert!(table.hear(1, says(5, 7, true)));
        // The word of the leader before, on another link, comes late.
        assert!(!table.hear(2, says(5, 5, true)));
        assert_eq!(leads(&table), Some((7, Some(1))));
        // What was announced again as a whole is nothing new.
        assert!(!table.hear(1, says(5, 7, true)));
        // Nobody else ends a leadership of the same term.
        assert!(!table.hear(2, says(5, 7, false)));
        assert!(table.hear(1, says(5, 7, false)));
        assert_eq!(leads(&table), Some((7, None)));
        assert!(table.hear(2, says(5, 8, true)));
        assert_eq!(leads(&table), Some((8, Some(2))));
        table.forget(5);
        assert_eq!(leads(&table), None);
    }

    #[test]
    fn l6_a_replica_that_knows_more_is_believed_over_the_table() {
        let mut table = LeaderTable::default();
        table.hear(1, says(5, 5, true));
        let told = table.get(5);
        let told = told.as_ref();
        // The report of term 7 was lost; the own replica votes in it.
        assert_eq!(newest(told, Some((7, None))), Some((7, None)));
        assert_eq!(newest(told, Some((7, Some(1)))), Some((7, Some(1))));
        // It has not heard of a leader in the term that the table names one for.
        assert_eq!(newest(told, Some((5, None))), Some((5, Some(1))));
        assert_eq!(newest(None, None), None);
    }

    #[test]
    fn l6_who_was_killed_leads_nothing_whatever_it_said_before() {
        let mut table = LeaderTable::default();
        table.hear(1, says(5, 7, true));
        table.hear(2, says(6, 7, true));
        table.gone(1);
        assert_eq!(leads(&table), Some((7, None)));
        assert_eq!(table.get(6).and_then(|lead| lead.node), Some(2));
        // It was only silent for a while, and still leads.
        table.heard(1);
        assert_eq!(leads(&table), Some((7, Some(1))));
        // It was killed, and comes back as somebody who leads nothing yet.
        table.gone(1);
        table.started(1);
        table.heard(1);
        assert_eq!(leads(&table), Some((7, None)));
        assert_eq!(table.get(6).and_then(|lead| lead.node), Some(2));
        assert!(table.hear(1, says(5, 8, true)));
        assert_eq!(leads(&table), Some((8, Some(1))));
    }

    fn shows(role: Role, term: u64) -> Published {
        Published {
            role,
            leader_replica: 4,
            term,
            ready: false,
            high_watermark: 0,
            last_stable_offset: 0,
            log_start_offset: 0,
            end_offset: 0,
        }
    }

    #[test]
    fn l6_a_leader_that_a_replica_knew_stays_known_when_it_goes() {
        let mut table = LeaderTable::default();
        table.hear(1, says(5, 5, true));
        table.know(5, &shows(Role::Follower, 7), Some(2));
        assert_eq!(leads(&table), Some((7, Some(2))));
        // The leader before comes late.
        assert!(!table.hear(1, says(5, 5, true)));
        // What the leader says of itself is more than that it leads.
        assert!(table.hear(2, says(5, 7, true)));
        table.know(5, &shows(Role::Follower, 7), Some(2));
        assert!(!table.hear(2, says(5, 7, true)));
        // A term in which nobody leads, and a replica that is out of service, tell nothing.
        table.know(5, &shows(Role::Follower, 8), None);
        table.know(5, &shows(Role::Fenced, 9), Some(3));
        assert_eq!(leads(&table), Some((7, Some(2))));
        table.know(5, &shows(Role::Leader, 9), None);
        assert_eq!(leads(&table), Some((9, None)));
    }

    #[test]
    fn l6_a_term_in_which_nobody_leads_hides_no_leader() {
        let mut table = LeaderTable::default();
        table.hear(1, says(5, 7, true));
        // A candidate of term 8, whose term goes with its power.
        assert!(!table.hear(2, says(5, 8, false)));
        assert_eq!(leads(&table), Some((7, Some(1))));
        // Who led says that it does not any more, whatever term it is in.
        assert!(table.hear(1, says(5, 8, false)));
        assert_eq!(leads(&table), Some((7, None)));
    }

    #[test]
    fn l6_a_replica_out_of_service_says_nothing() {
        let of = |role| by_own_replica(&shows(role, 7), 1, Some(2));
        assert_eq!(of(Role::Fenced), None);
        assert_eq!(of(Role::Follower), Some((7, Some(2))));
        assert_eq!(of(Role::Leader), Some((7, Some(1))));
    }

    #[test]
    fn bytes_that_are_no_announcement_say_nothing() {
        let mut table = LeaderTable::default();
        table.hear(1, says(5, 5, true));
        for bytes in [&b"\xff\xff\xff"[..], b"\x0a\xff\x01", b"GET / HTTP/1.1"] {
            assert!(!table.hear(2, Bytes::copy_from_slice(bytes)));
        }
        assert_eq!(leads(&table), Some((5, Some(1))));
    }
}
