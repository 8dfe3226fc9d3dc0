//! The controller: what the cluster consists of, as a pure state machine.
//!
//! Group 0 is an ordinary group whose record batches carry commands ([`command`]). Every node
//! applies the committed ones in order to its own [`Controller`] and so arrives at the same
//! [`Image`]: topics, partitions, replicas, brokers, settings and the numbers that are given out
//! only once. Nothing here reads a clock, a file or a random source; what has to differ from call to
//! call (a topic's id, the first broker of a placement) comes in with the request.
//!
//! Two halves, never mixed:
//! - `plan_*` looks at the image of the leading node, says early what cannot work and returns a
//!   [`Command`] to be written to group 0. It changes nothing.
//! - [`Controller::apply`] carries a committed command out. It checks everything again, since the
//!   image may have moved on between plan and commit, and gives out group and replica ids there and
//!   only there: two plans made side by side never collide.
//!
//! | file | what |
//! |---|---|
//! | `command` | the commands, as bytes in record batches |
//! | `image` | what is known |
//! | `apply` | what a command does to it |
//! | `duties` | what the leader sees to by itself |
//! | `plan` | from a request to a command |
//! | `quorum` | the replicas of group 0 |
//! | `placement` | which brokers get a partition |
//! | `room` | what the brokers have room for |
//! | `names` | which topic names are allowed |
//! | `outcome` | what comes of a command |
//! | `checkpoint` | the image as a file |
//! | `checkpoints` | the images beside group 0's log |

mod apply;
mod checkpoint;
mod checkpoints;
mod command;
mod duties;
mod image;
mod names;
mod outcome;
mod placement;
mod plan;
mod quorum;
mod room;

pub use checkpoint::{BadCheckpoint, MAGIC as CHECKPOINT_MAGIC};
pub use checkpoints::{Checkpoints, Found, MIN_BYTES as CHECKPOINT_MIN_BYTES, Pace};
pub use command::{
    AddPartitions, AllocateProducerIds, BadCommand, COMMAND_VERSION, Command, CreateTopic,
    FenceBroker, FoundCluster, Founder, MarkTopicClosing, NewPartition, Numbers, OnWord,
    RegisterBroker, RemoveTopic, ReplaceReplica, Room, SetTopicConfigs, TopicsGone, decode_batch,
    decode_command, encode_batch, encode_numbered_batch,
};
pub use duties::ClosedTopics;
pub use image::{BrokerImage, DirectoryImage, Image, PartitionImage, ReplicaImage, TopicImage};
pub use names::check_topic_name;
pub use outcome::{Outcome, Rejection};
pub use placement::{Candidate, place};
pub use plan::CreateTopicRequest;
pub use quorum::{FIRST_CONTROLLER, QuorumImage, QuorumReplica};

/// Most partitions that one command may add.
pub const MAX_PARTITIONS_PER_COMMAND: usize = 10_000;
/// Most replicas of a partition.
pub const MAX_REPLICAS: usize = 15;
/// Most replicas of a partition that have moved to other nodes before its group is known to have followed.
pub const MAX_MOVES_AT_ONCE: usize = 8;
/// Most settings of a topic.
pub const MAX_CONFIGS: usize = 256;
/// Longest name, value, host or rack that is stored.
pub const MAX_TEXT_BYTES: usize = 32 * 1024;
/// Most producer ids given out at once.
pub const MAX_PRODUCER_IDS: u32 = 1_000_000;

/// The controller's state machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Controller {
    image: Image,
}

impl Controller {
    /// One that has applied nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the commands so far have made.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Applies every command of a committed batch of group 0 and returns what came of each. A batch
    /// that lies below what has been applied already is skipped, so that a log may be replayed over
    /// a checkpoint without knowing where exactly that was taken.
    ///
    /// # Errors
    /// [`BadCommand`] where the bytes are not a batch of commands that this version knows; nothing of
    /// the batch has been applied then. A node that meets one cannot know the cluster's state.
    pub fn apply_batch(&mut self, batch: &[u8]) -> Result<Vec<Outcome>, BadCommand> {
        let decoded = command::decode_batch_at(batch)?;
        if decoded.next_offset <= self.image.next_offset {
            return Ok(Vec::new());
        }
        let outcomes = decoded
            .commands
            .iter()
            .map(|command| self.apply(command))
            .collect();
        self.image.next_offset = decoded.next_offset;
        Ok(outcomes)
    }
}

#[cfg(test)]
mod tests;
