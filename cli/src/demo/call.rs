//! What the shop's apps say to each other: one call, one answer, in three protocols.
//! gRPC messages are framed by hand; there is no code generation in the demo.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// The request header that names the run a request belongs to; ledgers count by it.
pub(crate) const RUN: &str = "x-shop-run";
/// The request header that names the app or client that calls.
pub(crate) const CALLER: &str = "x-shop-caller";
/// The request header that tells one request from all others.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// The header of an answer that the mesh made itself, with a code that `gauze docs` explains.
pub(crate) const GAUZE_ERROR: &str = "gauze-error";

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Protocol {
    #[serde(rename = "http/1.1")]
    Http1,
    #[serde(rename = "http/2")]
    Http2,
    #[serde(rename = "grpc")]
    Grpc,
}

impl Protocol {
    pub(crate) const ALL: [Protocol; 3] = [Protocol::Http1, Protocol::Http2, Protocol::Grpc];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Protocol::Http1 => "http/1.1",
            Protocol::Http2 => "http/2",
            Protocol::Grpc => "grpc",
        }
    }

    /// What a request is made in, by its version and content type.
    pub(crate) fn of<B>(request: &http::Request<B>) -> Protocol {
        let content_type = request.headers().get(http::header::CONTENT_TYPE);
        if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
            return Protocol::Grpc;
        }
        if request.version() == http::Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 }
    }
}

/// What an app answers: who it is, and what those answered whom it called.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, prost::Message)]
pub(crate) struct Answer {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    #[prost(string, tag = "3")]
    pub(crate) pod: String,
    #[prost(message, repeated, tag = "4")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) calls: Vec<Answer>,
}

/// What is asked by gRPC.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Question {
    #[prost(string, tag = "1")]
    pub(crate) basket: String,
}

/// The path of the one thing that a shop's app does.
pub(crate) fn path(protocol: Protocol, service: &str) -> String {
    match protocol {
        Protocol::Http1 | Protocol::Http2 => "/checkout".to_owned(),
        Protocol::Grpc => format!("/shop.{service}/Checkout"),
    }
}

/// A gRPC message as it travels: not compressed, its length, its bytes.
pub(crate) fn frame(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(FRAME_HEAD + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    framed.put_slice(&message.encode_to_vec());
    framed.freeze()
}

/// Reads the one message of a gRPC body.
///
/// # Errors
/// The body is not exactly one message that is not compressed.
pub(crate) fn unframe<M: prost::Message + Default>(body: &[u8]) -> Result<M, String> {
    let Some((head, message)) = body.split_at_checked(FRAME_HEAD) else {
        return Err(format!("a gRPC body of {} bytes is cut off", body.len()));
    };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 || length != message.len() {
        return Err(format!("a gRPC frame says {length} bytes and brings {}", message.len()));
    }
    M::decode(message).map_err(|error| format!("a gRPC message cannot be read: {error}"))
}

/// Compression flag and length.
const FRAME_HEAD: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        let payments = Answer {
            service: "payments".into(),
            version: "v1".into(),
            pod: "payments-0".into(),
            calls: vec![],
        };
        Answer {
            service: "cart".into(),
            version: "v2".into(),
            pod: "cart-v2-0".into(),
            calls: vec![payments],
        }
    }

    #[test]
    fn a_message_reads_back_as_it_was_framed() {
        assert_eq!(unframe::<Answer>(&frame(&answer())), Ok(answer()));
    }

    #[test]
    fn a_message_that_is_cut_off_is_an_error_at_every_length() {
        let framed = frame(&answer());
        for length in 0..framed.len() {
            assert!(unframe::<Answer>(&framed[..length]).is_err(), "{length} of {} bytes", framed.len());
        }
    }
}
