//! Only web may call cart: somebody outside the mesh is refused, with a code that says why.

use std::time::Duration;

use gauze_model::Code;
use serde_json::json;

use super::stage::{Seen, Stage};
use super::written::Written;
use crate::admin::Endpoint;
use crate::demo::call::Protocol;
use crate::demo::client::{Call, Client};
use crate::demo::load::CALLER;
use crate::demo::{edges, wait};

pub(super) const PROMISE: &str =
    "only web may call cart: the client outside the mesh gets 403 and is told why, none else notices";

pub(super) const FILE: &str = "cart-authorization.yaml";
const POLICY: &str = "\
# Written by `gauze demo --story`.
apiVersion: gauze.dev/v1alpha1
kind: AuthorizationPolicy
metadata:
  name: cart
  namespace: shop
spec:
  targetRefs:
    - {group: '', kind: Service, name: cart}
  action: Allow
  rules:
    - from:
        - identities: [spiffe://cluster.local/ns/shop/sa/web]
";
const LIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// What a client in each protocol is told before the code.
const TOLD: [&str; 3] = ["403", "403", "gRPC status 7"];
const REQUESTS: u64 = 500;

/// Adds the policy, calls cart from outside the mesh, and goes on loading the shop meanwhile.
pub(super) async fn step(stage: &mut Stage<'_>) -> anyhow::Result<Seen> {
    let run = stage.begin("denied");
    let _policy = Written::new(stage.mesh.directory.join(FILE), POLICY)?;
    let cart = &stage.mesh.pod("cart", "v1")?.card;
    let (client, admin) = (Client::new(cart.address, "cart"), Endpoint::Tcp(cart.admin));
    // Asked of the sidecar, not found out by a call: one that came too early would be let in.
    let live = wait::until("the policy to be live at cart", LIVE_TIMEOUT, async || {
        let held = admin.get("/config_dump").await.map_err(|error| format!("{error:#}"))?;
        if held.contains("AuthorizationPolicy") {
            Ok(())
        } else {
            Err("its sidecar does not hold it".to_owned())
        }
    });
    live.await?;
    let mut refusals = Vec::new();
    for protocol in Protocol::ALL {
        refusals.push(refusal(&client, protocol).await.map_err(anyhow::Error::msg)?);
    }
    stage.sent(&run, REQUESTS).await?;
    stage.settle(&run).await?;
    stage.mesh.read().await?;
    let readings: Vec<_> = stage.mesh.readings().collect();
    let outside = edges::outside(&readings, &stage.load.tallies());
    let denied: u64 = outside.iter().filter(|edge| edge.to == "cart").map(|edge| edge.denied).sum();
    let explained: Vec<String> = refusals.iter().filter_map(|refusal| explained(refusal)).collect();
    let told = refusals.iter().zip(TOLD).filter(|(refusal, told)| refusal.starts_with(told)).count();
    Ok(Seen {
        ok: told == TOLD.len() && explained.len() == TOLD.len() && denied >= TOLD.len() as u64,
        wanted: json!({ "refused": TOLD, "explained": TOLD.len(), "outside_denied_at_least": TOLD.len(), "failed": 0 }),
        seen: json!({ "refused": refusals, "explained": explained.first(), "outside_denied": denied, "failed": stage.failed() }),
    })
}

/// What one call from outside the mesh is told.
async fn refusal(client: &Client, protocol: Protocol) -> Result<String, String> {
    let call = Call { protocol, caller: CALLER.to_owned(), run: String::new(), id: String::new() };
    match client.call(&call).await {
        Ok(answer) => Err(format!("{} {} answered", answer.service, answer.version)),
        Err(error) => Ok(error.to_string()),
    }
}

/// What `gauze docs` says of the code in a refusal.
fn explained(refusal: &str) -> Option<String> {
    let word = refusal.split([' ', ':']).find(|word| word.starts_with("M40"))?;
    let entry = word.parse::<Code>().ok()?.entry()?;
    Some(format!("{word}: {}", entry.title))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_the_docs_explain_is_found_in_what_a_client_was_told() {
        let title = "M4001: Plaintext is refused here";
        assert_eq!(explained("403 M4001: Plaintext is refused here").as_deref(), Some(title));
        assert_eq!(explained("gRPC status 7 M4001: Plaintext is refused here").as_deref(), Some(title));
        assert_eq!(explained("403 by the app go away"), None);
        assert_eq!(explained("403 M4099: nobody wrote it down"), None);
    }
}
