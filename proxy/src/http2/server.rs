//! The server side of an HTTP/2 connection: one task drives it, and each request is a task beside it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response};

use super::outgoing::Upload;
use super::{
    CONNECTION_WINDOW, Incoming, KeepAlive, RESETS_LOCAL_MAX, SEND_BUFFER_MAX, STREAM_WINDOW, Tunnelled,
    settle,
};
use crate::body::Body;
use crate::gather::Gathered;
use crate::h1::server::Payload;
use crate::interim::Interim;
use crate::stream::Stream;

/// Safe limits of a connection from an app or a peer.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Requests at once (SETTINGS_MAX_CONCURRENT_STREAMS).
    pub(crate) streams_max: u32,
    /// Bytes of a head, as SETTINGS_MAX_HEADER_LIST_SIZE counts them.
    pub(crate) header_bytes_max: usize,
    /// Rapid reset (CVE-2023-44487): streams that a client may open and reset before we have looked at them.
    pub(crate) resets_pending_max: usize,
    /// Whether the client is asked now and then if it is still there.
    pub(crate) keeps_alive: bool,
}

/// Serves requests until the connection ends. At `last_call` the client is told to send no more (two GOAWAYs, the
/// second once nothing can be on its way to us), and what is in flight is finished.
///
/// # Errors
/// The connection broke, or the client broke the rules.
pub(crate) async fn serve<B: Payload + 'static>(
    stream: Stream,
    settings: Settings,
    last_call: impl Future<Output = ()>,
    handler: impl AsyncFn(Request<Body>, &Interim) -> Response<B> + 'static,
) -> Result<(), h2::Error> {
    let gathered = Gathered::new(stream);
    let mut connection = gathered.drive(builder(&settings).handshake(gathered.clone())).await?;
    let pings = if settings.keeps_alive { connection.ping_pong() } else { None };
    let mut serving = Serving {
        connection,
        keep_alive: pings.map(KeepAlive::new),
        last_call: Some(pin!(last_call)),
        handler: Rc::new(handler),
    };
    gathered.drive(poll_fn(|cx| serving.poll(cx))).await
}

fn builder(settings: &Settings) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(settings.streams_max)
        .max_header_list_size(u32::try_from(settings.header_bytes_max).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER_MAX)
        .max_pending_accept_reset_streams(settings.resets_pending_max)
        .max_local_error_reset_streams(Some(RESETS_LOCAL_MAX))
        .enable_connect_protocol();
    builder
}

/// A connection, and what is looked at whenever its task runs.
struct Serving<L, H> {
    connection: Connection<Gathered, Bytes>,
    keep_alive: Option<KeepAlive>,
    /// `None`: it was heard.
    last_call: Option<L>,
    handler: Rc<H>,
}

impl<L, H, B> Serving<Pin<&mut L>, H>
where
    L: Future<Output = ()>,
    H: AsyncFn(Request<Body>, &Interim) -> Response<B> + 'static,
    B: Payload + 'static,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond),
                Poll::Ready(ended) => return Poll::Ready(ended.map_or(Ok(()), |ended| ended.map(drop))),
                // What ends it now is to be written.
                Poll::Pending if self.is_to_end(cx) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether it was told just now to end.
    fn is_to_end(&mut self, cx: &mut Context<'_>) -> bool {
        if self.last_call.as_mut().is_some_and(|call| call.as_mut().poll(cx).is_ready()) {
            self.last_call = None;
            self.connection.graceful_shutdown();
            return true;
        }
        if self.keep_alive.as_mut().is_some_and(|keep_alive| keep_alive.poll(cx, true).is_ready()) {
            self.keep_alive = None;
            self.connection.abrupt_shutdown(Reason::NO_ERROR);
            return true;
        }
        false
    }

    fn begin(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        // Boxed: tokio moves a task as a whole, when it makes it and again when it has ended.
        tokio::task::spawn_local(Box::pin(carry(request, respond, Rc::clone(&self.handler))));
    }
}

/// One request and its response. It ends early when the client resets the stream, or is gone.
async fn carry<B: Payload>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    handler: Rc<impl AsyncFn(Request<Body>, &Interim) -> Response<B>>,
) {
    let is_head = request.method() == Method::HEAD;
    let (head, stream) = request.into_parts();
    let (body, tunnel) = match head.method {
        // What such a request names as its length would be bytes of the tunnel (RFC 9110, 9.3.6).
        Method::CONNECT if has_length(&head.headers) => return respond.send_reset(Reason::PROTOCOL_ERROR),
        Method::CONNECT => (Body::Empty, Some(stream)),
        _ => (Incoming::body(stream), None),
    };

    let response = {
        let interim = Interim::default();
        let mut handling = pin!(handler(Request::from_parts(head, body), &interim));
        poll_fn(|cx| {
            let handled = handling.as_mut().poll(cx);
            while let Some(early) = interim.take() {
                // Fails only where the stream is over, which is heard below.
                let _ = respond.send_informational(early);
            }
            match handled {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                Poll::Pending => respond.poll_reset(cx).map(|_| None),
            }
        })
        .await
    };

    let Some(mut response) = response else { return };
    let opened = response.body_mut().take_tunnel();
    let (mut head, body) = response.into_parts();
    let ends = opened.is_none() && (is_head || body.is_end_stream());
    settle(&mut head.headers, &body, false);
    let Ok(stream) = respond.send_response(Response::from_parts(head, ()), ends) else {
        return respond.send_reset(Reason::INTERNAL_ERROR);
    };
    match (opened, tunnel) {
        (Some(opened), Some(tunnel)) => opened.carry_http2(Tunnelled::new(stream, tunnel)).await,
        _ if ends => {}
        _ => {
            let mut upload = Upload::new(stream, body);
            poll_fn(|cx| upload.poll(cx)).await;
        }
    }
}

fn has_length(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}
