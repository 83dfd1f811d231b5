//! Serves HTTP on an accepted connection: our own codec for HTTP/1, the `h2` crate for HTTP/2. When draining
//! begins, at the end, or before the leaf of a mesh connection expires, the client is told to go elsewhere
//! (`Connection: close`; two GOAWAYs, the second once nothing can be on its way to us), and what is in flight
//! is finished.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use futures_util::{FutureExt, Stream, StreamExt, stream};
use gauze_model::{Code, framing};
use tokio::sync::Notify;

use crate::caller::Caller;
use crate::connect;
use crate::drain::Stage;
use crate::h1;
use crate::h1::server::Closing;
use crate::http2;
use crate::interim::Interim;
use crate::refusal::Refusal;
use crate::settings::LimitSettings;
use crate::stream::Stream as Connection;
use crate::worker::Worker;

/// Rapid reset (CVE-2023-44487): streams that a client outside the mesh may open and reset before we have
/// looked at them. A peer carries many clients, who may all give up at once: as many as its streams.
const RESETS_PENDING_MAX: usize = 20;

/// Serves HTTP/1.x until the connection ends.
///
/// # Errors
/// The connection broke, or the client broke the rules and was told.
pub(crate) fn http1(caller: Caller, stream: Connection) -> impl Future<Output = io::Result<()>> {
    let worker = Rc::clone(caller.worker());
    let caller = Rc::new(caller);
    let carrier = Rc::clone(&caller);
    let settings = Rc::clone(&worker.http1);
    let closing = closing(worker, first_stage(&caller), connect::dismiss_at(&stream));
    let handler = async move |request, interim: &Interim| carrier.carry(request, interim).await;
    let served = h1::server::serve(stream, settings, closing, handler);
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
pub(crate) async fn http2(caller: Caller, stream: Connection) -> io::Result<()> {
    let worker = Rc::clone(caller.worker());
    let mut closing = pin!(closing(Rc::clone(&worker), first_stage(&caller), connect::dismiss_at(&stream)));
    let settings =
        http2_settings(&worker.proxy.settings.limits, caller.streams_max(), stream.mesh().is_some());
    let caller = Rc::new(caller);
    let carrier = Rc::clone(&caller);
    let asked = Rc::new(Asked::default());
    let used = Rc::clone(&asked);
    let handler = async move |request, interim: &Interim| {
        asked.note();
        carrier.carry(request, interim).await
    };
    let served = http2::server::serve(stream, settings, used.last_call(&mut closing), handler).await;
    if let Some(reason) = served.as_ref().err().and_then(connect::breach) {
        caller.refused(&Refusal::new(Code::HTTP2_BREACH, reason.to_string()));
    }
    served.map_err(io::Error::other)
}

/// Heads of twice the limit are read, so that most that are too large get an answer with our code: h2's own has none.
fn http2_settings(limits: &LimitSettings, streams_max: u32, is_mesh: bool) -> http2::server::Settings {
    http2::server::Settings {
        streams_max,
        header_bytes_max: 2 * limits.header_bytes_max,
        resets_pending_max: if is_mesh { streams_max as usize } else { RESETS_PENDING_MAX },
        keeps_alive: is_mesh,
    }
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

/// From which stage on a connection is to end: the app's own calls go on while others are sent away.
fn first_stage(caller: &Caller) -> Stage {
    match caller {
        Caller::App(_) => Stage::Ending,
        Caller::Peer(_) => Stage::Draining,
    }
}

/// When a connection should take no more requests, as the stages of the proxy and the life of a leaf say.
fn closing(worker: Rc<Worker>, first: Stage, dismiss_at: Option<Instant>) -> impl Stream<Item = Closing> {
    stream::unfold(None, move |former| {
        let worker = Rc::clone(&worker);
        async move {
            let next = match former {
                None => order_from(&worker, first, dismiss_at).await,
                Some(Closing::WithResponse) => order_from(&worker, Stage::Ending, dismiss_at).await,
                Some(Closing::Now) => std::future::pending().await,
            };
            Some((next, Some(next)))
        }
    })
}

/// The order that comes with this stage, or with the end of a leaf.
async fn order_from(worker: &Worker, stage: Stage, dismiss_at: Option<Instant>) -> Closing {
    let drain = &worker.proxy.drain;
    match dismiss_at {
        None => drain.reached(stage).await,
        Some(at) => {
            let retired = Box::pin(tokio::time::sleep_until(at.into()));
            tokio::select! {
                () = drain.reached(stage) => {}
                () = retired => return Closing::Now,
            }
        }
    }
    if drain.stage() == Stage::Ending { Closing::Now } else { Closing::WithResponse }
}

/// Whether an HTTP/2 connection has had a request. One that was opened while we drain, by a client that has not heard
/// of it, gets to ask once.
#[derive(Default)]
struct Asked {
    once: Cell<bool>,
    first: Notify,
}

impl Asked {
    fn note(&self) {
        if !self.once.replace(true) {
            self.first.notify_one();
        }
    }

    /// Completes when the client should be told to go elsewhere.
    async fn last_call(&self, closing: &mut (impl Stream<Item = Closing> + Unpin)) {
        if closing.next().await == Some(Closing::Now) || self.once.get() {
            return;
        }
        tokio::select! {
            () = self.first.notified() => {}
            _ = closing.next() => {}
        }
    }
}
