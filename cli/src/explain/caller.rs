//! Who asks: a pod, found by its name or by what its app is called.

use gauze_control_plane::translate::is_meshed;
use gauze_control_plane::world::World;
use gauze_model::Origin;
use gauze_model::why::Reason;
use k8s_openapi::api::core::v1::Pod;

use crate::exit::Failure;
use crate::files;
use crate::pod::{app, name as name_of, namespace as namespace_of};

/// The pod that asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) meshed: bool,
}

/// Finds the caller, and notes who it is.
///
/// # Errors
/// There is no such pod.
pub(crate) fn find(world: &World, from: &str, steps: &mut Vec<Reason>) -> Result<Caller, Failure> {
    let (namespace, name) = files::split_name(from);
    let in_namespace = |pod: &Pod| namespace.is_none_or(|namespace| namespace_of(pod) == namespace);
    let pods: Vec<&Pod> = world.pods().map(AsRef::as_ref).filter(|pod| in_namespace(pod)).collect();
    let found =
        pods.iter().find(|pod| name_of(pod) == name).or_else(|| pods.iter().find(|pod| app(pod) == name));
    let Some(pod) = found else {
        let known: Vec<String> =
            pods.iter().map(|pod| format!("{}/{}", namespace_of(pod), app(pod))).collect();
        return Err(Failure::Usage(format!("no pod or app {from}; there are: {}", unique(known))));
    };
    let caller = Caller {
        namespace: namespace_of(pod).to_owned(),
        pod: name_of(pod).to_owned(),
        meshed: is_meshed(pod),
    };
    let origin = Origin {
        kind: "Pod".to_owned(),
        namespace: caller.namespace.clone(),
        name: caller.pod.clone(),
        ..Origin::default()
    };
    let (decided, because) = if caller.meshed {
        let identity = gauze_control_plane::translate::identity(world, pod);
        (identity.to_string(), "its ServiceAccount; it has the sidecar")
    } else {
        ("no identity".to_owned(), "it has no init container `gauze-proxy` with `restartPolicy: Always`")
    };
    steps.push(Reason::new("caller", decided, because).by(&origin));
    Ok(caller)
}

fn unique(mut names: Vec<String>) -> String {
    names.sort();
    names.dedup();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
