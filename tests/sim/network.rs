//! The network between nodes: delay, loss, reordering, duplication, one-way cuts.

use crate::plan::NetworkPlan;
use crate::rng::Rng;

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives after this time, perhaps a second time after that one.
    Arrives {
        /// After how long.
        delay_us: u64,
        /// The copy.
        again_us: Option<u64>,
    },
    /// It is lost, and its sender learns of it after this time.
    Lost {
        /// After how long.
        noticed_us: u64,
    },
}

#[derive(Debug, Clone, Copy, Default)]
struct Link {
    cut: bool,
    /// The earliest time at which the next frame may arrive, where frames keep their order.
    free_at_us: u64,
}

/// Every link of the cluster, each way by itself.
#[derive(Debug)]
pub struct Network {
    plan: NetworkPlan,
    rng: Rng,
    nodes: usize,
    links: Vec<Link>,
    healed: bool,
}

impl Network {
    /// A whole network.
    #[must_use]
    pub fn new(plan: NetworkPlan, nodes: usize, rng: Rng) -> Self {
        Self {
            plan,
            rng,
            nodes,
            links: vec![Link::default(); nodes * nodes],
            healed: false,
        }
    }

    fn link(&mut self, from: usize, to: usize) -> Option<&mut Link> {
        self.links.get_mut(from * self.nodes + to)
    }

    /// Cuts or joins one direction.
    pub fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        if let Some(link) = self.link(from, to) {
            link.cut = cut;
        }
    }

    /// Cuts or joins a node, both ways or one way only.
    pub fn isolate(&mut self, node: usize, outward: bool, inward: bool) {
        for other in 0..self.nodes {
            if other != node {
                self.set_cut(node, other, outward);
                self.set_cut(other, node, inward);
            }
        }
    }

    /// Joins everything; from now on nothing is lost. Delays stay.
    pub fn heal(&mut self, for_good: bool) {
        self.links.iter_mut().for_each(|link| link.cut = false);
        self.healed = for_good;
    }

    /// How long something takes between a client and a node, or `None` where it is lost.
    pub fn client_delay(&mut self) -> Option<u64> {
        if !self.healed && self.rng.chance(self.plan.loss_permille) {
            return None;
        }
        Some(self.rng.between(self.plan.delay_us.0, self.plan.delay_us.1))
    }

    /// How long something takes on a connection, which sends again what is lost.
    pub fn link_delay(&self, rng: &mut Rng) -> u64 {
        let slow = !self.healed && rng.chance(self.plan.slow_permille);
        let extra = if slow { self.plan.slow_us } else { 0 };
        rng.between(self.plan.delay_us.0, self.plan.delay_us.1 + extra)
    }

    /// What becomes of a frame that is sent now.
    pub fn send(&mut self, from: usize, to: usize, now_us: u64) -> Fate {
        let plan = self.plan;
        let healed = self.healed;
        let lost = !healed && self.rng.chance(plan.loss_permille);
        let slow = !healed && self.rng.chance(plan.slow_permille);
        let mut delay_us = self.rng.between(plan.delay_us.0, plan.delay_us.1);
        if slow {
            delay_us += self.rng.between(0, plan.slow_us);
        }
        let reordered = !healed && self.rng.chance(plan.reorder_permille);
        let again = !healed && self.rng.chance(plan.duplicate_permille);
        let again_us = again.then(|| delay_us + self.rng.between(0, plan.slow_us));
        let noticed_us = self.rng.between(500, 200_000);
        let Some(link) = self.link(from, to) else {
            return Fate::Lost { noticed_us };
        };
        if lost || link.cut {
            return Fate::Lost { noticed_us };
        }
        if !reordered {
            // Behind the one before it, as on one connection.
            let at_us = (now_us + delay_us).max(link.free_at_us);
            link.free_at_us = at_us;
            delay_us = at_us - now_us;
        }
        Fate::Arrives { delay_us, again_us }
    }

    /// Whether a direction is cut: what is under way on it is lost as well.
    #[must_use]
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.links
            .get(from * self.nodes + to)
            .is_some_and(|link| link.cut)
    }
}
