//! The forms in which a point in time is written.

/// A point in time: fixed, or so long before the moment it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Milliseconds since 1970, UTC.
    At(i64),
    /// Milliseconds before now.
    Ago(i64),
}

impl When {
    /// The point in milliseconds since 1970.
    pub(crate) fn resolve(self, now_ms: i64) -> i64 {
        match self {
            Self::At(ms) => ms,
            Self::Ago(ms) => now_ms.saturating_sub(ms),
        }
    }
}

const MS_PER_SECOND: i64 = 1_000;
const MS_PER_DAY: i64 = 86_400_000;

/// Reads a time as it is written after `@`.
///
/// Digits are milliseconds, except that 9 or 10 of them are seconds and 19 are nanoseconds (no
/// clock of this century reads otherwise). `-90s`, `-15m`, `-2h`, `-7d` are ages. Dates are
/// `2026-11-01`, with `T12:00[:00[.5]]` and `Z` or `+02:00` behind; without a zone they are UTC.
pub(crate) fn parse(text: &str) -> Result<When, String> {
    if text.is_empty() {
        return Err("a time is missing after @".to_owned());
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let number: i64 = text
            .parse()
            .map_err(|_| format!("{text} is too large for a time"))?;
        return Ok(When::At(match text.len() {
            9 | 10 => number * MS_PER_SECOND,
            19 => number / 1_000_000,
            _ => number,
        }));
    }
    if let Some(age) = text.strip_prefix('-') {
        return age_ms(age)
            .map(When::Ago)
            .ok_or_else(|| format!("{text} is not an age such as -15m"));
    }
    date_ms(text)
        .map(When::At)
        .ok_or_else(|| format!("{text} is not a time such as 2026-11-01 or 2026-11-01T12:00:00Z"))
}

fn age_ms(text: &str) -> Option<i64> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(split)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => MS_PER_SECOND,
        "m" => 60 * MS_PER_SECOND,
        "h" => 3_600 * MS_PER_SECOND,
        "d" => MS_PER_DAY,
        "w" => 7 * MS_PER_DAY,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit_ms)
}

fn date_ms(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 {
        return None;
    }
    let day_number = days(number(year)?, number(month)?, number(day)?)?;
    let of_day = time.map_or(Some(0), time_ms)?;
    Some(day_number * MS_PER_DAY + of_day)
}

/// Milliseconds since midnight UTC; may be negative or beyond a day where there is a zone.
fn time_ms(text: &str) -> Option<i64> {
    let (clock, zone_ms) = if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        (clock, 0)
    } else if let Some(at) = text.rfind(['+', '-']) {
        let (clock, zone) = text.split_at_checked(at)?;
        let sign = if zone.starts_with('-') { -1 } else { 1 };
        let (hours, minutes) = zone.get(1..)?.split_once(':')?;
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        if hours > 23 || minutes > 59 {
            return None;
        }
        (clock, sign * (hours * 60 + minutes) * 60 * MS_PER_SECOND)
    } else {
        (text, 0)
    };
    let mut parts = clock.split(':');
    let (hours, minutes) = (number(parts.next()?)?, number(parts.next()?)?);
    let (seconds, ms) = match parts.next() {
        None => (0, 0),
        Some(seconds) => match seconds.split_once('.') {
            None => (number(seconds)?, 0),
            Some((whole, fraction)) => (number(whole)?, fraction_ms(fraction)?),
        },
    };
    if parts.next().is_some() || hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    Some(((hours * 60 + minutes) * 60 + seconds) * MS_PER_SECOND + ms - zone_ms)
}

fn fraction_ms(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > 9 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    format!("{text:0<3}").get(..3)?.parse().ok()
}

fn number(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if day < 1 || day > longest {
        return None;
    }
    // Counted from March, so that the day that may be missing is the last of its year.
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let shifted_month = (month + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let leaps =
        shifted_year.div_euclid(4) - shifted_year.div_euclid(100) + shifted_year.div_euclid(400);
    Some(shifted_year * 365 + leaps + day_of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_milliseconds_unless_their_count_says_otherwise() {
        assert_eq!(parse("1700000000000"), Ok(When::At(1_700_000_000_000)));
        assert_eq!(parse("978307200000"), Ok(When::At(978_307_200_000)));
        assert_eq!(parse("1700000000"), Ok(When::At(1_700_000_000_000)));
        assert_eq!(
            parse("1700000000123456789"),
            Ok(When::At(1_700_000_000_123))
        );
        assert_eq!(parse("0"), Ok(When::At(0)));
        assert!(parse("99999999999999999999").is_err());
    }

    #[test]
    fn dates_are_utc_unless_they_name_a_zone() {
        assert_eq!(parse("1970-01-01"), Ok(When::At(0)));
        assert_eq!(parse("2000-02-29"), Ok(When::At(951_782_400_000)));
        assert_eq!(
            parse("2026-11-01T12:00:00Z"),
            Ok(When::At(1_793_534_400_000))
        );
        assert_eq!(
            parse("2026-11-01T14:00:00.250+02:00"),
            Ok(When::At(1_793_534_400_250))
        );
        assert_eq!(parse("2026-11-01T12:00"), Ok(When::At(1_793_534_400_000)));
        assert_eq!(parse("1969-12-31T23:59:59Z"), Ok(When::At(-1_000)));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "x",
            "2026-13-01",
            "2026-02-29",
            "2026-1-1-1",
            "26-01-01",
            "2026-11-01T",
            "2026-11-01T25:00",
            "-5y",
            "-m",
            "2026-11-01T12:00+2",
            "1e3",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_count_back_from_now() {
        assert_eq!(parse("-15m"), Ok(When::Ago(900_000)));
        assert_eq!(parse("-15m").map(|w| w.resolve(1_000_000)), Ok(100_000));
    }
}
