//! What the tests derive from the field tables: random messages, and the tables as text.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tests"
)]

use bytes::Bytes;
use uuid::Uuid;

use crate::Records;
use crate::codec::coverage::Forms;
use crate::codec::{At, Nullable, Rule, Value};

/// A message and the rows of all its tables.
pub(crate) trait Tables {
    fn rows() -> Vec<String>;
}

/// The rows of one table.
pub(crate) trait Table {
    fn rows() -> Vec<String>;
}

/// One field in the form of `tests/data/kafka-4.4-messages.txt`.
pub(crate) fn row(name: &str, ty: &str, rule: Rule, default: &str) -> String {
    let span = |first: i16, last: i16| match (first, last) {
        (i16::MAX, _) => "never".to_owned(),
        (first, i16::MAX) => format!("{first}+"),
        (first, last) => format!("{first}-{last}"),
    };
    let ty: String = ty.split_whitespace().collect();
    let default: String = default.split_whitespace().collect();
    let default = match default.as_str() {
        "" => "none".to_owned(),
        "i32::MIN" => i32::MIN.to_string(),
        "i32::MAX" => i32::MAX.to_string(),
        "i64::MAX" => i64::MAX.to_string(),
        given => given.replace('_', ""),
    };
    format!(
        "{name} {ty} versions {} null {} tag {} default {} {}",
        span(rule.first, rule.last),
        span(rule.nullable_first, rule.nullable_last),
        rule.tag.map_or("none".to_owned(), |tag| tag.to_string()),
        default,
        if rule.ignorable {
            "ignorable"
        } else {
            "required"
        },
    )
}

/// A small generator (splitmix64): the tests print its seed.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// A new seed each time unless `RIVERRUN_SEED` gives one.
    pub(crate) fn seed() -> u64 {
        use std::hash::{BuildHasher, Hasher};
        let given = std::env::var("RIVERRUN_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| std::hash::RandomState::new().build_hasher().finish());
        eprintln!("RIVERRUN_SEED={seed}");
        seed
    }

    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Mostly small, and now and then beyond one byte of a variable-length integer.
    fn len(&mut self, large: usize) -> usize {
        match self.below(12) {
            0 | 1 => 0,
            2 => self.below(large),
            _ => self.below(5),
        }
    }
}

/// A random value that version `at` can express, how far decoding may blow up its bytes, and what
/// of its tables it shows.
pub(crate) trait Sample: Sized {
    fn sample(random: &mut Random, at: At) -> Self;

    /// The most bytes of memory that an array inside takes for each encoded byte, added up over
    /// arrays inside arrays, each of which may claim all that remains.
    fn amplification(_: At) -> f64 {
        0.0
    }

    fn is_null(&self) -> bool {
        false
    }

    /// Adds all forms that values of this type can have, with those of the structs inside.
    fn expect(_: At, _: &mut Forms) {}

    /// Adds the forms that this value has.
    fn note(&self, _: At, _: &mut Forms) {}
}

macro_rules! numbers {
    ($($ty:ty),*) => { $(
        impl Sample for $ty {
            fn sample(random: &mut Random, _: At) -> Self {
                match random.below(6) {
                    0 => 0 as $ty,
                    1 => <$ty>::MIN,
                    2 => <$ty>::MAX,
                    _ => random.next() as $ty,
                }
            }
        }
    )* };
}

numbers!(i8, i16, u16, i32, i64, f64);

impl Sample for bool {
    fn sample(random: &mut Random, _: At) -> Self {
        random.below(2) == 1
    }
}

impl Sample for Uuid {
    fn sample(random: &mut Random, _: At) -> Self {
        match random.below(4) {
            0 => Self::nil(),
            _ => Self::from_u64_pair(random.next(), random.next()),
        }
    }
}

impl Sample for String {
    fn sample(random: &mut Random, _: At) -> Self {
        let len = random.len(300);
        (0..len)
            .map(|_| ['a', 'Z', '-', '7', 'é', '流', '🦀'][random.below(7)])
            .collect()
    }
}

impl Sample for Bytes {
    fn sample(random: &mut Random, _: At) -> Self {
        let len = random.len(300);
        random.bytes(len).into()
    }
}

impl Sample for Records {
    fn sample(random: &mut Random, _: At) -> Self {
        let slices = random.below(4);
        let slice = |random: &mut Random| {
            let len = random.len(20_000);
            Bytes::from(random.bytes(len))
        };
        Self::from((0..slices).map(|_| slice(random)).collect::<Vec<_>>())
    }
}

impl<T: Sample + Value> Sample for Vec<T> {
    fn sample(random: &mut Random, at: At) -> Self {
        let len = match random.below(40) {
            0 => 130,
            n => n % 4,
        };
        // Large arrays are filled with one element: what counts is their length.
        let at = At {
            nullable: false,
            ..at
        };
        let some: Self = (0..len.min(3)).map(|_| T::sample(random, at)).collect();
        if len <= 3 || size_of::<T>() > 64 {
            return some;
        }
        (0..len)
            .map(|_| T::sample(&mut Random::new(random.next() % 4), at))
            .collect()
    }

    fn amplification(at: At) -> f64 {
        let at = At {
            nullable: false,
            ..at
        };
        size_of::<T>() as f64 / T::min_bytes(at) as f64 + T::amplification(at)
    }

    fn expect(at: At, forms: &mut Forms) {
        T::expect(at, forms);
    }

    fn note(&self, at: At, forms: &mut Forms) {
        for element in self {
            element.note(at, forms);
        }
    }
}

impl<T: Sample + Nullable> Sample for Option<T> {
    fn sample(random: &mut Random, at: At) -> Self {
        if at.nullable && random.below(3) == 0 {
            None
        } else {
            Some(T::sample(random, at))
        }
    }

    fn amplification(at: At) -> f64 {
        T::amplification(at)
    }

    fn is_null(&self) -> bool {
        self.is_none()
    }

    fn expect(at: At, forms: &mut Forms) {
        T::expect(at, forms);
    }

    fn note(&self, at: At, forms: &mut Forms) {
        if let Some(value) = self {
            value.note(at, forms);
        }
    }
}
