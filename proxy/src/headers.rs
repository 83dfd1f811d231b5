//! Headers at the edges of the mesh: what ends at a hop, what only a proxy may say, what ties the
//! requests of one call together. Pure functions over `HeaderMap`; trace headers (W3C `traceparent`,
//! `tracestate`, `baggage`, and B3) are ordinary headers and pass as they are.

use std::net::SocketAddr;

use bytes::Bytes;
use gauze_model::Code;
use gauze_model::cluster::Workload;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Response, StatusCode, Uri, Version};
use http_body::Frame;

use crate::record::REQUEST_ID;
use crate::refusal::Refusal;
use crate::settings::LimitSettings;

/// The code of a refusal, in every response that a proxy made itself.
pub(crate) const GAUZE_ERROR: HeaderName = HeaderName::from_static("gauze-error");

/// No byte of the request reached the app; between proxies only.
pub(crate) const GAUZE_NOT_DELIVERED: HeaderName = HeaderName::from_static("gauze-not-delivered");

/// What a sidecar says of itself to the other sidecar; believed only over mesh TLS.
pub(crate) const GAUZE_PEER: HeaderName = HeaderName::from_static("gauze-peer");

/// All headers of this prefix and a dash are the proxies' own. An underscore is as good: many servers show apps no
/// difference (CGI, RFC 3875, 4.1.18).
const OURS: &[u8] = b"gauze";

/// By what other meshes tell an app who calls; whoever writes it here is no proxy.
const CLIENT_CERTIFICATE: &[u8] = b"x-forwarded-client-cert";

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PROXY_AUTHENTICATE: HeaderName = HeaderName::from_static("proxy-authenticate");
const PROXY_AUTHORIZATION: HeaderName = HeaderName::from_static("proxy-authorization");

/// What ends at this hop even if `Connection` does not name it (RFC 9110, 7.6.1). `TE` and
/// `Transfer-Encoding` are looked at one by one; the proxy authentication is between us and nobody.
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Makes the head of a request that arrives one that may go on: cleared of what is not for the next hop
/// and of what only a proxy may say. Without a host it is for the address that was dialled.
///
/// # Errors
/// The host is no authority.
pub(crate) fn arrive(
    head: &mut Parts,
    dialled: SocketAddr,
    draw_id: impl FnOnce() -> u128,
) -> Result<(), Refusal> {
    strip_ours(&mut head.headers);
    strip_hop_by_hop(&mut head.headers);
    settle_authority(head, dialled)?;
    ensure_request_id(&mut head.headers, draw_id);
    Ok(())
}

/// Makes the response of an endpoint one that goes back to the client. What a peer's proxy says of
/// itself stays; apps and hosts outside the mesh have nothing to say in its name. The name of a protocol that
/// begins now goes all the way.
pub(crate) fn go_back<B>(response: &mut Response<B>, is_from_mesh: bool) {
    let begins = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = if begins { response.headers_mut().remove(UPGRADE) } else { None };
    strip_hop_by_hop(response.headers_mut());
    response.headers_mut().extend(protocol.map(|protocol| (UPGRADE, protocol)));
    response.headers_mut().remove(GAUZE_NOT_DELIVERED);
    if !is_from_mesh {
        strip_ours(response.headers_mut());
    }
}

/// Removes what is meant for one hop only.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        for name in named_by_connection(headers) {
            headers.remove(name);
        }
    }
    // Most messages have none of them: one look at each name costs less than seven searches.
    while let Some(name) = headers.keys().find(|name| HOP_BY_HOP.contains(name)).cloned() {
        headers.remove(name);
    }
    keep_only_trailers_of_te(headers);
}

/// What `Connection` names; never what says how the message is framed or where it goes, else a
/// client could have us remove those (RFC 9110, 7.6.1: end-to-end fields are no connection options).
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .filter(|name| ![HOST, TE, TRAILER, CONTENT_LENGTH].contains(name))
        .collect()
}

/// `TE: trailers` is what gRPC servers ask for, and HTTP/2 permits nothing else (RFC 9113, 8.2.2).
fn keep_only_trailers_of_te(headers: &mut HeaderMap) {
    let Some(value) = headers.get(TE) else { return };
    if value == "trailers" {
        return;
    }
    let wants = value
        .to_str()
        .is_ok_and(|codings| codings.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")));
    if wants {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(TE);
    }
}

/// Whether one of the members of a list field is this one.
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, member: &[u8]) -> bool {
    headers.get_all(name).iter().flat_map(members).any(|listed| listed.eq_ignore_ascii_case(member))
}

/// The members of a line of a list field (RFC 9110, 5.6.1).
pub(crate) fn members(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let members = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

/// Removes what only a proxy may say, from an app or from outside.
pub(crate) fn strip_ours(headers: &mut HeaderMap) {
    while let Some(name) = headers.keys().find(|name| only_a_proxy_says(name)).cloned() {
        headers.remove(name);
    }
}

fn only_a_proxy_says(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let is_dash = |byte: u8| matches!(byte, b'-' | b'_');
    let is_like = |(byte, wanted): (&u8, &u8)| byte == wanted || is_dash(*byte) && is_dash(*wanted);
    name.strip_prefix(OURS).is_some_and(|rest| rest.first().is_some_and(|byte| is_dash(*byte)))
        || name.len() == CLIENT_CERTIFICATE.len() && name.iter().zip(CLIENT_CERTIFICATE).all(is_like)
}

/// Takes out of trailers what must not stand there (RFC 9110, 6.5.1): what says how a message is framed, where it
/// goes, or who sends it; a server that takes them for headers would believe it.
pub(crate) fn cleanse_trailers(frame: &mut Frame<Bytes>) {
    let Some(trailers) = frame.trailers_mut() else { return };
    strip_ours(trailers);
    strip_hop_by_hop(trailers);
    trailers.remove(HOST);
    trailers.remove(CONTENT_LENGTH);
}

/// Gives the request an id if it has none (Envoy's header; a random UUID, RFC 9562, 5.4).
pub(crate) fn ensure_request_id(headers: &mut HeaderMap, draw: impl FnOnce() -> u128) {
    if headers.contains_key(REQUEST_ID) {
        return;
    }
    let bits = draw() & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let mut id = HeaderValue::from_bytes(&write_uuid(bits)).expect("hexadecimal digits and dashes");
    // Never the same again: in the tables of HPACK it would only drive out what is (RFC 7541, 7.1.3).
    id.set_sensitive(true);
    headers.insert(REQUEST_ID, id);
}

/// RFC 9562, 4: groups of 8, 4, 4, 4 and 12 digits.
fn write_uuid(bits: u128) -> [u8; 36] {
    let mut id = [b'-'; 36];
    let mut digits = (0..32).rev().map(|place| b"0123456789abcdef"[(bits >> (4 * place)) as usize & 0xf]);
    for group in [0..8, 9..13, 14..18, 19..23, 24..36] {
        for place in group {
            id[place] = digits.next().unwrap_or(b'0');
        }
    }
    id
}

/// Writes where a request goes into its URI and nowhere else, whatever version it came in: HTTP/2 takes
/// it from there, and our HTTP/1 codec makes it `Host` again.
///
/// # Errors
/// The host is no authority.
pub(crate) fn settle_authority(head: &mut Parts, dialled: SocketAddr) -> Result<(), Refusal> {
    let host = head.headers.remove(HOST);
    if head.uri.authority().is_some() {
        return Ok(());
    }
    let authority = match host {
        Some(host) => Authority::try_from(host.as_bytes()),
        None => Authority::try_from(dialled.to_string()),
    };
    let authority =
        authority.map_err(|_| Refusal::new(Code::BAD_HOST, "the Host header is no host and port"))?;
    set_target(head, Some(authority), None);
    Ok(())
}

/// Replaces the authority or the path of a request, or both.
pub(crate) fn set_target(head: &mut Parts, authority: Option<Authority>, path: Option<PathAndQuery>) {
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.authority = authority.or(parts.authority);
    parts.path_and_query = path.or(parts.path_and_query);
    if parts.authority.is_some() {
        parts.scheme.get_or_insert(Scheme::HTTP);
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    }
    head.uri = Uri::from_parts(parts).expect("with an authority, a scheme and a path are there too");
}

/// Holds an HTTP/2 request to what our HTTP/1 codec sees to by itself. A peer's sidecar has held its app to the same
/// limits, and has added a little.
///
/// # Errors
/// It exceeds a limit, or could be read in two ways.
pub(crate) fn within_limits(head: &Parts, limits: &LimitSettings, is_from_mesh: bool) -> Result<(), Refusal> {
    let path = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    if path > limits.uri_bytes_max {
        return Err(Refusal::new(Code::URI_TOO_LONG, format!("more than {} bytes", limits.uri_bytes_max)));
    }
    let (added_fields, added_bytes) = if is_from_mesh { ADDED_BY_A_SIDECAR } else { (0, 0) };
    let too_large = |what: String| Err(Refusal::new(Code::HEADERS_TOO_LARGE, what));
    if head.headers.len() > limits.headers_max + added_fields {
        return too_large(format!("more than {} headers", limits.headers_max));
    }
    if head.version != Version::HTTP_2 {
        return Ok(());
    }
    if size(head) > limits.header_bytes_max + added_bytes {
        return too_large(format!("more than {} bytes", limits.header_bytes_max));
    }
    target_is_sound(head)
}

/// RFC 9113, 8.3.1: what the library lets pass of target and host.
fn target_is_sound(head: &Parts) -> Result<(), Refusal> {
    if head.uri.path() == "*" && head.method != Method::OPTIONS {
        return Err(Refusal::new(Code::BAD_REQUEST, "`*` is the target of OPTIONS alone"));
    }
    let Some(authority) = head.uri.authority().map(Authority::as_str) else { return Ok(()) };
    if authority.contains('@') {
        return Err(Refusal::new(Code::BAD_HOST, "the authority has user information"));
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    if hosts.any(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) {
        return Err(Refusal::new(Code::BAD_HOST, "Host and :authority name different hosts"));
    }
    Ok(())
}

/// Fields and bytes that a sidecar adds at most: who it is, an id, a deadline.
const ADDED_BY_A_SIDECAR: (usize, usize) = (8, 4096);

/// The bytes of a head, as HTTP/1 would write it.
fn size(head: &Parts) -> usize {
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    let path = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    head.method.as_str().len() + path + fields.sum::<usize>()
}

/// Whether the request is a gRPC call: its refusals carry a gRPC status.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.starts_with(b"application/grpc") && matches!(kind.get(16), None | Some(b'+' | b';'))
    })
}

/// What a peer says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerHeader {
    pub(crate) workload: Workload,
    /// What its app spoke; the app here is spoken to likewise.
    pub(crate) version: Option<Version>,
}

impl PeerHeader {
    /// `ns=shop;pod=web-0;app=web;version=v1;protocol=http/1.1`.
    pub(crate) fn to_value(&self) -> Option<HeaderValue> {
        let Workload { namespace, pod, app, version, uid: _ } = &self.workload;
        let protocol = match self.version {
            Some(Version::HTTP_2) => "h2",
            Some(Version::HTTP_10) => "http/1.0",
            _ => "http/1.1",
        };
        let value = format!("ns={namespace};pod={pod};app={app};version={version};protocol={protocol}");
        HeaderValue::try_from(value).ok()
    }

    /// Reads the header leniently: fields that are not known are for later versions.
    pub(crate) fn read(value: &HeaderValue) -> PeerHeader {
        let mut peer = PeerHeader::default();
        let fields = value.to_str().unwrap_or_default().split(';').filter_map(|field| field.split_once('='));
        for (key, value) in fields {
            match key {
                "ns" => peer.workload.namespace = value.to_owned(),
                "pod" => peer.workload.pod = value.to_owned(),
                "app" => peer.workload.app = value.to_owned(),
                "version" => peer.workload.version = value.to_owned(),
                "protocol" => peer.version = version_of(value),
                _ => {}
            }
        }
        peer
    }
}

fn version_of(protocol: &str) -> Option<Version> {
    match protocol {
        "h2" => Some(Version::HTTP_2),
        "http/1.1" => Some(Version::HTTP_11),
        "http/1.0" => Some(Version::HTTP_10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        pairs.collect::<Vec<(HeaderName, HeaderValue)>>().into_iter().collect()
    }

    #[test]
    fn what_is_meant_for_one_hop_ends_there() {
        for (what, before, after) in [
            (
                "the usual ones",
                vec![("connection", "keep-alive"), ("keep-alive", "5"), ("a", "b")],
                vec![("a", "b")],
            ),
            (
                "what Connection names",
                vec![("connection", "close, X-Hop"), ("x-hop", "1"), ("x", "2")],
                vec![("x", "2")],
            ),
            (
                "but not the framing",
                vec![("connection", "content-length"), ("content-length", "3")],
                vec![("content-length", "3")],
            ),
            (
                "an upgrade",
                vec![("connection", "upgrade"), ("upgrade", "h2c"), ("http2-settings", "x")],
                vec![("http2-settings", "x")],
            ),
            ("te as gRPC needs it stays", vec![("te", "trailers")], vec![("te", "trailers")]),
            ("te keeps trailers only", vec![("te", "gzip, Trailers")], vec![("te", "trailers")]),
            ("te without trailers goes", vec![("te", "gzip")], vec![]),
            (
                "trace headers pass",
                vec![("traceparent", "00-a-b-01"), ("b3", "0")],
                vec![("traceparent", "00-a-b-01"), ("b3", "0")],
            ),
        ] {
            let mut map = headers(&before);
            strip_hop_by_hop(&mut map);
            assert_eq!(map, headers(&after), "{what}");
        }
    }

    #[test]
    fn only_proxies_speak_for_the_mesh() {
        let mine = [("gauze", "mine"), ("gauzelle", "mine"), ("x-forwarded-client", "mine"), ("a", "b")];
        let others = [
            ("gauze-peer", "ns=admin"),
            ("Gauze-Error", "M3001"),
            ("gauze_peer", "ns=admin"),
            ("X-Forwarded-Client-Cert", "By=spiffe://a"),
            ("x_forwarded-client_cert", "By=spiffe://a"),
        ];
        let mut map = headers(&[&mine[..], &others].concat());
        strip_ours(&mut map);
        assert_eq!(map, headers(&mine));
    }

    #[test]
    fn trailers_say_nothing_of_framing_routing_or_identity() {
        let names =
            ["content-length", "host", "transfer-encoding", "connection", "gauze-peer", "grpc-status"];
        let mut frame = Frame::trailers(headers(&names.map(|name| (name, "0"))));
        cleanse_trailers(&mut frame);
        assert_eq!(frame.trailers_ref(), Some(&headers(&[("grpc-status", "0")])));
    }

    #[test]
    fn a_request_id_is_made_if_it_is_absent() {
        let mut map = HeaderMap::new();
        ensure_request_id(&mut map, || u128::MAX);
        assert_eq!(map, headers(&[("x-request-id", "ffffffff-ffff-4fff-bfff-ffffffffffff")]));
        let mut map = headers(&[("x-request-id", "mine")]);
        ensure_request_id(&mut map, || unreachable!());
        assert_eq!(map, headers(&[("x-request-id", "mine")]));
    }

    #[test]
    fn the_authority_stands_in_the_uri_alone() {
        for (uri, host, wanted) in [
            ("/items?a=1", Some("cart:80"), Ok("http://cart:80/items?a=1")),
            ("http://cart/items", Some("cart"), Ok("http://cart/items")),
            ("/", None, Ok("http://10.96.0.12:80/")),
            ("/", Some("a b"), Err(Code::BAD_HOST)),
        ] {
            let mut request = http::Request::builder().uri(uri);
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            let mut head = request.body(()).unwrap().into_parts().0;
            let settled =
                settle_authority(&mut head, "10.96.0.12:80".parse().unwrap()).map(|()| head.uri.to_string());
            assert_eq!(settled.as_deref().map_err(|refusal| refusal.code), wanted, "{uri} {host:?}");
            assert!(!head.headers.contains_key(HOST));
        }
    }

    #[test]
    fn a_peer_is_read_as_it_was_written() {
        let workload = Workload {
            namespace: "shop".into(),
            pod: "web-0".into(),
            app: "web".into(),
            version: "v1".into(),
            uid: String::new(),
        };
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            let peer = PeerHeader { workload: workload.clone(), version: Some(version) };
            assert_eq!(PeerHeader::read(&peer.to_value().unwrap()), peer);
        }
        let later = HeaderValue::from_static("ns=shop;zone=a;protocol=h3;nonsense");
        let wanted = Workload { namespace: "shop".into(), ..Workload::default() };
        assert_eq!(PeerHeader::read(&later), PeerHeader { workload: wanted, version: None });
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (kind, wanted) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;v=1", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&headers(&[("content-type", kind)])), wanted, "{kind}");
        }
    }
}
