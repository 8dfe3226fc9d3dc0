//! Sockets: who may connect, how bytes become requests, and how answers leave.
//!
//! | File | Thing |
//! |---|---|
//! | [`memory`] | one budget that every request body is reserved from |
//! | [`frames`] | bytes to frames: bounded, each in a buffer of exactly its size |
//! | [`answers`] | a connection's answer slots: in order, written by whoever completes them |
//! | [`answer`] | the bytes of one answer, in segments that are never copied |
//! | [`connection`] | one connection and its task |
//! | [`burst`] | collects what one turn answers, so that a connection is written to once |
//! | [`listener`] | accepts, refuses addresses that are not loopback, drains |

pub(crate) mod answer;
pub(crate) mod answers;
pub(crate) mod burst;
pub(crate) mod connection;
pub(crate) mod frames;
pub(crate) mod listener;
pub(crate) mod memory;

/// The lock that [`answers`] is built on. The model in `tests/answer_slots_model.rs` compiles the
/// same file against another `sync`, whose locks are loom's.
pub(crate) mod sync {
    pub(crate) use parking_lot::Mutex;
}
