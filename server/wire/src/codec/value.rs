//! How each type of field is read and written.
//!
//! A *classic* version stores a string's length in two bytes and the length of arrays, bytes and
//! records in four, with -1 for null. A *flexible* version stores every length plus one as a
//! variable-length integer, with 0 for null, and ends every struct with a section of tagged
//! fields. A struct that may be null is preceded by one byte: negative for null.

use bytes::Bytes;
use uuid::Uuid;

use crate::codec::{Reader, Writer};
use crate::{Records, WireError};

/// Where a value stands: all that its encoding depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub version: i16,
    pub flexible: bool,
    /// Whether this version lets this field be null.
    pub nullable: bool,
    pub field: &'static str,
}

impl At {
    fn null(self) -> WireError {
        WireError::UnexpectedNull {
            field: self.field,
            version: self.version,
        }
    }

    fn element(self) -> Self {
        Self {
            nullable: false,
            ..self
        }
    }

    /// The size of the shortest length prefix.
    fn prefix(self, classic: usize) -> usize {
        if self.flexible { 1 } else { classic }
    }
}

/// A value that is always there.
pub(crate) trait Value: Sized {
    /// The fewest bytes that encode a value.
    fn min_bytes(at: At) -> usize;
    fn read(reader: &mut Reader<'_>, at: At) -> Result<Self, WireError>;
    fn write(&self, writer: &mut Writer, at: At) -> Result<(), WireError>;
}

/// A value whose encoding has a null.
pub(crate) trait Nullable: Sized {
    fn min_bytes(at: At) -> usize;
    fn read(reader: &mut Reader<'_>, at: At) -> Result<Option<Self>, WireError>;
    fn write(value: Option<&Self>, writer: &mut Writer, at: At) -> Result<(), WireError>;
}

impl<T: Nullable> Value for Option<T> {
    fn min_bytes(at: At) -> usize {
        <T as Nullable>::min_bytes(at)
    }

    fn read(reader: &mut Reader<'_>, at: At) -> Result<Self, WireError> {
        let value = T::read(reader, at)?;
        if value.is_none() && !at.nullable {
            Err(at.null())
        } else {
            Ok(value)
        }
    }

    fn write(&self, writer: &mut Writer, at: At) -> Result<(), WireError> {
        if self.is_none() && !at.nullable {
            return Err(at.null());
        }
        T::write(self.as_ref(), writer, at)
    }
}

macro_rules! numbers {
    ($($ty:ty),*) => { $(
        impl Value for $ty {
            fn min_bytes(_: At) -> usize {
                size_of::<$ty>()
            }

            fn read(reader: &mut Reader<'_>, _: At) -> Result<Self, WireError> {
                reader.fixed().map(<$ty>::from_be_bytes)
            }

            fn write(&self, writer: &mut Writer, _: At) -> Result<(), WireError> {
                writer.slice(&self.to_be_bytes());
                Ok(())
            }
        }
    )* };
}

numbers!(i8, i16, u16, i32, i64, f64);

impl Value for bool {
    fn min_bytes(_: At) -> usize {
        1
    }

    fn read(reader: &mut Reader<'_>, _: At) -> Result<Self, WireError> {
        reader.fixed().map(|[byte]| byte != 0)
    }

    fn write(&self, writer: &mut Writer, _: At) -> Result<(), WireError> {
        writer.slice(&[u8::from(*self)]);
        Ok(())
    }
}

impl Value for Uuid {
    fn min_bytes(_: At) -> usize {
        16
    }

    fn read(reader: &mut Reader<'_>, _: At) -> Result<Self, WireError> {
        reader.fixed().map(Self::from_bytes)
    }

    fn write(&self, writer: &mut Writer, _: At) -> Result<(), WireError> {
        writer.slice(self.as_bytes());
        Ok(())
    }
}

/// Reads the length of a string, classic in two bytes.
pub(crate) fn read_string_len(reader: &mut Reader<'_>, at: At) -> Result<Option<usize>, WireError> {
    if at.flexible {
        return reader.compact_len();
    }
    Ok(usize::try_from(reader.i16()?).ok())
}

/// Reads the length of an array, of bytes or of records, classic in four bytes.
fn read_long_len(reader: &mut Reader<'_>, at: At) -> Result<Option<usize>, WireError> {
    if at.flexible {
        return reader.compact_len();
    }
    Ok(usize::try_from(reader.i32()?).ok())
}

fn write_string_len(writer: &mut Writer, at: At, len: Option<usize>) -> Result<(), WireError> {
    if at.flexible {
        return writer.compact_len(at.field, len);
    }
    let stored = len.map_or(Ok(-1), |len| {
        i16::try_from(len).map_err(|_| WireError::TooLong {
            field: at.field,
            len,
        })
    })?;
    writer.i16(stored);
    Ok(())
}

fn write_long_len(writer: &mut Writer, at: At, len: Option<usize>) -> Result<(), WireError> {
    if at.flexible {
        return writer.compact_len(at.field, len);
    }
    let stored = len.map_or(Ok(-1), |len| {
        i32::try_from(len).map_err(|_| WireError::TooLong {
            field: at.field,
            len,
        })
    })?;
    writer.i32(stored);
    Ok(())
}

impl Nullable for String {
    fn min_bytes(at: At) -> usize {
        at.prefix(2)
    }

    fn read(reader: &mut Reader<'_>, at: At) -> Result<Option<Self>, WireError> {
        let Some(len) = read_string_len(reader, at)? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(reader.slice(len)?)
            .map_err(|_| WireError::InvalidUtf8 { field: at.field })?;
        Ok(Some(text.to_owned()))
    }

    fn write(value: Option<&Self>, writer: &mut Writer, at: At) -> Result<(), WireError> {
        write_string_len(writer, at, value.map(Self::len))?;
        writer.slice(value.map_or(&[], |text| text.as_bytes()));
        Ok(())
    }
}

impl Nullable for Bytes {
    fn min_bytes(at: At) -> usize {
        at.prefix(4)
    }

    fn read(reader: &mut Reader<'_>, at: At) -> Result<Option<Self>, WireError> {
        read_long_len(reader, at)?
            .map(|len| reader.bytes(len))
            .transpose()
    }

    fn write(value: Option<&Self>, writer: &mut Writer, at: At) -> Result<(), WireError> {
        write_long_len(writer, at, value.map(Self::len))?;
        writer.slice(value.map_or(&[], |bytes| bytes));
        Ok(())
    }
}

impl Nullable for Records {
    fn min_bytes(at: At) -> usize {
        at.prefix(4)
    }

    fn read(reader: &mut Reader<'_>, at: At) -> Result<Option<Self>, WireError> {
        let len = read_long_len(reader, at)?;
        len.map(|len| reader.records(len).map(Self::from))
            .transpose()
    }

    fn write(value: Option<&Self>, writer: &mut Writer, at: At) -> Result<(), WireError> {
        write_long_len(writer, at, value.map(Self::len))?;
        for slice in value.map_or(&[][..], Self::slices) {
            writer.segment(slice);
        }
        Ok(())
    }
}

impl<T: Value> Nullable for Vec<T> {
    fn min_bytes(at: At) -> usize {
        at.prefix(4)
    }

    fn read(reader: &mut Reader<'_>, at: At) -> Result<Option<Self>, WireError> {
        let Some(count) = read_long_len(reader, at)? else {
            return Ok(None);
        };
        let at = at.element();
        reader.expect_elements(count, T::min_bytes(at))?;
        let mut elements = Self::with_capacity(count);
        for _ in 0..count {
            elements.push(T::read(reader, at)?);
        }
        Ok(Some(elements))
    }

    fn write(value: Option<&Self>, writer: &mut Writer, at: At) -> Result<(), WireError> {
        write_long_len(writer, at, value.map(Self::len))?;
        value
            .into_iter()
            .flatten()
            .try_for_each(|element| element.write(writer, at.element()))
    }
}

/// Types that have a null are values where there may be none.
macro_rules! never_null {
    ($([$($generic:tt)*] $ty:ty),*) => { $(
        impl<$($generic)*> Value for $ty {
            fn min_bytes(at: At) -> usize {
                <Self as Nullable>::min_bytes(at)
            }

            fn read(reader: &mut Reader<'_>, at: At) -> Result<Self, WireError> {
                <Self as Nullable>::read(reader, at)?.ok_or_else(|| at.null())
            }

            fn write(&self, writer: &mut Writer, at: At) -> Result<(), WireError> {
                <Self as Nullable>::write(Some(self), writer, at)
            }
        }
    )* };
}

never_null!([] String, [] Bytes, [] Records, [T: Value] Vec<T>);
