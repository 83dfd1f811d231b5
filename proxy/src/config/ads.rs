//! The stream to the control plane: incremental ADS over mesh TLS. What is said is decided by
//! [`DeltaClient`]; here is when a stream is opened, what is asked for, and how an answer comes into use.
//! While there is no stream everything in use goes on, and nothing expires.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use gauze_model::{Code, Kind, Listener, Name, Snapshot};
use gauze_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use gauze_xds::{DeltaClient, Node, Rejection};
use ipnet::IpNet;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use super::names::{Asked, Kept, Subscriptions};
use super::{Asks, Config, Known};
use crate::control_plane::{Backoff, Complaint, ControlPlane, DialError};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::target::{HttpRoute, OwnAddresses, Targets, View};
use crate::tls::Credentials;

/// The control thread's side of [`Config`].
pub struct Ads {
    control_plane: Arc<ControlPlane>,
    credentials: watch::Receiver<Option<Arc<Credentials>>>,
    events: Events,
    state: State,
}

/// What happens beside the stream.
struct Events {
    asks: Asks,
    sweep: tokio::time::Interval,
}

enum Event {
    Asked(SocketAddr),
    Sweep,
}

/// What is subscribed to, held and published.
struct State {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    client: DeltaClient,
    targets: Targets,
    names: Subscriptions,
    kept: Kept,
    snapshot: Arc<Snapshot>,
    rejections: Arc<[Rejection]>,
    viewer: String,
    mesh_networks: Vec<IpNet>,
    connected: bool,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{message} ({code:?})", code = .0.code(), message = .0.message())]
    Status(#[from] tonic::Status),
    #[error("the control plane ended the stream")]
    Ended,
}

impl StreamError {
    /// Whether the control plane does not believe us; it may once it knows our pod.
    fn is_denial(&self) -> bool {
        matches!(self, StreamError::Status(status) if status.code() == tonic::Code::PermissionDenied)
    }

    fn code(&self) -> Code {
        match self {
            StreamError::Dial(error) => error.code(),
            StreamError::Status(_) | StreamError::Ended => Code::CONTROL_PLANE_UNREACHABLE,
        }
    }
}

type Requests = Vec<DeltaDiscoveryRequest>;

/// After the control plane's return a change is live within 2 s: the longest pause is half of that.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A stream that lived this long was a good one: what ends it is a new problem.
const STABLE: Duration = Duration::from_secs(5);

/// How often unused names are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Largest response, in bytes: a first one may hold all that a proxy wants.
const RESPONSE_MAX: usize = 64 * 1024 * 1024;

impl Ads {
    pub fn new(
        settings: &Settings,
        control_plane: Arc<ControlPlane>,
        credentials: watch::Receiver<Option<Arc<Credentials>>>,
        asks: Asks,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
    ) -> Ads {
        let events = Events { asks, sweep: tokio::time::interval(SWEEP_INTERVAL) };
        Ads { control_plane, credentials, events, state: State::new(settings, config, metrics) }
    }

    /// Runs for as long as the process.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut complaint = Complaint::default();
        let mut denied = false;
        loop {
            let begun = Instant::now();
            let error = match self.open().await {
                Ok(stream) => {
                    if !denied {
                        tracing::info!("configuration stream open");
                        self.control_plane.note(None);
                    }
                    self.converse(stream).await
                }
                Err(error) => error,
            };
            denied = error.is_denial();
            self.state.set_connected(false);
            self.state.metrics.control_plane_failures.inc();
            // A server that opens streams only to end them is not to be hammered.
            if begun.elapsed() > STABLE {
                (backoff, complaint) = (Backoff::new(FIRST_PAUSE, LONGEST_PAUSE), Complaint::default());
            }
            self.control_plane.note(Some(format!("{} {error}", error.code())));
            if complaint.is_new(&error) {
                tracing::warn!(code = %error.code(), %error, "no configuration stream; what is in use goes on");
            }
            let pause = tokio::time::sleep(backoff.pause(fastrand::f64()));
            meanwhile(&mut self.events, &mut self.state, pause).await;
        }
    }

    /// Dials, and says what is wanted and held.
    async fn open(&mut self) -> Result<Stream, StreamError> {
        let hello = self.state.client.hello();
        let opening = open(&self.control_plane, &mut self.credentials, hello);
        let (asked_meanwhile, stream) = meanwhile(&mut self.events, &mut self.state, opening).await;
        let stream = stream?;
        send(&stream.requests, asked_meanwhile);
        Ok(stream)
    }

    /// Carries on until the stream ends.
    async fn converse(&mut self, mut stream: Stream) -> StreamError {
        self.state.set_connected(true);
        loop {
            let requests = tokio::select! {
                message = stream.responses.message() => match message {
                    Ok(Some(response)) => self.state.take(response),
                    Ok(None) => return StreamError::Ended,
                    Err(status) => return status.into(),
                },
                event = self.events.next() => self.state.handle(event),
            };
            send(&stream.requests, requests);
        }
    }
}

/// An open stream. The queue of requests is bounded by the number of names.
struct Stream {
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

async fn open(
    control_plane: &ControlPlane,
    credentials: &mut watch::Receiver<Option<Arc<Credentials>>>,
    hello: Requests,
) -> Result<Stream, StreamError> {
    // The sender lives as long as the process.
    let credentials = credentials.wait_for(Option::is_some).await.ok().and_then(|current| current.clone());
    let credentials = credentials.ok_or(StreamError::Ended)?;
    let channel = control_plane.dial(&credentials.roots, Some(&credentials)).await?;
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(RESPONSE_MAX);
    let (requests, outgoing) = mpsc::unbounded_channel();
    // Before the call: a server may send its headers only with its first answer.
    send(&requests, hello);
    let responses = client.delta_aggregated_resources(UnboundedReceiverStream::new(outgoing)).await?;
    Ok(Stream { requests, responses: responses.into_inner() })
}

fn send(queue: &mpsc::UnboundedSender<DeltaDiscoveryRequest>, requests: Requests) {
    for request in requests {
        // A stream that has ended is noticed where its responses are read.
        let _ = queue.send(request);
    }
}

/// Awaits `future` without being deaf to events; returns what they would say on a stream.
async fn meanwhile<T>(
    events: &mut Events,
    state: &mut State,
    future: impl Future<Output = T>,
) -> (Requests, T) {
    let mut future = std::pin::pin!(future);
    let mut requests = Requests::new();
    loop {
        tokio::select! {
            output = &mut future => return (requests, output),
            event = events.next() => requests.extend(state.handle(event)),
        }
    }
}

impl Events {
    async fn next(&mut self) -> Event {
        tokio::select! {
            Some(address) = self.asks.recv() => Event::Asked(address),
            _ = self.sweep.tick() => Event::Sweep,
        }
    }
}

impl State {
    /// Wants this pod's `inbound/`, and nothing else yet.
    fn new(settings: &Settings, config: Arc<Config>, metrics: Arc<Metrics>) -> State {
        let (workload, limits) = (&settings.workload, &settings.limits);
        let mut client = DeltaClient::new(node(settings));
        client.want(Name::Inbound { namespace: workload.namespace.clone(), pod: workload.pod.clone() });
        State {
            config,
            metrics,
            client,
            targets: Targets::new(own_addresses(settings)),
            names: Subscriptions::new(limits.names_max, limits.name_idle_timeout),
            kept: Kept::default(),
            snapshot: Arc::default(),
            rejections: Arc::new([]),
            viewer: workload.namespace.clone(),
            mesh_networks: settings.interception.mesh_networks.clone(),
            connected: false,
        }
    }

    fn handle(&mut self, event: Event) -> Requests {
        match event {
            Event::Asked(address) => self.ask(address),
            Event::Sweep => self.sweep(),
        }
    }

    fn ask(&mut self, address: SocketAddr) -> Requests {
        let view = self.config.view();
        let is_open = |address| is_open(&view, address);
        let mut requests = Requests::new();
        match self.names.ask(address, Instant::now(), is_open) {
            Asked::Already => return requests,
            Asked::Full => {
                self.metrics.limit_reached("names-max");
                return requests;
            }
            Asked::Replace(other) => {
                if self.metrics.names_evicted.get() == 0 {
                    tracing::warn!(code = %Code::TOO_MANY_NAMES, "more destinations than --names-max; the longest unused make room");
                }
                self.metrics.names_evicted.inc();
                requests.extend(self.unsubscribe(other));
            }
            Asked::Subscribe => {}
        }
        requests.extend(self.client.want(self.name(address)));
        self.publish();
        requests
    }

    /// Unsubscribes from what is not used. Not without a stream: what is given up could not be had again.
    fn sweep(&mut self) -> Requests {
        self.metrics.expire(Instant::now());
        if !self.connected {
            return Requests::new();
        }
        let view = self.config.view();
        let unused = self.names.sweep(Instant::now(), |address| is_open(&view, address));
        if unused.is_empty() {
            return Requests::new();
        }
        let requests = unused.into_iter().flat_map(|address| self.unsubscribe(address)).collect();
        self.publish();
        requests
    }

    /// Gives an address up, and keeps what was last known of it if it is a Service's: pod addresses are reused.
    fn unsubscribe(&mut self, address: SocketAddr) -> Requests {
        let target = self.config.view().outbound.get(&address).cloned();
        if let Some(target) = target.filter(|target| matches!(target.http, HttpRoute::Table(_))) {
            self.kept.keep(target);
        }
        self.client.unwant(&self.name(address))
    }

    fn name(&self, address: SocketAddr) -> Name {
        Name::Outbound { viewer: self.viewer.clone(), address }
    }

    fn take(&mut self, response: DeltaDiscoveryResponse) -> Requests {
        let requests = self.client.on_response(response);
        self.note_rejections();
        self.publish();
        requests
    }

    fn note_rejections(&mut self) {
        let rejections = self.client.rejections();
        for rejection in rejections.iter().filter(|rejection| !self.rejections.contains(rejection)) {
            match rejection.is_of_a_policy() {
                true => tracing::warn!(code = %rejection.code, %rejection, "authorization policy closed"),
                false => {
                    tracing::warn!(code = %rejection.code, %rejection, "resource refused; the last good one stays")
                }
            }
        }
        self.metrics.resources_refused.set(rejections.len().try_into().unwrap_or(i64::MAX));
        self.rejections = rejections.into();
    }

    fn set_connected(&mut self, connected: bool) {
        self.connected = connected;
        self.metrics.control_plane_connected.set(connected.into());
        self.note_rejections(); // a new stream begins without
        self.publish();
    }

    /// Brings into use what has changed.
    fn publish(&mut self) {
        let snapshot = self.client.snapshot();
        let view =
            (!Arc::ptr_eq(&snapshot, &self.snapshot)).then(|| self.targets.build(&snapshot, &self.metrics));
        self.snapshot = snapshot;
        for address in view.iter().flat_map(|view| view.outbound.keys()) {
            self.kept.forget(*address);
        }
        let known = Known {
            mesh_networks: self.mesh_networks(),
            connected: self.connected,
            subscribed: self.names.uses(),
            absent: self.absent(),
            kept: self.kept.targets().clone(),
            snapshot: self.snapshot.clone(),
            rejections: self.rejections.clone(),
        };
        self.count(&known);
        self.config.publish(view, known);
    }

    /// What the settings say, and what the control plane adds.
    fn mesh_networks(&self) -> Arc<[IpNet]> {
        let added = self.snapshot.listeners.values().filter_map(|listener| match &**listener {
            Listener::Inbound(inbound) => Some(&inbound.mesh_networks),
            Listener::Outbound(_) => None,
        });
        let all: Vec<IpNet> = self.mesh_networks.iter().chain(added.flatten()).copied().collect();
        IpNet::aggregate(&all).into()
    }

    fn absent(&self) -> HashSet<SocketAddr> {
        let absent = self.snapshot.absent.iter();
        absent
            .filter_map(|(kind, name)| match (kind, name) {
                (Kind::Listener, Name::Outbound { address, .. }) => Some(*address),
                _ => None,
            })
            .collect()
    }

    fn count(&self, known: &Known) {
        let as_gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.names.set(as_gauge(known.subscribed.len()));
        self.metrics.names_kept.set(as_gauge(known.kept.len()));
        self.metrics.hold(Kind::Listener, self.snapshot.listeners.len());
        self.metrics.hold(Kind::Routes, self.snapshot.routes.len());
        self.metrics.hold(Kind::Cluster, self.snapshot.clusters.len());
        self.metrics.hold(Kind::Endpoints, self.snapshot.endpoints.len());
    }
}

/// Who we say that we are; our certificate must agree.
fn node(settings: &Settings) -> Node {
    let workload = &settings.workload;
    Node {
        id: format!("{}/{}", workload.namespace, workload.pod),
        cluster: workload.app.clone(),
        user_agent_name: "gauze".to_owned(),
        ..Node::default()
    }
}

/// Endpoints at these are our own app: dialled over `lo`, not through two sidecars.
fn own_addresses(settings: &Settings) -> OwnAddresses {
    OwnAddresses {
        addresses: settings.workload.pod_ips.clone(),
        mapped: settings
            .interception
            .inbound
            .iter()
            .map(|mapping| (mapping.listen, mapping.destination))
            .collect(),
    }
}

fn is_open(view: &View, address: SocketAddr) -> bool {
    view.outbound.get(&address).is_some_and(|target| target.live.connections.load(Ordering::Relaxed) > 0)
}

#[cfg(test)]
mod tests {
    use gauze_model::cluster::{Cluster, EndpointSet};
    use gauze_model::listener::{HttpTarget, Outbound, PortProtocol};
    use gauze_model::name::ServicePort;
    use gauze_model::snapshot::Resource;
    use gauze_model::{Origin, RouteTable};
    use gauze_xds::delta::Answer;
    use gauze_xds::{DeltaServer, EncodedResource};

    use super::*;
    use crate::config::Destination;

    const CART: &str = "10.96.0.2:80";
    const NOBODY: &str = "10.96.0.9:80";

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn ads(arguments: &str) -> Ads {
        let settings = Settings::for_tests(&format!("--mode none {arguments}"));
        let metrics = Arc::new(Metrics::new());
        let mesh = &settings.interception.mesh_networks;
        let (config, asks) = Config::new(mesh, Duration::from_millis(10), metrics.answers_missing.clone());
        let control_plane = Arc::new(ControlPlane::new(&settings.control_plane));
        let credentials = watch::channel(None).1;
        Ads::new(&settings, control_plane, credentials, asks, Arc::new(config), metrics)
    }

    /// What a control plane says that knows the Service `cart` and nothing else.
    fn cart(kind: Kind, name: &Name) -> Answer {
        let cart = ServicePort::new("shop", "cart", 80);
        let cluster = Cluster { protocol: PortProtocol::Http, ..Cluster::default() };
        let resource = match (kind, name) {
            (Kind::Listener, Name::Outbound { address: asked, .. }) if *asked == address(CART) => {
                Resource::Listener(Arc::new(Listener::Outbound(Outbound {
                    origin: Origin::default(),
                    protocol: PortProtocol::Http,
                    http: HttpTarget::Routes(Name::Routes { service: cart, viewer: None }),
                    tls: Vec::new(),
                    tcp: Vec::new(),
                })))
            }
            (Kind::Routes, _) => {
                Resource::Routes(Arc::new(RouteTable::from_hosts(Origin::default(), Vec::new())))
            }
            (Kind::Cluster, _) => Resource::Cluster(Arc::new(cluster)),
            (Kind::Endpoints, _) => Resource::Endpoints(Arc::new(EndpointSet::default())),
            (Kind::Listener, _) => return Answer::Absent,
        };
        Answer::Known(Arc::new(EncodedResource::new(name.clone(), &resource)))
    }

    /// Lets the two talk until they have nothing more to say.
    fn converse(state: &mut State, server: &mut DeltaServer, mut requests: Requests) {
        while !requests.is_empty() {
            let heard = requests.into_iter().flat_map(|request| server.on_request(request, &mut cart).1);
            let responses: Vec<_> = heard.collect();
            requests = responses.into_iter().flat_map(|response| state.take(response)).collect();
        }
    }

    fn outbound(state: &State, text: &str) -> Option<Destination> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(state.config.outbound(address(text))).ok()
    }

    /// Connected, with both addresses asked for and answered.
    fn connected(arguments: &str) -> (State, DeltaServer) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let mut state = runtime.block_on(async { ads(arguments).state });
        let mut server = DeltaServer::default();
        let hello = state.client.hello();
        state.set_connected(true);
        converse(&mut state, &mut server, hello);
        for asked in [CART, NOBODY] {
            let requests = state.handle(Event::Asked(address(asked)));
            converse(&mut state, &mut server, requests);
        }
        (state, server)
    }

    #[test]
    fn what_was_asked_for_becomes_a_target_or_is_known_not_to_exist() {
        let (state, _) = connected("");
        assert!(matches!(outbound(&state, CART), Some(Destination::Target(_))));
        assert!(matches!(outbound(&state, NOBODY), Some(Destination::PassThrough(_))));
        assert_eq!(state.metrics.names.get(), 2);
    }

    #[test]
    fn an_unused_name_goes_and_the_last_answer_about_a_service_serves_in_an_outage() {
        let (mut state, mut server) = connected("--name-idle-timeout 0s");
        let requests = state.handle(Event::Sweep);
        // The first look finds both used; nothing has used them since.
        let more = state.handle(Event::Sweep);
        converse(&mut state, &mut server, [requests, more].concat());
        assert_eq!((state.metrics.names.get(), state.metrics.names_kept.get()), (0, 1));
        assert!(state.config.view().outbound.is_empty());
        state.set_connected(false);
        assert!(matches!(outbound(&state, CART), Some(Destination::Target(_))));
        assert!(outbound(&state, NOBODY).is_none(), "nothing is known of it");
    }

    #[test]
    fn nothing_expires_while_nobody_can_be_asked() {
        let (mut state, _) = connected("--name-idle-timeout 0s");
        state.set_connected(false);
        for _ in 0..3 {
            assert!(state.handle(Event::Sweep).is_empty());
        }
        assert!(matches!(outbound(&state, CART), Some(Destination::Target(_))));
    }

    #[test]
    fn a_name_that_makes_room_is_given_up() {
        let (mut state, mut server) = connected("--names-max 2");
        let requests = state.handle(Event::Asked(address("10.96.0.3:80")));
        converse(&mut state, &mut server, requests);
        assert_eq!((state.metrics.names.get(), state.metrics.names_evicted.get()), (2, 1));
    }
}
