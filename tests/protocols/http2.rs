//! Messages of HTTP/2 with edges: without a body, with trailers on both sides, behind interim responses.

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::time::timeout;

use super::{End, Ends};
use crate::harness::eventually::PATIENCE;

/// What a client sends and what of it arrives, what the app answers and what of that comes back: written
/// `method or status [fields] body|trailers`.
struct Row {
    name: &'static str,
    request: &'static str,
    answer: &'static str,
    /// The status of an interim response before it; 0: none.
    interim: u16,
}

const ROWS: [Row; 8] = [
    Row { name: "nothing but heads", request: "GET [] ", answer: "200 [x-a: b] ", interim: 0 },
    Row {
        name: "trailers both ways",
        request: "POST [te: trailers] abc|t: 1",
        answer: "200 [x-a: b] def|u: 2",
        interim: 0,
    },
    Row { name: "trailers behind no body", request: "POST [] |t: 1", answer: "200 [] |u: 2", interim: 0 },
    Row {
        name: "HEAD with the length of what GET would get",
        request: "HEAD [] ",
        answer: "200 [content-length: 7] ",
        interim: 0,
    },
    Row {
        name: "304 with the length of what it stands for",
        request: "GET [] ",
        answer: "304 [content-length: 7] ",
        interim: 0,
    },
    Row { name: "204", request: "GET [] ", answer: "204 [] ", interim: 0 },
    Row { name: "205", request: "GET [] ", answer: "205 [content-length: 0] ", interim: 0 },
    Row {
        name: "an interim response is never taken for the response",
        request: "GET [] ",
        answer: "200 [content-length: 3] abc",
        interim: 103,
    },
];

#[tokio::test]
async fn each_edge_of_a_message_is_carried_over_http2() {
    let ends = Ends::start().await;
    let mut wrong = Vec::new();
    for row in &ROWS {
        let (arrives, comes_back) =
            tokio::join!(async { serve(ends.app().await, row).await }, ask(&ends, row));
        if (arrives.as_str(), comes_back.as_str()) != (row.request, row.answer) {
            wrong.push(format!("{}: {arrives:?} and {comes_back:?}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn ask(ends: &Ends, row: &Row) -> String {
    let (sender, connection) = h2::client::handshake(ends.client().await.0).await.expect("HTTP/2");
    tokio::spawn(connection);
    let written = Written::read(row.request);
    let mut request = Request::new(());
    *request.method_mut() = written.first.parse().expect("a method");
    *request.uri_mut() = http::Uri::from_static("http://cart/");
    *request.headers_mut() = written.fields.clone();
    let mut sender = sender.ready().await.expect("open");
    let (response, body) = sender.send_request(request, written.is_head_alone()).expect("open");
    written.send(body);
    let (head, body) = timeout(PATIENCE, response).await.expect("in time").expect("an answer").into_parts();
    told(head.status.as_str(), head.headers, body).await
}

async fn serve(app: End, row: &Row) -> String {
    let mut connection = h2::server::handshake(app.0).await.expect("HTTP/2");
    let next = timeout(PATIENCE, connection.accept()).await.expect("in time").expect("a request");
    let (request, mut respond) = next.expect("a request");
    connection.graceful_shutdown(); // the next request comes on a connection of its own
    tokio::spawn(async move { while connection.accept().await.is_some() {} });
    let (head, body) = request.into_parts();
    let arrived = told(head.method.as_str(), head.headers, body).await;
    if row.interim != 0 {
        let interim = Response::builder().status(row.interim).body(()).expect("well-formed");
        respond.send_informational(interim).expect("open");
    }
    let written = Written::read(row.answer);
    let mut response = Response::new(());
    *response.status_mut() = written.first.parse().expect("a status");
    *response.headers_mut() = written.fields.clone();
    let body = respond.send_response(response, written.is_head_alone()).expect("open");
    written.send(body);
    arrived
}

/// A message as a row writes it.
struct Written {
    first: String,
    fields: HeaderMap,
    body: String,
    trailers: HeaderMap,
}

impl Written {
    fn read(text: &str) -> Written {
        let (head, rest) = text.split_once("] ").expect("fields");
        let (first, fields) = head.split_once(" [").expect("fields");
        let (body, trailers) = rest.split_once('|').unwrap_or((rest, ""));
        let (fields, trailers) = (map(fields), map(trailers));
        Written { first: first.to_owned(), fields, body: body.to_owned(), trailers }
    }

    fn is_head_alone(&self) -> bool {
        self.body.is_empty() && self.trailers.is_empty()
    }

    fn send(self, mut stream: h2::SendStream<Bytes>) {
        let ends = self.trailers.is_empty();
        if !self.body.is_empty() {
            stream.send_data(Bytes::from(self.body), ends).expect("open");
        }
        if !ends {
            stream.send_trailers(self.trailers).expect("open");
        }
    }
}

fn map(fields: &str) -> HeaderMap {
    let fields = fields.split(", ").filter_map(|field| field.split_once(": "));
    let fields = fields.map(|(name, value)| -> (HeaderName, HeaderValue) {
        (name.parse().expect("a name"), value.parse().expect("a value"))
    });
    fields.collect()
}

/// A message as a row writes it, without what proxies add for each other.
async fn told(first: &str, fields: HeaderMap, mut body: RecvStream) -> String {
    let mut text = String::new();
    while let Some(data) = timeout(PATIENCE, body.data()).await.expect("in time") {
        let data = data.expect("whole");
        text += std::str::from_utf8(&data).expect("text");
    }
    let trailers = timeout(PATIENCE, body.trailers()).await.expect("in time").expect("whole");
    if let Some(trailers) = trailers {
        text += &format!("|{}", listed(&trailers));
    }
    format!("{first} [{}] {text}", listed(&fields))
}

fn listed(fields: &HeaderMap) -> String {
    let mut listed: Vec<_> =
        fields.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
    listed.retain(|field| !field.starts_with("x-request-id") && !field.starts_with("gauze-"));
    listed.sort();
    listed.join(", ")
}
