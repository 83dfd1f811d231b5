//! Protocol detection: what was told once stays true however many bytes follow, more is only asked for while nothing
//! is told, and what the HTTP/1 framing accepts as a request is never taken for something else.
#![no_main]

use bytes::Bytes;
use gauze_model::detect::{Detected, LONGEST_NEED, detect};
use gauze_model::framing::{HeadScan, Limits, request_head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut told = Detected::NeedMore;
    for end in 0..=bytes.len().min(2 * LONGEST_NEED) {
        let now = detect(&bytes[..end], false);
        assert!(told == Detected::NeedMore || now == told, "{told:?} became {now:?} after {end} bytes");
        assert!(end < LONGEST_NEED || now != Detected::NeedMore, "undecided after {end} bytes");
        let at_end = detect(&bytes[..end], true);
        let wanted = if now == Detected::NeedMore { Detected::Opaque } else { now };
        assert_eq!(at_end, wanted, "the end of the stream decides only what was undecided");
        told = now;
    }
    let whole = detect(bytes, false);
    assert!(bytes.len() > 2 * LONGEST_NEED || whole == told);
    if starts_as_detected(bytes) && is_request(bytes) {
        assert_eq!(whole, Detected::Http1, "a request that the framing accepts");
    }
});

/// What detection deliberately leaves to ports whose protocol is declared: an empty line before the request, a
/// method longer than any registered one, a tunnel to a host whose name no host has.
fn starts_as_detected(bytes: &[u8]) -> bool {
    let method = bytes.iter().position(|byte| *byte == b' ').unwrap_or(0);
    let target = bytes.get(method + 1).copied().unwrap_or(0);
    let usual = bytes[..method] != *b"CONNECT" || target.is_ascii_alphanumeric() || target == b'[';
    (1..=32).contains(&method) && usual && !bytes.starts_with(b"\r\n")
}

fn is_request(bytes: &[u8]) -> bool {
    let limits = Limits::default();
    match HeadScan::of_request().end(bytes, &limits) {
        Ok(Some(end)) => request_head(Bytes::copy_from_slice(&bytes[..end]), &limits).is_ok(),
        _ => false,
    }
}
