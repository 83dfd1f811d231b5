//! Interim responses (RFC 9110, 15.2): what an app says before its response, and when the client hears of it.

use super::{End, Ends, fields};

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
    let ends = Ends::start_with(&["--http1-carrier", "http1"]).await;
    each_reaches_the_client(&ends).await;
    those_of_http10_hear_none(&ends).await;
    they_come_before_100_as_the_app_says(&ends).await;
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
