//! A second endpoint of cart v2, whose app answers 503 before it does any work. It is switched on only for the
//! steps that show what becomes of its calls.

use std::collections::BTreeMap;
use std::time::Duration;

use super::stage::Stage;
use super::written::Written;
use crate::demo::mesh::Mesh;
use crate::demo::objects;

/// The pod's name, in its object and everywhere else.
pub(super) const POD: &str = "cart-v2-1";

const POD_FILE: &str = "faulty-v2-pod.yaml";
const POD_OBJECT: &str = include_str!("../../../demo/faulty-v2-pod.yaml");
const ENDPOINT_FILE: &str = "faulty-v2-endpoint.yaml";
const ENDPOINT_OBJECT: &str = include_str!("../../../demo/faulty-v2-endpoint.yaml");
const POLICY_FILE: &str = "cart-policy.yaml";

/// Calls of cart that are answered 503 are tried again; v2 takes its endpoints in turn, and ejects as a step says.
const POLICY: &str = "\
# Written by `gauze demo --story`.
apiVersion: gauze.dev/v1alpha1
kind: TrafficPolicy
metadata:
  name: cart
  namespace: shop
spec:
  targetRefs:
    - {group: '', kind: Service, name: cart}
  retry:
    codes: [503]
---
apiVersion: gauze.dev/v1alpha1
kind: TrafficPolicy
metadata:
  name: cart-v2
  namespace: shop
spec:
  targetRefs:
    - {group: '', kind: Service, name: cart-v2}
  balance: {type: RoundRobin}
  outlierDetection: ";

/// Every file that a story may leave behind when it is killed.
pub(super) const FILES: [&str; 3] = [POD_FILE, ENDPOINT_FILE, POLICY_FILE];

/// How long until every sidecar does as a file says.
const LIVE_AFTER: Duration = Duration::from_secs(1);

/// The failing endpoint while it is there, and the policies that say what becomes of its calls.
pub(super) struct FaultyV2 {
    pod: Written,
    policy: Written,
    endpoint: Written,
}

/// What became of one run's requests at the pods of cart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// Answered 503 by the failing endpoint, no work done.
    pub(super) refused: u64,
    /// Executed by cart, and by payments behind it.
    pub(super) executed: u64,
    pub(super) paid: u64,
    /// Seen more than once by one app, since the beginning.
    pub(super) repeated: u64,
}

impl FaultyV2 {
    /// Starts the pod; once the policies are live, with this `outlierDetection`, it becomes an endpoint of cart v2.
    pub(super) async fn switch_on(stage: &mut Stage<'_>, ejection: &str) -> anyhow::Result<FaultyV2> {
        let base = address_base(stage.mesh)?;
        let directory = stage.mesh.directory.clone();
        let pod = Written::new(directory.join(POD_FILE), &objects::with_addresses(POD_OBJECT, &base))?;
        let policy = Written::new(directory.join(POLICY_FILE), &format!("{POLICY}{ejection}\n"))?;
        stage.mesh.start_pod(POD, &["--unavailable"]).await?;
        stage.pass(LIVE_AFTER).await?;
        let text = objects::with_addresses(ENDPOINT_OBJECT, &base);
        let endpoint = Written::new(directory.join(ENDPOINT_FILE), &text)?;
        stage.pass(LIVE_AFTER).await?;
        Ok(FaultyV2 { pod, policy, endpoint })
    }

    /// Takes the endpoint away, and ends the pod when nobody calls it any more.
    pub(super) async fn switch_off(self, stage: &mut Stage<'_>) -> anyhow::Result<()> {
        let FaultyV2 { pod, policy, endpoint } = self;
        drop(endpoint);
        stage.pass(LIVE_AFTER).await?;
        stage.mesh.stop_pod(POD).await?;
        drop((pod, policy));
        Ok(())
    }
}

/// The first two bytes of the pods' addresses: the user may have moved them.
fn address_base(mesh: &Mesh) -> anyhow::Result<String> {
    let address = mesh.pod("cart", "v2")?.card.address.ip().to_string();
    let mut bytes = address.splitn(3, '.');
    Ok([bytes.next(), bytes.next()].map(Option::unwrap_or_default).join("."))
}

/// Reads from the ledgers what became of `run`.
pub(super) async fn fate(stage: &mut Stage<'_>, run: &str) -> anyhow::Result<Fate> {
    stage.mesh.read().await?;
    let mut executed: BTreeMap<&str, u64> = BTreeMap::new();
    let mut fate = Fate::default();
    for reading in stage.mesh.readings() {
        *executed.entry(&reading.pod.app).or_default() += reading.ledger.requests(run);
        fate.refused += reading.ledger.refused(run);
        fate.repeated += reading.ledger.duplicates;
    }
    let of = |app: &str| executed.get(app).copied().unwrap_or_default();
    Ok(Fate { executed: of("cart"), paid: of("payments"), ..fate })
}
