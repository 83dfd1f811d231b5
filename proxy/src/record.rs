//! The facts of one request or opaque connection, gathered on its way. When the record drops they go
//! to the metrics of its edge and, if it is on, to the access log.
//! It decides nothing, and costs no copy of a string while the access log is off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gauze_model::Code;
use gauze_model::retry::Stop;
use http::header::{HOST, HeaderName, HeaderValue, USER_AGENT};
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
    /// The head is kept only for the access log.
    Request(Option<Box<Head>>),
}

/// What the access log tells of a request.
#[derive(Clone, Debug)]
pub struct Head {
    pub method: Method,
    pub uri: Uri,
    pub host: Option<HeaderValue>,
    pub user_agent: Option<HeaderValue>,
    pub request_id: Option<HeaderValue>,
}

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
        let subject = Subject::Request(log.is_on().then(|| Box::new(Head::of(head))));
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

    /// The request's head, if it is kept; `None` for an opaque connection.
    pub fn head(&self) -> Option<&Head> {
        match &self.subject {
            Subject::Request(head) => head.as_deref(),
            Subject::Connection => None,
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

impl Head {
    fn of(parts: &Parts) -> Head {
        let header = |name: HeaderName| parts.headers.get(name).cloned();
        Head {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            host: header(HOST),
            user_agent: header(USER_AGENT),
            request_id: header(REQUEST_ID),
        }
    }

    /// The authority that was asked for: of the URI (HTTP/2, absolute form), else the Host header.
    pub fn authority(&self) -> &[u8] {
        match (self.uri.authority(), &self.host) {
            (Some(authority), _) => authority.as_str().as_bytes(),
            (None, Some(host)) => host.as_bytes(),
            (None, None) => b"",
        }
    }
}
