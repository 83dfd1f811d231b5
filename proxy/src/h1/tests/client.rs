use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use gauze_model::framing::Limits;
use http::{Method, Request};
use tokio::sync::mpsc;

use super::*;
use crate::body::BodyError;
use crate::h1::client::{Connection, Home, SendErrorKind};

/// A pool of one.
#[derive(Clone, Default)]
pub(super) struct Pool(Rc<RefCell<Vec<Connection>>>);

impl Pool {
    pub(super) fn home(&self) -> Home {
        let idle = self.0.clone();
        Rc::new(move |connection| idle.borrow_mut().push(connection))
    }

    pub(super) fn take(&self) -> Option<Connection> {
        self.0.borrow_mut().pop()
    }
}

pub(super) async fn connect(pool: &Pool) -> (Connection, TcpStream) {
    let (server, client) = pair().await;
    (Connection::new(client, Limits::default(), pool.home(), ()), server)
}

pub(super) fn request(method: Method, uri: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(uri).header("host", "x").body(body).unwrap()
}

/// Hears a request; then says `script` and, if `ends`, closes.
pub(super) async fn answer(server: &mut TcpStream, script: &str, ends: bool) {
    read_until(server, "\r\n\r\n").await;
    say(server, script).await;
    if ends {
        server.shutdown().await.unwrap();
    }
}

/// Sends GET on a new connection; the server says `script` and, if `ends`, closes. What was heard, and
/// whether the connection can be used again.
async fn ask(script: &str, ends: bool) -> (String, bool) {
    let pool = Pool::default();
    let (connection, mut server) = connect(&pool).await;
    let serving = answer(&mut server, script, ends);
    let asking = async {
        match connection.send(request(Method::GET, "/", Body::empty())).await {
            Ok(response) => format!("{} {}", response.status().as_u16(), whole(response.into_body()).await),
            Err(error) => error.to_string(),
        }
    };
    let ((), heard) = tokio::join!(serving, asking);
    (heard, pool.take().is_some())
}

#[test]
fn a_response_is_read_to_its_end_and_the_connection_kept_if_it_can_be() {
    let rows = [
        ("with a length", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", "200 abc", true),
        ("without a body", "HTTP/1.1 204 No Content\r\n\r\n", "204 ", true),
        (
            "in chunks with a trailer",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nt: 1\r\n\r\n",
            "200 abc|t=1",
            true,
        ),
        ("until the end", "HTTP/1.1 200 OK\r\n\r\nabc", "200 abc", false),
        (
            "as the last one",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc",
            "200 abc",
            false,
        ),
        (
            "behind interim ones",
            "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "200 ",
            true,
        ),
        (
            "with unasked bytes behind it",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n",
            "200 abc",
            false,
        ),
        (
            "of ambiguous length",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            "the response is malformed: Content-Length stands beside Transfer-Encoding",
            false,
        ),
        (
            "that breaks off",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
            "200 broken: the connection ended inside a message",
            false,
        ),
        (
            "of another protocol",
            "SSH-2.0-x\r\n\r\n",
            "the response is malformed: the status line is not `version status reason`",
            false,
        ),
        ("that never comes", "", "the connection was closed before the response", false),
    ];
    on_a_worker(async {
        for (name, script, heard, kept) in rows {
            assert_eq!(ask(script, !kept).await, (heard.to_owned(), kept), "a response {name}");
        }
    });
}

#[test]
fn it_makes_no_difference_where_a_response_is_cut() {
    let script = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nt: 1\r\n\r\n";
    on_a_worker(async {
        let pool = Pool::default();
        let (connection, mut server) = connect(&pool).await;
        pool.home()(connection);
        for cut in 1..script.len() {
            let connection = pool.take().unwrap();
            let serving = async {
                read_until(&mut server, "\r\n\r\n").await;
                say(&mut server, &script[..cut]).await;
                tokio::task::yield_now().await;
                say(&mut server, &script[cut..]).await;
            };
            let asking = async {
                let response = connection.send(request(Method::GET, "/", Body::empty())).await.unwrap();
                whole(response.into_body()).await
            };
            assert_eq!(tokio::join!(serving, asking).1, "abc|t=1", "cut at {cut}");
        }
    });
}

#[test]
fn a_request_is_written_with_its_own_framing() {
    let rows = [
        (request(Method::GET, "/a?b", Body::empty()), "GET /a?b HTTP/1.1\r\nhost: x\r\n\r\n"),
        (
            request(Method::POST, "/", Body::empty()),
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            request(Method::PUT, "http://y:80/", Body::full("abc")),
            "PUT / HTTP/1.1\r\nhost: y:80\r\ncontent-length: 3\r\n\r\nabc",
        ),
    ];
    on_a_worker(async {
        for (request, written) in rows {
            assert_eq!(written_for(request, written).await, written);
        }
        let (frames, body) = channel();
        frames.send(data("abc")).unwrap();
        drop(frames);
        let unknown_length = request(Method::PUT, "/", Body::empty()).map(|_| body);
        let written = "PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(written_for(unknown_length, written).await, written);
    });
}

/// What the server hears of a request, as many bytes as are expected.
async fn written_for<B>(request: Request<B>, expected: &str) -> String
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin + 'static,
{
    let (connection, mut server) = connect(&Pool::default()).await;
    let mut heard = vec![0; expected.len()];
    tokio::select! {
        read = server.read_exact(&mut heard) => drop(read.unwrap()),
        _ = connection.send(request) => unreachable!("the server does not answer"),
    }
    String::from_utf8(heard).unwrap()
}

type Frames = mpsc::UnboundedSender<Result<http_body::Frame<Bytes>, BodyError>>;

/// A request body that the test feeds.
fn channel() -> (Frames, Fed) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Fed(receiver))
}

struct Fed(mpsc::UnboundedReceiver<Result<http_body::Frame<Bytes>, BodyError>>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        self.0.poll_recv(cx)
    }
}

fn data(text: &'static str) -> Result<http_body::Frame<Bytes>, BodyError> {
    Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes())))
}

#[test]
fn an_early_response_is_heard_while_the_request_goes_on_and_the_connection_is_not_kept() {
    on_a_worker(async {
        let pool = Pool::default();
        let (connection, mut server) = connect(&pool).await;
        let (frames, body) = channel();
        frames.send(data("abc")).unwrap();
        let asking = connection.send(request(Method::POST, "/", Body::empty()).map(|_| body));
        let answering = async {
            read_until(&mut server, "abc\r\n").await;
            say(&mut server, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n1").await;
        };
        let (response, ()) = tokio::join!(asking, answering);
        let response = response.unwrap();

        frames.send(data("def")).unwrap();
        read_until(&mut server, "def\r\n").await; // while nobody reads the response
        say(&mut server, "23").await;
        assert_eq!(whole(response.into_body()).await, "123");
        assert_eq!(read_all(&mut server).await, "", "closed");
        assert!(pool.take().is_none());
        assert!(frames.is_closed());
    });
}

#[test]
fn a_body_that_is_expected_waits_for_the_server_to_continue() {
    on_a_worker(async {
        let pool = Pool::default();
        let (connection, mut server) = connect(&pool).await;
        let mut request = request(Method::PUT, "/", Body::full("abc"));
        request.headers_mut().insert("expect", http::HeaderValue::from_static("100-continue"));
        let answering = async {
            let head = read_until(&mut server, "\r\n\r\n").await;
            assert!(head.ends_with("content-length: 3\r\n\r\n"), "{head}");
            say(&mut server, "HTTP/1.1 100 Continue\r\n\r\n").await;
            read_until(&mut server, "abc").await;
            say(&mut server, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        };
        let (response, ()) = tokio::join!(connection.send(request), answering);
        assert_eq!(response.unwrap().status(), 200);
        assert!(pool.take().is_some());

        // Refused instead: the body is never sent, and the connection in doubt.
        let (connection, mut server) = connect(&pool).await;
        let mut request = self::request(Method::PUT, "/", Body::full("abc"));
        request.headers_mut().insert("expect", http::HeaderValue::from_static("100-continue"));
        let answering = async {
            read_until(&mut server, "\r\n\r\n").await;
            say(&mut server, "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\n").await;
        };
        let (response, ()) = tokio::join!(connection.send(request), answering);
        say(&mut server, "no").await;
        assert_eq!(whole(response.unwrap().into_body()).await, "no");
        assert_eq!(read_all(&mut server).await, "");
        assert!(pool.take().is_none());
    });
}

#[test]
fn a_connection_that_was_closed_while_idle_is_not_usable() {
    on_a_worker(async {
        let (connection, server) = connect(&Pool::default()).await;
        assert!(connection.is_usable());
        drop(server);
        while connection.is_usable() {
            tokio::task::yield_now().await;
        }

        let (connection, mut server) = connect(&Pool::default()).await;
        say(&mut server, "HTTP/1.1 408 Request Timeout\r\n\r\n").await; // unasked
        while connection.is_usable() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_request_that_meets_a_closed_connection_tells_whether_a_byte_was_written() {
    on_a_worker(async {
        let (connection, server) = connect(&Pool::default()).await;
        server.set_zero_linger().unwrap();
        drop(server); // with a reset: the first write fails
        while connection.is_usable() {
            tokio::task::yield_now().await;
        }
        let error = connection.send(request(Method::POST, "/a", Body::full("abc"))).await.unwrap_err();
        assert!(error.not_delivered, "{error:?}");
        assert_eq!(error.kind.code(), gauze_model::Code::UPSTREAM_RESET);
    });
}

#[test]
fn a_request_whose_body_fails_takes_the_connection_with_it() {
    on_a_worker(async {
        let (connection, mut server) = connect(&Pool::default()).await;
        let (frames, body) = channel();
        frames.send(data("abc")).unwrap();
        frames.send(Err(BodyError::Http1(crate::h1::ReadError::Incomplete))).unwrap();
        let error =
            connection.send(request(Method::POST, "/", Body::empty()).map(|_| body)).await.unwrap_err();
        assert!(!error.not_delivered && matches!(error.kind, SendErrorKind::RequestBody(_)));
        assert!(!read_all(&mut server).await.ends_with("0\r\n\r\n"));
    });
}

#[test]
fn a_response_body_dropped_unread_closes_the_connection_and_drops_the_guard() {
    on_a_worker(async {
        let (server, client) = pair().await;
        let mut server = server;
        let guard = Rc::new(());
        let connection = Connection::new(client, Limits::default(), Pool::default().home(), guard.clone());
        let answering = async {
            read_until(&mut server, "\r\n\r\n").await;
            say(&mut server, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await;
        };
        let (response, ()) =
            tokio::join!(connection.send(request(Method::GET, "/", Body::empty())), answering);
        let response = response.unwrap();
        assert_eq!(Rc::strong_count(&guard), 2);
        drop(response);
        assert_eq!(Rc::strong_count(&guard), 1);
        assert_eq!(read_all(&mut server).await, "");
    });
}
