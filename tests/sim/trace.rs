//! The trace of a run as one number: the same seed must give the same.

/// A running hash of everything that happened, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Trace {
    /// Notes that something happened.
    pub fn note(&mut self, parts: &[u64]) {
        for part in parts {
            self.0 = (self.0 ^ part)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29);
        }
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> u64 {
        self.0
    }
}
