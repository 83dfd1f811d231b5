//! Messages of HTTP/1 with edges: versions, framings, trailers, responses without a body, ends of one direction.
//! Each row goes through two sidecars, once for each way in which HTTP/1 travels between them.

use super::{End, Ends};

const CARRIERS: [&str; 2] = ["h2", "http1"];

/// What a client says, what of it comes to the app, what the app answers, and what of that comes back. Messages that
/// were heard are written `first line [fields] body|trailers`; fields that proxies add for each other are left out.
struct Row {
    name: &'static str,
    request: &'static str,
    arrives: &'static str,
    answer: &'static str,
    comes_back: &'static str,
}

const GET: &str = "GET / HTTP/1.1\r\nhost: cart\r\n\r\n";
const GET_ARRIVES: &str = "GET / HTTP/1.1 [host: cart] ";
const HEAD: &str = "HEAD / HTTP/1.1\r\nhost: cart\r\n\r\n";
const HEAD_ARRIVES: &str = "HEAD / HTTP/1.1 [host: cart] ";

const ROWS: [Row; 18] = [
    Row {
        name: "HTTP/1.0 hears no chunks, and its end is that of the connection",
        request: "GET / HTTP/1.0\r\nhost: cart\r\n\r\n",
        arrives: GET_ARRIVES,
        answer: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nt: 1\r\n\r\n",
        comes_back: "HTTP/1.1 200 OK [connection: close] abc",
    },
    Row {
        name: "HTTP/1.0 that keeps its connection does so where the length is known",
        request: "GET / HTTP/1.0\r\nhost: cart\r\nconnection: keep-alive\r\n\r\n",
        arrives: GET_ARRIVES,
        answer: "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
        comes_back: "HTTP/1.1 200 OK [connection: keep-alive, content-length: 3] abc",
    },
    Row {
        name: "and not where it is not",
        request: "GET / HTTP/1.0\r\nhost: cart\r\nconnection: keep-alive\r\n\r\n",
        arrives: GET_ARRIVES,
        answer: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nt: 1\r\n\r\n",
        comes_back: "HTTP/1.1 200 OK [connection: close] abc",
    },
    Row {
        name: "a request of HTTP/1.0 with a body",
        request: "POST / HTTP/1.0\r\nhost: cart\r\ncontent-length: 3\r\n\r\nabc",
        arrives: "POST / HTTP/1.1 [content-length: 3, host: cart] abc",
        answer: "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
        comes_back: "HTTP/1.1 200 OK [connection: close, content-length: 1] x",
    },
    Row {
        name: "an app of HTTP/1.0, whose end is that of its connection",
        request: GET,
        arrives: GET_ARRIVES,
        answer: "HTTP/1.0 200 OK\r\n\r\nabc",
        comes_back: "HTTP/1.1 200 OK [transfer-encoding: chunked] abc",
    },
    Row {
        name: "such an app and such a client",
        request: "GET / HTTP/1.0\r\nhost: cart\r\n\r\n",
        arrives: GET_ARRIVES,
        answer: "HTTP/1.0 200 OK\r\n\r\nabc",
        comes_back: "HTTP/1.1 200 OK [connection: close] abc",
    },
    Row {
        name: "chunks and trailers both ways",
        request: "POST / HTTP/1.1\r\nhost: cart\r\nte: trailers, gzip\r\nconnection: te\r\ntransfer-encoding: chunked\r\ntrailer: t\r\n\r\n3;x=1\r\nabc\r\n0\r\nt: 1\r\n\r\n",
        arrives: "POST / HTTP/1.1 [host: cart, te: trailers, trailer: t, transfer-encoding: chunked] abc|t: 1",
        answer: "HTTP/1.1 200 OK\r\ntrailer: u\r\ntransfer-encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\nu: 2\r\n\r\n",
        comes_back: "HTTP/1.1 200 OK [trailer: u, transfer-encoding: chunked] def|u: 2",
    },
    Row {
        name: "trailers behind no body",
        request: GET,
        arrives: GET_ARRIVES,
        answer: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nu: 2\r\n\r\n",
        comes_back: "HTTP/1.1 200 OK [transfer-encoding: chunked] |u: 2",
    },
    Row {
        name: "100 that nobody expects",
        request: GET,
        arrives: GET_ARRIVES,
        answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
        comes_back: "HTTP/1.1 200 OK [content-length: 1] x",
    },
    Row {
        name: "HEAD with the length of what GET would get",
        request: HEAD,
        arrives: HEAD_ARRIVES,
        answer: "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n",
        comes_back: "HTTP/1.1 200 OK [content-length: 7] ",
    },
    Row {
        name: "HEAD in chunks that do not come",
        request: HEAD,
        arrives: HEAD_ARRIVES,
        answer: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        comes_back: "HTTP/1.1 200 OK [] ",
    },
    Row {
        name: "304 with the length of what it stands for",
        request: GET,
        arrives: GET_ARRIVES,
        answer: "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\netag: \"a\"\r\n\r\n",
        comes_back: "HTTP/1.1 304 Not Modified [content-length: 7, etag: \"a\"] ",
    },
    Row {
        name: "304 without",
        request: GET,
        arrives: GET_ARRIVES,
        answer: "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n",
        comes_back: "HTTP/1.1 304 Not Modified [etag: \"a\"] ",
    },
    Row {
        name: "204",
        request: GET,
        arrives: GET_ARRIVES,
        answer: "HTTP/1.1 204 No Content\r\n\r\n",
        comes_back: "HTTP/1.1 204 No Content [] ",
    },
    Row {
        name: "204 with a length, which must not stand there",
        request: GET,
        arrives: GET_ARRIVES,
        answer: "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
        comes_back: "HTTP/1.1 204 No Content [] ",
    },
    Row {
        name: "205",
        request: GET,
        arrives: GET_ARRIVES,
        answer: "HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n",
        comes_back: "HTTP/1.1 205 Reset Content [content-length: 0] ",
    },
    Row {
        name: "a client that ends its direction behind its request",
        request: "GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n<end>",
        arrives: GET_ARRIVES,
        answer: "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
        comes_back: "HTTP/1.1 200 OK [connection: close, content-length: 1] x",
    },
    Row {
        name: "a response that comes before the end of its request",
        request: "POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 6\r\n\r\nabc",
        arrives: "POST / HTTP/1.1 [content-length: 6, host: cart] abc",
        answer: "HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno",
        comes_back: "HTTP/1.1 413 Payload Too Large [content-length: 2] no",
    },
];

#[tokio::test]
async fn each_edge_of_a_message_is_carried_as_the_page_says() {
    let mut wrong = Vec::new();
    for carrier in CARRIERS {
        let ends = Ends::start_with(&["--http1-carrier", carrier]).await;
        for row in &ROWS {
            let (arrives, comes_back) = pass(&ends, row).await;
            if (arrives.as_str(), comes_back.as_str()) != (row.arrives, row.comes_back) {
                wrong.push(format!("{carrier}, {}: {arrives:?} and {comes_back:?}", row.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The request as it arrives, and the response as it comes back.
async fn pass(ends: &Ends, row: &Row) -> (String, String) {
    let mut client = ends.client().await;
    let (said, ends_then) = match row.request.strip_suffix("<end>") {
        Some(said) => (said, true),
        None => (row.request, false),
    };
    client.say(said).await;
    if ends_then {
        client.end().await;
    }
    let mut app = ends.app().await;
    let body = row.arrives.rsplit_once("] ").map_or("", |(_, body)| body);
    let arrives = app.message(Some(body.len()), false).await;
    app.say(row.answer).await;
    drop(app); // each row takes a connection of its own
    let comes_back = client.message(None, said.starts_with("HEAD")).await;
    (arrives, comes_back)
}

impl End {
    /// A whole message; of a body with a length only so much as is `expected`.
    async fn message(&mut self, expected: Option<usize>, is_to_head: bool) -> String {
        let (first, mut fields) = self.head().await;
        let length = fields.iter().find_map(|field| field.strip_prefix("content-length: ")?.parse().ok());
        let is_chunked = fields.iter().any(|field| field == "transfer-encoding: chunked");
        let bodiless = is_to_head || [" 100 ", " 204 ", " 304 "].iter().any(|status| first.contains(status));
        fields.retain(|field| !field.starts_with("gauze-") && !field.starts_with("date:"));
        let body = match length {
            _ if bodiless => String::new(),
            Some(length) => self.take(expected.unwrap_or(length).min(length)).await,
            None if is_chunked => self.chunks().await,
            None if expected.is_some() => String::new(),
            None => self.rest().await,
        };
        format!("{first} [{}] {body}", fields.join(", "))
    }

    async fn take(&mut self, length: usize) -> String {
        let mut text = String::new();
        while text.len() < length {
            text.push(char::from(self.byte().await));
        }
        text
    }

    /// The data of all chunks, and the trailers behind a bar.
    async fn chunks(&mut self) -> String {
        let mut body = String::new();
        loop {
            let size = usize::from_str_radix(&self.line().await, 16).expect("a size");
            if size == 0 {
                break;
            }
            body += &self.take(size).await;
            assert_eq!(self.line().await, "");
        }
        loop {
            match self.line().await {
                end if end.is_empty() => return body,
                trailer => body += &format!("|{trailer}"),
            }
        }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        while !line.ends_with("\r\n") {
            line.push(char::from(self.byte().await));
        }
        line.trim_end().to_owned()
    }
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_or_its_answer_and_need_not_send_its_body() {
    let request = "POST / HTTP/1.1\r\nhost: cart\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    let arrives = "POST / HTTP/1.1 [content-length: 3, expect: 100-continue, host: cart] ";
    for carrier in CARRIERS {
        let ends = Ends::start_with(&["--http1-carrier", carrier]).await;
        // The app wants the body.
        let mut client = ends.client().await;
        client.say(request).await;
        let mut app = ends.app().await;
        assert_eq!(app.message(Some(0), false).await, arrives, "{carrier}");
        app.say("HTTP/1.1 100 Continue\r\n\r\n").await;
        client.hears("HTTP/1.1 100 Continue\r\n\r\n").await;
        client.say("abc").await;
        app.hears("abc").await;
        app.say("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx").await;
        assert_eq!(client.message(None, false).await, "HTTP/1.1 200 OK [content-length: 1] x", "{carrier}");

        // It does not: the client has its answer, and no body ever comes.
        let mut client = ends.client().await;
        client.say(request).await;
        let mut app = ends.app().await;
        assert_eq!(app.message(Some(0), false).await, arrives, "{carrier}");
        app.say("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await;
        let heard = client.message(None, false).await;
        let heard = match heard.strip_prefix("HTTP/1.1 100 Continue [] ") {
            Some(_) if carrier == "h2" => client.message(None, false).await,
            _ => heard,
        };
        assert!(heard.starts_with("HTTP/1.1 401 Unauthorized ["), "{carrier}: {heard}");
        drop(client);
        assert_eq!(app.rest().await, "", "{carrier}");
    }
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_their_order() {
    for carrier in CARRIERS {
        let ends = Ends::start_with(&["--http1-carrier", carrier]).await;
        let mut client = ends.client().await;
        client.say("POST /1 HTTP/1.1\r\nhost: cart\r\ncontent-length: 1\r\n\r\naGET /2 HTTP/1.1\r\nhost: cart\r\n\r\n").await;
        client.say("GET /3 HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n").await;
        for (number, request) in [
            "POST /1 HTTP/1.1 [content-length: 1, host: cart] a",
            "GET /2 HTTP/1.1 [host: cart] ",
            "GET /3 HTTP/1.1 [host: cart] ",
        ]
        .iter()
        .enumerate()
        {
            let mut app = ends.app().await;
            assert_eq!(app.message(Some(usize::from(number == 0)), false).await, *request, "{carrier}");
            app.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\n{number}"))
                .await;
        }
        for (number, last) in [(0, ""), (1, ""), (2, "connection: close, ")] {
            let wanted = format!("HTTP/1.1 200 OK [{last}content-length: 1] {number}");
            assert_eq!(client.message(None, false).await, wanted, "{carrier}");
        }
        assert_eq!(client.rest().await, "", "{carrier}");
    }
}
