//! Faults that follow each other on purpose.
//!
//! Some executions of `docs/safety.md` need three or four things to go wrong in one order, within
//! milliseconds; faults that strike by themselves line up like that once in a million seeds. A story
//! strings them together, on a group that fits and at a moment that the run itself gives: it waits
//! for something that a node does, and strikes shortly after. How long shortly is, is drawn; every
//! step is a fault that the nemesis might as well have chosen.

use riverrun_replication::conf::Change;
use riverrun_replication::shard::Input;
use riverrun_replication::{Role, Ticket};

use crate::clock::{MS, SECOND};
use crate::losses::Held;
use crate::plan::{GroupPlan, Plan};
use crate::rng::Rng;
use crate::world::{Event, OPERATOR, World};

/// A kind of story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Story {
    /// A membership change is asked for, and power is lost where it was just written: data behind it
    /// may reach the disk before it (I4).
    ChangeAndPowerLoss,
    /// A leader that is cut off takes a change and data behind it; it is heard again, cuts both, and
    /// loses power over that (W5).
    ChangeIsCut,
    /// A leader is cut off, another one is elected, and a follower loses power over the first rounds
    /// of the new term (W1).
    PowerLossAfterElection,
    /// Of a group that acknowledges from memory one replica lags, one forgets, and the leader starts
    /// again and is cut off once it has spoken to them (R1).
    ForgetfulFollower,
    /// A single voter with a disk that hangs is asked for a change the moment that it leads, and
    /// loses power (L3).
    AloneAndSlow,
    /// A replica lags when another one is lost: the others are no majority without that one (R9).
    LostWhileOneLags,
    /// A replica moves, and its successor is not filled, when another one is lost (R9).
    LostWhileOneMoves,
    /// The order for a replica that was lost comes when another one was replaced meanwhile (R9).
    OrderIsOvertaken,
    /// The WAL loses the creation of a replica that has voted and has nothing in its log (R12).
    CreationIsLost,
    /// A replica is lost with its record in the WAL, and its node dies when it hears of the successor (R12).
    AwayWhenReplaced,
    /// Bits flip in the records of a batch on one replica, or of one on each of two (R6).
    MarredBatch,
}

impl Story {
    /// Those that need no loss.
    pub const ALL: [Self; 5] = [
        Self::ChangeAndPowerLoss,
        Self::ChangeIsCut,
        Self::PowerLossAfterElection,
        Self::ForgetfulFollower,
        Self::AloneAndSlow,
    ];

    /// Those of a replica that is lost.
    pub const OF_LOSSES: [Self; 6] = [
        Self::LostWhileOneLags,
        Self::LostWhileOneMoves,
        Self::OrderIsOvertaken,
        Self::CreationIsLost,
        Self::AwayWhenReplaced,
        Self::MarredBatch,
    ];

    /// Whether it changes what the node's own files say.
    #[must_use]
    pub fn hurts_node_files(self) -> bool {
        matches!(self, Self::CreationIsLost | Self::AwayWhenReplaced)
    }

    /// Whether it can be told of a group.
    fn fits(self, plan: &Plan, group: &GroupPlan) -> bool {
        let loses_one = group.voters.len() == 3
            && !group.caching
            && group.voters.contains(&plan.victim)
            && plan.endangers(plan.victim);
        match self {
            Self::LostWhileOneLags
            | Self::CreationIsLost
            | Self::AwayWhenReplaced
            | Self::MarredBatch => loses_one,
            Self::LostWhileOneMoves | Self::OrderIsOvertaken => loses_one && plan.nodes > 3,
            Self::ChangeAndPowerLoss => true,
            Self::ChangeIsCut | Self::PowerLossAfterElection => group.voters.len() >= 3,
            Self::ForgetfulFollower => group.voters.len() == 3 && group.caching,
            Self::AloneAndSlow => group.voters.len() == 1 && group.learner.is_some(),
        }
    }

    /// Draws which stories a seed tells, of those that one of its groups fits.
    #[must_use]
    pub fn draw(rng: &mut Rng, plan: &Plan) -> Vec<Self> {
        let tells = rng.chance(600);
        let fits = |story: Self| plan.groups.iter().any(|group| story.fits(plan, group));
        Self::ALL
            .into_iter()
            .filter(|story| rng.coin() && tells && fits(*story))
            .collect()
    }

    /// The same of those of losses.
    #[must_use]
    pub fn draw_losses(rng: &mut Rng, plan: &Plan) -> Vec<Self> {
        let tells = rng.chance(250);
        let fits = |story: Self| plan.groups.iter().any(|group| story.fits(plan, group));
        Self::OF_LOSSES
            .into_iter()
            .filter(|story| rng.coin() && tells && fits(*story))
            .collect()
    }
}

/// One step of a story, on a node and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what its name says")]
pub enum Step {
    Begin,
    LosePower,
    CutOff,
    Rejoin,
    AskForChange,
    KillAndStart,
    LosePowerAndStart,
    LoseReplica,
    LoseCreation,
    MoveTo,
}

/// What a story waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// A node writes a membership change to its files.
    WritesChange,
    /// A node has cut its files.
    Cuts,
    /// A node begins to lead.
    Leads,
    /// A leader has committed what is not durable with it yet.
    CommitsFromMemory,
}

#[derive(Debug, Clone)]
struct Wait {
    deed: Deed,
    /// Whose deed, where not anybody's.
    node: Option<usize>,
    group: u64,
    from_us: u64,
    until_us: u64,
    after_us: (u64, u64),
    /// What follows, and on which node.
    steps: Vec<(Step, usize)>,
}

/// The stories of a run.
#[derive(Debug)]
pub struct Stories {
    pub(crate) rng: Rng,
    pub(crate) held: Option<Held>,
    /// A node that is killed when it hears that its replica of a group has a successor.
    pub(crate) kills_when_replaced: Option<(usize, u64)>,
    waits: Vec<Wait>,
    asked: u64,
}

/// Stands for the node that did what was waited for.
const DOER: usize = usize::MAX;
/// A replica id that nobody ever has: to remove it is a change that changes nothing.
const NOBODY: u64 = 1 << 50;

impl Stories {
    /// Those of a plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            rng: Rng::stream(plan.seed, "story"),
            held: None,
            kills_when_replaced: None,
            waits: Vec::new(),
            asked: 0,
        }
    }

    fn wait(&mut self, wait: Wait) {
        // One that nobody met makes room.
        self.waits.retain(|old| old.deed != wait.deed);
        self.waits.push(wait);
    }
}

impl World {
    /// A step of a story is due.
    pub fn tell(&mut self, step: Step, node: usize, group: u64) {
        if self.calm {
            return;
        }
        tracing::info!(now_us = self.clock.now_us(), ?step, node, group, "story");
        self.trace.note(&[step as u64, node as u64, group]);
        match step {
            Step::Begin => self.begin_story(),
            Step::LosePower => {
                if self.process(node).is_some() {
                    self.lose_power(node);
                }
            }
            Step::CutOff => {
                self.summary.network_cuts += 1;
                self.network.isolate(node, true, true);
            }
            Step::Rejoin => self.network.isolate(node, false, false),
            Step::AskForChange => self.ask_for_change(node, group),
            Step::KillAndStart => {
                if self.process(node).is_some() {
                    self.kill(node);
                }
                self.start_soon(node);
            }
            Step::LosePowerAndStart => {
                self.lose_power(node);
                self.start_soon(node);
            }
            Step::LoseReplica => self.lose_replica(node, group),
            Step::LoseCreation => self.lose_creation(node, group),
            Step::MoveTo => self.move_to(node, group),
        }
    }

    /// A node did something that a story may wait for.
    pub fn did(&mut self, deed: Deed, node: usize, group: u64) {
        if self.stories.waits.is_empty() {
            return;
        }
        let now = self.clock.now_us();
        let found = self.stories.waits.iter().position(|wait| {
            wait.deed == deed
                && wait.from_us <= now
                && wait.node.is_none_or(|wanted| wanted == node)
                && wait.group == group
        });
        let Some(at) = found else { return };
        let wait = self.stories.waits.swap_remove(at);
        if now <= wait.until_us {
            let (least, most) = wait.after_us;
            let after_us = self.stories.rng.between(least, most);
            for (step, on) in wait.steps {
                let on = if on == DOER { node } else { on };
                self.step_after(after_us, step, on, group);
            }
        }
    }

    pub(crate) fn step_after(&mut self, after_us: u64, step: Step, node: usize, group: u64) {
        self.clock
            .after(after_us, Event::Story { step, node, group });
    }

    pub(crate) fn start_soon(&mut self, node: usize) {
        let after_us = self.stories.rng.between(5, 100) * MS;
        self.clock.after(after_us, Event::Start { node });
    }

    fn ask_for_change(&mut self, node: usize, group: u64) {
        let leads = self
            .process(node)
            .and_then(|process| process.node.handle(group))
            .is_some_and(|handle| handle.published().role == Role::Leader);
        if !leads {
            return;
        }
        self.stories.asked += 1;
        let ticket = Ticket {
            connection: OPERATOR,
            request: self.stories.asked,
            slot: 1,
        };
        let changes = vec![Change::Remove(NOBODY)];
        let change = Input::Change {
            group,
            ticket,
            changes,
        };
        self.inputs(node, vec![(group, change)]);
    }

    fn begin_story(&mut self) {
        let again_us = self.stories.rng.around(self.plan.story_every_us);
        self.step_after(again_us, Step::Begin, 0, 0);
        let Some(story) = self.stories.rng.pick(&self.plan.stories) else {
            return;
        };
        let fitting: Vec<(u64, usize)> = self
            .groups
            .iter()
            .filter(|(_, place)| {
                let group = self.plan.groups.get(**place);
                group.is_some_and(|group| story.fits(&self.plan, group))
            })
            .filter_map(|(group, _)| Some((*group, self.leader_of(*group)?)))
            .collect();
        let Some((group, leader)) = self.stories.rng.pick(&fitting) else {
            return;
        };
        tracing::info!(now_us = self.clock.now_us(), ?story, group, leader, "story");
        match story {
            Story::ChangeAndPowerLoss => self.change_and_power_loss(group, leader),
            Story::ChangeIsCut => self.change_is_cut(group, leader),
            Story::PowerLossAfterElection => self.power_loss_after_election(group, leader),
            Story::ForgetfulFollower => self.forgetful_follower(group, leader),
            Story::AloneAndSlow => self.alone_and_slow(group, leader),
            Story::LostWhileOneLags => self.lost_while_one_lags(group, leader),
            Story::LostWhileOneMoves => self.lost_while_one_moves(group, leader),
            Story::OrderIsOvertaken => self.order_is_overtaken(group, leader),
            // It waits for a vote in a group that is new.
            Story::CreationIsLost => {}
            Story::AwayWhenReplaced => self.away_when_replaced(group, leader),
            Story::MarredBatch => self.mar_batches(group, leader),
        }
    }

    pub(crate) fn hang(&mut self, node: usize, hang_us: u64) {
        self.summary.disks_hung += 1;
        let until_us = self.until(hang_us);
        if let Some(host) = self.hosts.get_mut(node) {
            host.hung_until_us = until_us;
        }
    }

    pub(crate) fn until(&self, after_us: u64) -> u64 {
        self.clock.now_us() + after_us
    }

    /// Nodes with a replica of a group other than the leader's, in a drawn order.
    pub(crate) fn others(&mut self, group: u64, leader: usize) -> Vec<usize> {
        let mut others: Vec<usize> = (0..self.plan.nodes)
            .filter(|node| {
                *node != leader
                    && self
                        .process(*node)
                        .is_some_and(|process| process.node.handle(group).is_some())
            })
            .collect();
        for at in (1..others.len()).rev() {
            let with = self.stories.rng.index(at + 1);
            others.swap(at, with);
        }
        others
    }

    fn change_and_power_loss(&mut self, group: u64, leader: usize) {
        let flush_us = self.plan.disk.flush_us.1;
        // One that was away gets the change and what lies behind it in one message.
        if let Some(away) = self.others(group, leader).first().copied()
            && self.stories.rng.coin()
        {
            self.tell(Step::CutOff, away, group);
            let back_us = self.stories.rng.between(200, 1500) * MS;
            self.step_after(back_us, Step::Rejoin, away, group);
            self.stories.wait(Wait {
                deed: Deed::WritesChange,
                node: Some(away),
                group,
                from_us: 0,
                until_us: self.until(3 * SECOND),
                after_us: (0, flush_us),
                steps: vec![(Step::LosePower, DOER)],
            });
            self.step_after(100 * MS, Step::AskForChange, leader, group);
            return;
        }
        self.stories.wait(Wait {
            deed: Deed::WritesChange,
            node: None,
            group,
            from_us: 0,
            until_us: self.until(SECOND),
            after_us: (0, flush_us),
            steps: vec![(Step::LosePower, DOER)],
        });
        self.tell(Step::AskForChange, leader, group);
    }

    fn change_is_cut(&mut self, group: u64, leader: usize) {
        self.tell(Step::CutOff, leader, group);
        self.tell(Step::AskForChange, leader, group);
        let back_us = self.stories.rng.between(800, 3000) * MS;
        self.step_after(back_us, Step::Rejoin, leader, group);
        self.stories.wait(Wait {
            deed: Deed::Cuts,
            node: Some(leader),
            group,
            from_us: 0,
            until_us: self.until(back_us + 3 * SECOND),
            after_us: (0, 3 * self.plan.disk.flush_us.1),
            steps: vec![(Step::LosePower, DOER)],
        });
    }

    fn power_loss_after_election(&mut self, group: u64, leader: usize) {
        let Some(follower) = self.others(group, leader).first().copied() else {
            return;
        };
        self.tell(Step::CutOff, leader, group);
        let back_us = self.stories.rng.between(1000, 4000) * MS;
        self.step_after(back_us, Step::Rejoin, leader, group);
        let (delay_us, flush_us) = (self.plan.network.delay_us.1, self.plan.disk.flush_us.1);
        self.stories.wait(Wait {
            deed: Deed::Leads,
            node: None,
            group,
            from_us: 0,
            until_us: self.until(4 * SECOND),
            after_us: (0, 4 * (delay_us + flush_us) + 20 * MS),
            steps: vec![(Step::LosePower, follower)],
        });
    }

    fn forgetful_follower(&mut self, group: u64, leader: usize) {
        let others = self.others(group, leader);
        let [lagging, forgetful, ..] = others.as_slice() else {
            return;
        };
        self.tell(Step::CutOff, *lagging, group);
        // What goes on from memory alone is lost with it, where the power fails before the next round.
        let lag_us = self.stories.rng.between(100, 1500) * MS;
        self.stories.wait(Wait {
            deed: Deed::CommitsFromMemory,
            node: Some(leader),
            group,
            from_us: self.until(lag_us),
            until_us: self.until(lag_us + SECOND),
            after_us: (0, 5 * MS),
            steps: vec![
                (Step::LosePowerAndStart, *forgetful),
                (Step::KillAndStart, leader),
                (Step::Rejoin, *lagging),
            ],
        });
        let round_trip_us = 2 * self.plan.network.delay_us.1;
        self.stories.wait(Wait {
            deed: Deed::Leads,
            node: Some(leader),
            group,
            from_us: 0,
            until_us: self.until(lag_us + 4 * SECOND),
            after_us: (round_trip_us / 2, 2 * round_trip_us + 50 * MS),
            steps: vec![(Step::CutOff, DOER)],
        });
        let back_us = self.stories.rng.between(4000, 8000) * MS;
        for node in [leader, *lagging] {
            self.step_after(lag_us + back_us, Step::Rejoin, node, group);
        }
    }

    fn alone_and_slow(&mut self, group: u64, leader: usize) {
        let hang_us = self.stories.rng.between(300, 2000) * MS;
        self.tell(Step::KillAndStart, leader, group);
        self.hang(leader, hang_us);
        let until_us = self.until(hang_us);
        self.stories.wait(Wait {
            deed: Deed::Leads,
            node: Some(leader),
            group,
            from_us: 0,
            until_us,
            after_us: (0, 0),
            steps: vec![(Step::AskForChange, DOER)],
        });
        let after_us = self.stories.rng.between(100 * MS, hang_us);
        self.step_after(after_us, Step::LosePowerAndStart, leader, group);
    }
}
