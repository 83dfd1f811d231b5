//! What a misbehaving upstream costs its callers, and what it does not.

mod faults; // each fault by name: what the caller is told, and what reached the app
mod kills; // apps that are killed under load

use std::net::SocketAddr;

use crate::harness::mesh::{Mesh, Sidecar, SidecarOptions, free_address};

/// A meshed pod, named like its app, in front of an app that somebody else runs.
async fn pod(mesh: &Mesh, name: &str, app: SocketAddr) -> Sidecar {
    let address = free_address();
    let inbound = format!("--inbound={address}={app}");
    mesh.pod_at(address, name, name, SidecarOptions { arguments: &[&inbound], ..Default::default() }).await
}
