//! The life of an accepted connection: where it leads, what it speaks, and who carries it from there
//! (`http` a request at a time, `tcp` as it is). After accept, redirected and mapped connections are one.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;
use gauze_model::Code;
use gauze_model::listener::{Inbound, InboundPort, Mtls, PortProtocol};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::caller::{Caller, FromApp, FromPeer};
use crate::config::Destination;
use crate::detect::{self, Asks, Patience, Speaks};
use crate::listen::{Accepted, Counted};
use crate::metrics::{Direction, Security};
use crate::refusal::Refusal;
use crate::self_check::SelfCheck;
use crate::serve;
use crate::stream::Stream;
use crate::target::{OutboundLive, OutboundTarget};
use crate::tcp::{self, Blame, Opaque, Upstream};
use crate::tls::Alpn;
use crate::worker::Worker;

/// Why a connection was not carried to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The other side broke it, or went away.
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// What carries a connection once it is decided how. All that led to the decision (looking up,
/// detection, handshakes) has been given back by then, so that a connection that only waits is small.
type Carrying = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

/// Carries a connection to its end.
pub(crate) async fn carry(worker: Rc<Worker>, accepted: Accepted) {
    let (direction, source, destination) = (accepted.direction, accepted.source, accepted.destination);
    let refused = Rc::clone(&worker);
    let carried = match Box::pin(decide_in_time(worker, accepted)).await {
        Some(Ok(carrying)) => carrying.await,
        Some(Err(failure)) => Err(failure),
        None => return,
    };
    match carried {
        Ok(()) => {}
        Err(Failure::Broken(error)) => tracing::debug!(%error, %source, %destination, "connection broken"),
        Err(Failure::Refused(refusal)) => {
            tracing::info!(%refusal, %source, %destination, "connection refused");
            refused.proxy.metrics.refused(direction, refusal.code);
        }
    }
}

/// Decides, unless the proxy ends before anything came that could be carried.
async fn decide_in_time(worker: Rc<Worker>, accepted: Accepted) -> Option<Result<Carrying, Failure>> {
    let ending = Rc::clone(&worker);
    tokio::select! {
        decided = decide(worker, accepted) => Some(decided),
        () = ending.quiet_end() => None,
    }
}

/// What the connection leads to, and how it is carried.
async fn decide(worker: Rc<Worker>, accepted: Accepted) -> Result<Carrying, Failure> {
    let Accepted { socket, direction, source, destination, mapped, counted } = accepted;
    let socket = TcpStream::from_std(socket)?;
    if direction == Direction::Outbound && SelfCheck::is_probe(destination) {
        worker.proxy.self_check.answer(socket).await;
        return Ok(Box::pin(std::future::ready(Ok(()))));
    }
    let stream = Stream::plain(socket)?;
    match direction {
        Direction::Outbound => outbound(FromApp { worker, source, destination }, stream, counted).await,
        Direction::Inbound => {
            let app = worker.app_at(mapped.unwrap_or(destination));
            inbound(FromPeer::new(worker, source, destination, app), stream, counted).await
        }
    }
}

/// Carries by `carrying`, and holds what counts the connection until it has ended.
fn holding<E: Into<Failure>>(
    held: impl Sized + 'static,
    carrying: impl Future<Output = Result<(), E>> + 'static,
) -> Result<Carrying, Failure> {
    // No `async` block: it would keep room for both its argument and what it awaits.
    Ok(Box::pin(carrying.map(move |ended| {
        drop(held);
        ended.map_err(E::into)
    })))
}

/// A connection of our app: where it leads, what it speaks, and off.
async fn outbound(from: FromApp, mut stream: Stream, counted: Counted) -> Result<Carrying, Failure> {
    let proxy = Arc::clone(&from.worker.proxy);
    let open = proxy.metrics.accepted(Direction::Outbound, Security::Plain);
    if from.worker.is_own(from.destination) {
        return Err(Refusal::new(Code::LOOP, from.destination.to_string()).into());
    }
    let target = match proxy.config.outbound(from.destination).await {
        Ok(Destination::Target(target)) => target,
        Ok(Destination::PassThrough(passing)) => {
            let passes = async move { tcp::pass_through(&from, stream).await };
            return holding((counted, open, passing), passes);
        }
        Err(refusal) => return refuse(refusal, from, stream, counted).await,
    };
    let held = (counted, open, Used::count(&target));
    let (speaks, upstream) = outbound_protocol(&from, &mut stream, &target).await?;
    match speaks {
        Speaks::Http1 => holding(held, serve::http1(Caller::App(from), stream)),
        Speaks::Http2 => holding(held, serve::http2(Caller::App(from), stream)),
        _ => {
            let asks = asks_for(&from, &mut stream, &target, speaks).await?;
            // A way that is open leads to where all connections go, not to where those with this server name do.
            let upstream = upstream.filter(|_| asks == Asks::Unseen || target.tls.is_empty());
            let opaque = Opaque { speaks, asks, upstream };
            holding(held, async move { tcp::outbound(&from, stream, &target, opaque).await })
        }
    }
}

async fn outbound_protocol(
    from: &FromApp,
    stream: &mut Stream,
    target: &OutboundTarget,
) -> io::Result<(Speaks, Option<Upstream>)> {
    let patience = Patience::of(&from.worker.proxy);
    match target.protocol {
        PortProtocol::Opaque => Ok((Speaks::Opaque, None)),
        PortProtocol::Tls if target.tls.is_empty() => Ok((Speaks::Tls, None)),
        PortProtocol::Tls => Ok((detect::client_first(stream, patience).await?.as_tls(), None)),
        PortProtocol::Http | PortProtocol::Http2 | PortProtocol::Grpc => {
            let speaks = detect::client_first(stream, patience).await?;
            Ok((speaks.as_http(), None))
        }
        PortProtocol::Detect => {
            let silent = &from.worker.proxy.metrics.detect_silent;
            let open = tcp::open(&from.worker, target, &target.tcp, Blame::Nobody);
            detect::anyone_first(stream, patience, silent, open).await
        }
    }
}

/// What TLS asks for, where that decides, or where the access log tells it and detection has waited for it anyway.
async fn asks_for(
    from: &FromApp,
    stream: &mut Stream,
    target: &OutboundTarget,
    speaks: Speaks,
) -> io::Result<Asks> {
    let proxy = &from.worker.proxy;
    let is_told = target.protocol == PortProtocol::Detect && proxy.access_log.wanted().is_some();
    let is_tls = matches!(speaks, Speaks::Tls | Speaks::Mesh);
    match is_tls && (is_told || !target.tls.is_empty()) {
        true => detect::server_name(stream, Patience::of(proxy)).await,
        false => Ok(Asks::Unseen),
    }
}

/// Nobody can say where the address leads. A client that speaks HTTP is told, and may ask again.
async fn refuse(
    refusal: Refusal,
    from: FromApp,
    mut stream: Stream,
    counted: Counted,
) -> Result<Carrying, Failure> {
    let patience = Patience::of(&from.worker.proxy);
    match timeout(patience.silence, detect::client_first(&mut stream, patience)).await {
        Ok(Ok(Speaks::Http1)) => holding(counted, serve::http1(Caller::App(from), stream)),
        Ok(Ok(Speaks::Http2)) => holding(counted, serve::http2(Caller::App(from), stream)),
        _ => Err(refusal.into()),
    }
}

/// A connection to our app: whether it may come, what it speaks, and in.
async fn inbound(from: FromPeer, mut stream: Stream, counted: Counted) -> Result<Carrying, Failure> {
    let inbound = from.worker.proxy.config.view().inbound.clone();
    let inbound = inbound.ok_or_else(|| Refusal::new(Code::NOT_CONFIGURED, ""))?;
    let port = admit(&from, &inbound.inbound)?;
    let (speaks, upstream) = inbound_protocol(&from, &mut stream, port).await?;
    if speaks == Speaks::Mesh {
        return inbound_mesh(from, stream, counted).await;
    }

    let held = (counted, from.worker.proxy.metrics.accepted(Direction::Inbound, Security::Plain));
    let from = Rc::new(from);
    match speaks {
        // Refused, where plaintext is refused, by an answer that says so.
        Speaks::Http1 => holding(held, serve::http1(Caller::Peer(from), stream)),
        Speaks::Http2 => holding(held, serve::http2(Caller::Peer(from), stream)),
        _ => holding(held, async move { tcp::inbound(&from, stream, speaks, upstream).await }),
    }
}

/// Only for the own pod's addresses, and never for the proxy's own ports: a connection that came by
/// other ways than a redirect of this pod must not reach what only the pod may reach.
fn admit(from: &FromPeer, inbound: &Inbound) -> Result<InboundPort, Refusal> {
    let (address, port) = (from.destination.ip(), from.destination.port());
    if !inbound.addresses.contains(&address)
        && !from.worker.proxy.settings.workload.pod_ips.contains(&address)
    {
        return Err(Refusal::new(Code::NOT_OWN_ADDRESS, from.destination.to_string()));
    }
    if from.worker.is_own(from.destination) {
        return Err(Refusal::new(Code::OWN_PORT, from.destination.to_string()));
    }
    Ok(inbound.port(port))
}

/// Peers and plain clients come to the same port, so the first bytes are always looked at; only
/// where a server may speak first, silence is given an end.
async fn inbound_protocol(
    from: &FromPeer,
    stream: &mut Stream,
    port: InboundPort,
) -> io::Result<(Speaks, Option<Upstream>)> {
    let patience = Patience::of(&from.worker.proxy);
    let may_be_silent = matches!(port.protocol, PortProtocol::Detect | PortProtocol::Opaque);
    let (speaks, upstream) = if may_be_silent && port.mtls == Mtls::Permissive {
        let open = async {
            from.may_be_opaque()?;
            tcp::open_to(&from.worker, Arc::clone(&from.app)).await
        };
        let silent = &from.worker.proxy.metrics.detect_silent;
        detect::anyone_first(stream, patience, silent, open).await?
    } else {
        (detect::client_first(stream, patience).await?, None)
    };
    Ok(match speaks {
        Speaks::Mesh => (speaks, None),
        _ if port.protocol.is_http() => (speaks.as_http(), None),
        _ if port.protocol.is_opaque() => (Speaks::Opaque, upstream),
        _ => (speaks, upstream),
    })
}

/// A peer: TLS says who it is and what is spoken inside; nothing is detected there.
async fn inbound_mesh(from: FromPeer, stream: Stream, counted: Counted) -> Result<Carrying, Failure> {
    let proxy = Arc::clone(&from.worker.proxy);
    let accepted = timeout(proxy.settings.limits.handshake_timeout, proxy.tls.accept(stream)).await;
    let accepted = accepted.map_err(|_| Refusal::new(Code::PEER_REFUSED, "the handshake took too long"))?;
    let stream = accepted.map_err(|error| Refusal::new(error.peer_code(), error.to_string()))?;
    let mesh = stream.mesh().ok_or_else(|| Refusal::new(Code::INTERNAL, "mesh TLS without an identity"))?;
    let alpn = mesh.alpn;
    let from = Rc::new(from.proved(mesh.peer.clone()));
    let held = (counted, proxy.metrics.accepted(Direction::Inbound, Security::Mutual));
    match alpn {
        Alpn::Http2 => holding(held, serve::http2(Caller::Peer(from), stream)),
        Alpn::Http1 => holding(held, serve::http1(Caller::Peer(from), stream)),
        Alpn::Tcp => holding(held, async move { tcp::inbound(&from, stream, Speaks::Opaque, None).await }),
    }
}

/// Counts a connection that uses a dialled address: it stays subscribed meanwhile.
struct Used(Arc<OutboundLive>);

impl Used {
    fn count(target: &OutboundTarget) -> Used {
        target.live.connections.fetch_add(1, Ordering::Relaxed);
        Used(Arc::clone(&target.live))
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        let connections: &AtomicU32 = &self.0.connections;
        connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// An idle connection of an app is its task, the room of what serves it, and what `h1` tests. What it
    /// was before (detection, handshakes, another protocol) has its own box and is gone.
    #[test]
    fn a_connection_that_only_waits_keeps_little_room() {
        let rooms = [room(carry), room(serve::http1)];
        assert!(rooms.iter().zip([256, 512]).all(|(room, limit)| *room <= limit), "{rooms:?}");
    }
}
