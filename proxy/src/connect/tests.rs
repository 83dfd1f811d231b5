//! Pools over loopback sockets: what is reused, what waits, what is refused.

use std::net::Ipv4Addr;

use gauze_model::cluster::Limits;
use http::Request;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::retry::replay::Replay;

async fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

fn endpoint(listener: &TcpListener, limits: Limits) -> Arc<EndpointTarget> {
    EndpointTarget::for_tests(listener.local_addr().unwrap(), limits)
}

fn request() -> Sending<'static> {
    Sending::of(Request::get("http://cart/items").body(Body::Empty).unwrap(), Replay::at_hand)
}

/// Sends a request and reads its answer to the end.
async fn ask(worker: &Rc<Worker>, to: &Arc<EndpointTarget>, wire: Wire) -> Result<String, Code> {
    let (response, _stream) = send(worker, to, wire, &mut request()).await.map_err(|refusal| refusal.code)?;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

/// Reads one HTTP/1 request without a body; false at the end of the connection.
async fn heard_request(connection: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match connection.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

async fn answer(connection: &mut TcpStream, text: &str) {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    connection.write_all(answer.as_bytes()).await.unwrap();
}

/// Answers every request until the connection ends.
async fn answer_by_http2(connection: TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(connection).await?;
    while let Some((_, mut respond)) = connection.accept().await.transpose()? {
        let mut stream = respond.send_response(Response::new(()), false)?;
        stream.send_data("ok".into(), true)?;
    }
    Ok(())
}

#[test]
fn an_http1_connection_is_used_again() {
    Worker::run_test(async |worker| {
        let listener = listener().await;
        let to = endpoint(&listener, Limits::default());
        let server = async {
            let mut connection = listener.accept().await.unwrap().0;
            for text in ["one", "two"] {
                assert!(heard_request(&mut connection).await);
                answer(&mut connection, text).await;
            }
        };
        let client = async { [ask(&worker, &to, Wire::Http1).await, ask(&worker, &to, Wire::Http1).await] };
        let (answers, ()) = tokio::join!(client, server);
        assert_eq!(answers, [Ok("one".to_owned()), Ok("two".to_owned())]);
        assert_eq!(to.terms.live.in_use().connections, 1);
    });
}

#[test]
fn a_pooled_connection_that_was_closed_meanwhile_costs_no_request() {
    Worker::run_test(async |worker| {
        let listener = listener().await;
        let to = endpoint(&listener, Limits::default());
        let server = async {
            for text in ["one", "two"] {
                let mut connection = listener.accept().await.unwrap().0;
                assert!(heard_request(&mut connection).await);
                answer(&mut connection, text).await;
            }
        };
        let client = async { [ask(&worker, &to, Wire::Http1).await, ask(&worker, &to, Wire::Http1).await] };
        let (answers, ()) = tokio::join!(client, server);
        assert_eq!(answers, [Ok("one".to_owned()), Ok("two".to_owned())]);
    });
}

#[test]
fn at_the_limit_of_connections_one_waits_and_the_next_is_refused() {
    Worker::run_test(async |worker| {
        let listener = listener().await;
        let to = endpoint(&listener, Limits { connections: 1, pending: 1, requests: 9 });
        let (heard, mut was_heard) = watch::channel(false);
        let (refused, mut was_refused) = watch::channel(false);
        let server = async {
            let mut connection = listener.accept().await.unwrap().0;
            assert!(heard_request(&mut connection).await);
            heard.send_replace(true);
            was_refused.wait_for(|refused| *refused).await.unwrap();
            answer(&mut connection, "one").await;
            assert!(heard_request(&mut connection).await, "who waited gets the same connection");
            answer(&mut connection, "two").await;
        };
        let late = async {
            was_heard.wait_for(|heard| *heard).await.unwrap();
            let waiting = ask(&worker, &to, Wire::Http1);
            let too_many = async {
                let code = ask(&worker, &to, Wire::Http1).await;
                refused.send_replace(true);
                code
            };
            tokio::join!(biased; waiting, too_many)
        };
        let (first, (second, third), ()) = tokio::join!(ask(&worker, &to, Wire::Http1), late, server);
        assert_eq!((first, second), (Ok("one".to_owned()), Ok("two".to_owned())));
        assert_eq!(third, Err(Code::TOO_MANY_PENDING));
    });
}

#[test]
fn idle_connections_give_way_to_one_to_another_endpoint() {
    Worker::run_test(async |worker| {
        let (one, two) = (listener().await, listener().await);
        let limits = Limits { connections: 1, ..Limits::default() };
        let first = endpoint(&one, limits);
        let second = EndpointTarget {
            terms: Arc::clone(&first.terms),
            ..Arc::into_inner(endpoint(&two, limits)).unwrap()
        };
        let second = Arc::new(second);
        let server = async |listener: TcpListener| {
            let mut connection = listener.accept().await.unwrap().0;
            assert!(heard_request(&mut connection).await);
            answer(&mut connection, "ok").await;
            heard_request(&mut connection).await
        };
        let client = async {
            ask(&worker, &first, Wire::Http1).await.unwrap();
            ask(&worker, &second, Wire::Http1).await.unwrap();
            worker.pools.by_peer.borrow_mut().clear();
        };
        let (was_used_again, _, ()) = tokio::join!(server(one), server(two), client);
        assert!(!was_used_again);
    });
}

#[test]
fn who_asks_at_once_shares_one_http2_connection() {
    Worker::run_test(async |worker| {
        let listener = listener().await;
        let to = endpoint(&listener, Limits { connections: 1, ..Limits::default() });
        let server = async { answer_by_http2(listener.accept().await.unwrap().0).await };
        let client = async {
            let asked = tokio::join!(
                ask(&worker, &to, Wire::Http2),
                ask(&worker, &to, Wire::Http2),
                ask(&worker, &to, Wire::Http2)
            );
            worker.pools.by_peer.borrow_mut().clear();
            asked
        };
        let (asked, served) = tokio::join!(client, server);
        let ok = || Ok("ok".to_owned());
        assert_eq!(asked, (ok(), ok(), ok()));
        served.unwrap();
    });
}

/// Reads one HTTP/2 frame; its type.
async fn frame(connection: &mut TcpStream) -> u8 {
    let mut head = [0; 9];
    connection.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    connection.read_exact(&mut vec![0; length as usize]).await.unwrap();
    head[3]
}

#[test]
fn a_request_that_a_goaway_says_was_not_processed_goes_out_again() {
    const HEADERS: u8 = 1;
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const GOAWAY_AFTER_NONE: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
    Worker::run_test(async |worker| {
        let listener = listener().await;
        let to = endpoint(&listener, Limits::default());
        let server = async {
            let mut leaving = listener.accept().await.unwrap().0;
            leaving.write_all(SETTINGS).await.unwrap();
            leaving.read_exact(&mut [0; 24]).await.unwrap(); // the preface
            while frame(&mut leaving).await != HEADERS {}
            leaving.write_all(GOAWAY_AFTER_NONE).await.unwrap();
            answer_by_http2(listener.accept().await.unwrap().0).await
        };
        tokio::select! {
            asked = ask(&worker, &to, Wire::Http2) => assert_eq!(asked, Ok("ok".to_owned())),
            ended = server => panic!("{ended:?}"),
        }
    });
}

#[test]
fn a_stream_that_is_refused_was_not_looked_at_and_is_not_sent_there_again_at_once() {
    const HEADERS: u8 = 1;
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const REFUSED_STREAM_1: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07";
    Worker::run_test(async |worker| {
        let listener = listener().await;
        let to = endpoint(&listener, Limits::default());
        let server = async {
            let mut refusing = listener.accept().await.unwrap().0;
            refusing.write_all(SETTINGS).await.unwrap();
            refusing.read_exact(&mut [0; 24]).await.unwrap(); // the preface
            while frame(&mut refusing).await != HEADERS {}
            refusing.write_all(REFUSED_STREAM_1).await.unwrap();
            while frame(&mut refusing).await != HEADERS {}
        };
        tokio::select! {
            asked = ask(&worker, &to, Wire::Http2) => assert_eq!(asked, Err(Code::STREAM_REFUSED)),
            () = server => panic!("it was sent again"),
        }
    });
}

#[test]
fn a_peer_that_closes_at_once_is_not_dialled_for_ever() {
    Worker::run_test(async |worker| {
        let listener = listener().await;
        let to = endpoint(&listener, Limits::default());
        let server = async {
            loop {
                drop(listener.accept().await.unwrap());
            }
        };
        tokio::select! {
            // It depends on who is faster whether anything was sent.
            asked = ask(&worker, &to, Wire::Http2) => {
                assert!(matches!(asked, Err(Code::STREAM_REFUSED | Code::UPSTREAM_RESET)), "{asked:?}");
            }
            () = server => {}
        }
    });
}

#[test]
fn an_endpoint_where_nothing_listens_is_a_connect_failure() {
    Worker::run_test(async |worker| {
        let to = endpoint(&listener().await, Limits::default()); // closed again before it is dialled
        for wire in [Wire::Http1, Wire::Http2] {
            assert_eq!(ask(&worker, &to, wire).await, Err(Code::CONNECT_FAILED));
        }
        assert_eq!(to.terms.live.in_use(), gauze_model::limits::InUse::default());
    });
}

#[test]
fn what_no_endpoint_stands_for_any_more_is_closed() {
    Worker::run_test(async |worker| {
        let listener = listener().await;
        let to = endpoint(&listener, Limits::default());
        let server = async {
            let mut connection = listener.accept().await.unwrap().0;
            assert!(heard_request(&mut connection).await);
            answer(&mut connection, "ok").await;
            heard_request(&mut connection).await
        };
        let client = async {
            ask(&worker, &to, Wire::Http1).await.unwrap();
            let sweep = || worker.pools.sweep(Instant::now(), Duration::from_secs(60));
            sweep();
            assert_eq!(worker.pools.by_peer.borrow().len(), 1, "an endpoint stands for it");
            drop(to);
            sweep();
        };
        let (was_used_again, ()) = tokio::join!(server, client);
        assert!(!was_used_again);
    });
}
