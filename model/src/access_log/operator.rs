//! `%OPERATOR(ARGUMENT):LENGTH%` (Envoy, "Command operators"): `%%` is a percent sign.

use http::HeaderName;

use super::field::{FIELDS, Field, GrpcStatusForm, HeaderChoice, RequestPart};
use super::time::TimeFormat;
use super::{FormatError, Piece};

/// What is filled in, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// What it stands for.
    pub field: Field,
    /// At most so many bytes of it (`:LENGTH`).
    pub length: Option<usize>,
}

/// An operator as it is written.
struct Written<'t> {
    name: &'t str,
    argument: Option<&'t str>,
    length: Option<usize>,
}

/// Operators without an argument. Several stand for the same: Envoy tells more than two sidecars have between them.
static PLAIN: [(&str, Field); 37] = [
    ("BYTES_RECEIVED", Field::Received),
    ("BYTES_SENT", Field::Sent),
    ("CONNECTION_TERMINATION_DETAILS", Field::Error),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS", Field::Destination),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Field::Source),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Field::SourceIp),
    ("DOWNSTREAM_LOCAL_ADDRESS", Field::Destination),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Field::DestinationIp),
    ("DOWNSTREAM_LOCAL_PORT", Field::DestinationPort),
    ("DOWNSTREAM_PEER_URI_SAN", Field::DownstreamIdentity),
    ("DOWNSTREAM_REMOTE_ADDRESS", Field::Source),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Field::SourceIp),
    ("DOWNSTREAM_REMOTE_PORT", Field::SourcePort),
    ("DOWNSTREAM_TLS_VERSION", Field::DownstreamTlsVersion),
    ("DURATION", Field::Duration),
    ("GRPC_STATUS_NUMBER", Field::GrpcStatus(GrpcStatusForm::Number)),
    ("HOSTNAME", Field::Hostname),
    ("PROTOCOL", Field::HttpVersion),
    ("REQUESTED_SERVER_NAME", Field::ServerName),
    ("RESPONSE_CODE", Field::Status),
    ("RESPONSE_CODE_DETAILS", Field::StatusDetails),
    ("RESPONSE_DURATION", Field::ResponseDuration),
    ("RESPONSE_FLAGS", Field::Flags),
    ("RESPONSE_TX_DURATION", Field::SendingDuration),
    ("ROUTE_NAME", Field::Route),
    ("START_TIME", Field::Time),
    ("UPSTREAM_CLUSTER", Field::Cluster),
    ("UPSTREAM_CLUSTER_RAW", Field::Cluster),
    ("UPSTREAM_HOST", Field::Endpoint),
    ("UPSTREAM_LOCAL_ADDRESS", Field::Unknown),
    ("UPSTREAM_PEER_URI_SAN", Field::UpstreamIdentity),
    ("UPSTREAM_REMOTE_ADDRESS", Field::Endpoint),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Field::EndpointIp),
    ("UPSTREAM_REMOTE_PORT", Field::EndpointPort),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Field::Tries),
    ("UPSTREAM_TLS_VERSION", Field::UpstreamTlsVersion),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", Field::TransportFailure),
];

/// The pieces of a text.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, FormatError> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        literal.push_str(&rest[..at]);
        let place = text.len() - rest.len() + at;
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let wrong = |problem| FormatError::Operator { at: place, problem };
        let (written, after) = written(after).map_err(wrong)?;
        let operator = Operator { field: field(&written).map_err(wrong)?, length: written.length };
        if !literal.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::Operator(operator));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal));
    }
    Ok(pieces)
}

/// Reads from behind the first `%` to behind the last.
fn written(text: &str) -> Result<(Written<'_>, &str), String> {
    let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    if name.is_empty() {
        return Err("a % begins an operator, as in %DURATION%; write %% for a percent sign".to_owned());
    }
    let (argument, rest) = match rest.strip_prefix('(') {
        Some(inner) => {
            let (argument, rest) =
                inner.split_once(')').ok_or_else(|| format!("the bracket of %{name}( is not closed"))?;
            (Some(argument), rest)
        }
        None => (None, rest),
    };
    let (length, rest) = match rest.strip_prefix(':') {
        Some(rest) => {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let length = rest[..digits]
                .parse()
                .map_err(|_| format!("%{name}:… wants a length in bytes after the colon"))?;
            (Some(length), &rest[digits..])
        }
        None => (None, rest),
    };
    let rest = rest.strip_prefix('%').ok_or_else(|| format!("%{name} is not ended by a %"))?;
    Ok((Written { name, argument, length }, rest))
}

fn field(written: &Written<'_>) -> Result<Field, String> {
    let Written { name, argument, .. } = *written;
    let wanted = |what: &str| argument.ok_or_else(|| format!("%{name}% wants {what} in brackets"));
    match name {
        "REQ" => Ok(request_part(wanted("a header")?)?),
        "RESP" => Ok(Field::ResponseHeader(header_choice(wanted("a header")?)?)),
        "TRAILER" => Ok(Field::Trailer(header_choice(wanted("a trailer")?)?)),
        "START_TIME" => Ok(match argument {
            Some(format) => Field::StartTime(TimeFormat::read(format)?),
            None => Field::Time,
        }),
        "GRPC_STATUS" => match argument {
            None | Some("CAMEL_STRING") => Ok(Field::GrpcStatus(GrpcStatusForm::Camel)),
            Some("SNAKE_STRING") => Ok(Field::GrpcStatus(GrpcStatusForm::Snake)),
            Some("NUMBER") => Ok(Field::GrpcStatus(GrpcStatusForm::Number)),
            Some(other) => Err(format!("%GRPC_STATUS({other})%: write CAMEL_STRING, SNAKE_STRING or NUMBER")),
        },
        "ENVIRONMENT" => Ok(Field::Environment(wanted("the name of a variable")?.to_owned())),
        "GAUZE" => of_ours(wanted("a field of the JSON format")?),
        _ => plain(name, argument),
    }
}

fn plain(name: &str, argument: Option<&str>) -> Result<Field, String> {
    let (_, field) = PLAIN
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| format!("%{name}% is no operator that gauze knows; docs/access-log.md lists them"))?;
    match argument {
        None => Ok(field.clone()),
        Some(argument) => Err(format!("%{name}({argument})%: {name} takes nothing in brackets")),
    }
}

fn of_ours(name: &str) -> Result<Field, String> {
    let known = FIELDS.iter().find(|(known, _)| *known == name);
    known.map(|(_, field)| field.clone()).ok_or_else(|| {
        let names: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
        format!("%GAUZE({name})%: write one of {}", names.join(", "))
    })
}

/// `X?Y`: the header `X`, else the header `Y`; `:path` and the like are no headers.
fn request_part(argument: &str) -> Result<Field, String> {
    let (first, second) =
        argument.split_once('?').map_or((argument, None), |(first, second)| (first, Some(second)));
    let part = |name: &str| match name.to_ascii_lowercase().as_str() {
        ":method" => Some(RequestPart::Method),
        ":path" => Some(RequestPart::Path),
        ":authority" => Some(RequestPart::Authority),
        ":scheme" => Some(RequestPart::Scheme),
        _ => None,
    };
    match (part(first), second.map(|second| (second, part(second)))) {
        (Some(part), None) => Ok(Field::Request(part)),
        (Some(_), Some(_)) => {
            Err(format!("%REQ({argument})%: `{first}` is always there, nothing comes second"))
        }
        (None, Some((_, Some(part)))) => {
            Ok(Field::RequestHeader(HeaderChoice { otherwise: Some(part), ..header_choice(first)? }))
        }
        (None, _) => Ok(Field::RequestHeader(header_choice(argument)?)),
    }
}

fn header_choice(argument: &str) -> Result<HeaderChoice, String> {
    let name =
        |name: &str| HeaderName::try_from(name).map_err(|_| format!("`{name}` is no name of a header"));
    let (first, second) =
        argument.split_once('?').map_or((argument, None), |(first, second)| (first, Some(second)));
    Ok(HeaderChoice { first: name(first)?, second: second.map(name).transpose()?, otherwise: None })
}
