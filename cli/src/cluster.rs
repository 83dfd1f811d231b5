//! A cluster: how it is reached, who of gauze runs there, and how its pods are asked. What the API server's
//! errors mean to the user is in [`failure`]; asking a pod is in [`exec`].

mod exec; // asks a program in a pod
mod failure; // the API server's errors, in one sentence each

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client, Config};

use crate::admin::Endpoint;
use crate::exit::Failure;
use crate::pod;
use crate::source::Place;
pub(crate) use exec::Exec;

/// Deployment, Lease, Service and ServiceAccount of the control plane are all called so.
pub(crate) const CONTROL_PLANE: &str = "gauze-control-plane";
/// The container of the sidecar.
pub(crate) const SIDECAR: &str = "gauze-proxy";
/// How long the API server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to answer one question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// A cluster that can be asked.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// As messages call it: `context kind-dev`.
    pub(crate) name: String,
    /// The address of its API server.
    pub(crate) server: String,
    /// Where the control plane runs.
    pub(crate) system_namespace: String,
    /// The only namespace that the user wants to see.
    pub(crate) namespace: Option<String>,
}

/// The control plane as it stands in a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Replicas {
    pub(crate) deployment: Deployment,
    /// Its pods, by name.
    pub(crate) pods: Vec<Pod>,
    /// The pod that leads, as the Lease says.
    pub(crate) leader: Option<String>,
}

/// Whether somebody has set up access to a cluster here: a kubeconfig exists, or this is a pod.
pub(crate) fn is_configured() -> bool {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    std::env::var_os("KUBECONFIG").is_some_and(|paths| !paths.is_empty())
        || home.is_some_and(|path| path.is_file())
        || is_in_pod()
}

fn is_in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

impl Cluster {
    /// Reads the kubeconfig; in a pod without one, the pod's ServiceAccount counts. Nothing is asked yet.
    ///
    /// # Errors
    /// There is no kubeconfig, or it does not say which cluster, or as whom.
    pub(crate) async fn connect(place: &Place) -> anyhow::Result<Cluster> {
        let (name, mut config) = configuration(place).await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(config)
            .map_err(|error| Failure::Unreachable(format!("{name} cannot be used: {error}")))?;
        Ok(Cluster {
            client,
            name,
            server,
            system_namespace: place.system_namespace.clone(),
            namespace: place.namespace.clone(),
        })
    }

    /// Waits for an answer of the API server; `doing` completes "you may not …" in its errors.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] with what to do about it, or [`Failure::TimedOut`].
    pub(crate) async fn ask<T>(
        &self,
        doing: &str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(ANSWER_TIMEOUT, request).await {
            Ok(answer) => answer.map_err(|error| failure::explain(self, doing, &error)),
            Err(_) => {
                let seconds = ANSWER_TIMEOUT.as_secs();
                Err(Failure::TimedOut(format!(
                    "the API server of {} does not answer in {seconds} s",
                    self.name
                )))
            }
        }
    }

    /// The control plane of this cluster; `None` if gauze is not installed.
    ///
    /// # Errors
    /// It may not be looked at.
    pub(crate) async fn replicas(&self) -> Result<Option<Replicas>, Failure> {
        let namespace = &self.system_namespace;
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        let doing = format!("read the Deployment {CONTROL_PLANE} of namespace {namespace}");
        let Some(deployment) = self.ask(&doing, deployments.get_opt(CONTROL_PLANE)).await? else {
            return Ok(None);
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let list = ListParams::default().labels(&selector(&deployment));
        let mut pods =
            self.ask(&format!("list pods of namespace {namespace}"), pods.list(&list)).await?.items;
        pods.sort_by(|one, other| pod::name(one).cmp(pod::name(other)));
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        // Who may not read it asks any replica.
        let lease = leases.get_opt(CONTROL_PLANE).await.ok().flatten();
        // A leader that ends orderly leaves an empty name.
        let leader = lease.and_then(|lease| lease.spec?.holder_identity).filter(|holder| !holder.is_empty());
        Ok(Some(Replicas { deployment, pods, leader }))
    }

    /// The replica to ask: the leader if it is ready, else any that is, who asks the leader.
    ///
    /// # Errors
    /// Gauze is not installed here, or no replica is ready.
    pub(crate) async fn control_plane(&self) -> anyhow::Result<Endpoint> {
        let Some(replicas) = self.replicas().await? else {
            return Err(Failure::Unreachable(self.not_installed()).into());
        };
        let Some(first) = replicas.to_ask() else {
            return Err(Failure::Unreachable(format!(
                "no replica of the control plane is ready in namespace {}; `gauze check` says why",
                self.system_namespace
            ))
            .into());
        };
        Ok(self.replica(first))
    }

    pub(crate) fn replica(&self, pod: &Pod) -> Endpoint {
        self.exec(pod, None, "/gauze-control-plane")
    }

    pub(crate) fn sidecar(&self, pod: &Pod) -> Endpoint {
        self.exec(pod, Some(SIDECAR), "/gauze-proxy")
    }

    fn exec(&self, pod: &Pod, container: Option<&'static str>, program: &'static str) -> Endpoint {
        let (namespace, pod) = (pod::namespace(pod).to_owned(), pod::name(pod).to_owned());
        Endpoint::Pod(Box::new(Exec { cluster: self.clone(), namespace, pod, container, program }))
    }

    /// The pods of the namespace that the user named here or with `-n`, else of all namespaces.
    ///
    /// # Errors
    /// They may not be listed.
    pub(crate) async fn pods(&self, namespace: Option<&str>) -> Result<Vec<Pod>, Failure> {
        let pods: Api<Pod> = match namespace.or(self.namespace.as_deref()) {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        Ok(self.ask("list pods", pods.list(&ListParams::default())).await?.items)
    }

    /// The end of a sidecar's log.
    ///
    /// # Errors
    /// It may not be read.
    pub(crate) async fn sidecar_log(&self, pod: &Pod, lines: usize) -> Result<String, Failure> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), pod::namespace(pod));
        let tail_lines = i64::try_from(lines).ok();
        let params = LogParams { container: Some(SIDECAR.to_owned()), tail_lines, ..LogParams::default() };
        self.ask("read logs of pods", pods.logs(pod::name(pod), &params)).await
    }

    /// What to say where gauze is not installed.
    pub(crate) fn not_installed(&self) -> String {
        let Cluster { name, system_namespace, .. } = self;
        format!(
            "gauze is not installed in namespace {system_namespace} of {name}; install it with \
             `helm install gauze charts/gauze -n {system_namespace} --create-namespace --wait`, \
             or name its namespace with --system-namespace"
        )
    }
}

impl Replicas {
    /// The pods that answer.
    pub(crate) fn ready(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(|pod| pod::is_alive(pod) && pod::is_ready(pod))
    }

    /// The pod to ask.
    fn to_ask(&self) -> Option<&Pod> {
        let leader = self.leader.as_deref();
        let leader = leader.and_then(|leader| self.ready().find(|pod| pod::name(pod) == leader));
        leader.or_else(|| self.ready().next())
    }
}

/// `a=b,c=d`: the pods of a Deployment.
fn selector(deployment: &Deployment) -> String {
    let labels = deployment.spec.selector.match_labels.iter().flatten();
    labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// How a cluster is called and reached.
async fn configuration(place: &Place) -> anyhow::Result<(String, Config)> {
    let read = match &place.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let kubeconfig = match read {
        Ok(kubeconfig) => kubeconfig,
        Err(_) if place.kubeconfig.is_none() && is_in_pod() => {
            let config = Config::incluster()
                .map_err(|error| Failure::Unreachable(format!("this pod cannot ask its cluster: {error}")))?;
            return Ok(("this cluster".to_owned(), config));
        }
        Err(error) => return Err(unreadable(&error).into()),
    };
    let context = place.context.clone().or_else(|| kubeconfig.current_context.clone());
    let name = format!("context {}", context.as_deref().unwrap_or("?"));
    let known: Vec<String> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    let options = KubeConfigOptions { context: place.context.clone(), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    Ok((name, config.map_err(|error| unusable(&error, context.as_deref(), &known))?))
}

/// There is no kubeconfig, or it is no YAML.
fn unreadable(error: &KubeconfigError) -> Failure {
    let start = "a whole mesh on this machine, without a cluster: `gauze demo`";
    Failure::Unreachable(match error {
        KubeconfigError::ReadConfig(error, path) => {
            format!(
                "cannot read the kubeconfig {}: {}; --kubeconfig names another; {start}",
                path.display(),
                error.kind()
            )
        }
        KubeconfigError::FindPath => format!("there is no kubeconfig; --kubeconfig names one; {start}"),
        error => format!("cannot read the kubeconfig: {error}"),
    })
}

/// The kubeconfig does not say which cluster, or as whom.
fn unusable(error: &KubeconfigError, context: Option<&str>, known: &[String]) -> Failure {
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Failure::Unreachable(match (error, context) {
        (KubeconfigError::LoadContext(_), Some(context)) => {
            format!("the kubeconfig has no context {context}; its contexts are: {known}")
        }
        (KubeconfigError::CurrentContextNotSet, _) => {
            format!("the kubeconfig has no current context; choose one with --context: {known}")
        }
        (error, _) => format!("cannot use the kubeconfig: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn replica(name: &str, ready: &str) -> Pod {
        let pod = json!({
            "metadata": { "name": name },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] },
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn the_leader_is_asked_if_it_is_ready_and_else_any_replica_that_is() {
        for (what, pods, leader, expected) in [
            ("the leader is ready", vec![("a", "True"), ("b", "True")], Some("b"), Some("b")),
            ("the leader is not ready", vec![("a", "True"), ("b", "False")], Some("b"), Some("a")),
            ("the leader is gone", vec![("a", "True")], Some("z"), Some("a")),
            ("nobody leads", vec![("a", "False"), ("b", "True")], None, Some("b")),
            ("none is ready", vec![("a", "False")], Some("a"), None),
        ] {
            let pods = pods.iter().map(|(name, ready)| replica(name, ready)).collect();
            let replicas = Replicas { pods, leader: leader.map(str::to_owned), ..Replicas::default() };
            assert_eq!(replicas.to_ask().map(pod::name), expected, "{what}");
        }
    }

    fn place(kubeconfig: PathBuf, context: Option<&str>) -> Place {
        Place { kubeconfig: Some(kubeconfig), context: context.map(str::to_owned), ..Place::default() }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_does_not_help_says_what_does() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        let text = "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n\
                    users: [{name: u, user: {token: t}}]\ncontexts: [{name: dev, context: {cluster: c, user: u}}]\n";
        std::fs::write(&file, text).unwrap();
        for (what, place, expected) in [
            ("no such file", place("/nowhere/config".into(), None), "--kubeconfig names another"),
            ("no current context", place(file.clone(), None), "choose one with --context: dev"),
            ("no such context", place(file.clone(), Some("prod")), "no context prod; its contexts are: dev"),
        ] {
            let failure = Cluster::connect(&place).await.err().expect(what);
            assert!(matches!(failure.downcast_ref(), Some(Failure::Unreachable(_))), "{what}");
            assert!(failure.to_string().contains(expected), "{what}: {failure}");
        }
        let cluster = Cluster::connect(&place(file, Some("dev"))).await.unwrap();
        assert_eq!((cluster.name.as_str(), cluster.server.as_str()), ("context dev", "https://127.0.0.1:1"));
        let failure = cluster.control_plane().await.err().expect("nobody listens there");
        assert!(failure.to_string().contains("does not answer"), "{failure}");
    }
}
