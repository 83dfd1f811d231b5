//! Interim responses (RFC 9110, 15.2): what an app says before its response, and when the client hears of it.

use std::future::poll_fn;

use http::{HeaderMap, Request, Response};
use tokio::time::timeout;

use super::{End, Ends, fields};
use crate::harness::eventually::PATIENCE;

const GET: &str = "GET / HTTP/1.1\r\nhost: cart\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
const EARLY_HINTS: &str = "HTTP/1.1 103 Early Hints";

/// What the app says, and the head that the client hears.
type Row = (&'static str, &'static str, &'static [&'static str]);

const ROWS: [Row; 5] = [
    (
        "HTTP/1.1 103 Early Hints\r\nlink: </b>\r\nlink: </a>\r\n\r\n",
        EARLY_HINTS,
        &["link: </a>", "link: </b>"],
    ),
    ("HTTP/1.1 102 Processing\r\n\r\n", "HTTP/1.1 102 Processing", &[]),
    // Whoever hears it by name alone may still know it by number.
    ("HTTP/1.1 104 Upload Resumption Supported\r\nlocation: /u\r\n\r\n", "HTTP/1.1 104 ", &["location: /u"]),
    (
        "HTTP/1.1 103 Early Hints\r\nconnection: x-hop\r\nx-hop: 1\r\ngauze-error: M4006\r\nlink: </c>\r\n\r\n",
        EARLY_HINTS,
        &["link: </c>"],
    ),
    ("HTTP/1.1 103 Early Hints\r\ncontent-length: 5\r\n\r\n", EARLY_HINTS, &[]),
];

#[tokio::test]
async fn interim_responses_reach_a_client_of_http1_before_the_response_exists() {
    for carrier in ["h2", "http1"] {
        let ends = Ends::start_with(&["--http1-carrier", carrier]).await;
        each_reaches_the_client(&ends).await;
        those_of_http10_hear_none(&ends).await;
        if carrier == "http1" {
            they_come_before_100_as_the_app_says(&ends).await; // over HTTP/2 the sidecar says 100 at once
        }
    }
}

async fn each_reaches_the_client(ends: &Ends) {
    let mut client = ends.client().await;
    client.say(GET).await;
    let mut app = ends.app().await;
    app.head().await;
    for (said, line, wanted) in ROWS {
        app.say(said).await;
        assert_eq!(client.head().await, (line.to_owned(), fields(wanted)), "{said}");
    }
    app.say(OK).await;
    client.hears_ok().await;

    // The next request of the connection hears its own.
    client.say(GET).await;
    let mut app = ends.app().await;
    app.head().await;
    app.say(&format!("{HINTS}{OK}")).await;
    assert_eq!(client.head().await, (EARLY_HINTS.to_owned(), fields(&["link: </a>"])));
    client.hears_ok().await;
}

async fn those_of_http10_hear_none(ends: &Ends) {
    let mut client = ends.client().await;
    client.say("GET / HTTP/1.0\r\nhost: cart\r\n\r\n").await;
    let mut app = ends.app().await;
    app.head().await;
    app.say(HINTS).await;
    client.hears_nothing().await;
    app.say(OK).await;
    client.hears_ok().await;
    assert_eq!(client.rest().await, "");
}

async fn they_come_before_100_as_the_app_says(ends: &Ends) {
    let mut client = ends.client().await;
    client.say("POST / HTTP/1.1\r\nhost: cart\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n").await;
    let mut app = ends.app().await;
    app.head().await;
    app.say(HINTS).await;
    assert_eq!(client.head().await, (EARLY_HINTS.to_owned(), fields(&["link: </a>"])));
    app.say("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.hears("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.say("abc").await;
    app.hears("abc").await;
    app.say(OK).await;
    client.hears_ok().await;
}

impl End {
    async fn hears_ok(&mut self) {
        let (line, fields) = self.head().await;
        assert_eq!(line, "HTTP/1.1 200 OK");
        assert!(fields.iter().any(|field| field == "content-length: 0"), "{fields:?}");
    }
}

#[tokio::test]
async fn interim_responses_come_before_the_tunnel_of_an_upgrade() {
    let ends = Ends::start().await;
    let mut client = ends.client().await;
    client.say("GET / HTTP/1.1\r\nhost: cart\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    let mut app = ends.app().await;
    app.head().await;
    app.say(HINTS).await;
    assert_eq!(client.head().await, (EARLY_HINTS.to_owned(), fields(&["link: </a>"])));
    let switches = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    app.say(&format!("{HINTS}{switches}behind")).await;
    assert_eq!(client.head().await, (EARLY_HINTS.to_owned(), fields(&["link: </a>"])));
    assert_eq!(client.head().await.0, "HTTP/1.1 101 Switching Protocols");
    client.hears("behind").await;
}

#[tokio::test]
async fn interim_responses_reach_a_client_of_http2_before_the_response_exists() {
    let ends = Ends::start().await;
    let (sender, connection) = h2::client::handshake(ends.client().await.0).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut sender = sender.ready().await.expect("open");
    let request = Request::get("http://cart/").body(()).expect("well-formed");
    let (mut response, _) = sender.send_request(request, true).expect("open");

    let mut app = h2::server::handshake(ends.app().await.0).await.expect("HTTP/2");
    let next = timeout(PATIENCE, app.accept()).await.expect("in time").expect("a request");
    let (_request, mut respond) = next.expect("a request");
    tokio::spawn(async move { while app.accept().await.is_some() {} });

    for (status, said, wanted) in [
        (103, &[("link", "</a>"), ("link", "</b>")][..], "103 link: </a>, link: </b>"),
        (102, &[], "102 "),
        (104, &[("location", "/u")], "104 location: /u"),
        (103, &[("gauze-error", "M4006"), ("content-length", "5"), ("link", "</c>")], "103 link: </c>"),
    ] {
        respond.send_informational(interim(status, said)).expect("open");
        assert_eq!(hear(&mut response).await.as_deref(), Some(wanted));
    }
    // At once with the final one.
    respond.send_informational(interim(103, &[("link", "</d>")])).expect("open");
    respond.send_informational(interim(103, &[("link", "</e>")])).expect("open");
    respond.send_response(Response::new(()), true).expect("open");
    for wanted in [Some("103 link: </d>"), Some("103 link: </e>"), None] {
        assert_eq!(hear(&mut response).await.as_deref(), wanted);
    }
    let response = timeout(PATIENCE, response).await.expect("in time").expect("an answer");
    assert_eq!(response.status(), 200);
}

fn interim(status: u16, fields: &[(&str, &str)]) -> Response<()> {
    let response = Response::builder().status(status);
    let response = fields.iter().fold(response, |response, (name, value)| response.header(*name, *value));
    response.body(()).expect("well-formed")
}

/// The next interim response; `None`: the final one is there.
async fn hear(response: &mut h2::client::ResponseFuture) -> Option<String> {
    let heard = timeout(PATIENCE, poll_fn(|cx| response.poll_informational(cx))).await.expect("in time")?;
    let heard = heard.expect("whole");
    Some(format!("{} {}", heard.status().as_str(), listed(heard.headers())))
}

/// All fields, also those that proxies add.
fn listed(fields: &HeaderMap) -> String {
    let fields = fields.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")));
    fields.collect::<Vec<_>>().join(", ")
}
