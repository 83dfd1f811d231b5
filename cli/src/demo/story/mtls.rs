//! Every edge is encrypted, and both sides know who the other is.

use std::time::Duration;

use serde_json::json;

use super::stage::{Seen, Stage};
use crate::demo::edges::{self, Edge};
use crate::demo::wait;

pub(super) const PROMISE: &str = "every call between services travels by mutual TLS, both identities known";

const REQUESTS: u64 = 500;
/// The last requests are counted by the sidecars a moment after they were answered.
const COUNTED_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends some requests, stops, and compares what the apps received with what the sidecars say came by mTLS.
pub(super) async fn step(stage: &mut Stage<'_>) -> anyhow::Result<Seen> {
    let run = stage.begin("look");
    stage.sent(&run, REQUESTS).await?;
    stage.pause().await?;
    let mesh = &mut *stage.mesh;
    let edges = wait::until("the sidecars' counts", COUNTED_TIMEOUT, async || {
        mesh.read().await.map_err(|error| format!("{error:#}"))?;
        let readings: Vec<_> = mesh.readings().collect();
        let edges = edges::edges(&readings);
        if is_complete(&edges) { Ok(edges) } else { Err(describe(&edges)) }
    });
    let edges = edges.await;
    stage.resume();
    let edges = edges?;
    let wrong: Vec<String> = edges.iter().filter_map(|edge| wrong_identity(stage, edge)).collect();
    let requests: u64 = edges.iter().map(|edge| edge.requests).sum();
    let encrypted: u64 = edges.iter().map(|edge| edge.encrypted).sum();
    Ok(Seen {
        ok: wrong.is_empty() && requests > 0,
        wanted: json!({ "encrypted": requests, "wrong_identities": [] }),
        seen: json!({ "encrypted": encrypted, "wrong_identities": wrong }),
    })
}

/// Every request that an app received was counted as mTLS, on every edge of the shop.
fn is_complete(edges: &[Edge]) -> bool {
    let expected = [("web", "cart", "v1"), ("web", "cart", "v2"), ("cart", "payments", "v1")];
    let present = expected.iter().all(|(from, to, version)| {
        edges.iter().any(|edge| edge.key.from == *from && edge.key.to == *to && edge.key.version == *version)
    });
    present && edges.iter().all(|edge| edge.mtls && edge.encrypted == edge.requests)
}

fn describe(edges: &[Edge]) -> String {
    let lines = edges.iter().map(|edge| {
        let key = &edge.key;
        format!(
            "{} → {} {} {}: {} received, {} by mTLS",
            key.from,
            key.to,
            key.version,
            key.protocol.as_str(),
            edge.requests,
            if edge.mtls { edge.encrypted } else { 0 },
        )
    });
    lines.collect::<Vec<_>>().join("; ")
}

/// An edge whose sidecars saw anybody else than the pods' ServiceAccounts.
fn wrong_identity(stage: &Stage<'_>, edge: &Edge) -> Option<String> {
    let expected = |app: &str| {
        let pod = stage.mesh.readings().map(|reading| &reading.pod).find(|pod| pod.app == app)?;
        Some(format!("spiffe://cluster.local/ns/{}/sa/{}", pod.namespace, pod.service_account))
    };
    let right = edge.from_identity == expected(&edge.key.from) && edge.to_identity == expected(&edge.key.to);
    (!right).then(|| format!("{:?} → {:?}", edge.from_identity, edge.to_identity))
}
