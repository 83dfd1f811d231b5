//! HTTP/1 framing. However a stream is cut into reads, it has one reading; what is accepted and written again reads
//! the same; and other readers (`httparse`, one that takes the first Content-Length, one that takes the last, one
//! that ends lines at a bare line feed) see the same messages in it. The first byte says how the stream is cut.
#![no_main]

use bytes::{Bytes, BytesMut};
use gauze_model::framing::{
    Limits, write_chunk_size, write_last_chunk, write_request_head, write_response_head,
};
use http::header::{HOST, HeaderValue};
use http::{Method, Uri};
use libfuzzer_sys::fuzz_target;

#[path = "framing/other_readers.rs"]
mod other_readers; // how others could read the same bytes
#[path = "framing/stream.rs"]
mod stream; // reads messages as a connection does

use other_readers::Reader;
use stream::{End, Message, Side, read};

const LIMITS: [Limits; 2] = [
    Limits { header_bytes: 200, headers: 4, uri: 40 },
    Limits { header_bytes: 4096, headers: 20, uri: 1024 },
];

fuzz_target!(|input: &[u8]| {
    let Some((how, bytes)) = input.split_first() else { return };
    let limits = &LIMITS[usize::from(how & 1)];
    for side in [Side::Requests, Side::Responses(Method::GET), Side::Responses(Method::HEAD)] {
        let whole = read(&side, bytes, limits, |left| left);
        let mut draw = u32::from(*how) | 1;
        let pieces = read(&side, bytes, limits, |left| {
            draw = draw.wrapping_mul(0x9e37_79b1) >> 1 | 1;
            1 + draw as usize % left.min(17)
        });
        assert_eq!(whole, pieces, "{side:?}: the same bytes in pieces");
        assert_eq!(whole, read(&side, bytes, limits, |_| 1), "{side:?}: the same bytes one by one");
        check_rewritten(&side, &whole.0, whole.1 == End::AtClose);
        check_other_readers(&side, bytes, &whole.0, &whole.1);
    }
});

/// What we send on is what we read, for us and for others.
fn check_rewritten(side: &Side, messages: &[Message], at_close: bool) {
    let mut messages = messages.to_vec();
    // HTTP/1.0 may come without a host; what is sent on has that of its target, or of the address that was dialled.
    for message in &mut messages {
        let Some((_, target)) = &message.request_line else { continue };
        let authority = target.parse::<Uri>().ok().and_then(|target| target.into_parts().authority);
        let host = authority.and_then(|authority| HeaderValue::try_from(authority.as_str()).ok());
        message.headers.entry(HOST).or_insert(host.unwrap_or(HeaderValue::from_static("a")));
    }
    let mut written = BytesMut::new();
    messages.iter().for_each(|message| write(message, &mut written));
    let roomy = Limits { header_bytes: 1 << 20, ..Limits { headers: 256, uri: 1 << 16, ..LIMITS[1] } };
    let (again, end) = read(side, &written, &roomy, |left| left);
    assert_eq!(again.len(), messages.len(), "{side:?}: {end:?} in {written:?}");
    for (once, twice) in messages.iter().zip(&again) {
        assert_eq!(once.essence(), twice.essence(), "{side:?}: as it was written again");
    }
    let wanted = if at_close { End::AtClose } else { End::Clean };
    assert_eq!(end, wanted, "{side:?}: nothing is left over");
    check_other_readers(side, &written, &again, &end);
}

fn write(message: &Message, out: &mut BytesMut) {
    match &message.request_line {
        Some((method, target)) => write_request_head(out, method, target, &message.headers),
        None => write_response_head(out, message.version, message.status, &message.headers),
    }
    if !message.chunked {
        return out.extend_from_slice(&message.body);
    }
    for piece in message.body.chunks(5) {
        write_chunk_size(out, piece.len());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    write_last_chunk(out, &message.trailers);
}

/// Whoever else reads these bytes must find the same messages behind one another.
fn check_other_readers(side: &Side, bytes: &[u8], messages: &[Message], end: &End) {
    for reader in Reader::ALL {
        let mut rest = Bytes::copy_from_slice(bytes);
        for (at, message) in messages.iter().enumerate() {
            if message.until_close || message.tunnel {
                break;
            }
            let other = reader.message(side, &rest);
            let ours = (message.body.as_slice(), message.length);
            let theirs = other.as_ref().map(|(body, length)| (body.as_slice(), *length));
            // An HTTP/1.0 response may not be chunked, and is not; all others are read alike.
            assert_eq!(
                theirs,
                Some(ours),
                "{side:?}: {reader:?} reads message {at} ({end:?}) otherwise: {rest:?}"
            );
            rest = rest.slice(message.length..);
        }
    }
}
