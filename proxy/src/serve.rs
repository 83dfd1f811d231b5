//! Serves HTTP on an accepted connection: our own codec for HTTP/1, hyper for HTTP/2. When draining
//! begins, or before the leaf of a mesh connection expires, the client is told to go elsewhere
//! (`Connection: close`, GOAWAY), and what is in flight is finished.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use futures_util::FutureExt;
use gauze_model::framing;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::body::Body;
use crate::caller::Caller;
use crate::connect::{self, CONNECTION_WINDOW, LocalTasks, PING_INTERVAL, PING_TIMEOUT, STREAM_WINDOW};
use crate::h1;
use crate::settings::LimitSettings;
use crate::stream::Stream;
use crate::worker::Worker;

/// Rapid reset (CVE-2023-44487): streams that a client outside the mesh may open and reset before we have
/// looked at them. A peer carries many clients, who may all give up at once: as many as its streams.
const RESETS_PENDING_MAX: usize = 20;

/// Streams that we may have to reset for a client's errors before its connection is ended.
const RESETS_LOCAL_MAX: usize = 1024;

/// Serves HTTP/1.x until the connection ends.
///
/// # Errors
/// The connection broke, or the client broke the rules and was told.
pub(crate) fn http1(caller: Caller, stream: Stream) -> impl Future<Output = io::Result<()>> {
    let worker = Rc::clone(caller.worker());
    let caller = Rc::new(caller);
    let carrier = Rc::clone(&caller);
    let settings = Rc::clone(&worker.http1);
    let until = until(worker, connect::dismiss_at(&stream));
    let served =
        h1::server::serve(stream, settings, until, async move |request| carrier.carry(request).await);
    // No `async` block: it would keep room for what it was made from, in each idle connection.
    served.map(move |served| {
        if let Err(h1::server::ServeError::Refused(refusal)) = &served {
            caller.refused(refusal);
        }
        served.map_err(io::Error::other)
    })
}

/// Serves HTTP/2 until the connection ends.
///
/// # Errors
/// The connection broke, or the client broke the rules.
pub(crate) async fn http2(caller: Caller, stream: Stream) -> io::Result<()> {
    let worker = Rc::clone(caller.worker());
    let until = pin!(until(Rc::clone(&worker), connect::dismiss_at(&stream)));
    let builder = http2_builder(&worker.proxy.settings.limits, caller.streams_max(), stream.mesh().is_some());
    let caller = Rc::new(caller);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let caller = Rc::clone(&caller);
        async move { Ok::<_, Infallible>(caller.carry(request.map(Body::from)).await) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = until => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    served.map_err(io::Error::other)
}

fn http2_builder(limits: &LimitSettings, streams_max: u32, is_mesh: bool) -> http2::Builder<LocalTasks> {
    let mut builder = http2::Builder::new(LocalTasks);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(if is_mesh { streams_max as usize } else { RESETS_PENDING_MAX })
        .max_local_error_reset_streams(RESETS_LOCAL_MAX)
        .auto_date_header(false);
    if is_mesh {
        builder.keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_TIMEOUT);
    }
    builder
}

pub(crate) fn http1_settings(limits: &LimitSettings) -> h1::server::Settings {
    h1::server::Settings {
        limits: framing_limits(limits),
        header_timeout: limits.header_read_timeout,
        idle_timeout: limits.stream_idle_timeout,
        ..h1::server::Settings::default()
    }
}

pub(crate) fn framing_limits(limits: &LimitSettings) -> framing::Limits {
    framing::Limits {
        header_bytes: limits.header_bytes_max,
        headers: limits.headers_max,
        uri: limits.uri_bytes_max,
    }
}

/// Completes when the connection should take no more requests.
async fn until(worker: Rc<Worker>, dismiss_at: Option<Instant>) {
    let Some(at) = dismiss_at else { return worker.drained().await };
    let retired = Box::pin(tokio::time::sleep_until(at.into()));
    tokio::select! {
        () = worker.drained() => {}
        () = retired => {}
    }
}
