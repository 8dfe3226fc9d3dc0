//! The table of damage at rest on the simulated disk: every cell of `damage`, with production code on it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "tests"
)]

#[path = "damage_table/alone.rs"]
mod alone;
#[path = "damage_table/base.rs"]
mod base;
mod damage;
#[path = "damage_table/files.rs"]
mod files;
#[path = "damage_table/three.rs"]
mod three;

use damage::{Cell, Outcome, Replicas, Table, World, cells};
use riverrun_sim::silence_panics;

fn hold(replicas: Replicas, see: impl Fn(&Cell, u32) -> (Outcome, String)) {
    silence_panics();
    let mut table = Table::new(World::Simulated);
    for cell in cells(replicas) {
        for spot in 0..cell.places() {
            let (outcome, why) = see(&cell, spot);
            println!("{cell}, place {spot}: {}: {why}", outcome.name());
            table.add(&cell, spot, outcome, &why);
        }
    }
    println!("{table}");
    let wrong = table.wrong(true);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_damaged_on_the_only_replica_is_served_whole_or_refused() {
    let (stopped, killed) = (alone::Base::build(false), alone::Base::build(true));
    hold(Replicas::One, |cell, spot| {
        let base = if cell.file.is_of_killed() {
            &killed
        } else {
            &stopped
        };
        base.see(cell, spot)
    });
}

#[test]
fn what_is_damaged_on_one_of_three_is_healed() {
    hold(Replicas::Three, three::see);
}

#[test]
fn different_bytes_that_are_bad_on_two_of_three_are_all_put_right() {
    silence_panics();
    let (outcome, why) = three::see_two_of_three();
    assert_eq!(outcome, Outcome::Healed, "{why}");
}
