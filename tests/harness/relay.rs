//! A TCP relay, to be cut or held: the network between two processes, at a test's command. It also stands in for a
//! Service in front of several replicas.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Relays connections; ends with all of them when dropped.
pub(crate) struct Relay {
    pub address: SocketAddr,
    line: watch::Sender<Line>,
    task: AbortHandle,
}

#[derive(Clone, Debug)]
struct Line {
    /// Tried in turn by each new connection.
    targets: Vec<SocketAddr>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Open,
    /// Open connections end, and new ones at once.
    Cut,
    /// Bytes stay where they are, and nobody is told.
    Held,
}

impl Relay {
    pub(crate) async fn start(targets: &[SocketAddr]) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let line = watch::Sender::new(Line { targets: targets.to_vec(), state: State::Open });
        let task = tokio::spawn(accept(listener, line.subscribe())).abort_handle();
        Relay { address, line, task }
    }

    /// Where new connections go.
    pub(crate) fn point_to(&self, targets: &[SocketAddr]) {
        self.line.send_modify(|line| line.targets = targets.to_vec());
    }

    pub(crate) fn cut(&self) {
        self.line.send_modify(|line| line.state = State::Cut);
    }

    pub(crate) fn hold(&self) {
        self.line.send_modify(|line| line.state = State::Held);
    }

    pub(crate) fn mend(&self) {
        self.line.send_modify(|line| line.state = State::Open);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, line: watch::Receiver<Line>) {
    while let Ok((stream, _)) = listener.accept().await {
        let line = line.clone();
        tokio::spawn(async move {
            let mut cut = line.clone();
            tokio::select! {
                () = carry(stream, line) => {}
                // The relay is gone: an error.
                _ = cut.wait_for(|line| line.state == State::Cut) => {}
            }
        });
    }
}

async fn carry(near: TcpStream, mut line: watch::Receiver<Line>) {
    if line.wait_for(|line| line.state == State::Open).await.is_err() {
        return;
    }
    let targets = line.borrow().targets.clone();
    let mut far = None;
    for target in targets {
        far = TcpStream::connect(target).await.ok();
        if far.is_some() {
            break;
        }
    }
    let Some(far) = far else { return };
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::join!(half(near_read, far_write, line.clone()), half(far_read, near_write, line));
}

async fn half(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut line: watch::Receiver<Line>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if line.wait_for(|line| line.state == State::Open).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
