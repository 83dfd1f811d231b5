//! Asks the admin endpoints of sidecars and control planes: one HTTP/1.1 request over TCP or a Unix socket,
//! or, in a cluster, their own programs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::cluster::Exec;
use crate::exit::Failure;

/// Where something can be asked.
#[derive(Clone)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    Socket(PathBuf),
    /// A program in a pod of a cluster.
    Pod(Box<Exec>),
}

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read: the objects of a large directory fit.
pub(crate) const ANSWER_MAX: usize = 64 * 1024 * 1024;

impl Endpoint {
    pub(crate) fn socket(path: &Path) -> Endpoint {
        Endpoint::Socket(path.to_owned())
    }

    /// Fetches `path` as text.
    ///
    /// # Errors
    /// Nobody listens ([`Failure::Unreachable`]), no answer in time ([`Failure::TimedOut`]), or a status other than 2xx.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<String> {
        self.ask(Method::GET, path).await
    }

    /// Sends an order, for example `POST /logging?level=debug`.
    ///
    /// # Errors
    /// As [`Endpoint::get`].
    pub(crate) async fn post(&self, path: &str) -> anyhow::Result<String> {
        self.ask(Method::POST, path).await
    }

    /// Fetches `path` as JSON.
    ///
    /// # Errors
    /// As [`Endpoint::get`], and if the answer is no JSON.
    pub(crate) async fn get_json(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let text = self.get(path).await?;
        serde_json::from_str(&text).with_context(|| format!("the answer of {path} is no JSON"))
    }

    async fn ask(&self, method: Method, path: &str) -> anyhow::Result<String> {
        match self {
            Endpoint::Tcp(address) => self.over(TcpStream::connect(address), method, path).await,
            Endpoint::Socket(socket) => self.over(UnixStream::connect(socket), method, path).await,
            // It has a limit of its own, since API server and kubelet stand between.
            Endpoint::Pod(exec) => Ok(exec.ask(path, method == Method::POST).await?),
        }
    }

    /// One request over the connection that `connect` makes.
    async fn over<S>(
        &self,
        connect: impl Future<Output = std::io::Result<S>>,
        method: Method,
        path: &str,
    ) -> anyhow::Result<String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answer = async { exchange(connect.await?, method, path).await };
        let Ok(answer) = tokio::time::timeout(ANSWER_TIMEOUT, answer).await else {
            let text = format!("{self} does not answer in {} s", ANSWER_TIMEOUT.as_secs());
            return Err(Failure::TimedOut(text).into());
        };
        let (status, text) = answer.map_err(|error| self.unreachable(error))?;
        if !status.is_success() {
            bail!("{self} answers {path} with {status}: {}", text.trim());
        }
        Ok(text)
    }

    /// Nobody there is a failure of its own; everything else stays what it is.
    fn unreachable(&self, error: anyhow::Error) -> anyhow::Error {
        match error.downcast_ref::<std::io::Error>() {
            Some(io) => Failure::Unreachable(format!("cannot reach {self}: {}", io.kind())).into(),
            None => error.context(format!("cannot talk to {self}")),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Tcp(address) => write!(f, "{address}"),
            Endpoint::Socket(path) => write!(f, "{}", path.display()),
            Endpoint::Pod(exec) => exec.fmt(f),
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: Method,
    path: &str,
) -> anyhow::Result<(StatusCode, String)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(anyhow::Error::from_boxed)?;
    connection.abort();
    Ok((head.status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}
