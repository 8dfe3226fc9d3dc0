//! The table of damage at rest with real processes: a random tenth of its cells, or all of them, read back by
//! librdkafka, which checks no checksums of its own.
//!
//! | Variable | What it does |
//! |---|---|
//! | `RIVERRUN_FULL=1` | every cell, on the only replica in each of its places, and the table is printed |
//! | `RIVERRUN_DAMAGE_SEED=n` | the same tenth again |
//! | `RIVERRUN_DAMAGE_PLACES=n` | more places of each cell than its head, middle and end |
//! | `RIVERRUN_DAMAGE_ONLY=text` | the cells whose names have that in them |

mod disk;
mod one;
mod reading;
mod three;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use libtest_mimic::Trial;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::damage::{Cell, Damage, Outcome, Replicas, Table, World, cells};
use crate::trial::{fresh_seed, note, trial};

/// How long a random tenth may take, of each half of the table.
const TENTH: Duration = Duration::from_secs(42);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("damage::what_is_bad_on_one_of_three_is_healed", || {
            hold(Replicas::Three)
        }),
        trial(
            "damage::what_is_bad_on_the_only_replica_is_served_whole_or_refused",
            || hold(Replicas::One),
        ),
    ]
}

fn is_full() -> bool {
    std::env::var_os("RIVERRUN_FULL").is_some_and(|value| value == "1")
}

/// The cells to be tried, each with a place.
fn chosen(replicas: Replicas) -> Vec<(Cell, u32)> {
    let places = |cell: Cell| (0..cell.places()).map(move |spot| (cell, spot));
    if let Ok(only) = std::env::var("RIVERRUN_DAMAGE_ONLY") {
        let named = cells(replicas).filter(|cell| cell.to_string().contains(&only));
        return named.flat_map(places).collect();
    }
    if is_full() {
        // A start of three nodes takes its time: one place of each cell.
        let one = |cell: &Cell| u32::from(cell.places() > 1 && cell.damage != Damage::Swapped);
        let mut all: Vec<(Cell, u32)> = cells(replicas).flat_map(places).collect();
        all.retain(|(cell, spot)| replicas == Replicas::One || *spot == one(cell));
        return all;
    }
    let given = std::env::var("RIVERRUN_DAMAGE_SEED").ok();
    let seed = given.and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(fresh_seed);
    note(format_args!(
        "damage, {replicas}: RIVERRUN_DAMAGE_SEED={seed}"
    ));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut some: Vec<Cell> = cells(replicas).collect();
    some.shuffle(&mut random);
    some.truncate(some.len().div_ceil(10));
    let with_place = some.into_iter().map(|cell| {
        // Anywhere in the file, for what is not struck as a whole.
        let spots = match cell.damage.spots() {
            3 => 1000,
            _ => cell.places(),
        };
        (cell, random.random_range(0..spots))
    });
    with_place.collect()
}

/// One half of the table.
fn hold(replicas: Replicas) -> Result<()> {
    let begun = Instant::now();
    let mut world = Tried::build(replicas)?;
    let mut table = Table::new(World::Real);
    let chosen = chosen(replicas);
    let all = chosen.len();
    for (at, (cell, spot)) in chosen.into_iter().enumerate() {
        if !is_full() && begun.elapsed() > TENTH {
            note(format_args!(
                "damage, {replicas}: {at} of {all} cells in {TENTH:?}"
            ));
            break;
        }
        let (outcome, why) = world.see(&cell, spot)?;
        if is_full() {
            let why = why.lines().next().unwrap_or_default();
            note(format_args!(
                "{cell}, place {spot}: {}: {why}",
                outcome.name()
            ));
        }
        table.add(&cell, spot, outcome, &why);
    }
    if is_full() {
        note(&table);
    }
    let wrong = table.wrong(is_full() && std::env::var_os("RIVERRUN_DAMAGE_ONLY").is_none());
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// The nodes of one half.
enum Tried {
    One(Box<one::Alone>),
    Three(Box<three::Three>),
}

impl Tried {
    fn build(replicas: Replicas) -> Result<Self> {
        Ok(match replicas {
            Replicas::One => Self::One(Box::new(one::Alone::build()?)),
            Replicas::Three => Self::Three(Box::new(three::Three::build()?)),
        })
    }

    fn see(&mut self, cell: &Cell, spot: u32) -> Result<(Outcome, String)> {
        match self {
            Self::One(alone) => alone.see(cell, spot),
            Self::Three(three) => three.see(cell, spot),
        }
    }
}
