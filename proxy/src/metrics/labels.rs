//! How edges and outcomes are told apart: the values of the labels.

use gauze_model::cluster::Workload;
use gauze_model::retry::Stop;
use gauze_model::{Code, SpiffeId};
use http::StatusCode;

/// The side of the proxy that the app, or the network, is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the network to our app.
    Inbound,
    /// From our app to the network.
    Outbound,
}

/// What the requests or the connection spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http10,
    Http1,
    Http2,
    Grpc,
    /// The app's own TLS, passed through.
    Tls,
    Tcp,
}

/// How the bytes crossed the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// Mesh TLS, both sides with a certificate.
    Mutual,
    /// As the app sent them.
    Plain,
}

/// What an edge is called; peer fields are empty where they are not known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EdgeLabels {
    pub direction: Direction,
    /// Outbound: the name of the cluster. Inbound: empty.
    pub cluster: String,
    pub peer_namespace: String,
    pub peer_app: String,
    pub peer_version: String,
    /// The peer's SPIFFE id.
    pub peer_identity: String,
    pub security: Security,
}

/// How a request or connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `None`: the client went away first.
    pub status: Option<StatusCode>,
    pub grpc_status: Option<u8>,
    /// The problem code, where the proxy itself failed or refused.
    pub error: Option<Code>,
}

/// Why a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    ConnectFailure,
    /// The stream was refused, or dismissed by GOAWAY.
    RefusedStream,
    /// The peer's proxy says that its app got nothing.
    NotDelivered,
    Reset,
    /// A try took too long.
    Timeout,
    /// A status of HTTP or gRPC that the policy names.
    Status,
}

pub(super) const RETRY_REASONS: [RetryReason; 6] = [
    RetryReason::ConnectFailure,
    RetryReason::RefusedStream,
    RetryReason::NotDelivered,
    RetryReason::Reset,
    RetryReason::Timeout,
    RetryReason::Status,
];

/// Why requests are not tried again that could have been.
pub(super) const STOPS: [Stop; 4] = [Stop::RetriesUsedUp, Stop::BodyNotKept, Stop::NoTime, Stop::OverBudget];

/// In one word; empty where there was nothing to try again.
pub fn stop_label(stop: Stop) -> &'static str {
    match stop {
        Stop::NoCondition => "",
        Stop::RetriesUsedUp => "retries",
        Stop::BodyNotKept => "body",
        Stop::NoTime => "time",
        Stop::OverBudget => "budget",
    }
}

pub(super) const PROTOCOLS: [Protocol; 6] =
    [Protocol::Http10, Protocol::Http1, Protocol::Http2, Protocol::Grpc, Protocol::Tls, Protocol::Tcp];

pub(super) const EDGE_LABELS: [&str; 7] =
    ["direction", "cluster", "peer_namespace", "peer_app", "peer_version", "peer_identity", "tls"];

impl EdgeLabels {
    /// The edge to or from `workload`; an `identity` says that it is mesh TLS. Inbound: `cluster` is empty.
    pub fn of(
        direction: Direction,
        cluster: &str,
        workload: &Workload,
        identity: Option<&SpiffeId>,
    ) -> EdgeLabels {
        EdgeLabels {
            direction,
            cluster: cluster.to_owned(),
            peer_namespace: workload.namespace.clone(),
            peer_app: workload.app.clone(),
            peer_version: workload.version.clone(),
            peer_identity: identity.map(SpiffeId::to_string).unwrap_or_default(),
            security: if identity.is_some() { Security::Mutual } else { Security::Plain },
        }
    }

    /// The edge of what is refused before anything is known of the other side.
    pub fn nowhere(direction: Direction) -> EdgeLabels {
        EdgeLabels {
            direction,
            cluster: String::new(),
            peer_namespace: String::new(),
            peer_app: String::new(),
            peer_version: String::new(),
            peer_identity: String::new(),
            security: Security::Plain,
        }
    }

    pub(super) fn values(&self) -> [&str; 7] {
        [
            self.direction.label(),
            &self.cluster,
            &self.peer_namespace,
            &self.peer_app,
            &self.peer_version,
            &self.peer_identity,
            self.security.label(),
        ]
    }

    pub(super) fn with<'l>(&'l self, more: &[&'l str]) -> Vec<&'l str> {
        [&self.values()[..], more].concat()
    }
}

impl Outcome {
    /// The labels `code`, `grpc_status` and `error`.
    pub(super) fn labels(&self) -> [String; 3] {
        let code = self.status.map_or(CLIENT_GONE, |status| status.as_u16());
        let text = |value: Option<String>| value.unwrap_or_default();
        [
            code.to_string(),
            text(self.grpc_status.map(|status| status.to_string())),
            text(self.error.map(|code| code.to_string())),
        ]
    }
}

/// "Client closed request": nginx's number, which no server sends.
pub const CLIENT_GONE: u16 = 499;

impl RetryReason {
    /// In Envoy's words, where it has one.
    pub fn label(self) -> &'static str {
        match self {
            RetryReason::ConnectFailure => "connect-failure",
            RetryReason::RefusedStream => "refused-stream",
            RetryReason::NotDelivered => "not-delivered",
            RetryReason::Reset => "reset",
            RetryReason::Timeout => "timeout",
            RetryReason::Status => "status",
        }
    }
}

impl Direction {
    pub fn label(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }
}

impl Protocol {
    pub fn label(self) -> &'static str {
        match self {
            Protocol::Http10 => "http/1.0",
            Protocol::Http1 => "http/1.1",
            Protocol::Http2 => "http/2",
            Protocol::Grpc => "grpc",
            Protocol::Tls => "tls",
            Protocol::Tcp => "tcp",
        }
    }
}

impl Security {
    pub fn label(self) -> &'static str {
        match self {
            Security::Mutual => "mutual",
            Security::Plain => "none",
        }
    }
}
