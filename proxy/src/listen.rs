//! Sockets that accept, and where each accepted connection was meant to go. One acceptor hands
//! connections to the workers in turn: SO_REUSEPORT would not balance them, since few of them are long.
//! What becomes of a connection is decided in `connection`.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use gauze_model::Code;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::mpsc;

use crate::Proxy;
use crate::drain::Stage;
use crate::metrics::Direction;
use crate::settings::{InterceptionSettings, Mapping, Mode};

/// All sockets of the data path, bound before anything is said or carried.
#[derive(Debug)]
pub struct Listeners {
    listeners: Vec<Listener>,
}

#[derive(Debug)]
struct Listener {
    socket: std::net::TcpListener,
    address: SocketAddr,
    direction: Direction,
    /// Where its connections lead in mode none; `None`: the kernel knows.
    mapping: Option<Mapping>,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: TcpStream,
    pub(crate) direction: Direction,
    pub(crate) source: SocketAddr,
    /// The address that was dialled.
    pub(crate) destination: SocketAddr,
    /// Where the app listens in mode none.
    pub(crate) mapped: Option<SocketAddr>,
    pub(crate) counted: Counted,
}

/// Counts a connection against `--connections-max` while it lives.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

/// A socket that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({what}): {error}")]
pub struct BindError {
    pub address: SocketAddr,
    /// The flag that asks for it.
    pub what: &'static str,
    pub error: io::Error,
}

/// Connections that the kernel completes for us and that wait to be accepted.
const BACKLOG: i32 = 1024;

/// After an error that is not one connection's (usually: no free file descriptor), a breath.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Listeners {
    /// Binds what the settings ask for.
    ///
    /// # Errors
    /// An address is taken or is not ours.
    pub fn bind(settings: &InterceptionSettings) -> Result<Listeners, BindError> {
        let mut listeners = Vec::new();
        match settings.mode {
            Mode::Transparent => {
                for (addresses, direction, what) in [
                    (&settings.outbound_listen, Direction::Outbound, "--outbound-listen"),
                    (&settings.inbound_listen, Direction::Inbound, "--inbound-listen"),
                ] {
                    for address in addresses {
                        listeners.extend(Listener::bind_where_possible(*address, direction, what)?);
                    }
                }
            }
            Mode::None => {
                for (mappings, direction, what) in [
                    (&settings.outbound, Direction::Outbound, "--outbound"),
                    (&settings.inbound, Direction::Inbound, "--inbound"),
                ] {
                    for mapping in mappings {
                        listeners.push(Listener::bind(mapping.listen, direction, Some(*mapping), what)?);
                    }
                }
            }
        }
        Ok(Listeners { listeners })
    }

    /// The addresses bound, of one direction; with port 0 the ones that the kernel chose.
    pub fn addresses(&self, direction: Direction) -> Vec<SocketAddr> {
        let ours = self.listeners.iter().filter(|listener| listener.direction == direction);
        ours.map(|listener| listener.address).collect()
    }

    /// Accepts and hands out until the last stage; then the sockets are closed.
    pub(crate) async fn accept(self, proxy: Arc<Proxy>, workers: Vec<mpsc::Sender<Accepted>>) {
        let open = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
        let listeners = self.listeners.into_iter();
        let mut accepting: FuturesUnordered<_> = listeners
            .map(|listener| {
                let open = &open[usize::from(listener.direction == Direction::Inbound)];
                listener.accept(&proxy, &workers, open)
            })
            .collect();
        tokio::select! {
            () = proxy.drain.reached(Stage::Ending) => {}
            Some(error) = accepting.next() => tracing::error!(%error, "a listener ended"),
        }
    }
}

impl Listener {
    fn bind(
        address: SocketAddr,
        direction: Direction,
        mapping: Option<Mapping>,
        what: &'static str,
    ) -> Result<Listener, BindError> {
        let (socket, address) = listening(address).map_err(|error| BindError { address, what, error })?;
        // With port 0 the pod's address is the one that the kernel chose.
        let mapping = mapping.map(|mapping| Mapping { listen: address, ..mapping });
        Ok(Listener { socket, address, direction, mapping })
    }

    /// An IPv6 address in a pod without IPv6 is no error: nothing can come from there.
    fn bind_where_possible(
        address: SocketAddr,
        direction: Direction,
        what: &'static str,
    ) -> Result<Option<Listener>, BindError> {
        match Listener::bind(address, direction, None, what) {
            Err(BindError { error, .. }) if address.is_ipv6() && is_family_missing(&error) => {
                tracing::info!(%address, "this pod has no IPv6: not listening there");
                Ok(None)
            }
            bound => bound.map(Some),
        }
    }

    async fn accept(
        self,
        proxy: &Arc<Proxy>,
        workers: &[mpsc::Sender<Accepted>],
        open: &Arc<AtomicUsize>,
    ) -> io::Error {
        let socket = match self.socket.try_clone().and_then(tokio::net::TcpListener::from_std) {
            Ok(socket) => socket,
            Err(error) => return error,
        };
        let own_ports = own_ports(&proxy.settings.interception);
        for turn in (0..workers.len()).cycle() {
            let (accepted, source) = match socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, address = %self.address, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let refused = |code: Code| {
                tracing::debug!(%code, %source, listener = %self.address, "connection refused");
                proxy.metrics.refused(self.direction, code);
            };
            let Some(counted) = Counted::one_more(open, proxy.settings.limits.connections_max) else {
                proxy.metrics.limit_reached("connections-max");
                refused(Code::TOO_MANY_CLIENTS);
                continue;
            };
            let destination = match self.destination(&accepted, &own_ports) {
                Ok(destination) => destination,
                Err(code) => {
                    refused(code);
                    continue;
                }
            };
            let Ok(socket) = accepted.into_std() else { continue };
            let accepted = Accepted {
                socket,
                direction: self.direction,
                source,
                destination,
                mapped: self.mapping.map(|mapping| mapping.destination),
                counted,
            };
            if workers[turn].send(accepted).await.is_err() {
                return io::Error::other("its worker is gone");
            }
        }
        io::Error::other("there are no workers")
    }

    /// The address that the client dialled.
    fn destination(&self, socket: &tokio::net::TcpStream, own_ports: &[u16]) -> Result<SocketAddr, Code> {
        let destination = match (self.mapping, self.direction) {
            (Some(mapping), Direction::Outbound) => return Ok(mapping.destination),
            (Some(mapping), Direction::Inbound) => return Ok(mapping.listen),
            (None, _) => original_destination(socket).ok_or(Code::DESTINATION_UNKNOWN)?,
        };
        // A connection that was dialled at our own port was not redirected: carrying it would loop.
        if Some(destination) == socket.local_addr().ok() {
            return Err(Code::LOOP);
        }
        if self.direction == Direction::Inbound && own_ports.contains(&destination.port()) {
            return Err(Code::OWN_PORT);
        }
        Ok(destination)
    }
}

/// What the connection was dialled to before it was redirected here; `None`: it was not redirected, or
/// the kernel cannot tell.
fn original_destination(socket: &tokio::net::TcpStream) -> Option<SocketAddr> {
    let local = socket.local_addr().ok()?;
    let reference = SockRef::from(socket);
    let original = if local.is_ipv4() { reference.original_dst_v4() } else { reference.original_dst_v6() };
    original.ok()?.as_socket()
}

/// Ports of the proxy itself, which inbound never leads to.
pub(crate) fn own_ports(settings: &InterceptionSettings) -> Vec<u16> {
    let ours = settings.outbound_listen.iter().chain(&settings.inbound_listen);
    let ours = ours.chain([&settings.admin_listen, &settings.metrics_listen]).map(SocketAddr::port);
    let mut ports: Vec<u16> = ours.chain(PORTS).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The ports of every sidecar, whatever this one was told to use: admin, outbound, inbound, metrics.
const PORTS: [u16; 4] = [15000, 15001, 15006, 15020];

/// A socket that listens, of one family only: the other one has its own.
fn listening(address: SocketAddr) -> io::Result<(std::net::TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let socket = std::net::TcpListener::from(socket);
    let address = socket.local_addr()?;
    Ok((socket, address))
}

fn is_family_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT))
}

impl Counted {
    fn one_more(open: &Arc<AtomicUsize>, limit: usize) -> Option<Counted> {
        let one_more = |count: usize| (count < limit).then_some(count + 1);
        open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Counted(Arc::clone(open)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
