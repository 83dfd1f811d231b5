//! Against a real API server with real controllers, but without kubelet: pods are objects. `cargo test -p gauze-tests
//! -- apiserver::` runs these alone; tests/README.md says what they need.

mod chart; // what Helm installs, changes and takes back
mod cli; // what `gauze` finds in a cluster, and says when it may not look
mod conversion; // TrafficSplits of every version, by our webhook
mod identity; // who gets a certificate, and where the root lies
mod injection; // pods that ask for a sidecar
mod kubectl; // what kubectl shows of our kinds
mod rbac; // what the control plane may do, and that it needs all of it
mod smoke; // the server can do what the rest relies on
mod source; // objects come from there, whatever happens to it
mod statuses; // what users read of their objects
