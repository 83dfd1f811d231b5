//! What people, probes and `gauze proxy` ask of a running proxy: HTTP/1.1 behind three doors. The pod's
//! port tells the cluster how it is, the loopback port also what it knows; both change nothing, for the
//! app shares them. Orders are taken over a Unix socket only, from our own user or root.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::Proxy;
use crate::drain::Stage;
use crate::probe::{self, Probes, Said};
use crate::settings::InterceptionSettings;
use crate::tls::Credentials;
use crate::trace::LogLevel;

mod dump; // what a proxy holds, as JSON

/// The doors, open.
pub struct Doors {
    loopback: TcpListener,
    pod: TcpListener,
    orders: Option<OrderSocket>,
}

/// The Unix socket, and whose it is.
struct OrderSocket {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

/// What stands behind the doors.
pub struct Admin {
    proxy: Arc<Proxy>,
    credentials: watch::Receiver<Option<Arc<Credentials>>>,
    log_level: LogLevel,
    probes: Probes,
    quit: Notify,
}

/// Which door a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Loopback,
    Pod,
    Orders,
}

/// A listener that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({flag}): {problem}")]
pub struct ListenError {
    pub address: String,
    pub flag: &'static str,
    pub problem: io::Error,
}

type Answer = Response<Full<Bytes>>;

/// Connections at once through one door; a further one takes the place of the oldest.
const CONNECTIONS_MAX: usize = 64;

/// A request must arrive within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

impl Doors {
    /// Binds all of them.
    ///
    /// # Errors
    /// The first that cannot be bound.
    pub async fn open(settings: &InterceptionSettings) -> Result<Doors, ListenError> {
        Ok(Doors {
            loopback: listen(settings.admin_listen, "--admin-listen").await?,
            pod: listen_in_both_families(settings.metrics_listen).await?,
            orders: settings.admin_socket.as_deref().map(OrderSocket::open).transpose()?,
        })
    }

    pub fn loopback_address(&self) -> Option<SocketAddr> {
        self.loopback.local_addr().ok()
    }

    pub fn pod_address(&self) -> Option<SocketAddr> {
        self.pod.local_addr().ok()
    }

    pub fn socket_path(&self) -> Option<&Path> {
        self.orders.as_ref().map(|orders| orders.path.as_path())
    }
}

async fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, ListenError> {
    let failed = |problem| ListenError { address: address.to_string(), flag, problem };
    TcpListener::bind(address).await.map_err(failed)
}

/// `[::]` takes IPv4 as well; a pod without IPv6 has only that.
async fn listen_in_both_families(address: SocketAddr) -> Result<TcpListener, ListenError> {
    const FLAG: &str = "--metrics-listen";
    match listen(address, FLAG).await {
        Err(_) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()), FLAG).await
        }
        bound => bound,
    }
}

impl OrderSocket {
    /// Takes the place of a socket that an earlier process left.
    fn open(path: &Path) -> Result<OrderSocket, ListenError> {
        let failed =
            |problem| ListenError { address: path.display().to_string(), flag: "--admin-socket", problem };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let owner = std::fs::metadata(path).map_err(failed)?.uid();
        Ok(OrderSocket { listener, path: path.to_owned(), owner })
    }

    fn may_order(&self, peer: &UnixStream) -> bool {
        peer.peer_cred().is_ok_and(|peer| peer.uid() == self.owner || peer.uid() == 0)
    }
}

impl Drop for OrderSocket {
    fn drop(&mut self) {
        // Whoever removed it before us did the same.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Admin {
    pub fn new(
        proxy: Arc<Proxy>,
        credentials: watch::Receiver<Option<Arc<Credentials>>>,
        log_level: LogLevel,
    ) -> Admin {
        let probes = Probes::new(&proxy.settings, proxy.metrics.clone());
        Admin { proxy, credentials, log_level, probes, quit: Notify::new() }
    }

    /// Until `/quitquitquit` is ordered.
    pub async fn told_to_quit(&self) {
        self.quit.notified().await;
    }

    /// Serves all doors for as long as the process runs.
    pub async fn serve(self: &Arc<Self>, doors: &Doors) {
        tokio::join!(
            self.serve_tcp(&doors.loopback, Door::Loopback),
            self.serve_tcp(&doors.pod, Door::Pod),
            self.serve_orders(doors.orders.as_ref()),
        );
    }

    async fn serve_tcp(self: &Arc<Self>, listener: &TcpListener, door: Door) {
        self.serve_door(door, async || listener.accept().await.map(|(stream, _)| Some::<TcpStream>(stream)))
            .await;
    }

    async fn serve_orders(self: &Arc<Self>, socket: Option<&OrderSocket>) {
        let Some(socket) = socket else { return };
        let accept = async || {
            let (stream, _) = socket.listener.accept().await?;
            Ok(socket.may_order(&stream).then_some(stream))
        };
        self.serve_door(Door::Orders, accept).await;
    }

    /// `accept` yields `None` for a peer that is turned away.
    async fn serve_door<S>(self: &Arc<Self>, door: Door, accept: impl AsyncFn() -> io::Result<Option<S>>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut connections = JoinSet::new();
        let mut by_age = VecDeque::new();
        loop {
            while connections.try_join_next().is_some() {}
            by_age.retain(|connection: &AbortHandle| !connection.is_finished());
            match accept().await {
                Ok(Some(stream)) => {
                    let admin = self.clone();
                    by_age.push_back(
                        connections.spawn(async move { admin.serve_connection(stream, door).await }),
                    );
                }
                Ok(None) => tracing::warn!("an order from another user is refused"),
                Err(error) => {
                    tracing::warn!(%error, ?door, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            // The oldest goes, not the newest: who opens connections and says nothing keeps nobody out, least
            // of all kubelet, which would take that for a dead app.
            if by_age.len() > CONNECTIONS_MAX
                && let Some(oldest) = by_age.pop_front()
            {
                oldest.abort();
                self.proxy.metrics.limit_reached("admin-connections");
            }
        }
    }

    async fn serve_connection(&self, stream: impl AsyncRead + AsyncWrite + Unpin, door: Door) {
        let service = service_fn(async |request: Request<Incoming>| {
            let (head, _) = request.into_parts();
            let path = head.uri.path();
            match (door, &head.method) {
                (Door::Pod, &Method::GET) if path.starts_with("/probe/") || path.starts_with("/hook/") => {
                    self.probe(path).await
                }
                (door, method) => Ok(self.answer(door, method, path, head.uri.query().unwrap_or(""))),
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        // A peer that leaves early has its reasons.
        let _ = connection.await;
    }

    fn answer(&self, door: Door, method: &Method, path: &str, query: &str) -> Answer {
        match (door, method, path) {
            (_, &Method::GET, "/live") => text(StatusCode::OK, "live\n"),
            (_, &Method::GET, "/ready") => self.ready(),
            (_, &Method::GET, "/metrics") => self.metrics(),
            (Door::Loopback | Door::Orders, &Method::GET, "/config_dump") => json(&dump::config(&self.proxy)),
            (Door::Loopback | Door::Orders, &Method::GET, "/clusters") => json(&dump::clusters(&self.proxy)),
            (Door::Loopback | Door::Orders, &Method::GET, "/certs") => json(&self.certificates()),
            (Door::Orders, &Method::POST, "/drain") => self.order_drain(),
            (Door::Orders, &Method::POST, "/logging") => self.set_log_level(query),
            (Door::Orders, &Method::POST, "/quitquitquit") => self.order_quit(),
            (Door::Loopback | Door::Pod, _, "/drain" | "/logging" | "/quitquitquit") => {
                text(StatusCode::FORBIDDEN, "orders are taken over the Unix socket only (--admin-socket)\n")
            }
            (_, _, "/drain" | "/logging" | "/quitquitquit") => {
                text(StatusCode::METHOD_NOT_ALLOWED, "an order is a POST\n")
            }
            _ => text(StatusCode::NOT_FOUND, PAGES),
        }
    }

    /// # Errors
    /// The connection is to be closed without an answer.
    async fn probe(&self, path: &str) -> Result<Answer, probe::Failure> {
        let mut answer = match self.probes.answer(path).await {
            Said::Status(status, why) => text(status, why + "\n"),
            Said::Unknown => text(StatusCode::NOT_FOUND, PAGES),
            Said::Nothing(failure) => return Err(failure),
        };
        // On a connection that it has used before, kubelet would ask twice where one answer is missing.
        answer.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        Ok(answer)
    }

    fn ready(&self) -> Answer {
        let mut reasons: Vec<String> =
            self.proxy.not_ready_because().into_iter().map(str::to_owned).collect();
        if reasons.is_empty() {
            return text(StatusCode::OK, "ready\n");
        }
        reasons.extend(self.proxy.control_plane.trouble().map(|trouble| format!("last problem: {trouble}")));
        text(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
    }

    fn metrics(&self) -> Answer {
        self.proxy.metrics.ready.set(self.proxy.not_ready_because().is_empty().into());
        self.proxy.metrics.draining.set((self.proxy.drain.stage() > Stage::Serving).into());
        let mut answer = Response::new(Full::from(self.proxy.metrics.text()));
        let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        answer
    }

    fn certificates(&self) -> serde_json::Value {
        dump::certificates(&self.proxy, self.credentials.borrow().as_deref())
    }

    fn set_log_level(&self, query: &str) -> Answer {
        // All characters of a filter may stand in a query as they are: an escape would be taken for a module.
        let Some(level) = query.strip_prefix("level=").filter(|level| !level.contains('%')) else {
            return text(
                StatusCode::BAD_REQUEST,
                "POST /logging?level=debug, or =gauze_proxy=debug, unescaped\n",
            );
        };
        match self.log_level.set(level) {
            Ok(()) => {
                tracing::info!(level, "log level changed");
                text(StatusCode::OK, format!("{level}\n"))
            }
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }

    /// Returns at once; a second order changes nothing.
    fn order_drain(&self) -> Answer {
        let now = match (self.proxy.drain.advance(Stage::Draining), self.proxy.drain.stage()) {
            (true, _) => {
                tracing::info!("draining, as ordered: clients are told to go elsewhere, and still served");
                "draining\n"
            }
            (false, Stage::Ending) => "ending already\n",
            (false, _) => "draining already\n",
        };
        text(StatusCode::OK, now)
    }

    fn order_quit(&self) -> Answer {
        self.quit.notify_one();
        text(StatusCode::OK, "draining, then ending\n")
    }
}

const PAGES: &str = "pages: /ready /live /metrics; on the loopback also /config_dump /clusters /certs; \
orders: POST /drain, POST /logging?level=LEVEL, POST /quitquitquit\n";

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::from(body.into()));
    *answer.status_mut() = status;
    answer
}

fn json(value: &serde_json::Value) -> Answer {
    let mut answer = text(StatusCode::OK, format!("{value:#}\n"));
    let kind = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin() -> Admin {
        let proxy = Arc::new(Proxy::for_tests("--mode none"));
        let credentials = watch::channel(None).1;
        Admin::new(proxy, credentials, crate::trace::start("off").expect("a filter"))
    }

    #[test]
    fn each_door_shows_its_pages_and_only_the_socket_takes_orders() {
        let admin = admin();
        let (get, post) = (Method::GET, Method::POST);
        for (door, method, target, status) in [
            (Door::Pod, &get, "/live", 200),
            (Door::Pod, &get, "/ready", 503),
            (Door::Pod, &get, "/metrics", 200),
            (Door::Pod, &get, "/config_dump", 404),
            (Door::Pod, &get, "/certs", 404),
            (Door::Pod, &post, "/quitquitquit", 403),
            (Door::Pod, &post, "/drain", 403),
            (Door::Loopback, &get, "/config_dump", 200),
            (Door::Loopback, &get, "/clusters", 200),
            (Door::Loopback, &get, "/certs", 200),
            (Door::Loopback, &post, "/logging?level=debug", 403),
            (Door::Loopback, &post, "/quitquitquit", 403),
            (Door::Loopback, &post, "/drain", 403),
            (Door::Loopback, &post, "/live", 404),
            (Door::Orders, &get, "/certs", 200),
            (Door::Orders, &get, "/quitquitquit", 405),
            (Door::Orders, &get, "/drain", 405),
            (Door::Orders, &post, "/logging?level=gauze_proxy=loud", 400),
            (Door::Orders, &post, "/logging?level=gauze_proxy%3Ddebug", 400),
            (Door::Orders, &post, "/logging", 400),
            (Door::Orders, &post, "/logging?level=loud", 400),
            (Door::Orders, &post, "/drain", 200),
            (Door::Orders, &post, "/drain", 200),
            (Door::Orders, &post, "/quitquitquit", 200),
        ] {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let answer = admin.answer(door, method, path, query);
            assert_eq!(answer.status(), status, "{door:?} {method} {target}");
        }
    }

    #[test]
    fn an_order_to_quit_is_heard_even_if_nobody_listened_yet() {
        let admin = admin();
        admin.answer(Door::Orders, &Method::POST, "/quitquitquit", "");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(admin.told_to_quit());
    }

    #[test]
    fn the_socket_is_ours_alone_and_gone_in_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        runtime.block_on(async {
            drop(UnixListener::bind(&path).expect("an earlier process left it"));
            let socket = OrderSocket::open(&path).expect("a socket");
            let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let client = UnixStream::connect(&path).await.expect("connected");
            let (stream, _) = socket.listener.accept().await.expect("accepted");
            assert!(socket.may_order(&stream), "we are its owner");
            let other = OrderSocket {
                owner: socket.owner + 1,
                listener: UnixListener::bind(directory.path().join("other")).expect("a socket"),
                path: directory.path().join("other"),
            };
            assert_eq!(
                other.may_order(&stream),
                socket.owner == 0,
                "only root may order another user's proxy"
            );
            drop((client, socket));
        });
        assert!(!path.exists());
    }

    #[test]
    fn who_opens_connections_and_says_nothing_keeps_nobody_out() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let admin = Arc::new(admin());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound");
            let ask = async {
                let mut silent = Vec::new();
                for _ in 0..2 * CONNECTIONS_MAX {
                    silent.push(TcpStream::connect(address).await.expect("connected"));
                }
                let mut stream = TcpStream::connect(address).await.expect("connected");
                stream.write_all(b"GET /live HTTP/1.0\r\n\r\n").await.expect("asked");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.expect("answered");
                answer
            };
            let answer = tokio::select! {
                answer = ask => answer,
                () = admin.serve_tcp(&listener, Door::Pod) => unreachable!("a door stays open"),
            };
            assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
        });
    }
}
