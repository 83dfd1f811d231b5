//! Who is at the near end of a connection: our app, or somebody who calls it. What is known of them is
//! resolved once and held here, so that a request looks nothing up.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue, Request, Response, Version};
use gauze_model::authorization::Http;
use gauze_model::cluster::Workload;
use gauze_model::{Code, SpiffeId};

use crate::answer::{Answer, Exchange};
use crate::authorize::{Judged, Told};
use crate::body::Body;
use crate::config::Destination;
use crate::headers::{GAUZE_PEER, PeerHeader};
use crate::http;
use crate::interim::Interim;
use crate::metrics::{Direction, EdgeLabels, EdgeMetrics, Protocol};
use crate::record::Record;
use crate::refusal::{Reader, Refusal};
use crate::target::{EndpointTarget, OutboundTarget};
use crate::upgrade::Leaving;
use crate::worker::Worker;

/// Either end that sends us requests.
pub(crate) enum Caller {
    App(FromApp),
    Peer(Rc<FromPeer>),
}

/// A connection of our app.
pub(crate) struct FromApp {
    pub(crate) worker: Rc<Worker>,
    pub(crate) source: SocketAddr,
    /// The address that the app dialled.
    pub(crate) destination: SocketAddr,
}

/// A connection to our app.
pub(crate) struct FromPeer {
    pub(crate) worker: Rc<Worker>,
    pub(crate) source: SocketAddr,
    /// The pod's address that was dialled.
    pub(crate) destination: SocketAddr,
    pub(crate) app: Arc<EndpointTarget>,
    who: Who,
    /// Where requests count that do not say more of where they come from.
    pub(crate) edge: Arc<EdgeMetrics>,
    introduced: RefCell<Option<Introduced>>,
}

/// Who calls.
enum Who {
    /// Proved by mesh TLS.
    Peer(SpiffeId),
    /// Came in plaintext.
    Outside,
}

/// A `gauze-peer` header and what it means; a peer says the same again and again.
struct Introduced {
    value: HeaderValue,
    edge: Arc<EdgeMetrics>,
    version: Option<Version>,
}

impl Caller {
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        match self {
            Caller::App(from) => &from.worker,
            Caller::Peer(from) => &from.worker,
        }
    }

    /// Carries one of its requests; what comes before the response is noted in `interim`.
    pub(crate) async fn carry(&self, request: Request<Body>, interim: &Interim) -> Response<Answer> {
        match self {
            Caller::App(from) => http::outbound(request, interim, from).await,
            Caller::Peer(from) => http::inbound(request, interim, from).await,
        }
    }

    /// Counts a request that was refused before it could be carried.
    pub(crate) fn refused(&self, refusal: &Refusal) {
        let (direction, source) = match self {
            Caller::App(from) => (Direction::Outbound, from.source),
            Caller::Peer(from) => (Direction::Inbound, from.source),
        };
        tracing::info!(%refusal, %source, "request refused");
        self.worker().proxy.metrics.refused(direction, refusal.code);
    }

    /// How many streams it may have at once on one connection.
    pub(crate) fn streams_max(&self) -> u32 {
        let limits = &self.worker().proxy.settings.limits;
        match self {
            Caller::Peer(from) if matches!(from.who, Who::Outside) => limits.streams_outside_max,
            Caller::App(_) | Caller::Peer(_) => limits.streams_mesh_max,
        }
    }
}

impl FromApp {
    /// What is known of the dialled address now. A connection outlives views: what it leads to may have
    /// changed, and may have to be asked for again.
    pub(crate) async fn target(&self) -> Result<Arc<OutboundTarget>, Refusal> {
        let config = &self.worker.proxy.config;
        if let Some(target) = config.view().outbound.get(&self.destination) {
            return Ok(Arc::clone(target));
        }
        match Box::pin(config.outbound(self.destination)).await? {
            Destination::Target(target) => Ok(target),
            Destination::PassThrough(_) => Err(Refusal::new(
                Code::NO_ROUTE,
                format!("nothing is known of {} any more", self.destination),
            )),
        }
    }

    /// What is told of a request that begins.
    pub(crate) fn exchange<'i>(&self, head: &Parts, interim: &'i Interim) -> Exchange<'i> {
        let worker = &self.worker;
        let leaving = Leaving::of(head, worker, None);
        let reader = reader_of(head, leaving.as_deref());
        let edge = Arc::clone(&worker.nowhere);
        let protocol = protocol_of(head.version, reader);
        let log = &worker.proxy.access_log;
        let record = Record::request(log, edge, protocol, self.source, self.destination, head);
        let idle_limit = worker.proxy.settings.limits.stream_idle_timeout;
        Exchange::new(record, reader, interim, idle_limit).leaving(leaving)
    }
}

impl FromPeer {
    /// Somebody from outside the mesh, until mesh TLS has proved more.
    pub(crate) fn new(
        worker: Rc<Worker>,
        source: SocketAddr,
        destination: SocketAddr,
        app: Arc<EndpointTarget>,
    ) -> FromPeer {
        let edge = Arc::clone(&app.metrics);
        FromPeer { worker, source, destination, app, who: Who::Outside, edge, introduced: RefCell::default() }
    }

    /// Mesh TLS has proved who it is.
    pub(crate) fn proved(self, identity: SpiffeId) -> FromPeer {
        let workload = Workload { namespace: identity.namespace.clone(), ..Workload::default() };
        let labels = EdgeLabels::of(Direction::Inbound, "", &workload, Some(&identity));
        let edge = self.worker.proxy.metrics.edge(labels);
        FromPeer { who: Who::Peer(identity), edge, ..self }
    }

    /// Whether a request may come in as things are now: a connection outlives policies.
    ///
    /// # Errors
    /// The port accepts mesh TLS only, or the policies do not let it in.
    pub(crate) fn authorize(&self, head: &Parts, exchange: &mut Exchange<'_>) -> Result<(), Refusal> {
        let http = Http { method: head.method.as_str(), path: head.uri.path() };
        self.judge(Some(http)).tell(&self.told(Some(http)), exchange.record())
    }

    /// Whether a connection that is not HTTP may come in.
    ///
    /// # Errors
    /// As [`FromPeer::authorize`].
    pub(crate) fn authorize_connection(&self, record: &mut Record) -> Result<(), Refusal> {
        self.judge(None).tell(&self.told(None), record)
    }

    /// Whether a connection on which nothing was said yet might come in. It is not counted: nothing is decided.
    ///
    /// # Errors
    /// As [`FromPeer::authorize`].
    pub(crate) fn may_be_opaque(&self) -> Result<(), Refusal> {
        self.judge(None).allowed()
    }

    /// Completes when a connection that is not HTTP, or is no more since this request, may not stay.
    pub(crate) async fn expelled(&self, http: Option<Http<'_>>) -> Judged {
        let mut changes = self.worker.proxy.config.changes();
        loop {
            let judged = self.judge(http);
            if judged.allowed().is_err() {
                return judged;
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn judge(&self, http: Option<Http<'_>>) -> Judged {
        let view = self.worker.proxy.config.view();
        match &view.inbound {
            Some(inbound) => inbound.judge(self.peer(), self.destination.port(), http),
            None => Judged::refused(Code::NOT_CONFIGURED),
        }
    }

    /// Whether mesh TLS has proved who it is.
    pub(crate) fn is_peer(&self) -> bool {
        self.peer().is_some()
    }

    fn peer(&self) -> Option<&SpiffeId> {
        match &self.who {
            Who::Peer(identity) => Some(identity),
            Who::Outside => None,
        }
    }

    /// The call, for the log.
    pub(crate) fn told<'a>(&'a self, http: Option<Http<'a>>) -> Told<'a> {
        Told { peer: self.peer(), source: self.source, port: self.destination.port(), http }
    }

    /// What is told of a request that begins, and the version to speak to the app: what the caller's app spoke.
    pub(crate) fn exchange<'i>(
        self: &Rc<Self>,
        head: &Parts,
        interim: &'i Interim,
    ) -> (Exchange<'i>, Version) {
        let worker = &self.worker;
        let leaving = Leaving::of(head, worker, Some(self));
        let reader = reader_of(head, leaving.as_deref());
        let (edge, version) = self.introduction(&head.headers);
        let version = version.unwrap_or(head.version);
        let protocol = protocol_of(version, reader);
        let log = &worker.proxy.access_log;
        let record = Record::request(log, edge, protocol, self.source, self.destination, head);
        let idle_limit = worker.proxy.settings.limits.stream_idle_timeout;
        let exchange = Exchange::new(record, reader, interim, idle_limit);
        (exchange.for_peer(self.is_peer()).leaving(leaving), version)
    }

    /// Where the request counts, and what the caller's app spoke: believed only over mesh TLS.
    fn introduction(&self, headers: &HeaderMap) -> (Arc<EdgeMetrics>, Option<Version>) {
        let (Who::Peer(identity), Some(value)) = (&self.who, headers.get(GAUZE_PEER)) else {
            return (Arc::clone(&self.edge), None);
        };
        let mut introduced = self.introduced.borrow_mut();
        if let Some(known) = introduced.as_ref().filter(|known| known.value == value) {
            return (Arc::clone(&known.edge), known.version);
        }
        let PeerHeader { mut workload, version } = PeerHeader::read(value);
        // The namespace is the certificate's to say.
        workload.namespace.clone_from(&identity.namespace);
        let labels = EdgeLabels::of(Direction::Inbound, "", &workload, Some(identity));
        let edge = self.worker.proxy.metrics.edge(labels);
        *introduced = Some(Introduced { value: value.clone(), edge: Arc::clone(&edge), version });
        (edge, version)
    }
}

/// A status of gRPC comes with a 200, which to a CONNECT would say that its tunnel is open.
fn reader_of(head: &Parts, leaving: Option<&Leaving>) -> Reader {
    if leaving.is_some() { Reader::Http } else { Reader::of(&head.headers) }
}

fn protocol_of(version: Version, reader: Reader) -> Protocol {
    match (version, reader) {
        (_, Reader::Grpc) => Protocol::Grpc,
        (Version::HTTP_2, _) => Protocol::Http2,
        (Version::HTTP_10, _) => Protocol::Http10,
        _ => Protocol::Http1,
    }
}
