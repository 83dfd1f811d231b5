use super::*;

/// All that a decoder says of a body whose bytes arrive in pieces of the given sizes.
#[derive(Debug, Default, PartialEq)]
struct Body {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Bytes behind the body.
    left: Vec<u8>,
}

/// Feeds a decoder as a codec does: what it did not consume is given again, with more behind it.
fn decode(bytes: &[u8], pieces: &[usize], limits: Limits) -> Result<Body, Malformed> {
    let mut decoder = ChunkDecoder::new(limits);
    let mut body = Body::default();
    let (mut start, mut end) = (0, 0);
    let mut pieces = pieces.iter().copied().chain([bytes.len()]);
    while body.trailers.is_none() {
        let unread = &bytes[start..end];
        start += match decoder.next(unread)? {
            Chunk::Data { skip, length } => {
                assert_ne!(length, 0);
                body.data.extend_from_slice(&unread[skip..skip + length]);
                skip + length
            }
            Chunk::End { consumed, trailers } => {
                body.trailers = Some(trailers);
                consumed
            }
            Chunk::More { consumed } => {
                assert_eq!(consumed, unread.len(), "a decoder keeps what it needs");
                match pieces.next() {
                    Some(piece) => end = bytes.len().min(end + piece),
                    None => return Ok(body),
                }
                consumed
            }
        };
    }
    body.left = bytes[start..].to_vec();
    Ok(body)
}

#[test]
fn chunks_are_decoded() {
    let trailers = |fields: &[(&'static str, &'static str)]| {
        let fields = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Some(fields.collect::<HeaderMap>())
    };
    for (what, bytes, data, wanted, left) in [
        ("nothing", "0\r\n\r\n", "", trailers(&[]), ""),
        ("two chunks", "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", "hello!", trailers(&[]), ""),
        ("capitals and leading zeros", "000A\r\n0123456789\r\n00\r\n\r\n", "0123456789", trailers(&[]), ""),
        ("an extension", "2;a=\"b;c\" ; d\r\nhi\r\n0;x\r\n\r\n", "hi", trailers(&[]), ""),
        ("white space before an extension", "2 \t;a\r\nhi\r\n0\r\n\r\n", "hi", trailers(&[]), ""),
        (
            "trailers",
            "0\r\nGrpc-Status: 0\r\nx: y\r\n\r\nGET",
            "",
            trailers(&[("grpc-status", "0"), ("x", "y")]),
            "GET",
        ),
        ("the next request", "1\r\na\r\n0\r\n\r\nGET / ", "a", trailers(&[]), "GET / "),
        ("half a body", "5\r\nhel", "hel", None, ""),
        ("a last chunk that is not ended", "0\r\n", "", None, ""),
    ] {
        let wanted = Body { data: data.into(), trailers: wanted, left: left.into() };
        assert_eq!(decode(bytes.as_bytes(), &[], Limits::default()), Ok(wanted), "{what}");
    }
}

#[test]
fn chunks_that_could_be_read_in_two_ways_are_refused() {
    let long_extension = format!("1;{}\r\n", "a".repeat(20_000));
    let long_extensions = "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n!\r\n".repeat(1000);
    let many_trailers = format!("0\r\n{}\r\n", "x: y\r\n".repeat(5));
    let large_trailers = format!("0\r\nx: {}\r\n\r\n", "y".repeat(200));
    for (what, bytes, wanted) in [
        ("no size", "\r\n", Malformed::ChunkSize),
        ("a sign", "+1\r\n", Malformed::ChunkSize),
        ("a prefix", "0x1\r\n", Malformed::ChunkSize),
        ("no number", "g\r\n", Malformed::ChunkSize),
        ("white space before", " 1\r\n", Malformed::ChunkSize),
        ("white space behind", "1 \r\n", Malformed::ChunkSize),
        ("an underscore", "1_0\r\n", Malformed::ChunkSize),
        ("more digits than 64 bits", "00000000000000001\r\n", Malformed::ChunkSize),
        ("bare line feed behind the size", "1\n", Malformed::ChunkSize),
        ("bare carriage return behind the size", "1\rX", Malformed::ChunkSize),
        ("bare line feed in an extension", "1;a\n", Malformed::ChunkExtension),
        ("NUL in an extension", "1;a\0\r\n", Malformed::ChunkExtension),
        ("a very long extension", &long_extension, Malformed::ChunkExtension),
        ("very many extensions", &long_extensions, Malformed::ChunkExtension),
        ("more data than the size says", "1\r\nab\r\n", Malformed::ChunkEnd),
        ("bare line feed behind the data", "1\r\na\n", Malformed::ChunkEnd),
        ("bare carriage return behind the data", "1\r\na\r0", Malformed::ChunkEnd),
        ("bare line feed behind the last chunk", "0\r\n\n", Malformed::BareLineFeed),
        ("bare line feed behind a trailer", "0\r\nx: y\n\r\n", Malformed::BareLineFeed),
        ("a length as trailer", "0\r\nContent-Length: 1\r\n\r\n", Malformed::Trailer),
        ("a coding as trailer", "0\r\ntransfer-encoding: chunked\r\n\r\n", Malformed::Trailer),
        ("a host as trailer", "0\r\nHost: a\r\n\r\n", Malformed::Trailer),
        ("a folded trailer", "0\r\nx: y\r\n z\r\n\r\n", Malformed::FoldedField),
        ("a trailer without a name", "0\r\n: y\r\n\r\n", Malformed::Field),
        ("too many trailers", &many_trailers, Malformed::TooManyFields),
        ("too large trailers", &large_trailers, Malformed::HeadTooLarge),
    ] {
        assert_eq!(decode(bytes.as_bytes(), &[], SMALL), Err(wanted), "{what}");
    }
}

#[test]
fn the_largest_size_is_no_reason_to_panic() {
    let body = decode(b"ffffffffffffffff\r\nabc", &[], SMALL).unwrap();
    assert_eq!((body.data, body.trailers), (b"abc".to_vec(), None));
}

#[test]
fn a_decoder_that_is_done_consumes_nothing_more() {
    let mut decoder = ChunkDecoder::new(SMALL);
    let end = |consumed| Ok(Chunk::End { consumed, trailers: HeaderMap::new() });
    assert_eq!((decoder.next(b"0\r\n\r\n0\r\n"), decoder.next(b"0\r\n")), (end(5), end(0)));
}

/// Bodies that are nearly right.
fn nearly_bodies() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        4 => Just("3\r\nabc\r\n"), 2 => Just("0\r\n"), 2 => Just("\r\n"), 1 => Just("1"), 1 => Just("a"),
        1 => Just(";x=y"), 1 => Just("x: y\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just(" "),
        1 => Just("content-length: 1\r\n"), 1 => Just("f\r\n012345678901234\r\n"),
    ];
    vec(fragment, 0..16).prop_map(|fragments| fragments.concat().into_bytes())
}

proptest! {
    #[test]
    fn pieces_give_the_same_body_as_the_whole(bytes in nearly_bodies(), pieces in vec(0..9_usize, 0..60)) {
        prop_assert_eq!(decode(&bytes, &pieces, SMALL), decode(&bytes, &[], SMALL));
    }

    #[test]
    fn what_is_written_in_chunks_reads_back(chunks in vec(vec(any::<u8>(), 1..400), 0..8), pieces in vec(0..50_usize, 0..40)) {
        let mut out = BytesMut::new();
        for chunk in &chunks {
            write_chunk_size(&mut out, chunk.len());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
        write_last_chunk(&mut out, &trailers);
        let wanted = Body { data: chunks.concat(), trailers: Some(trailers), left: Vec::new() };
        prop_assert_eq!(decode(&out, &pieces, Limits::default()), Ok(wanted));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..100)) {
        let _ = decode(&bytes, &[1, 1, 1, 1], SMALL);
        let _ = decode(&[b"3\r\n", &bytes[..]].concat(), &[], SMALL);
        let _ = decode(&[b"0\r\n", &bytes[..]].concat(), &[], SMALL);
    }
}
