//! The syntax of a properties file, as Java reads one.
//!
//! A line is `name=value`, `name: value` or `name value`; `#` and `!` begin a comment; a backslash
//! at the end of a line continues it, and elsewhere begins an escape (`\t \n \r \f \\ \uXXXX`; any
//! other character stands for itself, so a name may hold a `\=` or `\:`). Of a name that stands
//! there twice the last value counts.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The largest file that is read.
pub const MAX_BYTES: usize = 1 << 20;

/// A name with its value, and the line that it begins on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// Counted from 1.
    pub line: usize,
    /// The name.
    pub name: String,
    /// The value; blanks at its end are still there.
    pub value: String,
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum PropertiesError {
    /// It cannot be opened or read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is larger than any configuration.
    #[error("it is larger than {MAX_BYTES} bytes, which no configuration is")]
    TooLarge,
    /// An escape that stands for no character.
    #[error("line {line}: \\u needs four hexadecimal digits that make a character")]
    Escape {
        /// The line that its name begins on.
        line: usize,
    },
}

/// Reads a file.
///
/// # Errors
/// See [`PropertiesError`].
pub fn read(path: &Path) -> Result<Vec<Property>, PropertiesError> {
    let mut bytes = Vec::new();
    // One byte more shows that there is more.
    File::open(path)?
        .take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    parse(&bytes)
}

/// Reads the bytes of a file. They are UTF-8, or else ISO 8859-1, which is what Java takes them for.
///
/// # Errors
/// When they are more than [`MAX_BYTES`], or hold an escape that stands for no character.
pub fn parse(bytes: &[u8]) -> Result<Vec<Property>, PropertiesError> {
    if bytes.len() > MAX_BYTES {
        return Err(PropertiesError::TooLarge);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(_) => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
    };
    let mut lines = Lines {
        rest: &text,
        number: 0,
    };
    let mut properties = Vec::new();
    while let Some((line, text)) = lines.logical() {
        let (name, value) = split(&text);
        let unescape = |text| unescape(text).ok_or(PropertiesError::Escape { line });
        properties.push(Property {
            line,
            name: unescape(name)?,
            value: unescape(value)?,
        });
    }
    Ok(properties)
}

const BLANKS: [char; 3] = [' ', '\t', '\u{c}'];

/// What is left of the text, and how many lines have been read.
struct Lines<'a> {
    rest: &'a str,
    number: usize,
}

impl<'a> Lines<'a> {
    /// The next line as it stands, without its end.
    fn natural(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        self.number += 1;
        let Some((line, rest)) = self.rest.split_once(['\n', '\r']) else {
            return Some(std::mem::take(&mut self.rest));
        };
        let is_return = self.rest.as_bytes().get(line.len()) == Some(&b'\r');
        self.rest = rest
            .strip_prefix('\n')
            .filter(|_| is_return)
            .unwrap_or(rest);
        Some(line)
    }

    /// The next line that says something, with its continuations, and the number of the first.
    fn logical(&mut self) -> Option<(usize, Cow<'a, str>)> {
        loop {
            let line = self.natural()?.trim_start_matches(BLANKS);
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            let number = self.number;
            let Some(begun) = continued(line) else {
                return Some((number, Cow::Borrowed(line)));
            };
            let mut whole = begun.to_owned();
            while let Some(line) = self.natural() {
                let line = line.trim_start_matches(BLANKS);
                whole.push_str(continued(line).unwrap_or(line));
                if continued(line).is_none() {
                    break;
                }
            }
            if !whole.is_empty() {
                return Some((number, Cow::Owned(whole)));
            }
        }
    }
}

/// What stands before the backslash that continues a line. Two of them are one that does not.
fn continued(line: &str) -> Option<&str> {
    let backslashes = line.len() - line.trim_end_matches('\\').len();
    line.strip_suffix('\\').filter(|_| backslashes % 2 == 1)
}

/// Parts name and value: at the first `=`, `:` or blank that no backslash escapes.
fn split(line: &str) -> (&str, &str) {
    let mut is_escaped = false;
    let at = line.find(|c: char| {
        let parts = !is_escaped && (matches!(c, '=' | ':') || BLANKS.contains(&c));
        is_escaped = c == '\\' && !is_escaped;
        parts
    });
    let (name, rest) = line.split_at(at.unwrap_or(line.len()));
    let rest = rest.trim_start_matches(BLANKS);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (name, rest.trim_start_matches(BLANKS))
}

/// Puts characters in the place of escapes; nothing where one stands for none.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => out.push(unicode(&mut chars)?),
            Some(other) => out.push(other),
            None => {}
        }
    }
    Some(out)
}

/// The character of a `\uXXXX`, or of two that are a surrogate pair.
fn unicode(chars: &mut std::str::Chars) -> Option<char> {
    let first = unit(chars)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(u32::from(first));
    }
    let is_escape = chars.next() == Some('\\') && chars.next() == Some('u');
    let second = unit(chars).filter(|_| is_escape)?;
    char::decode_utf16([first, second]).next()?.ok()
}

/// Four hexadecimal digits.
fn unit(chars: &mut std::str::Chars) -> Option<u16> {
    let mut value = 0;
    for _ in 0..4 {
        let digit = chars.next()?.to_digit(16)?;
        value = value << 4 | u16::try_from(digit).ok()?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let properties = parse(text.as_bytes()).unwrap().into_iter();
        properties.map(|p| (p.name, p.value)).collect()
    }

    fn one(text: &str) -> (String, String) {
        let found = pairs(text);
        assert_eq!(found.len(), 1, "{text:?} {found:?}");
        found.into_iter().next().unwrap()
    }

    #[test]
    fn name_and_value_are_parted_as_java_does() {
        for text in [
            "a=b",
            "a = b",
            "a:b",
            "a: b",
            "a b",
            "a\tb",
            "  a=b",
            "\u{c}a  :  b",
            "a\\\n=b",
            "a=\\\n  b",
            "a=\\\r\n\tb",
            "\\a=\\b",
            "\\u0061=\\u0062",
            "\u{feff}a=b",
            "a\\\n\\\n=b",
        ] {
            assert_eq!(one(text), ("a".to_owned(), "b".to_owned()), "{text:?}");
        }
        for (text, name, value) in [
            ("a", "a", ""),
            ("a=", "a", ""),
            ("a==b", "a", "=b"),
            ("a = = b", "a", "= b"),
            ("a\\=b\\:c\\ d=e", "a=b:c d", "e"),
            ("a=b=c:d e", "a", "b=c:d e"),
            ("a=b  ", "a", "b  "),
            ("a=\\t\\n\\r\\f\\\\x\\q", "a", "\t\n\r\u{c}\\xq"),
            ("a=C\\:\\\\kafka", "a", "C:\\kafka"),
            ("a=\\u00e9\\ud83d\\udca7", "a", "\u{e9}\u{1f4a7}"),
            ("a=b\\\\\\\nc", "a", "b\\c"),
            ("a=b\\", "a", "b"),
            ("=b", "", "b"),
            ("a=b # no comment", "a", "b # no comment"),
        ] {
            assert_eq!(one(text), (name.to_owned(), value.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn comments_and_empty_lines_say_nothing_and_count_as_lines() {
        let text =
            "# a=1 \\\n! b=2\n\n  \t\n  # c\r\nd=4\r\r\ne=5,\\\n  # no comment\nf=6\\\n\ng=7\n\\";
        let found = parse(text.as_bytes()).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|p| (p.line, p.name.as_str(), p.value.as_str()))
            .collect();
        let expected = [
            (6, "d", "4"),
            (8, "e", "5,# no comment"),
            (10, "f", "6"),
            (12, "g", "7"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn bytes_that_are_no_text_are_taken_for_latin() {
        let found = parse(b"a=\xe9 # \xff").unwrap();
        assert_eq!(found.first().unwrap().value, "\u{e9} # \u{ff}");
    }

    #[test]
    fn what_is_too_large_or_no_character_is_refused() {
        let most = vec![b'#'; MAX_BYTES];
        assert!(parse(&most).unwrap().is_empty());
        let more = vec![b'#'; MAX_BYTES + 1];
        assert!(matches!(parse(&more), Err(PropertiesError::TooLarge)));
        for text in [
            "a=\\u12",
            "a=\\u12g4",
            "a=\\ud83d",
            "a=\\ud83dx",
            "a=\\ud83d\\u0041",
            "a=\\udca7",
            "\\u=b",
            "a=\\u+123",
            "a=\\ud83d\\",
        ] {
            let text = format!("first=1\n{text}");
            let refused = parse(text.as_bytes());
            assert!(
                matches!(refused, Err(PropertiesError::Escape { line: 2 })),
                "{text:?} {refused:?}"
            );
        }
    }

    /// Every short text of the characters that mean something: none of them may be a panic, and
    /// what is found in it cannot be longer than it.
    #[test]
    fn no_text_is_too_strange() {
        const CHARS: [char; 11] = ['a', '=', ':', ' ', '#', '\\', '\n', '\r', 'u', '0', 'd'];
        for number in 0..CHARS.len().pow(5) {
            let text: String = (0..5)
                .map(|place| {
                    CHARS
                        .get(number / CHARS.len().pow(place) % CHARS.len())
                        .unwrap()
                })
                .collect();
            for property in parse(text.as_bytes()).unwrap_or_default() {
                assert!(property.name.len() + property.value.len() <= text.len());
                assert!(property.line >= 1 && property.line <= 5);
            }
        }
    }
}
