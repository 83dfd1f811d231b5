//! The gauze control plane: objects in; configuration, certificates and statuses out.
//!
//! It knows no application socket.

// Objects in, and what they mean:
pub mod problem; // what is wrong with an object, and how to fix it
pub mod source; // where objects come from
pub mod status; // what each object's conditions should be
pub mod translate; // what every object means, by name
pub mod world; // all objects

// What is sent to proxies:
pub mod ads; // the gRPC shell of a configuration stream
pub mod permission; // who may ask for what
pub mod push; // from a change of the world to what each stream is sent

// Certificates:
pub mod authority; // the root, and leaves for public keys
pub mod certificates; // the call by which a proxy gets one
pub mod state; // keys and tokens that outlive the process
pub mod tokens; // who asks for a certificate
pub mod workload; // a pod, in tokens, on streams and in the world

// The process:
pub mod admin; // what operators and scrapers ask
pub mod logging; // logs on stderr, and their level
pub mod metrics; // what is counted
pub mod port; // the TLS port
pub mod settings; // what the operator sets

pub use settings::Settings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use gauze_model::SpiffeId;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use admin::{Admin, AdminSocket};
use ads::Ads;
use authority::Authority;
use certificates::Certificates;
use logging::Logging;
use metrics::Metrics;
use port::{OwnCertificate, Services};
use push::Push;
use source::Update;
use state::StateDirectory;
use tokens::{TokenFiles, Tokens};
use workload::Workload;

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

/// A control plane that has its keys, has read all objects, and has bound all its addresses.
pub struct ControlPlane {
    services: Services,
    admin: Admin,
    own: Arc<OwnCertificate>,
    token_files: TokenFiles,
    updates: mpsc::Receiver<Update>,
    stop: watch::Sender<bool>,
    grpc: TcpListener,
    metrics_port: TcpListener,
    socket: AdminSocket,
}

impl ControlPlane {
    /// Opens keys, reads all objects, and binds.
    ///
    /// # Errors
    /// See [`run`].
    pub async fn start(settings: &Settings, logging: Logging) -> anyhow::Result<ControlPlane> {
        let state = StateDirectory::open(settings.state_directory())?;
        let authority =
            Authority::open(&state, &settings.trust_domain, settings.certificate_life, SystemTime::now())?;
        let authority = Arc::new(authority);
        let tokens = Arc::new(Tokens::open(&state)?);

        let metrics = Arc::new(Metrics::default());
        let own_id = SpiffeId::control_plane(&settings.trust_domain, &settings.system_namespace);
        let own = OwnCertificate::issue(&authority, &own_id, &metrics)?;
        let push = Arc::new(Push::new(settings.mesh(), Arc::clone(&metrics)));
        let updates = read_all(settings, &push).await?;
        // Before anybody is told where to connect: a proxy needs its token first of all.
        let mut token_files = TokenFiles::open(&state)?;
        token_files.keep(&tokens, Workload::meshed(&push.world()), SystemTime::now());

        let (stop, stopping) = watch::channel(false);
        let ads = Ads { push: push.clone(), metrics: metrics.clone(), stopping: stopping.clone() };
        let admin = Admin {
            push: push.clone(),
            metrics: metrics.clone(),
            authority: authority.clone(),
            logging,
            stopping,
        };
        let certificates = Certificates { authority, tokens, push, metrics, own: own_id };
        Ok(ControlPlane {
            services: Services { ads, certificates },
            admin,
            own,
            token_files,
            updates,
            stop,
            grpc: bind(settings.listen, "--listen").await?,
            metrics_port: bind(settings.metrics_listen, "--metrics-listen").await?,
            socket: AdminSocket::bind(settings.admin_socket())?,
        })
    }

    /// Where it listens, as one line of JSON.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn listening(&self) -> anyhow::Result<String> {
        let listening = json!({
            "grpc": [self.grpc.local_addr()?],
            "metrics": [self.metrics_port.local_addr()?],
            "admin_socket": self.socket.path(),
        });
        Ok(json!({ "listening": listening }).to_string())
    }

    /// Serves until `shutdown` resolves, then lets streams end.
    ///
    /// # Errors
    /// The source or the server ended by itself.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Certificates { authority, tokens, push, metrics, own } = self.services.certificates.clone();
        let tls = port::tls(authority.root(), Arc::clone(&self.own))?;
        let connections = port::door::open(self.grpc, tls, own.trust_domain.clone(), Arc::clone(&metrics));
        let mut stopping = self.services.ads.stopping.clone();
        let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };

        let mut tasks = JoinSet::new();
        tasks.spawn(self.admin.serve(self.socket, self.metrics_port));
        tasks.spawn(self.own.keep(authority, own, Arc::clone(&metrics)));
        tasks.spawn(tokens::keep(self.token_files, tokens, Arc::clone(&push), metrics));
        let follow = push.follow(self.updates);
        let serving = self.services.serve(connections, stopped);
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            () = shutdown => {}
            () = follow => anyhow::bail!("the directory can no longer be watched"),
            served = &mut serving => return Ok(served?),
        }
        self.stop.send_replace(true);
        let _ = timeout(STOP_TIMEOUT, serving).await;
        tasks.shutdown().await;
        Ok(())
    }
}

/// Reads everything once: nothing is served before what does not exist is known.
async fn read_all(settings: &Settings, push: &Push) -> anyhow::Result<mpsc::Receiver<Update>> {
    let directory = &settings.directory;
    let started = Instant::now();
    let mut updates = source::directory::watch(directory)
        .with_context(|| format!("cannot watch {}", directory.display()))?;
    while !push.world().is_synced() {
        let update = updates.recv().await.with_context(|| format!("cannot read {}", directory.display()))?;
        push.update(vec![update], started);
    }
    tracing::info!(directory = %directory.display(), took = ?started.elapsed(), "read all objects");
    Ok(updates)
}

async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} ({flag})"))
}
