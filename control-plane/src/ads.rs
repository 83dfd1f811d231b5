//! The gRPC shell around incremental ADS: one task for each stream. What is sent when is decided by
//! `gauze_xds::DeltaServer`, who may ask for what by [`crate::permission`].

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gauze_model::SpiffeId;
use gauze_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::permission::{self, Refusal};
use crate::port::door::Peer;
use crate::push::{Push, StreamId};
use crate::readiness::{Readiness, Unready};

/// The one method that is served.
pub const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Responses that wait in a stream's queue; while it is full, changes gather as names.
const QUEUE: usize = 4;
/// A client that does not take a response for so long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// A stream that does not say who it is for so long is closed.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

pub type Responses = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

/// Serves configuration.
#[derive(Clone)]
pub struct Ads {
    pub push: Arc<Push>,
    pub metrics: Arc<Metrics>,
    /// Says when streams must end.
    pub readiness: Arc<Readiness>,
}

impl Ads {
    /// Opens a stream and carries it in a task of its own.
    ///
    /// # Errors
    /// The client has no certificate of the mesh.
    pub async fn serve(
        self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        // Who shows a certificate of the mesh may stay as long as it is good.
        let peer = request.extensions().get::<Peer>();
        let (identity, expires) = peer
            .and_then(|peer| Some((peer.identity.clone()?, peer.expires?)))
            .ok_or(Refusal::NoCertificate)?;
        let (sender, responses) = mpsc::channel(QUEUE);
        tokio::spawn(self.carry(identity, expires, request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn carry(
        self,
        identity: SpiffeId,
        expires: SystemTime,
        requests: Streaming<DeltaDiscoveryRequest>,
        sender: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    ) {
        let metrics = Arc::clone(&self.metrics);
        let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
        let refusal = tokio::select! {
            ended = self.converse(&identity, requests, &sender) => ended,
            () = sleep(left) => Err(Refusal::CertificateExpired),
        };
        let Err(refusal) = refusal else { return };
        let status = Status::from(refusal);
        let code = format!("{:?}", status.code());
        metrics.streams_refused.with_label_values(&[&code]).inc();
        if status.code() != tonic::Code::Unavailable {
            warn!(%identity, code, "ended a configuration stream: {}", status.message());
        }
        let _ = timeout(SEND_TIMEOUT, sender.send(Err(status))).await;
    }

    /// Talks until the client leaves or must be sent away.
    async fn converse(
        self,
        identity: &SpiffeId,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        sender: &mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    ) -> Result<(), Refusal> {
        let Ok(first) = timeout(FIRST_REQUEST_TIMEOUT, requests.message()).await else { return Ok(()) };
        let Some(first) = readable(first)? else { return Ok(()) };
        if let Some(reason) = self.readiness.why_not().filter(|reason| reason.ends_streams()) {
            return Err(Refusal::GoElsewhere(reason));
        }
        let stream = self.open(identity, &first)?;
        send(sender, self.push.hear(stream.id, first)?).await?;
        loop {
            let responses = tokio::select! {
                request = requests.message() => match readable(request)? {
                    Some(request) => self.push.hear(stream.id, request)?,
                    None => return Ok(()),
                },
                () = stream.wake.notified() => self.push.owed(stream.id)?,
                reason = self.readiness.until(Unready::ends_streams) => return Err(Refusal::GoElsewhere(reason)),
            };
            send(sender, responses).await?;
        }
    }

    fn open(&self, identity: &SpiffeId, first: &DeltaDiscoveryRequest) -> Result<OpenStream, Refusal> {
        let node_id = first.node.as_ref().map(|node| node.id.as_str()).unwrap_or_default();
        let workload = permission::admit(&self.push.world(), node_id, identity)?;
        let (id, wake) = self.push.open(workload);
        info!(pod = node_id, "a proxy is connected");
        Ok(OpenStream { push: Arc::clone(&self.push), id, wake, pod: node_id.to_owned() })
    }
}

/// What was read: a request, the end of the stream, or what is none.
fn readable(
    read: Result<Option<DeltaDiscoveryRequest>, Status>,
) -> Result<Option<DeltaDiscoveryRequest>, Refusal> {
    match read {
        Ok(request) => Ok(request),
        Err(status) => match status.code() {
            // What tonic makes of a message that does not decode, or is too large.
            tonic::Code::Internal | tonic::Code::OutOfRange | tonic::Code::Unimplemented => {
                Err(Refusal::Unreadable(status.message().to_owned()))
            }
            // The client went away without a word.
            _ => Ok(None),
        },
    }
}

/// Hands responses to the stream; waits while its queue is full, and meanwhile hears nothing.
async fn send(
    sender: &mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    responses: Vec<DeltaDiscoveryResponse>,
) -> Result<(), Refusal> {
    for response in responses {
        let sent = timeout(SEND_TIMEOUT, sender.send(Ok(response))).await;
        // A closed channel is a client that left: the next request says so.
        let _ = sent.map_err(|_| Refusal::TooSlow(SEND_TIMEOUT))?;
    }
    Ok(())
}

/// A stream that is open until this is dropped.
struct OpenStream {
    push: Arc<Push>,
    id: StreamId,
    wake: Arc<Notify>,
    pod: String,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.push.close(self.id);
        info!(pod = self.pod, "a proxy is disconnected");
    }
}
