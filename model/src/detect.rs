//! What a connection speaks, from its first bytes. Pure: whoever reads them keeps the time, gives the
//! bytes back to whoever carries the connection, and knows what the port was declared to be.

use crate::framing::is_token;

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// A TLS ClientHello.
    Tls,
    /// A request line of HTTP/1.
    Http1,
    /// The connection preface of HTTP/2.
    Http2,
    /// None of these, whatever follows.
    Opaque,
    /// Not to be told yet. Never said of [`LONGEST_NEED`] bytes, nor when the stream has ended.
    NeedMore,
}

/// RFC 9113, 3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest method that is believed; the longest registered one (`UPDATEREDIRECTREF`) has 17 bytes.
const METHOD_MAX: usize = 32;

/// With so many bytes the answer is always known: the method, a space, and the start of the target.
pub const LONGEST_NEED: usize = METHOD_MAX + " https://".len();

/// Looks at the first bytes of a connection. `ended`: no more of them will come.
pub fn detect(bytes: &[u8], ended: bool) -> Detected {
    match looks_like(bytes) {
        Detected::NeedMore if ended => Detected::Opaque,
        detected => detected,
    }
}

fn looks_like(bytes: &[u8]) -> Detected {
    if bytes.starts_with(HTTP2_PREFACE) {
        return Detected::Http2;
    }
    if HTTP2_PREFACE.starts_with(bytes) {
        return Detected::NeedMore;
    }
    if bytes[0] == TLS_HANDSHAKE { client_hello(bytes) } else { request_line(bytes) }
}

const TLS_HANDSHAKE: u8 = 22;

/// RFC 8446, 5.1 and 4: a handshake record of version 3.x, of at most 2^14 bytes, that begins with a ClientHello.
fn client_hello(bytes: &[u8]) -> Detected {
    let version_is_known = bytes.get(1..3).is_none_or(|version| version[0] == 3 && version[1] <= 4);
    let length_is_possible = bytes.get(3..5).is_none_or(|length| {
        let length = u16::from_be_bytes([length[0], length[1]]);
        (1..=1 << 14).contains(&length)
    });
    let is_client_hello = bytes.get(5).is_none_or(|message| *message == 1);
    match version_is_known && length_is_possible && is_client_hello {
        false => Detected::Opaque,
        true if bytes.len() > 5 => Detected::Tls,
        true => Detected::NeedMore,
    }
}

/// RFC 9112, 3: a method (any token), one space, and the start of a target. The target is looked at
/// because other protocols begin with a word and a space too (memcached, the banner of SSH).
fn request_line(bytes: &[u8]) -> Detected {
    let Some(end) = bytes.iter().position(|byte| !is_token(*byte)) else {
        return if bytes.len() > METHOD_MAX { Detected::Opaque } else { Detected::NeedMore };
    };
    if bytes[end] != b' ' || !(1..=METHOD_MAX).contains(&end) {
        return Detected::Opaque;
    }
    let (method, target) = (&bytes[..end], &bytes[end + 1..]);
    match target.first() {
        None => Detected::NeedMore,
        Some(b'/' | b'*') => Detected::Http1,
        Some(byte) if method == b"CONNECT" && (byte.is_ascii_alphanumeric() || *byte == b'[') => {
            Detected::Http1
        }
        Some(_) => absolute_form(target),
    }
}

fn absolute_form(target: &[u8]) -> Detected {
    let agrees = |scheme: &[u8]| {
        let both = scheme.len().min(target.len());
        scheme[..both].eq_ignore_ascii_case(&target[..both]).then_some(both == scheme.len())
    };
    match (agrees(b"http://"), agrees(b"https://")) {
        (Some(true), _) | (_, Some(true)) => Detected::Http1,
        (Some(false), _) | (_, Some(false)) => Detected::NeedMore,
        (None, None) => Detected::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_bytes_tell_the_protocol() {
        let long_method = [b'M'; METHOD_MAX];
        let longer_method = [b'M'; METHOD_MAX + 1];
        let with_target = |method: &[u8]| [method, b" /"].concat();
        for (what, bytes, wanted) in [
            ("nothing yet", &b""[..], Detected::NeedMore),
            ("an HTTP/1 request", b"GET / HTTP/1.1\r\n", Detected::Http1),
            ("a method is enough to wait for more", b"GET", Detected::NeedMore),
            ("a method and a space need the target's start", b"GET ", Detected::NeedMore),
            ("any token is a method", b"x-Purge! /a", Detected::Http1),
            ("a bounded method", &with_target(&long_method), Detected::Http1),
            ("a method that is too long", &longer_method, Detected::Opaque),
            ("a method that is too long, with a target", &with_target(&longer_method), Detected::Opaque),
            ("OPTIONS of the server itself", b"OPTIONS * HTTP/1.1\r\n", Detected::Http1),
            ("the absolute form", b"GET HTTP://cart/ HTTP/1.1\r\n", Detected::Http1),
            ("the absolute form, https", b"GET https://cart/", Detected::Http1),
            ("half a scheme", b"GET http", Detected::NeedMore),
            ("CONNECT by name", b"CONNECT cart:80", Detected::Http1),
            ("CONNECT by IPv6 address", b"CONNECT [fd00::1]:80", Detected::Http1),
            ("the preface of HTTP/2", HTTP2_PREFACE, Detected::Http2),
            ("the preface and frames", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", Detected::Http2),
            ("half a preface", b"PRI * HTTP/2", Detected::NeedMore),
            ("nearly the preface is for HTTP/1 to refuse", b"PRI * HTTP/2.0\r\n\r\nXX", Detected::Http1),
            ("a ClientHello", b"\x16\x03\x01\x02\x00\x01\x00", Detected::Tls),
            ("half a record header", b"\x16\x03\x01", Detected::NeedMore),
            ("a record without a whole version", b"\x16\x03", Detected::NeedMore),
            ("a record of version 2.0", b"\x16\x02\x00", Detected::Opaque),
            ("an empty record", b"\x16\x03\x01\x00\x00\x01", Detected::Opaque),
            ("a record that is too long", b"\x16\x03\x01\x40\x01\x01", Detected::Opaque),
            ("a ServerHello", b"\x16\x03\x01\x02\x00\x02", Detected::Opaque),
            ("Redis", b"*1\r\n$4\r\nPING\r\n", Detected::Opaque),
            ("memcached", b"get session:42\r\n", Detected::Opaque),
            ("the banner of an SSH client", b"SSH-2.0-OpenSSH_8.2p1 Ubuntu-4\r\n", Detected::Opaque),
            ("NATS", b"CONNECT {\"verbose\":false}\r\n", Detected::Opaque),
            ("PostgreSQL", b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Detected::Opaque),
            ("a space without a method", b" GET / HTTP/1.1\r\n", Detected::Opaque),
            ("an empty line", b"\r\n", Detected::Opaque),
        ] {
            assert_eq!(detect(bytes, false), wanted, "{what}");
        }
    }

    #[test]
    fn a_stream_that_ended_too_early_is_opaque() {
        for bytes in [&b""[..], b"GET", b"PRI * HTTP/2.0\r\n", b"\x16\x03\x01"] {
            assert_eq!(detect(bytes, true), Detected::Opaque, "{bytes:?}");
        }
    }

    /// Bytes that get past the first checks more often than chance would.
    fn first_bytes() -> impl Strategy<Value = Vec<u8>> {
        let start = prop_oneof![
            Just(&b""[..]),
            Just(HTTP2_PREFACE),
            Just(&b"GET http://"[..]),
            Just(&b"\x16\x03\x01\x02\x00\x01"[..])
        ];
        (start, 0..30_usize, proptest::collection::vec(any::<u8>(), 0..60))
            .prop_map(|(start, kept, more)| [&start[..kept.min(start.len())], &more].concat())
    }

    proptest! {
        #[test]
        fn what_was_told_once_stays_true(bytes in first_bytes()) {
            let told = (0..=bytes.len()).map(|n| detect(&bytes[..n], false));
            let told: Vec<_> = told.skip_while(|it| *it == Detected::NeedMore).collect();
            prop_assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
        }

        #[test]
        fn the_need_is_bounded(bytes in first_bytes(), ended: bool) {
            if ended || bytes.len() >= LONGEST_NEED {
                prop_assert_ne!(detect(&bytes, ended), Detected::NeedMore);
            }
        }
    }
}
