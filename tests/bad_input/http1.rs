//! HTTP/1 requests that could be read in two ways, or that cost too much, on the port of the app and on that of
//! strangers; and beside them what looks odd and has one reading.

use super::stage::{Port, Seen, Stage, answers, say};

/// What is sent, in a sentence, and what comes of it.
struct Row {
    what: &'static str,
    bytes: Vec<u8>,
    wanted: Wanted,
}

enum Wanted {
    /// Nothing of it reaches the app as a request; the answer has this status and code.
    Refused(u16, &'static str),
    /// These bodies reach the app, in so many requests, and each is answered.
    Served(&'static [&'static str]),
    /// The first request is served, with this body; then comes what is refused.
    ServedThenRefused(&'static str, u16, &'static str),
}

use Wanted::{Refused, Served, ServedThenRefused};

fn row(what: &'static str, bytes: impl AsRef<[u8]>, wanted: Wanted) -> Row {
    Row { what, bytes: bytes.as_ref().to_vec(), wanted }
}

/// With these lines behind Host, each with its end.
fn get(fields: &str) -> String {
    format!("GET /row HTTP/1.1\r\nhost: cart\r\n{fields}\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /row HTTP/1.1\r\nhost: cart\r\n{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("transfer-encoding: chunked\r\n", body)
}

/// `bad` in whole request lines.
fn line(line: &str) -> String {
    format!("{line}\r\nhost: cart\r\n\r\n")
}

const SMUGGLED: &str = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: cart\r\n\r\n";

fn sizes() -> Vec<Row> {
    let many = |count: usize| (0..count).map(|at| format!("x-{at}: 1\r\n")).collect::<String>();
    vec![
        row("a header of 1 MiB", get(&format!("x: {}\r\n", "a".repeat(1 << 20))), Refused(431, "M3106")),
        row(
            "headers of 62 KiB in all",
            get(&format!("x: {}\r\n", "a".repeat(1000)).repeat(62)),
            Refused(431, "M3106"),
        ),
        row(
            "headers of nearly 60 KiB",
            get(&format!("x: {}\r\n", "a".repeat(1000)).repeat(59)),
            Served(&[""]),
        ),
        row("101 headers", get(&many(100)), Refused(431, "M3106")),
        row("100 headers", get(&many(99)), Served(&[""])),
        row("headers without end", get(&many(200_000)), Refused(431, "M3106")),
        row(
            "a URI of 17 KiB",
            line(&format!("GET /{} HTTP/1.1", "a".repeat(17 << 10))),
            Refused(414, "M3105"),
        ),
        row("a URI of 1 MiB", line(&format!("GET /{} HTTP/1.1", "a".repeat(1 << 20))), Refused(414, "M3105")),
        row("a URI of nearly 16 KiB", line(&format!("GET /{} HTTP/1.1", "a".repeat(16_000))), Served(&[""])),
        row("a method of 1 MiB", line(&format!("{} / HTTP/1.1", "A".repeat(1 << 20))), Refused(414, "M3105")),
    ]
}

fn lines() -> Vec<Row> {
    let bad = |what, text: &str| row(what, line(text), Refused(400, "M3101"));
    vec![
        bad("no target", "GET HTTP/1.1"),
        bad("two spaces before the target", "GET  / HTTP/1.1"),
        bad("two spaces before the version", "GET /  HTTP/1.1"),
        bad("a tab for a space", "GET\t/ HTTP/1.1"),
        bad("a space before the method", " GET / HTTP/1.1"),
        bad("a target with a space", "GET /a b HTTP/1.1"),
        bad("a fragment in the target", "GET /a#b HTTP/1.1"),
        bad("a fragment before the query", "GET /a#?b HTTP/1.1"),
        bad("a NUL in the target", "GET /a\0b HTTP/1.1"),
        bad("a DEL in the target", "GET /a\x7fb HTTP/1.1"),
        bad("an umlaut in the target", "GET /\u{e4} HTTP/1.1"),
        bad("a target that is no path", "GET a HTTP/1.1"),
        bad("the target of OPTIONS with GET", "GET * HTTP/1.1"),
        bad("a scheme that is none of ours", "GET ftp://cart/ HTTP/1.1"),
        bad("user information in the target", "GET http://a@cart/ HTTP/1.1"),
        bad("a method that is no token", "G(T / HTTP/1.1"),
        bad("no version", "GET /"),
        bad("a lower-case version", "GET / http/1.1"),
        bad("a version of two digits", "GET / HTTP/1.10"),
        bad("words behind the version", "GET / HTTP/1.1 please"),
        row("HTTP/1.2", line("GET / HTTP/1.2"), Refused(505, "M3108")),
        row("HTTP/2.0 in a request line", line("GET / HTTP/2.0"), Refused(505, "M3108")),
        row("HTTP/3.0 in a request line", line("GET / HTTP/3.0"), Refused(505, "M3108")),
        row("a percent sign that says nothing", line("GET /%zz?%00 HTTP/1.1"), Served(&[""])),
        row("dots, slashes and backslashes", line("GET /a/../..//b;c=d/%2e%2e/%2f HTTP/1.1"), Served(&[""])),
        row("a method that nobody knows", line("BREW /pot HTTP/1.1"), Served(&[""])),
        row("an empty line before the request", format!("\r\n{}", get("")), Served(&[""])),
        row("two empty lines before the request", format!("\r\n\r\n{}", get("")), Refused(400, "M3101")),
    ]
}

fn fields() -> Vec<Row> {
    let bad = |what, fields: &str| row(what, get(fields), Refused(400, "M3101"));
    vec![
        bad("a space before the colon", "x-a : b\r\n"),
        bad("a tab before the colon", "x-a\t: b\r\n"),
        bad("no colon", "x-a\r\n"),
        bad("no name", ": b\r\n"),
        bad("a name with a space", "x a: b\r\n"),
        bad("a name with a NUL", "x\0a: b\r\n"),
        bad("a name with an umlaut", "x\u{e4}: b\r\n"),
        bad("a name in parentheses", "(x): b\r\n"),
        bad("a NUL in a value", "x-a: b\0c\r\n"),
        bad("a control character in a value", "x-a: b\x01c\r\n"),
        bad("a DEL in a value", "x-a: b\x7fc\r\n"),
        bad("a bare CR in a value", "x-a: b\rc\r\n"),
        bad("a bare CR that hides a length", "x-a: b\rcontent-length: 5\r\n"),
        bad("a line that is folded by a space", "x-a: b\r\n c\r\n"),
        bad("a line that is folded by a tab", "x-a: b\r\n\tc\r\n"),
        bad("a length that is folded", "content-length:\r\n 5\r\n"),
        bad("a bare LF behind a header", "x-a: b\nx-c: d\r\n"),
        bad("a bare LF behind a length", "content-length: 0\ntransfer-encoding: chunked\r\n"),
        row("a bare LF that ends the head", "GET /row HTTP/1.1\r\nhost: cart\r\n\n", Refused(400, "M3101")),
        row("bare LFs everywhere", "GET /row HTTP/1.1\nhost: cart\n\n", Refused(400, "M3101")),
        row(
            "a bare LF behind the request line",
            "GET /row HTTP/1.1\nhost: cart\r\n\r\n",
            Refused(400, "M3101"),
        ),
        row(
            "a header folded under the request line",
            "GET /row HTTP/1.1\r\n host: cart\r\n\r\n",
            Refused(400, "M3101"),
        ),
        row("white space around a value", get("x-a: \t b \t \r\n"), Served(&[""])),
        row("an umlaut in a value", get("x-a: \u{e4}\r\n"), Served(&[""])),
    ]
}

fn hosts() -> Vec<Row> {
    let host = |fields: &str| format!("GET /row HTTP/1.1\r\n{fields}\r\n");
    let bad = |what, text: String| row(what, text, Refused(400, "M3103"));
    let absolute = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: cart\r\n\r\n");
    vec![
        bad("no Host", host("")),
        bad("two Host headers", host("host: cart\r\nhost: admin\r\n")),
        bad("the same Host twice", host("host: cart\r\nHOST: cart\r\n")),
        bad("an empty Host", host("host:\r\n")),
        bad("two hosts in one Host", host("host: cart, admin\r\n")),
        bad("a Host with a path", host("host: cart/admin\r\n")),
        bad("a Host with user information", host("host: cart@admin\r\n")),
        bad("a Host with a port that is none", host("host: cart:99999\r\n")),
        bad("a Host with a space", host("host: cart admin\r\n")),
        bad("a target that names another host", absolute("http://admin/row")),
        bad("a target that names another port", absolute("http://cart:81/row")),
        row("a target that names the host", absolute("http://cart/row"), Served(&[""])),
        row("a target that names its port", absolute("http://CART:80/row"), Served(&[""])),
        row("HTTP/1.0 without Host", "GET /row HTTP/1.0\r\n\r\n", Served(&[""])),
    ]
}

fn lengths() -> Vec<Row> {
    let bad = |what, fields: &str| row(what, post(fields, SMUGGLED), Refused(400, "M3102"));
    let coded = |what, fields: &str| row(what, post(fields, SMUGGLED), Refused(501, "M3107"));
    vec![
        bad("Content-Length and Transfer-Encoding", "content-length: 5\r\ntransfer-encoding: chunked\r\n"),
        bad("Transfer-Encoding and Content-Length", "transfer-encoding: chunked\r\ncontent-length: 5\r\n"),
        bad(
            "Transfer-Encoding and a Content-Length of 0",
            "transfer-encoding: chunked\r\ncontent-length: 0\r\n",
        ),
        bad("two lengths that differ", "content-length: 5\r\ncontent-length: 6\r\n"),
        bad("two lengths that are equal", "content-length: 5\r\ncontent-length: 5\r\n"),
        bad("a list of equal lengths", "content-length: 5, 5\r\n"),
        bad("a length with a sign", "content-length: +5\r\n"),
        bad("a length below 0", "content-length: -5\r\n"),
        bad("a hexadecimal length", "content-length: 0x5\r\n"),
        bad("a length with a space in it", "content-length: 1 5\r\n"),
        bad("a length with a point", "content-length: 5.0\r\n"),
        bad("an empty length", "content-length:\r\n"),
        bad("a length that does not fit into 64 bits", "content-length: 18446744073709551616\r\n"),
        bad("chunked twice", "transfer-encoding: chunked, chunked\r\n"),
        bad("chunked in two lines", "transfer-encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        coded("another coding", "transfer-encoding: gzip\r\n"),
        coded("chunked and another coding", "transfer-encoding: gzip, chunked\r\n"),
        coded("chunked, but not last", "transfer-encoding: chunked, gzip\r\n"),
        coded("identity beside chunked", "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n"),
        coded("nearly chunked", "transfer-encoding: xchunked\r\n"),
        coded("chunked with a parameter", "transfer-encoding: chunked;q=1\r\n"),
        coded("chunked in quotes", "transfer-encoding: \"chunked\"\r\n"),
        row(
            "chunked behind a form feed",
            post("transfer-encoding: \x0cchunked\r\n", SMUGGLED),
            Refused(400, "M3101"),
        ),
        row(
            "Transfer-Encoding in HTTP/1.0",
            "POST /row HTTP/1.0\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            Refused(400, "M3102"),
        ),
        row("CHUNKED", post("transfer-encoding: CHUNKED\r\n", "5\r\nhello\r\n0\r\n\r\n"), Served(&["hello"])),
        row("a length with zeros before it", post("content-length: 0005\r\n", "hello"), Served(&["hello"])),
        row("GET with a body", get("content-length: 5\r\n") + "hello", Served(&["hello"])),
        row(
            "a request within a body",
            post("content-length: 35\r\n", "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"),
            Served(&["GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"]),
        ),
    ]
}

fn chunks() -> Vec<Row> {
    let bad = |what, body: &str| row(what, chunked(body), Refused(400, "M3104"));
    let trailers = |fields: &str| chunked(&format!("5\r\nhello\r\n0\r\n{fields}\r\n"));
    vec![
        bad("a size that is no number", "g\r\nhello\r\n0\r\n\r\n"),
        bad("no size", "\r\nhello\r\n0\r\n\r\n"),
        bad("a size with a sign", "+5\r\nhello\r\n0\r\n\r\n"),
        bad("a size below 0", "-5\r\nhello\r\n0\r\n\r\n"),
        bad("a size that says that it is hexadecimal", "0x5\r\nhello\r\n0\r\n\r\n"),
        bad("a size behind a space", " 5\r\nhello\r\n0\r\n\r\n"),
        bad("a size with a space in it", "5 5\r\nhello\r\n0\r\n\r\n"),
        bad("a size that does not fit into 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        bad("a size with zeros without end", &format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(99))),
        bad("a size that ends with a bare LF", "5\nhello\r\n0\r\n\r\n"),
        bad("a size that ends with a bare CR", "5\rhello\r\n0\r\n\r\n"),
        bad("a chunk that is longer than it says", "5\r\nhello!\r\n0\r\n\r\n"),
        bad("a chunk that ends with a bare LF", "5\r\nhello\n0\r\n\r\n"),
        bad("a chunk that does not end", "5\r\nhello0\r\n\r\n"),
        bad("an extension with a bare LF", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        bad("an extension with a bare CR", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        bad("an extension with a NUL", "5;a\0b\r\nhello\r\n0\r\n\r\n"),
        bad("extensions of 17 KiB", &format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(17 << 10))),
        bad("a last chunk that ends with a bare LF", "5\r\nhello\r\n0\n\r\n"),
        row("a trailer that says a length", trailers("content-length: 5\r\n"), Refused(400, "M3104")),
        row(
            "a trailer that says a coding",
            trailers("transfer-encoding: chunked\r\n"),
            Refused(400, "M3104"),
        ),
        row("a trailer that names a host", trailers("host: admin\r\n"), Refused(400, "M3104")),
        row("a chunk with an extension", chunked("5;a=\"b;c\"\r\nhello\r\n0;d\r\n\r\n"), Served(&["hello"])),
        row("a size with zeros before it", chunked("0005\r\nhello\r\n000\r\n\r\n"), Served(&["hello"])),
        row(
            "sizes in both cases",
            chunked("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"),
            Served(&["01234567890123456789"]),
        ),
        row("trailers", trailers("x-sum: 1\r\n"), Served(&["hello"])),
        row(
            "a request within a chunk",
            chunked("1b\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n\r\n0\r\n\r\n"),
            Served(&["GET / HTTP/1.1\r\nhost: a\r\n\r\n"]),
        ),
    ]
}

fn pipelines() -> Vec<Row> {
    let first = post("content-length: 5\r\n", "hello");
    vec![
        row("two requests at once", format!("{first}{}", get("")), Served(&["hello", ""])),
        row(
            "a request, and rubbish",
            format!("{first}rubbish\r\n\r\n"),
            ServedThenRefused("hello", 400, "M3101"),
        ),
        row(
            "a request, and one of two readings",
            format!("{first}{}", post("content-length: 5\r\ntransfer-encoding: chunked\r\n", SMUGGLED)),
            ServedThenRefused("hello", 400, "M3102"),
        ),
        row(
            "a length that leaves the start of another request",
            post("content-length: 3\r\n", "abcGET /next HTTP/1.1\r\nhost: cart\r\n\r\n"),
            Served(&["abc", ""]),
        ),
    ]
}

async fn check(stage: &Stage, port: Port, row: &Row) {
    let what = format!("{} ({port:?})", row.what);
    let code = match row.wanted {
        Refused(_, code) | ServedThenRefused(_, _, code) => Some(code),
        Served(_) => None,
    };
    let before = stage.refusals(port, code.unwrap_or("none")).await;
    let answers = answers(&say(stage.address(port), &row.bytes).await);
    let told: Vec<(u16, &str)> = answers.iter().map(|(status, code, _)| (*status, code.as_str())).collect();
    let bodies: Vec<String> = stage.server.take_seen().iter().map(|seen| text(&seen.body)).collect();
    match row.wanted {
        Served(wanted) => {
            assert_eq!((told, bodies), (vec![(200, ""); wanted.len()], owned(wanted)), "{what}");
        }
        Refused(status, code) => {
            assert_eq!((told, bodies), (vec![(status, code)], Vec::new()), "{what}");
        }
        ServedThenRefused(body, status, code) => {
            assert_eq!((told, bodies), (vec![(200, ""), (status, code)], owned(&[body])), "{what}");
        }
    }
    let Some(code) = code else { return };
    assert!(
        answers.last().is_some_and(|(_, _, body)| body.contains(code)),
        "{what}: the body names the code"
    );
    stage.tells(&what, port, code, before).await;
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_request_that_could_be_read_in_two_ways_is_refused_on_both_ports_and_disturbs_nobody() {
    let stage = Stage::start("http").await;
    let rows = [sizes(), lines(), fields(), hosts(), lengths(), chunks(), pipelines()];
    for row in rows.iter().flatten() {
        for port in [Port::Outbound, Port::Inbound] {
            check(&stage, port, row).await;
        }
    }
    stage.check().await;
}

/// What a client says that only a proxy may say, or by which it would have a proxy take away what others rely on.
#[tokio::test]
async fn nobody_speaks_for_a_proxy_or_takes_away_what_a_proxy_says() {
    let stage = Stage::start("http").await;
    for port in [Port::Outbound, Port::Inbound] {
        for (what, fields, wanted) in FIELDS {
            let answers = answers(
                &say(stage.address(port), post(fields, "5\r\nhello\r\n0\r\nx-end: 1\r\n\r\n").as_bytes())
                    .await,
            );
            assert_eq!(answers.len(), 1, "{what} ({port:?}): {answers:?}");
            let seen = stage.server.take_seen();
            let [seen] = &seen[..] else { panic!("{what} ({port:?}): {seen:?}") };
            assert_eq!(text(&seen.body), "hello", "{what} ({port:?})");
            wanted(seen).unwrap_or_else(|seen| panic!("{what} ({port:?}): {seen:?}"));
        }
    }
    stage.check().await;
}

type Check = fn(&Seen) -> Result<(), &Seen>;

fn is(seen: &Seen, holds: bool) -> Result<(), &Seen> {
    if holds { Ok(()) } else { Err(seen) }
}

/// Each has a body in chunks behind it.
const FIELDS: &[(&str, &str, Check)] = &[
    (
        "headers of ours",
        "transfer-encoding: chunked\r\ngauze-peer: ns=admin;app=admin\r\nGauze-Not-Delivered: 1\r\nGAUZE-ERROR: M3003\r\n",
        |seen| is(seen, seen.fields.iter().all(|(name, _)| !name.starts_with("gauze"))),
    ),
    (
        "headers of ours, as servers may spell them that know no dash",
        "transfer-encoding: chunked\r\ngauze_peer: app=admin\r\nGauze_Peer: app=admin\r\n",
        |seen| is(seen, seen.fields.iter().all(|(name, _)| !name.starts_with("gauze"))),
    ),
    (
        "an identity that other meshes would write",
        "transfer-encoding: chunked\r\nx-forwarded-client-cert: By=spiffe://a\r\nX-Forwarded-Client-Cert: By=spiffe://b\r\nx_forwarded_client_cert: c\r\n",
        |seen| is(seen, seen.fields.iter().all(|(name, _)| !name.contains("client"))),
    ),
    (
        "Connection names what a proxy adds",
        "transfer-encoding: chunked\r\nconnection: x-request-id, host, gauze-peer, close\r\n",
        |seen| is(seen, seen.values("x-request-id").len() == 1 && seen.values("host") == ["cart"]),
    ),
    (
        "Connection names the framing",
        "transfer-encoding: chunked\r\nconnection: transfer-encoding, content-length\r\n",
        |seen| is(seen, seen.values("transfer-encoding") == ["chunked"]),
    ),
    (
        "what is for one hop",
        "transfer-encoding: chunked\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\nproxy-connection: close\r\nproxy-authorization: b\r\nte: gzip\r\n",
        |seen| {
            is(
                seen,
                ["x-hop", "keep-alive", "proxy-connection", "proxy-authorization", "te"]
                    .iter()
                    .all(|name| seen.values(name).is_empty()),
            )
        },
    ),
    (
        "trailers pass, as trailers",
        "transfer-encoding: chunked\r\ntrailer: x-end\r\nte: trailers\r\n",
        |seen| is(seen, seen.trailers == [("x-end".to_owned(), "1".to_owned())]),
    ),
];
