//! Level 2: a real API server with its storage and its controllers, and no kubelet. Pods are objects: a test sets their
//! `nodeName` (`node1`) and status, and may start real sidecars for them.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::OnceCell;

use super::client::{Client, Protocol};
use super::kubernetes::Kubernetes;
use super::programs::repository;
use super::tools::Tools;

/// The only Node; nothing runs on it.
pub(crate) const NODE: &str = "node1";

pub(crate) struct ApiServer {
    kubernetes: Kubernetes,
}

impl ApiServer {
    /// The one of this test run, with our custom resource definitions. Tests share it: each has a `namespace` of its
    /// own, and none stops it or changes what is cluster-wide.
    pub(crate) async fn shared() -> Option<&'static ApiServer> {
        static SHARED: OnceCell<Option<ApiServer>> = OnceCell::const_new();
        SHARED.get_or_init(ApiServer::start).await.as_ref()
    }

    /// One for this test alone, with our custom resource definitions.
    pub(crate) async fn start() -> Option<ApiServer> {
        let server = ApiServer::start_empty().await?;
        let definitions = repository().join("crds/yaml");
        let definitions = definitions.to_str().expect("a path of text");
        server.kubectl(&["apply", "--server-side", "-f", definitions]).await.expect("they are valid");
        let established =
            ["wait", "--for=condition=Established", "--timeout=30s", "customresourcedefinitions", "--all"];
        server.kubectl(&established).await.expect("they are established");
        Some(server)
    }

    /// One for this test alone, without anything of ours.
    pub(crate) async fn start_empty() -> Option<ApiServer> {
        let needed = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "helm", "openssl"];
        let tools = Tools::find(&needed)?;
        Some(ApiServer { kubernetes: Kubernetes::start(tools, "apiserver").await })
    }

    /// An administrator's client, for the runtime of the calling test.
    pub(crate) async fn client(&self) -> kube::Client {
        client(&self.kubeconfig()).await
    }

    /// An administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.kubernetes.folder().join("kubeconfig/admin")
    }

    /// A kubeconfig with a token of this ServiceAccount, which must exist: what a program sees that runs as it.
    pub(crate) async fn kubeconfig_for(&self, namespace: &str, account: &str) -> PathBuf {
        let token = ["create", "token", account, "--namespace", namespace, "--duration", "4h"];
        let token = self.kubectl(&token).await.expect("the ServiceAccount exists");
        let mut config = Kubeconfig::read_from(self.kubeconfig()).expect("it is ours");
        config.auth_infos.truncate(1);
        config.auth_infos[0].auth_info = Some(kube::config::AuthInfo {
            token: Some(token.trim().to_owned().into()),
            ..kube::config::AuthInfo::default()
        });
        let path = self.kubernetes.folder().join(format!("kubeconfig/{namespace}.{account}"));
        std::fs::write(&path, serde_json::to_string(&config).expect("it was read"))
            .expect("the folder is ours");
        path
    }

    /// What kubectl printed, or its complaint.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.run("kubectl", arguments, "").await
    }

    /// Applies these documents as an administrator would, with kubectl.
    ///
    /// # Panics
    /// If the API server refuses one.
    pub(crate) async fn apply(&self, yaml: &str) {
        self.run("kubectl", &["apply", "-f", "-"], yaml)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    }

    /// The API server's refusal of these documents.
    ///
    /// # Panics
    /// If it takes them.
    pub(crate) async fn refusal(&self, yaml: &str) -> String {
        match self.run("kubectl", &["apply", "-f", "-"], yaml).await {
            Err(refusal) => refusal,
            Ok(taken) => panic!("taken: {taken}"),
        }
    }

    /// All that kubectl says when it applies these documents: warnings, too.
    pub(crate) async fn kubectl_says(&self, yaml: &str) -> String {
        let script = ["-c", "kubectl apply -f - 2>&1"];
        self.run("sh", &script, yaml).await.unwrap_or_else(|error| panic!("{error}\n{yaml}"))
    }

    /// Deletes a cluster-wide object without waiting: for `Drop`.
    pub(crate) fn delete_later(&self, kind: &str, name: &str) {
        let mut command = self.kubernetes.tools().command("kubectl");
        command.args(["delete", kind, name, "--wait=false"]).env("KUBECONFIG", self.kubeconfig());
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }

    /// What helm printed, or its complaint.
    pub(crate) async fn helm(&self, arguments: &[&str]) -> Result<String, String> {
        self.run("helm", arguments, "").await
    }

    async fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut command = self.kubernetes.tools().command(program);
        command.args(arguments).env("KUBECONFIG", self.kubeconfig());
        command.env("HELM_CACHE_HOME", self.kubernetes.folder().join("helm"));
        output(command, input).await
    }

    /// Kills the API server; everything else goes on.
    pub(crate) async fn stop_apiserver(&self) {
        self.kubernetes.order("kill kube-apiserver").await;
    }

    /// Starts it again, with the same address and objects.
    pub(crate) async fn start_apiserver(&self) {
        self.kubernetes.order("start kube-apiserver").await;
    }

    /// Puts an object into the storage, past the API server and its rules: `key` is as in `/registry/pods/ns/name`.
    /// Needed where a test's address would be refused: no endpoint may be on the loopback.
    pub(crate) async fn store(&self, key: &str, object: &serde_json::Value) {
        use k8s_openapi::ByteString;
        let etcd = std::fs::read_to_string(self.kubernetes.folder().join("etcd")).expect("the rig tells");
        let put = serde_json::json!({
            "key": ByteString(key.as_bytes().to_vec()), "value": ByteString(object.to_string().into_bytes()),
        });
        let request = http::Request::post("/v3/kv/put").header("host", "etcd");
        let request = request.body(put.to_string().into()).expect("well-formed");
        let address = etcd.trim().parse().expect("an address");
        let mut storage = Client::connect(Protocol::Http1, address).await.expect("the storage listens");
        let answer = storage.send(request).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// What ServiceAccounts asked of it, an audit event a line; not those of Kubernetes' own controllers.
    pub(crate) fn audit(&self) -> String {
        self.kubernetes.log("audit")
    }

    /// A new namespace `HINT-xxxxxx`, which goes when the value does.
    pub(crate) async fn namespace(&self, hint: &str) -> Namespace<'_> {
        let name = format!("{hint}-{:06x}", fastrand::u32(..0x100_0000));
        self.apply(&super::objects::namespace(&name, &[])).await;
        Namespace { server: self, name }
    }
}

/// A namespace of one test.
pub(crate) struct Namespace<'a> {
    server: &'a ApiServer,
    pub name: String,
}

impl Drop for Namespace<'_> {
    /// Without waiting. Pods first and by force: there is no kubelet that would confirm their end.
    fn drop(&mut self) {
        let script = "kubectl delete pods --all --force --grace-period=0 --namespace \"$1\"; kubectl delete namespace \"$1\" --wait=false";
        let mut command = self.server.kubernetes.tools().command("sh");
        command.args(["-c", script, "sh", &self.name]).env("KUBECONFIG", self.server.kubeconfig());
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }
}

/// A client for what this file describes, on the runtime of the caller.
pub(crate) async fn client(kubeconfig: &Path) -> kube::Client {
    let config = Kubeconfig::read_from(kubeconfig).expect("it is ours");
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
    kube::Client::try_from(config.expect("it is whole")).expect("its certificates are well-formed")
}

/// Runs a command with this input to its end. The runtime goes on meanwhile: the test may itself serve webhooks.
pub(crate) async fn output(command: std::process::Command, input: &str) -> Result<String, String> {
    let mut command = Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let mut stdin = child.stdin.take().expect("it is piped");
    // A program that does not read its input has ended, and says why.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.map_err(|error| error.to_string())?;
    let [said, complained] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if output.status.success() { Ok(said) } else { Err(format!("{said}{complained}")) }
}
