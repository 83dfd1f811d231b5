//! Against a whole cluster, whose kubelet starts real containers. `cargo test -p gauze-tests -- cluster::` runs these
//! alone; tests/README.md says what they need.

mod smoke; // the cluster can do what the rest relies on
