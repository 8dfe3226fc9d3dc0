//! kcat's and rpk's format letters: how one record is written.

use std::{
    io::{self, Write},
    str::FromStr,
};

use riverrun_client::Record;

/// A parsed format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    KeyLength,
    Value,
    ValueLength,
    /// Four bytes, big-endian, as kcat's `%R`.
    ValueLengthBinary,
    Timestamp,
    Headers,
}

impl Template {
    /// The value alone on a line, after the key and a delimiter where one is given.
    pub(crate) fn plain(key_delimiter: Option<&str>) -> Self {
        let mut parts = Vec::new();
        if let Some(delimiter) = key_delimiter {
            parts.extend([Part::Key, Part::Text(delimiter.as_bytes().to_vec())]);
        }
        parts.extend([Part::Value, Part::Text(b"\n".to_vec())]);
        Self { parts }
    }

    /// Writes one record.
    pub(crate) fn write(
        &self,
        out: &mut impl Write,
        topic: &str,
        partition: i32,
        record: &Record,
    ) -> io::Result<()> {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.write_all(text)?,
                Part::Topic => out.write_all(topic.as_bytes())?,
                Part::Partition => write!(out, "{partition}")?,
                Part::Offset => write!(out, "{}", record.offset)?,
                Part::Key => out.write_all(record.key.as_deref().unwrap_or_default())?,
                Part::KeyLength => write!(out, "{}", length(record.key.as_deref()))?,
                Part::Value => out.write_all(record.value.as_deref().unwrap_or_default())?,
                Part::ValueLength => write!(out, "{}", length(record.value.as_deref()))?,
                Part::ValueLengthBinary => {
                    out.write_all(&length(record.value.as_deref()).to_be_bytes())?
                }
                Part::Timestamp => write!(out, "{}", record.timestamp)?,
                Part::Headers => headers(out, record)?,
            }
        }
        Ok(())
    }
}

/// A length, -1 for null. A record is far below two gigabytes: a frame could not carry more.
fn length(bytes: Option<&[u8]>) -> i32 {
    bytes.map_or(-1, |b| i32::try_from(b.len()).unwrap_or(i32::MAX))
}

/// Headers as kcat writes them: `name=value`, separated by commas, `NULL` for a null value.
fn headers(out: &mut impl Write, record: &Record) -> io::Result<()> {
    for (n, (name, value)) in record.headers.iter().enumerate() {
        if n > 0 {
            out.write_all(b",")?;
        }
        out.write_all(name)?;
        out.write_all(b"=")?;
        out.write_all(value.as_deref().unwrap_or(b"NULL"))?;
    }
    Ok(())
}

impl FromStr for Template {
    type Err = String;

    fn from_str(format: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut text = Vec::new();
        let mut chars = format.chars().peekable();
        while let Some(c) = chars.next() {
            let part = match c {
                '%' => match chars.next() {
                    Some('%') => {
                        text.push(b'%');
                        continue;
                    }
                    Some('t') => Part::Topic,
                    Some('p') => Part::Partition,
                    Some('o') => Part::Offset,
                    Some('k') => Part::Key,
                    Some('K') => Part::KeyLength,
                    Some('s' | 'v') => Part::Value,
                    Some('S' | 'V') => Part::ValueLength,
                    Some('R') => Part::ValueLengthBinary,
                    Some('T' | 'd') => Part::Timestamp,
                    Some('h') => Part::Headers,
                    Some(other) => {
                        return Err(format!(
                            "%{other} is no letter: expected one of %t %p %o %k %K %s %S %v %V %R %T %d %h %%"
                        ));
                    }
                    None => return Err("a letter is missing after the last %".to_owned()),
                },
                '\\' => {
                    escape(&mut chars, &mut text)?;
                    continue;
                }
                other => {
                    text.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(part);
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(Self { parts })
    }
}

/// Reads what follows a backslash.
fn escape(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    text: &mut Vec<u8>,
) -> Result<(), String> {
    match chars.next() {
        Some('n') => text.push(b'\n'),
        Some('r') => text.push(b'\r'),
        Some('t') => text.push(b'\t'),
        Some('0') => text.push(0),
        Some('\\') => text.push(b'\\'),
        Some('x') => {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(|c| digits.len() < 2 && c.is_ascii_hexdigit()) {
                digits.push(digit);
            }
            let byte = u8::from_str_radix(&digits, 16)
                .map_err(|_| "two hexadecimal digits are missing after \\x".to_owned())?;
            text.push(byte);
        }
        Some(other) => {
            return Err(format!(
                "\\{other} is no escape: expected one of \\n \\r \\t \\0 \\xHH \\\\"
            ));
        }
        None => return Err("a letter is missing after the last \\".to_owned()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use bytes::Bytes;

    use super::*;

    fn written(format: &str, record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        format
            .parse::<Template>()
            .unwrap()
            .write(&mut out, "orders", 3, record)
            .unwrap();
        out
    }

    fn record() -> Record {
        Record {
            offset: 42,
            timestamp: 1_700_000_000_000,
            key: Some(Bytes::from_static(b"k1")),
            value: None,
            headers: vec![
                (Bytes::from_static(b"a"), Some(Bytes::from_static(b"1"))),
                (Bytes::from_static(b"b"), None),
            ],
        }
    }

    #[test]
    fn every_letter() {
        assert_eq!(
            written("%t/%p@%o %k %K|%s|%S|%v|%V %T %d %h %%\\n", &record()),
            b"orders/3@42 k1 2||-1||-1 1700000000000 1700000000000 a=1,b=NULL %\n"
        );
        assert_eq!(written("%R", &record()), [0xff; 4]);
    }

    #[test]
    fn escapes() {
        assert_eq!(
            written("\\t\\x41\\x4\\0\\\\é", &record()),
            "\tA\x04\0\\é".as_bytes()
        );
    }

    #[test]
    fn what_is_no_letter_is_refused() {
        for format in ["%q", "%", "\\q", "\\", "\\x", "%k%"] {
            assert!(format.parse::<Template>().is_err(), "{format}");
        }
    }

    #[test]
    fn plain_is_the_value_or_key_and_value() {
        let mut out = Vec::new();
        Template::plain(Some(":"))
            .write(&mut out, "t", 0, &record())
            .unwrap();
        assert_eq!(out, b"k1:\n");
    }
}
