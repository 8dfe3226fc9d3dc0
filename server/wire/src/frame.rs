//! What surrounds a message on a connection: the length prefix and the headers.

use bytes::Bytes;

use crate::codec::{At, Encoded, Message, Nullable, Reader, Request, Writer};
use crate::{ApiKey, WireError};

/// Every frame begins with its length in so many bytes, which the length does not count.
pub const LENGTH_PREFIX_BYTES: usize = 4;

/// The length of the frame that begins with these bytes, without the prefix; `None` if there are
/// too few bytes to say.
///
/// # Errors
/// If the length is negative or above `max_bytes`: the connection cannot be read any further.
pub fn frame_len(bytes: &[u8], max_bytes: usize) -> Result<Option<usize>, WireError> {
    let Some(prefix) = bytes.first_chunk::<LENGTH_PREFIX_BYTES>() else {
        return Ok(None);
    };
    let claimed = i32::from_be_bytes(*prefix);
    match usize::try_from(claimed) {
        Ok(len) if len <= max_bytes => Ok(Some(len)),
        _ => Err(WireError::FrameLength {
            len: claimed.into(),
            max: max_bytes,
        }),
    }
}

/// What stands before every request.
///
/// Version 0 has no client id and is used by no API any more, version 1 is the classic one, and
/// version 2 adds tagged fields, of which none is defined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// The number of the API, which may be one that the codec does not speak.
    pub api_key: i16,
    /// The version of the request and of its response.
    pub api_version: i16,
    /// Repeated in the response.
    pub correlation_id: i32,
    /// How the client calls itself.
    pub client_id: Option<String>,
}

/// The client id keeps the classic length in every version: a server must be able to read the
/// header of a request whose version it does not know.
const CLIENT_ID: At = At {
    version: 1,
    flexible: false,
    nullable: true,
    field: "client_id",
};

impl RequestHeader {
    /// The API, if the codec speaks it.
    #[must_use]
    pub fn api(&self) -> Option<ApiKey> {
        ApiKey::from_number(self.api_key)
    }

    /// Reads the header, in the version that its own first four bytes call for. After the header
    /// of an unknown API nothing can be read: which version it has is not known.
    ///
    /// # Errors
    /// If the bytes are no header.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut header = Self {
            api_key: reader.i16()?,
            api_version: reader.i16()?,
            correlation_id: reader.i32()?,
            client_id: None,
        };
        header.client_id = Nullable::read(reader, CLIENT_ID)?;
        let version = header
            .api()
            .map_or(1, |api| api.request_header_version(header.api_version));
        if version >= 2 {
            reader.tagged(|_, _| Ok(false))?;
        }
        Ok(header)
    }

    /// Writes the header in the given version of headers.
    ///
    /// # Errors
    /// If the client id is longer than 32767 bytes.
    pub fn encode(&self, writer: &mut Writer, header_version: i16) -> Result<(), WireError> {
        writer.i16(self.api_key);
        writer.i16(self.api_version);
        writer.i32(self.correlation_id);
        if header_version >= 1 {
            Nullable::write(self.client_id.as_ref(), writer, CLIENT_ID)?;
        }
        if header_version >= 2 {
            writer.uvarint(0);
        }
        Ok(())
    }
}

/// Begins a frame; [`finish`] puts the length in.
fn begin() -> Writer {
    let mut writer = Writer::with_capacity(256);
    writer.i32(0);
    writer
}

fn finish(mut writer: Writer) -> Result<Encoded, WireError> {
    let len = writer.len() - LENGTH_PREFIX_BYTES;
    let stored = i32::try_from(len).map_err(|_| WireError::TooLong {
        field: "frame",
        len,
    })?;
    writer.patch_front(stored);
    Ok(writer.finish())
}

/// A whole request frame: length, header and body.
///
/// # Errors
/// If the version is not supported or cannot express the request.
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Result<Encoded, WireError> {
    let header = RequestHeader {
        api_key: R::API.number(),
        api_version: version,
        correlation_id,
        client_id: client_id.map(str::to_owned),
    };
    let mut writer = begin();
    header.encode(&mut writer, R::API.request_header_version(version))?;
    request.encode(&mut writer, version)?;
    finish(writer)
}

/// A whole response frame: length, header and body.
///
/// # Errors
/// If the version is not supported or cannot express the response.
pub fn encode_response<M: Message>(
    response: &M,
    version: i16,
    correlation_id: i32,
) -> Result<Encoded, WireError> {
    let mut writer = begin();
    writer.i32(correlation_id);
    if M::API.response_header_version(version) >= 1 {
        writer.uvarint(0);
    }
    response.encode(&mut writer, version)?;
    finish(writer)
}

/// The correlation id of a response frame (without its length prefix), which says to which
/// request it belongs and so how the rest is to be read.
///
/// # Errors
/// If the frame is shorter than that.
pub fn correlation_id(frame: &[u8]) -> Result<i32, WireError> {
    Reader::borrowed(frame).i32()
}

/// The body of a response frame (without its length prefix). Byte fields share its memory.
///
/// # Errors
/// If the bytes are not such a response.
pub fn decode_response<M: Message>(frame: &Bytes, version: i16) -> Result<M, WireError> {
    let mut reader = Reader::new(frame);
    reader.i32()?;
    if M::API.response_header_version(version) >= 1 {
        reader.tagged(|_, _| Ok(false))?;
    }
    M::decode(&mut reader, version)
}
