//! What is known of a cluster when it is judged: the API server's own objects, and what the control plane said.

use std::collections::BTreeMap;
use std::time::Duration;

use gauze_control_plane::inject;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use crate::cluster::Replicas;
use crate::pod;

/// What was seen, or why nobody could look.
pub(crate) type Look<T> = Result<T, String>;

/// What is known.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// `v1.36.4`
    pub(crate) kubernetes: String,
    /// How long the API server took to say so.
    pub(crate) answered: Duration,
    pub(crate) system_namespace: String,
    /// What was asked of the API server before an installation, and whether it is allowed.
    pub(crate) permissions: Vec<(String, bool)>,
    /// By name, those that are there of the ones that matter.
    pub(crate) definitions: Look<BTreeMap<String, CustomResourceDefinition>>,
    /// The data of Cilium's ConfigMap, if Cilium is there.
    pub(crate) cilium: Look<Option<BTreeMap<String, String>>>,
    pub(crate) namespaces: Look<Vec<Namespace>>,
    pub(crate) pods: Look<Vec<Pod>>,
    pub(crate) control_plane: Look<Option<Replicas>>,
    /// What each ready replica said of itself, by pod.
    pub(crate) answers: Vec<(String, Look<Answer>)>,
    pub(crate) webhook: Look<Option<MutatingWebhookConfiguration>>,
    /// The roots in each namespace that needs them.
    pub(crate) trust: BTreeMap<String, Look<Option<String>>>,
}

/// What one replica of the control plane says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// `GET /about`
    pub(crate) about: Value,
    /// `GET /proxies`
    pub(crate) proxies: Value,
    /// The problems of `GET /objects` of which a check speaks.
    pub(crate) problems: Vec<Value>,
}

impl Facts {
    pub(crate) fn is_installed(&self) -> bool {
        matches!(self.control_plane, Ok(Some(_)))
    }

    /// The answers that came.
    pub(crate) fn answered(&self) -> impl Iterator<Item = &Answer> + Clone {
        self.answers.iter().filter_map(|(_, answer)| answer.as_ref().ok())
    }

    /// Every ready replica answered, so that nothing is missing.
    pub(crate) fn all_answered(&self) -> bool {
        !self.answers.is_empty() && self.answers.iter().all(|(_, answer)| answer.is_ok())
    }

    /// The release of the control plane.
    pub(crate) fn version(&self) -> Option<&str> {
        self.answered().find_map(|answer| answer.about["version"].as_str())
    }

    /// The pods that are alive; none where they could not be seen.
    pub(crate) fn live_pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().flatten().filter(|pod| pod::is_alive(pod))
    }

    pub(crate) fn sidecars(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().flatten().filter(|pod| pod::has_live_sidecar(pod))
    }

    /// The namespaces that ask for injection, or hold a pod with a sidecar: each needs the roots of the mesh.
    pub(crate) fn namespaces_of_the_mesh(&self) -> Vec<String> {
        let namespaces = self.namespaces.iter().flatten();
        let asking = namespaces.filter(|namespace| asks(namespace));
        let mut names: Vec<String> = asking.filter_map(|namespace| namespace.metadata.name.clone()).collect();
        names.extend(self.sidecars().map(|pod| pod::namespace(pod).to_owned()));
        names.sort();
        names.dedup();
        names
    }
}

/// The namespace has the label that asks.
pub(crate) fn asks(namespace: &Namespace) -> bool {
    label(namespace, inject::INJECT) == Some("enabled")
}

pub(crate) fn label<'n>(namespace: &'n Namespace, key: &str) -> Option<&'n str> {
    namespace.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// A mesh that is well, for tests that break one thing of it.
#[cfg(test)]
pub(crate) mod example;
