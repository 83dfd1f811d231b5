//! A mesh at level 2: objects of a real API server, the real control plane, real sidecars in mode `none`. Pods are
//! objects with a status that the test gives them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::App;
use super::apiserver::{ApiServer, NODE, Namespace};
use super::client::{self, Protocol};
use super::eventually::{eventually, holds};
use super::mesh::{Sidecar, SidecarOptions, Surroundings, ask_socket, free_address};
use super::process::Process;
use super::relay::Relay;

/// The ServiceAccount of the control plane, and with its namespace its identity.
const CONTROL_PLANE: &str = "gauze-control-plane";
/// The port that every Service has.
const SERVICE_PORT: u16 = 80;

pub(crate) struct KubeMesh<'a> {
    pub server: &'a ApiServer,
    pub client: Client,
    /// Of all pods of the test.
    pub namespace: Namespace<'a>,
    /// Of its control plane.
    pub system: Namespace<'a>,
    folder: TempDir,
    /// The Service of the control plane: where sidecars find a replica.
    pub front: Relay,
    /// All replicas listen at the same port, each at an address of its own.
    port: u16,
    /// Whether its control plane writes statuses. Not on a shared API server: the meshes of several tests would say
    /// different things of the same objects.
    writes_statuses: bool,
}

/// A replica of the control plane: its pod and its process.
pub(crate) struct Replica {
    pub process: Process,
    pub pod: String,
    socket: PathBuf,
}

impl<'a> KubeMesh<'a> {
    /// Two namespaces, and the root in one of them: the same for all tests, since each control plane keeps its roots in
    /// every namespace that has pods of the mesh, those of other tests too.
    pub(crate) async fn start(server: &'a ApiServer) -> KubeMesh<'a> {
        let mesh = KubeMesh::without_root(server).await;
        let secrets: Api<Secret> = Api::namespaced(mesh.client.clone(), &mesh.system.name);
        secrets.create(&PostParams::default(), root()).await.expect("the API server takes it");
        mesh
    }

    /// Two namespaces, and nothing in them.
    pub(crate) async fn without_root(server: &'a ApiServer) -> KubeMesh<'a> {
        let mesh = KubeMesh {
            server,
            client: server.client().await,
            namespace: server.namespace("shop").await,
            system: server.namespace("gauze").await,
            folder: tempfile::tempdir().expect("a temporary folder"),
            front: Relay::start(&[]).await,
            port: free_address().port(),
            writes_statuses: false,
        };
        mesh.account(&mesh.system.name, CONTROL_PLANE).await;
        mesh
    }

    /// The same, on an API server of its own, with a control plane that writes statuses.
    pub(crate) fn writing_statuses(mut self) -> KubeMesh<'a> {
        self.writes_statuses = true;
        self
    }

    /// The namespace of the pods.
    pub(crate) fn shop(&self) -> &str {
        &self.namespace.name
    }

    /// A replica of the control plane, which reaches the API server as this kubeconfig says.
    pub(crate) async fn replica(&self, pod: &str, kubeconfig: &Path, arguments: &[&str]) -> Replica {
        let address = SocketAddr::new(free_address().ip(), self.port);
        self.bare_pod(&self.system.name, pod, CONTROL_PLANE, address, false).await;
        let state = self.folder.path().join(format!("state-{pod}"));
        let mut all: Vec<String> = [
            ("--kubeconfig", kubeconfig.display().to_string()),
            ("--pod-name", pod.to_owned()),
            ("--system-namespace", self.system.name.clone()),
            ("--state-directory", state.display().to_string()),
            ("--listen", address.to_string()),
            ("--metrics-listen", "127.0.0.1:0".to_owned()),
            ("--webhook-listen", "127.0.0.1:0".to_owned()),
            ("--webhook-configuration", self.system.name.clone()),
            ("--mesh-networks", "10.0.0.0/8,127.0.0.0/8".to_owned()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        all.extend(["--kubernetes".to_owned(), format!("--write-statuses={}", self.writes_statuses)]);
        all.extend(arguments.iter().map(ToString::to_string));
        let process = Process::start("gauze-control-plane", &all).await;
        self.front.point_to(&[address]);
        Replica { process, pod: pod.to_owned(), socket: state.join("control-plane.sock") }
    }

    /// A relay before the API server, and the administrator's kubeconfig that leads through it.
    pub(crate) async fn relay(&self) -> (Relay, PathBuf) {
        let mut config = Kubeconfig::read_from(self.server.kubeconfig()).expect("it is ours");
        let cluster = config.clusters[0].cluster.as_mut().expect("it is whole");
        let url = cluster.server.as_deref().expect("it is whole");
        let address = url.strip_prefix("https://").and_then(|address| address.parse().ok());
        let relay = Relay::start(&[address.expect("an address and a port")]).await;
        cluster.server = Some(format!("https://{}", relay.address));
        let path = self.folder.path().join(format!("kubeconfig-{}", relay.address.port()));
        std::fs::write(&path, serde_json::to_string(&config).expect("it was read")).expect("it is ours");
        (relay, path)
    }

    /// The usual one, ready.
    pub(crate) async fn control_plane(&self) -> Replica {
        let replica = self.replica("gauze-0", &self.server.kubeconfig(), &[]).await;
        replica.ready().await;
        replica
    }

    pub(crate) async fn account(&self, namespace: &str, name: &str) {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let account: ServiceAccount =
            serde_json::from_value(json!({"metadata": {"name": name}})).expect("well-formed");
        match accounts.create(&PostParams::default(), &account).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            created => drop(created.expect("the API server takes it")),
        }
    }

    /// The object of a running, ready pod: its ServiceAccount is `app`, its container port is called `app`.
    pub(crate) async fn bare_pod(
        &self,
        namespace: &str,
        name: &str,
        app: &str,
        address: SocketAddr,
        meshed: bool,
    ) -> Pod {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = pod_object(name, app, address.port(), meshed);
        pods.create(&PostParams::default(), &pod).await.expect("the API server takes it");
        let status = json!({"status": {
            "phase": "Running", "podIP": address.ip(), "podIPs": [{"ip": address.ip()}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}],
        }});
        let patched = pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await;
        patched.expect("the API server takes it")
    }

    /// Removes a pod at once, as a kubelet would confirm it.
    pub(crate) async fn delete_pod(&self, name: &str) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.shop());
        pods.delete(name, &DeleteParams::default().grace_period(0)).await.expect("it is there");
    }

    /// A meshed pod: its object, and its running sidecar in front of `backend`. It asks where the front leads.
    pub(crate) async fn pod(
        &self,
        name: &str,
        app: &str,
        backend: Option<&App>,
        options: SidecarOptions<'_>,
    ) -> Sidecar {
        let address = free_address();
        self.account(self.shop(), app).await;
        let pod = self.bare_pod(self.shop(), name, app, address, true).await;
        let token = self.folder.path().join(format!("{name}.token"));
        let uid = pod.metadata.uid.as_deref().expect("the API server gives one");
        std::fs::write(&token, self.token(name, uid, app, "gauze").await).expect("the folder is ours");
        let roots = self.roots().await;
        let surroundings = Surroundings {
            control_plane: self.front.address,
            roots: &roots,
            token: &token,
            socket: &self.folder.path().join(format!("{name}.sock")),
            namespace: self.shop(),
        };
        let mut arguments = surroundings.arguments(name, app, address, &options);
        arguments.extend(["--system-namespace".to_owned(), self.system.name.clone()]);
        if let Some(backend) = backend {
            arguments.extend(["--inbound".to_owned(), format!("{address}={}", backend.address)]);
        }
        arguments.extend(options.arguments.iter().map(ToString::to_string));
        let process = Process::start("gauze-proxy", &arguments).await;
        let outbound = (0..options.dials.len()).map(|index| process.nth_address("outbound", index)).collect();
        Sidecar { process, pod: name.to_owned(), address, outbound }
    }

    /// A token as kubelet would project it into this pod.
    pub(crate) async fn token(&self, pod: &str, uid: &str, account: &str, audience: &str) -> String {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), self.shop());
        let spec = TokenRequestSpec {
            audiences: Some(vec![audience.to_owned()]),
            expiration_seconds: Some(3600),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.to_owned()),
                uid: Some(uid.to_owned()),
            }),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        answer.expect("the pod exists").status.and_then(|status| status.token).expect("a token")
    }

    /// The roots as the pod's volume would hold them: of the namespace's ConfigMap.
    pub(crate) async fn roots(&self) -> PathBuf {
        let path = self.folder.path().join("roots.pem");
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.shop());
        let pem = eventually("gauze-trust", async || {
            let map = maps.get("gauze-trust").await.map_err(|error| error.to_string())?;
            map.data.and_then(|data| data.get("roots.pem").cloned()).ok_or("no roots.pem".to_owned())
        })
        .await;
        std::fs::write(&path, pem).expect("the folder is ours");
        path
    }

    /// A Service of these pods; returns the address that Kubernetes gives it.
    pub(crate) async fn service(&self, name: &str, pods: &[&Sidecar]) -> SocketAddr {
        let services: Api<Service> = Api::namespaced(self.client.clone(), self.shop());
        let port = json!({"name": "http", "port": SERVICE_PORT, "appProtocol": "http"});
        let service = json!({"metadata": {"name": name}, "spec": {"ports": [port]}});
        let service = serde_json::from_value(service).expect("well-formed");
        let made = services.create(&PostParams::default(), &service).await.expect("the API server takes it");
        let ip = made.spec.and_then(|spec| spec.cluster_ip).expect("an address");
        for pod in pods {
            self.endpoint(name, pod).await;
        }
        SocketAddr::new(ip.parse().expect("an address"), SERVICE_PORT)
    }

    /// The EndpointSlice of one pod of a Service: `SERVICE-POD`. It stands in for the controller, whose own would be
    /// refused, since the pods of tests are on the loopback.
    pub(crate) async fn endpoint(&self, service: &str, pod: &Sidecar) {
        let (namespace, name) = (self.shop(), format!("{service}-{}", pod.pod));
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": name, "namespace": namespace, "uid": format!("uid-of-{namespace}-{name}"),
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": pod.address.port(), "protocol": "TCP"}],
            "endpoints": [{
                "addresses": [pod.address.ip()],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "name": pod.pod, "namespace": namespace},
            }],
        });
        self.server.store(&format!("/registry/endpointslices/{namespace}/{name}"), &slice).await;
    }

    /// Takes a pod out of a Service again.
    pub(crate) async fn remove_endpoint(&self, service: &str, pod: &str) {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), self.shop());
        let name = format!("{service}-{pod}");
        slices.delete(&name, &DeleteParams::default()).await.expect("it is there");
    }
}

impl Replica {
    /// Waits until it may be sent proxies.
    pub(crate) async fn ready(&self) -> &Replica {
        eventually(&format!("{} is ready", self.pod), async || {
            let (status, text) = self.readiness().await;
            holds(status == 200, text)
        })
        .await;
        self
    }

    /// Where it serves sidecars.
    pub(crate) fn address(&self) -> SocketAddr {
        self.process.address("grpc")
    }

    /// What `/ready` says now.
    pub(crate) async fn readiness(&self) -> (u16, String) {
        let answer = self.page("/ready").await;
        (answer.status.as_u16(), answer.text())
    }

    pub(crate) async fn page(&self, path: &str) -> client::Answer {
        let address = self.process.address("metrics");
        client::call(Protocol::Http1, address, "admin", path, "").await.expect("the port answers")
    }

    /// The sum of a metric (without `gauze_control_plane_`) over all series with this text in their labels.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let name = format!("gauze_control_plane_{name}");
        let page = self.page("/metrics").await.text();
        let lines = page.lines().filter(|line| {
            line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).fold(0.0, |sum, one| sum + one)
    }

    /// An answer of its admin socket.
    pub(crate) async fn ask(&self, path: &str) -> Value {
        ask_socket(&self.socket, path).await
    }

    /// All problems that it reports (as `gauze get` shows them), as `Kind/namespace/name path code`.
    pub(crate) async fn problems(&self) -> Vec<String> {
        let answer = self.ask("/objects").await;
        let of_objects = answer["objects"].as_array().into_iter().flatten().map(|object| &object["problems"]);
        let all = of_objects.chain([&answer["problems"]]).filter_map(Value::as_array).flatten();
        all.map(|problem| {
            let text = |field: &str| problem["origin"][field].as_str().unwrap_or_default();
            let code = problem["code"].as_str().unwrap_or_default();
            let path = text("path");
            let path = if path.is_empty() { String::new() } else { format!("{path} ") };
            format!("{}/{}/{} {path}{code}", text("kind"), text("namespace"), text("name"))
        })
        .collect()
    }
}

/// As the leader would make it.
fn root() -> &'static Secret {
    static ROOT: OnceLock<Secret> = OnceLock::new();
    ROOT.get_or_init(|| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).expect("well-formed").pem();
        let secret = json!({
            "metadata": {"name": "gauze-root"}, "type": "kubernetes.io/tls", "immutable": true,
            "data": {
                "tls.crt": ByteString(certificate.into_bytes()),
                "tls.key": ByteString(key.serialize_pem().into_bytes()),
            },
        });
        serde_json::from_value(secret).expect("well-formed")
    })
}

fn pod_object(name: &str, app: &str, port: u16, meshed: bool) -> Pod {
    let sidecar = json!([{"name": "gauze-proxy", "image": "gauze-proxy", "restartPolicy": "Always"}]);
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {
            "nodeName": NODE,
            "serviceAccountName": app,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "initContainers": if meshed { sidecar } else { json!([]) },
            "containers": [{"name": "app", "image": "app", "ports": [{"name": "app", "containerPort": port}]}],
        },
    });
    serde_json::from_value(pod).expect("well-formed")
}
