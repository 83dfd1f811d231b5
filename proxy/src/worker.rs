//! A thread that carries traffic, and what belongs to it alone: pools, measured latencies, draws.
//! Nothing of it is shared, so nothing of it is locked. What must hold for the whole process (limits)
//! is in the live state of the targets.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use gauze_model::cluster::Workload;
use http::{HeaderValue, Version};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

use crate::Proxy;
use crate::balance::Latencies;
use crate::connect::Pools;
use crate::connection;
use crate::drain::{FINISH_TIMEOUT, QUIET, Stage};
use crate::h1;
use crate::headers::PeerHeader;
use crate::listen::{Accepted, Listeners, own_ports};
use crate::metrics::{Direction, EdgeMetrics};
use crate::serve;
use crate::settings::WorkloadSettings;
use crate::target::EndpointTarget;

/// One thread's share of the data path.
pub(crate) struct Worker {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) index: usize,
    pub(crate) pools: Pools,
    pub(crate) latencies: Latencies,
    pub(crate) http1: Rc<h1::server::Settings>,
    /// Where requests of our app count until their endpoint is chosen.
    pub(crate) nowhere: Arc<EdgeMetrics>,
    /// Our app, by the addresses at which it was called.
    apps: RefCell<HashMap<SocketAddr, Weak<EndpointTarget>>>,
    own_ports: Vec<u16>,
    /// `gauze-peer` for requests that came as HTTP/1.1 and as HTTP/2.
    peer_values: [Option<HeaderValue>; 2],
    random: RefCell<fastrand::Rng>,
    turn: Cell<u32>,
}

/// All workers of a process.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
}

/// Connections handed over and not yet taken by their worker; more than that and accepting waits.
const HANDED_OVER_MAX: usize = 128;

/// Starts the workers. They carry traffic until the last stage, then finish what is in flight.
///
/// # Errors
/// A thread or its event loop cannot be made.
pub fn start(proxy: &Arc<Proxy>, listeners: Listeners) -> io::Result<Workers> {
    let count = usize::from(proxy.settings.workers);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(HANDED_OVER_MAX)).unzip();
    let mut acceptor = Some((listeners, senders));
    let mut threads = Vec::with_capacity(count);
    for (index, arriving) in receivers.into_iter().enumerate() {
        let (proxy, acceptor) = (Arc::clone(proxy), acceptor.take());
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let thread = std::thread::Builder::new().name(format!("worker-{index}"));
        threads.push(thread.spawn(move || {
            let worker = Rc::new(Worker::new(proxy, index));
            let local = LocalSet::new();
            if let Some((listeners, workers)) = acceptor {
                let settings = Arc::clone(&worker.proxy);
                local.spawn_local(listeners.accept(settings, workers));
            }
            local.block_on(&runtime, worker.run(arriving));
        })?);
    }
    Ok(Workers { threads })
}

impl Workers {
    /// Waits until all have ended.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

impl Worker {
    pub(crate) fn new(proxy: Arc<Proxy>, index: usize) -> Worker {
        let WorkloadSettings { namespace, pod, app, app_version: version, .. } =
            proxy.settings.workload.clone();
        let us = Workload { namespace, pod, app, version, uid: String::new() };
        let peer_value = |version| PeerHeader { workload: us.clone(), version: Some(version) }.to_value();
        Worker {
            index,
            pools: Pools::default(),
            latencies: Latencies::default(),
            http1: Rc::new(serve::http1_settings(&proxy.settings.limits)),
            nowhere: proxy.metrics.nowhere(Direction::Outbound),
            apps: RefCell::default(),
            own_ports: own_ports(&proxy.settings.interception),
            peer_values: [peer_value(Version::HTTP_11), peer_value(Version::HTTP_2)],
            random: RefCell::new(fastrand::Rng::new()),
            turn: Cell::new(0),
            proxy,
        }
    }

    /// Carries the connections that arrive until the last stage, then what is left of them.
    async fn run(self: Rc<Self>, mut arriving: mpsc::Receiver<Accepted>) {
        let mut connections = JoinSet::new();
        let sweeper = tokio::task::spawn_local(Rc::clone(&self).sweep());
        loop {
            tokio::select! {
                accepted = arriving.recv() => match accepted {
                    Some(accepted) => { connections.spawn_local(connection::carry(Rc::clone(&self), accepted)); }
                    None => break, // the acceptor ended: the last stage
                },
                Some(_) = connections.join_next() => {}
            }
        }
        let left = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(FINISH_TIMEOUT, left).await.is_err() {
            tracing::info!(worker = self.index, after = ?FINISH_TIMEOUT, "cutting off what has not finished");
        }
        sweeper.abort();
    }

    /// Closes what was idle for too long, and what no endpoint stands for any more.
    async fn sweep(self: Rc<Self>) {
        let limits = &self.proxy.settings.limits;
        let mut changes = self.proxy.config.changes();
        let mut room_wanted = self.proxy.room_wanted.subscribe();
        loop {
            tokio::select! {
                () = tokio::time::sleep(limits.pool_idle_timeout / 2) => {}
                changed = changes.changed() => if changed.is_err() { return },
                Ok(()) = room_wanted.changed() => {
                    self.pools.give_way();
                    continue;
                }
            }
            self.pools.sweep(Instant::now(), limits.pool_idle_timeout);
        }
    }

    /// Completes when the last stage has lasted so long that what says nothing has nothing to say.
    pub(crate) async fn quiet_end(&self) {
        self.proxy.drain.reached(Stage::Ending).await;
        tokio::time::sleep(QUIET).await;
    }

    /// Our app at one of its addresses; looked at as an endpoint without limits of its own.
    pub(crate) fn app_at(&self, address: SocketAddr) -> Arc<EndpointTarget> {
        let mut apps = self.apps.borrow_mut();
        if let Some(app) = apps.get(&address).and_then(Weak::upgrade) {
            return app;
        }
        apps.retain(|_, app| app.strong_count() > 0);
        let app = Arc::new(EndpointTarget::app(address, self.proxy.metrics.nowhere(Direction::Inbound)));
        apps.insert(address, Arc::downgrade(&app));
        app
    }

    /// Whether an address leads to this proxy itself.
    pub(crate) fn is_own(&self, address: SocketAddr) -> bool {
        let is_here =
            address.ip().is_loopback() || self.proxy.settings.workload.pod_ips.contains(&address.ip());
        is_here && self.own_ports.contains(&address.port())
    }

    pub(crate) fn draw(&self) -> u32 {
        self.random.borrow_mut().u32(..)
    }

    pub(crate) fn draw_id(&self) -> u128 {
        self.random.borrow_mut().u128(..)
    }

    /// Rises by one with each call.
    pub(crate) fn turn(&self) -> u32 {
        self.turn.replace(self.turn.get().wrapping_add(1))
    }

    /// What this sidecar says of itself to the next one.
    pub(crate) fn peer_value(&self, version: Version) -> Option<HeaderValue> {
        self.peer_values[usize::from(version == Version::HTTP_2)].clone()
    }
}

#[cfg(test)]
impl Worker {
    /// The only worker of a proxy that knows nothing yet.
    pub(crate) fn for_tests() -> Rc<Worker> {
        let settings = crate::settings::Settings::for_tests("--mode none");
        let metrics = Arc::new(crate::metrics::Metrics::new());
        let networks = &settings.interception.mesh_networks;
        let limit = settings.limits.answer_timeout;
        let (config, _asks) = crate::config::Config::new(networks, limit, metrics.answers_missing.clone());
        let proxy = Proxy {
            control_plane: Arc::new(crate::control_plane::ControlPlane::new(&settings.control_plane)),
            tls: crate::tls::Tls::new("cluster.local"),
            self_check: crate::self_check::SelfCheck::new(settings.interception.mode),
            drain: crate::drain::Drain::new(),
            room_wanted: tokio::sync::watch::Sender::new(()),
            config: Arc::new(config),
            access_log: crate::access_log::AccessLog::off(),
            metrics,
            settings,
        };
        Rc::new(Worker::new(Arc::new(proxy), 0))
    }

    /// Runs a test as a worker runs: one thread, a `LocalSet`.
    pub(crate) fn run_test(test: impl AsyncFnOnce(Rc<Worker>)) {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build().expect("an event loop");
        LocalSet::new().block_on(&runtime, async { test(Worker::for_tests()).await });
    }
}
