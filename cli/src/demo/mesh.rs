//! The running demo: a control plane, and pods of two processes each. It starts, restarts, reads and ends them.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::{join_all, try_join_all};

use super::children::Child;
use super::edges::PodReading;
use super::pods::{Objects, Pod};
use super::sidecar::{self, RunningPod, Surroundings};
use crate::admin::Endpoint;
use crate::directory;
use crate::exit::Failure;

/// A control plane and its pods.
pub(crate) struct Mesh {
    pub(crate) directory: PathBuf,
    pub(crate) pods: Vec<RunningPod>,
    surroundings: Surroundings,
    /// `None` while it is away.
    control_plane: Option<Child>,
    state: State,
}

impl Mesh {
    /// Starts everything; when this returns, every sidecar has its certificate and its configuration.
    pub(crate) async fn start(directory: &Path, certificate_life: Duration) -> anyhow::Result<Mesh> {
        let pods = Objects::read(directory)?.pods()?;
        let mut state = State::take(directory)?;
        check_addresses(&pods)?;
        let started = start_all(directory, &state.path, pods, certificate_life).await;
        // Somebody will want to read why it does not start.
        state.keep_logs = started.is_err();
        let (control_plane, pods) = started?;
        let surroundings =
            Surroundings { state: state.path.clone(), control_plane: control_plane.address("grpc")? };
        let mesh = Mesh {
            directory: directory.to_owned(),
            pods,
            surroundings,
            control_plane: Some(control_plane),
            state,
        };
        mesh.write_cards()?;
        Ok(mesh)
    }

    /// Where the control plane serves sidecars.
    pub(crate) fn control_plane_address(&self) -> SocketAddr {
        self.surroundings.control_plane
    }

    /// The control plane's admin socket.
    pub(crate) fn admin(&self) -> Endpoint {
        Endpoint::socket(&self.state.path.join("control-plane.sock"))
    }

    /// The pod of this app and version.
    ///
    /// # Errors
    /// The shop has none.
    pub(crate) fn pod(&self, app: &str, version: &str) -> anyhow::Result<&RunningPod> {
        let found = self.pods.iter().find(|pod| pod.card.app == app && pod.card.version == version);
        found.with_context(|| format!("the shop has no pod {app} {version}"))
    }

    /// Kills the control plane: no goodbye, as when its machine fails.
    pub(crate) async fn kill_control_plane(&mut self) -> anyhow::Result<()> {
        match self.control_plane.take() {
            Some(mut control_plane) => control_plane.kill().await,
            None => Ok(()),
        }
    }

    /// Starts the control plane where the sidecars expect it.
    pub(crate) async fn start_control_plane(&mut self, certificate_life: Duration) -> anyhow::Result<()> {
        let address = self.surroundings.control_plane;
        let started =
            start_control_plane(&self.directory, &self.state.path, address, certificate_life).await?;
        self.control_plane = Some(started);
        Ok(())
    }

    /// Replaces every sidecar by a new process, as a restart of all pods would.
    pub(crate) async fn restart_sidecars(&mut self) -> anyhow::Result<()> {
        self.read().await?;
        let surroundings = &self.surroundings;
        // A pod's address can be bound again only when the old process has let go of it.
        join_all(self.pods.iter_mut().map(|pod| pod.sidecar.end())).await;
        let starts = self
            .pods
            .iter()
            .map(|pod| sidecar::start_sidecar(&pod.reading.pod, pod.card.app_address, surroundings));
        let sidecars = try_join_all(starts).await?;
        for (pod, sidecar) in self.pods.iter_mut().zip(sidecars) {
            drop(pod.replace_sidecar(sidecar)?);
        }
        self.write_cards()
    }

    /// Starts one pod more, of an object that is in the directory by now; its app is told so beside.
    pub(crate) async fn start_pod(&mut self, name: &str, told: &[&str]) -> anyhow::Result<()> {
        let pods = Objects::read(&self.directory)?.pods()?;
        let pod = pods.into_iter().find(|pod| pod.name == name);
        let pod = pod.with_context(|| format!("there is no Pod {name} in the directory"))?;
        check_addresses(std::slice::from_ref(&pod))?;
        let app = sidecar::start_app(&pod, &self.surroundings.state, told).await?;
        let sidecar = sidecar::start_sidecar(&pod, app.address("app")?, &self.surroundings).await?;
        self.pods.push(RunningPod::new(pod, app, sidecar, &self.surroundings.state)?);
        self.write_cards()
    }

    /// Ends a pod that was started so.
    pub(crate) async fn stop_pod(&mut self, name: &str) -> anyhow::Result<()> {
        let at = self.pods.iter().position(|pod| pod.card.pod == name);
        let pod = self.pods.remove(at.with_context(|| format!("no pod {name} runs"))?);
        fs::remove_file(card_file(&self.state.path, name)).with_context(|| format!("the card of {name}"))?;
        pod.sidecar.stop().await;
        pod.app.stop().await;
        Ok(())
    }

    /// Reads all ledgers and metrics.
    pub(crate) async fn read(&mut self) -> anyhow::Result<()> {
        self.check()?;
        try_join_all(self.pods.iter_mut().map(RunningPod::read)).await?;
        Ok(())
    }

    /// What was read last.
    pub(crate) fn readings(&self) -> impl Iterator<Item = &PodReading> {
        self.pods.iter().map(|pod| &pod.reading)
    }

    /// # Errors
    /// A process has ended that should run; the message holds its last words.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        let pods = self.pods.iter_mut().flat_map(|pod| [&mut pod.app, &mut pod.sidecar]);
        self.control_plane.iter_mut().chain(pods).try_for_each(Child::check)
    }

    /// Ends every process and removes what only makes sense while they run.
    pub(crate) async fn stop(self) {
        let pods = self.pods.into_iter().flat_map(|pod| [pod.sidecar, pod.app]);
        join_all(self.control_plane.into_iter().chain(pods).map(Child::stop)).await;
        drop(self.state);
    }

    /// Keeps the logs when everything else is removed: somebody will want to read them.
    pub(crate) fn keep_logs(&mut self) {
        self.state.keep_logs = true;
    }

    fn write_cards(&self) -> anyhow::Result<()> {
        for pod in &self.pods {
            let file = card_file(&self.state.path, &pod.card.pod);
            fs::write(&file, serde_json::to_string_pretty(&pod.card)?)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}

fn card_file(state: &Path, pod: &str) -> PathBuf {
    state.join("pods").join(format!("{pod}.json"))
}

async fn start_all(
    directory: &Path,
    state: &Path,
    pods: Vec<Pod>,
    certificate_life: Duration,
) -> anyhow::Result<(Child, Vec<RunningPod>)> {
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let (control_plane, apps) = tokio::try_join!(
        start_control_plane(directory, state, anywhere, certificate_life),
        try_join_all(pods.iter().map(|pod| sidecar::start_app(pod, state, &[]))),
    )?;
    let surroundings =
        Surroundings { state: state.to_owned(), control_plane: control_plane.address("grpc")? };
    let starts = pods
        .iter()
        .zip(&apps)
        .map(async |(pod, app)| sidecar::start_sidecar(pod, app.address("app")?, &surroundings).await);
    let sidecars = try_join_all(starts).await?;
    let running = pods.into_iter().zip(apps).zip(sidecars);
    let running = running.map(|((pod, app), sidecar)| RunningPod::new(pod, app, sidecar, state));
    Ok((control_plane, running.collect::<anyhow::Result<_>>()?))
}

async fn start_control_plane(
    directory: &Path,
    state: &Path,
    listen: SocketAddr,
    certificate_life: Duration,
) -> anyhow::Result<Child> {
    let mut arguments = vec!["run-control-plane".to_owned(), "--with-parent".to_owned(), "--".to_owned()];
    for (flag, value) in [
        ("--directory", directory.display().to_string()),
        ("--listen", listen.to_string()),
        ("--metrics-listen", "127.0.0.1:0".to_owned()),
        ("--mesh-networks", mesh_networks()),
        ("--certificate-life", format!("{}ms", certificate_life.as_millis())),
    ] {
        arguments.extend([flag.to_owned(), value]);
    }
    Child::start("the control plane", &arguments, &sidecar::log(state, "control-plane")).await
}

/// The networks that the mesh asks for, the demo's own among them.
fn mesh_networks() -> String {
    let networks = directory::mesh_settings().mesh_networks;
    networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Finds out before anything is started whether all addresses are free.
fn check_addresses(pods: &[Pod]) -> anyhow::Result<()> {
    for pod in pods {
        let listens = pod.upstreams.iter().map(|upstream| upstream.listen);
        for address in std::iter::once(pod.address).chain(listens) {
            TcpListener::bind(address).map_err(|error| address_problem(&pod.name, address, &error))?;
        }
    }
    Ok(())
}

/// What to do about an address that cannot be had.
fn address_problem(pod: &str, address: SocketAddr, error: &std::io::Error) -> Failure {
    let remedy = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another process listens there (another demo?). Move the shop to other addresses: \
             gauze demo --reset --address-base 127.2"
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "this machine has no such loopback address. On macOS add it: sudo ifconfig lo0 alias ADDRESS"
        }
        _ => "the shop's addresses stand in pods.yaml, endpointslices.yaml and services.yaml",
    };
    Failure::Unreachable(format!("{pod} cannot listen on {address}: {error}; {remedy}"))
}

/// DIR/.gauze while the demo runs: held by a lock, and tidied up at the end.
struct State {
    path: PathBuf,
    /// Nothing was there before: nothing stays.
    created: bool,
    keep_logs: bool,
    _lock: File,
}

impl State {
    fn take(directory: &Path) -> anyhow::Result<State> {
        let directory = fs::canonicalize(directory)?;
        let path = directory.join(".gauze");
        let created = !path.exists();
        for folder in [&path, &path.join("pods"), &path.join("logs")] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        restrict(&path)?;
        let lock = File::create(path.join("demo.lock"))?;
        if lock.try_lock().is_err() {
            bail!(Failure::Usage(format!(
                "a demo runs in {} already; end it, or choose another --directory and --address-base",
                directory.display()
            )));
        }
        for log in fs::read_dir(path.join("logs"))?.flatten() {
            // An old log that stays only makes the new one longer.
            let _ = fs::remove_file(log.path());
        }
        Ok(State { path, created, keep_logs: false, _lock: lock })
    }
}

/// The root key lies here: nobody else's business.
fn restrict(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    Ok(())
}

impl Drop for State {
    /// What cannot be removed stays; there is nobody left who could do something about it.
    fn drop(&mut self) {
        if self.created && !self.keep_logs {
            let _ = fs::remove_dir_all(&self.path);
            return;
        }
        let _ = fs::remove_dir_all(self.path.join("pods"));
        let _ = fs::remove_file(self.path.join("demo.lock"));
        if !self.keep_logs {
            let _ = fs::remove_dir_all(self.path.join("logs"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_demo_at_a_time_and_is_tidy_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::take(directory.path()).unwrap();
        let error = State::take(directory.path()).err().unwrap();
        assert!(error.to_string().contains("runs in"), "{error}");
        drop(state);
        assert!(!directory.path().join(".gauze").exists());
    }

    #[test]
    fn what_was_there_before_stays() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(".gauze")).unwrap();
        fs::write(directory.path().join(".gauze/root.key"), "key").unwrap();
        drop(State::take(directory.path()).unwrap());
        let left: Vec<_> = fs::read_dir(directory.path().join(".gauze")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_taken_address_says_who_wants_it_and_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let pod = Pod {
            namespace: "shop".into(),
            name: "web-0".into(),
            app: "web".into(),
            version: "v1".into(),
            service_account: "web".into(),
            address,
            upstreams: vec![],
        };
        let text = check_addresses(&[pod]).unwrap_err().to_string();
        for part in ["web-0", &address.to_string(), "--address-base"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
