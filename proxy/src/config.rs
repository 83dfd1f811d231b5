//! What the data path knows, and how it asks for more. Workers read one immutable [`View`]; the control
//! thread ([`ads`]) replaces it by a pointer swap. An address is asked for when it is first dialled:
//! what a sidecar holds follows what its app uses, not the size of the cluster.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use gauze_model::{Code, Snapshot};
use gauze_xds::Rejection;
use ipnet::IpNet;
use prometheus::IntCounter;
use tokio::sync::{mpsc, watch};

use crate::refusal::Refusal;
use crate::target::{OutboundTarget, View};

pub mod ads; // the stream to the control plane
pub mod names; // which addresses are subscribed to

/// The configuration as the data path sees it.
pub struct Config {
    view: ArcSwap<View>,
    known: ArcSwap<Known>,
    /// Counts the replacements of the two.
    changes: watch::Sender<u64>,
    asks: mpsc::UnboundedSender<SocketAddr>,
    answer_timeout: Duration,
    /// Counts addresses that were not decided in time.
    missing: IntCounter,
}

/// Addresses that were dialled and are not asked for by anybody yet.
pub type Asks = mpsc::UnboundedReceiver<SocketAddr>;

/// Where a dialled address leads.
#[derive(Debug)]
pub enum Destination {
    /// A Service or pod that the mesh knows.
    Target(Arc<OutboundTarget>),
    /// Nothing that the mesh knows: the bytes pass as they are. If an answer comes later
    /// ([`Config::changes`]) and makes it a target with mesh endpoints, the connection must end.
    PassThrough(Passing),
}

/// Keeps the subscription of an unknown address while a connection passes to it.
#[derive(Debug, Default)]
pub struct Passing(Option<Arc<Use>>);

/// Whether anybody uses a subscribed address; a target's connections are counted in its live state.
#[derive(Debug, Default)]
pub struct Use {
    asked: AtomicBool,
    passing: AtomicU32,
}

/// What the control thread says of addresses beside the view. Immutable, replaced whole.
#[derive(Clone, Debug)]
pub struct Known {
    pub mesh_networks: Arc<[IpNet]>,
    /// Whether the control plane can be asked now.
    pub connected: bool,
    pub subscribed: HashMap<SocketAddr, Arc<Use>>,
    /// Subscribed, and answered: nobody knows them.
    pub absent: HashSet<SocketAddr>,
    /// Last answers about Services that are no longer subscribed to.
    pub kept: HashMap<SocketAddr, Arc<OutboundTarget>>,
    /// What the view was built from, and what was refused; for the admin endpoints.
    pub snapshot: Arc<Snapshot>,
    pub rejections: Arc<[Rejection]>,
}

impl Config {
    /// An empty configuration, and the queue of addresses to ask for.
    pub fn new(mesh_networks: &[IpNet], answer_timeout: Duration, missing: IntCounter) -> (Config, Asks) {
        let (asks, asked) = mpsc::unbounded_channel();
        let config = Config {
            view: ArcSwap::default(),
            known: ArcSwap::from_pointee(Known::nothing(mesh_networks)),
            changes: watch::Sender::new(0),
            asks,
            answer_timeout,
            missing,
        };
        (config, asked)
    }

    /// What holds now; one consistent whole for a request.
    pub fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// Told whenever the view, or what is known to be absent, has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Where a dialled address leads. Waits only for the first answer about an address of the mesh.
    ///
    /// # Errors
    /// The control plane did not decide in time, and no earlier answer is kept.
    pub async fn outbound(&self, address: SocketAddr) -> Result<Destination, Refusal> {
        if let Some(destination) = self.decide(address) {
            return Ok(destination);
        }
        let mut changes = self.changes.subscribe();
        let answered = async {
            loop {
                // The control thread may have forgotten the address again before we looked: ask anew.
                self.ask(address);
                if let Some(destination) = self.decide(address) {
                    return Some(destination);
                }
                changes.changed().await.ok()?;
            }
        };
        let answer = tokio::time::timeout(self.answer_timeout, answered).await.ok().flatten();
        answer.or_else(|| self.last_answer(address)).ok_or_else(|| self.undecided(address))
    }

    /// What is known without asking; `None`: ask.
    fn decide(&self, address: SocketAddr) -> Option<Destination> {
        let known = self.known.load();
        if !known.is_inside_mesh(address.ip()) {
            return Some(Destination::PassThrough(Passing::default()));
        }
        let subscribed = known.subscribed.get(&address);
        if let Some(target) = self.view.load().outbound.get(&address) {
            subscribed.inspect(|subscribed| subscribed.asked());
            return Some(Destination::Target(target.clone()));
        }
        if known.absent.contains(&address) {
            return Some(Destination::PassThrough(Passing::through(subscribed?)));
        }
        if known.connected { None } else { known.kept_target(address) }
    }

    fn ask(&self, address: SocketAddr) {
        if !self.known.load().subscribed.contains_key(&address) {
            // The queue ends with the process.
            let _ = self.asks.send(address);
        }
    }

    /// What an earlier answer said, when the control plane is connected and silent.
    fn last_answer(&self, address: SocketAddr) -> Option<Destination> {
        self.known.load().kept_target(address)
    }

    fn undecided(&self, address: SocketAddr) -> Refusal {
        self.missing.inc();
        let detail = format!("the control plane has not said where {address} leads");
        Refusal::new(Code::UNKNOWN_DESTINATION, detail)
    }

    /// Replaces what is known. The view goes first: who sees the new `known` sees the new view.
    fn publish(&self, view: Option<View>, known: Known) {
        if let Some(view) = view {
            self.view.store(Arc::new(view));
        }
        self.known.store(Arc::new(known));
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// What is known beside the view; for the control thread and the admin endpoints.
    pub fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }
}

impl Known {
    fn nothing(mesh_networks: &[IpNet]) -> Known {
        Known {
            mesh_networks: mesh_networks.into(),
            connected: false,
            subscribed: HashMap::new(),
            absent: HashSet::new(),
            kept: HashMap::new(),
            snapshot: Arc::default(),
            rejections: Arc::new([]),
        }
    }

    fn is_inside_mesh(&self, address: IpAddr) -> bool {
        self.mesh_networks.iter().any(|network| network.contains(&address))
    }

    fn kept_target(&self, address: SocketAddr) -> Option<Destination> {
        self.kept.get(&address).cloned().map(Destination::Target)
    }
}

impl Passing {
    fn through(subscribed: &Arc<Use>) -> Passing {
        subscribed.asked();
        subscribed.passing.fetch_add(1, Ordering::Relaxed);
        Passing(Some(subscribed.clone()))
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let Some(subscribed) = &self.0 {
            subscribed.passing.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Use {
    /// Read before it is written: workers share the cache line.
    fn asked(&self) {
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the address was dialled since the last look, or connections pass to it.
    pub fn since_last_look(&self) -> bool {
        self.asked.swap(false, Ordering::Relaxed) || self.passing.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gauze_model::listener::{HttpTarget, Listener, Outbound, PortProtocol};
    use gauze_model::{Name, Origin};

    use super::*;
    use crate::metrics::Metrics;
    use crate::target::{OwnAddresses, Targets};

    const CART: &str = "10.96.0.2:80";

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn config() -> (Config, Asks) {
        let mesh = ["10.0.0.0/8".parse().expect("a network")];
        Config::new(&mesh, Duration::from_millis(30), Metrics::new().answers_missing)
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(future)
    }

    /// A view in which this address leads to a pod.
    fn view(address: SocketAddr) -> View {
        let outbound = Outbound {
            origin: Origin::default(),
            protocol: PortProtocol::Detect,
            http: HttpTarget::Cluster(Name::Pod(address)),
            tls: Vec::new(),
            tcp: Vec::new(),
        };
        let name = Name::Outbound { viewer: "shop".to_owned(), address };
        let listeners = BTreeMap::from([(name, Arc::new(Listener::Outbound(outbound)))]);
        let snapshot = Snapshot { listeners, ..Snapshot::default() };
        Targets::new(OwnAddresses::default()).build(&snapshot, &Metrics::new())
    }

    fn known(config: &Config, change: impl FnOnce(&mut Known)) -> Known {
        let mut known = (*config.known()).clone();
        change(&mut known);
        known
    }

    #[test]
    fn an_address_outside_the_mesh_passes_at_once_and_is_not_asked_for() {
        let (config, mut asks) = config();
        let destination = run(config.outbound(address("203.0.113.7:443")));
        assert!(matches!(destination, Ok(Destination::PassThrough(_))), "{destination:?}");
        assert!(asks.try_recv().is_err());
    }

    #[test]
    fn an_address_of_the_mesh_is_asked_for_and_waited_for() {
        let (config, mut asks) = config();
        let answer = async {
            assert_eq!(asks.recv().await, Some(address(CART)));
            config.publish(Some(view(address(CART))), known(&config, |_| ()));
        };
        let (destination, ()) = run(async { tokio::join!(config.outbound(address(CART)), answer) });
        assert!(matches!(&destination, Ok(Destination::Target(target)) if target.address == address(CART)));
    }

    #[test]
    fn an_address_that_nobody_decides_is_refused_with_its_code() {
        let (config, _asks) = config();
        let refusal = run(config.outbound(address(CART))).expect_err("refused");
        assert_eq!((refusal.code, config.missing.get()), (Code::UNKNOWN_DESTINATION, 1));
        assert!(refusal.detail.contains(CART), "{refusal}");
    }

    #[test]
    fn the_last_answer_about_a_service_serves_when_nobody_can_be_asked() {
        let (config, mut asks) = config();
        let target = view(address(CART)).outbound[&address(CART)].clone();
        for connected in [false, true] {
            let kept = HashMap::from([(address(CART), target.clone())]);
            config.publish(None, known(&config, |known| (known.kept, known.connected) = (kept, connected)));
            let destination = run(config.outbound(address(CART)));
            assert!(matches!(&destination, Ok(Destination::Target(kept)) if Arc::ptr_eq(kept, &target)));
            assert_eq!(asks.try_recv().is_ok(), connected, "a control plane that is there is asked first");
        }
    }

    #[test]
    fn an_address_that_nobody_knows_passes_and_stays_subscribed_meanwhile() {
        let (config, _asks) = config();
        let used = Arc::new(Use::default());
        config.publish(
            None,
            known(&config, |known| {
                known.subscribed.insert(address(CART), used.clone());
                known.absent.insert(address(CART));
            }),
        );
        let destination = run(config.outbound(address(CART)));
        assert!(matches!(destination, Ok(Destination::PassThrough(_))));
        assert!(used.since_last_look() && used.since_last_look(), "as long as it is open");
        drop(destination);
        assert!(!used.since_last_look());
    }
}
