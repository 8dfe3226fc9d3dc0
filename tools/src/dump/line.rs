//! One thing that is shown: named values, of which people see columns and scripts see JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use riverrun_replication::controller::Room;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::text;
use crate::base64;

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Flag(bool),
    /// A flag of which people see both.
    Answer(bool),
    Signed(i64),
    /// A number of which -1 means that there is none.
    OrNone(i64),
    Unsigned(u64),
    Checksum(u32),
    /// Milliseconds since 1970; -1 means none.
    Time(i64),
    Text(Cow<'a, str>),
    Bytes(Option<&'a [u8]>),
    List(Vec<Value<'a>>),
    Map(&'a BTreeMap<String, String>),
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Signed(value)
    }
}

impl From<i32> for Value<'_> {
    fn from(value: i32) -> Self {
        Self::Signed(value.into())
    }
}

impl From<u64> for Value<'_> {
    fn from(value: u64) -> Self {
        Self::Unsigned(value)
    }
}

impl From<u32> for Value<'_> {
    fn from(value: u32) -> Self {
        Self::Unsigned(value.into())
    }
}

impl From<usize> for Value<'_> {
    fn from(value: usize) -> Self {
        Self::Unsigned(value as u64)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(Cow::Borrowed(value))
    }
}

impl From<String> for Value<'_> {
    fn from(value: String) -> Self {
        Self::Text(Cow::Owned(value))
    }
}

impl From<uuid::Uuid> for Value<'_> {
    fn from(value: uuid::Uuid) -> Self {
        Self::Text(value.to_string().into())
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(Some(value))
    }
}

impl Value<'_> {
    fn is_number(&self) -> bool {
        matches!(self, Self::Signed(_) | Self::OrNone(_) | Self::Unsigned(_))
    }

    /// Whether people need not see it where it is not a column.
    fn is_idle(&self) -> bool {
        match self {
            Self::Flag(set) => !set,
            Self::OrNone(number) | Self::Time(number) => *number == -1,
            Self::Text(text) => text.is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Map(pairs) => pairs.is_empty(),
            _ => false,
        }
    }

    fn write(&self, out: &mut String) {
        // Writing to a string does not fail.
        let _ = match self {
            Self::Flag(true) => out.write_str("yes"),
            Self::Flag(false) => out.write_str("NO"),
            Self::Answer(answer) => write!(out, "{answer}"),
            Self::OrNone(-1) | Self::Time(-1) => out.write_str("-"),
            Self::Signed(number) | Self::OrNone(number) => write!(out, "{number}"),
            Self::Unsigned(number) => write!(out, "{number}"),
            Self::Checksum(crc) => write!(out, "{crc:08x}"),
            Self::Time(ms) => out.write_str(&text::utc(*ms)),
            Self::Text(text) => {
                plain(text, out);
                Ok(())
            }
            Self::Bytes(None) => out.write_str("null"),
            Self::Bytes(Some(bytes)) => {
                text::quote(bytes, out);
                Ok(())
            }
            Self::List(items) => {
                out.push('[');
                for (n, item) in items.iter().enumerate() {
                    if n > 0 {
                        out.push_str(", ");
                    }
                    item.write(out);
                }
                out.push(']');
                Ok(())
            }
            Self::Map(pairs) => {
                out.push('{');
                for (n, (name, value)) in pairs.iter().enumerate() {
                    if n > 0 {
                        out.push_str(", ");
                    }
                    plain(name, out);
                    out.push('=');
                    plain(value, out);
                }
                out.push('}');
                Ok(())
            }
        };
    }
}

/// Text as it is. What a file says is not let loose on a terminal.
fn plain(text: &str, out: &mut String) {
    if text.chars().any(char::is_control) {
        text::quote(text.as_bytes(), out);
    } else {
        out.push_str(text);
    }
}

/// Bytes that are text, as scripts get them; the others have another name and are base 64.
fn utf8<'a>(bytes: &Option<&'a [u8]>) -> Result<Option<&'a str>, &'a [u8]> {
    match bytes {
        None => Ok(None),
        Some(bytes) => std::str::from_utf8(bytes).map(Some).map_err(|_| *bytes),
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Flag(set) | Self::Answer(set) => serializer.serialize_bool(*set),
            Self::Signed(number) | Self::OrNone(number) | Self::Time(number) => {
                serializer.serialize_i64(*number)
            }
            Self::Unsigned(number) => serializer.serialize_u64(*number),
            Self::Checksum(crc) => serializer.collect_str(&format_args!("{crc:08x}")),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => match utf8(bytes) {
                Ok(None) => serializer.serialize_none(),
                Ok(Some(text)) => serializer.serialize_str(text),
                // In a list there is no other name to put it under.
                Err(bytes) => {
                    serializer.collect_str(&format_args!("base64:{}", base64::standard(bytes)))
                }
            },
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Map(pairs) => serializer.collect_map(*pairs),
        }
    }
}

#[derive(Debug, Clone)]
struct Field<'a> {
    name: &'static str,
    value: Value<'a>,
    /// At least this wide, for a column.
    width: Option<usize>,
}

/// One thing that is shown.
#[derive(Debug, Clone)]
pub(super) struct Line<'a> {
    kind: &'static str,
    fields: Vec<Field<'a>>,
}

impl<'a> Line<'a> {
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            fields: Vec::new(),
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    /// A field that has the same place in every line of this kind.
    pub(super) fn column(
        mut self,
        name: &'static str,
        width: usize,
        value: impl Into<Value<'a>>,
    ) -> Self {
        self.fields.push(Field {
            name,
            value: value.into(),
            width: Some(width),
        });
        self
    }

    /// A field that people see with its name, behind the columns, and only where it says something.
    pub(super) fn detail(mut self, name: &'static str, value: impl Into<Value<'a>>) -> Self {
        self.fields.push(Field {
            name,
            value: value.into(),
            width: None,
        });
        self
    }

    /// What a node has room for, where it has said.
    pub(super) fn room(self, room: Option<Room>) -> Self {
        match room {
            None => self,
            Some(room) => self
                .detail("descriptors", room.descriptors)
                .detail("room", room.replicas),
        }
    }

    fn columns(&self) -> impl Iterator<Item = (&Field<'a>, usize)> {
        self.fields
            .iter()
            .filter_map(|field| Some((field, field.width?.max(field.name.len()))))
    }

    pub(super) fn has_columns(&self) -> bool {
        self.columns().next().is_some()
    }

    /// The names above the columns.
    pub(super) fn heading(&self) -> String {
        let mut out = String::new();
        for (field, width) in self.columns() {
            let name = field.name.to_uppercase().replace('_', "-");
            pad(&mut out, &name, width, field.value.is_number());
        }
        out.trim_end().to_owned()
    }

    /// The line for people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for (field, width) in self.columns() {
            let mut value = String::new();
            field.value.write(&mut value);
            pad(&mut out, &value, width, field.value.is_number());
        }
        if !self.has_columns() {
            let _ = write!(out, "{}: ", self.kind);
        }
        for field in &self.fields {
            if field.width.is_some() || field.value.is_idle() {
                continue;
            }
            out.push_str(field.name);
            if field.value != Value::Flag(true) {
                out.push('=');
                field.value.write(&mut out);
            }
            out.push_str("  ");
        }
        out.truncate(out.trim_end().len());
        out
    }
}

fn pad(out: &mut String, text: &str, width: usize, to_the_right: bool) {
    // Writing to a string does not fail.
    let _ = if to_the_right {
        write!(out, "{text:>width$}  ")
    } else {
        write!(out, "{text:<width$}  ")
    };
}

/// A line with the file that it is about, for scripts.
#[derive(Debug)]
pub(super) struct InFile<'a>(pub(super) &'a str, pub(super) &'a Line<'a>);

impl Serialize for InFile<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(file, line) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", line.kind)?;
        map.serialize_entry("file", file)?;
        for field in &line.fields {
            match &field.value {
                Value::Bytes(bytes) if utf8(bytes).is_err() => {
                    let coded = base64::standard(bytes.unwrap_or_default());
                    map.serialize_entry(&format!("{}_base64", field.name), &coded)?;
                }
                value => map.serialize_entry(field.name, value)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn people_see_columns_and_scripts_see_every_field() {
        let line = Line::new("batch")
            .column("base_offset", 0, 7_i64)
            .column("codec", 6, "none")
            .detail("transactional", false)
            .detail("control", true)
            .detail("producer_id", Value::OrNone(-1))
            .detail("key", Value::Bytes(Some(b"\xff\x1b")));
        assert_eq!(line.heading(), "BASE-OFFSET  CODEC");
        assert_eq!(
            line.text(),
            "          7  none    control  key=\"\\xff\\x1b\""
        );
        assert_eq!(
            serde_json::to_string(&InFile("f", &line)).unwrap(),
            r#"{"type":"batch","file":"f","base_offset":7,"codec":"none","transactional":false,"control":true,"producer_id":-1,"key_base64":"/xs="}"#
        );
    }
}
