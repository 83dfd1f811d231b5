//! From apply to traffic: 90/10 becomes 50/50, whichever way the user says so.

use std::time::{Duration, Instant};

use super::stage::{App, Stage, service};
use crate::harness::cluster::Cluster;
use crate::harness::eventually::{eventually, holds};
use crate::harness::objects;

/// The bound: what is sent later than this after apply is shared out anew.
const LIVE_AFTER: Duration = Duration::from_secs(2);
/// The tolerance in points. Of 3,000 requests the share is off by as much once in 85,000 draws.
const TOLERANCE: f64 = 4.0;
const REQUESTS: u64 = 3000;
/// Requests per second.
const RATE: u32 = 120;

/// How a user shares out the traffic of a Service.
#[derive(Clone, Copy, Debug)]
enum Way {
    SplitV1alpha1,
    SplitV1alpha4,
    HttpRoute,
}

impl Way {
    fn yaml(self, namespace: &str, v1: u32, v2: u32) -> String {
        match self {
            Way::SplitV1alpha1 => format!(
                "apiVersion: split.smi-spec.io/v1alpha1\nkind: TrafficSplit\nmetadata: {{name: cart, namespace: {namespace}}}\nspec:\n  \
                 service: cart\n  backends: [{{service: cart-v1, weight: '{v1}'}}, {{service: cart-v2, weight: '{v2}'}}]\n"
            ),
            Way::SplitV1alpha4 => {
                objects::split(namespace, "cart", "cart", &[("cart-v1", v1), ("cart-v2", v2)])
            }
            Way::HttpRoute => format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: cart, namespace: {namespace}}}\n\
                 spec:\n  parentRefs: [{{group: '', kind: Service, name: cart}}]\n  rules:\n  - backendRefs:\n    \
                 - {{name: cart-v1, port: 80, weight: {v1}}}\n    - {{name: cart-v2, port: 80, weight: {v2}}}\n"
            ),
        }
    }
}

#[tokio::test]
async fn of_the_requests_sent_from_two_seconds_after_apply_on_half_reach_v2_and_none_fails() {
    let Some(cluster) = Cluster::with_gateway_api().await else { return };
    tokio::join!(
        move_half(cluster, Way::SplitV1alpha1, "moving-v1alpha1"),
        move_half(cluster, Way::SplitV1alpha4, "moving-v1alpha4"),
        move_half(cluster, Way::HttpRoute, "moving-route"),
    );
}

async fn move_half(cluster: &'static Cluster, way: Way, namespace: &str) {
    let apps = [
        App { pod: "v1", labels: "app: cart, version: v1" },
        App { pod: "v2", labels: "app: cart, version: v2" },
    ];
    let stage = Stage::set(cluster, namespace, "cart", &apps).await;
    let services = service(namespace, "cart", "app: cart")
        + &service(namespace, "cart-v1", "app: cart, version: v1")
        + &service(namespace, "cart-v2", "app: cart, version: v2");
    stage.apply(&services).await;
    stage.apply(&way.yaml(namespace, 90, 10)).await;
    stage.begin_load(RATE).await;
    eventually(&format!("{way:?}: 90/10 is live"), async || {
        let share = stage.count(200).await.share("v2");
        holds((2.0..20.0).contains(&share), share)
    })
    .await;

    stage.apply(&way.yaml(namespace, 50, 50)).await;
    let applied = Instant::now();
    tokio::time::sleep(LIVE_AFTER).await; // the bound itself
    let count = stage.count(REQUESTS).await;
    let share = count.share("v2");
    println!(
        "{way:?}: {share:.1} % of {} requests reach v2, all sent later than {LIVE_AFTER:?} after apply and until {:?}",
        count.answered,
        applied.elapsed()
    );
    assert!((share - 50.0).abs() <= TOLERANCE, "{way:?}: {count:?}");
    stage.assert_nothing_lost().await;
    stage.strike().await;
}
