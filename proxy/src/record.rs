//! The facts of one request or opaque connection, gathered on its way. When the record drops they go
//! to the metrics of its edge and, if it is on, to the access log.
//! It decides nothing, and costs no copy of a string while the access log is off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gauze_model::retry::Stop;
use gauze_model::{Code, Origin};
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Uri};

use crate::access_log::AccessLog;
use crate::authorize::Said;
use crate::metrics::{Direction, EdgeMetrics, Outcome, Protocol, RetryReason};

/// One request, or one opaque connection.
pub struct Record {
    /// Who is at the other end; set anew when it becomes known.
    pub edge: Arc<EdgeMetrics>,
    pub protocol: Protocol,
    pub source: SocketAddr,
    /// The address that was dialled.
    pub destination: SocketAddr,
    /// What the app's own TLS asks for, where somebody looked.
    pub server_name: Option<Box<str>>,
    /// The address that we dialled.
    pub endpoint: Option<SocketAddr>,
    pub status: Option<StatusCode>,
    /// From headers or trailers of a gRPC response.
    pub grpc_status: Option<u8>,
    /// Why the proxy refused or failed.
    pub error: Option<Code>,
    /// Inbound: the policy that let it in or refused it, and those that only record.
    pub policy: Option<Said>,
    pub audited: Vec<Said>,
    /// How often it was tried again, and why the last time.
    pub retries: u32,
    pub retry_reason: Option<RetryReason>,
    /// Why it was not tried again, where it could have been.
    pub retry_stop: Option<Stop>,
    /// Payload bytes from the side that asked, and to it.
    pub received: u64,
    pub sent: u64,
    subject: Subject,
    started: Instant,
    log: AccessLog,
}

/// What a record is about.
enum Subject {
    Connection,
    Request(Option<Box<Kept>>),
}

/// What of a request and its response is kept only for the access log.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// As the client sent them.
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    host: Option<HeaderValue>,
    /// As they were sent on.
    pub(crate) request: Headers,
    pub(crate) response: Headers,
    pub(crate) trailers: Headers,
    /// How long the head of the response took.
    pub(crate) responded: Option<Duration>,
    /// The origin of the rule that carried it.
    pub(crate) route: String,
}

/// The first of each kind that the access log asks for.
pub(crate) type Headers = Vec<(HeaderName, HeaderValue)>;

/// Ties the requests of one call together (Envoy's header, carried on unchanged).
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Record {
    /// A request that begins; `edge` is where it counts until a better one is known.
    pub fn request(
        log: &AccessLog,
        edge: Arc<EdgeMetrics>,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
        head: &Parts,
    ) -> Record {
        let subject = Subject::Request(log.wanted().map(|wanted| Box::new(Kept::of(head, &wanted.request))));
        Record::start(log, edge, protocol, source, destination, subject)
    }

    /// An opaque connection that begins.
    pub fn connection(
        log: &AccessLog,
        edge: Arc<EdgeMetrics>,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Record {
        Record::start(log, edge, protocol, source, destination, Subject::Connection)
    }

    fn start(
        log: &AccessLog,
        edge: Arc<EdgeMetrics>,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
        subject: Subject,
    ) -> Record {
        Record {
            edge,
            protocol,
            source,
            destination,
            endpoint: None,
            status: None,
            server_name: None,
            grpc_status: None,
            error: None,
            policy: None,
            audited: Vec::new(),
            retries: 0,
            retry_reason: None,
            retry_stop: None,
            received: 0,
            sent: 0,
            subject,
            started: Instant::now(),
            log: log.clone(),
        }
    }

    pub fn direction(&self) -> Direction {
        self.edge.labels().direction
    }

    /// How long the request or connection has taken so far.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What is kept of a request while the access log is on; `None` for an opaque connection.
    pub(crate) fn kept(&self) -> Option<&Kept> {
        match &self.subject {
            Subject::Request(kept) => kept.as_deref(),
            Subject::Connection => None,
        }
    }

    /// This rule carries it.
    pub(crate) fn follows(&mut self, rule: &Origin) {
        if let Subject::Request(Some(kept)) = &mut self.subject {
            kept.route = rule.to_string();
        }
    }

    /// The request goes on with these headers.
    pub(crate) fn goes_on(&mut self, headers: &HeaderMap) {
        if let (Subject::Request(Some(kept)), Some(wanted)) = (&mut self.subject, self.log.wanted()) {
            kept.request = pick(headers, &wanted.request);
        }
    }

    /// The head of the response goes back.
    pub(crate) fn responds(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(status);
        let responded = self.started;
        if let (Subject::Request(Some(kept)), Some(wanted)) = (&mut self.subject, self.log.wanted()) {
            kept.response = pick(headers, &wanted.response);
            kept.responded = Some(responded.elapsed());
        }
    }

    /// The trailers of the response go back.
    pub(crate) fn ends_with(&mut self, trailers: &HeaderMap) {
        if let (Subject::Request(Some(kept)), Some(wanted)) = (&mut self.subject, self.log.wanted()) {
            kept.trailers = pick(trailers, &wanted.trailers);
        }
    }

    fn count(&self, duration: Duration) {
        self.edge.bytes(self.protocol, self.received, self.sent);
        match self.subject {
            Subject::Connection => self.edge.stream(self.protocol, self.error),
            Subject::Request(_) => {
                let outcome =
                    Outcome { status: self.status, grpc_status: self.grpc_status, error: self.error };
                self.edge.request(self.protocol, outcome, duration);
            }
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.elapsed();
        self.count(duration);
        self.log.write(self, duration);
    }
}

impl Kept {
    fn of(parts: &Parts, wanted: &[HeaderName]) -> Kept {
        Kept {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            host: parts.headers.get(HOST).cloned(),
            request: pick(&parts.headers, wanted),
            response: Headers::new(),
            trailers: Headers::new(),
            responded: None,
            route: String::new(),
        }
    }

    /// The authority that was asked for: of the URI (HTTP/2, absolute form), else the Host header.
    pub(crate) fn authority(&self) -> &[u8] {
        match (self.uri.authority(), &self.host) {
            (Some(authority), _) => authority.as_str().as_bytes(),
            (None, Some(host)) => host.as_bytes(),
            (None, None) => b"",
        }
    }
}

fn pick(headers: &HeaderMap, wanted: &[HeaderName]) -> Headers {
    let find = |name: &HeaderName| Some((name.clone(), headers.get(name)?.clone()));
    wanted.iter().filter_map(find).collect()
}

#[cfg(test)]
impl Record {
    /// As if the head of the response had come then.
    pub(crate) fn responded_after(&mut self, duration: Duration) {
        if let Subject::Request(Some(kept)) = &mut self.subject {
            kept.responded = Some(duration);
        }
    }
}
