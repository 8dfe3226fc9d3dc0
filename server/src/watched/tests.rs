//! Each thread and task is ended, and what is promised of its end is seen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests"
)]

pub(crate) mod ends;
mod listed;
