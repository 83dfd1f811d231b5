//! Our side of HTTP/2 against the `h2` crate's on the other end of a loopback socket.

use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::Reason;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::client::Client;
use super::keep_alive::KeepAlive;
use super::{Tunnelled, server};
use crate::body::{Body, BodyError};
use crate::gather::Gathered;
use crate::h1::server::Payload;
use crate::interim::Interim;
use crate::retry::replay::Replay;
use crate::sending::Sending;
use crate::stream::Stream;
use crate::worker::Worker;

const HEADER_BYTES: usize = 60 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

async fn pair() -> (TcpStream, Stream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (near, Stream::plain(far).unwrap())
}

/// A client of a server of ours with this handler.
async fn client_of<B: Payload + 'static>(
    handler: impl AsyncFn(Request<Body>, &Interim) -> Response<B> + 'static,
) -> h2::client::SendRequest<Bytes> {
    let (near, far) = pair().await;
    let settings = server::Settings {
        streams_max: 10,
        header_bytes_max: HEADER_BYTES,
        resets_pending_max: 10,
        keeps_alive: false,
    };
    spawn_local(server::serve(far, settings, std::future::pending(), handler));
    let (sender, connection) = h2::client::handshake(near).await.unwrap();
    spawn_local(connection);
    sender
}

/// A client of ours, and the connection of its server.
async fn client_and_server() -> (Client, h2::server::Connection<TcpStream, Bytes>) {
    let (near, far) = pair().await;
    let client = Client::open(far, HEADER_BYTES, PATIENCE, ()).await.unwrap();
    (client, h2::server::handshake(near).await.unwrap())
}

fn sending(method: Method, body: Body) -> Sending<'static> {
    let request = Request::builder().method(method).uri("http://cart/items").body(body).unwrap();
    Sending::of(request, Replay::at_hand)
}

fn peer() -> std::net::SocketAddr {
    (Ipv4Addr::LOCALHOST, 80).into()
}

fn get() -> Request<()> {
    Request::get("http://cart/").body(()).unwrap()
}

#[test]
fn a_short_message_is_one_piece_and_a_long_one_flows() {
    Worker::run_test(async |_| {
        let kind = |request: &Request<Body>| match request.body() {
            Body::Empty => "nothing",
            Body::Full(_) => "whole",
            _ => "flows",
        };
        let handler = async move |request: Request<Body>, _: &Interim| {
            let was = kind(&request);
            let all = request.into_body().collect().await.unwrap().to_bytes();
            Response::new(Body::full(format!("{was} {}", all.len())))
        };
        let mut sender = client_of(handler).await;
        for (pieces, expected) in
            [(&[][..], "nothing 0"), (&[3], "whole 3"), (&[9_000, 300_000], "flows 309000")]
        {
            let (answer, mut stream) = sender.send_request(get(), pieces.is_empty()).unwrap();
            for (index, size) in pieces.iter().enumerate() {
                stream.send_data(vec![b'x'; *size].into(), index + 1 == pieces.len()).unwrap();
            }
            let mut body = answer.await.unwrap().into_body();
            let answered = body.data().await.unwrap().unwrap();
            assert_eq!(str::from_utf8(&answered).unwrap(), expected);
        }
    });
}

#[test]
fn a_body_that_breaks_resets_its_stream_for_the_reason_of_the_stream_that_it_came_on() {
    Worker::run_test(async |_| {
        let (client, mut server) = client_and_server().await;
        let begun = Notify::new();
        let serving = async {
            let (_, mut respond) = server.accept().await.unwrap().unwrap();
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"half"), false).unwrap();
            tokio::select! { _ = server.accept() => {}, () = begun.notified() => {} }
            stream.send_reset(Reason::ENHANCE_YOUR_CALM);
            while server.accept().await.is_some() {}
        };
        let asking = async {
            let mut request = sending(Method::GET, Body::Empty);
            let sent = client.send(&mut request, peer()).await;
            let response = sent.ok().unwrap();
            begun.notify_one();
            let Err(error) = response.into_body().collect().await else { panic!("it is whole") };
            let BodyError::Http2(error) = &error else { panic!("{error}") };
            assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
        };
        tokio::select! { () = asking => {}, () = serving => {} }

        let handler = async |_: Request<Body>, _: &Interim| {
            let broken = BodyError::Http2(Reason::ENHANCE_YOUR_CALM.into());
            Response::new(Breaks(Some(broken)))
        };
        let mut sender = client_of(handler).await;
        let (answer, _) = sender.send_request(get(), true).unwrap();
        assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::ENHANCE_YOUR_CALM));
    });
}

/// A body that fails at once.
struct Breaks(Option<BodyError>);

impl http_body::Body for Breaks {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        std::task::Poll::Ready(self.0.take().map(Err))
    }
}

impl Payload for Breaks {}

/// Both ends of a tunnel, and what must be kept for them to live.
async fn tunnel() -> (Stream, Tunnelled, Client) {
    let (client, mut server) = client_and_server().await;
    let mut request = sending(Method::CONNECT, Body::Empty);
    let (sent, far) = tokio::join!(client.send(&mut request, peer()), async {
        let (request, mut respond) = server.accept().await.unwrap().unwrap();
        let outgoing = respond.send_response(Response::new(()), false).unwrap();
        spawn_local(async move { while server.accept().await.is_some() {} });
        Tunnelled::new(outgoing, request.into_body())
    });
    let Body::Tunnel(opened) = sent.ok().unwrap().into_body() else { panic!("no tunnel") };
    (opened.into_stream(), far, client)
}

#[test]
fn a_tunnel_that_ends_differs_from_one_that_breaks() {
    Worker::run_test(async |_| {
        let (mut near, mut far, _client) = tunnel().await;
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut heard = String::new();
        far.read_to_string(&mut heard).await.unwrap();
        far.write_all(b"answer").await.unwrap();
        far.shutdown().await.unwrap();
        near.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "questionanswer");

        let (mut near, far, _client) = tunnel().await;
        near.write_all(b"question").await.unwrap();
        drop(far);
        let broken = near.read_to_string(&mut String::new()).await.unwrap_err();
        assert_eq!(broken.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_tunnel_carries_more_than_its_window_at_the_pace_of_its_reader() {
    Worker::run_test(async |_| {
        let (mut near, mut far, _client) = tunnel().await;
        let sent: Vec<u8> = (0..1_000_000_u32).map(|index| (index % 251) as u8).collect();
        let writing = async {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let ((), length) = tokio::join!(writing, far.read_to_end(&mut read));
        assert_eq!((length.unwrap(), read == sent), (sent.len(), true));
    });
}

#[test]
fn a_connect_that_names_a_length_is_no_request() {
    Worker::run_test(async |_| {
        let handler = async |_: Request<Body>, _: &Interim| Response::new(Body::Empty);
        let mut sender = client_of(handler).await;
        let request = Request::connect("cart:80").header("content-length", "3").body(()).unwrap();
        let (answer, _stream) = sender.send_request(request, false).unwrap();
        assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::PROTOCOL_ERROR));
    });
}

#[test]
fn a_request_that_its_client_gives_up_is_dropped_with_what_it_holds() {
    Worker::run_test(async |_| {
        let held = Rc::new(());
        let holds = Rc::clone(&held);
        let handler = async move |_: Request<Body>, _: &Interim| {
            let _held = Rc::clone(&holds);
            std::future::pending::<()>().await;
            Response::new(Body::Empty)
        };
        let mut sender = client_of(handler).await;
        let (answer, mut stream) = sender.send_request(get(), false).unwrap();
        let counted = async |count| {
            while Rc::strong_count(&held) != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, counted(3)).await.expect("it is carried");
        stream.send_reset(Reason::CANCEL);
        tokio::time::timeout(PATIENCE, counted(2)).await.expect("it is dropped");
        drop(answer);
    });
}

#[test]
fn a_peer_that_does_not_answer_pings_is_gone_and_is_asked_only_while_it_matters() {
    Worker::run_test(async |_| {
        let (_silent, far) = pair().await;
        let gathered = Gathered::new(far);
        let (_sender, mut connection) = h2::client::handshake(gathered.clone()).await.unwrap();
        let pings = connection.ping_pong().unwrap();
        let mut keep_alive = KeepAlive::every(Duration::ZERO, Duration::from_millis(1), pings);
        let mut turn = |is_awaited| {
            std::future::poll_fn(|cx| {
                assert!(connection.poll_unpin(cx).is_pending());
                keep_alive.poll(cx, is_awaited)
            })
            .now_or_never()
        };
        assert_eq!(turn(false), None);
        let gone = async {
            while turn(true).is_none() {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("it is taken for gone");
    });
}
