//! What every object means for the proxies. [`translate`] is pure and never fails: a broken object
//! costs only itself. The name alone determines the answer.
//!
//! Whatever is looked at here must be reached from `world/touched.rs`.

mod authorization; // which AuthorizationPolicies select a pod
mod check; // what is wrong with objects that have no status of their own
mod inbound; // how a pod accepts
mod judge; // what is wrong with an object, at each of its parents
mod outbound; // where a dialled address leads
mod outliers; // when an endpoint is ejected
mod pods; // who is meshed, and as whom
mod policies; // which TrafficPolicy holds
mod ports; // what a port speaks
mod retries; // how often and how long a request is tried
mod routes; // which rules a Service's requests meet
mod services; // Services, and pods, as backends
mod splits; // TrafficSplits

use std::sync::Arc;

use gauze_model::listener::Listener;
use gauze_model::snapshot::Resource;
use gauze_model::{Cluster, EndpointSet, Kind, Name, Origin, RouteTable};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::problem::Problem;
use crate::world::World;

pub use check::check;
pub(crate) use judge::{Judgement, judge};
pub(crate) use pods::addresses;
pub(crate) use pods::has_ended;
pub(crate) use pods::is_strictness;
pub use pods::{identity, is_meshed};

/// The answer to a name, and what is wrong with the objects behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Translation {
    pub answer: Answer,
    /// The policies that shaped the answer; what else did stands in the resources themselves.
    pub policies: Vec<Origin>,
    pub problems: Vec<Problem>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// One resource; for `cluster/…` two, the cluster and its endpoints.
    Known(Vec<Resource>),
    /// There is nothing of that name.
    Absent,
    /// The world is not synced yet, or the pod has no address yet: no answer, which is not the same as absent.
    Undecided,
}

/// What `name` stands for in this world.
pub fn translate(world: &World, name: &Name) -> Translation {
    if !world.is_synced() {
        return Translation { answer: Answer::Undecided, policies: Vec::new(), problems: Vec::new() };
    }
    let mut problems = Vec::new();
    let mut policies = Vec::new();
    let answer = match name {
        Name::Inbound { namespace, pod } => inbound::inbound(world, namespace, pod, &mut problems),
        Name::Outbound { viewer, address } => {
            outbound::outbound(world, viewer, *address, &mut problems).map(Answer::from)
        }
        Name::Routes { service, viewer } => {
            routes::routes(world, service, viewer.as_deref(), &mut policies, &mut problems).map(Answer::from)
        }
        Name::Cluster(service) => {
            services::cluster(world, service, &mut policies, &mut problems).map(Answer::from)
        }
        Name::Pod(address) => {
            services::pod_cluster(world, *address, &mut policies, &mut problems).map(Answer::from)
        }
    };
    Translation { answer: answer.unwrap_or(Answer::Absent), policies, problems }
}

impl Answer {
    /// The resource of that kind, if there is one.
    pub fn resource(&self, kind: Kind) -> Option<&Resource> {
        match self {
            Answer::Known(resources) => resources.iter().find(|resource| resource.kind() == kind),
            Answer::Absent | Answer::Undecided => None,
        }
    }
}

impl From<Listener> for Answer {
    fn from(listener: Listener) -> Answer {
        Answer::Known(vec![Resource::Listener(Arc::new(listener))])
    }
}

impl From<RouteTable> for Answer {
    fn from(table: RouteTable) -> Answer {
        Answer::Known(vec![Resource::Routes(Arc::new(table))])
    }
}

impl From<(Cluster, EndpointSet)> for Answer {
    fn from((cluster, endpoints): (Cluster, EndpointSet)) -> Answer {
        Answer::Known(vec![Resource::Cluster(Arc::new(cluster)), Resource::Endpoints(Arc::new(endpoints))])
    }
}

/// Sorts older objects first, then by namespace and name (Gateway API, "Conflicts"). What has no
/// time, as in a directory, counts as oldest.
fn age(metadata: &ObjectMeta) -> (Option<&Time>, &str, &str) {
    (metadata.creation_timestamp.as_ref(), namespace_of(metadata), name_of(metadata))
}

fn namespace_of(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or_default()
}

fn name_of(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The field path of an annotation.
fn annotation_path(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}
