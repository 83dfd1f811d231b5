//! What becomes of the control plane is no news for requests: an upgrade, a leader that is killed, one of two replicas
//! that nobody can reach for a minute. Meanwhile pods come and go, so that there is something to be heard.

use std::time::{Duration, Instant};

use crate::harness::cluster::Cluster;
use crate::harness::eventually::{holds, within};
use crate::harness::ledgers::{Account, Ledgers, Manners, crosses_the_end, now};
use crate::harness::objects;

const SYSTEM: &str = "--namespace=gauze-system";
/// How long one of two replicas is cut off.
const PARTITION: Duration = Duration::from_secs(60);
/// For what has no bound of its own, on a busy machine.
const SOON: Duration = Duration::from_secs(120);

/// Finds the process of a pod's control plane on the node, and does something with it.
const PROCESS: &str = r#"for process in /proc/[0-9]*; do
  [ "$(cat $process/comm 2>/dev/null)" = gauze-control-p ] || continue
  tr '\0' '\n' <$process/environ | grep -qx "HOSTNAME=$1" || continue
  pid=${process#/proc/}
  inside() { nsenter --net=$process/ns/net "$@"; }
  "#;
/// No packet in, none out, but on the loopback and for kubelet, which is no part of the network between nodes.
const CUT: &str = r#"kubelet=$(inside ip -4 route | sed -n 's/^default via \([0-9.]*\).*/\1/p')
  for tables in iptables ip6tables; do
    inside $tables -w -I INPUT ! -i lo -j DROP
    inside $tables -w -I OUTPUT ! -o lo -j DROP
  done
  inside iptables -w -I INPUT -s $kubelet -j ACCEPT
  inside iptables -w -I OUTPUT -d $kubelet -j ACCEPT
  exit; done; exit 1"#;
const MEND: &str = "for tables in iptables ip6tables; do inside $tables -w -F; done; exit; done; exit 1";
const KILL: &str = "kill -KILL $pid; exit; done; exit 1";

/// A mesh with two control planes, and a shop under load.
struct Mesh<'c> {
    cluster: &'c Cluster,
    shop: Ledgers<'c>,
    /// What was done, from when to when.
    acts: Vec<(&'static str, u64, u64)>,
}

#[tokio::test]
async fn an_upgrade_a_killed_leader_and_a_minute_without_one_of_two_control_planes_lose_nothing() {
    let Some(cluster) = Cluster::start().await else { return };
    cluster.load_test_pods().await;
    cluster.install(&["profile=ha"]).await;
    let shop = Ledgers::open(&cluster, "shop", 2, Manners::Finishes).await;
    cluster.apply(&objects::split("shop", "cart", "cart", &[("cart", 1)])).await;
    let mut mesh = Mesh { cluster: &cluster, shop, acts: Vec::new() };
    mesh.shop.call("caller").await;
    mesh.act("helm upgrade", async |mesh| mesh.cluster.install(&["profile=ha", "logLevel=debug"]).await)
        .await;
    mesh.act("the leader is killed", async |mesh| {
        let leader = mesh.leader().await;
        mesh.on_the_node(&leader, KILL).await;
        mesh.roll().await;
        mesh.all_ready().await;
    })
    .await;
    mesh.act("one of two control planes is cut off", async |mesh| mesh.is_partitioned().await).await;
    mesh.statuses_are_true().await;
    mesh.shop.answers_more(50).await;
    mesh.shop.hang_up("caller").await;
    mesh.judge().await;
}

impl Mesh<'_> {
    async fn act(&mut self, name: &'static str, act: impl AsyncFnOnce(&Mesh<'_>)) {
        let begin = now();
        act(self).await;
        self.shop.answers_more(50).await;
        self.acts.push((name, begin, now()));
    }

    /// The one that leads, for whoever takes its place has most to do.
    async fn is_partitioned(&self) {
        let leader = self.leader().await;
        self.on_the_node(&leader, CUT).await;
        let began = Instant::now();
        let another = within(SOON, "another one leads", async || {
            let now = self.leader().await;
            if now == leader { Err(now) } else { Ok(now) }
        })
        .await;
        println!("{another} leads instead of {leader}");
        // No new pod: the API server may go on asking the lost one for a sidecar, until its connection breaks.
        self.shop.kubectl(&["scale", "deployment/cart", "--replicas=1"]).await;
        self.shop.rolled_out().await;
        let change = r#"--patch=[{"op": "replace", "path": "/spec/backends/0/weight", "value": 2}]"#;
        self.shop.kubectl(&["patch", "trafficsplit", "cart", "--type=json", change]).await;
        tokio::time::sleep(PARTITION.saturating_sub(began.elapsed())).await; // the partition itself
        self.on_the_node(&leader, MEND).await;
        self.shop.kubectl(&["scale", "deployment/cart", "--replicas=2"]).await;
        self.shop.rolled_out().await;
        self.all_ready().await;
    }

    /// The pod that leads; one that an upgrade has ended may hold the Lease for a while.
    async fn leader(&self) -> String {
        let holder = "--output=jsonpath={.spec.holderIdentity}";
        let ending = "--output=jsonpath={.metadata.deletionTimestamp}";
        within(SOON, "a replica that lives leads", async || {
            let leader =
                self.cluster.kubectl(&["get", "lease", "gauze-control-plane", SYSTEM, holder]).await?;
            let ending = self.cluster.kubectl(&["get", "pod", &leader, SYSTEM, ending]).await?;
            holds(ending.is_empty(), ending).map(|()| leader)
        })
        .await
    }

    async fn on_the_node(&self, pod: &str, act: &str) {
        let script = format!("{PROCESS}{act}");
        let done = self.cluster.run(&["sh", "-c", &script, "sh", pod]).await;
        done.unwrap_or_else(|error| panic!("{pod}: {error}"));
    }

    async fn roll(&self) {
        self.shop.kubectl(&["rollout", "restart", "deployment/cart"]).await;
        self.shop.rolled_out().await;
    }

    async fn all_ready(&self) {
        let path = "--output=jsonpath={.status.readyReplicas}";
        within(SOON, "both control planes are ready", async || {
            let ready =
                self.cluster.kubectl(&["get", "deployment", "gauze-control-plane", SYSTEM, path]).await;
            holds(ready.as_deref() == Ok("2"), ready)
        })
        .await;
    }

    /// The split, as it was changed meanwhile, is live in every proxy, and its status says so.
    async fn statuses_are_true(&self) {
        let path = r#"--output=jsonpath={.status.conditions[?(@.type=="Programmed")].status} of {.metadata.generation}: {.status.conditions[*].observedGeneration}"#;
        let ask = ["get", "trafficsplit", "cart", "--namespace=shop", path];
        within(SOON, "the status of the split is true", async || {
            let said = self.cluster.kubectl(&ask).await;
            holds(said.as_deref() == Ok("True of 2: 2 2 2"), said)
        })
        .await;
    }

    /// Judges each act by itself, and then the whole load.
    async fn judge(&self) {
        let (records, came) = (self.shop.records().await, self.shop.came().await);
        for (name, from, to) in &self.acts {
            let its = records.iter().filter(|record| (*from..*to).contains(&record.sent));
            println!("{name}, {} s: {}", (to - from) / 1000, Account::of(its, &came, crosses_the_end));
        }
        Account::of(&records, &came, crosses_the_end).assert_nothing_lost("the whole load");
    }
}
