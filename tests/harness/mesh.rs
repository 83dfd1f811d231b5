//! A whole mesh on the loopback: a directory of objects, the real control plane, real sidecars in mode `none`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use super::App;
use super::client::{self, Protocol};
use super::eventually::{eventually, holds};
use super::objects::{self, Pod};
use super::process::Process;

/// The namespace of all pods of a test.
pub(crate) const NAMESPACE: &str = "shop";

pub(crate) struct Mesh {
    folder: TempDir,
    control_plane: Option<Process>,
    /// Kept across restarts, so that sidecars find it again.
    listen: SocketAddr,
    extra: Vec<String>,
    services: AtomicU32,
}

/// A sidecar, and the pod that it makes of an app.
pub(crate) struct Sidecar {
    pub process: Process,
    pub pod: String,
    /// Where others reach this pod.
    pub address: SocketAddr,
    /// Where this pod's app dials each destination, in the order in which they were asked for.
    pub outbound: Vec<SocketAddr>,
}

/// What a sidecar is started with.
#[derive(Clone, Copy, Default)]
pub(crate) struct SidecarOptions<'a> {
    /// Empty: that of all other pods of the test.
    pub namespace: &'a str,
    pub version: &'a str,
    /// Destinations that the app dials.
    pub dials: &'a [SocketAddr],
    pub annotations: &'a [(&'a str, &'a str)],
    pub arguments: &'a [&'a str],
    /// Empty: `gauze-proxy`; else another program and its first arguments.
    pub program: &'a [&'a str],
}

impl<'a> SidecarOptions<'a> {
    fn namespace(&self) -> &'a str {
        if self.namespace.is_empty() { NAMESPACE } else { self.namespace }
    }
}

impl Mesh {
    /// A control plane over an empty directory.
    pub(crate) async fn start() -> Mesh {
        Mesh::start_with(&[]).await
    }

    pub(crate) async fn start_with(arguments: &[&str]) -> Mesh {
        let mut mesh = Mesh {
            folder: tempfile::tempdir().expect("a temporary folder"),
            control_plane: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            extra: arguments.iter().map(ToString::to_string).collect(),
            services: AtomicU32::new(1),
        };
        mesh.apply("namespace.yaml", &objects::namespace(NAMESPACE, &[]));
        mesh.start_control_plane().await;
        mesh
    }

    pub(crate) async fn start_control_plane(&mut self) {
        let directory = self.folder.path().display().to_string();
        let mut arguments = vec!["--directory".to_owned(), directory];
        arguments.extend(["--listen".to_owned(), self.listen.to_string()]);
        arguments.extend(["--metrics-listen".to_owned(), "127.0.0.1:0".to_owned()]);
        arguments.extend(self.extra.iter().cloned());
        let process = Process::start("gauze-control-plane", &arguments).await;
        self.listen = process.address("grpc");
        self.control_plane = Some(process);
    }

    pub(crate) fn control_plane(&mut self) -> &mut Process {
        self.control_plane.as_mut().expect("the control plane runs")
    }

    pub(crate) fn kill_control_plane(&mut self) {
        self.control_plane = None;
    }

    pub(crate) fn directory(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of objects, whole at once.
    pub(crate) fn apply(&self, file: &str, yaml: &str) {
        let draft = self.folder.path().join(format!(".{file}.draft"));
        std::fs::write(&draft, yaml).expect("the folder is ours");
        std::fs::rename(&draft, self.folder.path().join(file)).expect("the folder is ours");
    }

    pub(crate) fn remove(&self, file: &str) {
        std::fs::remove_file(self.folder.path().join(file)).expect("it was applied");
    }

    /// Connections to this Service may take long to open: on a busy machine a second is nothing.
    pub(crate) fn be_patient(&self, service: &str) {
        let policy = format!(
            "apiVersion: gauze.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {service}-patience, namespace: {NAMESPACE}}}\n\
             spec:\n  targetRefs: [{{group: '', kind: Service, name: {service}}}]\n  connectTimeout: 60s\n"
        );
        self.apply(&format!("patience-{service}.yaml"), &policy);
    }

    /// A Service address of this mesh that nothing else has; nobody ever dials it on the wire.
    pub(crate) fn service_address(&self) -> SocketAddr {
        let number = self.services.fetch_add(1, Ordering::Relaxed);
        SocketAddr::from((Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 0)) + number), 80))
    }

    /// A Service with endpoints at these pods.
    pub(crate) fn service(&self, name: &str, address: SocketAddr, port_name: &str, pods: &[&Sidecar]) {
        let pods: Vec<_> = pods.iter().map(|pod| (pod.pod.as_str(), pod.address)).collect();
        let service = objects::service(NAMESPACE, name, address, port_name);
        let slice = objects::slice(NAMESPACE, name, port_name, &pods);
        self.apply(&format!("service-{name}.yaml"), &(service + &slice));
    }

    /// A meshed pod: its object, its ServiceAccount (named like the app) and its running sidecar in front of `app`.
    pub(crate) async fn pod(
        &self,
        name: &str,
        app: &str,
        backend: Option<&App>,
        options: SidecarOptions<'_>,
    ) -> Sidecar {
        let address = free_address();
        let Some(backend) = backend else { return self.pod_at(address, name, app, options).await };
        let inbound = format!("{address}={}", backend.address);
        let arguments = [&["--inbound", inbound.as_str()], options.arguments].concat();
        self.pod_at(address, name, app, SidecarOptions { arguments: &arguments, ..options }).await
    }

    /// The same at an address chosen by the caller, who maps it inward.
    pub(crate) async fn pod_at(
        &self,
        address: SocketAddr,
        name: &str,
        app: &str,
        options: SidecarOptions<'_>,
    ) -> Sidecar {
        let namespace = options.namespace();
        let yaml = Pod {
            namespace,
            name,
            app,
            version: options.version,
            account: app,
            address,
            meshed: true,
            annotations: options.annotations,
        }
        .yaml();
        let account = objects::namespace(namespace, &[app]);
        match namespace {
            NAMESPACE => self
                .apply(&format!("account-{app}.yaml"), account.split_once("---").expect("two documents").1),
            _ => self.apply(&format!("namespace-{namespace}.yaml"), &account),
        }
        self.apply(&format!("pod-{name}.yaml"), &yaml);
        let token = self.token(namespace, name).await;
        let mut arguments = self.arguments(name, app, address, &token, &options);
        arguments.extend(options.arguments.iter().map(ToString::to_string));
        let process = match options.program {
            [] => Process::start("gauze-proxy", &arguments).await,
            [program, first @ ..] => {
                let mut command = std::process::Command::new(program);
                command.args(first).args(&arguments);
                Process::spawn("gauze-proxy", command).await
            }
        };
        let outbound = (0..options.dials.len()).map(|index| process.nth_address("outbound", index)).collect();
        Sidecar { process, pod: name.to_owned(), address, outbound }
    }

    fn arguments(
        &self,
        name: &str,
        app: &str,
        address: SocketAddr,
        token: &Path,
        options: &SidecarOptions<'_>,
    ) -> Vec<String> {
        let surroundings = Surroundings {
            control_plane: self.listen,
            roots: &self.folder.path().join(".gauze/trust.pem"),
            token,
            socket: &self.folder.path().join(".gauze").join(format!("{name}.sock")),
            namespace: options.namespace(),
        };
        surroundings.arguments(name, app, address, options)
    }

    /// The workload token that the control plane makes for a pod of the directory.
    async fn token(&self, namespace: &str, pod: &str) -> PathBuf {
        let path = self.folder.path().join(format!(".gauze/tokens/{namespace}.{pod}"));
        eventually(&format!("a token for {pod}"), async || holds(path.exists(), "no file")).await;
        path
    }

    /// A control plane answer from its socket.
    pub(crate) async fn ask(&self, path: &str) -> Value {
        let socket = self.folder.path().join(".gauze/control-plane.sock");
        ask_socket(&socket, path).await
    }
}

/// What a sidecar finds around it.
pub(crate) struct Surroundings<'a> {
    pub control_plane: SocketAddr,
    pub roots: &'a Path,
    pub token: &'a Path,
    pub socket: &'a Path,
    pub namespace: &'a str,
}

impl Surroundings<'_> {
    /// What a sidecar in mode `none` is started with.
    pub(crate) fn arguments(
        &self,
        name: &str,
        app: &str,
        address: SocketAddr,
        options: &SidecarOptions<'_>,
    ) -> Vec<String> {
        let mut arguments: Vec<String> = [
            ("--control-plane", self.control_plane.to_string()),
            ("--trust-roots", self.roots.display().to_string()),
            ("--token", self.token.display().to_string()),
            ("--namespace", self.namespace.to_owned()),
            ("--pod", name.to_owned()),
            ("--service-account", app.to_owned()),
            ("--pod-ip", address.ip().to_string()),
            ("--app", app.to_owned()),
            ("--app-version", options.version.to_owned()),
            ("--mode", "none".to_owned()),
            ("--admin-listen", "127.0.0.1:0".to_owned()),
            ("--metrics-listen", "127.0.0.1:0".to_owned()),
            ("--admin-socket", self.socket.display().to_string()),
            ("--mesh-networks", "10.0.0.0/8,127.0.0.0/8".to_owned()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        for dialled in options.dials {
            arguments.extend(["--outbound".to_owned(), format!("127.0.0.1:0={dialled}")]);
        }
        arguments
    }
}

impl Sidecar {
    /// Waits until it is ready to carry traffic.
    pub(crate) async fn ready(&self) -> &Sidecar {
        let address = self.process.address("metrics");
        eventually(&format!("{} is ready", self.pod), async || {
            let answer = client::call(Protocol::Http1, address, "admin", "/ready", "").await;
            let answer = answer.map_err(|error| error.to_string())?;
            holds(answer.status == 200, answer.text())
        })
        .await;
        self
    }

    /// A page of its admin port.
    pub(crate) async fn admin(&self, path: &str) -> String {
        let address = self.process.address("admin");
        client::call(Protocol::Http1, address, "admin", path, "")
            .await
            .expect("the admin port answers")
            .text()
    }

    /// Waits until a metric reaches a value: a request is counted when its response has ended, which its client may see first.
    pub(crate) async fn counts(&self, name: &str, labels: &[&str], wanted: f64) {
        eventually(&format!("{} counts {name} {labels:?}", self.pod), async || {
            let seen = self.metric(name, labels).await;
            holds(seen == wanted, seen)
        })
        .await;
    }

    /// The sum of a metric over all series whose labels contain each of these `name="value"` texts.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.admin("/metrics").await;
        let lines = page.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .fold(0.0, |sum, value| sum + value)
    }
}

/// One GET over a Unix socket, as JSON.
pub(crate) async fn ask_socket(socket: &Path, path: &str) -> Value {
    use http_body_util::{BodyExt, Empty};
    let stream = tokio::net::UnixStream::connect(socket).await.expect("the socket is there");
    let stream = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.expect("HTTP");
    tokio::spawn(connection);
    let request = http::Request::get(path).header("host", "admin").body(Empty::<bytes::Bytes>::new());
    let response = sender.send_request(request.expect("well-formed")).await.expect("an answer");
    let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
    serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{path}: {}", String::from_utf8_lossy(&body)))
}

/// An address of the loopback that nobody else uses: every pod of every test run has an IP of its own.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    // Two pods at one address would be one pod, which talks to itself in plaintext.
    let (high, low) = ((number / 254 % 8) as u8, (number % 254) as u8 + 1);
    // 127.64.0.0/10: far from 127.0.0.1 and from the demo's 127.1.0.0/16.
    let second = 64 + (process % 61) as u8;
    let third = (process / 61 % 31) as u8 * 8 + high;
    let ip = Ipv4Addr::new(127, second, third, low);
    TcpListener::bind((ip, 0)).and_then(|listener| listener.local_addr()).expect("a free port")
}
