//! Connections to endpoints: dialled, pooled, reused, retired. Pools belong to one worker; their key is
//! how an endpoint is dialled (address and identity), whatever clusters hold it, and what is spoken.
//!
//! A request on a connection that turns out closed before a byte of it was taken goes out again on a
//! fresh one at once: that is a lost race with the peer's idle time-out, not a retry. Retries are
//! decided above (`retry`).

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use gauze_model::Code;
use gauze_model::cluster::Transport;
use gauze_model::limits::Place;
use http::Response;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::Proxy;
use crate::body::Body;
use crate::h1;
use crate::http2;
use crate::metrics::OpenConnection;
use crate::refusal::Refusal;
use crate::sending::Sending;
use crate::serve::framing_limits;
use crate::stream::Stream;
use crate::target::{ClusterLive, EndpointTarget, Limited, Peer, Permit};
use crate::tls::Alpn;
use crate::worker::Worker;

mod failure; // why a request got no response

pub(crate) use failure::breach;
use failure::{broken, code_of, is_dismissal, unanswered};

/// The connections of one worker, by peer.
#[derive(Default)]
pub(crate) struct Pools {
    by_peer: RefCell<HashMap<u64, Rc<Pool>>>,
}

/// The connections to one peer.
pub(crate) struct Pool {
    peer: Arc<Peer>,
    /// Open and not retired; a second one only when the first has no stream left.
    http2: RefCell<Vec<Rc<Http2>>>,
    /// The HTTP/2 connection that is being opened, for all who wait for it.
    opening: RefCell<Option<watch::Receiver<Opening>>>,
    /// Idle, the longest idle first.
    http1: RefCell<VecDeque<Idle>>,
}

type Opening = Option<Result<Rc<Http2>, Refusal>>;

struct Http2 {
    client: http2::client::Client,
    idle_since: Cell<Instant>,
    /// Before the earlier of the two leaves expires.
    retire_at: Option<Instant>,
}

struct Idle {
    connection: h1::client::Connection,
    since: Instant,
    live: Arc<ClusterLive>,
    retire_at: Option<Instant>,
}

/// A stream of a shared connection, from its request to the end of its response.
pub(crate) struct StreamHeld(Rc<Http2>);

/// What is counted while a connection is open.
struct Counted {
    _permit: Permit,
    _open: OpenConnection,
}

/// What is spoken to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Http1,
    Http2,
}

/// A response whose body is still to come, and the stream that it comes on.
pub(crate) type Sent = (Response<Body>, Option<StreamHeld>);

/// Sends a request on a pooled connection, or on a new one, and waits for the head of the response.
pub(crate) async fn send(
    worker: &Rc<Worker>,
    to: &Arc<EndpointTarget>,
    wire: Wire,
    sending: &mut Sending<'_>,
) -> Result<Sent, Refusal> {
    let pool = worker.pools.of(&to.peer);
    match wire {
        Wire::Http1 => pool.send_http1(worker, to, sending).await.map(|response| (response, None)),
        Wire::Http2 => {
            let (response, stream) = pool.send_http2(worker, to, sending).await?;
            Ok((response, Some(stream)))
        }
    }
}

/// Opens a connection: TCP, and mesh TLS where the endpoint is meshed, both within the connect time-out.
/// What is `Mesh` is never dialled in plaintext.
pub(crate) async fn dial(proxy: &Proxy, to: &EndpointTarget, alpn: Alpn) -> Result<Stream, Refusal> {
    let address = to.peer.address;
    let failed = |code: Code, why: &dyn std::fmt::Display| Refusal::new(code, format!("{address}: {why}"));
    let open = async {
        let tcp = TcpStream::connect(address).await.map_err(|error| failed(Code::CONNECT_FAILED, &error))?;
        match &to.peer.transport {
            Transport::Plain => Stream::plain(tcp).map_err(|error| failed(Code::CONNECT_FAILED, &error)),
            Transport::Mesh(identity) => {
                let opened = proxy.tls.connect(tcp, identity, alpn).await;
                opened.map_err(|error| failed(error.upstream_code(), &error))
            }
        }
    };
    let opened = match tokio::time::timeout(to.terms.connect_timeout, open).await {
        Ok(opened) => opened,
        Err(_) => Err(failed(Code::CONNECT_TIMEOUT, &format_args!("{:?}", to.terms.connect_timeout))),
    };
    opened.inspect_err(|_| to.metrics.dial_failed())
}

impl Pools {
    fn of(&self, peer: &Arc<Peer>) -> Rc<Pool> {
        let mut pools = self.by_peer.borrow_mut();
        Rc::clone(pools.entry(peer.id).or_insert_with(|| Rc::new(Pool::new(Arc::clone(peer)))))
    }

    /// Closes what was idle for too long or is to be replaced, and forgets peers that nothing stands for any more.
    pub(crate) fn sweep(&self, now: Instant, idle_timeout: Duration) {
        self.by_peer.borrow_mut().retain(|_, pool| {
            pool.sweep(now, idle_timeout);
            pool.is_wanted()
        });
    }

    /// Closes idle connections of clusters whose requests wait for one: they may wait in another worker.
    pub(crate) fn give_way(&self) {
        for pool in self.by_peer.borrow().values() {
            pool.http1.borrow_mut().retain(|idle| idle.live.pending.load(Ordering::Relaxed) == 0);
        }
    }

    /// Closes idle connections that count against a cluster's limit, to make room for one to another endpoint.
    fn make_room(&self, live: &Arc<ClusterLive>) {
        for pool in self.by_peer.borrow().values() {
            pool.http1.borrow_mut().retain(|idle| !Arc::ptr_eq(&idle.live, live));
        }
    }
}

impl Pool {
    fn new(peer: Arc<Peer>) -> Pool {
        Pool { peer, http2: RefCell::default(), opening: RefCell::default(), http1: RefCell::default() }
    }

    /// While a view or a request holds the peer. What is not wanted is dropped with its idle
    /// connections; busy ones end with their requests.
    fn is_wanted(&self) -> bool {
        Arc::strong_count(&self.peer) > 1
    }

    fn sweep(&self, now: Instant, idle_timeout: Duration) {
        let is_over = |since: Instant, retire_at: Option<Instant>| {
            now.duration_since(since) >= idle_timeout || retire_at.is_some_and(|at| at <= now)
        };
        self.http1.borrow_mut().retain(|idle| !is_over(idle.since, idle.retire_at));
        self.http2.borrow_mut().retain(|connection| {
            let is_idle = connection.client.is_idle();
            !(connection.client.is_closed()
                || is_idle && is_over(connection.idle_since.get(), connection.retire_at))
        });
    }

    async fn send_http2(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        to: &Arc<EndpointTarget>,
        sending: &mut Sending<'_>,
    ) -> Result<(Response<Body>, StreamHeld), Refusal> {
        let mut was_dismissed = false;
        loop {
            let (stream, is_reused) = self.stream(worker, to).await?;
            let client = &stream.0.client;
            if sending.is_extended_connect() && !client.offers_extended_connect().await {
                return Err(Refusal::new(Code::NO_EXTENDED_CONNECT, to.peer.address.to_string()));
            }
            let failed = match client.send(sending, to.peer.address).await {
                Ok(response) => return Ok((response, stream)),
                Err(failed) => failed,
            };
            // Dismissed once is a lost race; whoever dismisses at once again wants no requests.
            let is_dismissal = !was_dismissed && is_dismissal(&failed.error);
            was_dismissed |= is_dismissal;
            if !(failed.is_unsent && is_reused || is_dismissal) || !sending.can_begin() {
                return Err(unanswered(to, failed.is_unsent, &failed.error));
            }
        }
    }

    /// A stream of an open connection (true), or of a new one (false).
    async fn stream(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        to: &Arc<EndpointTarget>,
    ) -> Result<(StreamHeld, bool), Refusal> {
        loop {
            if let Some(stream) = self.free_stream() {
                return Ok((stream, true));
            }
            let connection = self.opened(worker, to).await?;
            // However short its life may be: each connection that was opened carries who waited for it.
            if connection.client.has_room() {
                return Ok((StreamHeld::new(&connection), false));
            }
        }
    }

    fn free_stream(&self) -> Option<StreamHeld> {
        let now = Instant::now();
        let mut connections = self.http2.borrow_mut();
        connections.retain(|connection| connection.is_fresh(now));
        connections.iter().find(|connection| connection.client.has_room()).map(StreamHeld::new)
    }

    /// Waits for the connection that is being opened; opens one if none is.
    async fn opened(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        to: &Arc<EndpointTarget>,
    ) -> Result<Rc<Http2>, Refusal> {
        let opening = self.opening.borrow().clone();
        let mut opening = match opening {
            Some(opening) => opening,
            None => self.open(worker, to),
        };
        let opened = opening.wait_for(Option::is_some).await.map(|opened| opened.clone());
        opened.ok().flatten().unwrap_or_else(|| Err(Refusal::new(Code::INTERNAL, "the dialling task ended")))
    }

    /// Opens a connection in a task of its own: whoever asked first may go away, others wait for it too.
    fn open(self: &Rc<Self>, worker: &Rc<Worker>, to: &Arc<EndpointTarget>) -> watch::Receiver<Opening> {
        let (done, opening) = watch::channel(None);
        *self.opening.borrow_mut() = Some(opening.clone());
        let (pool, worker, to) = (Rc::clone(self), Rc::clone(worker), Arc::clone(to));
        tokio::task::spawn_local(async move {
            let opened = open_http2(&worker, &to).await;
            let opened =
                opened.map(Rc::new).inspect(|opened| pool.http2.borrow_mut().push(Rc::clone(opened)));
            pool.opening.borrow_mut().take();
            // Nobody waits any more: the connection is in the pool for the next one.
            let _ = done.send(Some(opened));
        });
        opening
    }

    async fn send_http1(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        to: &Arc<EndpointTarget>,
        sending: &mut Sending<'_>,
    ) -> Result<Response<Body>, Refusal> {
        if sending.is_extended_connect() {
            return Err(Refusal::new(Code::NO_EXTENDED_CONNECT, to.peer.address.to_string()));
        }
        loop {
            let idle = self.idle();
            let is_reused = idle.is_some();
            let connection = match idle {
                Some(connection) => connection,
                None => self.open_http1(worker, to).await?,
            };
            let interim = sending.interim;
            let (head, body, way) = sending.begin();
            let failed = match connection.send_parts(head, body, way, interim).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            let code = failed.kind.code();
            let is_unsent = failed.not_delivered && code == Code::UPSTREAM_RESET;
            if !(is_unsent && is_reused && sending.can_begin()) {
                return Err(broken(to, if is_unsent { Code::STREAM_REFUSED } else { code }, &failed.kind));
            }
        }
    }

    /// The connection that was used last, if it can still be used.
    fn idle(&self) -> Option<h1::client::Connection> {
        let now = Instant::now();
        loop {
            let idle = self.http1.borrow_mut().pop_back()?;
            let is_expired = idle.retire_at.is_some_and(|at| at <= now);
            if !is_expired && idle.connection.is_usable() {
                return Some(idle.connection);
            }
        }
    }

    async fn open_http1(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        to: &Arc<EndpointTarget>,
    ) -> Result<h1::client::Connection, Refusal> {
        // Its place in the queue; kept until it is served, however often another one is faster.
        let mut waiting = None;
        let permit = loop {
            // Asked for before looking, so that nothing freed in between is missed.
            let mut freed = pin!(to.terms.live.freed.notified());
            freed.as_mut().enable();
            if let Some(connection) = self.idle() {
                return Ok(connection);
            }
            if waiting.is_none() {
                waiting = place(worker, to)?;
            }
            if let Ok(permit) = to.terms.take(Limited::Connections) {
                break permit;
            }
            if waiting.is_some() {
                worker.proxy.room_wanted.send_replace(());
                freed.await;
            }
        };
        drop(waiting);
        let stream = Box::pin(dial(&worker.proxy, to, Alpn::Http1)).await?;
        let counted = Counted { _permit: permit, _open: to.metrics.dialled() };
        let retire_at = retire_at(&stream);
        let (pool, live) = (Rc::downgrade(self), Arc::clone(&to.terms.live));
        let home = move |connection| {
            // A pool that is gone lost its endpoint: the connection ends here.
            let Some(pool) = pool.upgrade() else { return };
            let idle = Idle { connection, since: Instant::now(), live: Arc::clone(&live), retire_at };
            pool.http1.borrow_mut().push_back(idle);
            live.freed.notify_waiters();
        };
        let limits = framing_limits(&worker.proxy.settings.limits);
        Ok(h1::client::Connection::new(stream, limits, Rc::new(home), counted))
    }
}

/// What a request does that finds no free connection: `None`, it may open one (idle ones to other
/// endpoints give way); else it waits, and holds its place in the queue.
fn place(worker: &Worker, to: &EndpointTarget) -> Result<Option<Permit>, Refusal> {
    let terms = &to.terms;
    if terms.limits.admit_connection(terms.live.in_use()).is_err() {
        worker.pools.make_room(&terms.live);
    }
    match terms.limits.place(terms.live.in_use())? {
        Place::Open => Ok(None),
        Place::Wait => Ok(Some(terms.take(Limited::Pending)?)),
    }
}

async fn open_http2(worker: &Rc<Worker>, to: &EndpointTarget) -> Result<Http2, Refusal> {
    // Streams share connections, so a request never waits for one here: it opens one, or is refused.
    place(worker, to)?;
    let permit = to.terms.take(Limited::Connections)?;
    let stream = Box::pin(dial(&worker.proxy, to, Alpn::Http2)).await?;
    let counted = Counted { _permit: permit, _open: to.metrics.dialled() };
    let retire_at = retire_at(&stream);
    let header_bytes_max = worker.proxy.settings.limits.header_bytes_max;
    let opened =
        http2::client::Client::open(stream, header_bytes_max, to.terms.connect_timeout, counted).await;
    let client = opened.map_err(|error| broken(to, code_of(&error), &error))?;
    Ok(Http2 { client, idle_since: Cell::new(Instant::now()), retire_at })
}

/// When we send no more requests on a mesh connection: what is in flight then must end before the
/// earlier of its two leaves expires.
fn retire_at(stream: &Stream) -> Option<Instant> {
    at_remaining(stream, 0.4, RETIRE_BEFORE)
}

/// When we tell the other side to send no more (GOAWAY). It knows the same two leaves, and retires the
/// connection earlier by itself: a request that is under way while GOAWAY is, is lost (h2 acknowledges
/// the warning before it writes what it has queued).
pub(crate) fn dismiss_at(stream: &Stream) -> Option<Instant> {
    at_remaining(stream, 0.2, RETIRE_BEFORE / 2)
}

const RETIRE_BEFORE: Duration = Duration::from_secs(60);

/// When this share of what is left of its leaves remains, at most `before` their expiry.
fn at_remaining(stream: &Stream, share: f32, before: Duration) -> Option<Instant> {
    let left = stream.leaf_expiry()?.duration_since(SystemTime::now()).unwrap_or_default();
    Some(Instant::now() + left.saturating_sub(left.mul_f32(share).min(before)))
}

impl Http2 {
    fn is_fresh(&self, now: Instant) -> bool {
        !self.client.is_closed() && self.retire_at.is_none_or(|at| now < at)
    }
}

impl StreamHeld {
    fn new(connection: &Rc<Http2>) -> StreamHeld {
        connection.client.hold();
        StreamHeld(Rc::clone(connection))
    }
}

impl Drop for StreamHeld {
    fn drop(&mut self) {
        let connection = &self.0;
        if connection.client.release() {
            connection.idle_since.set(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
