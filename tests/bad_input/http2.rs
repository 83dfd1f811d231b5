//! HTTP/2 that breaks its own rules, that would be two requests in HTTP/1, or that costs more than it should, on the
//! port of the app and on that of strangers.

use super::stage::{Port, Stage};
use crate::harness::frames::{END_HEADERS, END_STREAM, Fate, Frames, fields, frame, headers, integer, kind};

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

type Fields<'a> = &'a [(&'a str, &'a str)];

/// A request's fields, in a sentence, and what comes of them.
struct Row {
    what: &'static str,
    block: Vec<u8>,
    /// DATA behind the fields.
    body: Option<&'static str>,
    wanted: Wanted,
}

#[derive(Clone, Copy)]
enum Wanted {
    /// The stream is reset: no request was there.
    Malformed,
    /// It is answered so, by us, with this code in log and metric.
    Refused(u16, &'static str),
    /// It reaches the app, with this request line.
    Served(&'static str),
}

use Wanted::{Malformed, Refused, Served};

fn row(what: &'static str, these: Fields<'_>, wanted: Wanted) -> Row {
    Row { what, block: fields(these), body: None, wanted }
}

/// The usual four, and these.
fn more(what: &'static str, these: Fields<'_>, wanted: Wanted) -> Row {
    let usual = [(":method", "GET"), (":scheme", "http"), (":authority", "cart"), (":path", "/row")];
    row(what, &[&usual, these].concat(), wanted)
}

/// The usual four, one of them otherwise.
fn other(what: &'static str, name: &'static str, value: &str, wanted: Wanted) -> Row {
    let usual = [(":method", "GET"), (":scheme", "http"), (":authority", "cart"), (":path", "/row")];
    let changed = usual.map(|(field, before)| (field, if field == name { value } else { before }));
    row(what, &changed, wanted)
}

fn with_body(what: &'static str, length: &'static str, body: &'static str, wanted: Wanted) -> Row {
    Row { body: Some(body), ..more(what, &[("content-length", length)], wanted) }
}

const WELL: Wanted = Served("GET /row HTTP/2");

fn rows() -> Vec<Row> {
    let (method, scheme, authority, path) =
        ((":method", "GET"), (":scheme", "http"), (":authority", "cart"), (":path", "/row"));
    vec![
        more("a request as it should be", &[], WELL),
        row("no method", &[scheme, authority, path], Malformed),
        row("no scheme", &[method, authority, path], Malformed),
        row("no path", &[method, scheme, authority], Malformed),
        row("two methods", &[method, method, scheme, authority, path], Malformed),
        row("two paths", &[method, scheme, authority, path, (":path", "/admin")], Malformed),
        row("two authorities", &[method, scheme, authority, (":authority", "admin"), path], Malformed),
        row(
            "a pseudo-header that nobody knows",
            &[method, scheme, authority, path, (":admin", "1")],
            Malformed,
        ),
        row("the status of a response", &[method, scheme, authority, path, (":status", "200")], Malformed),
        row("a pseudo-header behind the others", &[method, scheme, authority, ("x-a", "b"), path], Malformed),
        other("an empty path", ":path", "", Malformed),
        other("a path that is none", ":path", "row", Malformed),
        other("a URI for a path", ":path", "http://admin/row", Malformed),
        other("a path with a space", ":path", "/a b", Malformed),
        other("a path that ends its line", ":path", "/a HTTP/1.1\r\nx-evil: 1\r\n\r\n", Malformed),
        other("a path with a bare LF", ":path", "/a\nx-evil: 1", Malformed),
        other("a path with a NUL", ":path", "/a\0b", Malformed),
        // The library that reads HTTP/2 drops it: nobody behind it ever sees one.
        other("a fragment in the path", ":path", "/row#b", WELL),
        other("the path of OPTIONS with GET", ":path", "*", Malformed),
        other("a method with a space", ":method", "GET /evil", Malformed),
        other("a method that ends its line", ":method", "GET / HTTP/1.1\r\nx-evil: 1\r\n\r\n", Malformed),
        other("an empty method", ":method", "", Malformed),
        other("an authority that ends its line", ":authority", "cart\r\nx-evil: 1", Malformed),
        other("an authority with a path", ":authority", "cart/admin", Malformed),
        other("an authority with user information", ":authority", "cart@admin", Malformed),
        other("a comma in the authority, which a name may have", ":authority", "cart,admin", WELL),
        other("a scheme that ends its line", ":scheme", "http\r\nx-evil: 1", Malformed),
        more("a value with CR and LF", &[("x-a", "b\r\nx-evil: 1")], Malformed),
        more("a value with a bare LF", &[("x-a", "b\nx-evil: 1")], Malformed),
        more("a value with a NUL", &[("x-a", "b\0c")], Malformed),
        more("a name with CR and LF", &[("x-a: b\r\nx-evil", "1")], Malformed),
        more("a name with a colon", &[("x-a: b", "1")], Malformed),
        more("a name with a space", &[("x a", "1")], Malformed),
        more("an empty name", &[("", "1")], Malformed),
        more("a name in upper case", &[("X-A", "1")], Malformed),
        more("Connection", &[("connection", "close")], Malformed),
        more("Keep-Alive", &[("keep-alive", "5")], Malformed),
        more("Proxy-Connection", &[("proxy-connection", "close")], Malformed),
        more("Transfer-Encoding", &[("transfer-encoding", "chunked")], Malformed),
        more("Upgrade", &[("upgrade", "h2c")], Malformed),
        more("TE with more than trailers", &[("te", "trailers, gzip")], Malformed),
        more("TE with trailers", &[("te", "trailers")], WELL),
        more("another host in Host", &[("host", "admin")], Malformed),
        more("two lengths that differ", &[("content-length", "5"), ("content-length", "6")], Malformed),
        more("a length that is none", &[("content-length", "5x")], Malformed),
        with_body("more bytes than the length says", "3", "hello", Malformed),
        with_body("fewer bytes than the length says", "9", "hello", Malformed),
        with_body("a length that no body can have", "18446744073709551616", "hello", Malformed),
        with_body("a body of its length", "5", "hello", WELL),
        other("a URI of 17 KiB", ":path", &format!("/{}", "a".repeat(17 << 10)), Refused(414, "M3105")),
        more("101 headers", &[("x-a", "1"); 101], Refused(431, "M3106")),
        more("a header of 100 KiB", &[("x-a", &"a".repeat(100 << 10))], Refused(431, "M3106")),
    ]
}

/// What is not as the row promises.
async fn check(stage: &Stage, port: Port, row: &Row) -> Result<(), String> {
    let what = format!("{} ({port:?})", row.what);
    let code = if let Refused(_, code) = row.wanted { code } else { "none" };
    let before = stage.refusals(port, code).await;
    let mut frames = Frames::connect(stage.address(port)).await;
    let flags = if row.body.is_some() { 0 } else { END_STREAM };
    frames.send(&headers(1, flags, &row.block)).await;
    if let Some(body) = row.body {
        frames.send(&frame(kind::DATA, END_STREAM, 1, body.as_bytes())).await;
    }
    let fate = frames.fate(1).await;
    let lines: Vec<_> = stage.server.take_seen().into_iter().map(|seen| seen.line).collect();
    let holds = match row.wanted {
        Malformed => {
            let fates = [Fate::Reset(PROTOCOL_ERROR), Fate::SentAway(PROTOCOL_ERROR), Fate::Answered(400)];
            fates.contains(&fate) && lines.is_empty()
        }
        Served(line) => fate == Fate::Answered(200) && lines == [line],
        Refused(status, _) => fate == Fate::Answered(status) && lines.is_empty(),
    };
    if !holds {
        return Err(format!("{what}: {fate:?}, the app saw {lines:?}"));
    }
    if let Refused(_, code) = row.wanted {
        stage.tells(&what, port, code, before).await;
    }
    if !matches!(fate, Fate::SentAway(_)) {
        let well = [(":method", "GET"), (":scheme", "http"), (":authority", "cart"), (":path", "/next")];
        frames.send(&headers(3, END_STREAM, &fields(&well))).await;
        assert_eq!(frames.fate(3).await, Fate::Answered(200), "{what}: the connection goes on");
        assert_eq!(stage.server.take_seen().len(), 1, "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn http2_that_is_no_request_or_would_be_two_is_reset_and_the_connection_goes_on() {
    let stage = Stage::start("http").await;
    let mut wrong = Vec::new();
    for row in rows() {
        for port in [Port::Outbound, Port::Inbound] {
            wrong.extend(check(&stage, port, &row).await.err());
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    stage.check().await;
}

/// A flood, and whether its sender is sent away (else it has cost next to nothing).
struct Flood {
    what: &'static str,
    bytes: Vec<u8>,
    is_sent_away: bool,
}

fn floods() -> Vec<Flood> {
    let well = [(":method", "GET"), (":scheme", "http"), (":authority", "cart"), (":path", "/row")];
    let block = fields(&well);
    let streams =
        |each: &dyn Fn(u32) -> Vec<u8>| (0..5_000).flat_map(|at| each(1 + 2 * at)).collect::<Vec<u8>>();
    let reset = |stream| frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    let open = frame(kind::HEADERS, END_HEADERS, 1, &block);
    // A field of 4,000 bytes put into the dynamic table, and named over and over.
    let mut bomb = block.clone();
    bomb.push(0x40);
    for text in ["x-a", &"a".repeat(4_000)] {
        integer(text.len(), 7, 0, &mut bomb);
        bomb.extend_from_slice(text.as_bytes());
    }
    bomb.extend([0xbe; 12_000]);
    vec![
        Flood {
            what: "streams that are opened and reset",
            bytes: streams(&|stream| [headers(stream, END_STREAM, &block), reset(stream)].concat()),
            is_sent_away: true,
        },
        Flood {
            what: "streams whose requests are malformed",
            bytes: streams(&|stream| headers(stream, END_STREAM, &fields(&[(":method", "GET")]))),
            is_sent_away: true,
        },
        Flood {
            what: "CONTINUATION without end",
            bytes: [
                frame(kind::HEADERS, 0, 1, &block),
                frame(kind::CONTINUATION, 0, 1, &fields(&[("x-a", "b")])).repeat(50_000),
            ]
            .concat(),
            is_sent_away: true,
        },
        Flood {
            what: "empty CONTINUATION without end",
            bytes: [frame(kind::HEADERS, 0, 1, &block), frame(kind::CONTINUATION, 0, 1, &[]).repeat(100_000)]
                .concat(),
            is_sent_away: true,
        },
        Flood {
            what: "a field of 4,000 bytes, named 12,000 times",
            bytes: headers(1, END_STREAM, &bomb),
            is_sent_away: false,
        },
        Flood {
            what: "empty DATA",
            bytes: [open, frame(kind::DATA, 0, 1, &[]).repeat(300_000)].concat(),
            is_sent_away: false,
        },
        Flood { what: "PING", bytes: frame(kind::PING, 0, 0, &[7; 8]).repeat(100_000), is_sent_away: false },
        Flood {
            what: "SETTINGS",
            bytes: frame(kind::SETTINGS, 0, 0, &[]).repeat(100_000),
            is_sent_away: false,
        },
    ]
}

/// What a flood may leave in memory, in bytes: what a sidecar may need for a hundred connections.
const ROOM: u64 = 16 << 20;

#[tokio::test]
async fn a_flood_of_frames_costs_little_memory_and_disturbs_nobody() {
    let stage = Stage::start("http").await;
    for Flood { what, bytes, is_sent_away } in floods() {
        for port in [Port::Outbound, Port::Inbound] {
            let process = &stage.sidecar(port).process;
            let before = process.resident_memory();
            let calm = stage.refusals(port, "M3112").await;
            let mut frames = Frames::connect(stage.address(port)).await;
            frames.flood(&bytes).await;
            frames.send(&frame(kind::PING, 0, 0, b"is it on")).await;
            if is_sent_away {
                let fate = frames.fate(u32::MAX >> 1).await;
                assert_eq!(fate, Fate::SentAway(ENHANCE_YOUR_CALM), "{what} ({port:?})");
                stage.tells(what, port, "M3112", calm).await;
            } else {
                while let Some(next) = frames.next().await {
                    if next.0 == kind::PING && next.3 == b"is it on" {
                        break;
                    }
                }
            }
            let grown = process.resident_memory().saturating_sub(before);
            println!("{what} ({port:?}): {} KiB", grown >> 10);
            assert!(grown < ROOM, "{what} ({port:?}): {grown} bytes more");
        }
    }
    stage.server.take_seen();
    stage.check().await;
}
