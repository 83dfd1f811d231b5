//! Level 3: a whole cluster with one node. kubelet starts real containers from images of the programs under test.
//!
//! Ours lives in namespaces of this machine and needs root; `GAUZE_TEST_KUBECONFIG` names an existing kind or k3d
//! cluster instead.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use kube::config::Kubeconfig;
use tokio::sync::OnceCell;

use super::apiserver::output;
use super::kubernetes::Kubernetes;
use super::programs::{program, repository};
use super::tools::{Tools, skip};

/// What stands before the names of all images, and their tag.
pub(crate) const REGISTRY: &str = "gauze.test";
pub(crate) const TAG: &str = "dev";

pub(crate) enum Cluster {
    /// One of our own, gone with this value.
    Own(Kubernetes),
    Existing(Existing),
}

/// A kind or k3d cluster of the user.
pub(crate) struct Existing {
    tools: Tools,
    kubeconfig: PathBuf,
    maker: Maker,
    /// As its maker calls it.
    name: String,
}

#[derive(Clone, Copy)]
enum Maker {
    Kind,
    K3d,
}

impl Cluster {
    /// The one of this test run, with cluster DNS and the images of our programs. Tests share it.
    pub(crate) async fn shared() -> Option<&'static Cluster> {
        static SHARED: OnceCell<Option<Cluster>> = OnceCell::const_new();
        SHARED.get_or_init(Cluster::start).await.as_ref()
    }

    /// One for this test alone (or the existing one, which is the only one).
    pub(crate) async fn start() -> Option<Cluster> {
        let programs = program("gauze"); // built first: a cluster need not wait for a compiler
        let cluster = match env::var("GAUZE_TEST_KUBECONFIG") {
            Ok(path) => Cluster::Existing(Existing::find(PathBuf::from(path))?),
            Err(_) => Cluster::Own(own().await?),
        };
        let images = tempfile::tempdir().expect("a temporary folder");
        for image in make_images("images.json", parent(&programs), images.path()) {
            cluster.load(&image).await;
        }
        Some(cluster)
    }

    /// The same with the mesh installed in `gauze-system`, once for all tests.
    pub(crate) async fn with_mesh() -> Option<&'static Cluster> {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let cluster = Cluster::shared().await?;
        INSTALLED.get_or_init(|| cluster.install(&[])).await;
        Some(cluster)
    }

    /// The same with the image of the tests' own program for pods.
    pub(crate) async fn with_test_pods() -> Option<&'static Cluster> {
        static LOADED: OnceCell<()> = OnceCell::const_new();
        let cluster = Cluster::with_mesh().await?;
        LOADED.get_or_init(|| cluster.load_test_pods()).await;
        Some(cluster)
    }

    /// Loads the image of `gauze-test-pod`.
    pub(crate) async fn load_test_pods(&self) {
        let images = tempfile::tempdir().expect("a temporary folder");
        for image in make_images("test-images.json", parent(&program("gauze-test-pod")), images.path()) {
            self.load(&image).await;
        }
    }

    /// `helm upgrade --install --wait` with our images and these values.
    pub(crate) async fn install(&self, values: &[&str]) {
        let image = [
            format!("--set=image.registry={REGISTRY}"),
            format!("--set=image.tag={TAG}"),
            "--set=image.pullPolicy=Never".to_owned(),
        ];
        let mut arguments =
            vec!["upgrade", "--install", "gauze", "charts/gauze", "--namespace", "gauze-system"];
        arguments.extend(["--create-namespace", "--wait", "--timeout=120s"]);
        arguments.extend(image.iter().map(String::as_str));
        arguments.extend(values.iter().flat_map(|value| ["--set", value]));
        let installed = self.helm(&arguments).await;
        if let Err(error) = installed {
            let pods = self.kubectl(&["describe", "pods", "--namespace=gauze-system"]).await;
            let logs = self
                .kubectl(&[
                    "logs",
                    "--namespace=gauze-system",
                    "--selector=app.kubernetes.io/name=gauze",
                    "--tail=50",
                ])
                .await;
            panic!("{error}\n{}\n{}", pods.unwrap_or_default(), logs.unwrap_or_default());
        }
    }

    /// What kubectl printed, or its complaint.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.with_kubeconfig("kubectl", arguments, "").await
    }

    /// The same with this on its input.
    pub(crate) async fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        self.with_kubeconfig("kubectl", arguments, input).await
    }

    /// What helm printed, or its complaint.
    pub(crate) async fn helm(&self, arguments: &[&str]) -> Result<String, String> {
        self.with_kubeconfig("helm", arguments, "").await
    }

    /// What `gauze` printed, or its complaint.
    pub(crate) async fn gauze(&self, arguments: &[&str]) -> Result<String, String> {
        let gauze = program("gauze");
        let kubeconfig = match self {
            Cluster::Own(kubernetes) => kubernetes.folder().join("kubeconfig/admin"),
            Cluster::Existing(existing) => existing.kubeconfig.clone(),
        };
        let [gauze, kubeconfig] = [&gauze, &kubeconfig].map(|path| path.to_str().expect("a path of text"));
        self.with_kubeconfig(gauze, &[arguments, &["--kubeconfig", kubeconfig]].concat(), "").await
    }

    /// What a program printed that reads `KUBECONFIG` and asks the API server, or its complaint.
    pub(crate) async fn ask(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        self.with_kubeconfig(program, arguments, "").await
    }

    /// Applies these documents.
    ///
    /// # Panics
    /// If the API server refuses one.
    pub(crate) async fn apply(&self, yaml: &str) {
        let applied = self.with_kubeconfig("kubectl", &["apply", "-f", "-"], yaml).await;
        applied.unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    }

    /// What a GET of this path of this pod answers, asked by the API server in plaintext from the node.
    pub(crate) async fn get(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        path: &str,
    ) -> Result<String, String> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}");
        self.kubectl(&["get", "--raw", &path]).await
    }

    /// Lets a namespace go, so that its pods cost the node nothing while other tests run.
    pub(crate) async fn leave(&self, namespace: &str) {
        self.kubectl(&["delete", "namespace", namespace, "--wait=false"]).await.expect("it is there");
    }

    /// Waits until all pods of this namespace are ready.
    ///
    /// # Panics
    /// Not within two minutes; shows the pods and what happened to them.
    pub(crate) async fn pods_ready(&self, namespace: &str) {
        let namespace = format!("--namespace={namespace}");
        let wait = ["wait", "--for=condition=Ready", "pods", "--all", &namespace, "--timeout=120s"];
        if let Err(error) = self.kubectl(&wait).await {
            let pods = self.kubectl(&["get", "pods", "--output=wide", &namespace]).await;
            let events = self.kubectl(&["get", "events", &namespace]).await;
            panic!("{error}\n{}\n{}", pods.unwrap_or_default(), events.unwrap_or_default());
        }
    }

    /// Runs a command on the node, among its network interfaces and processes.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        output(self.command(arguments), "").await
    }

    /// The name of a pod's network namespace on the node.
    pub(crate) async fn network_of(&self, namespace: &str, pod: &str) -> String {
        let address = ["get", "pod", pod, "--namespace", namespace, "--output=jsonpath={.status.podIP}"];
        let address = self.kubectl(&address).await.expect("the pod is there");
        let script =
            "for name in $(ls /run/netns); do ip -n $name address | grep -qF \" $1/\" && echo $name; done; :";
        let found = self.run(&["sh", "-c", script, "sh", &address]).await.expect("the node has namespaces");
        found.trim().to_owned()
    }

    /// A command on the node, to be started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        match self {
            Cluster::Own(kubernetes) => on_node(kubernetes, arguments),
            Cluster::Existing(existing) => {
                let node = match existing.maker {
                    Maker::Kind => format!("{}-control-plane", existing.name),
                    Maker::K3d => format!("k3d-{}-server-0", existing.name),
                };
                let mut command = existing.tools.command("docker");
                command.args(["exec", "--interactive", &node]).args(arguments);
                command
            }
        }
    }

    /// Loads the image in this tar into the node.
    pub(crate) async fn load(&self, image: &Path) {
        let path = image.to_str().expect("a path of text");
        let existing = match self {
            Cluster::Own(kubernetes) => return kubernetes.order(&format!("load {path}")).await,
            Cluster::Existing(existing) => existing,
        };
        let (tool, arguments) = match existing.maker {
            Maker::Kind => ("kind", ["load", "image-archive", "--name", &existing.name, path]),
            Maker::K3d => ("k3d", ["image", "import", "--cluster", &existing.name, path]),
        };
        let mut command = existing.tools.command(tool);
        command.args(arguments);
        output(command, "").await.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Kills a component (`kube-apiserver`, `kubelet`, ...) and starts it again; in a cluster that is not ours it does
    /// nothing.
    pub(crate) async fn restart(&self, component: &str) {
        let Cluster::Own(kubernetes) = self else { return };
        kubernetes.order(&format!("kill {component}")).await;
        kubernetes.order(&format!("start {component}")).await;
    }

    async fn with_kubeconfig(
        &self,
        program: &str,
        arguments: &[&str],
        input: &str,
    ) -> Result<String, String> {
        let mut command = match self {
            Cluster::Own(kubernetes) => on_node(kubernetes, &[&[program], arguments].concat()),
            Cluster::Existing(existing) => {
                let mut command = existing.tools.command(program);
                command.args(arguments).env("KUBECONFIG", &existing.kubeconfig);
                command
            }
        };
        command.current_dir(repository());
        output(command, input).await
    }
}

impl Existing {
    fn find(kubeconfig: PathBuf) -> Option<Existing> {
        let config = Kubeconfig::read_from(&kubeconfig)
            .unwrap_or_else(|error| panic!("GAUZE_TEST_KUBECONFIG={}: {error}", kubeconfig.display()));
        let context = config.current_context.unwrap_or_default();
        let makers = [("kind-", Maker::Kind, "kind"), ("k3d-", Maker::K3d, "k3d")];
        let found = makers.iter().find_map(|(prefix, maker, tool)| {
            Some((context.strip_prefix(prefix)?.to_owned(), *maker, *tool))
        });
        // These tests delete namespaces and custom resource definitions.
        let Some((name, maker, tool)) = found else {
            panic!(
                "GAUZE_TEST_KUBECONFIG: context `{context}` is neither of kind (kind-…) nor of k3d (k3d-…)"
            )
        };
        let tools = Tools::find(&["kubectl", "helm", "docker", "python3", tool])?;
        Some(Existing { tools, kubeconfig, maker, name })
    }
}

/// A Pod with an app of the sample shop on port 8080, which answers with its own name and the answers of those it calls.
pub(crate) fn demo_app(namespace: &str, name: &str, arguments: &[&str]) -> String {
    let service = format!("--service={name}");
    let arguments = [&["demo-app", &service, "--version=v1", "--listen=[::]:8080"], arguments].concat();
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  labels: {{app: {name}}}\nspec:\n  \
         automountServiceAccountToken: false\n  enableServiceLinks: false\n  terminationGracePeriodSeconds: 2\n  containers:\n  \
         - name: app\n    image: {REGISTRY}/gauze:{TAG}\n    imagePullPolicy: Never\n    args: {arguments:?}\n    \
         env: [{{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]\n    ports: [{{containerPort: 8080}}]\n    \
         readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}\n",
    )
}

/// A cluster of our own with cluster DNS.
async fn own() -> Option<Kubernetes> {
    let tools = Tools::find(&[
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "kubelet",
        "kubectl",
        "helm",
        "coredns",
        "containerd",
        "runc",
        "iptables",
        "conntrack",
        "ip",
        "nsenter",
        "openssl",
        "python3",
    ])?;
    if !Path::new("/usr/lib/cni/bridge").exists() {
        return skip("a cluster of our own needs containernetworking-plugins in /usr/lib/cni");
    }
    let root = Command::new("unshare").args(["--mount", "--net", "--pid", "--fork", "true"]).status();
    if !root.is_ok_and(|status| status.success()) {
        return skip("a cluster of our own needs root; GAUZE_TEST_KUBECONFIG names one of kind or k3d");
    }
    let images = tempfile::tempdir().expect("a temporary folder");
    let made = make_images("node-images.json", parent(&tools.path_of("coredns")), images.path());
    let kubernetes = Kubernetes::start(tools, "cluster").await;
    for image in made {
        kubernetes.order(&format!("load {}", image.display())).await;
    }
    let dns = repository().join("tests/rig/cluster-dns.yaml");
    let apply = ["kubectl", "apply", "-f", dns.to_str().expect("a path of text")];
    output(on_node(&kubernetes, &apply), "").await.expect("its objects are valid");
    let ready = ["kubectl", "rollout", "status", "-n", "kube-system", "deployment/coredns", "--timeout=60s"];
    output(on_node(&kubernetes, &ready), "").await.expect("cluster DNS answers");
    Some(kubernetes)
}

fn on_node(kubernetes: &Kubernetes, arguments: &[&str]) -> Command {
    let mut command = kubernetes.tools().command(repository().join("tests/rig/kubernetes"));
    command.arg("run").arg(kubernetes.folder()).args(arguments);
    command
}

/// Makes the images of a list in `tests/rig` from the programs in this folder, into an empty one.
pub(crate) fn make_images(list: &str, programs: &Path, out: &Path) -> Vec<PathBuf> {
    let rig = repository().join("tests/rig");
    let made = Command::new("python3")
        .arg(rig.join("image.py"))
        .args([&rig.join(list), programs, out])
        .status()
        .expect("python3 runs");
    assert!(made.success(), "the images of {list} are not made");
    let files = std::fs::read_dir(out).expect("it was written");
    files.map(|entry| entry.expect("it can be read").path()).collect()
}

fn parent(path: &Path) -> &Path {
    path.parent().expect("a program lies in a folder")
}
