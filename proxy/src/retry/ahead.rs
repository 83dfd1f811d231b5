//! Whether a gRPC call has ended already when its response begins. A server that fails a call mostly says so
//! in the headers alone; some send headers first, and the status in trailers behind them.

use std::time::Duration;

use gauze_model::Code;
use http::Response;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::answer::grpc_status;
use crate::body::Body;
use crate::refusal::Refusal;

/// How long a head waits for what follows it. A server that opens a stream and has nothing to say yet must
/// not keep its client from the head: the client may wait for it before it says anything itself.
const LOOK_AHEAD: Duration = Duration::from_millis(10);

/// Looks at the first frame behind the head, and puts it back.
///
/// # Errors
/// The stream ended there: nothing of the response was passed on yet.
pub(super) async fn look(response: &mut Response<Body>) -> Result<(), Refusal> {
    if grpc_status(response.headers()).is_some() || http_body::Body::is_end_stream(response.body()) {
        return Ok(());
    }
    let Ok(frame) = timeout(LOOK_AHEAD, response.body_mut().frame()).await else { return Ok(()) };
    match frame {
        Some(Ok(frame)) => {
            let rest = std::mem::replace(response.body_mut(), Body::Empty);
            *response.body_mut() = Body::Ahead(Box::new((frame, rest)));
            Ok(())
        }
        Some(Err(error)) => Err(Refusal::new(Code::UPSTREAM_RESET, error.to_string())),
        None => Ok(()),
    }
}
