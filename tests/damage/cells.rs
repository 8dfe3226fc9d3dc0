//! What is struck, and how.

use std::fmt;

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The node's own.
    Node,
    /// The controller's group.
    GroupZero,
    /// One partition's; there is another one beside it.
    Partition,
    /// The whole data directory.
    All,
}

/// Which one of several whose names end alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Of a segment that was ended.
    Sealed,
    /// The newest.
    Newest,
    /// The directory itself.
    Directory,
}

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// What the table calls it.
    pub(crate) name: &'static str,
    /// Whose it is.
    pub(crate) owner: Owner,
    /// How its name ends.
    pub(crate) ends: &'static str,
    /// Which of those.
    pub(crate) which: Which,
    /// What is in it follows from other files: it is made again from them.
    pub(crate) derived: bool,
}

const fn kind(name: &'static str, owner: Owner, ends: &'static str, which: Which) -> Kind {
    Kind {
        name,
        owner,
        ends,
        which,
        derived: false,
    }
}

const fn derived(name: &'static str, owner: Owner, ends: &'static str, which: Which) -> Kind {
    Kind {
        derived: true,
        ..kind(name, owner, ends, which)
    }
}

use Owner::{All, GroupZero, Node, Partition};
use Which::{Directory, Newest, Sealed};

/// Every kind of file that a data directory has. `node/lock` is empty and means nothing; a side file
/// (`node/fenced-*`) is there only after a failed sync.
pub(crate) const KINDS: [Kind; 32] = [
    kind("node/identity", Node, "identity", Newest),
    kind("node/cluster", Node, "cluster", Newest),
    kind("node/wal", Node, "wal", Newest),
    kind("node/wal of a killed node", Node, "wal", Newest),
    kind("node/", Node, "", Directory),
    kind("group 0 .log", GroupZero, ".log", Newest),
    kind("group 0 .raft", GroupZero, ".raft", Newest),
    kind("group 0 .aux", GroupZero, ".aux", Newest),
    derived("group 0 .index", GroupZero, ".index", Newest),
    derived("group 0 .timeindex", GroupZero, ".timeindex", Newest),
    derived("group 0 .checkpoint", GroupZero, ".checkpoint", Newest),
    kind("group 0 .log, no image", GroupZero, ".log", Newest),
    kind("group 0 .raft, no image", GroupZero, ".raft", Newest),
    kind("group 0 directory", GroupZero, "", Directory),
    kind("sealed .log", Partition, ".log", Sealed),
    kind("sealed .raft", Partition, ".raft", Sealed),
    kind("sealed .aux", Partition, ".aux", Sealed),
    derived("sealed .index", Partition, ".index", Sealed),
    derived("sealed .timeindex", Partition, ".timeindex", Sealed),
    derived("sealed .snapshot", Partition, ".snapshot", Sealed),
    kind("active .log", Partition, ".log", Newest),
    kind("active .raft", Partition, ".raft", Newest),
    kind("active .aux", Partition, ".aux", Newest),
    derived("active .index", Partition, ".index", Newest),
    derived("active .timeindex", Partition, ".timeindex", Newest),
    derived("newest .snapshot", Partition, ".snapshot", Newest),
    kind("log-start", Partition, "log-start", Newest),
    derived(
        "leader-epoch-checkpoint",
        Partition,
        "leader-epoch-checkpoint",
        Newest,
    ),
    derived(
        "partition.metadata",
        Partition,
        "partition.metadata",
        Newest,
    ),
    kind("partition directory", Partition, "", Directory),
    derived(
        "group 0 leader-epoch-checkpoint",
        GroupZero,
        "leader-epoch-checkpoint",
        Newest,
    ),
    kind("data directory", All, "", Directory),
];

/// How bytes at rest go bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// One bit flips.
    Bit,
    /// A page is zeros.
    ZeroedPage,
    /// The end is missing.
    CutShort,
    /// An older copy was put back.
    OlderCopy,
    /// It was exchanged with another one.
    Swapped,
    /// It is not there.
    Gone,
}

impl Damage {
    pub(crate) const ALL: [Self; 6] = [
        Self::Bit,
        Self::ZeroedPage,
        Self::CutShort,
        Self::OlderCopy,
        Self::Swapped,
        Self::Gone,
    ];

    /// How it is written in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bit => "a bit",
            Self::ZeroedPage => "a zeroed page",
            Self::CutShort => "cut short",
            Self::OlderCopy => "an older copy",
            Self::Swapped => "swapped",
            Self::Gone => "gone",
        }
    }

    fn strikes(self, kind: &Kind) -> bool {
        match (kind.owner, kind.which) {
            (All, _) => matches!(self, Self::OlderCopy | Self::Gone),
            (Partition, Directory) => {
                matches!(self, Self::OlderCopy | Self::Swapped | Self::Gone)
            }
            (_, Directory) => matches!(self, Self::OlderCopy | Self::Gone),
            _ => true,
        }
    }

    /// How many places of a file are struck in turn: its head, its middle, its end; what it is exchanged
    /// with: the other partition's, another segment's; copies: an old one, a recent one.
    pub(crate) const fn spots(self) -> u32 {
        match self {
            Self::Bit | Self::ZeroedPage | Self::CutShort => 3,
            Self::Swapped | Self::OlderCopy => 2,
            Self::Gone => 1,
        }
    }
}

/// How many replicas there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replicas {
    /// The damaged one is the only one.
    One,
    /// It is one of three.
    Three,
}

impl Kind {
    /// Whether the node is killed and not stopped: then its WAL holds what was on its way to the logs.
    pub(crate) fn is_of_killed(&self) -> bool {
        self.name.ends_with("killed node")
    }

    /// Whether the images of the cluster's state are taken away first: then group 0's log is all that there is.
    pub(crate) fn is_without_image(&self) -> bool {
        self.name.ends_with("no image")
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "the only replica",
            Self::Three => "one of three",
        })
    }
}

/// One cell of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    /// What is struck.
    pub(crate) file: &'static Kind,
    /// How.
    pub(crate) damage: Damage,
    /// Of how many replicas it is.
    pub(crate) replicas: Replicas,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, damage) = (self.file.name, self.damage.name());
        write!(f, "{file}, {damage}, {}", self.replicas)
    }
}

impl Cell {
    /// How many places of the file are struck in turn: more where `RIVERRUN_DAMAGE_PLACES` says so. A copy of a
    /// whole directory is an old one: of the last life that others saw nothing is promised.
    pub(crate) fn places(&self) -> u32 {
        let spots = self.damage.spots();
        let asked = std::env::var("RIVERRUN_DAMAGE_PLACES").ok();
        let asked = asked.and_then(|asked| asked.parse().ok());
        match (self.file.owner, self.damage, asked) {
            (All, Damage::OlderCopy, _) => 1,
            (_, _, Some(places)) if spots == 3 => places,
            _ => spots,
        }
    }
}

/// Every cell.
pub(crate) fn cells(replicas: Replicas) -> impl Iterator<Item = Cell> {
    let files = KINDS.iter();
    files.flat_map(move |file| {
        let damages = Damage::ALL.into_iter();
        let strike = damages.filter(|damage| damage.strikes(file));
        strike.map(move |damage| Cell {
            file,
            damage,
            replicas,
        })
    })
}
