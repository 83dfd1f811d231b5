//! What a misbehaving upstream costs its callers, and what it does not.

mod faults; // each fault by name: what the caller is told, and what reached the app
mod kills; // apps that are killed under load
mod retries; // what is sent again, to whom, and what is not

use std::net::SocketAddr;

use http::HeaderValue;
use http_body_util::BodyExt;

use crate::harness::client::{Client, Protocol, request, with_body};
use crate::harness::mesh::{Mesh, Sidecar, SidecarOptions, free_address};

/// A meshed pod, named like its app, in front of an app that somebody else runs.
async fn pod(mesh: &Mesh, name: &str, app: SocketAddr) -> Sidecar {
    pod_at(mesh, free_address(), name, app).await
}

/// The same at this address: the same pod once more, if it was there before.
async fn pod_at(mesh: &Mesh, address: SocketAddr, name: &str, app: SocketAddr) -> Sidecar {
    let inbound = format!("--inbound={address}={app}");
    mesh.pod_at(address, name, name, SidecarOptions { arguments: &[&inbound], ..Default::default() }).await
}

/// Posts so many bytes, and says what the caller is told: `200`, `503 M3012`, `grpc 14 M3012`; `broken off` where the
/// body did not end well, `broken` where there was no answer. `seen` is called when the head of the answer is there.
async fn ask(protocol: Protocol, dial: SocketAddr, body: usize, id: &str, seen: impl FnOnce()) -> String {
    let asked = with_body(request(protocol, "cart", "/", id), vec![b'b'; body]);
    let begun = async { Client::connect(protocol, dial).await?.begin(asked).await };
    let Ok(response) = begun.await else { return "broken".to_owned() };
    let (head, body) = response.into_parts();
    seen();
    let body = body.collect().await;
    let text = |value: Option<&HeaderValue>| value.and_then(|value| value.to_str().ok().map(str::to_owned));
    let status = match (&body, protocol) {
        (Ok(body), Protocol::Grpc) => {
            let trailers = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
            let status = text(head.headers.get("grpc-status").or(trailers));
            format!("grpc {}", status.unwrap_or("without status".to_owned()))
        }
        _ => head.status.as_u16().to_string(),
    };
    let end = if body.is_err() { " broken off" } else { "" };
    let leaked = if head.headers.contains_key("gauze-not-delivered") { " leaked" } else { "" };
    let code = text(head.headers.get("gauze-error")).unwrap_or_default();
    format!("{status}{end}{leaked} {code}").trim().to_owned()
}
