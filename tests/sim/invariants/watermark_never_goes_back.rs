//! The watermark that leaders show never moves back from one term to the next (I9, L4).

use std::collections::BTreeMap;

use super::{Checked, Violation};

/// The newest term that showed a watermark, and the highest one, by group.
#[derive(Debug, Default)]
pub struct Watermarks {
    shown: BTreeMap<u64, (u64, i64)>,
}

impl Watermarks {
    /// A leader that may answer shows a watermark.
    ///
    /// # Errors
    /// Where a leader of this or an earlier term had shown a higher one.
    pub fn shows(&mut self, group: u64, term: u64, watermark: i64) -> Checked {
        let (newest, highest) = self.shown.entry(group).or_insert((term, watermark));
        // One that does not know yet that it is deposed may lag behind; clients refuse its epoch.
        if term < *newest {
            return Ok(());
        }
        *newest = term;
        if watermark < *highest {
            return Err(Violation::new(
                "watermark_never_goes_back",
                format!("group {group}: {watermark} in term {term} after {highest}"),
            ));
        }
        *highest = watermark;
        Ok(())
    }

    /// The highest watermark that a client may have seen.
    #[must_use]
    pub fn highest(&self, group: u64) -> i64 {
        self.shown.get(&group).map_or(0, |(_, highest)| *highest)
    }

    /// What was acknowledged from memory was lost within the promise: begins again.
    pub fn forgive(&mut self, group: u64, watermark: i64) {
        if let Some((_, highest)) = self.shown.get_mut(&group) {
            *highest = watermark.min(*highest);
        }
    }
}
