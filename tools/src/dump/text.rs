//! Bytes and times as people read them.

use std::fmt::Write;

const MS_PER_DAY: i64 = 86_400_000;
/// Times outside the years 1 to 9999 are shown as the numbers that they are.
const FIRST_MS: i64 = -62_135_596_800_000;
const LAST_MS: i64 = 253_402_300_799_999;

/// A point in time, in UTC.
pub(super) fn utc(ms: i64) -> String {
    if !(FIRST_MS..=LAST_MS).contains(&ms) {
        return ms.to_string();
    }
    let (year, month, day) = date(ms.div_euclid(MS_PER_DAY));
    let of_day = ms.rem_euclid(MS_PER_DAY);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// The date of a day since 1970, in the Gregorian calendar. Years are counted from March, so that a
/// leap day is the last of its year.
fn date(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_400_YEARS: i64 = 146_097;
    const DAYS_FROM_MARCH_OF_0_TO_1970: i64 = 719_468;
    let days = days + DAYS_FROM_MARCH_OF_0_TO_1970;
    let cycle = days.div_euclid(DAYS_PER_400_YEARS);
    let of_cycle = days.rem_euclid(DAYS_PER_400_YEARS);
    let year_of_cycle = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = 400 * cycle + year_of_cycle + i64::from(month <= 2);
    (year, month, day)
}

/// Bytes in quotation marks: what is text and printable as it is, the rest escaped.
pub(super) fn quote(bytes: &[u8], out: &mut String) {
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c.is_control() => {
                    let mut utf8 = [0; 4];
                    hex(c.encode_utf8(&mut utf8).as_bytes(), out);
                }
                c => out.push(c),
            }
        }
        hex(chunk.invalid(), out);
    }
    out.push('"');
}

fn hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(out, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (FIRST_MS, "0001-01-01T00:00:00.000Z"),
            (LAST_MS, "9999-12-31T23:59:59.999Z"),
            (i64::MAX, "9223372036854775807"),
            (i64::MIN, "-9223372036854775808"),
        ] {
            assert_eq!(utc(ms), text);
        }
    }

    #[test]
    fn bytes_are_escaped_where_they_are_not_printable() {
        let mut out = String::new();
        quote("a\"\\\n\u{1b}[31m\u{85}é".as_bytes(), &mut out);
        quote(b"\xff\x00z", &mut out);
        assert_eq!(out, "\"a\\\"\\\\\\n\\x1b[31m\\xc2\\x85é\"\"\\xff\\x00z\"");
    }
}
