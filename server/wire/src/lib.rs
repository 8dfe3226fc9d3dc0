//! Kafka's requests and responses: reading and writing them, one file for each API.
//!
//! What this crate is: a codec. [`api`] holds the messages as field tables which read like Kafka's
//! own schemas; the macro in `codec/table.rs` turns a table into a struct, a decoder and an
//! encoder for every version. [`frame`] holds the length prefix and the request and response
//! headers, [`ApiKey`] the table of APIs and versions, [`ErrorCode`] Kafka's error codes.
//!
//! What it is not: it does no I/O, keeps no state and knows no record: what lies inside a
//! `records` field belongs to `riverrun-record`.
//!
//! | File | Holds |
//! |---|---|
//! | `codec/reader.rs` | [`Reader`]: bounded reading of one frame |
//! | `codec/writer.rs` | [`Writer`] and [`Encoded`]: segments, large records uncopied |
//! | `codec/value.rs` | how each field type is read and written, classic and flexible |
//! | `codec/table.rs` | the macro behind the field tables |
//! | `api/*.rs` | one API each: request and response |
//! | `api_key.rs` | the one list of APIs: number, versions, first flexible version, types |
//!
//! Invariants:
//! - No length or count is trusted: it is checked against the bytes that remain before anything
//!   is allocated, so a frame can make a decoder hold only a small multiple of its own size.
//! - Bytes from outside never panic; every defect is a [`WireError`].
//! - A field that a version lacks is neither read nor written; encoding a value in it that is not
//!   the default is an error unless the schema calls the field ignorable.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod api;
mod api_key;
mod codec;
mod error;
mod error_code;
pub mod frame;
mod records;
#[cfg(test)]
mod tests;

pub use api_key::ApiKey;
pub use codec::{Decode, Encode, Encoded, Message, Reader, Request, Writer};
pub use error::WireError;
pub use error_code::ErrorCode;
pub use frame::{RequestHeader, decode_response, encode_request, encode_response};
pub use records::Records;
