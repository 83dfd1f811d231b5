//! One pod of the demo as two processes: its app on a loopback port, and its sidecar on the pod's address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::children::Child;
use super::edges::PodReading;
use super::ledger::Ledger;
use super::pods::Pod;
use super::wait;
use crate::admin::Endpoint;
use crate::metrics;

/// A running pod.
pub(crate) struct RunningPod {
    pub(crate) app: Child,
    pub(crate) sidecar: Child,
    /// What was read from it so far.
    pub(crate) reading: PodReading,
    pub(crate) card: PodCard,
}

/// Where a pod of a running demo can be asked; `gauze proxy` reads it from DIR/.gauze/pods/POD.json.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodCard {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) app: String,
    pub(crate) version: String,
    /// Where callers reach the pod.
    pub(crate) address: SocketAddr,
    /// Where its app really listens.
    pub(crate) app_address: SocketAddr,
    /// The sidecar's admin port.
    pub(crate) admin: SocketAddr,
    pub(crate) admin_socket: PathBuf,
    pub(crate) metrics: SocketAddr,
    /// The sidecar's log.
    pub(crate) log: PathBuf,
    pub(crate) sidecar_pid: u32,
    pub(crate) app_pid: u32,
}

/// What every sidecar is told.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// DIR/.gauze
    pub(crate) state: PathBuf,
    pub(crate) control_plane: SocketAddr,
}

/// How long a sidecar may take until it has its certificate and its configuration.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Starts the app of `pod`, with what it is told beside.
pub(crate) async fn start_app(pod: &Pod, state: &Path, told: &[&str]) -> anyhow::Result<Child> {
    let mut arguments =
        strings(&["demo-app", "--with-parent", "--service", &pod.app, "--version", &pod.version]);
    arguments.extend(strings(&["--pod", &pod.name]));
    arguments.extend(strings(told));
    for upstream in &pod.upstreams {
        arguments.extend(["--calls".to_owned(), format!("{}={}", upstream.service, upstream.listen)]);
    }
    Child::start(&format!("the app of {}", pod.name), &arguments, &log(state, &format!("{}.app", pod.name)))
        .await
}

/// Starts the sidecar of `pod` in front of its app and waits until it is ready.
pub(crate) async fn start_sidecar(
    pod: &Pod,
    app: SocketAddr,
    surroundings: &Surroundings,
) -> anyhow::Result<Child> {
    let state = &surroundings.state;
    let token = state.join("tokens").join(format!("{}.{}", pod.namespace, pod.name));
    wait::until(&format!("the token of {}", pod.name), READY_TIMEOUT, async || {
        if token.exists() { Ok(()) } else { Err(format!("{} does not exist", token.display())) }
    })
    .await?;
    let arguments = sidecar_arguments(pod, app, &token, surroundings);
    let name = format!("the sidecar of {}", pod.name);
    let mut sidecar = Child::start(&name, &arguments, &log(state, &format!("{}.sidecar", pod.name))).await?;
    let admin = Endpoint::Tcp(sidecar.address("admin")?);
    let what = format!("{name} to be ready");
    let ready = wait::until(&what, READY_TIMEOUT, async || {
        if sidecar.ended().is_some() { Ok(String::new()) } else { admin.get("/ready").await }
    });
    ready.await.map_err(|error| error.context(sidecar.last_words()))?;
    sidecar.check()?;
    Ok(sidecar)
}

fn sidecar_arguments(pod: &Pod, app: SocketAddr, token: &Path, surroundings: &Surroundings) -> Vec<String> {
    let state = &surroundings.state;
    let mut arguments = strings(&["run-proxy", "--with-parent", "--", "--mode", "none"]);
    for (flag, value) in [
        ("--control-plane", surroundings.control_plane.to_string()),
        ("--trust-roots", state.join("trust.pem").display().to_string()),
        ("--token", token.display().to_string()),
        ("--namespace", pod.namespace.clone()),
        ("--pod", pod.name.clone()),
        ("--service-account", pod.service_account.clone()),
        ("--pod-ip", pod.address.ip().to_string()),
        ("--app", pod.app.clone()),
        ("--app-version", pod.version.clone()),
        ("--admin-listen", "127.0.0.1:0".to_owned()),
        ("--metrics-listen", "127.0.0.1:0".to_owned()),
        ("--admin-socket", admin_socket(state, pod).display().to_string()),
        ("--inbound", format!("{}={app}", pod.address)),
    ] {
        arguments.extend([flag.to_owned(), value]);
    }
    for upstream in &pod.upstreams {
        arguments
            .extend(["--outbound".to_owned(), format!("{}={}", upstream.listen, upstream.cluster_address)]);
    }
    arguments
}

/// Where the sidecar takes orders.
pub(crate) fn admin_socket(state: &Path, pod: &Pod) -> PathBuf {
    state.join("pods").join(format!("{}.sock", pod.name))
}

/// The log of a process of the demo.
pub(crate) fn log(state: &Path, name: &str) -> PathBuf {
    state.join("logs").join(format!("{name}.log"))
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

impl RunningPod {
    pub(crate) fn new(pod: Pod, app: Child, sidecar: Child, state: &Path) -> anyhow::Result<RunningPod> {
        let card = PodCard {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            app: pod.app.clone(),
            version: pod.version.clone(),
            address: pod.address,
            app_address: app.address("app")?,
            admin: sidecar.address("admin")?,
            admin_socket: admin_socket(state, &pod),
            metrics: sidecar.address("metrics")?,
            log: log(state, &format!("{}.sidecar", pod.name)),
            sidecar_pid: sidecar.pid,
            app_pid: app.pid,
        };
        let reading = PodReading { pod, ledger: Ledger::default(), counters: metrics::Counters::default() };
        Ok(RunningPod { app, sidecar, reading, card })
    }

    /// Reads the app's ledger and the sidecar's metrics.
    pub(crate) async fn read(&mut self) -> anyhow::Result<()> {
        let text = Endpoint::Tcp(self.card.metrics).get("/metrics").await?;
        self.reading.counters.update(metrics::parse(&text));
        let ledger = Endpoint::Tcp(self.card.app_address).get("/ledger").await?;
        self.reading.ledger = serde_json::from_str(&ledger)?;
        Ok(())
    }

    /// Puts a new sidecar in front of the same app.
    pub(crate) fn replace_sidecar(&mut self, sidecar: Child) -> anyhow::Result<Child> {
        self.card.admin = sidecar.address("admin")?;
        self.card.metrics = sidecar.address("metrics")?;
        self.card.sidecar_pid = sidecar.pid;
        self.reading.counters.restarted();
        Ok(std::mem::replace(&mut self.sidecar, sidecar))
    }
}
