//! `riverrun log dump`, `riverrun log verify` and `log-dump`, on real files: what they show, what
//! they find, and that nothing makes them fall over.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tests"
)]

mod controller;
mod damage;
mod data;
mod garbage;
mod run;
mod shown;
