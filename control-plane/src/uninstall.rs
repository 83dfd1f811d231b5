//! `gauze-control-plane uninstall`: takes back what control planes have made in a cluster themselves and what therefore
//! belongs to no Helm release: the roots in every namespace, the root Secret, the leader's Lease; and the pod that
//! `helm test` leaves for its log. The chart runs it as a hook after it has deleted the control plane; and before that,
//! once, to stop the conversion of TrafficSplits ([`conversion`]).
//!
//! It never touches pods of users or custom resources, and no ConfigMap of the same name that is not ours.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use tokio::time::{Instant, sleep};

mod conversion; // before the control plane goes

/// Take back what control planes have made themselves in this cluster: the ConfigMaps `gauze-trust`, the root Secret,
/// the Lease of the leader. Before they go: stop the conversion of TrafficSplits.
#[derive(Clone, Debug, Parser)]
#[command(name = "gauze-control-plane uninstall", max_term_width = 110)]
pub struct UninstallSettings {
    /// The control plane's namespace
    #[arg(long, value_name = "NAMESPACE", env = "GAUZE_SYSTEM_NAMESPACE", default_value = "gauze-system")]
    pub system_namespace: String,

    /// The Secret of the mesh's root, if it is to go too; never one that you made yourself
    #[arg(long, value_name = "NAME")]
    pub root_secret: Option<String>,

    /// Labels of the control plane's pods: nothing is done while one is left, since it would make all anew
    #[arg(long, value_name = "KEY=VALUE,…", required_unless_present = "stop_conversion")]
    pub replicas: Option<String>,

    /// Only this, while control planes still run: serve TrafficSplits in the version in which they are stored, and in no
    /// other
    #[arg(long, conflicts_with_all = ["replicas", "root_secret"])]
    pub stop_conversion: bool,

    /// Reach the cluster as this file says [default: as a pod does, or KUBECONFIG]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// What could not be taken back.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    #[error("cannot tell how to reach the API server: {0}")]
    Unreachable(String),
    #[error("the control plane still runs after {} s: {}", LAST_REPLICA.as_secs(), .0.join(", "))]
    StillRuns(Vec<String>),
    #[error("{what}: {problem}")]
    Refused { what: String, problem: kube::Error },
}

/// How long the last replica may take to end.
const LAST_REPLICA: Duration = Duration::from_secs(60);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(500);
/// ConfigMaps of one answer of the API server.
const PAGE: u32 = 500;

/// The Lease of the leader.
const LEASE: &str = "gauze-control-plane";
/// The pod of `helm test`.
const CHECK: &str = "gauze-check";
/// The ConfigMap of the roots, in every namespace of the mesh.
const TRUST: &str = "gauze-trust";

/// Does what `gauze-control-plane uninstall ..` asks for; `None` for any other command line.
pub fn command() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek()? != "uninstall" {
        return None;
    }
    let settings = UninstallSettings::parse_from(arguments);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        runtime.block_on(async { run(&settings).await.map_err(|error| error.to_string()) })
    });
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gauze-control-plane uninstall: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Stops conversion, or waits for the last replica to end and deletes, and prints what it deleted. What is gone already is fine, so
/// it can be run again.
///
/// # Errors
/// A replica does not end, or the API server refuses something.
pub async fn run(settings: &UninstallSettings) -> Result<(), UninstallError> {
    let client = connect(settings).await.map_err(|error| UninstallError::Unreachable(error.to_string()))?;
    let namespace = &settings.system_namespace;
    if settings.stop_conversion {
        return conversion::stop(&client, namespace).await;
    }
    let replicas = settings.replicas.as_deref().unwrap_or_default();
    wait_for_the_end(&Api::namespaced(client.clone(), namespace), replicas).await?;
    for map in trust(&Api::all(client.clone())).await? {
        let namespace = map.namespace().unwrap_or_default();
        delete::<ConfigMap>(&client, &namespace, TRUST).await?;
    }
    delete::<Lease>(&client, namespace, LEASE).await?;
    if let Some(secret) = &settings.root_secret {
        delete::<Secret>(&client, namespace, secret).await?;
    }
    delete::<Pod>(&client, namespace, CHECK).await
}

async fn connect(settings: &UninstallSettings) -> anyhow::Result<Client> {
    let config = match &settings.kubeconfig {
        Some(path) => {
            Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default())
                .await?
        }
        None => Config::infer().await?,
    };
    Ok(Client::try_from(config)?)
}

async fn wait_for_the_end(pods: &Api<Pod>, labels: &str) -> Result<(), UninstallError> {
    let end = Instant::now() + LAST_REPLICA;
    let these = ListParams::default().labels(labels);
    loop {
        let left = pods.list(&these).await.map_err(refused("cannot list the control plane's pods"))?;
        let left: Vec<String> = left.iter().map(ResourceExt::name_any).collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(UninstallError::StillRuns(left));
        }
        sleep(LOOK).await;
    }
}

/// The ConfigMaps of that name that are ours, in all namespaces. We may read only those: the name is part of the question.
async fn trust(maps: &Api<ConfigMap>) -> Result<Vec<ConfigMap>, UninstallError> {
    let mut these = ListParams::default()
        .fields(&format!("metadata.name={TRUST}"))
        .labels("app.kubernetes.io/managed-by=gauze")
        .limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = maps.list(&these).await.map_err(refused("cannot list the ConfigMaps gauze-trust"))?;
        these.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        found.extend(page.items);
        if these.continue_token.is_none() {
            return Ok(found);
        }
    }
}

/// Deletes one object, if it is there.
async fn delete<K>(client: &Client, namespace: &str, name: &str) -> Result<(), UninstallError>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let what = format!("{} {namespace}/{name}", K::kind(&()));
    let objects: Api<K> = Api::namespaced(client.clone(), namespace);
    match objects.delete(name, &DeleteParams::default()).await {
        Ok(_) => println!("deleted {what}"),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(problem) => {
            return Err(UninstallError::Refused { what: format!("cannot delete {what}"), problem });
        }
    }
    Ok(())
}

fn refused(what: &str) -> impl FnOnce(kube::Error) -> UninstallError {
    let what = what.to_owned();
    |problem| UninstallError::Refused { what, problem }
}
