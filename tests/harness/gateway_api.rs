//! The Gateway API as upstream releases it: the custom resource definitions of its two channels, and servers that have
//! them.

use tokio::sync::OnceCell;

use super::apiserver::ApiServer;
use super::cluster::Cluster;
use super::tools::{folders, skip};

/// The folder with the definitions of a channel, `standard` or `experimental`, for `kubectl apply --server-side -f`.
///
/// # Panics
/// In CI, if `tests/rig/programs` has not put them there. Elsewhere that is a printed skip, `None`.
pub(crate) fn gateway_api_crds(channel: &str) -> Option<String> {
    let mut channels = folders().into_iter().map(|folder| format!("{folder}/gateway-api/{channel}"));
    channels.find(|folder| std::path::Path::new(folder).is_dir()).or_else(|| {
        skip("the Gateway API's definitions not found: `tests/rig/programs` puts them into its cache")
    })
}

impl ApiServer {
    /// The shared one, with the experimental channel of the Gateway API.
    pub(crate) async fn with_gateway_api() -> Option<&'static ApiServer> {
        static DEFINED: OnceCell<()> = OnceCell::const_new();
        let definitions = gateway_api_crds("experimental")?;
        let server = ApiServer::shared().await?;
        DEFINED.get_or_init(|| server.define(&definitions)).await;
        Some(server)
    }

    /// Applies the custom resource definitions in this folder and waits until they are served.
    pub(crate) async fn define(&self, folder: &str) {
        for arguments in definition(folder) {
            self.kubectl(&arguments).await.expect("the definitions are valid and established");
        }
    }
}

impl Cluster {
    /// The shared one with the mesh, and with the experimental channel of the Gateway API.
    pub(crate) async fn with_gateway_api() -> Option<&'static Cluster> {
        static DEFINED: OnceCell<()> = OnceCell::const_new();
        let definitions = gateway_api_crds("experimental")?;
        let cluster = Cluster::with_mesh().await?;
        DEFINED.get_or_init(|| cluster.define(&definitions)).await;
        Some(cluster)
    }

    /// Applies the custom resource definitions in this folder and waits until they are served.
    pub(crate) async fn define(&self, folder: &str) {
        for arguments in definition(folder) {
            self.kubectl(&arguments).await.expect("the definitions are valid and established");
        }
    }
}

/// What kubectl is told.
fn definition(folder: &str) -> [Vec<&str>; 2] {
    [
        vec!["apply", "--server-side", "-f", folder],
        vec!["wait", "--for=condition=Established", "--timeout=60s", "-f", folder],
    ]
}
