//! Who asks: a pod, found by its name or by what its app is called.

use gauze_control_plane::translate::is_meshed;
use gauze_control_plane::world::World;
use gauze_model::why::Reason;
use gauze_model::{Origin, SpiffeId};
use k8s_openapi::api::core::v1::Pod;

use crate::exit::Failure;
use crate::files;
use crate::pod::{app, name as name_of, namespace as namespace_of};

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Empty, as `pod`: it is outside the cluster.
    pub(crate) namespace: String,
    pub(crate) pod: String,
    /// `None`: it has no sidecar.
    pub(crate) identity: Option<SpiffeId>,
}

/// What is written for somebody who is no pod of the cluster.
const OUTSIDE: &str = "outside";

/// Finds the caller, and notes who it is.
///
/// # Errors
/// There is no such pod.
pub(crate) fn find(world: &World, from: &str, steps: &mut Vec<Reason>) -> Result<Caller, Failure> {
    if from == OUTSIDE {
        steps.push(Reason::new("caller", "no identity", "somebody outside the mesh, in plaintext"));
        return Ok(Caller { namespace: String::new(), pod: String::new(), identity: None });
    }
    let (namespace, name) = files::split_name(from);
    let in_namespace = |pod: &Pod| namespace.is_none_or(|namespace| namespace_of(pod) == namespace);
    let pods: Vec<&Pod> = world.pods().map(AsRef::as_ref).filter(|pod| in_namespace(pod)).collect();
    let found =
        pods.iter().find(|pod| name_of(pod) == name).or_else(|| pods.iter().find(|pod| app(pod) == name));
    let Some(pod) = found else {
        let known: Vec<String> =
            pods.iter().map(|pod| format!("{}/{}", namespace_of(pod), app(pod))).collect();
        return Err(Failure::Usage(format!(
            "no pod or app {from}; there are: {}, and `outside`",
            unique(known)
        )));
    };
    let caller = Caller {
        namespace: namespace_of(pod).to_owned(),
        pod: name_of(pod).to_owned(),
        identity: is_meshed(pod).then(|| gauze_control_plane::translate::identity(world, pod)),
    };
    let origin = Origin {
        kind: "Pod".to_owned(),
        namespace: caller.namespace.clone(),
        name: caller.pod.clone(),
        ..Origin::default()
    };
    let (decided, because) = match &caller.identity {
        Some(identity) => (identity.to_string(), "its ServiceAccount; it has the sidecar"),
        None => {
            ("no identity".to_owned(), "it has no init container `gauze-proxy` with `restartPolicy: Always`")
        }
    };
    steps.push(Reason::new("caller", decided, because).by(&origin));
    Ok(caller)
}

fn unique(mut names: Vec<String>) -> String {
    names.sort();
    names.dedup();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
