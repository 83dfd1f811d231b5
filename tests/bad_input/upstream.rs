//! Servers that answer what could be read in two ways, too much, too little, or what nobody asked for. None of it is
//! ever taken for the answer to somebody else's request.

use super::stage::{Port, Script, Stage, answers, say};

struct Row {
    what: &'static str,
    answer: Vec<u8>,
    then_end: bool,
    wanted: Wanted,
}

enum Wanted {
    /// The client is told so, and nothing of the answer reaches it.
    Told(u16, &'static str),
    /// The client gets this, and it is whole.
    Whole(u16, &'static str),
    /// The client gets the beginning, and sees that it is not all.
    Broken,
}

use Wanted::{Broken, Told, Whole};

fn row(what: &'static str, answer: impl AsRef<[u8]>, wanted: Wanted) -> Row {
    Row { what, answer: answer.as_ref().to_vec(), then_end: false, wanted }
}

fn ends(what: &'static str, answer: impl AsRef<[u8]>, wanted: Wanted) -> Row {
    Row { then_end: true, ..row(what, answer, wanted) }
}

fn ok(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}")
}

const NOT_HTTP: Wanted = Told(502, "M3011");
const RESET: Wanted = Told(503, "M3010");
const EVIL: &str = "HTTP/1.1 200 OK\r\nx-evil: 1\r\ncontent-length: 4\r\n\r\nevil";

fn heads() -> Vec<Row> {
    let bad = |what, fields: &str| row(what, ok(fields, "hello"), NOT_HTTP);
    let line = |what, line: &str| row(what, format!("{line}\r\ncontent-length: 0\r\n\r\n"), NOT_HTTP);
    let many = |count: usize| (0..count).map(|at| format!("x-{at}: 1\r\n")).collect::<String>();
    vec![
        bad("a length and chunks", "content-length: 5\r\ntransfer-encoding: chunked\r\n"),
        bad("two lengths that differ", "content-length: 5\r\ncontent-length: 0\r\n"),
        bad("two lengths that are equal", "content-length: 5\r\ncontent-length: 5\r\n"),
        bad("a length with a sign", "content-length: +5\r\n"),
        bad("a length below 0", "content-length: -5\r\n"),
        bad("another coding", "transfer-encoding: gzip\r\n"),
        bad("chunked twice", "transfer-encoding: chunked, chunked\r\n"),
        bad("a bare LF", "content-length: 5\nx-a: b\r\n"),
        bad("a bare CR", "x-a: b\rc\r\ncontent-length: 5\r\n"),
        bad("a NUL", "x-a: b\0c\r\ncontent-length: 5\r\n"),
        bad("a folded line", "x-a: b\r\n c\r\ncontent-length: 5\r\n"),
        bad("a space before the colon", "content-length : 5\r\n"),
        bad("a head of 1 MiB", &format!("x-a: {}\r\n", "a".repeat(1 << 20))),
        bad("101 headers", &many(101)),
        line("a version that is none", "HTTP/2.0 200 OK"),
        line("another protocol", "ICY 200 OK"),
        line("a status of two digits", "HTTP/1.1 20 OK"),
        line("a status of four digits", "HTTP/1.1 2000 OK"),
        line("a status that is no number", "HTTP/1.1 abc OK"),
        line("a status below 100", "HTTP/1.1 099 OK"),
        row("an empty line before the answer", format!("\r\n{}", ok("content-length: 0\r\n", "")), NOT_HTTP),
        row(
            "a change of protocol that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            NOT_HTTP,
        ),
        row("interim answers without end", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100), NOT_HTTP),
        row(
            "an interim answer, and the answer",
            format!("HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n{}", ok("content-length: 5\r\n", "hello")),
            Whole(200, "hello"),
        ),
        ends("nothing", "", RESET),
        ends("half a head", "HTTP/1.1 200 OK\r\ncontent-le", RESET),
        row(
            "a head in the name of a proxy",
            ok("gauze-error: M4006\r\ngauze-not-delivered: 1\r\ncontent-length: 5\r\n", "hello"),
            Whole(200, "hello"),
        ),
    ]
}

fn bodies() -> Vec<Row> {
    let chunks = |body: &str| ok("transfer-encoding: chunked\r\n", body);
    vec![
        ends("a body that ends too early", ok("content-length: 50\r\n", "hello"), Broken),
        ends("chunks that end too early", chunks("5\r\nhello\r\n"), Broken),
        ends("a chunk that ends too early", chunks("50\r\nhello"), Broken),
        row("a chunk whose size is no number", chunks("5\r\nhello\r\nxyz\r\n"), Broken),
        row("a chunk whose size is too large", chunks("5\r\nhello\r\n10000000000000000\r\n"), Broken),
        row("a chunk that is longer than it says", chunks("5\r\nhello!\r\n0\r\n\r\n"), Broken),
        row("a chunk that ends with a bare LF", chunks("5\r\nhello\n0\r\n\r\n"), Broken),
        row("a trailer that says a length", chunks("5\r\nhello\r\n0\r\ncontent-length: 9\r\n\r\n"), Broken),
        ends("a body until the connection ends", ok("", "hello"), Whole(200, "hello")),
        row("a chunk with an extension", chunks("5;a=b\r\nhello\r\n0\r\n\r\n"), Whole(200, "hello")),
    ]
}

/// Each leaves bytes behind that a proxy might take for its next answer.
fn excess() -> Vec<Row> {
    vec![
        row(
            "another answer behind the answer",
            ok("content-length: 5\r\n", "hello") + EVIL,
            Whole(200, "hello"),
        ),
        row(
            "another answer behind the last chunk",
            ok("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n") + EVIL,
            Whole(200, "hello"),
        ),
        row("a body longer than its length", ok("content-length: 5\r\n", "hello world"), Whole(200, "hello")),
        row("a body behind 204", format!("HTTP/1.1 204 No Content\r\n\r\n{EVIL}"), Whole(204, "")),
        row(
            "a body with a length behind 204",
            format!("HTTP/1.1 204 No Content\r\ncontent-length: {}\r\n\r\n{EVIL}", EVIL.len()),
            Whole(204, ""),
        ),
        row(
            "a body behind 304",
            format!("HTTP/1.1 304 Not Modified\r\ncontent-length: {}\r\n\r\n{EVIL}", EVIL.len()),
            Whole(304, ""),
        ),
    ]
}

async fn check(stage: &Stage, port: Port, row: &Row) {
    let what = format!("{} ({port:?})", row.what);
    let code = match row.wanted {
        Told(_, code) => Some(code),
        Broken | Whole(..) => None,
    };
    let before = stage.refusals(Port::Inbound, code.unwrap_or("none")).await;
    stage.server.answer_with(Some(Script { bytes: row.answer.clone(), then_end: row.then_end }));
    let bytes = say(stage.address(port), b"GET /row HTTP/1.1\r\nhost: cart\r\n\r\n").await;
    stage.server.answer_with(None);
    let got = String::from_utf8_lossy(&bytes).into_owned();
    assert!(!got.contains("evil"), "{what}: {got}");
    match row.wanted {
        Told(status, code) => {
            let answers = answers(&bytes);
            let told: Vec<_> = answers.iter().map(|(status, code, _)| (*status, code.as_str())).collect();
            assert_eq!(told, [(status, code)], "{what}: {got}");
        }
        Whole(status, body) => assert_eq!(whole(&got), Some((status, body.to_owned())), "{what}: {got}"),
        Broken => assert_eq!(whole(&got), None, "{what}: {got}"),
    }
    assert_eq!(stage.server.take_seen().len(), 1, "{what}: it was asked once");
    let next = answers(&say(stage.address(port), b"GET /next HTTP/1.1\r\nhost: cart\r\n\r\n").await);
    assert_eq!(
        next,
        [(200, String::new(), "ok".to_owned())],
        "{what}: the next answer is the next request's"
    );
    assert_eq!(stage.server.take_seen().len(), 1, "{what}");
    if let Some(code) = code {
        stage.tells(&what, Port::Inbound, code, before).await;
    }
}

/// Status and body of a single answer without a code of ours, if it is all there.
fn whole(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let head = head.to_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    if status < 200 {
        return whole(body);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let whole = match length {
        _ if head.contains("gauze-") => return None,
        _ if status == 204 || status == 304 => body.is_empty().then(String::new),
        Some(length) => (body.len() == length).then(|| body.to_owned()),
        None => body
            .strip_suffix("0\r\n\r\n")
            .map(|chunks| chunks.split("\r\n").skip(1).step_by(2).collect::<String>()),
    };
    Some((status, whole?))
}

#[tokio::test]
async fn no_byte_of_a_servers_answer_is_ever_the_answer_to_another_request() {
    let stage = Stage::start("http").await;
    let rows = [heads(), bodies(), excess()];
    for row in rows.iter().flatten() {
        for port in [Port::Outbound, Port::Inbound] {
            check(&stage, port, row).await;
        }
    }
    stage.check().await;
}
