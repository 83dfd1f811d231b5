//! Who speaks first, and what follows from it.

use std::net::Ipv4Addr;
use std::rc::Rc;

use gauze_model::Code;
use gauze_model::cluster::Limits;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::target::EndpointTarget;
use crate::tcp;
use crate::worker::Worker;

const PATIENCE: Patience = Patience { silence: Duration::from_millis(1), head: Duration::from_secs(10) };

async fn pair() -> (TcpStream, Stream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, Stream::plain(listener.accept().await.unwrap().0).unwrap())
}

fn counter() -> IntCounter {
    IntCounter::new("silent", "silent").unwrap()
}

/// A server, and the way to it as detection opens it.
async fn server(worker: &Rc<Worker>) -> (TcpListener, impl Future<Output = Result<Upstream, Refusal>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = EndpointTarget::for_tests(listener.local_addr().unwrap(), Limits::default());
    let worker = Rc::clone(worker);
    (listener, async move { tcp::open_to(&worker, to).await })
}

#[test]
fn a_server_that_speaks_first_makes_the_connection_opaque_and_loses_nothing() {
    Worker::run_test(async |worker| {
        let (_client, mut stream) = pair().await;
        let (listener, open) = server(&worker).await;
        let silent = counter();
        let banner = async {
            let mut accepted = listener.accept().await.unwrap().0;
            accepted.write_all(b"220 hello").await.unwrap();
            accepted
        };
        let (found, _accepted) = tokio::join!(anyone_first(&mut stream, PATIENCE, &silent, open), banner);
        let (speaks, upstream) = found.unwrap();
        assert_eq!((speaks, silent.get()), (Speaks::Opaque, 1));
        let mut heard = [0; 9];
        upstream.unwrap().stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"220 hello");
    });
}

#[test]
fn http_after_silence_is_http_and_the_open_way_is_given_up() {
    Worker::run_test(async |worker| {
        let (mut client, mut stream) = pair().await;
        let (listener, open) = server(&worker).await;
        let silent = counter();
        let late = async {
            // The way is open, and its server silent: now the client speaks.
            let mut accepted = listener.accept().await.unwrap().0;
            client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            accepted.read(&mut [0; 1]).await.unwrap()
        };
        let detection = async {
            let (speaks, upstream) = anyone_first(&mut stream, PATIENCE, &silent, open).await.unwrap();
            (speaks, upstream.is_some())
        };
        let (found, end) = tokio::join!(detection, late);
        assert_eq!((found, end), ((Speaks::Http1, false), 0));
        let mut heard = [0; 16];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"GET / HTTP/1.1\r\n");
    });
}

#[test]
fn a_way_that_cannot_be_opened_or_ends_in_silence_decides_nothing() {
    Worker::run_test(async |worker| {
        for ends in [false, true] {
            let (mut client, mut stream) = pair().await;
            let (listener, open) = server(&worker).await;
            let (tried, mut was_tried) = tokio::sync::watch::channel(false);
            let open = async {
                let opened = if ends { open.await } else { Err(Refusal::new(Code::CONNECT_FAILED, "")) };
                tried.send_replace(true);
                opened
            };
            let late = async {
                if ends {
                    drop(listener.accept().await.unwrap());
                }
                was_tried.wait_for(|tried| *tried).await.unwrap();
                client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
            };
            let silent = counter();
            let (found, ()) = tokio::join!(anyone_first(&mut stream, PATIENCE, &silent, open), late);
            let (speaks, upstream) = found.unwrap();
            assert_eq!((speaks, upstream.is_some()), (Speaks::Http2, false), "it ends: {ends}");
        }
    });
}

#[test]
fn first_bytes_that_stop_in_the_middle_are_not_waited_for_without_end() {
    Worker::run_test(async |_| {
        let (mut client, mut stream) = pair().await;
        client.write_all(b"GET").await.unwrap();
        let patience = Patience { head: Duration::from_millis(1), ..PATIENCE };
        let found = client_first(&mut stream, patience).await;
        assert_eq!(found.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
    });
}

#[test]
fn the_apps_own_tls_is_told_from_a_peers() {
    Worker::run_test(async |_| {
        let (mut client, mut stream) = pair().await;
        // A record that begins a ClientHello and ends too soon to be one.
        client.write_all(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(client_first(&mut stream, PATIENCE).await.unwrap(), Speaks::Tls);
    });
}

/// A ClientHello for `cart.example`, as a client of today sends it.
fn client_hello() -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "cart.example".try_into().unwrap();
    let mut bytes = Vec::new();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The only record of some bytes as records of at most so many.
fn in_records(bytes: &[u8], size: usize) -> Vec<u8> {
    let records = bytes[5..].chunks(size).flat_map(|part| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[22, 3, 1], &length[..], part].concat()
    });
    records.collect()
}

#[test]
fn a_server_name_is_found_however_it_is_cut_and_no_byte_is_lost() {
    Worker::run_test(async |_| {
        for (what, bytes, at_once) in [
            ("as it comes", client_hello(), usize::MAX),
            ("a byte at a time", client_hello(), 1),
            ("in records of 50 bytes", in_records(&client_hello(), 50), 7),
        ] {
            let (mut client, mut stream) = pair().await;
            let sending = async {
                for part in bytes.chunks(at_once.min(bytes.len())) {
                    client.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let (found, ()) = tokio::join!(server_name(&mut stream, PATIENCE), sending);
            assert_eq!(found.unwrap(), Asks::Tls(Some("cart.example".into())), "{what}");
            let mut heard = vec![0; bytes.len()];
            stream.read_exact(&mut heard).await.unwrap();
            assert!(heard == bytes, "{what}");
        }
    });
}

#[test]
fn a_client_hello_that_stops_is_neither_guessed_nor_waited_for_without_end() {
    Worker::run_test(async |_| {
        let (mut client, mut stream) = pair().await;
        client.write_all(&client_hello()[..100]).await.unwrap();
        let patience = Patience { head: Duration::from_millis(1), ..PATIENCE };
        let found = server_name(&mut stream, patience).await;
        assert_eq!(found.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        client.shutdown().await.unwrap();
        let found = server_name(&mut stream, PATIENCE).await.unwrap();
        assert_eq!(found, Asks::Unreadable("it ends in the middle"));
    });
}
