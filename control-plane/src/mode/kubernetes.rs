//! A cluster: objects, root and verdicts on tokens come from its API server, which may be away for long.

use std::sync::Arc;

use anyhow::Context;
use gauze_crds::traffic_split;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Prepared, Shared, read_all};
use crate::authority::Subject;
use crate::cluster::freshness::Freshness;
use crate::cluster::peers::Peers;
use crate::cluster::replicas::Replicas;
use crate::cluster::review::Reviewer;
use crate::cluster::root::{NoRoot, RootSecret};
use crate::cluster::statuses::Statuses;
use crate::cluster::trust::Trust;
use crate::cluster::webhook::{Conversions, Webhook};
use crate::cluster::{Cluster, bundle};
use crate::port::{AmongReplicas, OwnCertificate};
use crate::readiness::Unready;
use crate::settings::Settings;
use crate::source::kubernetes::Standing;
use crate::tokens::TokenCheck;
use crate::{bind, own_identity, source};

pub(crate) struct Kubernetes {
    cluster: Cluster,
    /// Where the API server reaches the webhook.
    pub(crate) webhook: TcpListener,
}

impl Kubernetes {
    pub(super) async fn start(shared: &Shared) -> anyhow::Result<Kubernetes> {
        let settings = &shared.settings;
        let path = settings.state_directory();
        // A volume of the pod, which may not be there yet.
        std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Kubernetes {
            cluster: Cluster::connect(settings).await?,
            webhook: bind(settings.kubernetes.webhook_listen, "--webhook-listen").await?,
        })
    }

    /// In this order: who leads (somebody must make the root), the root, the objects.
    pub(super) async fn prepare(self, shared: &Shared, port: u16) -> anyhow::Result<Prepared> {
        let Shared { settings, push, metrics, readiness } = shared;
        let Kubernetes { cluster, webhook } = self;
        let (mut tasks, mut last) = (JoinSet::new(), JoinSet::new());
        last.spawn(cluster.clone().campaign(Arc::clone(metrics), Arc::clone(readiness)));
        let standing = Standing::default();
        let watched =
            source::kubernetes::watch(&cluster.client, &cluster.reconnects(), standing.clone(), metrics);

        let secret = RootSecret::new(&cluster, settings);
        let tell = |why: &NoRoot| readiness.explain(Unready::NoRoot, why.to_string());
        let (authority, held) = secret.obtain(cluster.leader(), tell).await;
        let authority = Arc::new(authority);
        tasks.spawn(secret.keep(held, cluster.leader()));
        let own = OwnCertificate::issue(
            Arc::clone(&authority),
            own_identity(settings).into(),
            Arc::clone(metrics),
        )?;
        readiness.set(Unready::NoRoot, false);

        let updates = read_all(watched, shared).await?;

        let trust = Trust::new(cluster.client.clone(), authority.roots().to_owned());
        tasks.spawn(trust.clone().watch());
        tasks.spawn(trust.clone().keep(Arc::clone(push), cluster.leader()));
        let tokens = TokenCheck::Review(Arc::new(Reviewer::new(cluster.client.clone())));

        let ourselves = (cluster.namespace.as_str(), cluster.pod.as_str());
        let peers = Peers::new(authority.root(), Arc::clone(&own), own_identity(settings), ourselves, port)?;
        let freshness = Freshness::new(cluster.clone(), shared.clone(), peers.clone());
        let all = Replicas::new(Arc::clone(push), peers, cluster.leader(), Arc::clone(metrics));
        let replicas = Some(AmongReplicas { fresh: freshness.answer(), all: all.clone() });
        tasks.spawn(freshness.keep());
        if settings.kubernetes.write_statuses {
            let (push, metrics) = (Arc::clone(push), Arc::clone(metrics));
            tasks.spawn(Statuses::new(cluster.clone(), push, all.clone(), standing, metrics).keep());
        }
        tasks.spawn(all.keep());

        // Pods that ask for a sidecar, and TrafficSplits of older versions.
        let names = Subject::Server(webhook_names(settings));
        let leaf = OwnCertificate::issue(Arc::clone(&authority), names, Arc::clone(metrics))?;
        tasks.spawn(Arc::clone(&leaf).keep());
        let configuration = settings.kubernetes.webhook_configuration.clone();
        let roots = || authority.roots().to_owned();
        tasks.spawn(bundle::keep::<MutatingWebhookConfiguration>(cluster.clone(), configuration, roots()));
        let definition = traffic_split::NAME.to_owned();
        tasks.spawn(bundle::keep::<CustomResourceDefinition>(cluster.clone(), definition, roots()));
        let (settings, push, metrics) = (settings.clone(), push.clone(), metrics.clone());
        let answering = Webhook { settings, push, metrics, trust, conversions: Conversions::default() };
        last.spawn(answering.serve(webhook, leaf, Arc::clone(readiness)));
        Ok(Prepared { authority, tokens, own, replicas, updates, tasks, last })
    }
}

/// By which names the API server knows the webhook: its Service's, and those of the settings.
fn webhook_names(settings: &Settings) -> Vec<String> {
    let service = format!("gauze-control-plane.{}.svc", settings.system_namespace);
    let mut names = vec![format!("{service}.cluster.local"), service];
    names.extend(settings.kubernetes.webhook_names.iter().cloned());
    names
}
