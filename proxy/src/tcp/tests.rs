//! Bytes both ways over loopback sockets.

use std::net::Ipv4Addr;

use gauze_model::cluster::Cluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::target::tests::target_of;

/// The two ends of a connection; ours is a stream.
async fn pair() -> (TcpStream, Stream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, Stream::plain(listener.accept().await.unwrap().0).unwrap())
}

/// Two hosts and the carrying between them; what was moved comes out in the end.
async fn between(worker: &Worker) -> (TcpStream, TcpStream, impl Future<Output = (u64, u64, Option<Code>)>) {
    let (client, mut near) = pair().await;
    let (server, mut far) = pair().await;
    let (source, destination) = (near.remote_addr(), far.remote_addr());
    let mut record = begin(worker, &worker.nowhere, Speaks::Opaque, source, destination);
    let carrying = async move {
        carry(&worker.proxy, &mut near, &mut far, &mut record).await;
        (record.received, record.sent, record.error)
    };
    (client, server, carrying)
}

#[test]
fn a_side_that_has_ended_still_hears_the_other() {
    Worker::run_test(async |worker| {
        let (mut client, mut server, carrying) = between(&worker).await;
        let hosts = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut question = String::new();
            server.read_to_string(&mut question).await.unwrap(); // the end came through
            server.write_all(format!("answer to {question}").as_bytes()).await.unwrap();
            server.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let (answer, moved) = tokio::join!(hosts, carrying);
        assert_eq!(answer, "answer to question");
        assert_eq!(moved, (8, 18, None));
    });
}

#[test]
fn more_bytes_than_any_buffer_arrive_whole_both_ways_at_once() {
    Worker::run_test(async |worker| {
        let (client, server, carrying) = between(&worker).await;
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 4]).collect();
        let whole = async |end: TcpStream| {
            let (mut reading, mut writing) = end.into_split();
            let write = async {
                writing.write_all(&bytes).await.unwrap();
                writing.shutdown().await.unwrap();
            };
            let mut read = Vec::new();
            tokio::join!(write, async { reading.read_to_end(&mut read).await.unwrap() });
            read == bytes
        };
        let (there, back, moved) = tokio::join!(whole(server), whole(client), carrying);
        assert!(there && back);
        assert_eq!(moved, (3_000_000, 3_000_000, None));
    });
}

#[test]
fn a_reset_ends_both_sides() {
    Worker::run_test(async |worker| {
        let (client, mut server, carrying) = between(&worker).await;
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        let ended = async { server.read_to_end(&mut Vec::new()).await };
        let (moved, ended) = tokio::join!(carrying, ended);
        assert_eq!(moved, (0, 0, None));
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    });
}

#[test]
fn buffers_come_back_when_nothing_moves() {
    let (one, other) = (borrow(), borrow());
    give_back(one);
    give_back(other);
    assert_eq!(SPARE.with_borrow(Vec::len), 2);
    (0..2 * SPARE_MAX).map(|_| vec![0; BUFFER].into()).for_each(give_back);
    assert_eq!(SPARE.with_borrow(Vec::len), SPARE_MAX);
}

async fn nobody() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

#[test]
fn a_connection_that_does_not_come_about_goes_to_another_endpoint() {
    Worker::run_test(async |worker| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let somebody = listener.local_addr().unwrap();
        let target = target_of(Cluster::default(), &[nobody().await, somebody, nobody().await]);
        for _ in 0..8 {
            let opened = open(&worker, &target, &target.tcp, Blame::Endpoint).await;
            assert_eq!(opened.map(|upstream| upstream.to.peer.address), Ok(somebody));
        }
    });
}

#[test]
fn a_connection_that_nobody_asked_for_yet_is_tried_once() {
    Worker::run_test(async |worker| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = target_of(Cluster::default(), &[nobody().await, listener.local_addr().unwrap()]);
        let mut failures = Vec::new();
        for _ in 0..64 {
            failures.extend(
                open(&worker, &target, &target.tcp, Blame::Nobody).await.err().map(|refusal| refusal.code),
            );
        }
        // Balanced by latency: the one that cannot be connected to is not blamed, and drawn again and again.
        assert!(
            !failures.is_empty() && failures.iter().all(|code| *code == Code::CONNECT_FAILED),
            "{failures:?}"
        );
    });
}
