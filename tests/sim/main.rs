//! The simulator on the command line.
//!
//! ```text
//! sim --seeds 1000                 many seeds, one after another; stops at the first broken invariant
//! sim --from 42 --seeds 1 --log    one seed, with what the code under test has to say
//! sim --hunt                       for every planted bug: seeds until one finds it
//! sim --bug w1 --seeds 20000       the same for one
//! sim --known --seeds 20000        every line of seeds.txt, hunted anew where it holds no longer
//! sim --bench                      how many simulated seconds a wall second takes
//! ```

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use riverrun_sim::bugs::named_by;
use riverrun_sim::seeds::known;
use riverrun_sim::{Options, Plan, Summary, run, silence_panics};
use riverrun_storage::planted::Bug;

/// Simulates Riverrun clusters, one for each seed.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Simulated seconds with faults, for each seed.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// The number of nodes; drawn by the seed if it is not given.
    #[arg(long)]
    nodes: Option<usize>,
    /// Plants a bug, and stops at the first seed that finds it.
    #[arg(long)]
    bug: Option<String>,
    /// Hunts every planted bug, up to the number of seeds for each.
    #[arg(long)]
    hunt: bool,
    /// Replays the planted bugs of seeds.txt, and hunts those that their seed finds no longer.
    #[arg(long)]
    known: bool,
    /// Only seeds that tell this story, or in which this class of faults strikes (MarredBatch, HurtNode).
    #[arg(long)]
    with: Option<String>,
    /// Runs the fixed load by which speed is measured.
    #[arg(long)]
    bench: bool,
    /// Runs each seed twice and compares the traces.
    #[arg(long)]
    twice: bool,
    /// Goes on after a broken invariant.
    #[arg(long)]
    keep_going: bool,
    /// Stops after this many wall seconds.
    #[arg(long)]
    wall_seconds: Option<u64>,
    /// Shows the log of the code under test (filtered by RUST_LOG).
    #[arg(long)]
    log: bool,
}

#[expect(clippy::print_stdout, reason = "a command's output")]
fn say(line: &str) {
    println!("{line}");
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.log {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .without_time()
            .init();
    } else {
        silence_panics();
    }
    let options = Options {
        seconds: arguments.seconds,
        nodes: arguments.nodes,
        bench: arguments.bench,
    };
    if arguments.hunt {
        let found = Bug::ALL
            .into_iter()
            .filter(|bug| hunt(*bug, &arguments, &options))
            .count();
        say(&format!("{found} of {} planted bugs found", Bug::ALL.len()));
        return if found == Bug::ALL.len() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    if arguments.known {
        return known_seeds(&arguments, &options);
    }
    if let Some(name) = &arguments.bug {
        let Some(bug) = Bug::from_name(name) else {
            let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
            say(&format!(
                "no bug is called {name:?}; there are {}",
                names.join(", ")
            ));
            return ExitCode::from(2);
        };
        return if hunt(bug, &arguments, &options) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    sweep(&arguments, &options)
}

#[expect(clippy::disallowed_methods, reason = "wall time of the command itself")]
fn now() -> Instant {
    Instant::now()
}

/// Whether a seed has what is asked for.
fn is_wanted(seed: u64, arguments: &Arguments, options: &Options) -> bool {
    let Some(with) = &arguments.with else {
        return true;
    };
    let plan = Plan::of(seed, options);
    let stories = plan.stories.iter().map(|story| format!("{story:?}"));
    let faults = plan.faults.iter().map(|(fault, _)| format!("{fault:?}"));
    stories.chain(faults).any(|name| name == *with)
}

/// Many seeds without a planted bug.
fn sweep(arguments: &Arguments, options: &Options) -> ExitCode {
    let begun = now();
    let mut total = Summary::default();
    let mut broken = 0_u64;
    let limit = arguments.wall_seconds.map(Duration::from_secs);
    for seed in arguments.from..arguments.from.saturating_add(arguments.seeds) {
        if limit.is_some_and(|limit| begun.elapsed() > limit) {
            break;
        }
        if !is_wanted(seed, arguments, options) {
            continue;
        }
        let outcome = run(seed, options, None);
        if arguments.twice {
            let again = run(seed, options, None);
            if again.trace != outcome.trace {
                say(&format!("seed {seed}: two runs, two traces"));
                return ExitCode::FAILURE;
            }
        }
        total.add(&outcome.summary);
        if let Some(violation) = &outcome.violation {
            say(&format!("seed {seed}: {violation}"));
            broken += 1;
            if !arguments.keep_going {
                break;
            }
        }
    }
    let wall = begun.elapsed().as_secs_f64();
    say(&format!("{total}{wall:>14.1} wall seconds"));
    say(&format!(
        "{:>14.1} simulated seconds a wall second",
        total.hours() * 3600.0 / wall
    ));
    if broken == 0 {
        return ExitCode::SUCCESS;
    }
    say(&format!("{broken} seeds broke an invariant"));
    ExitCode::FAILURE
}

/// The lines of seeds.txt as they should be: a change of the code makes some of them out of date.
fn known_seeds(arguments: &Arguments, options: &Options) -> ExitCode {
    let mut all = true;
    for line in known() {
        let clean = run(line.seed, options, None).violation;
        let Some(bug) = line.bug else {
            if let Some(violation) = clean {
                say(&format!("# {}: {violation}", line.seed));
                all = false;
            }
            continue;
        };
        let found = run(line.seed, options, Some(bug)).violation;
        if clean.is_none() && found.is_some_and(|found| found.invariant == line.invariant) {
            say(&format!("{} {} {}", line.seed, bug.name(), line.invariant));
        } else {
            all &= hunt(bug, arguments, options);
        }
    }
    if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Seeds until one finds the bug, by an invariant that names it, and passes without it.
fn hunt(bug: Bug, arguments: &Arguments, options: &Options) -> bool {
    let begun = now();
    let mut others: BTreeMap<&'static str, u64> = BTreeMap::new();
    let limit = arguments.wall_seconds.map(Duration::from_secs);
    let mut found = None;
    let mut tried = 0;
    for seed in arguments.from..arguments.from.saturating_add(arguments.seeds) {
        if limit.is_some_and(|limit| begun.elapsed() > limit) {
            break;
        }
        if !is_wanted(seed, arguments, options) {
            continue;
        }
        tried += 1;
        let Some(violation) = run(seed, options, Some(bug)).violation else {
            continue;
        };
        if !named_by(bug).contains(&violation.invariant)
            || run(seed, options, None).violation.is_some()
        {
            *others.entry(violation.invariant).or_default() += 1;
            continue;
        }
        found = Some((seed, violation.invariant));
        break;
    }
    let wall = begun.elapsed().as_secs();
    let others: String = others
        .iter()
        .map(|(invariant, count)| format!(", {count} times {invariant}"))
        .collect();
    match found {
        Some((seed, invariant)) => say(&format!(
            "{seed} {} {invariant} # {tried} seeds, {wall} s{others}",
            bug.name()
        )),
        None => say(&format!(
            "# {} not found in {tried} seeds, {wall} s{others}",
            bug.name()
        )),
    }
    found.is_some()
}
