use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::{Request, Response};
use http_body_util::StreamBody;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_local};

use super::*;
use crate::body::BodyError;
use crate::h1::server::{Closing, Payload, ServeError, Settings, serve};

type Outcome = JoinHandle<Result<(), ServeError>>;

impl<S> Payload for StreamBody<S> where
    S: futures_util::Stream<Item = Result<http_body::Frame<Bytes>, BodyError>> + Unpin
{
}

/// An answer that tells what was heard.
async fn echo(request: Request<Body>) -> Response<Body> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    Response::new(Body::full(format!("{method} {uri} {}", whole(request.into_body()).await)))
}

fn start<F: Future<Output = Response<Body>> + 'static>(
    stream: Stream,
    settings: Settings,
    handler: impl Fn(Request<Body>) -> F + 'static,
) -> Outcome {
    spawn_local(async move {
        serve(stream, Rc::new(settings), stream::pending(), async |request, _: &Interim| {
            handler(request).await
        })
        .await
    })
}

/// What a client hears that says `script` and ends.
async fn hear(script: &str) -> String {
    let (mut client, server) = pair().await;
    start(server, Settings::default(), echo);
    say(&mut client, script).await;
    client.shutdown().await.unwrap();
    read_all(&mut client).await
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_request_is_answered() {
    let rows = [
        ("without a body", "GET /a HTTP/1.1\r\nhost: x\r\n\r\n", ok("GET /a ")),
        ("with a length", "PUT /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc", ok("PUT /a abc")),
        (
            "in chunks with a trailer",
            "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nt: 1\r\n\r\n",
            ok("POST / abcde|t=1"),
        ),
        (
            "after another, both sent at once",
            "POST /1 HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\naGET /2 HTTP/1.1\r\nhost: x\r\n\r\n",
            ok("POST /1 a") + &ok("GET /2 "),
        ),
        ("in absolute form", "GET http://y/a HTTP/1.1\r\nhost: y\r\n\r\n", ok("GET http://y/a ")),
        (
            "offering h2c, which is passed over",
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
            ok("GET / "),
        ),
        (
            "as the last one",
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\nGET /not HTTP/1.1\r\nhost: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nGET / ".to_owned(),
        ),
        (
            "of HTTP/1.0",
            "GET / HTTP/1.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nGET / ".to_owned(),
        ),
    ];
    on_a_worker(async {
        for (name, script, answer) in rows {
            assert_eq!(hear(script).await, answer, "a request {name}");
        }
    });
}

#[test]
fn what_is_no_clear_request_is_refused_by_code_and_the_connection_closed() {
    let rows = [
        ("another protocol", "\x16\x03\x01", "400 M3101"),
        ("no version", "GET /\r\n\r\n", "400 M3101"),
        ("a bare line feed", "GET / HTTP/1.1\nhost: x\n\n", "400 M3101"),
        ("no host", "GET / HTTP/1.1\r\n\r\n", "400 M3103"),
        ("two hosts", "GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", "400 M3103"),
        (
            "length and coding",
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "400 M3102",
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
            "400 M3102",
        ),
        (
            "another coding",
            "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "501 M3107",
        ),
        ("a later version", "GET / HTTP/2.0\r\nhost: x\r\n\r\n", "505 M3108"),
        (
            "CONNECT with a body",
            "CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\ncontent-length: 1\r\n\r\na",
            "400 M3102",
        ),
    ];
    on_a_worker(async {
        for (name, script, refusal) in rows {
            // What follows the refused bytes is not read as a request.
            let heard = hear(&format!("{script}GET / HTTP/1.1\r\nhost: x\r\n\r\n")).await;
            let (head, body) = heard.split_once("\r\n\r\n").unwrap();
            let (status, code) = refusal.split_once(' ').unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {head}");
            assert!(head.contains(&format!("gauze-error: {code}")), "{name}: {head}");
            assert!(head.contains("connection: close"), "{name}: {head}");
            assert!(body.starts_with(code) && body.ends_with('\n'), "{name}: {body}");
        }
    });
}

#[test]
fn it_makes_no_difference_where_the_bytes_are_cut() {
    let script = "POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nt: 1\r\n\r\n\
                  PUT /b HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc\
                  GET /c HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = ok("POST /a abc|t=1") + &ok("PUT /b abc") + &ok("GET /c ");
    on_a_worker(async {
        for cut in 1..script.len() {
            let (mut client, mut server) = pair().await;
            server.put_back(Bytes::from(&script[..cut]));
            start(server, Settings::default(), echo);
            say(&mut client, &script[cut..]).await;
            client.shutdown().await.unwrap();
            assert_eq!(read_all(&mut client).await, answer, "cut at {cut}");
        }
    });
}

#[test]
fn a_broken_body_ends_the_connection() {
    on_a_worker(async {
        let heard = hear(
            "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n",
        )
        .await;
        assert!(heard.contains("broken: a chunk's size"), "{heard}");
        assert_eq!(heard.matches("HTTP/1.1 200").count(), 1, "{heard}");
    });
}

#[test]
fn a_body_that_breaks_before_the_response_is_refused_by_code() {
    on_a_worker(async {
        let (mut client, server) = pair().await;
        let outcome = start(server, Settings::default(), async |request: Request<Body>| {
            whole(request.into_body()).await;
            std::future::pending().await // as a proxy whose upstream waits for the rest
        });
        say(&mut client, "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n").await;
        let heard = read_until(&mut client, "\n\r\n").await;
        assert!(heard.starts_with("HTTP/1.1 400 ") && heard.contains("gauze-error: M3104"), "{heard}");
        drop(client);
        assert!(matches!(outcome.await.unwrap(), Err(ServeError::Refused(_))));
    });
}

/// A body of unknown length, with a trailer.
fn streamed() -> StreamBody<impl futures_util::Stream<Item = Result<http_body::Frame<Bytes>, BodyError>>> {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("t", http::HeaderValue::from_static("1"));
    StreamBody::new(futures_util::stream::iter([
        Ok(http_body::Frame::data(Bytes::from_static(b"abc"))),
        Ok(http_body::Frame::data(Bytes::new())),
        Ok(http_body::Frame::data(Bytes::from_static(b"0123456789abcdef"))),
        Ok(http_body::Frame::trailers(trailers)),
    ]))
}

#[test]
fn a_response_of_unknown_length_is_chunked_and_ends_with_its_trailers() {
    on_a_worker(async {
        let (mut client, server) = pair().await;
        spawn_local(async move {
            let handler = async |_, _: &Interim| Response::new(streamed());
            serve(server, Rc::default(), stream::pending(), handler).await
        });
        say(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\nHEAD / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        say(&mut client, "GET / HTTP/1.0\r\n\r\n").await;
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                       3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nt: 1\r\n\r\n";
        let head = "HTTP/1.1 200 OK\r\n\r\n";
        let until_close = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc0123456789abcdef";
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, [chunked, head, until_close].concat());
    });
}

#[test]
fn a_client_that_expects_it_is_told_to_continue_when_the_body_is_wanted() {
    let head = "POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    on_a_worker(async {
        let (mut client, server) = pair().await;
        start(server, Settings::default(), echo);
        say(&mut client, head).await;
        assert_eq!(read_until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        say(&mut client, "abc").await;
        assert_eq!(read_until(&mut client, "abc").await, ok("POST / abc"));

        // Refused without a look at the body: nothing tells whether the body will follow, so it is the last.
        let (mut client, server) = pair().await;
        start(server, Settings::default(), async |_| Response::new(Body::empty()));
        say(&mut client, head).await;
        let heard = read_all(&mut client).await;
        assert_eq!(heard, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    });
}

#[test]
fn a_short_body_that_nobody_wants_is_passed_over_and_a_long_one_ends_the_connection() {
    let unread = async |_: Request<Body>| Response::new(Body::full("no"));
    on_a_worker(async {
        for (length, answers) in [(1000, 2), (1_000_000, 1)] {
            let (mut client, server) = pair().await;
            start(server, Settings::default(), unread);
            let body = "x".repeat(length);
            let request = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
            say(&mut client, &request).await; // alone: a body in the same read would be taken whole
            read_until(&mut client, "no").await;
            say(&mut client, &body).await;
            say(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
            client.shutdown().await.unwrap();
            let heard = read_all(&mut client).await;
            assert_eq!(1 + heard.matches("HTTP/1.1 200").count(), answers, "{length}: {heard}");
        }
    });
}

#[test]
fn a_head_that_does_not_arrive_in_time_is_answered_and_an_idle_connection_is_not() {
    let settings = Settings {
        header_timeout: Duration::from_millis(20),
        idle_timeout: Duration::from_millis(20),
        ..Settings::default()
    };
    on_a_worker(async {
        let (mut client, server) = pair().await;
        let outcome = start(server, settings.clone(), echo);
        say(&mut client, "GET / HTTP/1.1\r\nho").await;
        let heard = read_all(&mut client).await;
        assert!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
        drop(client);
        assert!(matches!(outcome.await.unwrap(), Err(ServeError::Refused(_))));

        let (mut client, server) = pair().await;
        let outcome = start(server, settings, echo);
        assert_eq!(read_all(&mut client).await, "");
        assert!(outcome.await.unwrap().is_ok());
    });
}

/// Tells when it is dropped.
struct Dropped(Rc<Cell<bool>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

#[test]
fn a_client_that_goes_away_takes_its_request_with_it() {
    let patience = Settings { half_closed_timeout: Duration::from_millis(20), ..Settings::default() };
    on_a_worker(async {
        for reset in [true, false] {
            let (mut client, server) = pair().await;
            let dropped = Rc::new(Cell::new(false));
            let guard = Cell::new(Some(Dropped(dropped.clone())));
            let outcome = start(server, patience.clone(), move |_| {
                let guard = guard.take();
                async move {
                    let _guard = guard;
                    std::future::pending().await
                }
            });
            say(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
            if reset {
                client.set_zero_linger().unwrap();
            }
            drop(client);
            assert!(matches!(outcome.await.unwrap(), Err(ServeError::Abandoned)), "reset: {reset}");
            assert!(dropped.get());
        }
    });
}

#[test]
fn what_is_to_close_closes_when_idle_or_with_its_next_response() {
    use Closing::{Now, WithResponse};
    // Whether a request is under way when the order comes, and whether one comes afterwards.
    let rows =
        [(Now, false, false), (Now, true, false), (WithResponse, true, false), (WithResponse, false, true)];
    on_a_worker(async {
        for (order, busy, later) in rows {
            let (mut client, server) = pair().await;
            let (close, closing) = oneshot::channel::<()>();
            let (answer, answered) = oneshot::channel::<()>();
            let answered = Cell::new(Some(answered));
            let (began, begun) = oneshot::channel::<()>();
            let began = Cell::new(Some(began));
            let serving = spawn_local(async move {
                let closing = closing.map(move |_| order).into_stream().chain(stream::pending());
                let handler = async |request, _: &Interim| {
                    let _ = began.take().unwrap().send(());
                    let _ = answered.take().unwrap().await;
                    echo(request).await
                };
                serve(server, Rc::default(), closing, handler).await
            });
            if busy {
                say(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
                begun.await.unwrap();
            }
            close.send(()).unwrap();
            if later {
                tokio::task::yield_now().await;
                say(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
            }
            let _ = answer.send(());
            let heard = read_all(&mut client).await;
            let last = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nGET / ";
            assert_eq!(heard, if busy || later { last } else { "" }, "{order:?} {busy} {later}");
            drop(client);
            serving.await.unwrap().unwrap();
        }
    });
}

#[test]
fn a_response_that_breaks_off_is_seen_as_broken() {
    let rows = [("HTTP/1.1", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"), ("HTTP/1.0", "\r\n\r\nabc")];
    on_a_worker(async {
        for (version, last_heard) in rows {
            let (mut client, server) = pair().await;
            let (broken, breaks) = oneshot::channel::<()>();
            let breaks = Cell::new(Some(breaks));
            let serving = spawn_local(async move {
                let handler = async |_, _: &Interim| Response::new(breaking(breaks.take().unwrap()));
                serve(server, Rc::default(), stream::pending(), handler).await
            });
            say(&mut client, &format!("GET / {version}\r\nhost: x\r\n\r\n")).await;
            read_until(&mut client, last_heard).await;
            broken.send(()).unwrap();
            assert!(matches!(serving.await.unwrap(), Err(ServeError::ResponseBody(_))));
            // The end of the connection would be the end of the body for HTTP/1.0: that needs a reset.
            let end = client.read(&mut [0; 1]).await;
            assert!(
                if version == "HTTP/1.0" { end.is_err() } else { matches!(end, Ok(0)) },
                "{version}: {end:?}"
            );
        }
    });
}

/// A body that says `abc`, and fails when told to.
fn breaking(
    breaks: oneshot::Receiver<()>,
) -> StreamBody<impl futures_util::Stream<Item = Result<http_body::Frame<Bytes>, BodyError>> + Unpin> {
    let first = futures_util::stream::iter([Ok(http_body::Frame::data(Bytes::from_static(b"abc")))]);
    let failure = futures_util::stream::once(async move {
        let _ = breaks.await;
        Err(BodyError::Http1(crate::h1::ReadError::Incomplete))
    });
    StreamBody::new(Box::pin(futures_util::StreamExt::chain(first, failure)))
}

#[test]
fn a_client_that_stops_reading_does_not_hold_its_response_for_ever() {
    let settings = Settings { idle_timeout: Duration::from_millis(20), ..Settings::default() };
    on_a_worker(async {
        let (mut client, server) = pair().await;
        let endless = vec![b'x'; 64 * 1024 * 1024]; // more than the buffers of two sockets
        let serving = start(server, settings, move |_| {
            let body = Body::full(endless.clone());
            async move { Response::new(body) }
        });
        say(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(matches!(serving.await.unwrap(), Err(ServeError::Stalled)));
    });
}
