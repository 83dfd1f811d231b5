//! Our client against our server: whatever the body, it comes back as it was sent.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::stream;
use gauze_model::framing::Limits;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::task::spawn_local;

use super::*;
use crate::body::BodyError;
use crate::h1::client::Connection;
use crate::h1::server::serve;

/// A body of some frames, some of them empty, and perhaps trailers.
fn frames(random: &mut fastrand::Rng) -> Vec<Frame<Bytes>> {
    let count = random.usize(0..6);
    let mut frames: Vec<_> = (0..count)
        .map(|_| {
            let length = [0, 1, 15, 16, 1000, 65_536, 200_000][random.usize(0..7)];
            Frame::data(Bytes::from(vec![random.u8(b'a'..=b'z'); length]))
        })
        .collect();
    if random.bool() {
        frames.push(Frame::trailers(HeaderMap::from_iter([(
            http::HeaderName::from_static("t"),
            HeaderValue::from_static("1"),
        )])));
    }
    frames
}

fn text(frames: &[Frame<Bytes>]) -> String {
    let mut text: String =
        frames.iter().filter_map(Frame::data_ref).map(|data| String::from_utf8_lossy(data)).collect();
    if frames.iter().any(Frame::is_trailers) {
        text += "|t=1";
    }
    text
}

#[test]
fn bodies_of_every_kind_come_back_as_they_were() {
    on_a_worker(async {
        let mut random = fastrand::Rng::with_seed(1);
        let idle: Rc<RefCell<Vec<Connection>>> = Rc::default();
        for round in 0..200 {
            let sent = frames(&mut random);
            let expected = text(&sent);
            let mut request = Request::post("/").header("host", "x");
            if sent.iter().all(Frame::is_data) && random.bool() {
                request = request.header("content-length", expected.len());
            }
            let body = futures_util::stream::iter(sent.into_iter().map(Ok::<_, BodyError>));
            let request = request.body(StreamBody::new(body)).unwrap();

            // An echo of a long body begins before the request has ended, and takes the connection with it.
            let connection = idle.borrow_mut().pop();
            let connection = match connection.filter(Connection::is_usable) {
                Some(connection) => connection,
                None => connect_to_echo(&idle).await,
            };
            let response = connection.send(request).await.unwrap();
            assert!(whole(response.into_body()).await == expected, "round {round}");
        }
    });
}

async fn connect_to_echo(idle: &Rc<RefCell<Vec<Connection>>>) -> Connection {
    let (client, server) = pair().await;
    let echo = async |request: Request<Body>, _: &Interim| Response::new(request.into_body());
    spawn_local(serve(server, Rc::default(), stream::pending(), echo));
    let idle = idle.clone();
    let home = Rc::new(move |connection| idle.borrow_mut().push(connection));
    Connection::new(Stream::plain(client).unwrap(), Limits::default(), home, ())
}
