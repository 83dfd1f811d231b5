//! Injection: whether a pod gets our sidecar, by which rule, and what the pod looks like then. Pure functions of
//! values; the webhook (`cluster::webhook`) and `gauze inject` call the same ones. Nothing here talks to a cluster.

pub mod decide; // which rule decides, and how
pub mod finding; // what is said to the user
mod pod; // the pod with our sidecar
mod pre_stop; // what gives callers time to go elsewhere
mod probes; // what the sidecar asks in kubelet's place
pub mod quantity; // amounts of CPU and memory
pub mod settings; // what the operator sets
mod sidecar; // what is put into a pod
pub mod wishes; // the annotations of the pod
mod word; // what nobody can guess

use k8s_openapi::api::core::v1::Container;

pub use decide::{Action, Asked, Decision, Rule, decide};
pub use finding::Finding;
pub use pod::inject;
pub use settings::{InjectionSettings, Injector};
pub use wishes::Wishes;
pub use word::random_word;

/// What comes before the name of each of our labels and annotations.
pub const PREFIX: &str = "gauze.dev/";
/// The label or annotation that asks: `enabled` or `disabled`.
pub const INJECT: &str = "gauze.dev/inject";
/// The annotation of an injected pod: `<rule>: <sentence>, by gauze X.Y.Z`.
pub const INJECTED: &str = "gauze.dev/injected";
/// Our sidecar, an init container with `restartPolicy: Always`.
pub const SIDECAR: &str = "gauze-proxy";
/// Our init step, which programs the redirect.
pub const REDIRECT: &str = "gauze-redirect";
/// Outbound, inbound, admin, and the sidecar's metrics and probes.
pub const OWN_PORTS: [u16; 4] = [15000, 15001, 15006, PROBE_PORT];
/// Where the sidecar answers probes and hooks; never redirected.
pub const PROBE_PORT: u16 = 15020;
/// The user and group that the sidecar runs as; the redirect leaves its connections alone.
pub const PROXY_USER: i64 = 1337;
/// The projected token and roots; the admin socket.
pub const VOLUMES: [&str; 2] = ["gauze-identity", "gauze-admin"];

/// Whether gauze put this init container there: by what it does, not by its name alone.
pub fn is_ours(container: &Container) -> bool {
    let arguments = || container.args.iter().flatten();
    match container.name.as_str() {
        REDIRECT => arguments().next().is_some_and(|first| first == "redirect"),
        SIDECAR => {
            container.restart_policy.as_deref() == Some("Always")
                && arguments().any(|argument| argument.starts_with("--control-plane="))
        }
        _ => false,
    }
}
