//! The process-level tests: the binary that cargo has just built, clients that nobody here wrote,
//! real data, real files, and SIGKILL.
//!
//! One binary with its own runner, because what a test left out must be seen: libtest captures
//! what a test prints, and a line that is captured is a line that nobody reads. Everything left out
//! is said at once, and again at the very end.
//!
//! | Variable | What it does |
//! |---|---|
//! | `RIVERRUN_REQUIRE_CLIENTS=1` | installs the clients into the target directory; a missing one is a failure |
//! | `RIVERRUN_TEST_BROKERS=host:port` | the client tests use that broker instead of starting one |
//! | `RIVERRUN_TEST_NODE=program` | starts that program in the place of `riverrun`, with the same arguments (`kafka-node.sh` makes Apache Kafka of it: so these tests are themselves tested) |
//! | `RIVERRUN_KILL_ROUNDS=n`, `RIVERRUN_KILL_SEED=n` | the kill loop, longer or again |
//! | `RIVERRUN_FULL=1`, `RIVERRUN_DAMAGE_SEED=n`, `RIVERRUN_DAMAGE_ONLY=text` | the table of damage at rest: all of it, the same tenth again, some cells |
//! | `RIVERRUN_CLUSTER_KILL_ROUNDS=n`, `RIVERRUN_CLUSTER_KILL_SEED=n` | the same for the one on three nodes |
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    reason = "tests of real processes, which live in real time"
)]

mod bad_input;
mod command;
mod event;
mod few_descriptors;
mod full_disk;
mod half_open;
mod installed;
mod kafka;
mod node;
mod overload;
mod raw;
mod trial;

#[path = "../clients/mod.rs"]
mod clients;
#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../damage/mod.rs"]
mod damage;
#[path = "../damage_real/mod.rs"]
mod damage_real;
#[path = "../fsync/mod.rs"]
mod fsync;
#[path = "../kill_loop/mod.rs"]
mod kill_loop;
#[path = "../real_files/mod.rs"]
mod real_files;
#[path = "../real_input/mod.rs"]
mod real_input;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = libtest_mimic::Arguments::from_args();
    let mut trials = Vec::new();
    // The longest first, so that it shares the cores with all the others.
    trials.extend(cluster::trials());
    trials.extend(damage_real::trials());
    trials.extend(kill_loop::trials());
    trials.extend(real_input::trials());
    trials.extend(real_files::trials());
    trials.extend(fsync::trials());
    trials.extend(bad_input::trials());
    trials.extend(half_open::trials());
    trials.extend(overload::trials());
    trials.extend(full_disk::trials());
    trials.extend(few_descriptors::trials());
    trials.extend(clients::trials());
    let conclusion = libtest_mimic::run(&args, trials);
    trial::summary();
    conclusion.exit_code()
}
