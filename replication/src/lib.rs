//! Placeholder.
pub mod controller;
