use super::*;

#[test]
fn a_request_head_is_read_whole() {
    let bytes =
        b"POST /items?q=1 HTTP/1.1\r\nHost: cart\r\nX-A:  b \t\r\nx-a: c\r\ncontent-length: 5\r\n\r\nhello";
    let head = request(bytes, &Limits::default()).unwrap().unwrap();
    let fields: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(
        (
            head.method,
            head.uri.to_string().as_str(),
            head.version,
            head.body,
            head.persistent,
            head.expects_continue
        ),
        (Method::POST, "/items?q=1", Version::HTTP_11, BodyFraming::Length(5), true, false),
    );
    assert_eq!(fields, [("host", &b"cart"[..]), ("x-a", b"b"), ("x-a", b"c"), ("content-length", b"5")]);
}

/// `GET / HTTP/1.1` with these lines behind it; Host stands there already.
fn with(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: cart\r\n{lines}\r\n\r\n")
}

#[test]
fn bodies_of_requests_are_framed() {
    for (what, head, wanted) in [
        ("no length", "GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), BodyFraming::Empty),
        ("a length", with("Content-Length: 42"), BodyFraming::Length(42)),
        ("a length of nothing", with("Content-Length: 0"), BodyFraming::Length(0)),
        ("the largest length", with("Content-Length: 18446744073709551615"), BodyFraming::Length(u64::MAX)),
        ("chunks", with("Transfer-Encoding: chunked"), BodyFraming::Chunked),
        ("chunks, in capitals", with("TRANSFER-ENCODING: Chunked"), BodyFraming::Chunked),
        ("chunks, with a comma too many", with("Transfer-Encoding: , chunked"), BodyFraming::Chunked),
    ] {
        let read = request(head.as_bytes(), &Limits::default());
        assert_eq!(read.map(|head| head.map(|head| head.body)), Ok(Some(wanted)), "{what}");
    }
}

#[test]
fn requests_that_could_be_read_in_two_ways_are_refused() {
    for (what, head, wanted) in [
        ("bare line feed", "GET / HTTP/1.1\nHost: a\r\n\r\n".into(), Malformed::BareLineFeed),
        ("bare line feed as the end", "GET / HTTP/1.1\r\nHost: a\r\n\n".into(), Malformed::BareLineFeed),
        ("bare line feed before", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), Malformed::BareLineFeed),
        ("bare carriage return", with("X: a\rb"), Malformed::Field),
        ("NUL in a value", with("X: a\0b"), Malformed::Field),
        ("DEL in a value", with("X: a\x7fb"), Malformed::Field),
        ("folded field", with("X: a\r\n b"), Malformed::FoldedField),
        ("folded with a tab", with("X: a\r\n\tTransfer-Encoding: chunked"), Malformed::FoldedField),
        ("space before the colon", with("Content-Length : 5"), Malformed::Field),
        ("tab before the colon", with("Transfer-Encoding\t: chunked"), Malformed::Field),
        ("space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n".into(), Malformed::FoldedField),
        ("no colon", with("X"), Malformed::Field),
        ("no name", with(": a"), Malformed::Field),
        ("a name that is no token", with("X@Y: a"), Malformed::Field),
        ("lengths that differ", with("Content-Length: 5\r\nContent-Length: 6"), Malformed::LengthRepeated),
        ("lengths that agree", with("Content-Length: 5\r\nContent-Length: 5"), Malformed::LengthRepeated),
        ("lengths in one line", with("Content-Length: 5, 5"), Malformed::LengthInvalid),
        ("a signed length", with("Content-Length: +5"), Malformed::LengthInvalid),
        ("a negative length", with("Content-Length: -1"), Malformed::LengthInvalid),
        ("a hexadecimal length", with("Content-Length: 0x5"), Malformed::LengthInvalid),
        ("a length in two words", with("Content-Length: 5 5"), Malformed::LengthInvalid),
        ("an empty length", with("Content-Length:"), Malformed::LengthInvalid),
        ("a length out of range", with("Content-Length: 18446744073709551616"), Malformed::LengthInvalid),
        (
            "a length beside chunks",
            with("Content-Length: 5\r\nTransfer-Encoding: chunked"),
            Malformed::LengthBesideCoding,
        ),
        (
            "chunks beside a length",
            with("Transfer-Encoding: chunked\r\nContent-Length: 5"),
            Malformed::LengthBesideCoding,
        ),
        ("an unknown coding", with("Transfer-Encoding: xchunked"), Malformed::CodingUnknown),
        ("a coding before chunked", with("Transfer-Encoding: gzip, chunked"), Malformed::CodingUnknown),
        ("a coding behind chunked", with("Transfer-Encoding: chunked, identity"), Malformed::CodingUnknown),
        ("a quoted coding", with("Transfer-Encoding: \"chunked\""), Malformed::CodingUnknown),
        ("a vertical tab", with("Transfer-Encoding: \x0bchunked"), Malformed::Field),
        ("chunked twice", with("Transfer-Encoding: chunked, chunked"), Malformed::CodingRepeated),
        (
            "chunked in two lines",
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            Malformed::CodingRepeated,
        ),
        ("an empty coding", with("Transfer-Encoding:"), Malformed::CodingRepeated),
        (
            "chunks in HTTP/1.0",
            with("Transfer-Encoding: chunked").replace("1.1", "1.0"),
            Malformed::CodingInHttp10,
        ),
        (
            "CONNECT with a length",
            "CONNECT cart:80 HTTP/1.1\r\nHost: cart:80\r\nContent-Length: 1\r\n\r\n".into(),
            Malformed::ConnectBody,
        ),
        (
            "CONNECT in chunks",
            "CONNECT cart:80 HTTP/1.1\r\nHost: cart:80\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            Malformed::ConnectBody,
        ),
        ("no Host", "GET / HTTP/1.1\r\n\r\n".into(), Malformed::HostMissing),
        ("two hosts", with("Host: cart"), Malformed::HostRepeated),
        ("two hosts in HTTP/1.0", with("Host: b").replace("1.1", "1.0"), Malformed::HostRepeated),
        ("an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), Malformed::HostInvalid),
        ("Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), Malformed::HostInvalid),
        ("Host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".into(), Malformed::HostInvalid),
        ("Host as a list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into(), Malformed::HostInvalid),
        (
            "Host with a port out of range",
            "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n".into(),
            Malformed::HostInvalid,
        ),
        ("Host with half an address", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n".into(), Malformed::HostInvalid),
        (
            "Host against the target",
            "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n".into(),
            Malformed::HostDiffers,
        ),
        (
            "Host's port against the target",
            "GET http://a/ HTTP/1.1\r\nHost: a:81\r\n\r\n".into(),
            Malformed::HostDiffers,
        ),
    ] {
        let read = request(head.as_bytes(), &Limits::default());
        assert_eq!(read.map(|_| ()), Err(wanted), "{what}");
    }
}

#[test]
fn first_lines_that_are_none_are_refused() {
    for (line, wanted) in [
        ("GET  / HTTP/1.1", Malformed::RequestLine),
        ("GET /  HTTP/1.1", Malformed::RequestLine),
        ("GET /a b HTTP/1.1", Malformed::RequestLine),
        ("GET\t/ HTTP/1.1", Malformed::RequestLine),
        (" GET / HTTP/1.1", Malformed::RequestLine),
        ("GET /", Malformed::RequestLine),
        ("GET / HTTP/1", Malformed::RequestLine),
        ("GET / http/1.1", Malformed::RequestLine),
        ("GET / HTTP/1.1 ", Malformed::RequestLine),
        ("G@T / HTTP/1.1", Malformed::RequestLine),
        ("\x16\x03\x01\x02\x01", Malformed::RequestLine),
        ("GET / HTTP/2.0", Malformed::Version),
        ("GET / HTTP/0.9", Malformed::Version),
        ("PRI * HTTP/2.0", Malformed::Version),
        ("GET cart HTTP/1.1", Malformed::Target),
        ("GET cart:80 HTTP/1.1", Malformed::Target),
        ("GET * HTTP/1.1", Malformed::Target),
        ("OPTIONS *a HTTP/1.1", Malformed::Target),
        ("GET /#top HTTP/1.1", Malformed::Target),
        ("GET /\u{e9} HTTP/1.1", Malformed::Target),
        ("GET http:/// HTTP/1.1", Malformed::Target),
        ("GET http://u@cart/ HTTP/1.1", Malformed::Target),
        ("GET ftp://cart/ HTTP/1.1", Malformed::Target),
        ("CONNECT / HTTP/1.1", Malformed::Target),
        ("CONNECT cart HTTP/1.1", Malformed::Target),
        ("CONNECT cart: HTTP/1.1", Malformed::Target),
        ("CONNECT http://cart/ HTTP/1.1", Malformed::Target),
    ] {
        let head = format!("{line}\r\nHost: cart\r\n\r\n");
        let read = request(head.as_bytes(), &Limits::default());
        assert_eq!(read.map(|head| head.map(|head| head.uri)), Err(wanted), "{line}");
    }
}

#[test]
fn all_forms_of_targets_and_hosts_are_read() {
    for (line, host) in [
        ("GET //cart/../a HTTP/1.1", "cart"),
        ("GET http://Cart:80/a HTTP/1.1", "cart"),
        ("GET http://cart HTTP/1.1", "cart:80"),
        ("GET https://cart:443/ HTTP/1.1", "cart"),
        ("OPTIONS * HTTP/1.1", "cart"),
        ("CONNECT cart:80 HTTP/1.1", "cart:80"),
        ("CONNECT [fd00::1]:80 HTTP/1.1", "[fd00::1]:80"),
        ("x-purge! / HTTP/1.1", "cart_v1.shop.svc.cluster.local.:65535"),
        ("GET / HTTP/1.1", "[fd00::1]"),
    ] {
        let head = format!("{line}\r\nHost: {host}\r\n\r\n");
        assert!(matches!(request(head.as_bytes(), &Limits::default()), Ok(Some(_))), "{line} {host}");
    }
}

#[test]
fn connections_persist_as_version_and_options_say() {
    for (head, wanted) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
    ] {
        let read = request(head.as_bytes(), &Limits::default());
        assert_eq!(read.map(|head| head.map(|head| head.persistent)), Ok(Some(wanted)), "{head}");
    }
}

#[test]
fn a_client_waits_only_where_it_has_a_body_to_send() {
    for (head, wanted) in [
        (with("Expect: 100-Continue\r\nContent-Length: 5"), true),
        (with("Expect: 100-continue\r\nTransfer-Encoding: chunked"), true),
        (with("Expect: 100-continue"), false),
        (with("Expect: 100-continue\r\nContent-Length: 5").replace("1.1", "1.0"), false),
        (with("Expect: something\r\nContent-Length: 5"), false),
    ] {
        let read = request(head.as_bytes(), &Limits::default());
        assert_eq!(read.map(|head| head.map(|head| head.expects_continue)), Ok(Some(wanted)), "{head}");
    }
}

#[test]
fn one_empty_line_before_a_request_is_skipped() {
    let read = |text: &str| request(text.as_bytes(), &Limits::default()).map(|head| head.is_some());
    assert_eq!(read("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(true));
    assert_eq!(read("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Err(Malformed::RequestLine));
    assert_eq!(read("\r\n"), Ok(false));
}

#[test]
fn limits_hold_to_the_byte() {
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(length - 1));
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: a\r\n".repeat(count - 1));
    let bytes = |length: usize| {
        let fixed = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(length - fixed))
    };
    for (what, head, wanted) in [
        ("the longest target", target(SMALL.uri), Ok(true)),
        ("a longer target", target(SMALL.uri + 1), Err(Malformed::TargetTooLong)),
        ("a target larger than the head may be", target(SMALL.header_bytes), Err(Malformed::TargetTooLong)),
        ("the most fields", fields(SMALL.headers), Ok(true)),
        ("one more field", fields(SMALL.headers + 1), Err(Malformed::TooManyFields)),
        ("the largest head", bytes(SMALL.header_bytes), Ok(true)),
        ("a larger head", bytes(SMALL.header_bytes + 1), Err(Malformed::HeadTooLarge)),
        (
            "a head without end",
            "GET / HTTP/1.1\r\nX: ".to_owned() + &"a".repeat(200),
            Err(Malformed::HeadTooLarge),
        ),
        ("fields without end", fields(9).replace("\r\n\r\n", "\r\n"), Err(Malformed::TooManyFields)),
    ] {
        assert_eq!(request(head.as_bytes(), &SMALL).map(|head| head.is_some()), wanted, "{what}");
    }
}

#[test]
fn bodies_of_responses_are_framed_by_method_and_status() {
    let [get, head, connect] = [Method::GET, Method::HEAD, Method::CONNECT];
    for (what, asked, text, wanted) in [
        ("a length", &get, "200 OK\r\nContent-Length: 5", BodyFraming::Length(5)),
        ("chunks", &get, "200 OK\r\nTransfer-Encoding: chunked", BodyFraming::Chunked),
        ("neither", &get, "200 OK", BodyFraming::UntilClose),
        ("no reason", &get, "200", BodyFraming::UntilClose),
        ("to HEAD", &head, "200 OK\r\nContent-Length: 5", BodyFraming::Empty),
        ("to HEAD, in chunks", &head, "200 OK\r\nTransfer-Encoding: chunked", BodyFraming::Empty),
        ("continue", &get, "100 Continue", BodyFraming::Empty),
        ("early hints", &get, "103 Early Hints\r\nContent-Length: 5", BodyFraming::Empty),
        ("no content", &get, "204 No Content\r\nContent-Length: 5", BodyFraming::Empty),
        ("not modified", &get, "304 Not Modified\r\nContent-Length: 5", BodyFraming::Empty),
        ("another protocol", &get, "101 Switching Protocols", BodyFraming::Tunnel),
        ("a tunnel", &connect, "200 OK\r\nContent-Length: 5", BodyFraming::Tunnel),
        ("no tunnel", &connect, "403 Forbidden\r\nContent-Length: 5", BodyFraming::Length(5)),
    ] {
        let read = response(format!("HTTP/1.1 {text}\r\n\r\n").as_bytes(), asked);
        assert_eq!(read.map(|head| head.map(|head| head.body)), Ok(Some(wanted)), "{what}");
    }
}

#[test]
fn a_server_connection_is_used_again_only_where_the_response_ends() {
    for (head, wanted) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", true),
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", false),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", false),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", false),
    ] {
        let read = response(head.as_bytes(), &Method::GET);
        assert_eq!(read.map(|head| head.map(|head| head.persistent)), Ok(Some(wanted)), "{head}");
    }
}

#[test]
fn a_response_without_content_loses_its_length() {
    let read = response(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nX: a\r\n\r\n", &Method::GET);
    let names = |head: ResponseHead| head.headers.keys().cloned().collect::<Vec<_>>();
    assert_eq!(read.map(|head| head.map(names)), Ok(Some(vec![HeaderName::from_static("x")])));
}

#[test]
fn responses_that_could_be_read_in_two_ways_are_refused() {
    for (head, wanted) in [
        ("HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n", Malformed::BareLineFeed),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", Malformed::StatusLine),
        ("HTTP/2 200 OK\r\n\r\n", Malformed::Version),
        ("HTTP/1.1 20 OK\r\n\r\n", Malformed::StatusLine),
        ("HTTP/1.1 099 Low\r\n\r\n", Malformed::StatusLine),
        ("ICY 200 OK\r\n\r\n", Malformed::StatusLine),
        ("\0\0\0\x04\r\n\r\n", Malformed::StatusLine),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            Malformed::LengthBesideCoding,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Malformed::LengthRepeated),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Malformed::CodingUnknown),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed::CodingInHttp10),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", Malformed::FoldedField),
        ("HTTP/1.1 200 OK\r\nX : a\r\n\r\n", Malformed::Field),
    ] {
        let read = response(head.as_bytes(), &Method::GET);
        assert_eq!(read.map(|head| head.map(|head| head.status)), Err(wanted), "{head}");
    }
}

#[test]
fn every_refusal_has_a_status_that_fits() {
    for (malformed, status) in [
        (Malformed::RequestLine, 400),
        (Malformed::HostMissing, 400),
        (Malformed::LengthBesideCoding, 400),
        (Malformed::ChunkSize, 400),
        (Malformed::TargetTooLong, 414),
        (Malformed::HeadTooLarge, 431),
        (Malformed::TooManyFields, 431),
        (Malformed::CodingUnknown, 501),
        (Malformed::Version, 505),
    ] {
        assert_eq!(malformed.status(), status, "{malformed}");
    }
}

#[test]
fn what_is_written_reads_back() {
    let mut headers = HeaderMap::new();
    headers.append("host", HeaderValue::from_static("cart"));
    headers.append("x-a", HeaderValue::from_static("b"));
    headers.append("x-a", HeaderValue::from_static(""));
    headers.append("content-length", HeaderValue::from_static("0"));

    let mut out = BytesMut::new();
    write_request_head(&mut out, &Method::PUT, "/a?b", &headers);
    let read = request(&out, &Limits::default()).unwrap().unwrap();
    assert_eq!(
        (read.method, read.uri.to_string(), read.headers),
        (Method::PUT, "/a?b".into(), headers.clone())
    );

    out.clear();
    write_response_head(&mut out, Version::HTTP_11, StatusCode::IM_A_TEAPOT, &headers);
    let read = response(&out, &Method::PUT).unwrap().unwrap();
    assert_eq!(
        (read.status, read.version, read.headers),
        (StatusCode::IM_A_TEAPOT, Version::HTTP_11, headers)
    );
}

/// Heads that are nearly right: fragments that matter, in any order.
fn nearly_heads() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        4 => Just("\r\n"), 2 => Just("GET / HTTP/1.1\r\nHost: a\r\n"), 1 => Just("GET "), 1 => Just("/a"),
        1 => Just("http://a/"), 1 => Just(" HTTP/1.1\r\n"), 1 => Just(" HTTP/1.0\r\n"), 1 => Just("Host: a\r\n"),
        1 => Just("Host: b\r\n"), 1 => Just("Content-Length: 5\r\n"), 1 => Just("X: "), 1 => Just("\n"),
        1 => Just("\r"), 1 => Just("\0"), 1 => Just(" "), 1 => Just("Transfer-Encoding: chunked\r\n"),
        1 => Just("0123456789012345678901234567890123456789"),
    ];
    vec(fragment, 0..12).prop_map(|fragments| fragments.concat().into_bytes())
}

proptest! {
    #[test]
    fn pieces_give_the_same_head_as_the_whole(bytes in nearly_heads(), cuts in vec(any::<usize>(), 0..6)) {
        let whole = request(&bytes, &SMALL);
        let pieces = request_in_pieces(&bytes, &cuts, &SMALL);
        prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300), limit in 0..300_usize) {
        let limits = Limits { header_bytes: limit, headers: limit, uri: limit };
        for bytes in [bytes.clone(), [b"GET / HTTP/1.1\r\n", &bytes[..], b"\r\n\r\n"].concat()] {
            let _ = request(&bytes, &limits);
            let _ = response(&bytes, &Method::GET);
            let _ = request_head(Bytes::from(bytes.clone()), &limits);
            let _ = response_head(Bytes::from(bytes), &limits, &Method::GET);
        }
    }

    #[test]
    fn what_was_let_through_reads_the_same_again(bytes in nearly_heads()) {
        if let Ok(Some(head)) = request(&bytes, &Limits::default()) {
            let mut out = BytesMut::new();
            write_request_head(&mut out, &head.method, &head.uri.to_string(), &head.headers);
            if head.version == Version::HTTP_11 {
                let again = request(&out, &Limits::default());
                prop_assert_eq!(again.map(|it| it.map(|it| (it.headers, it.body))), Ok(Some((head.headers, head.body))));
            }
        }
    }
}
