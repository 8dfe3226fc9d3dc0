//! What is produced and what is read back, and how they are compared.

use anyhow::{Context, Result, bail, ensure};
use std::fmt;

/// A record as its producer gave it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A record as it stands in a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    pub(crate) offset: i64,
    pub(crate) event: Event,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<String> = self
            .headers
            .iter()
            .map(|(name, value)| format!("{name}={}", short(value.as_deref())))
            .collect();
        write!(
            f,
            "at {} key {} value {} headers {headers:?}",
            self.timestamp_ms,
            short(self.key.as_deref()),
            short(self.value.as_deref())
        )
    }
}

/// Enough of some bytes to recognise them by.
fn short(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "null".to_owned(),
        Some(bytes) if bytes.len() > 48 => {
            format!(
                "\"{}...\" ({} bytes)",
                bytes[..40].escape_ascii(),
                bytes.len()
            )
        }
        Some(bytes) => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// Demands the same list, record by record and byte by byte, and names the first that differs.
pub(crate) fn compare(what: &str, expected: &[Stored], got: &[Stored]) -> Result<()> {
    for (position, pair) in expected.iter().zip(got).enumerate() {
        let (expected, got) = pair;
        ensure!(
            expected == got,
            "{what}: record {position} differs\n  expected {expected:?}\n  got      {got:?}"
        );
    }
    ensure!(
        expected.len() == got.len(),
        "{what}: {} records expected, {} read; {}",
        expected.len(),
        got.len(),
        match (expected.get(got.len()), got.get(expected.len())) {
            (Some(missing), _) => format!("the first missing is {missing:?}"),
            (_, Some(extra)) => format!("the first too many is {extra:?}"),
            _ => String::new(),
        }
    );
    Ok(())
}

/// The offset that a lookup by timestamp must answer: the first record in the log's order that is
/// not older. `None` where there is none.
pub(crate) fn offset_at(log: &[Stored], timestamp_ms: i64) -> Option<i64> {
    log.iter()
        .find(|stored| stored.event.timestamp_ms >= timestamp_ms)
        .map(|stored| stored.offset)
}

/// The part of a log from an offset on.
pub(crate) fn from_offset(log: &[Stored], offset: i64) -> &[Stored] {
    let begin = log
        .iter()
        .position(|stored| stored.offset >= offset)
        .unwrap_or(log.len());
    &log[begin..]
}

/// One line of the text in which tests and clients in other languages exchange events:
/// timestamp, key, value and headers between tabs; bytes as `x` and hexadecimal digits, `-` for
/// null; headers as `name=value` between commas, names in the same digits.
pub(crate) fn to_line(event: &Event) -> String {
    let headers: Vec<String> = event
        .headers
        .iter()
        .map(|(name, value)| {
            format!(
                "{}={}",
                to_hex(Some(name.as_bytes())),
                to_hex(value.as_deref())
            )
        })
        .collect();
    format!(
        "{}\t{}\t{}\t{}",
        event.timestamp_ms,
        to_hex(event.key.as_deref()),
        to_hex(event.value.as_deref()),
        headers.join(",")
    )
}

/// The event of a line of [`to_line`].
pub(crate) fn from_line(line: &str) -> Result<Event> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [timestamp, key, value, headers] = fields[..] else {
        bail!("a line of {} fields: {line}", fields.len());
    };
    let mut event = Event {
        timestamp_ms: timestamp.parse()?,
        key: from_hex(key)?,
        value: from_hex(value)?,
        headers: Vec::new(),
    };
    for header in headers.split(',').filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once('=').context("a header without a value")?;
        let name = from_hex(name)?.context("a header with a null name")?;
        event
            .headers
            .push((String::from_utf8(name)?, from_hex(value)?));
    }
    Ok(event)
}

pub(crate) fn to_hex(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else {
        return "-".to_owned();
    };
    let mut text = String::with_capacity(1 + 2 * bytes.len());
    text.push('x');
    for byte in bytes {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap());
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap());
    }
    text
}

pub(crate) fn from_hex(text: &str) -> Result<Option<Vec<u8>>> {
    if text == "-" {
        return Ok(None);
    }
    let digits = text
        .strip_prefix('x')
        .with_context(|| format!("neither null nor bytes: {text}"))?;
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.as_bytes().chunks(2) {
        bytes.push(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    }
    Ok(Some(bytes))
}
