//! THE REQUEST PATH. `outbound` carries what our app sends, `inbound` what comes to our app; each reads
//! top to bottom as the life of one request. A phase is a line; a failure is one [`Refusal`]. Whatever
//! happens, the [`Record`] tells metrics and access log when the response has ended. A request that leaves HTTP
//! (`upgrade`) takes the same path, and the record tells it when its tunnel has ended.
//!
//! What needs bytes, sockets or pools lies below (`connect`, `answer`); what needs none is `gauze_model`'s.

use std::rc::Rc;
use std::sync::Arc;

use gauze_model::Code;
use gauze_model::route::{Action, Backend, Redirect, RequestHead, split};
use http::header::LOCATION;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Response, StatusCode, Version};

use crate::answer::{Answer, Exchange, Held};
use crate::body::Body;
use crate::caller::{FromApp, FromPeer};
use crate::connect::{self, Wire};
use crate::headers;
use crate::interim::Interim;
use crate::refusal::Refusal;
use crate::retry::replay::Replay;
use crate::retry::{self, Done};
use crate::target::{ClusterTarget, Limited, RouteRule};

/// A response on its way back, and what it holds until it has ended.
type Carried = Result<(Response<Body>, Option<Held>), Refusal>;

/// Carries one request of our app to an endpoint.
pub(crate) async fn outbound(request: Request<Body>, interim: &Interim, from: &FromApp) -> Response<Answer> {
    let (head, body) = request.into_parts();
    let mut exchange = from.exchange(&head, interim);
    let carried = carry_outbound(head, body, from, &mut exchange).await;
    exchange.answer(carried)
}

async fn carry_outbound(mut head: Parts, body: Body, from: &FromApp, exchange: &mut Exchange<'_>) -> Carried {
    let worker = &from.worker;
    headers::within_limits(&head, &worker.proxy.settings.limits, false)?;
    headers::arrive(&mut head, from.destination, || worker.draw_id())?;

    let target = from.target().await?; // as it is known now: routes may change while a connection lives
    let rule = target.rule(&request_head(&head)).ok_or_else(|| no_route(&target.origin))?;
    let backend = match &rule.action {
        Action::Forward(backends) => split(backends, worker.draw()).ok_or_else(|| no_backend(rule))?,
        Action::Redirect(redirect) => return Ok((redirected(redirect, rule, &head, from), None)),
        Action::Respond(_) => return Err(no_backend(rule)),
    };

    exchange.record().follows(&rule.origin);
    let cluster = &backend.cluster;
    let place = cluster.terms.take(Limited::Requests)?;
    exchange.must_end_within(rule.timeouts.request, &head.headers);
    change_request(&mut head, rule, backend);

    let mut sending = exchange.sending(head, Replay::for_retries(body, &rule.retry));
    let done = retry::until_done(worker, cluster, rule, &mut sending, exchange).await?;
    let Done { mut response, endpoint, stream, in_flight } = done;

    headers::go_back(&mut response, endpoint.peer.identity().is_some());
    backend.response_headers.apply(response.headers_mut());
    rule.filters.response_headers.apply(response.headers_mut());
    Ok((response, Some(Held { stream, in_flight: Some(in_flight), place: Some(place) })))
}

/// Carries one request that comes to our app, from a peer or from outside the mesh.
pub(crate) async fn inbound(
    request: Request<Body>,
    interim: &Interim,
    from: &Rc<FromPeer>,
) -> Response<Answer> {
    let (head, body) = request.into_parts();
    let (mut exchange, version) = from.exchange(&head, interim);
    let carried = carry_inbound(head, body, version, from, &mut exchange).await;
    exchange.answer(carried)
}

async fn carry_inbound(
    mut head: Parts,
    body: Body,
    version: Version,
    from: &FromPeer,
    exchange: &mut Exchange<'_>,
) -> Carried {
    let worker = &from.worker;
    from.authorize(&head, exchange)?;
    headers::within_limits(&head, &worker.proxy.settings.limits, from.is_peer())?;
    headers::arrive(&mut head, from.destination, || worker.draw_id())?;

    // The app is connected to before a byte of the body is read.
    let wire = if version == Version::HTTP_2 { Wire::Http2 } else { Wire::Http1 };
    exchange.goes_to_app(&from.app);
    exchange.must_end_within(None, &head.headers);
    exchange.tell_deadline(None, &mut head.headers);
    let mut sending = exchange.sending(head, Replay::at_hand(body));
    let sent = exchange.in_time(None, connect::send(worker, &from.app, wire, &mut sending)).await;
    let (mut response, stream) = sent.map_err(Refusal::of_the_app)?;

    headers::go_back(&mut response, false);
    Ok((response, Some(Held { stream, in_flight: None, place: None })))
}

/// What routes look at.
fn request_head(head: &Parts) -> RequestHead<'_> {
    RequestHead {
        method: &head.method,
        authority: head.uri.authority().map_or("", Authority::as_str),
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &head.headers,
    }
}

fn no_route(origin: &gauze_model::Origin) -> Refusal {
    Refusal::new(Code::NO_ROUTE, origin.to_string())
}

fn no_backend(rule: &RouteRule) -> Refusal {
    Refusal::new(Code::NO_BACKEND, rule.origin.to_string())
}

/// The header changes of rule and backend, and the rewrite; the rule matched what stood there before.
fn change_request(head: &mut Parts, rule: &RouteRule, backend: &Backend<Arc<ClusterTarget>>) {
    let rewrite = &rule.filters.rewrite;
    let path = rewrite.path_and_query(&rule.matches.path, &request_head(head));
    // The control plane refuses rewrites that yield no path or host; should one slip through, the rest holds.
    let path = path.and_then(|path| PathAndQuery::try_from(path).ok());
    let host = rewrite.host.as_deref().and_then(|host| Authority::try_from(host).ok());
    let names_a_resource = head.uri.path_and_query().is_some(); // all but CONNECT do
    if names_a_resource && (path.is_some() || host.is_some()) {
        headers::set_target(head, host, path);
    }
    rule.filters.request_headers.apply(&mut head.headers);
    backend.request_headers.apply(&mut head.headers);
}

fn redirected(redirect: &Redirect, rule: &RouteRule, head: &Parts, from: &FromApp) -> Response<Body> {
    let location =
        redirect.location(&rule.matches.path, &request_head(head), "http", from.destination.port());
    let mut response = Response::new(Body::empty());
    match HeaderValue::try_from(location) {
        Ok(location) => {
            *response.status_mut() = redirect.status;
            response.headers_mut().insert(LOCATION, location);
        }
        Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
    }
    rule.filters.response_headers.apply(response.headers_mut());
    response
}
