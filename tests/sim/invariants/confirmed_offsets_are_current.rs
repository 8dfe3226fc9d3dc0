//! An end offset that a majority confirmed is not from the past (L5): it is at least what any leader
//! had shown when it was asked for.

use std::collections::BTreeMap;

use super::{Checked, Violation};

/// The open questions: the watermark that was shown when each was asked.
#[derive(Debug, Default)]
pub struct Asked {
    floors: BTreeMap<u64, (u64, i64)>,
}

impl Asked {
    /// A client asks.
    pub fn asked(&mut self, request: u64, group: u64, shown: i64) {
        self.floors.insert(request, (group, shown));
    }

    /// It is answered.
    ///
    /// # Errors
    /// Where the answer is older than the question.
    pub fn answered(&mut self, request: u64, watermark: i64) -> Checked {
        let Some((group, floor)) = self.floors.remove(&request) else {
            return Ok(());
        };
        if watermark >= floor {
            return Ok(());
        }
        Err(Violation::new(
            "confirmed_offsets_are_current",
            format!("group {group}: {watermark} was confirmed where {floor} had been shown before"),
        ))
    }

    /// A group's log was shortened within the promise.
    pub fn forgive(&mut self, group: u64) {
        self.floors.retain(|_, (of, _)| *of != group);
    }
}
