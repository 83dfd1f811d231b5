//! Request heads and response heads as values, and how the body behind each is framed.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};

use super::{HEADERS_MAX, Limits, Malformed};

/// A request's head; fields as they came, hop-by-hop ones too.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// Any token.
    pub method: Method,
    /// Origin form, absolute form, authority form (CONNECT only) or `*` (OPTIONS only).
    pub uri: Uri,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// In the order in which they came; values share the head's bytes.
    pub headers: HeaderMap,
    /// [`BodyFraming::Empty`], `Length` or `Chunked`.
    pub body: BodyFraming,
    /// Whether the client may send another request behind this one.
    pub persistent: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// A response's head; fields as they came, hop-by-hop ones too.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: StatusCode,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// In the order in which they came; values share the head's bytes.
    pub headers: HeaderMap,
    /// How the body is framed, whatever the fields of a response without a body say.
    pub body: BodyFraming,
    /// Whether the server may be sent another request when this response has ended.
    pub persistent: bool,
}

/// Where the body of a message ends (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// At the last chunk and its trailers.
    Chunked,
    /// At the end of the connection; responses only.
    UntilClose,
    /// What follows is not HTTP: after 101, and after 2xx to CONNECT.
    Tunnel,
}

/// Reads a whole request head, as long as [`HeadScan::end`](super::HeadScan::end) says. Values share
/// `head`'s bytes.
///
/// # Errors
/// Whatever could be read in two ways, and what exceeds the limits.
pub fn request_head(head: Bytes, limits: &Limits) -> Result<RequestHead, Malformed> {
    let head = if head.starts_with(b"\r\n") { head.slice(2..) } else { head };
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let permitted = &mut fields[..limits.headers.min(HEADERS_MAX)];
    parsed.parse_with_uninit_headers(&head, permitted).map_err(|error| request_error(error, &head))?;
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Malformed::RequestLine);
    };
    if target.len() > limits.uri {
        return Err(Malformed::TargetTooLong);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Malformed::RequestLine)?;
    let uri = target_uri(&method, &head.slice_ref(target.as_bytes()))?;
    let version = version(minor);
    let headers = header_map(parsed.headers, &head)?;
    check_host(&uri, &headers, version)?;
    let body = declared_framing(&headers, version)?.unwrap_or(BodyFraming::Empty);
    if method == Method::CONNECT && !matches!(body, BodyFraming::Empty | BodyFraming::Length(0)) {
        return Err(Malformed::ConnectBody);
    }
    Ok(RequestHead {
        expects_continue: expects_continue(&headers, version, body),
        persistent: persistent(&headers, version),
        method,
        uri,
        version,
        headers,
        body,
    })
}

/// Reads a whole response head, as long as [`HeadScan::end`](super::HeadScan::end) says. Values share
/// `head`'s bytes. `asked` is the method of the request that it answers.
///
/// # Errors
/// Whatever could be read in two ways, and what exceeds the limits.
pub fn response_head(head: Bytes, limits: &Limits, asked: &Method) -> Result<ResponseHead, Malformed> {
    if !head.starts_with(b"HTTP/") {
        return Err(Malformed::StatusLine); // httparse would skip empty lines
    }
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let permitted = &mut fields[..limits.headers.min(HEADERS_MAX)];
    httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, &head, permitted)
        .map_err(|error| response_error(error, &head))?;
    let (Some(status), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(Malformed::StatusLine);
    };
    let status = StatusCode::from_u16(status).map_err(|_| Malformed::StatusLine)?;
    let version = version(minor);
    let mut headers = header_map(parsed.headers, &head)?;
    let declared = declared_framing(&headers, version)?.unwrap_or(BodyFraming::UntilClose);
    let body = response_framing(asked, status, declared);
    let mut ends = !matches!(body, BodyFraming::UntilClose | BodyFraming::Tunnel);
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        // RFC 9110, 8.6: they must not stand there, and not be sent on. Who sends them all the same
        // may send a body too, which nobody must take for the next response.
        ends &= matches!(declared, BodyFraming::UntilClose | BodyFraming::Length(0));
        headers.remove(CONTENT_LENGTH);
        headers.remove(TRANSFER_ENCODING);
    }
    Ok(ResponseHead { persistent: ends && persistent(&headers, version), status, version, headers, body })
}

fn version(minor: u8) -> Version {
    if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 }
}

fn request_error(error: httparse::Error, head: &[u8]) -> Malformed {
    match error {
        httparse::Error::Version if names_a_version(head) => Malformed::Version,
        other => field_error(other, head).unwrap_or(Malformed::RequestLine),
    }
}

fn response_error(error: httparse::Error, head: &[u8]) -> Malformed {
    match error {
        httparse::Error::Version => Malformed::Version,
        other => field_error(other, head).unwrap_or(Malformed::StatusLine),
    }
}

/// What is wrong behind the first line; `None`: nothing, the first line is.
pub(super) fn field_error(error: httparse::Error, head: &[u8]) -> Option<Malformed> {
    let folded = || head.windows(2).any(|pair| matches!(pair, b"\n " | b"\n\t"));
    match error {
        httparse::Error::TooManyHeaders => Some(Malformed::TooManyFields),
        httparse::Error::HeaderName | httparse::Error::HeaderValue if folded() => {
            Some(Malformed::FoldedField)
        }
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Some(Malformed::Field),
        _ => None,
    }
}

/// Whether the request line has three words, the last of which is some `HTTP/<digit>.<digit>`.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(_), Some(_), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    let digits = version.strip_prefix(b"HTTP/").unwrap_or_default();
    matches!(digits, [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

pub(super) fn header_map(fields: &[httparse::Header<'_>], head: &Bytes) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Field)?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
        headers.append(name, value.map_err(|_| Malformed::Field)?);
    }
    Ok(headers)
}

/// RFC 9112, 3.2: the form of the target that belongs to the method.
fn target_uri(method: &Method, target: &Bytes) -> Result<Uri, Malformed> {
    // `http` would drop a fragment in silence; the others no URI may contain.
    if !target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        return Err(Malformed::Target);
    }
    let uri = Uri::from_maybe_shared(target.clone()).map_err(|_| Malformed::Target)?;
    let right_form = match target.first() {
        _ if method == Method::CONNECT => is_host_and_port(target),
        Some(b'/') => true,
        Some(b'*') => method == Method::OPTIONS && target.len() == 1,
        _ => is_absolute(&uri),
    };
    if right_form { Ok(uri) } else { Err(Malformed::Target) }
}

fn is_absolute(uri: &Uri) -> bool {
    let known_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    known_scheme && uri.authority().is_some_and(|authority| is_host(authority.as_str().as_bytes()))
}

/// RFC 9112, 3.2.3: a tunnel has no default port.
fn is_host_and_port(text: &[u8]) -> bool {
    is_host(text) && split_port(text).1.is_some_and(|port| !port.is_empty())
}

/// RFC 9110, 7.2: a host and perhaps a port; never user information, never empty.
fn is_host(text: &[u8]) -> bool {
    let (host, port) = split_port(text);
    let port_is_number = port.is_none_or(|port| {
        port.iter().all(u8::is_ascii_digit) && (port.is_empty() || parse_number::<u16>(port).is_some())
    });
    port_is_number && (is_ipv6_literal(host) || is_registered_name(host))
}

fn split_port(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let colon = text.iter().rposition(|byte| matches!(byte, b':' | b']')).filter(|at| text[*at] == b':');
    match colon {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn is_ipv6_literal(host: &[u8]) -> bool {
    let inner = host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    inner
        .and_then(|inner| std::str::from_utf8(inner).ok())
        .is_some_and(|it| it.parse::<std::net::Ipv6Addr>().is_ok())
}

/// RFC 3986, 3.2.2: `reg-name`, which an IPv4 address is too.
fn is_registered_name(host: &[u8]) -> bool {
    !host.is_empty()
        && host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte))
}

/// RFC 9112, 3.2 and 3.2.2: exactly one Host (HTTP/1.0 may have none), and it agrees with the target.
fn check_host(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<(), Malformed> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        return if version == Version::HTTP_10 { Ok(()) } else { Err(Malformed::HostMissing) };
    };
    if hosts.next().is_some() {
        return Err(Malformed::HostRepeated);
    }
    if !is_host(host.as_bytes()) {
        return Err(Malformed::HostInvalid);
    }
    let Some(authority) = uri.authority() else {
        return Ok(());
    };
    let target = without_default_port(authority.as_str().as_bytes(), uri.scheme_str());
    let host = without_default_port(host.as_bytes(), uri.scheme_str());
    if host.eq_ignore_ascii_case(target) { Ok(()) } else { Err(Malformed::HostDiffers) }
}

fn without_default_port<'t>(text: &'t [u8], scheme: Option<&str>) -> &'t [u8] {
    match (split_port(text), scheme) {
        ((host, Some(b"80" | b"")), Some("http")) | ((host, Some(b"443" | b"")), Some("https")) => host,
        _ => text,
    }
}

/// RFC 9112, 6.3, without what method and status say: `None` if the fields say nothing.
fn declared_framing(headers: &HeaderMap, version: Version) -> Result<Option<BodyFraming>, Malformed> {
    let length = content_length(headers)?;
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(length.map(BodyFraming::Length));
    }
    if version == Version::HTTP_10 {
        return Err(Malformed::CodingInHttp10);
    }
    if length.is_some() {
        return Err(Malformed::LengthBesideCoding);
    }
    let mut codings = list(headers, &TRANSFER_ENCODING);
    if codings.any(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
        return Err(Malformed::CodingUnknown);
    }
    match list(headers, &TRANSFER_ENCODING).count() {
        1 => Ok(Some(BodyFraming::Chunked)),
        _ => Err(Malformed::CodingRepeated),
    }
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Ok(None);
    };
    if lengths.next().is_some() {
        return Err(Malformed::LengthRepeated);
    }
    parse_number(length.as_bytes()).map(Some).ok_or(Malformed::LengthInvalid)
}

/// `1*DIGIT`, nothing else: `str::parse` would take a sign.
fn parse_number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    let text = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit))?;
    text.parse().ok()
}

/// RFC 9112, 6.3, rules 1 and 2: responses that have no body whatever their fields say.
fn response_framing(asked: &Method, status: StatusCode, declared: BodyFraming) -> BodyFraming {
    match status {
        StatusCode::SWITCHING_PROTOCOLS => BodyFraming::Tunnel,
        _ if status.is_informational() => BodyFraming::Empty,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => BodyFraming::Empty,
        _ if asked == Method::HEAD => BodyFraming::Empty,
        _ if asked == Method::CONNECT && status.is_success() => BodyFraming::Tunnel,
        _ => declared,
    }
}

/// RFC 9112, 9.3.
fn persistent(headers: &HeaderMap, version: Version) -> bool {
    let says = |option: &[u8]| list(headers, &CONNECTION).any(|it| it.eq_ignore_ascii_case(option));
    !says(b"close") && (version == Version::HTTP_11 || says(b"keep-alive"))
}

/// RFC 9110, 10.1.1: of no meaning in HTTP/1.0, or without a body.
fn expects_continue(headers: &HeaderMap, version: Version, body: BodyFraming) -> bool {
    let asked =
        headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    asked && version == Version::HTTP_11 && body != BodyFraming::Empty
}

/// RFC 9110, 5.6.1: the members of a list field that may stand in several lines.
fn list<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let members = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}
