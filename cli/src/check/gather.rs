//! Asks the cluster for the facts. What may not be read is a fact too; only a cluster that does not answer at all
//! ends the command.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::Value;

use super::definitions::{GATEWAY_API, OURS};
use super::facts::{Answer, Facts, Look};
use crate::admin::Endpoint;
use crate::cluster::{Cluster, Replicas};
use crate::exit::Failure;
use crate::pod;

const WEBHOOK: &str = "gauze-injector";
const TRUST: &str = "gauze-trust";
/// Namespaces that are asked for their roots at once.
const AT_ONCE: usize = 16;

/// What the chart creates: group, resource, and whether in the system namespace.
const CREATED: [(&str, &str, bool); 10] = [
    ("", "namespaces", false),
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", false),
    ("apps", "deployments", true),
    ("", "services", true),
    ("", "serviceaccounts", true),
    ("", "secrets", true),
    ("rbac.authorization.k8s.io", "rolebindings", true),
];

/// Everything that a check looks at; before an installation, without asking the control plane.
///
/// # Errors
/// The API server does not answer.
pub(crate) async fn gather(cluster: &Cluster, pre: bool) -> Result<Facts, Failure> {
    let (kubernetes, answered) = version(cluster).await?;
    let (definitions, cilium, namespaces, pods, control_plane, webhook, permissions) = tokio::join!(
        definitions(cluster),
        cilium(cluster),
        namespaces(cluster),
        cluster.pods(None),
        cluster.replicas(),
        webhook(cluster),
        permissions(cluster, pre),
    );
    let mut facts = Facts {
        now: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
        kubernetes,
        answered,
        system_namespace: cluster.system_namespace.clone(),
        permissions: permissions?,
        definitions,
        cilium,
        namespaces,
        pods: look(pods),
        control_plane: look(control_plane),
        answers: Vec::new(),
        webhook,
        trust: BTreeMap::new(),
    };
    if !pre && let Ok(Some(replicas)) = &facts.control_plane {
        facts.answers = ask_all(cluster, replicas).await;
        facts.trust = trust(cluster, &facts.namespaces_of_the_mesh()).await;
    }
    Ok(facts)
}

fn look<T>(seen: Result<T, Failure>) -> Look<T> {
    seen.map_err(|failure| failure.to_string())
}

async fn version(cluster: &Cluster) -> Result<(String, Duration), Failure> {
    let began = Instant::now();
    let version = cluster.ask("read the version", cluster.client.apiserver_version()).await?;
    Ok((version.git_version, began.elapsed()))
}

async fn definitions(cluster: &Cluster) -> Look<BTreeMap<String, CustomResourceDefinition>> {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let read = OURS.iter().chain(&GATEWAY_API).map(async |(name, _)| {
        let found = look(cluster.ask("read CustomResourceDefinitions", api.get_opt(name)).await)?;
        Ok(found.map(|definition| ((*name).to_owned(), definition)))
    });
    let found: Look<Vec<_>> = join_all(read).await.into_iter().collect();
    Ok(found?.into_iter().flatten().collect())
}

async fn cilium(cluster: &Cluster) -> Look<Option<BTreeMap<String, String>>> {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-system");
    let doing = "read the ConfigMap cilium-config of namespace kube-system";
    let found = look(cluster.ask(doing, api.get_opt("cilium-config")).await)?;
    Ok(found.map(|config| config.data.unwrap_or_default()))
}

/// All, or the one that the user named.
async fn namespaces(cluster: &Cluster) -> Look<Vec<Namespace>> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    match &cluster.namespace {
        Some(name) => {
            let found = look(cluster.ask("read namespaces", api.get_opt(name)).await)?;
            Ok(found.into_iter().collect())
        }
        None => Ok(look(cluster.ask("list namespaces", api.list(&ListParams::default())).await)?.items),
    }
}

async fn webhook(cluster: &Cluster) -> Look<Option<MutatingWebhookConfiguration>> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    look(cluster.ask("read the MutatingWebhookConfiguration gauze-injector", api.get_opt(WEBHOOK)).await)
}

/// Whether the user may create what the chart creates.
async fn permissions(cluster: &Cluster, pre: bool) -> Result<Vec<(String, bool)>, Failure> {
    if !pre {
        return Ok(Vec::new());
    }
    let asked = CREATED.iter().map(async |(group, resource, in_namespace)| {
        let namespace = in_namespace.then(|| cluster.system_namespace.clone());
        let place = namespace.as_deref().map_or_else(String::new, |name| format!(" in namespace {name}"));
        let what = format!("create {resource}{place}");
        Ok((what, may_create(cluster, group, resource, namespace).await?))
    });
    join_all(asked).await.into_iter().collect()
}

async fn may_create(
    cluster: &Cluster,
    group: &str,
    resource: &str,
    namespace: Option<String>,
) -> Result<bool, Failure> {
    let attributes = ResourceAttributes {
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        verb: Some("create".to_owned()),
        namespace,
        ..ResourceAttributes::default()
    };
    let spec =
        SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), non_resource_attributes: None };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let params = PostParams::default();
    let answer = cluster.ask("ask what you may do", api.create(&params, &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// What each ready replica says, asked side by side.
async fn ask_all(cluster: &Cluster, replicas: &Replicas) -> Vec<(String, Look<Answer>)> {
    let asked = replicas.ready().map(async |pod| {
        let answer = ask(&cluster.replica(pod)).await;
        (pod::name(pod).to_owned(), answer.map_err(|error| format!("{error:#}")))
    });
    join_all(asked).await
}

async fn ask(replica: &Endpoint) -> anyhow::Result<Answer> {
    let (about, proxies, objects) = tokio::try_join!(
        replica.get_json("/about"),
        replica.get_json("/proxies"),
        replica.get_json("/objects")
    )?;
    let of_objects = objects["objects"].as_array().into_iter().flatten();
    let problems = of_objects.flat_map(|object| object["problems"].as_array().into_iter().flatten());
    let problems: Vec<Value> = problems.filter(|problem| problem["code"] == "M1009").cloned().collect();
    Ok(Answer { about, proxies, problems })
}

/// The roots in these namespaces.
async fn trust(cluster: &Cluster, namespaces: &[String]) -> BTreeMap<String, Look<Option<String>>> {
    let mut trust = BTreeMap::new();
    for some in namespaces.chunks(AT_ONCE) {
        let read = some.iter().map(async |namespace| {
            let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
            let doing = "read the ConfigMaps gauze-trust";
            let found = look(cluster.ask(doing, api.get_opt(TRUST)).await);
            let roots = |config: ConfigMap| config.data.unwrap_or_default().remove("roots.pem");
            (namespace.clone(), found.map(|config| config.and_then(roots)))
        });
        trust.extend(join_all(read).await);
    }
    trust
}
