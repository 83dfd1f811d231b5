//! Scripted dialogues, byte for byte, over loopback sockets.

use std::net::Ipv4Addr;

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::body::Body;
use crate::interim::Interim;
use crate::stream::Stream;

mod both;
mod client;
mod interim;
mod server;

/// Runs a test as a worker runs: one thread, a `LocalSet`.
fn on_a_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// The two ends of a connection.
async fn pair() -> (TcpStream, Stream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    near.set_nodelay(true).unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (near, Stream::plain(far).unwrap())
}

/// Reads what the other side says until it ends.
async fn read_all(end: &mut TcpStream) -> String {
    let mut said = Vec::new();
    end.read_to_end(&mut said).await.unwrap();
    String::from_utf8(said).unwrap()
}

/// Reads until what was said ends with `text`.
async fn read_until(end: &mut TcpStream, text: &str) -> String {
    let mut said = String::new();
    while !said.ends_with(text) {
        let byte = end.read_u8().await.unwrap_or_else(|error| panic!("{error} after {said:?}"));
        said.push(char::from(byte));
    }
    said
}

async fn say(end: &mut TcpStream, text: &str) {
    end.write_all(text.as_bytes()).await.unwrap();
}

/// A body as one line: its bytes, then its trailers.
async fn whole(body: Body) -> String {
    let collected = match body.collect().await {
        Ok(collected) => collected,
        Err(error) => return format!("broken: {error}"),
    };
    let trailers = collected.trailers().cloned();
    let mut text = String::from_utf8(collected.to_bytes().to_vec()).unwrap();
    for (name, value) in trailers.iter().flatten() {
        text += &format!("|{name}={}", value.to_str().unwrap());
    }
    text
}
/// Together with the task, the socket's registration and one timer this is what an idle connection costs.
#[test]
fn an_idle_connection_is_small() {
    on_a_worker(async {
        let (_client, server) = pair().await;
        let handler = async |_, _: &Interim| http::Response::new(Body::empty());
        let serving =
            super::server::serve(server, Default::default(), futures_util::stream::pending(), handler);
        let sizes = [size_of_val(&serving), size_of::<super::wire::Wire>(), size_of::<Body>()];
        let limits = [512, 256, 64];
        assert!(sizes.iter().zip(limits).all(|(size, limit)| *size <= limit), "{sizes:?}");
    });
}
