//! Against a whole cluster, whose kubelet starts real containers. `cargo test -p gauze-tests -- cluster::` runs these
//! alone; tests/README.md says what they need.

mod authorization; // who may call an injected pod
mod cli; // `gauze` asks the installed mesh
mod conformance; // what upstream asks of a mesh with the Gateway API
mod delivery; // tools that deliver step by step
mod exposure; // what a stranger reaches
mod injection; // what kubelet makes of injected pods
mod install; // a user's day, from helm install to helm uninstall
mod nothing_lost; // apps that come and go under mixed load
mod outage; // a minute without control plane
mod probes; // what kubelet learns of a dead app
mod smoke; // the cluster can do what the rest relies on
mod traffic; // what is on the wire, who is let in, and where a split sends
