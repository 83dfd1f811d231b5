//! Interim responses: what a client notes, and what a server writes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;

use futures_util::stream;
use http::{Method, Request, Response};
use tokio::sync::mpsc;
use tokio::task::{spawn_local, yield_now};

use super::client::{Pool, answer, connect, request};
use super::*;
use crate::h1::server::serve;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// A request on a new connection, whose server says this: what is noted, what is heard, and whether the connection can be
/// used again.
async fn ask(script: &str, ends: bool) -> (Vec<String>, String, bool) {
    let (pool, interim) = (Pool::default(), Interim::default());
    let (connection, mut server) = connect(&pool).await;
    let serving = answer(&mut server, script, ends);
    let (mut head, body) = request(Method::GET, "/", Body::empty()).into_parts();
    let asking = connection.send_parts(&mut head, body, None, &interim);
    let ((), answer) = tokio::join!(serving, asking);
    let noted = std::iter::from_fn(|| interim.take()).map(|response| {
        let fields = response.headers().iter();
        let fields = fields.map(|(name, value)| format!(" {name}={}", value.to_str().unwrap()));
        format!("{}{}", response.status().as_str(), fields.collect::<String>())
    });
    let heard = match answer {
        Ok(response) => response.status().as_str().to_owned(),
        Err(error) => error.to_string(),
    };
    (noted.collect(), heard, pool.take().is_some())
}

#[test]
fn a_client_notes_what_comes_before_the_response() {
    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: a\r\nlink: b\r\n\r\n";
    const MANY: [&str; 16] = ["103 link=a link=b"; 16];
    let rows = [
        ("early hints", format!("{HINTS}{OK}"), &MANY[..1], "200", true),
        (
            "some, in their order",
            format!("HTTP/1.1 102 Processing\r\n\r\n{HINTS}HTTP/1.1 104 x\r\n\r\n{OK}"),
            &["102", "103 link=a link=b", "104"],
            "200",
            true,
        ),
        (
            "but not `100 Continue`, which it has asked for itself",
            format!("HTTP/1.1 100 Continue\r\n\r\n{HINTS}HTTP/1.1 100 Continue\r\n\r\n{OK}"),
            &MANY[..1],
            "200",
            true,
        ),
        (
            "without a length, whose body could be taken for the next response",
            format!("HTTP/1.1 103 Early Hints\r\ncontent-length: 5\r\n\r\n{OK}"),
            &["103"],
            "200",
            false,
        ),
        (
            "without a coding",
            format!("HTTP/1.1 103 Early Hints\r\ntransfer-encoding: chunked\r\na: b\r\n\r\n{OK}"),
            &["103 a=b"],
            "200",
            false,
        ),
        (
            "without what is for one hop",
            format!("HTTP/1.1 103 Early Hints\r\nconnection: x\r\nx: 1\r\n\r\n{OK}"),
            &["103"],
            "200",
            true,
        ),
        ("as many as may come", format!("{}{OK}", HINTS.repeat(16)), &MANY, "200", true),
        ("no more", format!("{}{OK}", HINTS.repeat(17)), &MANY, "more than 16 interim responses", false),
        (
            "also if no response follows",
            HINTS.to_owned(),
            &MANY[..1],
            "the connection was closed before the response",
            false,
        ),
        (
            "but no change of protocol",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(),
            &[],
            "the server changed the protocol unasked, or to one that was not offered",
            false,
        ),
    ];
    on_a_worker(async {
        for (what, script, noted, heard, kept) in rows {
            let noted = noted.iter().map(ToString::to_string).collect();
            assert_eq!(ask(&script, !kept).await, (noted, heard.to_owned(), kept), "{what}");
        }
    });
}

type Hints = mpsc::UnboundedSender<Response<()>>;

/// The other end of a server that notes what is sent to it; when there will be no more, it answers with the request's body.
async fn client_of_hints() -> (TcpStream, Hints) {
    let (client, server) = pair().await;
    let (sender, hints) = mpsc::unbounded_channel();
    let hints = RefCell::new(hints);
    spawn_local(async move {
        let handler = async |request: Request<Body>, interim: &Interim| {
            while let Some(hint) = poll_fn(|cx| hints.borrow_mut().poll_recv(cx)).await {
                interim.note(hint);
            }
            Response::new(Body::full(whole(request.into_body()).await))
        };
        serve(server, Rc::default(), stream::pending(), handler).await
    });
    (client, sender)
}

fn hint(status: u16, link: &str) -> Response<()> {
    Response::builder().status(status).header("link", link).body(()).unwrap()
}

#[test]
fn a_client_hears_each_before_the_response_exists_and_the_next_request_none_of_them() {
    on_a_worker(async {
        let (mut client, hints) = client_of_hints().await;
        say(&mut client, GET).await;
        for (status, line) in
            [(103, "103 Early Hints"), (102, "102 Processing"), (103, "103 Early Hints"), (199, "199 ")]
        {
            hints.send(hint(status, "a")).unwrap();
            let heard = read_until(&mut client, "\r\n\r\n").await;
            assert_eq!(heard, format!("HTTP/1.1 {line}\r\nlink: a\r\n\r\n"));
        }
        drop(hints);
        assert_eq!(read_until(&mut client, "\r\n\r\n").await, OK);
        say(&mut client, GET).await;
        assert_eq!(read_until(&mut client, "\r\n\r\n").await, OK);
    });
}

#[test]
fn what_comes_at_once_with_the_response_goes_ahead_of_it_and_never_to_http10() {
    let heads: String =
        ["a", "b", "c"].map(|link| format!("HTTP/1.1 103 Early Hints\r\nlink: {link}\r\n\r\n")).concat();
    let rows = [
        ("GET", GET.to_owned(), heads.clone() + OK),
        ("HEAD", GET.replace("GET", "HEAD"), heads.clone() + "HTTP/1.1 200 OK\r\n\r\n"),
        (
            "the last one",
            GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"),
            heads + "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "HTTP/1.0",
            GET.replace("1.1", "1.0"),
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
    ];
    on_a_worker(async {
        for (what, request, heard) in rows {
            let (mut client, hints) = client_of_hints().await;
            ["a", "b", "c"].iter().for_each(|link| hints.send(hint(103, link)).unwrap());
            drop(hints);
            say(&mut client, &request).await;
            client.shutdown().await.unwrap();
            assert_eq!(read_all(&mut client).await, heard, "{what}");
        }
    });
}

#[test]
fn http10_hears_none_while_it_waits() {
    on_a_worker(async {
        let (mut client, hints) = client_of_hints().await;
        say(&mut client, &GET.replace("1.1", "1.0")).await;
        for _ in 0..3 {
            hints.send(hint(103, "a")).unwrap();
            yield_now().await;
        }
        drop(hints);
        let heard = read_all(&mut client).await;
        assert_eq!(heard, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    });
}

/// More than sockets take at once.
#[test]
fn a_client_that_reads_late_hears_all_of_them_and_then_the_response() {
    on_a_worker(async {
        let (mut client, hints) = client_of_hints().await;
        say(&mut client, GET).await;
        let link = "a".repeat(512 * 1024);
        for _ in 0..16 {
            hints.send(hint(103, &link)).unwrap();
            yield_now().await;
        }
        drop(hints);
        let wanted = format!("HTTP/1.1 103 Early Hints\r\nlink: {link}\r\n\r\n").repeat(16) + OK;
        let mut heard = vec![0; wanted.len()];
        client.read_exact(&mut heard).await.unwrap();
        assert!(heard == wanted.as_bytes());
    });
}

#[test]
fn a_client_that_expects_100_hears_what_comes_before_it() {
    on_a_worker(async {
        let (mut client, hints) = client_of_hints().await;
        say(&mut client, "PUT / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
            .await;
        hints.send(hint(103, "a")).unwrap();
        let heard = read_until(&mut client, "\r\n\r\n").await;
        assert_eq!(heard, "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n");
        drop(hints);
        assert_eq!(read_until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        say(&mut client, "abc").await;
        let heard = read_until(&mut client, "abc").await;
        assert_eq!(heard, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc");
    });
}
