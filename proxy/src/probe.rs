//! Kubelet's questions to the app, asked by us. A probe from the node arrives redirected and without a
//! certificate: under strict it would fail with a living app, and a connect alone would succeed with a
//! dead one. So the injector points each probe at our own port, and we ask the app at the pod's own
//! address, as kubelet would have. Only what was declared can be asked.
//!
//! Semantics: Kubernetes 1.36, `pkg/probe/{http,tcp,grpc}` and `pkg/kubelet/lifecycle/handlers.go`.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use http::StatusCode;
use tokio::net::TcpStream;

use crate::control_plane::Complaint;
use crate::listen::own_ports;
use crate::metrics::Metrics;
use crate::settings::{Mapping, Settings};

mod declared; // what may be asked
mod grpc; // grpc.health.v1
mod request; // an HTTP GET as kubelet sends it

pub use declared::{Check, Hook, HookKind, HttpGet, Probe, ProbeKind, ProbeSettings};

/// What was declared, and how the app is reached.
pub struct Probes {
    probes: Vec<Declared>,
    hooks: Vec<Hook>,
    app: Arc<App>,
}

/// A probe, and its question on the way. There is one at a time: who asks meanwhile hears the same
/// answer, so nobody can crowd out kubelet, or hurt the app by asking often.
struct Declared {
    probe: Probe,
    asking: Mutex<Option<WeakShared<Asking>>>,
    /// What the log was last told of it.
    told: Arc<Mutex<Complaint>>,
}

type Asking = BoxFuture<'static, Result<StatusCode, Failure>>;

/// The app at its pod's own address.
struct App {
    ip: IpAddr,
    /// Mode none: where the app really listens.
    mappings: Vec<Mapping>,
    own_ports: Vec<u16>,
    metrics: Arc<Metrics>,
}

/// The app could not be asked, or its answer is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("cannot connect to port {port}: {problem}")]
    Connect { port: u16, problem: String },
    #[error("port {port}: no TLS: {problem}")]
    Tls { port: u16, problem: String },
    #[error("port {port}: no answer: {problem}")]
    Broken { port: u16, problem: String },
    #[error("stopped after {} redirects", request::REDIRECTS_MAX)]
    Redirects,
    #[error("grpc.health.v1 says {0}")]
    Unhealthy(String),
    #[error("no answer in {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// What is said to whoever asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// The app's status, or 503 and why there is none.
    Status(StatusCode, String),
    /// Nothing: the connection is closed. kubelet takes any status of a hook for success.
    Nothing(Failure),
    /// Not declared.
    Unknown,
}

impl Probes {
    /// Without an address nothing is declared: the settings were checked.
    pub fn new(settings: &Settings, metrics: Arc<Metrics>) -> Probes {
        let interception = &settings.interception;
        let app = App {
            ip: settings.workload.pod_ips.first().copied().unwrap_or(IpAddr::from([127, 0, 0, 1])),
            mappings: interception.inbound.clone(),
            own_ports: own_ports(interception),
            metrics,
        };
        let declared =
            |probe: &Probe| Declared { probe: probe.clone(), asking: Mutex::default(), told: Arc::default() };
        Probes {
            probes: settings.probing.probes.iter().map(declared).collect(),
            hooks: settings.probing.hooks.clone(),
            app: Arc::new(app),
        }
    }

    /// Asks what stands for this path: `/probe/CONTAINER/KIND` or `/hook/CONTAINER/KIND/WORD`.
    pub async fn answer(&self, path: &str) -> Said {
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            ["", "probe", container, kind] => match self.probe(container, kind) {
                Some(declared) => declared.ask(&self.app).await,
                None => Said::Unknown,
            },
            ["", "hook", container, kind, word] => match self.hook(container, kind, word) {
                Some(hook) => act(hook, &self.app).await,
                None => Said::Unknown,
            },
            _ => Said::Unknown,
        }
    }

    fn probe(&self, container: &str, kind: &str) -> Option<&Declared> {
        self.probes
            .iter()
            .find(|Declared { probe, .. }| probe.container == container && probe.kind.to_string() == kind)
    }

    fn hook(&self, container: &str, kind: &str, word: &str) -> Option<&Hook> {
        self.hooks.iter().find(|hook| {
            hook.container == container && hook.kind.to_string() == kind && is_same_word(&hook.word, word)
        })
    }
}

/// In a time that does not tell how much of it was right.
fn is_same_word(ours: &str, theirs: &str) -> bool {
    let differences = ours.bytes().zip(theirs.bytes()).fold(0, |all, (ours, theirs)| all | (ours ^ theirs));
    ours.len() == theirs.len() && differences == 0
}

impl Declared {
    async fn ask(&self, app: &Arc<App>) -> Said {
        match self.asking(app).await {
            Ok(status) => Said::of(status),
            Err(failure) => Said::Status(StatusCode::SERVICE_UNAVAILABLE, failure.to_string()),
        }
    }

    fn asking(&self, app: &Arc<App>) -> Shared<Asking> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asking) = asking.as_ref().and_then(WeakShared::upgrade) {
            return asking;
        }
        let (probe, told, app) = (self.probe.clone(), Arc::clone(&self.told), Arc::clone(app));
        let new = async move {
            let answer = app.check(&probe).await;
            note(&probe, &answer, &told, &app.metrics);
            answer
        };
        let new = new.boxed().shared();
        *asking = new.downgrade();
        new
    }
}

/// Counts an answer, and logs it if it is not the last one again.
fn note(probe: &Probe, answer: &Result<StatusCode, Failure>, told: &Mutex<Complaint>, metrics: &Metrics) {
    let is_success = answer.as_ref().is_ok_and(|status| (200..400).contains(&status.as_u16()));
    metrics.probed(&probe.container, &probe.kind.to_string(), is_success);
    let said = match answer {
        Ok(status) => format!("the app says {}", status.as_u16()),
        Err(failure) => failure.to_string(),
    };
    if told.lock().unwrap_or_else(PoisonError::into_inner).is_new(&said) {
        tracing::info!(container = probe.container, kind = %probe.kind, is_success, said, "probe");
    }
}

impl Said {
    /// A status that cannot end an answer (101, 999) is none that kubelet takes for success either.
    fn of(status: StatusCode) -> Said {
        let said = format!("the app says {}", status.as_u16());
        let status =
            if (200..600).contains(&status.as_u16()) { status } else { StatusCode::SERVICE_UNAVAILABLE };
        Said::Status(status, said)
    }
}

async fn act(hook: &Hook, app: &App) -> Said {
    tracing::info!(%hook, "kubelet runs a hook");
    let asked = within(hook.timeout, request::get(app, &hook.get, request::Purpose::Hook)).await;
    match asked {
        Ok(status) => Said::of(status),
        Err(failure) => {
            tracing::warn!(%hook, %failure, "a hook could not reach the app");
            Said::Nothing(failure)
        }
    }
}

impl App {
    /// The app's verdict on itself. A connect and a healthy service count as 200.
    async fn check(&self, probe: &Probe) -> Result<StatusCode, Failure> {
        let verdict = async {
            match &probe.check {
                Check::Http(get) => request::get(self, get, request::Purpose::Probe).await,
                Check::Tcp { port } => self.connect(*port).await.map(|_| StatusCode::OK),
                Check::Grpc { port, service } => {
                    grpc::check(self, *port, service).await.map(|()| StatusCode::OK)
                }
            }
        };
        within(probe.timeout, verdict).await
    }

    /// A connection of its own, as kubelet makes one.
    async fn connect(&self, port: u16) -> Result<TcpStream, Failure> {
        let connected = TcpStream::connect(self.address(port)).await;
        connected.map_err(|problem| Failure::Connect { port, problem: problem.to_string() })
    }

    /// Where the app listens. In a real pod that is the pod's own address: what it keeps on the loopback
    /// kubelet could not ask either.
    fn address(&self, port: u16) -> SocketAddr {
        let address = SocketAddr::new(self.ip, port);
        let mapped = self.mappings.iter().find(|mapping| mapping.listen == address);
        mapped.map_or(address, |mapping| mapping.destination)
    }

    fn is_own(&self, port: u16) -> bool {
        self.own_ports.contains(&port)
    }
}

async fn within<T>(timeout: Duration, asked: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(timeout, asked).await.unwrap_or(Err(Failure::TimedOut(timeout)))
}

#[cfg(test)]
mod tests;
