//! The locks of the mailbox and the lanes. Their loom models compile `mailbox.rs` and `lane.rs` over
//! loom's instead.

pub(crate) use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use parking_lot::Mutex;
