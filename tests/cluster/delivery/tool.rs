//! A tool at work in a namespace: kubectl with the rights of its account, sending the requests that the tool's client
//! sends.

use serde_json::Value;

use super::stage::Stage;
use crate::harness::eventually;

pub(super) struct Tool<'a> {
    pub stage: &'a Stage,
    account: String,
}

impl Tool<'_> {
    /// A tool of this name that may do what these rules allow.
    pub(super) async fn new<'a>(stage: &'a Stage, name: &str, rules: &str) -> Tool<'a> {
        let Stage { cluster, namespace, .. } = stage;
        let role = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: test-{name}-{namespace}}}\nrules: {rules}\n\
             ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: test-{name}-{namespace}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: test-{name}-{namespace}}}\n\
             subjects: [{{kind: ServiceAccount, name: tool, namespace: {namespace}}}]\n"
        );
        cluster.apply(&role).await;
        Tool { stage, account: format!("system:serviceaccount:{namespace}:tool") }
    }

    /// GET; `None` if there is no such object.
    pub(super) async fn get(&self, path: &str) -> Option<Value> {
        match self.kubectl(&["get", "--raw", path], "").await {
            Ok(said) => Some(serde_json::from_str(&said).expect("JSON")),
            Err(error) if error.contains("NotFound") => None,
            Err(error) => panic!("GET {path}: {error}"),
        }
    }

    /// POST.
    pub(super) async fn create(&self, collection: &str, object: &Value) {
        let done = self.kubectl(&["create", "--raw", collection, "-f", "-"], &object.to_string()).await;
        done.unwrap_or_else(|error| panic!("POST {collection}: {error}\n{object}"));
    }

    /// PUT, with the resourceVersion that was read; `Err` if somebody wrote meanwhile.
    pub(super) async fn update(&self, path: &str, object: &Value) -> Result<(), String> {
        match self.kubectl(&["replace", "--raw", path, "-f", "-"], &object.to_string()).await {
            Err(error) if error.contains("Conflict") || error.contains("the object has been modified") => {
                Err(error)
            }
            done => {
                done.unwrap_or_else(|error| panic!("PUT {path}: {error}\n{object}"));
                Ok(())
            }
        }
    }

    /// PATCH of the manner `merge` or `strategic`; `kind` may name a version.
    pub(super) async fn patch(&self, kind: &str, name: &str, manner: &str, patch: &Value) {
        let (manner, patch) = (format!("--type={manner}"), patch.to_string());
        let arguments = ["patch", kind, name, "-n", &self.stage.namespace, &manner, "-p", &patch];
        self.kubectl(&arguments, "").await.unwrap_or_else(|error| panic!("PATCH {kind}/{name}: {error}"));
    }

    /// As every tool it tries again, at its next interval, what the API server could not do because the control plane was
    /// not ready to convert: one that cannot keep up says so and leaves its Service for a moment.
    async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let account = format!("--as={}", self.account);
        let arguments = [arguments, &[&account]].concat();
        eventually(&format!("the API server takes {}", arguments[..2].join(" ")), async || {
            match self.stage.cluster.kubectl_with(&arguments, input).await {
                Err(error) if error.contains("conversion webhook") => Err(error),
                done => Ok(done),
            }
        })
        .await
    }
}
