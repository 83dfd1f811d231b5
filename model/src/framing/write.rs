//! Heads and chunks on their way out. What is written here reads back as what it was made from: names
//! and values are checked by their types, and nothing else is put between the lines.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version};

/// Appends a request's head. `target` is what `Uri` or [`request_head`](super::request_head) checked.
pub fn write_request_head(out: &mut BytesMut, method: &Method, target: &str, headers: &HeaderMap) {
    out.reserve(method.as_str().len() + target.len() + " HTTP/1.1\r\n".len() + 1 + size_of_fields(headers));
    out.put_slice(method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    write_fields(out, headers);
}

/// Appends a response's head. `version` is HTTP/1.0 or, for all else, HTTP/1.1.
pub fn write_response_head(out: &mut BytesMut, version: Version, status: StatusCode, headers: &HeaderMap) {
    let reason = status.canonical_reason().unwrap_or_default();
    out.reserve("HTTP/1.1 200 \r\n".len() + reason.len() + size_of_fields(headers));
    out.put_slice(if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(reason.as_bytes());
    out.put_slice(b"\r\n");
    write_fields(out, headers);
}

/// Appends what stands before a chunk of `length` bytes, which must not be 0; `CR LF` stands behind it.
pub fn write_chunk_size(out: &mut BytesMut, length: usize) {
    debug_assert_ne!(length, 0, "an empty chunk would end the body");
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.put_u8(b"0123456789abcdef"[length >> (4 * digit) & 15]);
    }
    out.put_slice(b"\r\n");
}

/// Appends the end of a body in chunks.
pub fn write_last_chunk(out: &mut BytesMut, trailers: &HeaderMap) {
    out.put_slice(b"0\r\n");
    write_fields(out, trailers);
}

fn write_fields(out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"\r\n");
}

fn size_of_fields(headers: &HeaderMap) -> usize {
    let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    fields.sum::<usize>() + "\r\n".len()
}
