//! What operators and scrapers ask, over HTTP/1.1. The Unix socket answers everything, to our own user only;
//! the TCP port answers `/metrics`, `/live` and `/ready` to anybody.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, info, warn};

use crate::authority::Authority;
use crate::cluster::replicas::{Replicas, Word};
use crate::logging::Logging;
use crate::metrics::{self, Metrics};
use crate::push::Push;
use crate::readiness::Readiness;

pub mod views; // what it answers, as JSON

/// Connections open at once, on socket and port together.
const CONNECTIONS_MAX: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long accepting rests when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers operators and scrapers.
#[derive(Clone)]
pub struct Admin {
    pub push: Arc<Push>,
    pub metrics: Arc<Metrics>,
    /// Known as soon as there is a root.
    pub authority: Arc<OnceLock<Arc<Authority>>>,
    pub logging: Logging,
    pub readiness: Arc<Readiness>,
    /// All replicas, in a cluster, as soon as they can be asked; a directory has one.
    pub replicas: Arc<OnceLock<Replicas>>,
}

/// The operator's socket; its file goes when this is dropped.
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Who may connect: the user that runs this process.
    owner: u32,
}

/// Where a request came in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Socket,
    Port,
}

type Answer = Response<Full<Bytes>>;

impl AdminSocket {
    /// Binds the socket, mode 0600, in place of one that a dead process left.
    ///
    /// # Errors
    /// Another control plane answers there, or the path cannot be used.
    pub fn bind(path: PathBuf) -> anyhow::Result<AdminSocket> {
        anyhow::ensure!(
            std::os::unix::net::UnixStream::connect(&path).is_err(),
            "another control plane serves {}; stop it, or give this one an --admin-socket of its own",
            path.display()
        );
        // Under a name that nobody knows until the mode is right.
        let draft = path.with_extension(format!("{}.draft", std::process::id()));
        let _ = fs::remove_file(&draft);
        let bound = UnixListener::bind(&draft);
        let listener = bound.with_context(|| format!("cannot bind the admin socket {}", path.display()))?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
        let owner = fs::metadata(&draft)?.uid();
        fs::rename(&draft, &path)?;
        Ok(AdminSocket { listener, path, owner })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Our own user and root, who could read our memory anyway.
    fn admits(&self, stream: &UnixStream) -> bool {
        stream.peer_cred().is_ok_and(|peer| peer.uid() == self.owner || peer.uid() == 0)
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Admin {
    /// Serves socket and port for ever.
    pub async fn serve(self, socket: AdminSocket, port: TcpListener) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let admin = self.clone();
            let accepted = tokio::select! {
                accepted = socket.listener.accept() => accepted.map(|(stream, _)| match socket.admits(&stream) {
                    true => drop(tokio::spawn(admin.carry(TokioIo::new(stream), Door::Socket, permit))),
                    false => warn!("refused another user on the admin socket"),
                }),
                accepted = port.accept() => accepted.map(|(stream, _)| {
                    drop(tokio::spawn(admin.carry(TokioIo::new(stream), Door::Port, permit)));
                }),
            };
            if let Err(error) = accepted {
                warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    async fn carry<S>(self, stream: S, door: Door, _permit: OwnedSemaphorePermit)
    where
        S: Read + Write + Unpin,
    {
        let service = service_fn(move |request| {
            let admin = self.clone();
            async move { Ok::<_, Infallible>(admin.answer(door, request).await) }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        if let Err(error) = server.serve_connection(stream, service).await {
            debug!(%error, "an admin connection ended");
        }
    }

    async fn answer(self, door: Door, request: Request<Incoming>) -> Answer {
        match (door, request.method(), request.uri().path()) {
            (_, &Method::GET, "/live") => text(StatusCode::OK, "live"),
            (_, &Method::GET, "/ready") => self.ready(),
            (_, &Method::GET, "/metrics") => of(StatusCode::OK, metrics::CONTENT_TYPE, self.metrics.encode()),
            (Door::Socket, &Method::GET, "/about") => self.about(),
            (Door::Socket, &Method::GET, "/objects") => self.objects().await,
            (Door::Socket, &Method::GET, "/world") => self.view(views::world).await,
            (Door::Socket, &Method::GET, "/proxies") => self.view(views::proxies).await,
            (Door::Socket, &Method::POST, "/logging") => self.change_level(request.uri().query()),
            (Door::Socket, ..) => text(
                StatusCode::NOT_FOUND,
                "GET /about /objects /world /proxies /ready /live /metrics, POST /logging?level=LEVEL",
            ),
            (Door::Port, ..) => text(StatusCode::NOT_FOUND, "GET /ready /live /metrics"),
        }
    }

    fn ready(&self) -> Answer {
        match self.readiness.explanation() {
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
            None => text(StatusCode::OK, "ready"),
        }
    }

    fn about(&self) -> Answer {
        let own_ends = self.metrics.certificate_expiry.get();
        let about = views::about(self.push.world().settings(), self.authority.get(), own_ends);
        of(StatusCode::OK, "application/json", about.to_string())
    }

    /// What the leader says, whichever replica is asked.
    async fn objects(&self) -> Answer {
        let word = match self.replicas.get() {
            Some(replicas) => replicas.word().await,
            None => Word::Ours(self.push.heard()),
        };
        match word {
            Word::Ours(heard) => self.view(move |push| views::objects(push, &heard)).await,
            Word::Leaders(json) => of(StatusCode::OK, "application/json", json),
        }
    }

    /// Computes a view beside the streams, which must not wait for it.
    async fn view(&self, view: impl FnOnce(&Push) -> Value + Send + 'static) -> Answer {
        let push = Arc::clone(&self.push);
        let json = tokio::task::spawn_blocking(move || serde_json::to_vec(&view(&push)));
        match json.await {
            Ok(Ok(json)) => of(StatusCode::OK, "application/json", json),
            Ok(Err(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    fn change_level(&self, query: Option<&str>) -> Answer {
        let Some(level) = query.and_then(|query| query.strip_prefix("level=")) else {
            return text(StatusCode::BAD_REQUEST, "POST /logging?level=LEVEL");
        };
        match self.logging.change(level) {
            Ok(()) => {
                info!(level, "the log level was changed");
                text(StatusCode::OK, level.to_owned())
            }
            Err(error) => text(StatusCode::BAD_REQUEST, error.to_string()),
        }
    }
}

fn text(status: StatusCode, text: impl Into<String>) -> Answer {
    of(status, "text/plain; charset=utf-8", text.into() + "\n")
}

fn of(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    answer
}
