use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

mod bodies;
mod heads;

const SMALL: Limits = Limits { header_bytes: 200, headers: 4, uri: 40 };

/// Reads a request head from bytes that arrive in pieces that end at `cuts`; `None`: it is not whole.
fn request_in_pieces(
    bytes: &[u8],
    cuts: &[usize],
    limits: &Limits,
) -> Result<Option<RequestHead>, Malformed> {
    let mut scan = HeadScan::of_request();
    for end in cuts
        .iter()
        .map(|cut| cut % (bytes.len() + 1))
        .chain([bytes.len()])
        .collect::<std::collections::BTreeSet<_>>()
    {
        if let Some(length) = scan.end(&bytes[..end], limits)? {
            return request_head(Bytes::copy_from_slice(&bytes[..length]), limits).map(Some);
        }
    }
    Ok(None)
}

fn request(bytes: &[u8], limits: &Limits) -> Result<Option<RequestHead>, Malformed> {
    request_in_pieces(bytes, &[], limits)
}

fn response(bytes: &[u8], asked: &Method) -> Result<Option<ResponseHead>, Malformed> {
    match HeadScan::of_response().end(bytes, &Limits::default())? {
        Some(length) => {
            response_head(Bytes::copy_from_slice(&bytes[..length]), &Limits::default(), asked).map(Some)
        }
        None => Ok(None),
    }
}
