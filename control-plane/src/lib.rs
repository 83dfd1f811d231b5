//! The gauze control plane: objects in; configuration, certificates and statuses out.
//!
//! It knows no application socket.

// Objects in, and what they mean:
pub mod convert; // a TrafficSplit in another version of SMI
mod inspect; // what is wrong with objects, counted and logged
pub mod problem; // what is wrong with an object, and how to fix it
pub mod source; // where objects come from
pub mod status; // what each object's conditions should be
pub mod translate; // what every object means, by name
pub mod world; // all objects

// What is sent to proxies:
pub mod ads; // the gRPC shell of a configuration stream
pub mod permission; // who may ask for what
pub mod push; // from a change of the world to what each stream is sent

// Pods:
pub mod inject; // which pods get our sidecar, and how they look then

// Certificates:
pub mod authority; // the root, and leaves for public keys
pub mod certificates; // the call by which a proxy gets one
pub mod state; // keys and tokens that outlive the process
pub mod tokens; // who asks for a certificate
pub mod workload; // a pod, in tokens, on streams and in the world

// In a Kubernetes cluster:
pub mod cluster; // what is done there besides reading objects
pub mod uninstall; // what is taken back when we go

// The process:
pub mod admin; // what operators and scrapers ask
pub mod ask; // how a program without a shell asks it
pub mod logging; // logs on stderr, and their level
pub mod metrics; // what is counted
mod mode; // what differs between a cluster and a directory
pub mod port; // the TLS port
pub mod readiness; // whether proxies should come here
pub mod settings; // what the operator sets

pub use settings::Settings;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gauze_model::SpiffeId;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use admin::{Admin, AdminSocket};
use ads::Ads;
use certificates::Certificates;
use logging::Logging;
use metrics::Metrics;
use mode::{Mode, Prepared, Shared};
use port::{AmongReplicas, Services};
use push::Push;
use readiness::{Readiness, Unready};

/// How long streams may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the control plane until `shutdown` resolves. The first line on stdout says where it listens.
///
/// # Errors
/// It could not start: an address that is taken, a state directory that cannot be written. Or its source ended.
pub async fn run(
    settings: Settings,
    logging: Logging,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut shutdown = std::pin::pin!(shutdown);
    let control_plane = tokio::select! {
        started = ControlPlane::start(&settings, logging) => started?,
        () = &mut shutdown => return Ok(()),
    };
    println!("{}", control_plane.listening()?);
    control_plane.serve(shutdown).await
}

/// A control plane that has bound all its addresses; one of a directory has read all objects, too.
pub struct ControlPlane {
    shared: Shared,
    logging: Logging,
    mode: Mode,
    grpc: TcpListener,
    metrics_port: TcpListener,
    socket: AdminSocket,
}

impl ControlPlane {
    /// Binds. In directory mode it opens keys and reads all objects before: nobody is told where to
    /// connect before there is something to get. In a cluster that takes as long as the API server is
    /// away, so probes are answered meanwhile.
    ///
    /// # Errors
    /// See [`run`].
    pub async fn start(settings: &Settings, logging: Logging) -> anyhow::Result<ControlPlane> {
        let metrics = Arc::new(Metrics::default());
        let shared = Shared {
            settings: Arc::new(settings.clone()),
            push: Arc::new(Push::new(settings.mesh(), Arc::clone(&metrics))),
            metrics,
            readiness: Arc::new(Readiness::default()),
        };
        Ok(ControlPlane {
            mode: Mode::start(&shared).await?,
            shared,
            logging,
            grpc: bind(settings.listen(), "--listen").await?,
            metrics_port: bind(settings.metrics_listen(), "--metrics-listen").await?,
            socket: AdminSocket::bind(settings.admin_socket())?,
        })
    }

    /// Where it listens, as one line of JSON.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn listening(&self) -> anyhow::Result<String> {
        let mut listening = json!({
            "grpc": [self.grpc.local_addr()?],
            "metrics": [self.metrics_port.local_addr()?],
            "admin_socket": self.socket.path(),
        });
        if let Mode::Kubernetes(kubernetes) = &self.mode {
            listening["webhook"] = json!([kubernetes.webhook.local_addr()?]);
        }
        Ok(json!({ "listening": listening }).to_string())
    }

    /// Serves until `shutdown` resolves, then lets streams end.
    ///
    /// # Errors
    /// It cannot be prepared, or the source or the server ended by itself.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut shutdown = std::pin::pin!(shutdown);
        let Shared { settings, push, metrics, readiness } = self.shared.clone();
        let admin = Admin {
            push: push.clone(),
            metrics: metrics.clone(),
            authority: Arc::default(),
            logging: self.logging,
            readiness: readiness.clone(),
            replicas: Arc::default(),
        };
        let (known_authority, known_replicas) = (admin.authority.clone(), admin.replicas.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(admin.serve(self.socket, self.metrics_port));
        let port = self.grpc.local_addr()?.port();
        let prepared = tokio::select! {
            prepared = self.mode.prepare(&self.shared, port) => prepared?,
            () = &mut shutdown => return Ok(()),
        };
        let Prepared { authority, tokens, own, replicas, updates, tasks: mut beside, last } = prepared;
        let _ = known_authority.set(authority.clone());
        if let Some(AmongReplicas { all, .. }) = &replicas {
            let _ = known_replicas.set(all.clone());
        }

        let own_id = own_identity(&settings);
        tasks.spawn(own.clone().keep());
        let tls = port::tls(authority.root(), own)?;
        let connections =
            port::door::open(self.grpc, tls, settings.trust_domain.clone(), Arc::clone(&metrics));
        tasks.spawn(inspect::keep(push.clone(), metrics.clone()));
        let services = Services {
            ads: Ads { push: push.clone(), metrics: metrics.clone(), readiness: readiness.clone() },
            certificates: Certificates { authority, tokens, push: push.clone(), metrics, own: own_id },
            replicas,
        };
        let stopping = readiness.clone();
        let stopped = async move {
            stopping.until(|reason| reason == Unready::Stopping).await;
        };
        let mut serving = std::pin::pin!(services.serve(connections, stopped));
        let follow = push.follow(updates);
        tokio::select! {
            () = shutdown => {}
            () = follow => anyhow::bail!("objects can no longer be watched"),
            served = &mut serving => return Ok(served?),
        }
        readiness.set(Unready::Stopping, true);
        let _ = timeout(STOP_TIMEOUT, futures_util::future::join(serving, last.join_all())).await;
        beside.shutdown().await;
        tasks.shutdown().await;
        Ok(())
    }
}

/// Who this control plane is.
fn own_identity(settings: &Settings) -> SpiffeId {
    SpiffeId::control_plane(&settings.trust_domain, &settings.system_namespace)
}

/// Binds; any address means any of IPv4 where the kernel has no IPv6.
async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    let bound = match TcpListener::bind(address).await {
        Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) && address.ip().is_unspecified() => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.with_context(|| format!("cannot listen on {address} ({flag})"))
}

/// What Linux says where an address family is not compiled in or switched off.
const EAFNOSUPPORT: i32 = 97;
