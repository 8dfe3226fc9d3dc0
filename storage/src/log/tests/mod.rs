#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "tests"
)]

mod basic;
mod crash;
mod golden;
mod harness;
mod model;
mod naming;
mod reads;
mod recovery;
mod scrub;
