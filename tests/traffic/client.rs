//! Clients over one connection each: HTTP/1.1, HTTP/2, gRPC and lines, whole answers in one value.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::lines::Lines;

/// No answer takes longer in a test that is well.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    Http1,
    Http2,
    Grpc,
    /// [`super::lines`].
    Opaque,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// Which app answered.
    pub fn app(&self) -> &str {
        self.headers.get("x-app").and_then(|name| name.to_str().ok()).unwrap_or("")
    }

    /// The code of a refusal by a proxy.
    pub fn code(&self) -> &str {
        self.headers.get("gauze-error").and_then(|code| code.to_str().ok()).unwrap_or("")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One connection.
pub enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
    Opaque(Lines),
}

impl Client {
    /// # Errors
    /// The connection or its handshake fails.
    pub async fn connect(protocol: Protocol, address: SocketAddr) -> anyhow::Result<Client> {
        if protocol == Protocol::Opaque {
            return Ok(Client::Opaque(timeout(DEADLINE, Lines::connect(address)).await??));
        }
        let stream = timeout(DEADLINE, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        if protocol == Protocol::Http1 {
            let (sender, connection) = http1::handshake(stream).await?;
            tokio::spawn(connection);
            return Ok(Client::Http1(sender));
        }
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        Ok(Client::Http2(sender))
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// The connection breaks, the answer breaks off, or nothing comes in time.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        timeout(DEADLINE, self.exchange(request)).await?
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        if let Client::Opaque(lines) = self {
            return ask(lines, request).await;
        }
        let response = self.begin(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned();
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes(), trailers })
    }

    /// Sends a request and returns when the head of the answer is here.
    ///
    /// # Errors
    /// The connection breaks, or nothing comes in time.
    pub async fn begin(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<http::Response<hyper::body::Incoming>> {
        let response = async {
            match self {
                Client::Http1(sender) => {
                    sender.ready().await?;
                    Ok(sender.send_request(request).await?)
                }
                Client::Http2(sender) => {
                    sender.ready().await?;
                    Ok(sender.send_request(request).await?)
                }
                Client::Opaque(_) => anyhow::bail!("a line has no head"),
            }
        };
        timeout(DEADLINE, response).await?
    }

    pub fn is_closed(&self) -> bool {
        match self {
            Client::Http1(sender) => sender.is_closed(),
            Client::Http2(sender) => sender.is_closed(),
            Client::Opaque(lines) => lines.is_closed(),
        }
    }
}

/// The request's id and body as a line; its answer as a response.
async fn ask(lines: &mut Lines, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
    let (head, body) = request.into_parts();
    let id = head.headers.get("x-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let body = String::from_utf8(body.collect().await?.to_bytes().into())?;
    let answer = lines.ask(id, &body).await?;
    anyhow::ensure!(answer.id == id, "{} was answered instead", answer.id);
    let app = [(HeaderName::from_static("x-app"), HeaderValue::try_from(answer.app)?)];
    let headers = HeaderMap::from_iter(app);
    Ok(Answer { status: StatusCode::OK, headers, body: answer.body.into(), trailers: None })
}

/// A request as these tests send it: `x-id` names it in the ledger.
pub fn request(protocol: Protocol, host: &str, path: &str, id: &str) -> Request<Full<Bytes>> {
    let builder = Request::builder().header("x-id", id);
    let request = match protocol {
        Protocol::Http1 | Protocol::Opaque => builder.uri(path).header("host", host).body(Full::default()),
        Protocol::Http2 => builder.uri(format!("http://{host}{path}")).body(Full::default()),
        Protocol::Grpc => builder
            .method(Method::POST)
            .uri(format!("http://{host}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(grpc_message(id.as_bytes()))),
    };
    request.expect("a well-formed request")
}

/// The same with one more header.
pub fn with_header(
    mut request: Request<Full<Bytes>>,
    name: &'static str,
    value: &'static str,
) -> Request<Full<Bytes>> {
    request.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
    request
}

/// The same as a POST with this body.
pub fn with_body(mut request: Request<Full<Bytes>>, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    *request.method_mut() = Method::POST;
    *request.body_mut() = Full::new(body.into());
    request
}

/// gRPC's length-prefixed message, uncompressed.
pub fn grpc_message(payload: &[u8]) -> Bytes {
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(payload.len()).expect("a small message").to_be_bytes());
    message.extend_from_slice(payload);
    message.into()
}

/// One request over a connection of its own.
pub async fn call(
    protocol: Protocol,
    address: SocketAddr,
    host: &str,
    path: &str,
    id: &str,
) -> anyhow::Result<Answer> {
    Client::connect(protocol, address).await?.send(request(protocol, host, path, id)).await
}
