//! The simulator over seeds: those that once found something, and a planted bug for each rule.
//!
//! A seed is replayed on exactly the code of this tree, so one that found a bug goes on finding it
//! only while the code around it behaves the same; where it no longer does, `sim --known --seeds 20000`
//! hunts a new one for `tests/sim/seeds.txt`.

#![expect(clippy::print_stdout, reason = "what was run is worth reading")]

use riverrun_sim::seeds::known;
use riverrun_sim::{Options, run, silence_panics};

fn options() -> Options {
    Options {
        seconds: 30,
        nodes: None,
        bench: false,
    }
}

#[test]
fn seeds_that_found_a_bug_in_the_code_pass() {
    silence_panics();
    for seed in known().into_iter().filter(|seed| seed.bug.is_none()) {
        let outcome = run(seed.seed, &options(), None);
        assert!(
            outcome.violation.is_none(),
            "seed {}: {:?}",
            seed.seed,
            outcome.violation
        );
    }
}

#[test]
fn planted_bugs_are_found_by_the_invariant_that_names_them() {
    silence_panics();
    for seed in known() {
        let Some(bug) = seed.bug else { continue };
        let clean = run(seed.seed, &options(), None);
        assert!(
            clean.violation.is_none(),
            "seed {} without a bug: {:?}",
            seed.seed,
            clean.violation
        );
        let broken = run(seed.seed, &options(), Some(bug)).violation;
        let invariant = broken.as_ref().map(|violation| violation.invariant);
        assert_eq!(
            invariant,
            Some(seed.invariant.as_str()),
            "seed {} with {} planted: {broken:?}",
            seed.seed,
            bug.name()
        );
        println!(
            "seed {}: {} is found by {}",
            seed.seed,
            bug.name(),
            seed.invariant
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    silence_panics();
    for seed in 0..5 {
        let first = run(seed, &options(), None);
        let second = run(seed, &options(), None);
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}
