//! The locks of the mailbox. Its loom model (tests/loom) compiles `mailbox.rs` over loom's instead.

pub(crate) use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use parking_lot::Mutex;
