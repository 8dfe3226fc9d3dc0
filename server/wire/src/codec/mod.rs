//! The bounded reader, the writer, and what turns a field table into both.

#[cfg(test)]
pub(crate) mod coverage;
mod reader;
pub(crate) mod table;
#[cfg(test)]
pub(crate) mod testing;
mod value;
mod writer;

pub use reader::Reader;
pub use writer::{Encoded, Writer};

pub(crate) use table::Rule;
pub(crate) use value::{At, Nullable, Value};

use crate::{ApiKey, WireError};

/// A message that can be read from the bytes of one of its versions.
pub trait Decode: Sized {
    /// Reads the body of a message; what follows it in the reader is left there.
    ///
    /// # Errors
    /// If the version is not supported or the bytes are not such a message.
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, WireError>;
}

/// A message that can be written in each of its versions.
pub trait Encode {
    /// Writes the body of a message.
    ///
    /// # Errors
    /// If the version is not supported or cannot express the message.
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), WireError>;
}

/// The request or the response of one API.
pub trait Message: Decode + Encode + Default {
    /// The API it belongs to.
    const API: ApiKey;
}

/// A request, which has one type of response.
pub trait Request: Message {
    /// What answers it.
    type Response: Message;
}
