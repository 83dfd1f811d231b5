//! What came of a try, in the one word that retry, balancing and ejection decide from.

use gauze_model::Code;
use gauze_model::outcome::{NotDelivered, Outcome};

use crate::answer::grpc_status;
use crate::body::Body;
use crate::connect::Sent;
use crate::headers::GAUZE_NOT_DELIVERED;
use crate::refusal::Refusal;
use crate::target::EndpointTarget;

/// The outcome of a try at `endpoint`; `None`: it says nothing of the endpoint (the client went away, or a
/// limit of ours was reached).
pub(crate) fn outcome(tried: &Result<Sent, Refusal>, endpoint: &EndpointTarget) -> Option<Outcome> {
    let (response, _) = match tried {
        Ok(sent) => sent,
        Err(refusal) => return of_failure(refusal.code),
    };
    // From outside the mesh anybody could say so, also of what was executed.
    let is_peer = endpoint.peer.identity().is_some();
    if is_peer && response.headers().contains_key(GAUZE_NOT_DELIVERED) {
        return Some(Outcome::NotDelivered(NotDelivered::SaidByPeer));
    }
    let grpc_status = grpc_status(response.headers()).or_else(|| match response.body() {
        Body::Ahead(ahead) => grpc_status(ahead.0.trailers_ref()?),
        _ => None,
    });
    Some(Outcome::Responded { status: response.status(), grpc_status })
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
