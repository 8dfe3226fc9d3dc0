//! Which partition a record goes to.
//!
//! Keys are spread as Kafka's Java client spreads them (murmur2 of the key's bytes), so that
//! producers of both kinds agree on where a key lives. Records without a key stay with one
//! partition until a batch's worth of bytes has gone there, then move to another one at random:
//! batches are full, and every partition gets its share.

use std::collections::BTreeMap;

/// The partition of a key among `count`.
#[must_use]
pub fn partition_of_key(key: &[u8], count: u32) -> u32 {
    // Java clears the sign bit rather than taking the absolute value, whose result for the most
    // negative number is negative.
    (murmur2(key) & 0x7fff_ffff) % count.max(1)
}

/// Kafka's murmur2: seed 0x9747b28c, little-endian words.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // Java's lengths are 32 bits wide; a key is never longer.
    let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut h = SEED ^ len;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> R)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    for (n, byte) in rest.iter().enumerate() {
        h ^= u32::from(*byte) << (8 * n);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

/// Where the records without a key of each topic go at the moment.
#[derive(Debug)]
pub(crate) struct Sticky {
    topics: BTreeMap<String, Choice>,
    random: u64,
    batch_bytes: usize,
}

#[derive(Debug)]
struct Choice {
    partition: i32,
    bytes: usize,
}

impl Sticky {
    pub(crate) fn new(seed: u64, batch_bytes: usize) -> Self {
        Self {
            topics: BTreeMap::new(),
            random: seed,
            batch_bytes,
        }
    }

    /// The partition for a record of `bytes`. The candidates are asked for only when it is time to
    /// move: the topic's partitions that have a leader, or all of them when none has.
    pub(crate) fn choose(
        &mut self,
        topic: &str,
        bytes: usize,
        candidates: impl FnOnce() -> Vec<i32>,
    ) -> i32 {
        let batch_bytes = self.batch_bytes;
        if let Some(choice) = self.topics.get_mut(topic).filter(|c| c.bytes < batch_bytes) {
            choice.bytes += bytes;
            return choice.partition;
        }
        let last = self.topics.get(topic).map(|c| c.partition);
        let partition = self.pick(&candidates(), last);
        self.topics
            .insert(topic.to_owned(), Choice { partition, bytes });
        partition
    }

    /// One of the candidates at random; another one than the last where there is one.
    fn pick(&mut self, candidates: &[i32], last: Option<i32>) -> i32 {
        let others = candidates.iter().filter(|p| Some(**p) != last).count();
        let among = if others == 0 {
            candidates.len()
        } else {
            others
        };
        let at = usize::try_from(self.next() % (among.max(1) as u64)).unwrap_or(0);
        let chosen = candidates
            .iter()
            .filter(|p| others == 0 || Some(**p) != last)
            .nth(at);
        chosen.copied().unwrap_or(0)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_the_one_that_java_uses() {
        // The values of Kafka's own UtilsTest, and the empty key.
        let known: [(&str, i32); 7] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ];
        for (text, hash) in known {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }

    #[test]
    fn a_key_has_one_partition_below_the_count() {
        for n in 1..50u32 {
            for key in [&b"a"[..], b"", b"foobar", b"\xff\xff\xff\xff\xff"] {
                assert!(partition_of_key(key, n) < n);
            }
        }
        assert_eq!(partition_of_key(b"x", 0), 0);
    }

    #[test]
    fn keyless_records_stay_until_a_batch_is_full_then_move() {
        let mut sticky = Sticky::new(1, 100);
        let all = || vec![0, 1, 2];
        let first = sticky.choose("t", 60, all);
        assert_eq!(sticky.choose("t", 60, all), first);
        assert_ne!(sticky.choose("t", 60, all), first);
    }

    #[test]
    fn keyless_records_reach_every_partition_and_leave_one_without_a_leader() {
        let mut sticky = Sticky::new(7, 1);
        let mut seen = BTreeMap::new();
        for _ in 0..400 {
            *seen
                .entry(sticky.choose("t", 1, || vec![0, 1, 2, 3]))
                .or_insert(0) += 1;
        }
        assert!(
            seen.len() == 4 && seen.values().all(|n| *n > 50),
            "{seen:?}"
        );
        assert_eq!(sticky.choose("t", 1, || vec![2]), 2);
        assert_eq!(sticky.choose("t", 1, || vec![2]), 2);
    }
}
