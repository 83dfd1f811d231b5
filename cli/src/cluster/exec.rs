//! Asks a program of gauze in a pod through the API server: `gauze-proxy ask PATH`, `gauze-control-plane ask PATH`.
//! No port of a pod has to be reachable from here, and who may ask is decided by the cluster's own rules (`pods/exec`).

use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Cluster;
use crate::admin::ANSWER_MAX;
use crate::exit::Failure;

/// What a program says on stderr that is worth repeating, in bytes.
const COMPLAINT_MAX: u64 = 4096;

/// A program in a pod.
#[derive(Clone)]
pub(crate) struct Exec {
    pub(crate) cluster: Cluster,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    /// `None`: the only one.
    pub(crate) container: Option<&'static str>,
    pub(crate) program: &'static str,
}

/// What a program said, and how it ended.
struct Ended {
    output: String,
    complaint: String,
    status: Option<Status>,
}

impl Exec {
    /// Lets the program ask its own process; `post` sends an order.
    ///
    /// # Errors
    /// The pod cannot be reached, or may not be asked; the program fails: then its own words.
    pub(crate) async fn ask(&self, path: &str, post: bool) -> Result<String, Failure> {
        let mut command = vec![self.program, "ask", path];
        if post {
            command.push("--post");
        }
        let Exec { cluster, namespace, .. } = self;
        let doing = format!("run a program in pods of namespace {namespace} (create pods/exec)");
        let ended = cluster.ask(&doing, self.run(&command)).await?;
        let succeeded =
            ended.status.as_ref().is_some_and(|status| status.status.as_deref() == Some("Success"));
        if succeeded {
            return Ok(ended.output);
        }
        let said = ended.status.and_then(|status| status.message).unwrap_or_default();
        let why = [ended.complaint.trim(), said.trim()].into_iter().find(|text| !text.is_empty());
        Err(Failure::Unreachable(format!("{self} does not answer {path}: {}", why.unwrap_or("it ended"))))
    }

    async fn run(&self, command: &[&str]) -> Result<Ended, kube::Error> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        let mut params = AttachParams::default().stdin(false).stdout(true).stderr(true);
        if let Some(container) = self.container {
            params = params.container(container);
        }
        let process = pods.exec(&self.pod, command.iter().copied(), &params).await?;
        Ok(read(process).await)
    }
}

/// Reads both streams to their ends; a stream that breaks off is as long as it is, and the status says so.
async fn read(mut process: AttachedProcess) -> Ended {
    let (stdout, stderr, status) = (process.stdout(), process.stderr(), process.take_status());
    let (output, complaint) = tokio::join!(text(stdout, ANSWER_MAX as u64), text(stderr, COMPLAINT_MAX));
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    Ended { output, complaint, status }
}

async fn text(stream: Option<impl AsyncRead + Unpin>, limit: u64) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let _ = stream.take(limit).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl fmt::Display for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.pod)
    }
}
