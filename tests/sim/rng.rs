//! Randomness: one seed, many streams.
//!
//! Every part of a simulation draws from a stream of its own, so that a change in one (one more
//! message lost, say) does not reshuffle all the others.

/// A small, fast generator (`SplitMix64`), the same for the same seed for ever.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The stream of a name.
    #[must_use]
    pub fn stream(seed: u64, name: &str) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut rng = Self(seed ^ hash);
        rng.next();
        Self(rng.next())
    }

    /// The next 64 bits.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends, or has more to say than an iterator"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, 0 where that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in `permille` of 1000 draws.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// Heads.
    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// One of some things.
    pub fn pick<T: Copy>(&mut self, things: &[T]) -> Option<T> {
        things.get(self.index(things.len())).copied()
    }

    /// A time with the given mean, mostly shorter and sometimes much longer.
    pub fn around(&mut self, mean_us: u64) -> u64 {
        let draw = self.below(1000);
        let factor = match draw {
            0..=699 => self.between(20, 100),
            700..=949 => self.between(100, 250),
            _ => self.between(250, 600),
        };
        (mean_us * factor / 100).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_the_same_for_the_same_seed_and_differ_by_name() {
        let draw = |seed, name| {
            let mut rng = Rng::stream(seed, name);
            [rng.next(), rng.next(), rng.next()]
        };
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
    }
}
