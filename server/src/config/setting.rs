//! One row of a settings table, and how values are parsed and refused.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Why a setting was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No setting of this name is served.
    #[error("unknown setting {name}{}", nearest.map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    Unknown {
        /// The name.
        name: String,
        /// A served name that is close to it.
        nearest: Option<&'static str>,
    },
    /// It is Kafka's, and passing it over would lose what somebody relies on.
    #[error("{name} is refused: {reason}")]
    Refused {
        /// The name.
        name: String,
        /// What would be lost, or what to do instead.
        reason: &'static str,
    },
    /// It has no value, and needs one.
    #[error("{name} is missing: {reason}")]
    Missing {
        /// The name.
        name: &'static str,
        /// What it is needed for.
        reason: String,
    },
    /// The value cannot be read, or lies outside what is served.
    #[error("invalid value {value} for {name}: {reason}")]
    Value {
        /// The name.
        name: &'static str,
        /// The value.
        value: String,
        /// What would be right, and why.
        reason: String,
    },
}

impl SettingError {
    /// The setting that it is about.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Unknown { name, .. } | Self::Refused { name, .. } => name,
            Self::Missing { name, .. } | Self::Value { name, .. } => name,
        }
    }
}

/// The type of a setting, with its number in DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    List = 7,
}

/// A row: a setting of `T`.
pub(crate) struct Setting<T> {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// The node setting that gives a topic setting its default.
    pub(crate) synonym: Option<&'static str>,
    pub(crate) doc: &'static str,
    pub(crate) get: fn(&T) -> String,
    /// Parses and stores, or says why not.
    pub(crate) set: fn(&mut T, &str) -> Result<(), String>,
}

impl<T> std::fmt::Debug for Setting<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setting")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .finish()
    }
}

impl<T> Setting<T> {
    pub(crate) fn apply(&self, to: &mut T, value: &str) -> Result<(), SettingError> {
        (self.set)(to, value.trim()).map_err(|reason| SettingError::Value {
            name: self.name,
            value: value.chars().take(200).collect(),
            reason,
        })
    }
}

/// A number in a range.
pub(crate) fn number<N>(value: &str, range: RangeInclusive<N>) -> Result<N, String>
where
    N: FromStr + PartialOrd + Display,
{
    let parsed: N = value.parse().map_err(|_| {
        format!(
            "a whole number from {} to {} is needed",
            range.start(),
            range.end()
        )
    })?;
    if range.contains(&parsed) {
        Ok(parsed)
    } else {
        Err(format!(
            "it must lie between {} and {}",
            range.start(),
            range.end()
        ))
    }
}

/// `true` or `false`, as Kafka reads them.
pub(crate) fn boolean(value: &str) -> Result<bool, String> {
    if value.eq_ignore_ascii_case("true") {
        Ok(true)
    } else if value.eq_ignore_ascii_case("false") {
        Ok(false)
    } else {
        Err("true or false is needed".to_owned())
    }
}

/// The one value that is served so far.
pub(crate) fn only(value: &str, served: &str, why: &str) -> Result<(), String> {
    if value == served {
        Ok(())
    } else {
        Err(format!("only {served} is served: {why}"))
    }
}

/// The served name nearest to a wrong one, if one is near.
pub(crate) fn nearest(
    name: &str,
    names: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    let name: Vec<char> = name.chars().take(64).collect();
    names
        .map(|served| (distance(&name, served), served))
        .filter(|(distance, _)| *distance <= 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, served)| served)
}

/// Levenshtein distance.
fn distance(a: &[char], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, y) in b.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (x, up) in a.iter().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(*x != y)).min(left + 1).min(up + 1);
            diagonal = *up;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_name_that_was_meant() {
        let names = || ["segment.bytes", "segment.ms", "retention.ms"].into_iter();
        assert_eq!(nearest("segment.byte", names()), Some("segment.bytes"));
        assert_eq!(nearest("retentoin.ms", names()), Some("retention.ms"));
        assert_eq!(nearest("flush.messages", names()), None);
    }

    #[test]
    fn says_what_range_a_number_must_lie_in() {
        assert_eq!(number("5", 1..=9), Ok(5));
        assert_eq!(
            number("10", 1..=9),
            Err("it must lie between 1 and 9".to_owned())
        );
        assert!(number("five", 1..=9).is_err());
    }
}
