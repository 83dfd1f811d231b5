//! What came of a try, in the one word that retry, balancing and ejection decide from.

use gauze_model::Code;
use gauze_model::outcome::{NotDelivered, Outcome};
use http::HeaderMap;

use crate::answer::grpc_status;
use crate::body::Body;
use crate::connect::Sent;
use crate::headers::{GAUZE_ERROR, GAUZE_NOT_DELIVERED};
use crate::refusal::Refusal;
use crate::target::EndpointTarget;

/// The outcome of a try at `endpoint`; `None`: it says nothing of the endpoint (the client went away, or a
/// limit of ours was reached).
///
/// A try that had not `begun` when its time was over had no connection yet: nothing of it was sent.
pub(crate) fn outcome(
    tried: &Result<Sent, Refusal>,
    endpoint: &EndpointTarget,
    begun: bool,
) -> Option<Outcome> {
    let (response, _) = match tried {
        Ok(sent) => sent,
        Err(refusal) => {
            let outcome = of_failure(refusal.code);
            let never_sent = Outcome::NotDelivered(NotDelivered::ConnectFailure);
            return if outcome == Some(Outcome::Timeout) && !begun { Some(never_sent) } else { outcome };
        }
    };
    // From outside the mesh anybody could say so, also of what was executed.
    let is_peer = endpoint.peer.identity().is_some();
    if is_peer && let Some(outcome) = said_by_peer(response.headers()) {
        return Some(outcome);
    }
    let grpc_status = grpc_status(response.headers()).or_else(|| match response.body() {
        Body::Ahead(ahead) => grpc_status(ahead.0.trailers_ref()?),
        _ => None,
    });
    Some(Outcome::Responded { status: response.status(), grpc_status })
}

/// What the sidecar of the endpoint says became of a request that its app did not answer: the same as if we
/// had dialled the app ourselves. No app can say so, since its sidecar strips these headers.
fn said_by_peer(headers: &HeaderMap) -> Option<Outcome> {
    if headers.contains_key(GAUZE_NOT_DELIVERED) {
        return Some(Outcome::NotDelivered(NotDelivered::SaidByPeer));
    }
    let code = headers.get(GAUZE_ERROR)?.to_str().ok()?.parse().ok()?;
    let is_of_the_app = matches!(code, Code::UPSTREAM_RESET | Code::UPSTREAM_PROTOCOL | Code::STREAM_IDLE);
    of_failure(code).filter(|_| is_of_the_app)
}

fn of_failure(code: Code) -> Option<Outcome> {
    match code {
        Code::CONNECT_FAILED | Code::CONNECT_TIMEOUT | Code::UPSTREAM_TLS | Code::UPSTREAM_IDENTITY => {
            Some(Outcome::NotDelivered(NotDelivered::ConnectFailure))
        }
        Code::STREAM_REFUSED => Some(Outcome::NotDelivered(NotDelivered::RefusedStream)),
        Code::UPSTREAM_RESET | Code::UPSTREAM_PROTOCOL => Some(Outcome::Reset),
        Code::STREAM_IDLE | Code::TRY_TIMEOUT | Code::REQUEST_TIMEOUT => Some(Outcome::Timeout),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_peer_says_what_became_of_a_request_that_its_app_did_not_answer_and_nothing_else() {
        let not_delivered = Outcome::NotDelivered(NotDelivered::SaidByPeer);
        for (headers, wanted) in [
            (&[][..], None),
            (&[("gauze-error", "M3012"), ("gauze-not-delivered", "true")], Some(not_delivered)),
            (&[("gauze-error", "M3010")], Some(Outcome::Reset)),
            (&[("gauze-error", "M3011")], Some(Outcome::Reset)),
            (&[("gauze-error", "M3013")], Some(Outcome::Timeout)),
            (&[("gauze-error", "M4007")], None),
            (&[("gauze-error", "nonsense")], None),
        ] {
            let named = |(name, value): &(&'static str, &'static str)| {
                (http::HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            let map: HeaderMap = headers.iter().map(named).collect();
            assert_eq!(said_by_peer(&map), wanted, "{headers:?}");
        }
    }
}
