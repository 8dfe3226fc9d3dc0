//! A shard: some of the node's groups, and the turn that carries them on. Pure.
//!
//! A turn takes inputs and gives effects. The runner carries the effects out in order; what they
//! lead to comes back as an input of a later turn. A panic inside a group (the Raft library's answer
//! to a contradiction) fences that group alone.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use riverrun_storage::{LogEntry, LogStart, ProducerState};

use crate::api::{CommittedBatch, Produce, ProduceError, ProduceOutcome, Published, Ticket, Word};
use crate::conf::Change;
use crate::config::GroupSettings;
use crate::group::{FlushItem, Op};
use crate::members::Members;
use crate::message::PeerMessage;
use crate::partition::{Partition, answer};

/// What a turn is told.
#[derive(Debug)]
pub enum Input {
    /// A new partition, booted.
    Add(Box<Partition>),
    /// The partition leaves this node.
    Remove {
        /// Its group.
        group: u64,
    },
    /// A batch to append.
    Produce {
        /// To which group.
        group: u64,
        /// The batch.
        produce: Produce,
    },
    /// Does this replica still lead (L5)?
    Confirm {
        /// The group.
        group: u64,
        /// Who asks.
        ticket: Ticket,
    },
    /// What does this leader say of its group (R9)?
    Word {
        /// The group.
        group: u64,
        /// Who asks.
        ticket: Ticket,
    },
    /// A message of another replica.
    Message(PeerMessage),
    /// The node that a replica is on does not live: if it leads, its lease is over.
    Gone {
        /// The group.
        group: u64,
        /// The replica.
        replica: u64,
    },
    /// Messages to a replica were lost.
    Unreachable {
        /// The group.
        group: u64,
        /// The replica.
        replica: u64,
    },
    /// A tick of time for every group.
    Tick,
    /// Entries are in the files.
    Written {
        /// The group.
        group: u64,
        /// Up to here.
        through: u64,
        /// Base offsets of segments that were begun.
        rolled: Vec<i64>,
    },
    /// There was no room for all that was to be written; the rest waits.
    Full {
        /// The group.
        group: u64,
    },
    /// A flush round with an item of the group has ended.
    Flushed {
        /// The group.
        group: u64,
    },
    /// The files were cut or reset.
    Cut {
        /// The group.
        group: u64,
    },
    /// What was bad was put right, and the producers were read again.
    Sighted {
        /// The group.
        group: u64,
        /// The offset behind the last batch that they know of.
        offset: i64,
        /// The producers.
        producers: Box<ProducerState>,
    },
    /// The producer state of a snapshot is durable.
    Saved {
        /// The group.
        group: u64,
    },
    /// Segments at the head were deleted.
    HeadDropped {
        /// The group.
        group: u64,
        /// Where the log begins now.
        start: LogStart,
        /// The producer state there, encoded.
        producers: bytes::Bytes,
    },
    /// Writing, flushing or cutting the group's files failed (I10).
    Failed {
        /// The group.
        group: u64,
        /// What happened.
        why: String,
    },
    /// New settings.
    Settings {
        /// The group.
        group: u64,
        /// The settings.
        settings: GroupSettings,
    },
    /// A membership change to propose.
    Change {
        /// The group.
        group: u64,
        /// Who is answered when it is applied.
        ticket: Ticket,
        /// The steps; none leaves a joint configuration.
        changes: Vec<Change>,
    },
    /// The members that the group is to have.
    Members {
        /// The group.
        group: u64,
        /// By the controller's image.
        members: Members,
    },
    /// Whole segments below an index may go.
    DropHead {
        /// The group.
        group: u64,
        /// First index kept at the latest.
        keep_from: u64,
    },
    /// Hand leadership to a replica.
    Transfer {
        /// The group.
        group: u64,
        /// To whom.
        to: u64,
    },
}

/// What is to be done after a turn, in order.
#[derive(Debug)]
pub enum Effect {
    /// Append to a group's files.
    Write {
        /// The group.
        group: u64,
        /// The entries.
        entries: Vec<LogEntry>,
    },
    /// Take part in the next flush round.
    Flush(FlushItem),
    /// Blocking work on a group's files.
    Op {
        /// The group.
        group: u64,
        /// The work.
        op: Op,
    },
    /// A message to another replica.
    Send(PeerMessage),
    /// The answer to a produce.
    Produced {
        /// Whose.
        ticket: Ticket,
        /// What.
        outcome: ProduceOutcome,
    },
    /// The answer to a confirmation.
    Confirmed {
        /// Whose.
        ticket: Ticket,
        /// What.
        result: Result<Published, ProduceError>,
    },
    /// A leader's word on its group, or why there is none.
    Word {
        /// Whose.
        ticket: Ticket,
        /// What.
        result: Result<Word, ProduceError>,
    },
    /// What is published of a partition changed.
    Advanced {
        /// The group.
        group: u64,
    },
    /// Who leads a partition, or who is in sync with this leader, changed.
    Led {
        /// The group.
        group: u64,
    },
    /// A batch of a delivering group is committed.
    Committed(CommittedBatch),
    /// The leader's log contradicts what this replica holds as committed (R2b): it must be set
    /// aside and replaced under a new id.
    Contradicted {
        /// The group.
        group: u64,
    },
    /// The group is out of service on this node.
    Fenced {
        /// The group.
        group: u64,
        /// Why.
        why: String,
    },
}

/// Some of a node's groups.
#[derive(Debug, Default)]
pub struct Shard {
    partitions: BTreeMap<u64, Partition>,
    fenced: BTreeMap<u64, Partition>,
    now: Duration,
}

impl Shard {
    /// The partition of a group, unless it is fenced.
    #[must_use]
    pub fn partition(&self, group: u64) -> Option<&Partition> {
        self.partitions.get(&group)
    }

    /// Every partition that is in service.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.values()
    }

    /// One turn at a time by a clock that never goes back: takes the inputs in order, then carries every group that was touched on as far as
    /// it goes, so that work that arrives together is done together.
    pub fn turn(
        &mut self,
        now: Duration,
        inputs: impl IntoIterator<Item = Input>,
        out: &mut Vec<Effect>,
    ) {
        self.now = now;
        let mut touched: Vec<u64> = Vec::new();
        for input in inputs {
            self.step(input, out, &mut touched);
        }
        touched.sort_unstable();
        touched.dedup();
        for group in touched {
            self.guarded(group, out, Partition::pump);
        }
    }

    fn step(&mut self, input: Input, out: &mut Vec<Effect>, touched: &mut Vec<u64>) {
        match input {
            Input::Add(partition) => {
                let group = partition.id();
                self.fenced.remove(&group);
                self.partitions.insert(group, *partition);
                touched.push(group);
            }
            Input::Remove { group } => {
                self.fenced.remove(&group);
                if let Some(mut partition) = self.partitions.remove(&group) {
                    partition.fence(out);
                }
            }
            Input::Produce { group, produce } => {
                let ticket = produce.ticket;
                if self.partitions.contains_key(&group) {
                    self.guarded(group, out, |p, out| p.produce(produce, out));
                    touched.push(group);
                } else {
                    answer(out, ticket, Err(self.absent(group)));
                }
            }
            Input::Confirm { group, ticket } => {
                if self.partitions.contains_key(&group) {
                    self.guarded(group, out, |p, out| p.confirm(ticket, out));
                } else {
                    out.push(Effect::Confirmed {
                        ticket,
                        result: Err(self.absent(group)),
                    });
                }
            }
            Input::Word { group, ticket } => {
                if self.partitions.contains_key(&group) {
                    self.guarded(group, out, |p, out| p.ask_word(ticket, out));
                } else {
                    out.push(Effect::Word {
                        ticket,
                        result: Err(self.absent(group)),
                    });
                }
            }
            Input::Message(message) => {
                let group = message.group;
                self.guarded(group, out, |p, out| p.on_message(message, out));
            }
            Input::Unreachable { group, replica } => {
                self.guarded(group, out, |p, _| p.group.unreachable(replica));
                touched.push(group);
            }
            Input::Gone { group, replica } => {
                self.guarded(group, out, |p, _| p.group.is_gone(replica));
            }
            Input::Tick => {
                let groups: Vec<u64> = self.partitions.keys().copied().collect();
                for group in groups {
                    self.guarded(group, out, Partition::tick);
                }
            }
            Input::Written {
                group,
                through,
                rolled,
            } => {
                self.guarded(group, out, |p, out| p.on_written(through, &rolled, out));
            }
            Input::Full { group } => self.guarded(group, out, |p, _| p.on_full()),
            Input::Flushed { group } => self.guarded(group, out, Partition::on_flushed),
            Input::Cut { group } => self.guarded(group, out, Partition::on_cut),
            Input::Sighted {
                group,
                offset,
                producers,
            } => self.guarded(group, out, |p, _| p.on_sighted(offset, *producers)),
            Input::Saved { group } => self.guarded(group, out, Partition::on_saved),
            Input::HeadDropped {
                group,
                start,
                producers,
            } => {
                self.guarded(group, out, |p, out| {
                    p.on_head_dropped(start, producers, out)
                });
            }
            Input::Failed { group, why } => self.fence(group, why, out),
            Input::Settings { group, settings } => {
                self.guarded(group, out, |p, _| p.set_settings(settings));
                touched.push(group);
            }
            Input::Change {
                group,
                ticket,
                changes,
            } => {
                if self.partitions.contains_key(&group) {
                    self.guarded(group, out, |p, out| p.change(ticket, &changes, out));
                    touched.push(group);
                } else {
                    answer(out, ticket, Err(self.absent(group)));
                }
            }
            Input::Members { group, members } => {
                self.guarded(group, out, |p, _| p.set_members(members));
            }
            Input::DropHead { group, keep_from } => {
                self.guarded(group, out, |p, out| p.drop_head(keep_from, out));
            }
            Input::Transfer { group, to } => {
                self.guarded(group, out, |p, _| p.group.transfer(to));
                touched.push(group);
            }
        }
    }

    fn absent(&self, group: u64) -> ProduceError {
        if self.fenced.contains_key(&group) {
            ProduceError::Storage
        } else {
            ProduceError::NotLeader
        }
    }

    /// Runs something on a group; a panic fences it.
    fn guarded(
        &mut self,
        group: u64,
        out: &mut Vec<Effect>,
        f: impl FnOnce(&mut Partition, &mut Vec<Effect>),
    ) {
        let Some(partition) = self.partitions.get_mut(&group) else {
            return;
        };
        partition.group.set_now(self.now);
        let before = out.len();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| f(partition, out))) {
            // What it wanted done in this call is not to be trusted.
            out.truncate(before);
            self.fence(group, panic_text(&panic), out);
        }
    }

    fn fence(&mut self, group: u64, why: String, out: &mut Vec<Effect>) {
        if let Some(mut partition) = self.partitions.remove(&group) {
            tracing::error!(group, why, "the partition is out of service on this node");
            partition.fence(out);
            self.fenced.insert(group, partition);
            out.push(Effect::Fenced { group, why });
        }
    }
}

fn panic_text(panic: &Box<dyn std::any::Any + Send>) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
