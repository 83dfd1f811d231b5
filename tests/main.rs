//! Black-box tests of gauze: real processes, real sockets, no product internals. The modules are the promises;
//! `docs/promises.md` maps each promise to its test.

mod harness;

mod apiserver; // Kubernetes without kubelet: objects, admission, tokens
mod authorization; // who may do what
mod bad_input; // what nobody should send
mod bad_objects; // what cannot be said of our kinds
mod bench; // gauze beside its peers: that it can be measured
mod cli; // what `gauze` answers
mod clients; // programs that others wrote, on both sides of the sidecars
mod cluster; // a whole cluster with really injected pods
mod configuration; // how it reaches a proxy, and what it never disturbs
mod cost; // what a request costs
mod demo; // a new user's first minute
mod detection; // what kind of bytes a connection carries
mod docs; // every command of the pages runs
mod ending; // how a sidecar ends
mod http; // requests between two sidecars
mod limits; // what a cluster's limits do, and what an endpoint that fails costs
mod mtls; // who may speak to whom, and that nobody else can listen
mod netns; // pods as network namespaces, with real redirect rules
mod packaging; // images and chart say the same everywhere
mod promises; // docs/promises.md names tests that exist
mod protocols; // every edge of HTTP through two sidecars
mod resilience; // what a misbehaving upstream costs, and what it does not
mod retrying; // the same request, sent again
mod routing; // HTTPRoute, GRPCRoute, TrafficPolicy
mod splits_page; // the examples of docs/splits.md
mod splitting; // traffic moves by weight
mod tls_routes; // TLSRoute
