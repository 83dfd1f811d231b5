//! What a record says of one field. What it does not know it does not say.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use gauze_model::Code;
use gauze_model::access_log::{
    Field, GrpcStatusForm, HeaderChoice, RequestPart, grpc_status_name, timestamp,
};
use gauze_model::retry::Stop;
use http::HeaderName;

use crate::metrics::{Direction, Protocol, RetryReason, Security, stop_label};
use crate::record::{Headers, Kept, Record};

/// What is told of one field.
pub(super) enum Value<'r> {
    Unknown,
    Number(u64),
    Text(Cow<'r, [u8]>),
}

/// When a record ended.
#[derive(Clone, Copy)]
pub(super) struct Ended {
    pub(super) at: SystemTime,
    /// How long it took.
    pub(super) after: Duration,
}

impl<'r> Value<'r> {
    fn owned(text: String) -> Value<'r> {
        Value::Text(Cow::Owned(text.into_bytes()))
    }

    /// An empty text is one that is not known.
    fn text(text: &'r str) -> Value<'r> {
        if text.is_empty() { Value::Unknown } else { Value::Text(Cow::Borrowed(text.as_bytes())) }
    }

    fn cow(text: Cow<'r, str>) -> Value<'r> {
        match text {
            Cow::Borrowed(text) => Value::text(text),
            Cow::Owned(text) => Value::owned(text),
        }
    }

    fn of(number: impl Into<u64>) -> Value<'r> {
        Value::Number(number.into())
    }

    fn known<T>(fact: Option<T>, told: impl FnOnce(T) -> Value<'r>) -> Value<'r> {
        fact.map_or(Value::Unknown, told)
    }
}

/// What `record` says of `field`.
pub(super) fn value<'r>(field: &Field, record: &'r Record, ended: Ended) -> Value<'r> {
    let labels = record.edge.labels();
    let began = || ended.at.checked_sub(ended.after).unwrap_or(ended.at);
    match field {
        Field::Time => Value::owned(timestamp(began())),
        Field::StartTime(format) => Value::owned(format.write(began())),
        Field::Duration => milliseconds(ended.after),
        Field::DurationMicroseconds => {
            Value::Number(u64::try_from(ended.after.as_micros()).unwrap_or(u64::MAX))
        }
        Field::Received => Value::Number(record.received),
        Field::Sent => Value::Number(record.sent),
        Field::Direction => Value::text(labels.direction.label()),
        Field::Protocol => Value::text(record.protocol.label()),
        Field::HttpVersion => Value::text(http_version(record.protocol)),
        Field::Security => Value::text(labels.security.label()),
        Field::Cluster => Value::text(&labels.cluster),
        Field::PeerNamespace => Value::text(&labels.peer_namespace),
        Field::PeerApp => Value::text(&labels.peer_app),
        Field::PeerVersion => Value::text(&labels.peer_version),
        Field::PeerIdentity => Value::text(&labels.peer_identity),
        Field::DownstreamIdentity => of_side(record, Direction::Inbound, &labels.peer_identity),
        Field::UpstreamIdentity => of_side(record, Direction::Outbound, &labels.peer_identity),
        Field::DownstreamTlsVersion => of_side(record, Direction::Inbound, tls_version(labels.security)),
        Field::UpstreamTlsVersion => of_side(record, Direction::Outbound, tls_version(labels.security)),
        Field::Policy => Value::known(record.policy.as_ref(), |policy| Value::owned(policy.to_string())),
        Field::Audited => audited(record),
        Field::Source => address(Some(record.source)),
        Field::SourceIp => ip(Some(record.source)),
        Field::SourcePort => port(Some(record.source)),
        Field::Destination => address(Some(record.destination)),
        Field::DestinationIp => ip(Some(record.destination)),
        Field::DestinationPort => port(Some(record.destination)),
        Field::Endpoint => address(record.endpoint),
        Field::EndpointIp => ip(record.endpoint),
        Field::EndpointPort => port(record.endpoint),
        Field::Flags => Value::cow(flags(record)),
        Field::Error => Value::known(record.error, |code| Value::owned(code.to_string())),
        Field::TransportFailure => Value::known(record.error.filter(|code| is_of_transport(*code)), |code| {
            Value::owned(code.to_string())
        }),
        Field::Tries => Value::of(record.endpoint.map_or(0, |_| record.retries + 1)),
        Field::TriesAgain => Value::known((record.retries > 0).then_some(record.retries + 1), Value::of),
        Field::RetryReason => Value::text(record.retry_reason.map_or("", RetryReason::label)),
        Field::RetryStop => Value::text(record.retry_stop.map_or("", stop_label)),
        Field::Status => Value::known(record.status, |status| Value::of(status.as_u16())),
        Field::StatusDetails => status_details(record),
        Field::GrpcStatus(form) => Value::known(record.grpc_status, |status| grpc_status(status, *form)),
        Field::Request(_)
        | Field::RequestHeader(_)
        | Field::ResponseHeader(_)
        | Field::Trailer(_)
        | Field::ResponseDuration
        | Field::SendingDuration
        | Field::Route => Value::known(record.kept(), |kept| of_kept(field, kept, ended.after)),
        Field::ServerName => Value::text(record.server_name.as_deref().unwrap_or_default()),
        // These were filled in when the log began.
        Field::Hostname | Field::Environment(_) | Field::Unknown => Value::Unknown,
    }
}

/// What is kept of a request only for the access log.
fn of_kept<'r>(field: &Field, kept: &'r Kept, after: Duration) -> Value<'r> {
    match field {
        Field::Request(part) => of_request(*part, kept),
        Field::RequestHeader(choice) => {
            let header = header(choice, &kept.request);
            let otherwise = || Value::known(choice.otherwise, |part| of_request(part, kept));
            header.map_or_else(otherwise, Value::Text)
        }
        Field::ResponseHeader(choice) if choice.first == UPSTREAM_SERVICE_TIME => {
            let told = header(choice, &kept.response).map(Value::Text);
            told.unwrap_or_else(|| Value::known(kept.responded, milliseconds))
        }
        Field::ResponseHeader(choice) => Value::known(header(choice, &kept.response), Value::Text),
        Field::Trailer(choice) => Value::known(header(choice, &kept.trailers), Value::Text),
        Field::ResponseDuration => Value::known(kept.responded, milliseconds),
        Field::SendingDuration => {
            Value::known(kept.responded, |responded| milliseconds(after.saturating_sub(responded)))
        }
        Field::Route => Value::text(&kept.route),
        _ => Value::Unknown,
    }
}

/// Envoy writes this header itself: milliseconds until the head of the response.
const UPSTREAM_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

fn of_request(part: RequestPart, kept: &Kept) -> Value<'_> {
    match part {
        RequestPart::Method => Value::text(kept.method.as_str()),
        RequestPart::Path => Value::text(kept.uri.path_and_query().map_or("/", |path| path.as_str())),
        RequestPart::Authority => Value::Text(Cow::Borrowed(kept.authority())),
        RequestPart::Scheme => Value::text("http"),
    }
}

fn header<'r>(choice: &HeaderChoice, headers: &'r Headers) -> Option<Cow<'r, [u8]>> {
    let find = |name: &HeaderName| headers.iter().find(|(kept, _)| kept == name);
    let (_, value) = choice.names().find_map(find)?;
    Some(Cow::Borrowed(value.as_bytes()))
}

fn audited(record: &Record) -> Value<'_> {
    if record.audited.is_empty() {
        return Value::Unknown;
    }
    let audited: Vec<String> = record.audited.iter().map(ToString::to_string).collect();
    Value::owned(audited.join(", "))
}

fn of_side<'r>(record: &Record, side: Direction, text: &'r str) -> Value<'r> {
    if record.direction() == side { Value::text(text) } else { Value::Unknown }
}

fn address<'r>(address: Option<SocketAddr>) -> Value<'r> {
    Value::known(address, |address| Value::owned(address.to_string()))
}

fn ip<'r>(address: Option<SocketAddr>) -> Value<'r> {
    Value::known(address, |address| Value::owned(address.ip().to_string()))
}

fn port<'r>(address: Option<SocketAddr>) -> Value<'r> {
    Value::known(address, |address| Value::of(address.port()))
}

fn milliseconds<'r>(duration: Duration) -> Value<'r> {
    Value::Number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn http_version(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http10 => "HTTP/1.0",
        Protocol::Http1 => "HTTP/1.1",
        Protocol::Http2 | Protocol::Grpc => "HTTP/2",
        Protocol::Tls | Protocol::Tcp => "",
    }
}

/// Between sidecars there is no other.
fn tls_version(security: Security) -> &'static str {
    match security {
        Security::Mutual => "TLSv1.3",
        Security::Plain => "",
    }
}

fn grpc_status<'r>(status: u8, form: GrpcStatusForm) -> Value<'r> {
    match form {
        GrpcStatusForm::Number => Value::of(status),
        GrpcStatusForm::Camel | GrpcStatusForm::Snake => Value::owned(grpc_status_name(status, form)),
    }
}

/// Envoy's word for a status of the upstream; ours have a code.
fn status_details(record: &Record) -> Value<'_> {
    match (record.error, record.status) {
        (Some(code), _) => Value::owned(code.to_string()),
        (None, Some(_)) if record.endpoint.is_some() => Value::text("via_upstream"),
        (None, Some(_)) => Value::text("direct_response"),
        (None, None) => Value::Unknown,
    }
}

fn is_of_transport(code: Code) -> bool {
    matches!(
        code,
        Code::CONNECT_FAILED | Code::CONNECT_TIMEOUT | Code::UPSTREAM_TLS | Code::UPSTREAM_IDENTITY
    )
}

/// Envoy's response flags: that of the failure, and why it was not tried again.
fn flags(record: &Record) -> Cow<'static, str> {
    let stop = match record.retry_stop {
        Some(Stop::RetriesUsedUp) => "URX",
        Some(Stop::OverBudget) => "UO",
        _ => "",
    };
    match (flag(record), stop) {
        (flag, "") => Cow::Borrowed(flag),
        ("", stop) => Cow::Borrowed(stop),
        (flag, stop) => Cow::Owned(format!("{flag},{stop}")),
    }
}

/// Envoy's response flag: that of the problem code, or `DC` where the client went away first.
fn flag(record: &Record) -> &'static str {
    match record.error {
        Some(code) => code.entry().map_or("", |entry| entry.flag),
        None if record.kept().is_some() && record.status.is_none() => "DC",
        None => "",
    }
}
