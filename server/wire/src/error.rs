use crate::ApiKey;

/// Why bytes could not be decoded or a message could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes end before the value does, or a count needs more bytes than there are.
    #[error("{needed} bytes are needed and {remaining} are left")]
    Truncated {
        /// How many bytes the value needs at least.
        needed: usize,
        /// How many bytes there were.
        remaining: usize,
    },
    /// A variable-length integer does not end within 32 bits.
    #[error("a variable-length integer exceeds 32 bits")]
    InvalidVarint,
    /// A string is not UTF-8.
    #[error("{field} is not valid UTF-8")]
    InvalidUtf8 {
        /// The field that held it.
        field: &'static str,
    },
    /// A null where this version of the message has none, read or about to be written.
    #[error("{field} is null, which version {version} does not allow")]
    UnexpectedNull {
        /// The field that held it.
        field: &'static str,
        /// The version of the message.
        version: i16,
    },
    /// A tagged field is longer than the value in it.
    #[error("tagged field {tag} holds {left} bytes too many")]
    TagTooLong {
        /// The tag's number.
        tag: u32,
        /// How many bytes were not read.
        left: usize,
    },
    /// A string, array or byte field is too long for its length prefix.
    #[error("{field} is too long to be encoded: {len}")]
    TooLong {
        /// The field that held it.
        field: &'static str,
        /// Its length, in bytes or elements.
        len: usize,
    },
    /// A field is set although the version to be encoded has no place for it.
    #[error("{field} is set, which version {version} cannot express")]
    FieldNotInVersion {
        /// The field that is set.
        field: &'static str,
        /// The version of the message.
        version: i16,
    },
    /// The codec does not know this version of the API.
    #[error("version {version} of {} is not supported", api.name())]
    UnsupportedVersion {
        /// The API asked for.
        api: ApiKey,
        /// The version asked for.
        version: i16,
    },
    /// The API number is not in the table.
    #[error("api key {0} is not known")]
    UnknownApi(i16),
    /// A frame's length prefix is negative or above the limit.
    #[error("a frame of {len} bytes is outside the limit of {max}")]
    FrameLength {
        /// The length that the prefix claims.
        len: i64,
        /// The limit.
        max: usize,
    },
    /// The arrays of a message have more elements than its reader takes.
    #[error("{count} more elements of an array, where {left} may follow")]
    TooManyElements {
        /// How many the array claims.
        count: usize,
        /// How many of the limit were left.
        left: usize,
    },
    /// A range of records does not lie inside the frame it is to be taken from.
    #[error("records lie outside their frame")]
    MisplacedRecords,
}
