//! An app as a process of its own, to be killed and started again. Its ledger is a file, so that it outlives the
//! app: what was written when the app was killed is there. The process is this test binary, run once more.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::eventually::{PATIENCE, eventually, within};
use super::faults::listen;
use super::mesh::free_address;

/// How an app comes to its end, or is no longer there for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// SIGKILL: the kernel closes its sockets, whatever it was doing.
    Killed,
    /// SIGTERM: it closes its listener, answers what it has begun, and exits.
    Terminated,
    /// It closes its listener and its connections when they are idle, and lives on.
    Deaf,
}

/// How far requests came, by id: how often their heads were read, how often they were executed.
pub(crate) type Came = BTreeMap<String, (usize, usize)>;

/// An app that can be killed; ends when dropped.
pub(crate) struct Mortal {
    pub address: SocketAddr,
    folder: TempDir,
    child: Child,
}

const ADDRESS: &str = "GAUZE_TEST_MORTAL";
const LEDGER: &str = "GAUZE_TEST_MORTAL_LEDGER";

impl Mortal {
    pub(crate) async fn start() -> Mortal {
        let (address, folder) = (free_address(), tempfile::tempdir().expect("a temporary folder"));
        let child = spawn(address, &ledger_file(folder.path()));
        let app = Mortal { address, folder, child };
        app.accepts().await;
        app
    }

    /// Waits until it accepts connections.
    async fn accepts(&self) {
        eventually(&format!("the app at {} accepts", self.address), async || {
            TcpStream::connect(self.address).await.map(drop)
        })
        .await;
    }

    /// Ends it so, and returns when it accepts nothing more.
    pub(crate) async fn end(&mut self, how: End) {
        match how {
            End::Killed => {
                self.child.kill().expect("it runs");
                self.child.wait().expect("it was killed");
            }
            End::Terminated => {
                self.signal("-TERM");
                let child = &mut self.child;
                within(PATIENCE, "the app ends", async || child.try_wait().expect("asked").ok_or("running"))
                    .await;
            }
            End::Deaf => {
                self.signal("-USR1");
                eventually("the app's listener is closed", async || {
                    match TcpStream::connect(self.address).await {
                        Err(_) => Ok(()),
                        Ok(_) => Err("it accepts"),
                    }
                })
                .await;
            }
        }
    }

    /// Makes it what it was before it ended so.
    pub(crate) async fn revive(&mut self, after: End) {
        match after {
            End::Killed | End::Terminated => {
                self.child = spawn(self.address, &ledger_file(self.folder.path()));
            }
            End::Deaf => self.signal("-USR2"),
        }
        self.accepts().await;
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the app is no longer there");
    }

    /// What all its lives received.
    pub(crate) fn came(&self) -> Came {
        let text = fs::read_to_string(ledger_file(self.folder.path())).unwrap_or_default();
        let mut came = Came::new();
        for line in text.lines() {
            let (what, id) = line.split_once(' ').expect("a line of the ledger");
            let times = came.entry(id.to_owned()).or_default();
            match what {
                "arrived" => times.0 += 1,
                _ => times.1 += 1,
            }
        }
        came
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ledger_file(folder: &Path) -> PathBuf {
    folder.join("ledger")
}

fn spawn(address: SocketAddr, ledger: &Path) -> Child {
    Command::new(std::env::current_exe().expect("a test has an executable"))
        .args(["harness::mortal::as_a_process", "--exact", "--ignored", "--nocapture"])
        .env(ADDRESS, address.to_string())
        .env(LEDGER, ledger)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the test binary runs once more")
}

/// Not a test, but the other process.
#[test]
#[ignore = "the process of an app that other tests kill"]
fn as_a_process() {
    let (Ok(address), Ok(ledger)) = (std::env::var(ADDRESS), std::env::var(LEDGER)) else { return };
    // It does not outlive the test, however that ends.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    let ledger = File::options().create(true).append(true).open(ledger).expect("the ledger");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(live(address.parse().expect("an address"), Arc::new(ledger)));
}

async fn live(address: SocketAddr, ledger: Arc<File>) {
    let on = |kind| signal(kind).expect("a signal of Unix");
    let mut ended = on(SignalKind::terminate());
    let mut told = [on(SignalKind::user_defined1()), on(SignalKind::user_defined2())];
    loop {
        let open = GracefulShutdown::new();
        let listener = listen(address).await;
        let is_over = tokio::select! {
            () = accept(listener, &ledger, &open) => true,
            _ = ended.recv() => true,
            _ = told[0].recv() => false,
        };
        if is_over {
            return open.shutdown().await;
        }
        deaf(open, &mut told[1]).await;
    }
}

/// Without listener, its connections ending one after another, until it is told to listen.
async fn deaf(open: GracefulShutdown, listen: &mut Signal) {
    let ending = tokio::spawn(open.shutdown());
    listen.recv().await;
    drop(ending); // it goes on
}

async fn accept(listener: TcpListener, ledger: &Arc<File>, open: &GracefulShutdown) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let ledger = ledger.clone();
        let service = service_fn(move |request| answer(request, ledger.clone()));
        let server = auto::Builder::new(TokioExecutor::new());
        let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
        tokio::spawn(open.watch(connection));
    }
}

/// Echoes the body; each step is in the ledger before the next begins.
async fn answer(
    request: Request<Incoming>,
    ledger: Arc<File>,
) -> Result<Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>, Infallible> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let (id, is_grpc) = (header("x-id").to_owned(), header("content-type") == "application/grpc");
    note(&ledger, "arrived", &id);
    let body = request.into_body().collect().await.map(|body| body.to_bytes());
    let Ok(body) = body else { return Ok(Response::new(Full::default().boxed())) };
    note(&ledger, "executed", &id);
    if !is_grpc {
        return Ok(Response::new(Full::new(body).boxed()));
    }
    let trailers =
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let mut response =
        Response::new(Full::new(body).with_trailers(async move { Some(Ok(trailers)) }).boxed());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

fn note(mut ledger: &File, what: &str, id: &str) {
    // One write of one line: it is there whole, or not at all.
    ledger.write_all(format!("{what} {id}\n").as_bytes()).expect("the ledger can be written");
}
