//! Progressive delivery by tools that know nothing of gauze: what Flagger and Argo Rollouts write and read, step by step,
//! sent by kubectl as ServiceAccounts that may do what those tools' own roles allow and nothing else. Each step must be
//! live and move the traffic, and no request may fail meanwhile.
//!
//! Each step names the function that it mirrors. The sources: fluxcd/flagger 1.44.0 (`pkg/router`), argoproj/argo-rollouts
//! 1.9.1 (`rollout`), argoproj-labs/rollouts-plugin-trafficrouter-gatewayapi 0.15.0 (`pkg/plugin`). What is not tested here: the
//! tools' own programs, and their analysis, which is a query to Prometheus.

mod argo; // Argo Rollouts' writes
mod flagger; // Flagger's writes
mod live; // whether a change is live, by its status
mod moving; // from apply to traffic
mod page; // the YAML of docs/progressive-delivery.md
mod roles; // what the tools may do
mod stage; // a namespace with load, and apps that count
mod tool; // kubectl in place of a tool's client
