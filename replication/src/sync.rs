//! The locks of the mailbox. Its loom model (tests/loom) compiles `mailbox.rs` over loom's instead.

pub use std::sync::atomic::{AtomicBool, Ordering};

pub use parking_lot::Mutex;
