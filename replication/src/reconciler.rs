//! From the controller's image, and what a node has, to what the node does: pure, and the same function in
//! the server and in the simulator.

use std::fmt;

use riverrun_storage::format::aside::Reason;
use uuid::Uuid;

use crate::controller::{PartitionImage, ReplicaImage};

/// What is the matter with a replica that has no open log (docs/damage.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// The machine or the disk did not answer: nothing is known, and it is tried again (R16).
    Unavailable,
    /// Bytes that were durable are bad. It knows what it voted and acknowledged, and is not replaced.
    Damaged,
    /// It cannot know what it voted or acknowledged: it has to be replaced, where that loses nothing (R9).
    Lost,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "unavailable",
            Self::Damaged => "damaged",
            Self::Lost => "lost",
        })
    }
}

/// What a node has of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Here {
    /// Nothing.
    Nothing,
    /// A replica in service.
    Open {
        /// Its id.
        replica: u64,
        /// Its leader's log contradicts it (R2b).
        contradicted: bool,
    },
    /// A replica without an open log.
    Unopened {
        /// Its id.
        replica: u64,
        /// What is the matter with it.
        standing: Standing,
    },
}

/// The node that looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Me {
    /// Its `node.id`.
    pub node: i32,
    /// Its data directory.
    pub directory: Uuid,
    /// While a damage of the node WAL stands: replicas below this id may have been created before it was
    /// met (R12).
    pub ordered_below: Option<u64>,
}

/// What a node does about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It has what it is to have, or cannot have it yet.
    Keep,
    /// It is to have nothing, and has nothing.
    Nothing,
    /// It creates this replica.
    Create(ReplicaImage),
    /// This replica is ordered, was created before, and nothing is left that knows of it: it is lost (R12).
    Lost(ReplicaImage),
    /// What it has is another one's place now, here or elsewhere: it goes first, and then it looks again.
    SetAside {
        /// The replica that goes.
        replica: u64,
        /// Why.
        reason: Reason,
        /// It is sound: it goes when its group has let it go, not before.
        when_let_go: bool,
    },
}

/// What a node does about a partition of a topic that is not being deleted.
#[must_use]
pub fn order(partition: &PartitionImage, me: &Me, here: Here) -> Order {
    // A replica is bound to a node and a directory: any other one was lost (R3).
    let mine = partition
        .replicas
        .iter()
        .find(|replica| replica.node == me.node && replica.directory == me.directory);
    let other = |replica: u64| mine.is_none_or(|mine| mine.replica != replica);
    match here {
        Here::Open {
            replica,
            contradicted,
        } if other(replica) => Order::SetAside {
            replica,
            reason: match (contradicted, mine) {
                (true, _) => Reason::Contradicted,
                // It was ordered to go, perhaps because it was contradicted before this start.
                (false, Some(_)) => Reason::Unknown,
                (false, None) => Reason::Replaced,
            },
            // Its successor here can be filled only when it has gone.
            when_let_go: !contradicted && mine.is_none(),
        },
        // Nothing is known against it: it goes like one that is open (R16).
        Here::Unopened {
            replica,
            standing: Standing::Unavailable,
        } if other(replica) => Order::SetAside {
            replica,
            reason: if mine.is_some() {
                Reason::Unknown
            } else {
                Reason::Replaced
            },
            when_let_go: mine.is_none(),
        },
        Here::Unopened { replica, .. } if other(replica) => Order::SetAside {
            replica,
            reason: Reason::Replaced,
            when_let_go: false,
        },
        Here::Open { .. } | Here::Unopened { .. } => Order::Keep,
        Here::Nothing => match mine {
            None => Order::Nothing,
            Some(mine) if me.ordered_below.is_some_and(|below| mine.replica < below) => {
                Order::Lost(*mine)
            }
            Some(mine) => Order::Create(*mine),
        },
    }
}

/// What is done where the controller's log of this node cannot be read, and nobody else has a copy (R17): the
/// image is that of once, and nothing is created, replaced or set aside by it.
#[must_use]
pub fn without_controller(decided: Order) -> Order {
    match decided {
        Order::Nothing => Order::Nothing,
        Order::Keep | Order::Create(_) | Order::Lost(_) | Order::SetAside { .. } => Order::Keep,
    }
}

/// Whether a damage of the node WAL has been accounted for: no replica that it may have concerned is ordered
/// for this node and lost (R12). `is_lost` says so of a replica that is here.
pub fn is_accounted_for<'a>(
    partitions: impl Iterator<Item = &'a PartitionImage>,
    me: &Me,
    is_lost: impl Fn(u64, u64) -> bool,
) -> bool {
    let Some(below) = me.ordered_below.filter(|below| *below < u64::MAX) else {
        return false;
    };
    let mut partitions = partitions;
    !partitions.any(|partition| {
        partition.replicas.iter().any(|replica| {
            replica.node == me.node
                && replica.directory == me.directory
                && replica.replica < below
                && is_lost(partition.group, replica.replica)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Me = Me {
        node: 1,
        directory: Uuid::from_u128(1),
        ordered_below: None,
    };

    fn partition(replicas: &[(u64, i32)]) -> PartitionImage {
        PartitionImage {
            group: 7,
            first_voters: Vec::new(),
            replicas: replicas
                .iter()
                .map(|(replica, node)| ReplicaImage {
                    replica: *replica,
                    node: *node,
                    directory: Uuid::from_u128(node.unsigned_abs().into()),
                })
                .collect(),
            before: Vec::new(),
        }
    }

    fn unopened(replica: u64, standing: Standing) -> Here {
        Here::Unopened { replica, standing }
    }

    #[test]
    fn what_is_ordered_is_created_once_and_kept_in_whatever_state() {
        let ordered = partition(&[(10, 1), (11, 2)]);
        let Order::Create(created) = order(&ordered, &ME, Here::Nothing) else {
            panic!("it is not created");
        };
        assert_eq!(created.replica, 10);
        let open = Here::Open {
            replica: 10,
            contradicted: false,
        };
        assert_eq!(order(&ordered, &ME, open), Order::Keep);
        for standing in [Standing::Unavailable, Standing::Damaged, Standing::Lost] {
            assert_eq!(order(&ordered, &ME, unopened(10, standing)), Order::Keep);
        }
        assert_eq!(
            order(&partition(&[(11, 2)]), &ME, Here::Nothing),
            Order::Nothing
        );
    }

    #[test]
    fn what_was_replaced_goes_aside_and_a_sound_one_only_when_it_was_let_go() {
        let ordered = partition(&[(12, 1), (11, 2)]);
        let goes = |reason, when_let_go| Order::SetAside {
            replica: 10,
            reason,
            when_let_go,
        };
        let lost = unopened(10, Standing::Lost);
        assert_eq!(order(&ordered, &ME, lost), goes(Reason::Replaced, false));
        let sound = Here::Open {
            replica: 10,
            contradicted: false,
        };
        assert_eq!(order(&ordered, &ME, sound), goes(Reason::Unknown, false));
        let unavailable = unopened(10, Standing::Unavailable);
        let unknown = goes(Reason::Unknown, false);
        assert_eq!(order(&ordered, &ME, unavailable), unknown);
        let elsewhere = partition(&[(12, 3), (11, 2)]);
        let waits = goes(Reason::Replaced, true);
        assert_eq!(order(&elsewhere, &ME, unavailable), waits);
        assert_eq!(order(&elsewhere, &ME, sound), goes(Reason::Replaced, true));
        let contradicted = Here::Open {
            replica: 10,
            contradicted: true,
        };
        assert_eq!(
            order(&ordered, &ME, contradicted),
            goes(Reason::Contradicted, false)
        );
    }

    #[test]
    fn while_a_damage_stands_nothing_of_before_is_created() {
        let ordered = partition(&[(10, 1)]);
        let me = |below| Me {
            ordered_below: Some(below),
            ..ME
        };
        assert!(matches!(
            order(&ordered, &me(u64::MAX), Here::Nothing),
            Order::Lost(_)
        ));
        assert!(matches!(
            order(&ordered, &me(11), Here::Nothing),
            Order::Lost(_)
        ));
        assert!(matches!(
            order(&ordered, &me(10), Here::Nothing),
            Order::Create(_)
        ));
        let accounted =
            |below, lost| is_accounted_for([&ordered].into_iter(), &me(below), |_, _| lost);
        assert!(
            !accounted(u64::MAX, false),
            "the controller was not heard yet"
        );
        assert!(!accounted(11, true));
        assert!(accounted(11, false) && accounted(10, true));
    }
}
