//! An HTTP GET as kubelet sends it (`pkg/probe/http`): no certificate is verified, redirects are followed
//! to the same host only and ten times at most, the body is read up to 10 KiB and dropped. Of the answer
//! nothing but the status goes on: whoever may ask for a probe may not read the app.

use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::{App, Failure, HttpGet};

/// `http.RedirectChecker` of kubelet.
pub(super) const REDIRECTS_MAX: usize = 10;

/// Bytes of the app's answer that are read (`maxRespBodyLength` of kubelet).
const BODY_MAX: usize = 10 * 1024;

/// Size of the head of the app's answer, in bytes.
const HEAD_MAX: usize = 64 * 1024;

/// Who the app takes us for, unless the handler says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Probe,
    Hook,
}

/// What is asked next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    port: u16,
    is_tls: bool,
    target: PathAndQuery,
    host: Option<HeaderValue>,
}

/// Asks, and follows where the app says.
///
/// # Errors
/// No connection, no HTTP, or too many redirects; a status of any kind is an answer.
pub(super) async fn get(app: &App, get: &HttpGet, purpose: Purpose) -> Result<StatusCode, Failure> {
    let headers = headers(get, purpose);
    let mut step = Step::first(get);
    for _ in 0..REDIRECTS_MAX {
        let (status, location) = ask(app, &step, &headers).await?;
        match location.and_then(|location| step.next(app, status, &location)) {
            Some(next) => step = next,
            None => return Ok(status),
        }
    }
    Err(Failure::Redirects)
}

/// The declared headers, and the two that kubelet adds. An empty `Accept` means none.
pub(super) fn headers(get: &HttpGet, purpose: Purpose) -> HeaderMap {
    let mut headers = get.headers.clone();
    let agent = match purpose {
        Purpose::Probe => "kube-probe/gauze",
        Purpose::Hook => "kube-lifecycle/gauze",
    };
    headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(agent));
    let accept = headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    if accept.is_empty() {
        headers.remove(header::ACCEPT);
    }
    headers
}

impl Step {
    pub(super) fn first(get: &HttpGet) -> Step {
        Step { port: get.port, is_tls: get.is_tls, target: get.target.clone(), host: get.host.clone() }
    }

    /// Where a redirect leads, if kubelet would follow it: the host is ours still, the method GET. Not to
    /// the sidecar's own ports.
    fn next(&self, app: &App, status: StatusCode, location: &str) -> Option<Step> {
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let location = location.split('#').next()?;
        if let Some(target) = self.relative(location) {
            return Some(Step { target, ..self.clone() });
        }
        let location = Uri::from_str(location).ok()?;
        let host = location.host()?;
        let same = host.trim_matches(['[', ']']).parse() == Ok(app.ip);
        let is_tls = match location.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let port = location.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let target = location.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        (same && !app.is_own(port)).then_some(Step { port, is_tls, target, host: None })
    }

    /// A location without a host, seen from here (RFC 3986, section 5.2, without `..`).
    fn relative(&self, location: &str) -> Option<PathAndQuery> {
        if location.starts_with("//") || location.contains("://") {
            return None;
        }
        let here = self.target.path();
        let target = match location.as_bytes().first() {
            Some(b'/') => location.to_owned(),
            Some(b'?') => format!("{here}{location}"),
            Some(_) => format!("{}{location}", &here[..=here.rfind('/')?]),
            None => self.target.to_string(),
        };
        PathAndQuery::from_str(&target).ok()
    }

    /// The request; HTTP/2 carries the host in its target.
    fn request(
        &self,
        app: &App,
        headers: &HeaderMap,
        version: Version,
    ) -> Result<Request<Empty<Bytes>>, http::Error> {
        let address = std::net::SocketAddr::new(app.ip, self.port).to_string();
        let host = self.host.clone().map_or_else(|| HeaderValue::from_str(&address), Ok)?;
        let mut request = Request::builder().method(Method::GET).version(version);
        request = match version {
            Version::HTTP_2 => {
                let scheme = if self.is_tls { Scheme::HTTPS } else { Scheme::HTTP };
                let authority = Authority::try_from(host.as_bytes())?;
                let uri =
                    Uri::builder().scheme(scheme).authority(authority).path_and_query(self.target.clone());
                request.uri(uri.build()?)
            }
            _ => request
                .uri(Uri::from(self.target.clone()))
                .header(header::HOST, host)
                .header(header::CONNECTION, "close"),
        };
        let mut request = request.body(Empty::new())?;
        request.headers_mut().extend(headers.clone());
        Ok(request)
    }
}

/// One request on a connection of its own; the status, and where a redirect leads.
pub(super) async fn ask(
    app: &App,
    step: &Step,
    headers: &HeaderMap,
) -> Result<(StatusCode, Option<String>), Failure> {
    let port = step.port;
    let broken = |problem: String| Failure::Broken { port, problem };
    let tcp = app.connect(port).await?;
    let request =
        |version| step.request(app, headers, version).map_err(|problem| broken(problem.to_string()));
    let exchanged = if !step.is_tls {
        exchange_http1(tcp, request(Version::HTTP_11)?).await
    } else {
        let tls =
            secure(app, tcp).await.map_err(|problem| Failure::Tls { port, problem: problem.to_string() })?;
        match tls.get_ref().1.alpn_protocol() == Some(H2) {
            true => exchange_http2(tls, request(Version::HTTP_2)?).await,
            false => exchange_http1(tls, request(Version::HTTP_11)?).await,
        }
    };
    exchanged.map_err(|problem| broken(reason(&problem)))
}

type Exchanged = Result<(StatusCode, Option<String>), hyper::Error>;

async fn exchange_http1<S>(stream: S, request: Request<Empty<Bytes>>) -> Exchanged
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(HEAD_MAX).handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new(); // ends the connection when we leave
    driver.spawn(connection.map(drop));
    read(sender.send_request(request).await?).await
}

async fn exchange_http2<S>(stream: S, request: Request<Empty<Bytes>>) -> Exchanged
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_header_list_size(HEAD_MAX as u32);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection.map(drop));
    read(sender.send_request(request).await?).await
}

/// An answer is whole, or as much of it as we care for.
async fn read(answer: Response<Incoming>) -> Exchanged {
    let (head, mut body) = answer.into_parts();
    let mut length = 0;
    while length < BODY_MAX {
        let Some(frame) = body.frame().await else { break };
        length += frame?.data_ref().map_or(0, Bytes::len);
    }
    let location = head.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
    Ok((head.status, location.map(str::to_owned)))
}

/// hyper says what it did; the cause says why it failed.
fn reason(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

const H2: &[u8] = b"h2";

async fn secure(
    app: &App,
    tcp: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, std::io::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(std::io::Error::other)?;
    let anybody = Arc::new(Anybody);
    let mut config = config.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth();
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config)).connect(ServerName::from(app.ip), tcp).await
}

/// kubelet verifies no certificate of a probe (`InsecureSkipVerify`): it is a question to our own pod, and
/// nothing secret is in it.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
