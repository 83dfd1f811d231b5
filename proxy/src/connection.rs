//! The life of an accepted connection: where it leads, what it speaks, and who carries it from there
//! (`http` a request at a time, `tcp` as it is). After accept, redirected and mapped connections are one.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use gauze_model::Code;
use gauze_model::listener::{Inbound, InboundPort, Mtls, PortProtocol};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::caller::{Caller, FromApp, FromPeer};
use crate::config::Destination;
use crate::detect::{self, Patience, Speaks};
use crate::listen::Accepted;
use crate::metrics::{Direction, Security};
use crate::refusal::Refusal;
use crate::self_check::SelfCheck;
use crate::serve;
use crate::stream::Stream;
use crate::target::{OutboundLive, OutboundTarget};
use crate::tcp::{self, Upstream};
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

/// Carries a connection to its end.
pub(crate) async fn carry(worker: Rc<Worker>, accepted: Accepted) {
    let Accepted { socket, direction, source, destination, mapped, counted: _counted } = accepted;
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    if direction == Direction::Outbound && SelfCheck::is_probe(destination) {
        return worker.proxy.self_check.answer(socket).await;
    }
    let Ok(stream) = Stream::plain(socket) else { return };
    let carried = match direction {
        Direction::Outbound => {
            let from = FromApp { worker: Rc::clone(&worker), source, destination };
            outbound(from, stream).await
        }
        Direction::Inbound => {
            let app = worker.app_at(mapped.unwrap_or(destination));
            inbound(FromPeer::new(Rc::clone(&worker), source, destination, app), stream).await
        }
    };
    match carried {
        Ok(()) => {}
        Err(Failure::Broken(error)) => tracing::debug!(%error, %source, %destination, "connection broken"),
        Err(Failure::Refused(refusal)) => {
            tracing::info!(%refusal, %source, %destination, "connection refused");
            worker.proxy.metrics.refused(direction, refusal.code);
        }
    }
}

/// A connection of our app: where it leads, what it speaks, and off.
async fn outbound(from: FromApp, mut stream: Stream) -> Result<(), Failure> {
    let proxy = Arc::clone(&from.worker.proxy);
    let _open = proxy.metrics.accepted(Direction::Outbound, Security::Plain);
    if from.worker.is_own(from.destination) {
        return Err(Refusal::new(Code::LOOP, from.destination.to_string()).into());
    }
    let target = match proxy.config.outbound(from.destination).await {
        Ok(Destination::Target(target)) => target,
        Ok(Destination::PassThrough(_passing)) => return Ok(tcp::pass_through(&from, stream).await?),
        Err(refusal) => return refuse(refusal, from, stream).await,
    };
    let _used = Used::count(&target);
    match outbound_protocol(&from, &mut stream, &target).await? {
        (Speaks::Http1, _) => Ok(serve::http1(Caller::App(from), stream).await?),
        (Speaks::Http2, _) => Ok(serve::http2(Caller::App(from), stream).await?),
        (speaks, upstream) => Ok(tcp::outbound(&from, stream, &target, speaks, upstream).await?),
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
        PortProtocol::Tls => Ok((Speaks::Tls, None)),
        PortProtocol::Http | PortProtocol::Http2 | PortProtocol::Grpc => {
            let speaks = detect::client_first(stream, patience).await?;
            Ok((speaks.as_http(), None))
        }
        PortProtocol::Detect => detect::anyone_first(stream, patience, tcp::open(&from.worker, target)).await,
    }
}

/// Nobody can say where the address leads. A client that speaks HTTP is told, and may ask again.
async fn refuse(refusal: Refusal, from: FromApp, mut stream: Stream) -> Result<(), Failure> {
    let patience = Patience::of(&from.worker.proxy);
    match timeout(patience.silence, detect::client_first(&mut stream, patience)).await {
        Ok(Ok(Speaks::Http1)) => Ok(serve::http1(Caller::App(from), stream).await?),
        Ok(Ok(Speaks::Http2)) => Ok(serve::http2(Caller::App(from), stream).await?),
        _ => Err(refusal.into()),
    }
}

/// A connection to our app: whether it may come, what it speaks, and in.
async fn inbound(from: FromPeer, mut stream: Stream) -> Result<(), Failure> {
    let inbound = from.worker.proxy.config.view().inbound.clone();
    let inbound = inbound.ok_or_else(|| Refusal::new(Code::NOT_CONFIGURED, ""))?;
    let port = admit(&from, &inbound)?;
    let (speaks, upstream) = inbound_protocol(&from, &mut stream, port).await?;
    if speaks == Speaks::Mesh {
        return inbound_mesh(from, stream).await;
    }

    let _open = from.worker.proxy.metrics.accepted(Direction::Inbound, Security::Plain);
    let from = from.outside(port.mtls);
    match speaks {
        // Refused, where plaintext is refused, by an answer that says so.
        Speaks::Http1 => Ok(serve::http1(Caller::Peer(from), stream).await?),
        Speaks::Http2 => Ok(serve::http2(Caller::Peer(from), stream).await?),
        _ => {
            from.admit()?;
            Ok(tcp::inbound(&from, stream, speaks, upstream).await?)
        }
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
    let undeclared = InboundPort { protocol: PortProtocol::Detect, mtls: inbound.mtls };
    Ok(inbound.ports.get(&port).copied().unwrap_or(undeclared))
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
        let open = tcp::open_to(&from.worker, Arc::clone(&from.app));
        detect::anyone_first(stream, patience, open).await?
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
async fn inbound_mesh(from: FromPeer, stream: Stream) -> Result<(), Failure> {
    let proxy = Arc::clone(&from.worker.proxy);
    let accepted = timeout(proxy.settings.limits.handshake_timeout, proxy.tls.accept(stream)).await;
    let accepted = accepted.map_err(|_| Refusal::new(Code::PEER_REFUSED, "the handshake took too long"))?;
    let stream = accepted.map_err(|error| Refusal::new(Code::PEER_REFUSED, error.to_string()))?;
    let mesh = stream.mesh().ok_or_else(|| Refusal::new(Code::INTERNAL, "mesh TLS without an identity"))?;
    let alpn = mesh.alpn;
    let from = from.peer(mesh.peer.clone());
    let _open = proxy.metrics.accepted(Direction::Inbound, Security::Mutual);
    match alpn {
        Alpn::Http2 => Ok(serve::http2(Caller::Peer(from), stream).await?),
        Alpn::Http1 => Ok(serve::http1(Caller::Peer(from), stream).await?),
        Alpn::Tcp => Ok(tcp::inbound(&from, stream, Speaks::Opaque, None).await?),
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
