//! The client side of an HTTP/2 connection. A request runs in the task of whoever sends it; only when its response begins
//! before the request has ended, a task goes on with the request.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, Connection, SendRequest};
use http::{Method, Request, Response};
use http_body::Body as _;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::outgoing::Upload;
use super::{
    CONNECTION_WINDOW, Incoming, KeepAlive, RESETS_LOCAL_MAX, SEND_BUFFER_MAX, STREAM_WINDOW, Tunnelled,
    settle,
};
use crate::body::Body;
use crate::gather::Gathered;
use crate::sending::Sending;
use crate::stream::Stream;
use crate::upgrade::Opened;

/// Streams that are opened before the peer has said how many it permits.
const STREAMS_AT_FIRST: usize = 100;

/// A connection that carries requests. Once it and all streams are dropped, it is closed.
pub(crate) struct Client {
    /// Asked here; each request is sent by a copy.
    sender: RefCell<SendRequest<Bytes>>,
    /// Streams that are held now; see [`Client::hold`].
    held: Rc<Cell<usize>>,
    /// The task of the connection has run.
    ran: Rc<Notify>,
    /// When a peer that has not offered extended CONNECT yet does not offer it.
    offers_until: Instant,
}

/// A request that got no response.
pub(crate) struct SendError {
    /// Nothing of it was sent, and it can still be.
    pub(crate) is_unsent: bool,
    pub(crate) error: h2::Error,
}

impl Client {
    /// Begins HTTP/2 on a connection, and a task that drives it. `guard` is dropped when the connection has ended.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) async fn open(
        stream: Stream,
        header_bytes_max: usize,
        patience: Duration,
        guard: impl Sized + 'static,
    ) -> Result<Client, h2::Error> {
        let gathered = Gathered::new(stream);
        let (sender, mut connection) = builder(header_bytes_max).handshake(gathered.clone()).await?;
        let keep_alive = connection.ping_pong().map(KeepAlive::new);
        let offers_until = Instant::now() + patience;
        let client =
            Client { sender: RefCell::new(sender), held: Rc::default(), ran: Rc::default(), offers_until };
        let task = Task { connection, keep_alive, held: Rc::clone(&client.held) };
        tokio::task::spawn_local(task.run(gathered, Rc::clone(&client.ran), guard));
        Ok(client)
    }

    /// Whether it takes no more requests: the peer has said GOAWAY, or is gone.
    pub(crate) fn is_closed(&self) -> bool {
        let readiness = self.sender.borrow_mut().poll_ready(&mut Context::from_waker(Waker::noop()));
        matches!(readiness, Poll::Ready(Err(_)))
    }

    /// Whether the peer permits another stream (SETTINGS_MAX_CONCURRENT_STREAMS). Where it permits none at all, the first
    /// request waits on the stream that it does not get.
    pub(crate) fn has_room(&self) -> bool {
        self.held.get() < self.sender.borrow().current_max_send_streams().max(1)
    }

    /// Counts a stream, from its request to the end of its response.
    pub(crate) fn hold(&self) {
        self.held.set(self.held.get() + 1);
    }

    /// Ends what [`Client::hold`] began; tells whether it was the last.
    pub(crate) fn release(&self) -> bool {
        self.held.set(self.held.get() - 1);
        self.is_idle()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.held.get() == 0
    }

    /// Whether the peer offers extended CONNECT (RFC 8441, 3), which it says in its first SETTINGS, or never: these are
    /// waited for.
    pub(crate) async fn offers_extended_connect(&self) -> bool {
        loop {
            let ran = self.ran.notified();
            if self.sender.borrow().is_extended_connect_protocol_enabled() {
                return true;
            }
            if timeout_at(self.offers_until, ran).await.is_err() {
                return false;
            }
        }
    }

    /// Sends a request on a stream of its own and waits for the head of its response. Dropping the future resets the
    /// stream. A 2xx to a CONNECT opens a tunnel to `peer`.
    ///
    /// # Errors
    /// There is no response.
    pub(crate) async fn send(
        &self,
        sending: &mut Sending<'_>,
        peer: SocketAddr,
    ) -> Result<Response<Body>, SendError> {
        let mut sender = self.sender.borrow().clone();
        let ready = poll_fn(|cx| sender.poll_ready(cx)).await;
        ready.map_err(|error| SendError { is_unsent: true, error })?;

        let failed = |error| SendError { is_unsent: false, error };
        let (mut head, body) = sending.begin_http2().into_parts();
        let is_connect = head.method == Method::CONNECT;
        let has_nothing = !is_connect && body.is_end_stream();
        settle(&mut head.headers, &body, matches!(head.method, Method::POST | Method::PUT | Method::PATCH));
        let sent = sender.send_request(Request::from_parts(head, ()), has_nothing);
        let (mut answer, stream) = sent.map_err(failed)?;
        let (mut upload, tunnel) = match is_connect {
            true => (None, Some(stream)),
            false => ((!has_nothing).then(|| Upload::new(stream, body)), None),
        };

        let response = poll_fn(|cx| {
            if upload.as_mut().is_some_and(|upload| upload.poll(cx).is_ready()) {
                upload = None;
            }
            while let Poll::Ready(Some(Ok(early))) = answer.poll_informational(cx) {
                sending.interim.note(early);
            }
            Pin::new(&mut answer).poll(cx)
        });
        let (head, stream) = response.await.map_err(failed)?.into_parts();
        if let Some(mut upload) = upload {
            tokio::task::spawn_local(async move { poll_fn(|cx| upload.poll(cx)).await });
        }
        let body = match tunnel.filter(|_| head.status.is_success()) {
            Some(outgoing) => {
                let tunnelled = Tunnelled::new(outgoing, stream);
                Body::Tunnel(Box::new(Opened::new(Stream::over_http2(tunnelled, peer, peer), None)))
            }
            None => Incoming::body(stream),
        };
        Ok(Response::from_parts(head, body))
    }
}

fn builder(header_bytes_max: usize) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(STREAMS_AT_FIRST)
        .max_header_list_size(u32::try_from(header_bytes_max).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER_MAX)
        .max_local_error_reset_streams(Some(RESETS_LOCAL_MAX));
    builder
}

/// What drives a connection.
struct Task {
    connection: Connection<Gathered, Bytes>,
    keep_alive: Option<KeepAlive>,
    held: Rc<Cell<usize>>,
}

impl Task {
    async fn run(mut self, gathered: Gathered, ran: Rc<Notify>, guard: impl Sized) {
        let ended = gathered.drive(poll_fn(|cx| {
            let polled = self.poll(cx);
            ran.notify_waiters();
            polled
        }));
        if let Err(error) = ended.await {
            tracing::debug!(%error, "an HTTP/2 connection to an endpoint ended");
        }
        drop(guard);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(cx) {
            return Poll::Ready(ended);
        }
        let is_awaited = self.held.get() > 0;
        match &mut self.keep_alive {
            Some(keep_alive) => keep_alive.poll(cx, is_awaited).map(|()| Err(Reason::NO_ERROR.into())),
            None => Poll::Pending,
        }
    }
}
