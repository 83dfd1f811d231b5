//! Strict HTTP/1 framing (RFC 9112): where heads and bodies begin and end, as pure functions over bytes.
//! Our own codec is built upon it. One byte stream has one reading: what another server on the path
//! could read otherwise is refused, and each refusal has a code and a status.
//!
//! What to do with a head (hop-by-hop fields, `100 Continue`, reuse of connections) is the codec's.

use std::fmt;

use http::StatusCode;

use crate::codes::Code;

mod chunk; // bodies in chunks
mod head; // request heads, response heads, and how their bodies are framed
mod scan; // the end of a head, found once
mod write; // heads and chunks on their way out

pub use chunk::{Chunk, ChunkDecoder};
pub use head::{BodyFraming, RequestHead, ResponseHead, request_head, response_head};
pub use scan::HeadScan;
pub use write::{write_chunk_size, write_last_chunk, write_request_head, write_response_head};

/// What a head may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, with its first line and its final empty line; also of a trailer section.
    pub header_bytes: usize,
    /// Header fields, or trailer fields; at most [`HEADERS_MAX`] whatever stands here.
    pub headers: usize,
    /// Bytes of the request target.
    pub uri: usize,
}

/// The largest number of header fields that [`Limits::headers`] can permit.
pub const HEADERS_MAX: usize = 256;

impl Default for Limits {
    fn default() -> Limits {
        Limits { header_bytes: 60 * 1024, headers: 100, uri: 16 * 1024 }
    }
}

/// Why bytes are not HTTP/1 that can be carried on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// RFC 9112, 3: not `method SP target SP version`.
    RequestLine,
    /// RFC 9112, 4: not `version SP status SP reason`.
    StatusLine,
    /// RFC 9112, 2.3: neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// RFC 9112, 2.2: a line that ends without CR.
    BareLineFeed,
    /// RFC 9112, 5: a field line with an invalid name or value, or with a space before the colon.
    Field,
    /// RFC 9112, 5.2: a field that goes on in the next line.
    FoldedField,
    /// RFC 9112, 3.2: none of the four forms, or not the one for this method.
    Target,
    /// More than [`Limits::uri`].
    TargetTooLong,
    /// More than [`Limits::header_bytes`].
    HeadTooLarge,
    /// More than [`Limits::headers`].
    TooManyFields,
    /// RFC 9112, 3.2: HTTP/1.1 without Host.
    HostMissing,
    /// RFC 9112, 3.2: more than one Host.
    HostRepeated,
    /// RFC 9112, 3.2: empty, or not a host with an optional port.
    HostInvalid,
    /// RFC 9112, 3.2.2: Host and the target name different hosts.
    HostDiffers,
    /// RFC 9110, 8.6: not a number.
    LengthInvalid,
    /// RFC 9112, 6.3: more than one Content-Length, equal or not.
    LengthRepeated,
    /// RFC 9112, 6.1: Content-Length beside Transfer-Encoding.
    LengthBesideCoding,
    /// RFC 9112, 6.1: a transfer coding other than `chunked`.
    CodingUnknown,
    /// RFC 9112, 6.1: not `chunked` exactly once.
    CodingRepeated,
    /// RFC 9112, 6.1: Transfer-Encoding in HTTP/1.0.
    CodingInHttp10,
    /// RFC 9110, 9.3.6: CONNECT with a body, which some would read as the first bytes of its tunnel.
    ConnectBody,
    /// RFC 9112, 7.1: not a size in hexadecimal, or one that is out of range.
    ChunkSize,
    /// RFC 9112, 7.1.1: more bytes of chunk extensions than any honest sender needs, or invalid ones.
    ChunkExtension,
    /// RFC 9112, 7.1: a chunk that does not end with CR LF.
    ChunkEnd,
    /// RFC 9110, 6.5.1: a trailer that is not permitted, since it belongs to framing or routing.
    Trailer,
}

impl Malformed {
    /// The status that a client is answered with; a server's malformed answer is a 502 whatever it is.
    pub fn status(self) -> StatusCode {
        let entry = self.code().entry();
        entry.and_then(|entry| StatusCode::from_u16(entry.status).ok()).unwrap_or(StatusCode::BAD_REQUEST)
    }

    /// The code of the refusal of a request.
    pub fn code(self) -> Code {
        match self {
            Malformed::RequestLine
            | Malformed::StatusLine
            | Malformed::BareLineFeed
            | Malformed::Field
            | Malformed::FoldedField
            | Malformed::Target => Code::BAD_REQUEST,
            Malformed::Version => Code::VERSION_NOT_SUPPORTED,
            Malformed::TargetTooLong => Code::URI_TOO_LONG,
            Malformed::HeadTooLarge | Malformed::TooManyFields => Code::HEADERS_TOO_LARGE,
            Malformed::HostMissing
            | Malformed::HostRepeated
            | Malformed::HostInvalid
            | Malformed::HostDiffers => Code::BAD_HOST,
            Malformed::LengthInvalid
            | Malformed::LengthRepeated
            | Malformed::LengthBesideCoding
            | Malformed::CodingRepeated
            | Malformed::CodingInHttp10
            | Malformed::ConnectBody => Code::AMBIGUOUS_LENGTH,
            Malformed::CodingUnknown => Code::TRANSFER_CODING_UNKNOWN,
            Malformed::ChunkSize | Malformed::ChunkExtension | Malformed::ChunkEnd | Malformed::Trailer => {
                Code::BAD_BODY
            }
        }
    }
}

impl std::error::Error for Malformed {}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::RequestLine => "the request line is not `method target version`",
            Malformed::StatusLine => "the status line is not `version status reason`",
            Malformed::Version => "the version is neither HTTP/1.0 nor HTTP/1.1",
            Malformed::BareLineFeed => "a line ends without a carriage return",
            Malformed::Field => "a header has an invalid name or value, or a space before the colon",
            Malformed::FoldedField => "a header goes on in the next line",
            Malformed::Target => "the request target is invalid, or not of the form for this method",
            Malformed::TargetTooLong => "the request target is too long",
            Malformed::HeadTooLarge => "the headers are too large",
            Malformed::TooManyFields => "there are too many headers",
            Malformed::HostMissing => "Host is missing",
            Malformed::HostRepeated => "there is more than one Host",
            Malformed::HostInvalid => "Host is not a host with an optional port",
            Malformed::HostDiffers => "Host and the request target name different hosts",
            Malformed::LengthInvalid => "Content-Length is not a number",
            Malformed::LengthRepeated => "there is more than one Content-Length",
            Malformed::LengthBesideCoding => "Content-Length stands beside Transfer-Encoding",
            Malformed::CodingUnknown => "a transfer coding other than `chunked`",
            Malformed::CodingRepeated => "Transfer-Encoding is not `chunked` exactly once",
            Malformed::CodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Malformed::ConnectBody => "CONNECT has a body",
            Malformed::ChunkSize => "a chunk's size is not a hexadecimal number, or out of range",
            Malformed::ChunkExtension => "a chunk's extension is invalid or too long",
            Malformed::ChunkEnd => "a chunk does not end where its size says",
            Malformed::Trailer => "a trailer that only a header may be",
        })
    }
}

/// RFC 9110, 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
