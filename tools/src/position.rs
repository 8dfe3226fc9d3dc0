//! The forms of `-o`: where reading begins, and where it stops.

use std::str::FromStr;

use crate::timestamp::{self, When};

/// One point in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// The first record that is there.
    Start,
    /// Behind the last record.
    End,
    /// An offset.
    Offset(i64),
    /// So many offsets after the start.
    AfterStart(i64),
    /// So many offsets before the end.
    BeforeEnd(i64),
    /// The first record at or after a time.
    Time(When),
}

/// What `-o` says: from a point, and up to (not with) another one, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) from: Point,
    pub(crate) to: Option<Point>,
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "start" | "beginning" | "earliest" => return Ok(Self::Start),
            "end" | "latest" => return Ok(Self::End),
            _ => {}
        }
        if let Some(time) = text.strip_prefix('@').or_else(|| text.strip_prefix("s@")) {
            return timestamp::parse(time).map(Self::Time);
        }
        let (sign, digits) = match text.strip_prefix(['+', '-']) {
            Some(digits) => (text.chars().next(), digits),
            None => (None, text),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(
                "expected start, end, N, +N, -N, @TIME or two of these with a colon between"
                    .to_owned(),
            );
        }
        let number: i64 = digits
            .parse()
            .map_err(|_| format!("{digits} is too large for an offset"))?;
        Ok(match sign {
            Some('+') => Self::AfterStart(number),
            Some(_) => Self::BeforeEnd(number),
            None => Self::Offset(number),
        })
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let whole = match text.parse::<Point>() {
            Ok(from) => return Ok(Self { from, to: None }),
            Err(e) => e,
        };
        // A time has colons of its own, so the one that separates is the one with a point on
        // either side.
        for (at, _) in text.match_indices(':') {
            let (left, right) = (
                text.get(..at).unwrap_or(""),
                text.get(at + 1..).unwrap_or(""),
            );
            let from = if left.is_empty() {
                Ok(Point::Start)
            } else {
                left.parse()
            };
            let to = if right.is_empty() {
                Ok(None)
            } else {
                right.parse().map(Some)
            };
            if let (Ok(from), Ok(to)) = (from, to) {
                return Ok(Self { from, to });
            }
        }
        Err(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(text: &str) -> Result<(Point, Option<Point>), String> {
        text.parse::<Position>().map(|p| (p.from, p.to))
    }

    #[test]
    fn one_point() {
        assert_eq!(position("start"), Ok((Point::Start, None)));
        assert_eq!(position("latest"), Ok((Point::End, None)));
        assert_eq!(position("7"), Ok((Point::Offset(7), None)));
        assert_eq!(position("+7"), Ok((Point::AfterStart(7), None)));
        assert_eq!(position("-7"), Ok((Point::BeforeEnd(7), None)));
        assert_eq!(position("@-1m"), Ok((Point::Time(When::Ago(60_000)), None)));
        assert_eq!(position("s@5"), Ok((Point::Time(When::At(5)), None)));
    }

    #[test]
    fn a_range_is_split_where_both_sides_are_points() {
        assert_eq!(
            position("5:9"),
            Ok((Point::Offset(5), Some(Point::Offset(9))))
        );
        assert_eq!(position(":end"), Ok((Point::Start, Some(Point::End))));
        assert_eq!(position("-5:"), Ok((Point::BeforeEnd(5), None)));
        assert_eq!(
            position("@2026-11-01T12:00:00Z:@2026-11-01T12:00:01Z"),
            Ok((
                Point::Time(When::At(1_793_534_400_000)),
                Some(Point::Time(When::At(1_793_534_401_000)))
            ))
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "sometime",
            "--5",
            "+",
            "1.5",
            "@",
            "5:x",
            "99999999999999999999",
        ] {
            assert!(position(text).is_err(), "{text}");
        }
    }
}
