//! Directed simulations: the executions of docs/safety.md, forced step by step on the production
//! code, one test each, under the name that it has there. The random ones are `sim_seeds`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

#[path = "sim/directed/mod.rs"]
mod directed;
