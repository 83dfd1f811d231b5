//! What is set only where the control plane runs for a Kubernetes cluster.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::inject::InjectionSettings;

/// Settings of Kubernetes mode (`--kubernetes`).
#[derive(Clone, Debug, Args)]
pub struct KubernetesSettings {
    /// Read all objects from the Kubernetes API server, and follow their changes
    #[arg(long, env = "GAUZE_KUBERNETES")]
    pub kubernetes: bool,

    /// Reach the API server as this file says [default: as the pod's ServiceAccount, or as kubectl would]
    #[arg(long, value_name = "FILE", env = "GAUZE_KUBECONFIG", conflicts_with = "directory")]
    pub kubeconfig: Option<PathBuf>,

    /// The name of the pod that this process runs in (the downward API tells it)
    #[arg(long, value_name = "NAME", env = "GAUZE_POD_NAME", required_if_eq("kubernetes", "true"))]
    pub pod_name: Option<String>,

    /// Keep the operator's socket in this directory [default: /run/gauze]
    #[arg(long, value_name = "DIR", env = "GAUZE_STATE_DIRECTORY", conflicts_with = "directory")]
    pub state_directory: Option<PathBuf>,

    /// Serve the injection webhook here, over TLS
    #[arg(long, value_name = "IP:PORT", env = "GAUZE_WEBHOOK_LISTEN", default_value = "[::]:15017")]
    pub webhook_listen: SocketAddr,

    /// Further DNS names of the webhook, for an API server that reaches it by URL and not by its Service
    #[arg(long, value_name = "NAME,…", env = "GAUZE_WEBHOOK_NAMES", value_delimiter = ',')]
    pub webhook_names: Vec<String>,

    /// The MutatingWebhookConfiguration whose caBundle is kept up to date
    #[arg(long, value_name = "NAME", env = "GAUZE_WEBHOOK_CONFIGURATION", default_value = "gauze-injector")]
    pub webhook_configuration: String,

    /// The Secret (kubernetes.io/tls) of the system namespace that holds the root
    #[arg(long, value_name = "NAME", env = "GAUZE_ROOT_SECRET", default_value = "gauze-root")]
    pub root_secret: String,

    /// Never make a root: the Secret is somebody else's to create
    #[arg(long, env = "GAUZE_ROOT_SECRET_EXISTS")]
    pub root_secret_exists: bool,

    /// Write statuses and events into the cluster; false where another control plane of the same cluster does
    #[arg(
        long,
        value_name = "BOOL",
        env = "GAUZE_WRITE_STATUSES",
        default_value_t = true,
        action = ArgAction::Set
    )]
    pub write_statuses: bool,

    #[command(flatten)]
    pub injection: InjectionSettings,
}

/// Where the socket lies unless told otherwise.
pub(super) const STATE_DIRECTORY: &str = "/run/gauze";
