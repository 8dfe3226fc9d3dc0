//! What waits to be sent on a link, bounded in bytes and in number.
//!
//! Above the bound appends and snapshots are dropped, and reported, so that Raft sends them again
//! when it is time. All other messages are small and never dropped: when there are many, an older
//! one goes where a newer one of the same kind says it again for the same replica.

use std::collections::VecDeque;

use bytes::Bytes;
use riverrun_replication::frame::message_bytes;
use riverrun_replication::message::{Body, PeerMessage, RaftKind};
use rustc_hash::FxHashSet;

use super::outbox;

/// Bytes of a link's queue above which appends and snapshots are dropped.
const MAX_QUEUED_BYTES: usize = 64 << 20;
/// Messages of a link's queue above which appends and snapshots are dropped, and others give way to
/// newer ones of their kind.
const MAX_QUEUED: usize = 16 << 10;
/// What a link that is connecting for the first time may hold.
const MAX_HELD_BYTES: usize = 256 << 10;
/// Messages that it may hold.
const MAX_HELD: usize = 1024;
/// Announcements that wait; beyond it the oldest goes, as the broker repeats what is not known yet.
const MAX_ANNOUNCEMENTS: usize = 4096;
/// Messages of a frame end with the one that passes this.
const FRAME_BYTES: usize = 2 << 20;

/// A group and the replica in it that something did not reach.
pub(crate) type Target = (u64, u64);

/// Whether a link takes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It does not: what is queued is lost at once.
    Down,
    /// A connection is being made and may take a moment.
    Connecting,
    /// It does.
    Up,
}

#[derive(Debug)]
enum Item {
    Message(Box<PeerMessage>, usize),
    Announce(Bytes),
    Ping,
}

/// What leaves as one frame.
#[derive(Debug)]
pub(crate) enum Batch {
    Messages(Vec<PeerMessage>),
    Announce(Bytes),
    Ping,
}

/// The queue of a link.
#[derive(Debug)]
pub(crate) struct Queue {
    state: State,
    items: VecDeque<Item>,
    bytes: usize,
    announcements: usize,
    /// The length at which older messages give way to newer ones of their kind.
    thin_at: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            state: State::Connecting,
            items: VecDeque::new(),
            bytes: 0,
            announcements: 0,
            thin_at: MAX_QUEUED,
        }
    }
}

impl outbox::Waiting for Queue {
    type Batch = Batch;

    fn take(&mut self) -> Option<Batch> {
        if self.state != State::Up {
            return None;
        }
        let mut messages = Vec::new();
        let mut bytes = 0;
        while bytes < FRAME_BYTES {
            match self.items.pop_front() {
                Some(Item::Message(message, size)) => {
                    self.bytes -= size;
                    bytes += size;
                    messages.push(*message);
                }
                // Whatever is no message ends the frame.
                Some(other) if !messages.is_empty() => {
                    self.items.push_front(other);
                    break;
                }
                Some(Item::Announce(body)) => {
                    self.bytes -= body.len();
                    self.announcements -= 1;
                    return Some(Batch::Announce(body));
                }
                Some(Item::Ping) => return Some(Batch::Ping),
                None => break,
            }
        }
        if self.items.is_empty() {
            self.thin_at = MAX_QUEUED;
        }
        (!messages.is_empty()).then_some(Batch::Messages(messages))
    }

    fn any(&self) -> bool {
        self.state == State::Up && !self.items.is_empty()
    }
}

impl Queue {
    /// Queues a message, or says whom it will not reach.
    pub(crate) fn message(&mut self, message: PeerMessage) -> Result<(), Target> {
        let target = (message.group, message.to);
        let size = message_bytes(&message);
        let full = match self.state {
            State::Down => return Err(target),
            State::Connecting => self.items.len() >= MAX_HELD || self.bytes + size > MAX_HELD_BYTES,
            State::Up => {
                may_be_dropped(&message)
                    && (self.items.len() >= MAX_QUEUED || self.bytes + size > MAX_QUEUED_BYTES)
            }
        };
        if full {
            return Err(target);
        }
        self.bytes += size;
        self.items.push_back(Item::Message(Box::new(message), size));
        if self.items.len() > self.thin_at {
            self.thin();
        }
        Ok(())
    }

    /// Queues an announcement; without a connection it is not needed, since a new one begins with all.
    pub(crate) fn announce(&mut self, body: Bytes) {
        if self.state != State::Up {
            return;
        }
        let full = |queue: &Self| {
            queue.announcements >= MAX_ANNOUNCEMENTS || queue.bytes + body.len() > MAX_QUEUED_BYTES
        };
        while self.announcements > 0 && full(self) {
            self.drop_oldest_announcement();
        }
        self.announcements += 1;
        self.bytes += body.len();
        self.items.push_back(Item::Announce(body));
    }

    fn drop_oldest_announcement(&mut self) {
        let is_one = |item: &Item| matches!(item, Item::Announce(_));
        if let Some(at) = self.items.iter().position(is_one)
            && let Some(Item::Announce(body)) = self.items.remove(at)
        {
            self.announcements -= 1;
            self.bytes -= body.len();
        }
    }

    /// Queues a ping, if nothing waits that would say as much.
    pub(crate) fn ping(&mut self) {
        if self.state == State::Up && self.items.is_empty() {
            self.items.push_back(Item::Ping);
        }
    }

    /// Says whether anything is taken from now on.
    pub(crate) fn set_state(&mut self, state: State) {
        self.state = state;
    }

    /// Drops all; says whom it will not reach.
    pub(crate) fn clear(&mut self) -> Vec<Target> {
        self.bytes = 0;
        self.announcements = 0;
        self.thin_at = MAX_QUEUED;
        let targets = self.items.drain(..).filter_map(|item| match item {
            Item::Message(message, _) => Some((message.group, message.to)),
            Item::Announce(_) | Item::Ping => None,
        });
        targets.collect()
    }

    /// Of the messages that are never dropped, keeps the newest of each kind for each replica. What is
    /// left is as much as the groups can have, and twice that is the next length to do it at.
    fn thin(&mut self) {
        let mut seen = FxHashSet::default();
        let mut kept = VecDeque::with_capacity(self.items.len());
        while let Some(item) = self.items.pop_back() {
            let newest = match &item {
                Item::Message(message, _) if !may_be_dropped(message) => {
                    seen.insert((message.group, message.to, kind(&message.body)))
                }
                _ => true,
            };
            if newest {
                kept.push_front(item);
            } else if let Item::Message(_, size) = item {
                self.bytes -= size;
            }
        }
        self.items = kept;
        self.thin_at = MAX_QUEUED.max(2 * self.items.len());
    }
}

/// Whether Raft sends it again once it is told that it did not arrive.
pub(crate) fn may_be_dropped(message: &PeerMessage) -> bool {
    matches!(&message.body, Body::Raft(raft)
        if matches!(raft.kind, RaftKind::Append | RaftKind::Snapshot))
}

/// The kind of a message, as far as a newer one of it stands for an older one.
fn kind(body: &Body) -> u8 {
    match body {
        Body::Raft(raft) => match raft.kind {
            RaftKind::Append => 0,
            RaftKind::AppendResponse if raft.reject => 1,
            RaftKind::AppendResponse => 2,
            RaftKind::RequestVote => 3,
            RaftKind::RequestVoteResponse => 4,
            RaftKind::RequestPreVote => 5,
            RaftKind::RequestPreVoteResponse => 6,
            RaftKind::Snapshot => 7,
            RaftKind::Heartbeat => 8,
            RaftKind::HeartbeatResponse => 9,
            RaftKind::TimeoutNow => 10,
        },
        Body::AskHello { .. } => 20,
        Body::Hello(_) => 21,
        Body::RecoverTo { .. } => 22,
        Body::Contradicted { .. } => 23,
        Body::AskReport { .. } => 24,
        Body::Report(_) => 25,
        Body::Committed { .. } => 26,
        Body::Probe { .. } => 27,
        Body::ProbeOk { .. } => 28,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::outbox::Waiting;
    use super::*;
    use crate::peers::tests::{append, heartbeat, probe};

    fn up() -> Queue {
        let mut queue = Queue::default();
        queue.set_state(State::Up);
        queue
    }

    fn drain(queue: &mut Queue) -> Vec<PeerMessage> {
        let mut all = Vec::new();
        while let Some(batch) = queue.take() {
            if let Batch::Messages(messages) = batch {
                all.extend(messages);
            }
        }
        all
    }

    #[test]
    fn appends_are_dropped_above_the_bound_and_nothing_else_is() {
        let mut queue = up();
        let mut kept = 0;
        let dropped = loop {
            match queue.message(append(kept, 1 << 20)) {
                Ok(()) => kept += 1,
                Err(target) => break target,
            }
        };
        assert_eq!(dropped, (kept, 2));
        assert_eq!(kept, 63, "64 MiB, less what stands around the payloads");
        assert!(queue.bytes <= MAX_QUEUED_BYTES);
        queue.message(heartbeat(7, 1)).unwrap();
        queue.message(probe(7, 1)).unwrap();
        assert_eq!(drain(&mut queue).len(), 65);
        assert_eq!((queue.bytes, queue.items.len()), (0, 0));
        queue.message(append(1, 1 << 20)).unwrap();
    }

    #[test]
    fn heartbeats_without_end_leave_the_newest_of_each_group() {
        let mut queue = up();
        for term in 0..100_000 {
            queue.message(heartbeat(term % 10, term)).unwrap();
            queue.message(probe(term % 10, term)).unwrap();
            assert!(queue.items.len() <= MAX_QUEUED);
        }
        let messages = drain(&mut queue);
        assert_eq!(messages.last(), Some(&probe(9, 99_999)));
        for group in 0..10 {
            let newest = 99_990 + group;
            assert!(
                messages.contains(&heartbeat(group, newest)),
                "group {group}"
            );
        }
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn a_link_that_is_down_keeps_nothing_and_one_that_connects_a_little() {
        let mut queue = Queue::default();
        let mut held = 0;
        while queue.message(probe(held, 1)).is_ok() {
            held += 1;
        }
        assert_eq!(held, MAX_HELD as u64);
        assert!(queue.take().is_none(), "there is nowhere to write it yet");
        queue.set_state(State::Down);
        assert_eq!(queue.clear().len(), MAX_HELD);
        assert_eq!(queue.message(probe(5, 1)), Err((5, 2)));
    }

    #[test]
    fn announcements_keep_their_place_among_messages() {
        let mut queue = up();
        queue.message(probe(1, 1)).unwrap();
        queue.message(probe(2, 1)).unwrap();
        queue.announce(Bytes::from_static(b"a"));
        queue.message(probe(3, 1)).unwrap();
        queue.ping();
        let mut lengths = Vec::new();
        while let Some(batch) = queue.take() {
            lengths.push(match batch {
                Batch::Messages(messages) => messages.len(),
                Batch::Announce(_) => 100,
                Batch::Ping => 200,
            });
        }
        assert_eq!(lengths, [2, 100, 1]);
    }

    #[test]
    fn only_the_newest_announcements_wait() {
        let mut queue = up();
        for number in 0..5000_u32 {
            queue.announce(Bytes::copy_from_slice(&number.to_le_bytes()));
        }
        let mut left = Vec::new();
        while let Some(Batch::Announce(body)) = queue.take() {
            left.push(u32::from_le_bytes(body.first_chunk().copied().unwrap()));
        }
        assert_eq!(left, (904..5000).collect::<Vec<_>>());
        assert_eq!(queue.bytes, 0);
    }
}
