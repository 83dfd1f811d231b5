//! The webhooks' server: what the API server asks about pods that ask for a sidecar, and about TrafficSplits in older
//! versions, over TLS with a leaf of our own root. What is answered are pure functions ([`review`], [`convert`]); here
//! are sockets, limits and the one side effect: the pod's namespace gets its roots before the pod needs them.
//!
//! Anybody in the cluster can connect here. That tells them no more than `gauze inject` does.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gauze_crds::traffic_split::CONVERT_PATH;
use gauze_model::Code;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::trust::{Trust, TrustError};
use crate::inject::{Injector, random_word};
use crate::metrics::Metrics;
use crate::port::OwnCertificate;
use crate::push::Push;
use crate::readiness::{Readiness, Unready};
use crate::settings::Settings;
use convert::Converted;
use review::{AskedBy, Reviewed};

mod convert; // a ConversionReview in, one out
mod review; // an AdmissionReview in, one out

/// Connections open at once. API servers have one each; others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// How long a connection may be used; then its client makes a new one, to any replica.
const CONNECTION_LIFE: Duration = Duration::from_secs(120);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a review may take to arrive. With the write of the roots ([`Trust::ensure`]) this stays below the 5 s that
/// the API server waits.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(1);
/// How long what is in flight may take to end when its connection does.
const END_TIMEOUT: Duration = Duration::from_secs(4);
/// Largest review that is read, in bytes: a pod is at most 3 MiB, the API server's own limit.
const REVIEW_SIZE_MAX: usize = 4 * 1024 * 1024;
/// Largest review of objects to convert, in bytes. API servers send one object at a time, and might send a whole list.
const CONVERSION_SIZE_MAX: usize = 16 * 1024 * 1024;
/// What all conversions may hold at once, in bytes of their reviews; others wait.
const CONVERSIONS_MAX: usize = 2 * CONVERSION_SIZE_MAX;
/// How long a conversion may wait and take to arrive: well below the 30 s that the API server waits.
const CONVERSION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long accepting rests when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers the API server.
#[derive(Clone)]
pub(crate) struct Webhook {
    pub(crate) settings: Arc<Settings>,
    pub(crate) push: Arc<Push>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) trust: Trust,
    pub(crate) conversions: Conversions,
}

/// Places for the bytes of all conversions.
#[derive(Clone)]
pub(crate) struct Conversions(Arc<Semaphore>);

impl Default for Conversions {
    fn default() -> Conversions {
        Conversions(Arc::new(Semaphore::new(CONVERSIONS_MAX)))
    }
}

type Answer = Response<Full<Bytes>>;

impl Webhook {
    /// Serves until the process stops; requests in flight are answered.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        own: Arc<OwnCertificate>,
        readiness: Arc<Readiness>,
    ) {
        let config = match tls(own) {
            Ok(config) => config,
            Err(error) => return warn!(%error, "the webhooks cannot be served"),
        };
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        let mut stopping = std::pin::pin!(readiness.until(|reason| reason == Unready::Stopping));
        loop {
            let accepted = tokio::select! {
                accepted = accept(&listener, &places) => accepted,
                _ = &mut stopping => break,
            };
            while connections.try_join_next().is_some() {}
            let (stream, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "cannot accept a connection to the webhook");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            connections.spawn(self.clone().carry(acceptor.clone(), stream, Arc::clone(&readiness), place));
        }
        connections.join_all().await;
    }

    async fn carry(
        self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        readiness: Arc<Readiness>,
        _place: OwnedSemaphorePermit,
    ) {
        let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return warn!(%error, "a client of the webhook did not accept our certificate"),
            Err(_) => return debug!("a client of the webhook made no handshake in time"),
        };
        let service = service_fn(move |request| {
            let webhook = self.clone();
            async move { Ok::<_, Infallible>(webhook.answer(request).await) }
        });
        let mut server = auto::Builder::new(TokioExecutor::new());
        server.http1().timer(TokioTimer::new()).header_read_timeout(REVIEW_TIMEOUT);
        let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            served = connection.as_mut() => return ended(served),
            () = sleep(CONNECTION_LIFE) => {}
            _ = readiness.until(|reason| reason == Unready::Stopping) => {}
        }
        connection.as_mut().graceful_shutdown();
        ended(timeout(END_TIMEOUT, connection).await.unwrap_or(Ok(())));
    }

    async fn answer(self, request: Request<Incoming>) -> Answer {
        let asked_by = match (request.method(), request.uri().path()) {
            (&Method::POST, "/inject/pod") => AskedBy::Pod,
            (&Method::POST, "/inject/namespace") => AskedBy::Namespace,
            (&Method::POST, CONVERT_PATH) => return self.convert(request).await,
            _ => return text(StatusCode::NOT_FOUND, "POST /inject/pod, /inject/namespace or /convert"),
        };
        let body = match arrived(request, REVIEW_SIZE_MAX, REVIEW_TIMEOUT).await {
            Ok(body) => body,
            Err((status, problem)) => return self.failed(status, problem),
        };
        match review::review(&body, asked_by, &self.injector(), &random_word()) {
            Ok(reviewed) => self.reviewed(reviewed).await,
            Err(error) => self.failed(StatusCode::BAD_REQUEST, error),
        }
    }

    async fn reviewed(&self, mut reviewed: Reviewed) -> Answer {
        let Reviewed { action, rule, namespace, pod, dry_run, .. } = &reviewed;
        if !dry_run {
            self.metrics.admissions.with_label_values(&[*action]).inc();
            info!(namespace, pod, %rule, "a pod was {action}");
            if let Err(error) = self.trust(&reviewed).await {
                warn!(namespace, %error, "a pod will wait for the roots");
                reviewed.warn(error.to_string());
            }
        }
        match reviewed.answer() {
            Ok(json) => of(StatusCode::OK, "application/json", json),
            Err(error) => self.failed(StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }

    /// An injected pod mounts the roots, which the leader would write only after it sees the pod. Without them it waits,
    /// so their lack is no reason to refuse it.
    async fn trust(&self, reviewed: &Reviewed) -> Result<(), TrustError> {
        match reviewed.action {
            "injected" => self.trust.ensure(&reviewed.namespace).await,
            _ => Ok(()),
        }
    }

    /// What sidecars are told, with the networks of the mesh as they are known now.
    fn injector(&self) -> Injector {
        Injector {
            settings: self.settings.kubernetes.injection.clone(),
            trust_domain: self.settings.trust_domain.clone(),
            system_namespace: self.settings.system_namespace.clone(),
            mesh_networks: self.push.world().settings().mesh_networks.clone(),
        }
    }

    async fn convert(&self, request: Request<Incoming>) -> Answer {
        // Without a length it may become as long as it may be.
        let size = request.body().size_hint().exact().and_then(|size| u32::try_from(size).ok());
        let size = size.unwrap_or(u32::MAX).clamp(1, CONVERSION_SIZE_MAX as u32);
        let begun = Instant::now();
        let place = timeout(CONVERSION_TIMEOUT, self.conversions.0.acquire_many(size)).await;
        let left = CONVERSION_TIMEOUT.saturating_sub(begun.elapsed());
        let Ok(_place) = place else {
            return self
                .not_converted(StatusCode::SERVICE_UNAVAILABLE, "too many others are being converted");
        };
        let converted = match arrived(request, CONVERSION_SIZE_MAX, left).await {
            Ok(body) => convert::review(&body),
            Err((status, problem)) => return self.not_converted(status, problem),
        };
        match converted {
            Ok(converted) => self.converted(converted),
            Err(error) => self.not_converted(StatusCode::BAD_REQUEST, error),
        }
    }

    fn converted(&self, converted: Converted) -> Answer {
        let Converted { objects, failure, answer } = converted;
        self.metrics.conversions.with_label_values(&["converted"]).inc_by(objects as u64);
        if let Some(failure) = failure {
            // The API server hands the message on to its client.
            self.metrics.conversions.with_label_values(&["failed"]).inc();
            warn!(code = %Code::CONVERSION_FAILED, failure, "a TrafficSplit cannot be converted");
        }
        of(StatusCode::OK, "application/json", answer)
    }

    fn not_converted(&self, status: StatusCode, error: impl std::fmt::Display) -> Answer {
        self.metrics.conversions.with_label_values(&["failed"]).inc();
        let code = Code::CONVERSION_FAILED;
        warn!(%code, %error, "cannot convert TrafficSplits");
        text(status, format!("{error} ({code})"))
    }

    fn failed(&self, status: StatusCode, error: impl std::fmt::Display) -> Answer {
        self.metrics.admissions.with_label_values(&["failed"]).inc();
        let code = Code::ADMISSION_UNREADABLE;
        warn!(%code, %error, "cannot review a pod");
        text(status, format!("{error} ({code})"))
    }
}

/// The whole body, if it arrives within these limits.
async fn arrived(
    request: Request<Incoming>,
    size_max: usize,
    time: Duration,
) -> Result<Bytes, (StatusCode, String)> {
    let body = Limited::new(request.into_body(), size_max).collect();
    match timeout(time, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err((StatusCode::BAD_REQUEST, error.to_string())),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the review did not arrive in time".to_owned())),
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

fn ended(served: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = served {
        debug!(%error, "a connection to the webhook ended");
    }
}

fn tls(own: Arc<OwnCertificate>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(own);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
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
