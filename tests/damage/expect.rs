//! What may come of a cell.

use super::cells::{Cell, Damage, Owner, Replicas, Which};

/// What came of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// There is nothing to strike, or the bytes would be the same.
    Nothing,
    /// All is served.
    Whole,
    /// The bad range is refused, all before and behind it is served.
    Range,
    /// The partition is refused and named, the others serve.
    Partition,
    /// The orders of group 0 are refused, the partitions serve.
    Orders,
    /// The node does not start, and says why.
    Node,
    /// All replicas are whole again, by themselves.
    Healed,
    /// The node was set aside by its operator, and joined anew.
    SetAside,
    /// Anything else.
    Wrong,
}

impl Outcome {
    /// How it is written in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "-",
            Self::Whole => "whole",
            Self::Range => "range",
            Self::Partition => "partition",
            Self::Orders => "orders",
            Self::Node => "node",
            Self::Healed => "healed",
            Self::SetAside => "set aside",
            Self::Wrong => "WRONG",
        }
    }
}

/// Where a cell is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum World {
    /// Production code on a simulated disk.
    Simulated,
    /// Processes.
    Real,
}

/// What may come of a cell. What a replica that is not whole still serves has to be right in any case.
pub(crate) fn allowed(cell: &Cell, world: World) -> &'static [Outcome] {
    use Outcome::{Healed, Node, Orders, Partition, Range, SetAside, Whole};
    match (cell.replicas, cell.file.owner) {
        (Replicas::Three, Owner::Node | Owner::All) => &[Healed, SetAside],
        // A simulated node whose replica of group 0 cannot go on begins anew with an empty directory.
        (Replicas::Three, Owner::GroupZero) if world == World::Simulated => &[Healed, SetAside],
        (Replicas::Three, _) => &[Healed],
        (Replicas::One, Owner::Node) if cell.file.ends == "wal" => {
            &[Whole, Range, Partition, Orders, Node]
        }
        (Replicas::One, Owner::Node | Owner::All) => &[Whole, Node],
        (Replicas::One, _) if cell.file.derived && cell.damage != Damage::Swapped => &[Whole],
        // Two files are struck, of group 0 and of a partition.
        (Replicas::One, Owner::GroupZero) if cell.damage == Damage::Swapped => {
            &[Whole, Range, Partition, Orders]
        }
        (Replicas::One, Owner::GroupZero) => &[Whole, Orders],
        (Replicas::One, Owner::Partition) if cell.file.which == Which::Directory => {
            &[Whole, Partition]
        }
        (Replicas::One, Owner::Partition) => &[Whole, Range, Partition],
    }
}

/// Why nothing is promised of a cell.
pub(crate) fn not_promised(cell: &Cell) -> Option<&'static str> {
    match (cell.replicas, cell.file.owner, cell.damage) {
        (Replicas::One, Owner::All, Damage::OlderCopy) => {
            Some("nothing tells an older copy of a whole directory from the original")
        }
        (Replicas::One, Owner::All, Damage::Gone) => Some("an empty directory is a new node's"),
        _ => None,
    }
}

/// Cells that are known to come out wrong.
pub(crate) struct KnownOpen {
    file: &'static str,
    /// None: every one.
    damage: Option<Damage>,
    replicas: Replicas,
    world: World,
    /// What is wrong, and where.
    pub(crate) why: &'static str,
}

const fn ends_with_group_zero(file: &'static str) -> KnownOpen {
    KnownOpen {
        file,
        damage: None,
        replicas: Replicas::One,
        world: World::Real,
        why: "a small cluster has no image of group 0's state yet, and where the only copy of its log cannot be \
              read nobody knows how the topics are called: the start ends (server/src/cluster/founding.rs)",
    }
}

const KNOWN_OPEN: [KnownOpen; 5] = [
    ends_with_group_zero("group 0 .log"),
    ends_with_group_zero("group 0 .raft"),
    ends_with_group_zero("group 0 .log, no image"),
    ends_with_group_zero("group 0 .raft, no image"),
    ends_with_group_zero("group 0 directory"),
];

/// Whether a cell is known to come out wrong. A cell that is listed and comes out right is a failure too.
pub(crate) fn known_open(cell: &Cell, world: World) -> Option<&'static KnownOpen> {
    KNOWN_OPEN.iter().find(|open| {
        open.file == cell.file.name
            && open.damage.is_none_or(|damage| damage == cell.damage)
            && open.replicas == cell.replicas
            && open.world == world
    })
}
