//! The Kubernetes cluster that this process serves: all that is done there besides reading objects.

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::watch;

use crate::settings::Settings;

pub(crate) mod bundle; // by whom the API server knows our webhook
pub(crate) mod freshness; // whether our objects are old
mod leader; // one replica of several
mod lease; // a Lease, and when it may be taken
pub(crate) mod peers; // what other replicas say
pub mod replicas; // what all replicas know together
pub mod review; // the API server's verdict on a token
pub(crate) mod root; // the root, in one Secret
pub(crate) mod statuses; // what users read of their objects
pub(crate) mod trust; // the roots, where pods mount them
pub(crate) mod webhook; // pods that ask for a sidecar

/// A connection to the API server, and who we are there. A clone shares both.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    /// The system namespace: our own.
    pub namespace: String,
    /// Our own pod, which is also our name among replicas.
    pub pod: String,
    leads: watch::Sender<bool>,
    reconnects: watch::Sender<u64>,
}

/// The field manager of all that we write.
pub const MANAGER: &str = "gauze";

impl Cluster {
    /// Finds out how to reach the API server; whether it answers is not asked yet.
    ///
    /// # Errors
    /// There is no configuration, or it cannot be used.
    pub async fn connect(settings: &Settings) -> anyhow::Result<Cluster> {
        let config = match &settings.kubernetes.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path)
                    .with_context(|| format!("cannot read {} (--kubeconfig)", path.display()))?;
                Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
            }
            None => Config::infer().await.context("cannot tell how to reach the API server")?,
        };
        Ok(Cluster {
            client: Client::try_from(config).context("cannot reach the API server like this")?,
            namespace: settings.system_namespace.clone(),
            pod: settings.kubernetes.pod_name.clone().context("--pod-name is missing")?,
            leads: watch::Sender::new(false),
            reconnects: watch::Sender::new(0),
        })
    }

    /// Changes whenever all watches must be opened anew.
    pub(crate) fn reconnects(&self) -> watch::Receiver<u64> {
        self.reconnects.subscribe()
    }

    /// Lets all watches be opened anew.
    pub(crate) fn reconnect(&self) {
        self.reconnects.send_modify(|count| *count += 1);
    }

    /// Whether this replica leads; at most one does. It turns false before another can take over.
    pub fn leader(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }
}

/// What the API server says to a call that failed, in one sentence.
fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
