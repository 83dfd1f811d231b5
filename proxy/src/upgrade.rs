//! Requests that leave HTTP, and the bytes that follow them: `Upgrade` (RFC 9110, 7.8: WebSocket and others), CONNECT
//! (RFC 9110, 9.3.6) and extended CONNECT (RFC 8441: WebSocket over HTTP/2). Such a request takes the path of every
//! other. If the endpoint answers with 101, or with 200 to a CONNECT, the response has a [`Tunnel`] in place of a body, and
//! whoever has written its head to the client carries it. Until then nothing behind the client's head goes anywhere.
//!
//! Where a tunnel leads is decided as for any request, never by what a CONNECT names. Bytes are carried as those of opaque
//! connections are (`tcp`). HTTP/2 offered by `Upgrade: h2c` is passed over, as every server may (RFC 9113, 3.1).

use std::any::Any;
use std::fmt;
use std::rc::Rc;

use gauze_model::authorization::Http;
use h2::ext::Protocol;
use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};

use crate::answer::Held;
use crate::caller::FromPeer;
use crate::headers::{lists, members};
use crate::http2::Tunnelled;
use crate::record::Record;
use crate::stream::Stream;
use crate::tcp;
use crate::worker::Worker;

/// How a request asks to leave HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By `Upgrade` of HTTP/1.1: the protocols that it offers.
    Upgrade(HeaderValue),
    /// By CONNECT; in HTTP/2 perhaps for this protocol.
    Connect(Option<Protocol>),
}

/// A request that asks to leave HTTP, and what is asked of it again while its tunnel is open.
pub(crate) struct Leaving {
    pub(crate) way: Way,
    worker: Rc<Worker>,
    /// Inbound: who asked for what, as it was judged.
    judged: Option<(Rc<FromPeer>, Method, Uri)>,
}

/// The way to the server, which has answered that it leaves HTTP; bytes that came behind its head are still in it.
pub struct Opened {
    stream: Stream,
    _connection: Option<Box<dyn Any>>,
}

/// Both ends of what was HTTP, but for the client's, which comes when it has heard of it; and all that the request holds.
pub struct Tunnel {
    leaving: Box<Leaving>,
    server: Box<Opened>,
    record: Record,
    _held: Option<Held>,
}

impl Way {
    /// How this request, as it arrived, asks to leave HTTP.
    pub(crate) fn asked(head: &Parts) -> Option<Way> {
        if head.method == Method::CONNECT {
            return Some(Way::Connect(head.extensions.get::<Protocol>().cloned()));
        }
        // RFC 9110, 7.8: in HTTP/1.0 it means nothing. In HTTP/2 it does not occur.
        if head.version != Version::HTTP_11 { None } else { offered(&head.headers).map(Way::Upgrade) }
    }

    /// The protocols that an `Upgrade` offers.
    pub(crate) fn offer(&self) -> Option<&HeaderValue> {
        match self {
            Way::Upgrade(offer) => Some(offer),
            Way::Connect(_) => None,
        }
    }

    /// Whether the response keeps to what was offered.
    pub(crate) fn is_taken_up(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        match self {
            Way::Connect(_) => status.is_success(),
            Way::Upgrade(offer) => {
                let offered =
                    |taken: &[u8]| members(offer).any(|offered| offered.eq_ignore_ascii_case(taken));
                let mut taken = headers.get_all(UPGRADE).iter().flat_map(members).peekable();
                status == StatusCode::SWITCHING_PROTOCOLS
                    && lists(headers, &CONNECTION, b"upgrade")
                    && taken.peek().is_some()
                    && taken.all(offered)
            }
        }
    }
}

/// The protocols that a client offers, without those that we pass over.
fn offered(headers: &HeaderMap) -> Option<HeaderValue> {
    if !headers.contains_key(UPGRADE) || !lists(headers, &CONNECTION, b"upgrade") {
        return None;
    }
    let protocols = headers.get_all(UPGRADE).iter().flat_map(members).filter(|protocol| !is_http(protocol));
    let protocols: Vec<_> = protocols.collect();
    HeaderValue::from_bytes(&protocols.join(&b", "[..])).ok().filter(|offer| !offer.is_empty())
}

/// Whether a protocol is another version of HTTP: `h2c`, `HTTP/2.0`.
fn is_http(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
    [&b"h2c"[..], b"h2", b"http"].iter().any(|http| http.eq_ignore_ascii_case(name))
}

impl Leaving {
    /// What a request asks for, if it asks to leave HTTP; mostly it does not.
    pub(crate) fn of(head: &Parts, worker: &Rc<Worker>, from: Option<&Rc<FromPeer>>) -> Option<Box<Leaving>> {
        let way = Way::asked(head)?;
        let judged = from.map(|from| (Rc::clone(from), head.method.clone(), head.uri.clone()));
        Some(Box::new(Leaving { way, worker: Rc::clone(worker), judged }))
    }
}

impl Opened {
    /// `connection` is what counts the server's connection while it is open.
    pub(crate) fn new(stream: Stream, connection: Option<Box<dyn Any>>) -> Opened {
        Opened { stream, _connection: connection }
    }
}

#[cfg(test)]
impl Opened {
    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opened").field(&self.stream).finish()
    }
}

impl Tunnel {
    pub(crate) fn new(
        leaving: Box<Leaving>,
        server: Box<Opened>,
        record: Record,
        held: Option<Held>,
    ) -> Tunnel {
        Tunnel { leaving, server, record, _held: held }
    }

    /// Carries bytes both ways until both sides have ended, or the caller may not stay.
    pub(crate) async fn carry(mut self: Box<Self>, mut client: Stream) {
        let Tunnel { leaving, server, record, .. } = &mut *self;
        let Leaving { worker, judged, .. } = &**leaving;
        let carrying = tcp::carry(&worker.proxy, &mut client, &mut server.stream, record);
        let Some((from, method, uri)) = judged else { return carrying.await };
        let http = Some(Http { method: method.as_str(), path: uri.path() });
        tokio::select! {
            () = carrying => {}
            verdict = from.expelled(http) => {
                if let Err(refusal) = verdict.tell(&from.told(http), record) {
                    tracing::info!(%refusal, source = %record.source, "a tunnel was closed");
                }
            }
        }
    }

    /// The same for a client of HTTP/2.
    pub(crate) async fn carry_http2(self: Box<Self>, client: Tunnelled) {
        let (near, far) = (self.record.destination, self.record.source);
        self.carry(Stream::over_http2(client, near, far)).await;
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn asked(method: &str, version: Version, fields: &[(&str, &str)]) -> Option<Way> {
        let mut request = Request::builder().method(method).uri("http://x/").version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        Way::asked(&request.body(()).unwrap().into_parts().0)
    }

    fn upgrade(to: &'static str) -> Option<Way> {
        Some(Way::Upgrade(HeaderValue::from_static(to)))
    }

    #[test]
    fn a_request_leaves_http_only_if_it_asks_for_that_in_full() {
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        let websocket = ("upgrade", "websocket");
        for (what, method, version, fields, wanted) in [
            ("WebSocket", "GET", new, &[("connection", "Upgrade"), websocket][..], upgrade("websocket")),
            (
                "among others",
                "GET",
                new,
                &[("connection", "keep-alive, upgrade"), websocket],
                upgrade("websocket"),
            ),
            ("Connection says nothing of it", "GET", new, &[("connection", "keep-alive"), websocket], None),
            ("no Connection", "GET", new, &[websocket], None),
            ("no protocol", "GET", new, &[("connection", "upgrade")], None),
            ("an empty one", "GET", new, &[("connection", "upgrade"), ("upgrade", " ,")], None),
            ("HTTP/1.0", "GET", old, &[("connection", "upgrade"), websocket], None),
            (
                "HTTP/2 alone",
                "GET",
                new,
                &[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")],
                None,
            ),
            (
                "HTTP/2 by its other name",
                "GET",
                new,
                &[("connection", "upgrade"), ("upgrade", "HTTP/2.0")],
                None,
            ),
            (
                "HTTP/2 and another, in two lines",
                "POST",
                new,
                &[("connection", "upgrade"), ("upgrade", "h2c, websocket"), ("upgrade", "x/1")],
                upgrade("websocket, x/1"),
            ),
            ("CONNECT", "CONNECT", new, &[], Some(Way::Connect(None))),
            ("CONNECT of HTTP/1.0", "CONNECT", old, &[], Some(Way::Connect(None))),
        ] {
            assert_eq!(asked(method, version, fields), wanted, "{what}");
        }
    }

    #[test]
    fn a_protocol_begins_only_if_it_was_offered_and_the_whole_answer_says_so() {
        let way = upgrade("websocket, x/1").unwrap();
        for (what, status, fields, wanted) in [
            ("one of them", 101, &[("connection", "upgrade"), ("upgrade", "WebSocket")][..], true),
            ("both", 101, &[("connection", "upgrade"), ("upgrade", "x/1, websocket")], true),
            ("another one", 101, &[("connection", "upgrade"), ("upgrade", "y")], false),
            (
                "one that was offered and one that was not",
                101,
                &[("connection", "upgrade"), ("upgrade", "x/1, y")],
                false,
            ),
            ("none", 101, &[("connection", "upgrade")], false),
            ("no Connection", 101, &[("upgrade", "websocket")], false),
            ("another status", 200, &[("connection", "upgrade"), ("upgrade", "websocket")], false),
        ] {
            let headers = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            let headers: HeaderMap = headers.collect();
            assert_eq!(way.is_taken_up(StatusCode::from_u16(status).unwrap(), &headers), wanted, "{what}");
        }
    }
}
