//! One simulation, from its seed to its verdict.

use std::cell::Cell;

use riverrun_storage::planted::{self, Bug};

use crate::clock::SECOND;
use crate::invariants::Violation;
use crate::plan::{Options, Plan};
use crate::summary::Summary;
use crate::world::World;

/// More events than this in one run: it never ends.
const MAX_EVENTS: u64 = 200_000_000;

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Everything that happened, as one number.
    pub trace: u64,
    /// Figures.
    pub summary: Summary,
    /// What was broken, if anything.
    pub violation: Option<Violation>,
}

/// Takes a planted bug out again, however the run ends.
struct Planted(Option<Bug>);

impl Planted {
    fn plant(bug: Option<Bug>) -> Self {
        if let Some(bug) = bug {
            planted::set(bug, true);
        }
        Self(bug)
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        if let Some(bug) = self.0 {
            planted::set(bug, false);
        }
    }
}

/// Runs a seed, with a bug planted if one is given.
#[must_use]
pub fn run(seed: u64, options: &Options, bug: Option<Bug>) -> Outcome {
    run_plan(Plan::of(seed, options), bug)
}

/// Runs a plan.
#[must_use]
pub fn run_plan(plan: Plan, bug: Option<Bug>) -> Outcome {
    let _planted = Planted::plant(bug);
    let _running = Running::begin();
    let seed = plan.seed;
    tracing::info!(?plan, "the plan");
    let mut world = World::new(plan);
    world.run_until_over();
    world.summary.simulated_us = world.clock.now_us() - SECOND;
    Outcome {
        seed,
        trace: world.trace.value(),
        summary: world.summary,
        violation: world.violation.take(),
    }
}

impl World {
    /// Takes steps until all is well, an invariant is broken, or the time for it has passed.
    pub fn run_until_over(&mut self) {
        let mut looked_us = 0;
        while self.step() {
            if self.violation.is_some() || self.summary.events > MAX_EVENTS {
                break;
            }
            let now = self.clock.now_us();
            if now >= looked_us {
                looked_us = now + SECOND / 10;
                if self.is_over() {
                    break;
                }
            }
        }
        if self.summary.events > MAX_EVENTS {
            let detail = format!("seed {} after {MAX_EVENTS} events", self.plan.seed);
            self.check(Err(Violation::new("every_run_ends", detail)));
        }
    }
}

thread_local! {
    /// Whether a simulation runs on this thread.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Marks the time in which a simulation runs.
struct Running;

impl Running {
    fn begin() -> Self {
        RUNNING.set(true);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(false);
    }
}

/// Keeps the panics of simulated nodes (a planted bug meets an assertion) from filling the screen.
/// Those of who runs the simulation are shown as ever.
pub fn silence_panics() {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !RUNNING.get() {
            shown(panic);
        }
    }));
}
