//! What one seed runs: the cluster, its load, and which faults strike how often.
//!
//! Swarm testing: each seed switches whole classes of faults on or off and draws sizes and rates,
//! since a run with every fault at once hides what only shows when one of them is missing.

use crate::changes::ChangesPlan;
use riverrun_storage::REMEMBERED_BATCHES;

use crate::clock::{MS, SECOND};
use crate::rng::Rng;
use crate::story::Story;
use crate::topics::DELETE_EVERY_US;

/// Delays and losses of the network.
#[derive(Debug, Clone, Copy)]
pub struct NetworkPlan {
    /// Shortest and longest ordinary delay.
    pub delay_us: (u64, u64),
    /// Of 1000 frames, how many are lost.
    pub loss_permille: u64,
    /// Of 1000 frames, how many take up to `slow_us` longer.
    pub slow_permille: u64,
    /// The longest extra delay.
    pub slow_us: u64,
    /// Of 1000 frames, how many may overtake others.
    pub reorder_permille: u64,
    /// Of 1000 frames, how many arrive twice.
    pub duplicate_permille: u64,
}

/// How long a disk takes.
#[derive(Debug, Clone, Copy)]
pub struct DiskPlan {
    /// Shortest and longest ordinary flush round.
    pub flush_us: (u64, u64),
    /// Of 1000 rounds, how many take up to `slow_us`.
    pub slow_permille: u64,
    /// The longest slow round.
    pub slow_us: u64,
    /// Of 1000 writes, how many leave the turn and take up to a tenth of `slow_us`.
    pub slow_write_permille: u64,
}

/// A class of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A process is killed; its page cache lives on.
    Kill,
    /// A machine loses power.
    PowerLoss,
    /// All machines lose power at once.
    Blackout,
    /// Power is lost in the middle of some disk call.
    CrashInsideCall,
    /// One direction of a link is cut, or joined.
    CutLink,
    /// A node is cut off, both ways or one way.
    Isolate,
    /// All links are joined.
    Heal,
    /// A disk hangs for a while.
    HangDisk,
    /// A disk has no room for a while.
    FullDisk,
    /// A process stands still for a while.
    Pause,
    /// A write fails once.
    WriteError,
    /// A sync of a partition's file fails once.
    SyncError,
    /// A sync of the node WAL fails once.
    WalSyncError,
    /// Bits of a stopped victim's files flip.
    FlipBits,
    /// A stopped victim's disk is emptied.
    WipeDisk,
    /// A stopped victim's disk is rolled back.
    RollBack,
    /// One partition's directory of a stopped victim is deleted.
    DeleteDirectory,
    /// A replica is replaced by a new one while all is well.
    Move,
    /// Segments at the head of a log are deleted.
    DropHead,
    /// Leadership is handed over.
    Transfer,
    /// Something befalls a stopped victim's own files, in `node/`.
    HurtNode,
    /// Disks refuse to open, create or read files for a while, on any number of nodes.
    Refuse,
}

impl Fault {
    /// Whether it takes away what was durable, or may.
    #[must_use]
    pub fn hurts_the_victim(self) -> bool {
        matches!(
            self,
            Self::FlipBits
                | Self::WipeDisk
                | Self::RollBack
                | Self::DeleteDirectory
                | Self::SyncError
                | Self::WriteError
                | Self::HurtNode
        )
    }

    /// All classes with their weights among each other.
    pub const ALL: [(Self, u64); 20] = [
        (Self::Kill, 10),
        (Self::PowerLoss, 12),
        (Self::Blackout, 3),
        (Self::CrashInsideCall, 8),
        (Self::CutLink, 8),
        (Self::Isolate, 8),
        (Self::Heal, 10),
        (Self::HangDisk, 4),
        (Self::FullDisk, 2),
        (Self::Pause, 5),
        (Self::WriteError, 2),
        (Self::SyncError, 2),
        (Self::WalSyncError, 2),
        (Self::FlipBits, 3),
        (Self::WipeDisk, 2),
        (Self::RollBack, 2),
        (Self::DeleteDirectory, 2),
        (Self::Move, 3),
        (Self::DropHead, 4),
        (Self::Transfer, 4),
    ];
}

/// One data group.
#[derive(Debug, Clone)]
pub struct GroupPlan {
    /// Nodes of its voters.
    pub voters: Vec<usize>,
    /// A node with a learner.
    pub learner: Option<usize>,
    /// `write.caching`.
    pub caching: bool,
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `min.insync.replicas`.
    pub min_insync_replicas: u32,
}

/// One client, which writes to one group.
#[derive(Debug, Clone, Copy)]
pub struct ClientPlan {
    /// The group, by its place in the plan.
    pub group: usize,
    /// Whether it numbers its batches.
    pub idempotent: bool,
    /// Whether it waits for the majority (acks=all) or the leader's write only (acks=1).
    pub acks_all: bool,
    /// Batches under way at once.
    pub window: usize,
    /// Mean time between two batches.
    pub every_us: u64,
    /// Most records in a batch.
    pub max_records: u64,
    /// Bytes of a batch's values together, at least and at most.
    pub batch_bytes: (u64, u64),
    /// After how long an unanswered batch is sent again.
    pub retry_us: u64,
    /// After how long it is given up.
    pub deadline_us: u64,
    /// Whether it does as librdkafka does, with its batches under way on one connection.
    pub pipelined: bool,
}

/// Everything that a seed decides before the first event.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Nodes of the cluster: 1, 3 or 5.
    pub nodes: usize,
    /// How many of them found it together, those with the lowest ids; the others join.
    pub founders: usize,
    /// Within which time they are started.
    pub start_within_us: u64,
    /// Shards of each node.
    pub shards: usize,
    /// The data groups.
    pub groups: Vec<GroupPlan>,
    /// The clients.
    pub clients: Vec<ClientPlan>,
    /// Bytes of the node WAL.
    pub wal_bytes: u64,
    /// Most bytes of entries in a small flush round.
    pub small_round_max_bytes: u64,
    /// The network.
    pub network: NetworkPlan,
    /// The disks.
    pub disk: DiskPlan,
    /// The classes that are switched on, with their weights.
    pub faults: Vec<(Fault, u64)>,
    /// From when on faults strike.
    pub faults_from_us: u64,
    /// Mean time between two faults.
    pub fault_every_us: u64,
    /// The stories that are told.
    pub stories: Vec<Story>,
    /// Mean time between two of them.
    pub story_every_us: u64,
    /// Mean time between two deletions of a topic, where there are any.
    pub delete_every_us: Option<u64>,
    /// Changes that nodes propose, where there are any.
    pub changes: Option<ChangesPlan>,
    /// Mean time between two hand-overs of leadership, where they are for their own sake.
    pub hand_over_every_us: Option<u64>,
    /// Mean time that a stopped process stays down.
    pub down_us: u64,
    /// The node that may lose what it had synced. One a run, so that never a majority does.
    pub victim: usize,
    /// How much of 1000 a node's clock may run too fast or too slow.
    pub skew_permille: u64,
    /// How long faults strike.
    pub fault_us: u64,
    /// How long the cluster has, once they stop, to be whole again.
    pub settle_us: u64,
    /// One tick.
    pub tick_us: u64,
}

/// What a run is asked for from outside.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Simulated seconds with faults.
    pub seconds: u64,
    /// The number of nodes, where it is not to be drawn.
    pub nodes: Option<usize>,
    /// The fixed load by which speed is measured.
    pub bench: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seconds: 30,
            nodes: None,
            bench: false,
        }
    }
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64, options: &Options) -> Self {
        let mut rng = Rng::stream(seed, "plan");
        let drawn = match rng.below(20) {
            0 | 1 => 1,
            2..=15 => 3,
            _ => 5,
        };
        let nodes = options.nodes.unwrap_or(drawn).max(1);
        let count = if options.bench { 10 } else { rng.between(1, 4) };
        let no_caching = rng.coin();
        let groups: Vec<GroupPlan> = (0..count)
            .map(|_| group_plan(&mut rng, nodes, no_caching, options.bench))
            .collect();
        let clients = client_plans(&mut rng, groups.len(), options.bench);
        let tiny_wal = rng.chance(600);
        let mut plan = Self {
            seed,
            nodes,
            founders: nodes,
            start_within_us: 20 * MS,
            shards: if rng.coin() { 1 } else { 2 },
            groups,
            clients,
            wal_bytes: if tiny_wal {
                rng.between(64, 192) << 10
            } else {
                1 << 20
            },
            small_round_max_bytes: match rng.below(4) {
                0 => 0,
                1 => rng.between(200, 1500),
                2 => rng.between(1500, 6000),
                _ => 16 << 10,
            },
            network: network_plan(&mut rng),
            disk: disk_plan(&mut rng),
            faults: Vec::new(),
            faults_from_us: 1500 * MS,
            fault_every_us: rng.between(100, 3000) * MS,
            stories: Vec::new(),
            story_every_us: 0,
            delete_every_us: None,
            changes: None,
            hand_over_every_us: None,
            down_us: rng.between(50, 3000) * MS,
            victim: rng.index(nodes),
            skew_permille: if rng.coin() { rng.between(0, 200) } else { 0 },
            fault_us: options.seconds * SECOND,
            settle_us: 60 * SECOND,
            tick_us: 50 * MS,
        };
        plan.faults = fault_classes(&mut rng, nodes, options.bench);
        // A stream of their own: what else a seed decides does not hang on them.
        let mut stories = Rng::stream(seed, "stories");
        if stories.chance(450) && !options.bench {
            // Where anything durable may be lost, few groups may acknowledge from memory.
            plan.faults.retain(|(fault, _)| !fault.hurts_the_victim());
        }
        let mut refusals = Rng::stream(seed, "refusals");
        if refusals.chance(250) && !plan.faults.is_empty() && !options.bench {
            plan.faults.push((Fault::Refuse, refusals.between(2, 8)));
        }
        let mut own_files = Rng::stream(seed, "own files");
        let loses = plan
            .faults
            .iter()
            .any(|(fault, _)| fault.hurts_the_victim());
        if loses && own_files.chance(300) {
            plan.faults.push((Fault::HurtNode, own_files.between(2, 8)));
        }
        plan.spare_the_victim();
        if !plan.faults.is_empty() && !options.bench {
            plan.stories = Story::draw(&mut stories, &plan);
            plan.story_every_us = stories.between(1500, 6000) * MS;
            let losses = Story::draw_losses(&mut Rng::stream(seed, "losses"), &plan);
            plan.stories.extend(losses);
        }
        let mut topics = Rng::stream(seed, "topics");
        if topics.chance(400) && !options.bench {
            let (least, most) = DELETE_EVERY_US;
            plan.delete_every_us = Some(topics.between(least, most));
        }
        if !options.bench {
            plan.changes = ChangesPlan::draw(&mut Rng::stream(seed, "changes"));
            plan.found_with(&mut Rng::stream(seed, "founding"));
        }
        if !options.bench {
            plan.pipeline(&mut Rng::stream(seed, "pipelines"));
        }
        if options.bench {
            plan.wal_bytes = 1 << 20;
            plan.small_round_max_bytes = 16 << 10;
            plan.fault_every_us = SECOND;
        }
        plan
    }

    /// Which clients do as librdkafka does, and whether leadership is handed over for their sake. Where
    /// acknowledged events may be lost within the promise, a gap is nobody's fault.
    fn pipeline(&mut self, rng: &mut Rng) {
        if !rng.chance(400) {
            return;
        }
        for client in &mut self.clients {
            let caching = self.groups.get(client.group).is_some_and(|g| g.caching);
            if client.idempotent && !caching && rng.chance(800) {
                client.pipelined = true;
                client.window = REMEMBERED_BATCHES;
                client.every_us = rng.between(2, 60) * MS;
            }
        }
        if self.nodes > 1 && rng.chance(600) {
            self.hand_over_every_us = Some(rng.between(100, 2000) * MS);
        }
    }

    /// Who founds the cluster, and what strikes it while it is founded.
    fn found_with(&mut self, rng: &mut Rng) {
        self.founders = match (self.nodes, rng.below(10)) {
            (1, _) => 1,
            (_, 0..=4) => self.nodes,
            (_, 5 | 6) => 1,
            (3, _) | (_, 7) => 2,
            _ => 3,
        };
        // Until one or two founders have grown to three, each of them is needed.
        if self.founders < 3 && self.victim < self.founders && self.endangers(self.victim) {
            self.founders = self.nodes;
        }
        if rng.chance(300) {
            self.start_within_us = rng.between(100, 3000) * MS;
        }
        if rng.coin() {
            self.faults_from_us = rng.between(0, 1500) * MS;
        }
    }

    /// A group of one or two voters cannot lose one of them: none of those is the victim's.
    fn spare_the_victim(&mut self) {
        let strikes = self
            .faults
            .iter()
            .any(|(fault, _)| fault.hurts_the_victim());
        if !strikes || self.nodes == 1 {
            return;
        }
        let (nodes, victim) = (self.nodes, self.victim);
        // Where a majority lost its memory, a caching group waits for every voter (R2): none of them
        // may be gone for good.
        for group in self
            .groups
            .iter_mut()
            .filter(|group| group.voters.contains(&victim))
        {
            group.caching = false;
        }
        for group in self
            .groups
            .iter_mut()
            .filter(|group| group.voters.len() <= 2)
        {
            let mut others = (0..nodes).filter(|node| *node != victim);
            let spare = others.find(|node| !group.voters.contains(node));
            for voter in &mut group.voters {
                if *voter == victim
                    && let Some(spare) = spare
                {
                    *voter = spare;
                }
            }
            if group.learner.is_some() {
                group.learner = Some(victim);
            }
        }
    }

    /// Whether something durable may be lost on a node.
    #[must_use]
    pub fn endangers(&self, node: usize) -> bool {
        node == self.victim
            && self
                .faults
                .iter()
                .any(|(fault, _)| fault.hurts_the_victim())
    }

    /// Whether a class is switched on.
    #[must_use]
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.iter().any(|(on, _)| *on == fault)
    }
}

fn group_plan(rng: &mut Rng, nodes: usize, no_caching: bool, bench: bool) -> GroupPlan {
    let mut order: Vec<usize> = (0..nodes).collect();
    for at in (1..nodes).rev() {
        order.swap(at, rng.index(at + 1));
    }
    let voters = match (nodes, rng.below(10)) {
        (1, _) => 1,
        (_, 0 | 1) if !bench => 1,
        (_, 2) if !bench => 2,
        (5.., 3..=6) => 5,
        _ => 3,
    };
    let alone_with_learner = voters == 1 && nodes > 1;
    let learner = if alone_with_learner {
        order.get(1).copied()
    } else {
        None
    };
    order.truncate(voters);
    GroupPlan {
        voters: order,
        learner,
        caching: !no_caching && rng.coin(),
        segment_bytes: if bench {
            1 << 20
        } else {
            rng.between(2, 24) << 10
        },
        min_insync_replicas: if rng.chance(100) {
            2.min(u32::try_from(voters).unwrap_or(1))
        } else {
            1
        },
    }
}

fn client_plans(rng: &mut Rng, groups: usize, bench: bool) -> Vec<ClientPlan> {
    let mut clients = Vec::new();
    for group in 0..groups {
        let count = if bench { 1 } else { rng.between(1, 3) };
        for _ in 0..count {
            let idempotent = bench || rng.chance(650);
            let small = rng.coin();
            clients.push(ClientPlan {
                group,
                idempotent,
                acks_all: bench || idempotent || rng.chance(700),
                window: if idempotent {
                    1 + rng.index(5)
                } else {
                    1 + rng.index(3)
                },
                every_us: if bench {
                    100 * MS
                } else {
                    rng.between(20, 400) * MS
                },
                max_records: rng.between(1, 6),
                batch_bytes: if bench {
                    (1024, 1024)
                } else if small {
                    (8, 300)
                } else {
                    (100, 4000)
                },
                retry_us: rng.between(200, 1500) * MS,
                deadline_us: rng.between(2, 20) * SECOND,
                pipelined: false,
            });
        }
    }
    clients
}

fn network_plan(rng: &mut Rng) -> NetworkPlan {
    let near = rng.coin();
    NetworkPlan {
        delay_us: if near { (50, 500) } else { (500, 20 * MS) },
        loss_permille: if rng.coin() { rng.between(1, 80) } else { 0 },
        slow_permille: if rng.coin() { rng.between(1, 100) } else { 0 },
        slow_us: rng.between(10, 1500) * MS,
        reorder_permille: if rng.coin() { rng.between(1, 200) } else { 0 },
        duplicate_permille: if rng.coin() { rng.between(1, 100) } else { 0 },
    }
}

fn disk_plan(rng: &mut Rng) -> DiskPlan {
    let fast = rng.coin();
    DiskPlan {
        flush_us: if fast { (100, 1000) } else { (MS, 30 * MS) },
        slow_permille: if rng.coin() { rng.between(1, 100) } else { 0 },
        slow_us: rng.between(20, 1500) * MS,
        slow_write_permille: if rng.chance(300) {
            rng.between(1, 100)
        } else {
            0
        },
    }
}

fn fault_classes(rng: &mut Rng, nodes: usize, bench: bool) -> Vec<(Fault, u64)> {
    let calm = !bench && rng.chance(30);
    let share = if bench { 1000 } else { rng.between(200, 900) };
    Fault::ALL
        .into_iter()
        .filter(|(fault, _)| {
            let on = rng.chance(share);
            let needs_others = matches!(
                fault,
                Fault::CutLink
                    | Fault::Isolate
                    | Fault::FlipBits
                    | Fault::WipeDisk
                    | Fault::RollBack
                    | Fault::DeleteDirectory
                    | Fault::SyncError
                    | Fault::WriteError
                    | Fault::Move
                    | Fault::Transfer
            );
            on && !calm && (nodes > 1 || !needs_others)
        })
        .collect()
}
