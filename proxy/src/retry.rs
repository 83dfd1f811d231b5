//! A request of our app, tried until it is done. `gauze_model::retry` decides after each try; here is what
//! it decides about: an endpoint is chosen, the request sent, the time watched, and the outcome told to
//! whoever balances and ejects. The backend stays the one that was drawn; each retry takes another endpoint.
//!
//! A first try that succeeds costs nothing for those that might have followed, but the pieces of a body that
//! streams and, on HTTP/2, a copy of the head (h2 takes it away).

use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use gauze_model::outcome::Outcome;
use gauze_model::retry::{Decision, RetryPolicy, TryFacts, decide, read_retry_after};
use gauze_model::timeouts::Timeouts;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Response, Version};

use crate::answer::Exchange;
use crate::balance::{self, InFlight, Tried};
use crate::body::Body;
use crate::connect::{self, Sent, StreamHeld, Wire};
use crate::headers;
use crate::metrics::RetryReason;
use crate::refusal::Refusal;
use crate::sending::Sending;
use crate::settings::Carrier;
use crate::target::{ClusterTarget, EndpointTarget, RouteRule};
use crate::worker::Worker;

mod ahead; // how a gRPC call ended, where that follows the head at once
pub(crate) mod deadline; // when it must have ended
mod outcome; // what came of a try, in one word
pub(crate) mod replay; // the body, kept for the next try

/// The response that goes back, where it comes from, and what it holds.
pub(crate) struct Done {
    pub(crate) response: Response<Body>,
    pub(crate) endpoint: Arc<EndpointTarget>,
    pub(crate) stream: Option<StreamHeld>,
    pub(crate) in_flight: InFlight,
}

/// The clock of retry budgets: since the first request.
pub(crate) fn clock() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// Sends a request to endpoints of a cluster until the rule's retry policy is content with what came of it.
///
/// # Errors
/// There is no endpoint, or the last try got no response.
pub(crate) async fn until_done(
    worker: &Rc<Worker>,
    cluster: &ClusterTarget,
    rule: &RouteRule,
    sending: &mut Sending<'_>,
    exchange: &mut Exchange<'_>,
) -> Result<Done, Refusal> {
    let live = &cluster.terms.live;
    live.budget.count_request(clock());
    let mut tried = Tried::default();
    loop {
        let (endpoint, in_flight) = balance::choose(worker, cluster, &tried)?;
        let began = Instant::now();
        let sent = try_once(worker, &endpoint, rule, sending, exchange).await;
        let outcome = outcome::outcome(&sent, &endpoint, sending.has_begun());
        balance::observe(worker, &endpoint, cluster, outcome, began);

        let Some(outcome) = outcome.filter(|outcome| is_retried(&rule.retry, outcome, sending)) else {
            return pass_on(sent, sending, endpoint, in_flight);
        };
        let facts = TryFacts {
            method: &sending.head.method,
            retries: exchange.retries(),
            replayable: sending.can_begin(),
            retry_after: sent.as_ref().ok().and_then(|(response, _)| retry_after(response.headers())),
            left: exchange.left(),
            draw: worker.draw(),
        };
        let take_budget = || live.budget.take_retry(&cluster.terms.retry_budget, clock());
        match decide(&rule.retry, &outcome, &facts, take_budget) {
            Decision::Done(stop) => {
                exchange.is_not_tried_again(stop);
                return pass_on(sent, sending, endpoint, in_flight);
            }
            Decision::Again { after } => {
                drop((sent, in_flight));
                exchange.is_tried_again(reason(&outcome));
                tried.add(&endpoint);
                sending.reset();
                tokio::time::sleep(after).await;
            }
        }
    }
}

/// Whether the policy asks for another try at all; mostly it does not, and nothing more is looked at.
fn is_retried(policy: &RetryPolicy, outcome: &Outcome, sending: &Sending<'_>) -> bool {
    policy.retries > 0 && policy.on.hold(outcome, &sending.head.method)
}

/// One try at one endpoint.
async fn try_once(
    worker: &Rc<Worker>,
    endpoint: &Arc<EndpointTarget>,
    rule: &RouteRule,
    sending: &mut Sending<'_>,
    exchange: &mut Exchange<'_>,
) -> Result<Sent, Refusal> {
    let Timeouts { per_try, .. } = rule.timeouts;
    exchange.goes_to(endpoint);
    introduce(sending, endpoint, worker);
    exchange.tell_deadline(per_try, &mut sending.head.headers);
    let wire = wire(sending, endpoint, worker.proxy.settings.limits.http1_carrier);
    let looks_ahead = exchange.is_grpc() && !rule.retry.on.grpc.is_empty();
    let sent = async {
        let (mut response, stream) = connect::send(worker, endpoint, wire, sending).await?;
        if looks_ahead {
            ahead::look(&mut response).await?;
        }
        Ok((response, stream))
    };
    exchange.in_time(per_try, sent).await
}

/// No try follows: what is left of the request's body goes where the response comes from.
fn pass_on(
    sent: Result<Sent, Refusal>,
    sending: &mut Sending<'_>,
    endpoint: Arc<EndpointTarget>,
    in_flight: InFlight,
) -> Result<Done, Refusal> {
    let (response, stream) = sent?;
    sending.release();
    Ok(Done { response, endpoint, stream, in_flight })
}

/// Says to the next sidecar who we are; to nobody else.
fn introduce(sending: &mut Sending<'_>, endpoint: &EndpointTarget, worker: &Worker) {
    if endpoint.peer.identity().is_some()
        && let Some(value) = worker.peer_value(sending.head.version)
    {
        sending.head.headers.insert(headers::GAUZE_PEER, value);
    }
}

/// What is spoken to an endpoint: what the app spoke, except that between sidecars HTTP/1 rides on HTTP/2, unless it
/// asks to leave HTTP.
fn wire(sending: &Sending<'_>, endpoint: &EndpointTarget, carrier: Carrier) -> Wire {
    let is_meshed = endpoint.peer.identity().is_some();
    match sending.head.version {
        Version::HTTP_2 => Wire::Http2,
        _ if sending.way.is_some() => Wire::Http1,
        _ if is_meshed && carrier == Carrier::H2 => Wire::Http2,
        _ => Wire::Http1,
    }
}

/// How long the server asks to be left alone.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    read_retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, SystemTime::now())
}

/// Why a request is tried again, for log and metric.
fn reason(outcome: &Outcome) -> RetryReason {
    use gauze_model::outcome::NotDelivered;
    match outcome {
        Outcome::NotDelivered(NotDelivered::ConnectFailure) => RetryReason::ConnectFailure,
        Outcome::NotDelivered(NotDelivered::RefusedStream) => RetryReason::RefusedStream,
        Outcome::NotDelivered(NotDelivered::SaidByPeer) => RetryReason::NotDelivered,
        Outcome::Reset => RetryReason::Reset,
        Outcome::Timeout => RetryReason::Timeout,
        Outcome::Responded { .. } => RetryReason::Status,
    }
}

#[cfg(test)]
mod tests;
