//! The life of an opaque connection: split by weight, balanced, connected, then bytes both ways until
//! both sides have ended. A side that ends is half-closed on the other, which may go on.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use gauze_model::Code;
use gauze_model::outcome::{NotDelivered, Outcome};
use gauze_model::retry::{Decision, RetryPolicy, TryFacts, decide};
use gauze_model::route::share;
use gauze_model::server_name::by_server_name;
use http::Method;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::Proxy;
use crate::balance::{self, InFlight, Tried};
use crate::caller::{FromApp, FromPeer};
use crate::config::Config;
use crate::connect;
use crate::detect::{Asks, Speaks};
use crate::drain::{QUIET, Stage};
use crate::metrics::{EdgeMetrics, OpenConnection, Protocol, RetryReason};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::retry;
use crate::stream::Stream;
use crate::target::{ClusterTarget, EndpointTarget, Limited, OutboundTarget, Permit, TcpShare};
use crate::tls::Alpn;
use crate::worker::Worker;

/// The way to the server, opened.
pub(crate) struct Upstream {
    pub(crate) stream: Stream,
    pub(crate) to: Arc<EndpointTarget>,
    _permit: Permit,
    _open: OpenConnection,
    _in_flight: Option<InFlight>,
}

/// What is known of an opaque connection of our app before it is carried.
pub(crate) struct Opaque {
    pub(crate) speaks: Speaks,
    pub(crate) asks: Asks,
    /// The way that detection opened.
    pub(crate) upstream: Option<Upstream>,
}

/// Carries an opaque connection of our app, on the way that detection opened or on a new one.
pub(crate) async fn outbound(
    from: &FromApp,
    client: Stream,
    target: &OutboundTarget,
    opaque: Opaque,
) -> Result<(), Refusal> {
    let Opaque { speaks, asks, upstream } = opaque;
    let mut record = begin(&from.worker, &from.worker.nowhere, speaks, from.source, from.destination);
    let shares = shares(target, &asks);
    if let Asks::Tls(server_name) = asks {
        record.server_name = server_name;
    }
    let opened = match (shares, upstream) {
        (Err(refusal), _) => Err(refusal),
        (Ok(_), Some(upstream)) => Ok(upstream),
        (Ok(shares), None) => open(&from.worker, target, shares, Blame::Endpoint).await,
    };
    let upstream = opened.inspect_err(|refusal| record.error = Some(refusal.code))?;
    record.edge = Arc::clone(&upstream.to.metrics);
    record.endpoint = Some(upstream.to.peer.address);
    let (mut client, mut server) = (client, upstream.stream);
    carry(&from.worker.proxy, &mut client, &mut server, &mut record).await;
    Ok(())
}

/// The shares among which a connection is drawn: those of the rule for its server name, where there are such rules.
fn shares<'t>(target: &'t OutboundTarget, asks: &Asks) -> Result<&'t [TcpShare], Refusal> {
    if target.tls.is_empty() {
        return Ok(&target.tcp);
    }
    let name = match asks {
        Asks::Unseen => return Ok(&target.tcp),
        Asks::Unreadable(why) => return Err(Refusal::new(Code::CLIENT_HELLO_UNREADABLE, *why)),
        Asks::Tls(name) => name.as_deref(),
    };
    let rule = by_server_name(&target.tls, name);
    rule.map(|rule| rule.shares.as_slice()).ok_or_else(|| {
        let asked = name.map_or_else(|| "no server name".to_owned(), |name| format!("`{name}`"));
        Refusal::new(Code::NO_TLS_ROUTE, format!("{asked} at {}", target.origin))
    })
}

/// Carries an opaque connection to our app: judged before the app is connected to, and at every change of policy.
pub(crate) async fn inbound(
    from: &FromPeer,
    client: Stream,
    speaks: Speaks,
    upstream: Option<Upstream>,
) -> Result<(), Refusal> {
    let mut record = begin(&from.worker, &from.edge, speaks, from.source, from.destination);
    from.authorize_connection(&mut record)?;
    record.endpoint = Some(from.app.peer.address);
    let upstream = match upstream {
        Some(upstream) => Ok(upstream),
        None => open_to(&from.worker, Arc::clone(&from.app)).await.map_err(Refusal::of_the_app),
    };
    let upstream = upstream.inspect_err(|refusal| record.error = Some(refusal.code))?;
    let (mut client, mut server) = (client, upstream.stream);
    tokio::select! {
        () = carry(&from.worker.proxy, &mut client, &mut server, &mut record) => Ok(()),
        judged = from.expelled(None) => judged.tell(&from.told(None), &mut record),
    }
}

/// Carries a connection to an address that nobody knows, as it is, until somebody says that it is in
/// the mesh: then it must come again, with identity.
pub(crate) async fn pass_through(from: &FromApp, mut client: Stream) -> Result<(), Refusal> {
    let proxy = &from.worker.proxy;
    proxy.metrics.connections_outside.inc();
    let mut record = begin(&from.worker, &from.worker.nowhere, Speaks::Opaque, from.source, from.destination);
    let mut server =
        dial_outside(from.destination).await.inspect_err(|refusal| record.error = Some(refusal.code))?;
    record.endpoint = Some(from.destination);
    tokio::select! {
        () = carry(proxy, &mut client, &mut server, &mut record) => Ok(()),
        () = now_meshed(&proxy.config, from.destination) => {
            record.error = Some(Code::NOW_MESHED);
            Err(Refusal::new(Code::NOW_MESHED, from.destination.to_string()))
        }
    }
}

/// Hosts outside the mesh may be far away.
const OUTSIDE_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

async fn dial_outside(address: SocketAddr) -> Result<Stream, Refusal> {
    let failed = |code: Code, why: String| Refusal::new(code, format!("{address}: {why}"));
    let dialled = tokio::time::timeout(OUTSIDE_CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let dialled =
        dialled.map_err(|_| failed(Code::CONNECT_TIMEOUT, format!("{OUTSIDE_CONNECT_TIMEOUT:?}")))?;
    let dialled = dialled.and_then(Stream::plain);
    dialled.map_err(|error| failed(Code::CONNECT_FAILED, error.to_string()))
}

/// Completes when an address is known to have mesh endpoints.
async fn now_meshed(config: &Config, address: SocketAddr) {
    let mut changes = config.changes();
    loop {
        if config.view().outbound.get(&address).is_some_and(|target| target.is_meshed()) {
            return;
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn begin(
    worker: &Worker,
    edge: &Arc<EdgeMetrics>,
    speaks: Speaks,
    source: SocketAddr,
    destination: SocketAddr,
) -> Record {
    let protocol = if speaks == Speaks::Tls { Protocol::Tls } else { Protocol::Tcp };
    Record::connection(&worker.proxy.access_log, Arc::clone(edge), protocol, source, destination)
}

/// Whom a connection that does not come about speaks against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    Endpoint,
    /// Nobody asked for it yet: while a client is silent it is opened on suspicion.
    Nobody,
}

/// Opens the way that opaque connections to a dialled address take: one of these shares by weight, an endpoint of it,
/// another one where that cannot be connected to.
pub(crate) async fn open(
    worker: &Worker,
    target: &OutboundTarget,
    shares: &[TcpShare],
    blame: Blame,
) -> Result<Upstream, Refusal> {
    let weights = shares.iter().map(|share| share.weight);
    let share = share(weights, worker.draw()).and_then(|at| shares.get(at));
    let share = share.ok_or_else(|| Refusal::new(Code::NO_BACKEND, target.origin.to_string()))?;
    let cluster = &share.cluster;
    cluster.terms.live.budget.count_request(retry::clock());
    let mut tried = Tried::default();
    loop {
        let (endpoint, in_flight) = balance::choose(worker, cluster, &tried)?;
        let began = std::time::Instant::now();
        let refusal = match open_to(worker, Arc::clone(&endpoint)).await {
            Ok(upstream) => {
                balance::observe_connect(worker, &endpoint, cluster, true, began);
                return Ok(Upstream { _in_flight: Some(in_flight), ..upstream });
            }
            Err(refusal) => refusal,
        };
        if blame == Blame::Nobody || !is_connect_failure(refusal.code) {
            return Err(refusal);
        }
        balance::observe_connect(worker, &endpoint, cluster, false, began);
        let Some(after) = tried_again(worker, cluster, tried.count()) else { return Err(refusal) };
        endpoint.metrics.retried(RetryReason::ConnectFailure);
        tried.add(&endpoint);
        drop(in_flight);
        tokio::time::sleep(after).await;
    }
}

/// When a connection that did not come about is tried again: no byte was sent, so as any request is that was
/// not delivered, by the default policy and within the cluster's budget.
fn tried_again(worker: &Worker, cluster: &ClusterTarget, retries: u32) -> Option<Duration> {
    let facts = TryFacts {
        method: &Method::CONNECT,
        retries,
        replayable: true,
        retry_after: None,
        left: None,
        draw: worker.draw(),
    };
    let outcome = Outcome::NotDelivered(NotDelivered::ConnectFailure);
    let take_budget = || cluster.terms.live.budget.take_retry(&cluster.terms.retry_budget, retry::clock());
    match decide(&RetryPolicy::default(), &outcome, &facts, take_budget) {
        Decision::Again { after } => Some(after),
        Decision::Done(_) => None,
    }
}

/// Whether the endpoint is to blame; not so for what we refuse ourselves, or for a certificate that we lack.
fn is_connect_failure(code: Code) -> bool {
    matches!(
        code,
        Code::CONNECT_FAILED | Code::CONNECT_TIMEOUT | Code::UPSTREAM_TLS | Code::UPSTREAM_IDENTITY
    )
}

/// Opens the way to one endpoint.
pub(crate) async fn open_to(worker: &Worker, to: Arc<EndpointTarget>) -> Result<Upstream, Refusal> {
    let permit = to.terms.take(Limited::Connections)?;
    let stream = connect::dial(&worker.proxy, &to, Alpn::Tcp).await?;
    let open = to.metrics.dialled();
    Ok(Upstream { stream, to, _permit: permit, _open: open, _in_flight: None })
}

/// Carries bytes both ways until both sides have ended, or one of them failed, or nothing moved for too long; at the
/// end of the proxy that is soon.
pub(crate) async fn carry(proxy: &Proxy, client: &mut Stream, server: &mut Stream, record: &mut Record) {
    let mut there = Half::default();
    let mut back = Half::default();
    let mut idle = Idle::new(proxy.settings.limits.tcp_idle_timeout);
    let mut ending = pin!(proxy.drain.reached(Stage::Ending).fuse());
    let mut heard = None;
    let ended = poll_fn(|cx| {
        let there_done = there.poll(client, server, cx)?;
        let back_done = back.poll(server, client, cx)?;
        (record.received, record.sent) = (there.moved, back.moved);
        if there_done.is_ready() && back_done.is_ready() {
            return Poll::Ready(Ok(()));
        }
        // It wakes us at each stage; to poll it with every byte would take a lock.
        let stage = proxy.drain.stage();
        let is_news = heard.replace(stage) != Some(stage);
        if is_news && ending.as_mut().poll(cx).is_ready() {
            idle.shorten(QUIET, there.moved + back.moved);
        }
        idle.poll(there.moved + back.moved, cx).map(Err)
    });
    let ended: io::Result<()> = ended.await;
    match ended {
        Ok(()) => {}
        Err(_) if proxy.drain.stage() == Stage::Ending => {}
        Err(error) if error.kind() == io::ErrorKind::TimedOut => record.error = Some(Code::STREAM_IDLE),
        Err(error) => tracing::debug!(%error, source = %record.source, "an opaque connection broke"),
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Half {
    state: State,
    /// Bytes written to the other side.
    moved: u64,
}

/// What a direction is doing; a buffer is held only while there are bytes in it.
#[derive(Default)]
enum State {
    #[default]
    Reading,
    Writing {
        buffer: Box<[u8]>,
        from: usize,
        to: usize,
    },
    Flushing,
    /// The end was read, and is passed on.
    Ending,
    Ended,
}

impl Half {
    /// Moves what can be moved now; ready when this direction has ended.
    fn poll(&mut self, from: &mut Stream, to: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.state {
                State::Reading => self.state = ready!(read(from, cx))?,
                State::Writing { buffer, from: start, to: end } => {
                    let written = ready!(Pin::new(&mut *to).poll_write(cx, &buffer[*start..*end]))?;
                    if written == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    *start += written;
                    self.moved += written as u64;
                    if start == end {
                        give_back(std::mem::take(buffer));
                        self.state = State::Flushing;
                    }
                }
                State::Flushing => {
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    self.state = State::Reading;
                }
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Reads once something is there, into a buffer that is borrowed for as long as there are bytes in it.
fn read(from: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<State>> {
    ready!(from.poll_readable(cx))?;
    let mut buffer = borrow();
    let mut space = ReadBuf::new(&mut buffer);
    let read = Pin::new(from).poll_read(cx, &mut space).map_ok(|()| space.filled().len());
    match read {
        Poll::Ready(Ok(length)) if length > 0 => {
            Poll::Ready(Ok(State::Writing { buffer, from: 0, to: length }))
        }
        Poll::Ready(Ok(_)) => {
            give_back(buffer);
            Poll::Ready(Ok(State::Ending))
        }
        Poll::Ready(Err(error)) => {
            give_back(buffer);
            Poll::Ready(Err(error))
        }
        Poll::Pending => {
            give_back(buffer);
            Poll::Pending
        }
    }
}

/// Bytes moved at once: one TLS record and its neighbours.
const BUFFER: usize = 64 * 1024;

/// Buffers that a worker keeps for the next connection that has something to move.
const SPARE_MAX: usize = 8;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn borrow() -> Box<[u8]> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER].into())
}

fn give_back(buffer: Box<[u8]>) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    });
}

/// Fails when nothing moved for the limit.
struct Idle {
    limit: Duration,
    timer: Pin<Box<Sleep>>,
    seen: u64,
}

impl Idle {
    fn new(limit: Duration) -> Idle {
        Idle { limit, timer: Box::pin(tokio::time::sleep(limit)), seen: 0 }
    }

    /// From now on, when this much has moved.
    fn shorten(&mut self, limit: Duration, moved: u64) {
        (self.limit, self.seen) = (limit, moved);
        self.timer.as_mut().reset(Instant::now() + limit);
    }

    fn poll(&mut self, moved: u64, cx: &mut Context<'_>) -> Poll<io::Error> {
        // The timer is looked at when it fires only: moving it with every byte would cost more than it tells.
        ready!(self.timer.as_mut().poll(cx));
        if self.seen == moved {
            return Poll::Ready(io::ErrorKind::TimedOut.into());
        }
        self.seen = moved;
        self.timer.as_mut().reset(Instant::now() + self.limit);
        self.timer.as_mut().poll(cx).map(|()| io::ErrorKind::TimedOut.into())
    }
}

#[cfg(test)]
mod tests;
