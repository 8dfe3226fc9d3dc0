//! The table of damage at rest, as data: every file that a node keeps, every way in which its bytes go bad,
//! on the only replica and on one of three. What has to come of each cell is stated here once, and held by
//! the simulator and by real processes.
//!
//! | file | what |
//! |---|---|
//! | `cells` | files, damages, and the cells that they make |
//! | `strike` | finds a cell's file in a data directory, and does the damage to its bytes |
//! | `expect` | what may come of a cell, what is not promised, what is known to be wrong |
//! | `table` | what came of all of them |
//! | `keep` | what a start must leave of the files that it found |

pub(crate) mod cells;
mod expect;
mod keep;
mod strike;
mod table;

pub(crate) use cells::{Cell, Damage, Replicas, cells};
pub(crate) use expect::{Outcome, World};
pub(crate) use keep::{Image, Refused, lost_bytes};
pub(crate) use strike::{Files, Struck, inflict};
pub(crate) use table::Table;
