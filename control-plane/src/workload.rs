//! A pod as the control plane meets it: in a token, as the owner of a stream, as an object of the world.

use std::fmt;

use gauze_model::{Name, SpiffeId};
use k8s_openapi::api::core::v1::Pod;

use crate::translate;
use crate::world::World;

/// A pod, and the ServiceAccount that it runs as.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload {
    pub namespace: String,
    pub pod: String,
    /// Empty where the source knows none (a directory).
    pub uid: String,
    pub service_account: String,
}

impl Workload {
    /// The pod of that name, if the world knows it.
    pub fn find(world: &World, namespace: &str, pod: &str) -> Option<Workload> {
        world.pod(namespace, pod).map(|pod| Workload::of(pod))
    }

    /// The pods that hold our sidecar, in order.
    pub fn meshed(world: &World) -> Vec<Workload> {
        let meshed = world.pods().filter(|pod| translate::is_meshed(pod));
        let mut meshed: Vec<Workload> = meshed.map(|pod| Workload::of(pod)).collect();
        meshed.sort();
        meshed
    }

    fn of(pod: &Pod) -> Workload {
        let metadata = &pod.metadata;
        let service_account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
        Workload {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            pod: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            // As the API server fills it in.
            service_account: service_account.unwrap_or_else(|| "default".to_owned()),
        }
    }

    /// Whether the world still knows this pod under this ServiceAccount; not, if another took its name.
    pub fn exists_in(&self, world: &World) -> bool {
        Workload::find(world, &self.namespace, &self.pod).as_ref() == Some(self)
    }

    /// Whether the pod of this name holds our sidecar.
    pub fn is_meshed_in(&self, world: &World) -> bool {
        world.pod(&self.namespace, &self.pod).is_some_and(|pod| translate::is_meshed(pod))
    }

    /// Whether both are the pod of this name, or one that took its name.
    pub fn is_same_pod(&self, other: &Workload) -> bool {
        (&self.namespace, &self.pod) == (&other.namespace, &other.pod)
    }

    /// Who this workload is in the mesh.
    pub fn identity(&self, trust_domain: &str) -> SpiffeId {
        SpiffeId::new(trust_domain, &self.namespace, &self.service_account)
    }

    /// The name of how the pod accepts connections.
    pub fn inbound(&self) -> Name {
        Name::Inbound { namespace: self.namespace.clone(), pod: self.pod.clone() }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.pod)
    }
}
