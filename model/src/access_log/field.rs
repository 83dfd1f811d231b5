//! What can be told of a request or an opaque connection.

use http::HeaderName;

use super::time::TimeFormat;

/// One fact of a request or an opaque connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// When it began, RFC 3339 in UTC with milliseconds.
    Time,
    /// When it began, in a form of the user's.
    StartTime(TimeFormat),
    /// `inbound` or `outbound`.
    Direction,
    /// `http/1.1`, `http/2`, `grpc`, `tls`, `tcp`.
    Protocol,
    /// `HTTP/1.1`, `HTTP/2`; nothing of what is not HTTP.
    HttpVersion,
    /// A part of the request's first line.
    Request(RequestPart),
    /// A header of the request.
    RequestHeader(HeaderChoice),
    /// A header of the response.
    ResponseHeader(HeaderChoice),
    /// A trailer of the response.
    Trailer(HeaderChoice),
    /// The status of the response.
    Status,
    /// Where the status comes from: `via_upstream`, or the code of our refusal.
    StatusDetails,
    /// The status of a gRPC call.
    GrpcStatus(GrpcStatusForm),
    /// Envoy's response flags, `UF,URX`.
    Flags,
    /// Our code, `M3003`.
    Error,
    /// Our code, if it is about the connection to the endpoint.
    TransportFailure,
    /// How often it was tried; nothing if it got nowhere.
    Tries,
    /// How often it was tried, if more than once.
    TriesAgain,
    /// Why it was tried again the last time.
    RetryReason,
    /// Why it was not tried again.
    RetryStop,
    /// Milliseconds from the beginning to the end.
    Duration,
    /// The same in microseconds.
    DurationMicroseconds,
    /// Milliseconds from the beginning to the head of the response.
    ResponseDuration,
    /// Milliseconds from the head of the response to its end.
    SendingDuration,
    /// Payload bytes from the side that asked.
    Received,
    /// Payload bytes to the side that asked.
    Sent,
    /// Address and port of who asked.
    Source,
    /// Its address.
    SourceIp,
    /// Its port.
    SourcePort,
    /// Address and port that were dialled.
    Destination,
    /// That address.
    DestinationIp,
    /// That port.
    DestinationPort,
    /// Address and port of the endpoint.
    Endpoint,
    /// Its address.
    EndpointIp,
    /// Its port.
    EndpointPort,
    /// `mutual`, or nothing.
    Security,
    /// `TLSv1.3` where a peer called us.
    DownstreamTlsVersion,
    /// `TLSv1.3` where we called a peer.
    UpstreamTlsVersion,
    /// The name of the cluster that it went to.
    Cluster,
    /// The user's rule that carried it.
    Route,
    /// Namespace of the peer.
    PeerNamespace,
    /// App of the peer.
    PeerApp,
    /// Version of the peer.
    PeerVersion,
    /// SPIFFE id of the peer.
    PeerIdentity,
    /// SPIFFE id of the peer that called us.
    DownstreamIdentity,
    /// SPIFFE id of the peer that we called.
    UpstreamIdentity,
    /// The name that the app's own TLS asks for (RFC 6066, 3).
    ServerName,
    /// The AuthorizationPolicy that let it in or refused it.
    Policy,
    /// The policies that only record.
    Audited,
    /// The pod of this sidecar.
    Hostname,
    /// A variable of the sidecar's environment.
    Environment(String),
    /// Envoy has an operator for it, and this proxy does not keep it.
    Unknown,
}

/// Parts of the first line of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestPart {
    /// `GET`.
    Method,
    /// Path and query, as the client sent them.
    Path,
    /// Whom it asked for.
    Authority,
    /// `http`: TLS between sidecars is not the client's.
    Scheme,
}

/// A header, or what stands in for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderChoice {
    /// This one,
    pub first: HeaderName,
    /// else this one,
    pub second: Option<HeaderName>,
    /// else this.
    pub otherwise: Option<RequestPart>,
}

/// How a status of gRPC is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcStatusForm {
    /// `PermissionDenied`.
    Camel,
    /// `PERMISSION_DENIED`.
    Snake,
    /// `7`.
    Number,
}

impl HeaderChoice {
    const fn of(first: HeaderName) -> HeaderChoice {
        HeaderChoice { first, second: None, otherwise: None }
    }

    /// The headers of it.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        std::iter::once(&self.first).chain(&self.second)
    }
}

/// What our JSON tells, in its order; `%GAUZE(name)%` tells one of these.
pub static FIELDS: [(&str, Field); 31] = [
    ("time", Field::Time),
    ("direction", Field::Direction),
    ("protocol", Field::Protocol),
    ("method", Field::Request(RequestPart::Method)),
    ("authority", Field::Request(RequestPart::Authority)),
    ("path", Field::Request(RequestPart::Path)),
    ("request_id", Field::RequestHeader(HeaderChoice::of(HeaderName::from_static("x-request-id")))),
    ("user_agent", Field::RequestHeader(HeaderChoice::of(http::header::USER_AGENT))),
    ("status", Field::Status),
    ("grpc_status", Field::GrpcStatus(GrpcStatusForm::Number)),
    ("flag", Field::Flags),
    ("error", Field::Error),
    ("tries", Field::TriesAgain),
    ("retry_reason", Field::RetryReason),
    ("retry_stop", Field::RetryStop),
    ("duration_us", Field::DurationMicroseconds),
    ("received", Field::Received),
    ("sent", Field::Sent),
    ("source", Field::Source),
    ("destination", Field::Destination),
    ("endpoint", Field::Endpoint),
    ("server_name", Field::ServerName),
    ("tls", Field::Security),
    ("cluster", Field::Cluster),
    ("route", Field::Route),
    ("peer_namespace", Field::PeerNamespace),
    ("peer_app", Field::PeerApp),
    ("peer_version", Field::PeerVersion),
    ("peer_identity", Field::PeerIdentity),
    ("policy", Field::Policy),
    ("audited", Field::Audited),
];

/// The names of gRPC's statuses (gRPC, "Status codes").
const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The name of a gRPC status, or its number where it has no name.
pub fn grpc_status_name(status: u8, form: GrpcStatusForm) -> String {
    match (GRPC_STATUSES.get(usize::from(status)), form) {
        (None, _) | (_, GrpcStatusForm::Number) => status.to_string(),
        (Some(&name), GrpcStatusForm::Snake) => name.to_owned(),
        // As Envoy writes them.
        (Some(&"OK"), GrpcStatusForm::Camel) => "OK".to_owned(),
        (Some(&"CANCELLED"), GrpcStatusForm::Camel) => "Canceled".to_owned(),
        (Some(&name), GrpcStatusForm::Camel) => name.split('_').map(capitalized).collect(),
    }
}

fn capitalized(word: &str) -> String {
    word[..1].to_owned() + &word[1..].to_ascii_lowercase()
}
