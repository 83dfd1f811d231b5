//! A user's day: `helm install`, a shop that knows nothing of the mesh, a split, an upgrade under load, and goodbye.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;

use crate::harness::cluster::{Cluster, REGISTRY, TAG};
use crate::harness::eventually::{eventually, holds};
use crate::harness::programs::repository;

const SYSTEM: &str = "gauze-system";
const DEPLOYMENTS: [&str; 5] = ["cart-v1", "cart-v2", "load", "payments", "web"];

/// Requests per second: what a debug build carries on a machine that does other things too.
const RATE: &str = "25";

#[tokio::test]
async fn a_shop_joins_the_mesh_is_split_lives_through_an_upgrade_and_outlives_the_mesh() {
    let Some(cluster) = Cluster::start().await else { return };
    let shop = Shop { cluster: &cluster };
    shop.install().await;
    shop.open().await;
    every_pod_is_injected_and_every_call_is_mutual_tls(&shop).await;
    a_split_moves_the_traffic(&shop).await;
    the_mesh_says_that_all_is_well(&shop).await;
    an_upgrade_loses_no_request(&shop).await;
    pods_that_come_and_go_lose_no_request(&shop).await;
    what_is_uninstalled_leaves_the_apps_running(&shop).await;
}

/// The shop of docs/shop.yaml in a cluster.
struct Shop<'a> {
    cluster: &'a Cluster,
}

/// What the load's ledger and those of the apps say about one run, after its last answer.
#[derive(Debug, PartialEq)]
struct Count {
    sent: u64,
    answered: u64,
    failed: u64,
    reasons: Value,
    /// What each service received: web, cart, payments.
    received: [u64; 3],
    doubled: u64,
}

impl Shop<'_> {
    async fn kubectl(&self, arguments: &[&str]) -> String {
        let done = self.cluster.kubectl(arguments).await;
        done.unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    async fn helm(&self, arguments: &[&str]) -> String {
        let all = [arguments, &["--namespace", SYSTEM]].concat();
        self.cluster.helm(&all).await.unwrap_or_else(|error| panic!("helm {arguments:?}: {error}"))
    }

    /// `install` or `upgrade` from the images under test, and waits as a user would.
    async fn apply_chart(&self, command: &str, values: &[&str]) {
        let registry = format!("image.registry={REGISTRY}");
        let tag = format!("image.tag={TAG}");
        let chart = repository().join("charts/gauze").display().to_string();
        let own = [registry.as_str(), tag.as_str(), "image.pullPolicy=Never"];
        let values = own.iter().chain(values).flat_map(|value| ["--set", value]);
        let arguments = [command, "gauze", &chart, "--wait", "--timeout", "120s", "--create-namespace"];
        let arguments: Vec<&str> = match command {
            "install" => arguments.into_iter().chain(values).collect(),
            _ => arguments[..6].iter().copied().chain(values).collect(),
        };
        let begin = Instant::now();
        self.helm(&arguments).await;
        println!("helm {command} --wait: {:?}", begin.elapsed());
    }

    async fn install(&self) {
        self.apply_chart("install", &[]).await;
    }

    /// Applies the shop and waits until all of it is ready.
    async fn open(&self) {
        let yaml = std::fs::read_to_string(repository().join("docs/shop.yaml")).expect("it is there");
        let image = format!("image: {REGISTRY}/gauze:{TAG}");
        let begin = Instant::now();
        self.cluster.apply(&yaml.replace("image: gauze:0.1.0", &image)).await;
        for deployment in DEPLOYMENTS {
            let rollout = format!("deployment/{deployment}");
            self.kubectl(&["rollout", "status", &rollout, "--namespace", "shop", "--timeout=120s"]).await;
        }
        println!("from kubectl apply to a ready shop: {:?}", begin.elapsed());
    }

    /// Applies docs/split.yaml with these weights.
    async fn split(&self, v1: u32, v2: u32) {
        let yaml = std::fs::read_to_string(repository().join("docs/split.yaml")).expect("it is there");
        let yaml = yaml.replace("weight: 10\n", &format!("weight: {v2}\n"));
        self.cluster.apply(&yaml.replace("weight: 90\n", &format!("weight: {v1}\n"))).await;
    }

    /// Asks the app or load of a deployment for its ledger, after an order.
    async fn ledger(&self, deployment: &str, order: &[&str]) -> Value {
        let target = format!("deployment/{deployment}");
        let ask = ["exec", &target, "--namespace", "shop", "--", "/gauze", "demo-ledger"];
        let said = self.kubectl(&[&ask, order].concat()).await;
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{deployment}: {said}"))
    }

    /// Requests of this run from now on, at this rate.
    async fn begin(&self, run: &str, rate: &str) {
        self.ledger("load", &["--run", run, "--rate", rate]).await;
    }

    /// Waits until the run has so many answers.
    async fn answers(&self, run: &str, wanted: u64) {
        eventually(&format!("{wanted} answers of the run {run}"), async || {
            let ledger = self.ledger("load", &[]).await;
            holds(number(&ledger[run]["answered"]) >= wanted, ledger)
        })
        .await;
    }

    /// Ends the load's run and counts what became of its requests.
    async fn end(&self, run: &str) -> Count {
        self.ledger("load", &["--rate", "0"]).await;
        let ledger = eventually(&format!("the last answer of the run {run}"), async || {
            let ledger = self.ledger("load", &[]).await;
            holds(ledger[run]["open"] == 0, ledger.clone()).map(|()| ledger)
        })
        .await;
        let (mut received, mut doubled) = ([0; 3], 0);
        for (service, deployment) in [(0, "web"), (1, "cart-v1"), (1, "cart-v2"), (2, "payments")] {
            let ledger = self.ledger(deployment, &[]).await;
            received[service] += requests(&ledger, run);
            doubled += number(&ledger["duplicates"]);
        }
        let load = &ledger[run];
        Count {
            sent: number(&load["sent"]),
            answered: number(&load["answered"]),
            failed: number(&load["failed"]),
            reasons: load["reasons"].clone(),
            received,
            doubled,
        }
    }

    /// Runs until `meanwhile` is done.
    async fn run_while(&self, run: &str, meanwhile: impl AsyncFnOnce()) -> Count {
        self.begin(run, RATE).await;
        self.answers(run, 50).await;
        meanwhile().await;
        let so_far = number(&self.ledger("load", &[]).await[run]["answered"]);
        self.answers(run, so_far + 50).await;
        let count = self.end(run).await;
        println!("{run}: {count:?}");
        count
    }

    /// Runs until `meanwhile` is done, and asserts that no request was lost and none came twice.
    async fn loses_nothing(&self, run: &str, meanwhile: impl AsyncFnOnce()) {
        let count = self.run_while(run, meanwhile).await;
        let sent = count.sent;
        let perfect = Count {
            sent,
            answered: sent,
            failed: 0,
            reasons: serde_json::json!({}),
            received: [sent; 3],
            doubled: 0,
        };
        assert_eq!(count, perfect, "{run}");
    }
}

/// A rolling restart of every app, then more pods of one and fewer again. The ledgers of pods that went are gone with
/// them, so it is the callers' word that counts.
async fn pods_that_come_and_go_lose_no_request(shop: &Shop<'_>) {
    let rolled_out = async |name: &str| {
        let target = format!("deployment/{name}");
        shop.kubectl(&["rollout", "status", &target, "--namespace", "shop", "--timeout=120s"]).await;
    };
    let count = shop
        .run_while("rollout", async || {
            for name in ["payments", "cart-v1", "cart-v2", "web"] {
                shop.kubectl(&["rollout", "restart", &format!("deployment/{name}"), "--namespace", "shop"])
                    .await;
                rolled_out(name).await;
            }
            for replicas in ["--replicas=3", "--replicas=1"] {
                shop.kubectl(&["scale", "deployment/cart-v1", "--namespace", "shop", replicas]).await;
                rolled_out("cart-v1").await;
            }
            eventually("the pods that went are gone", async || {
                let names = shop.kubectl(&["get", "pods", "--namespace", "shop", "--output=name"]).await;
                holds(names.lines().count() == DEPLOYMENTS.len(), names)
            })
            .await;
        })
        .await;
    assert_eq!((count.failed, count.answered), (0, count.sent), "{count:?}");
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// How many requests of a run an app received.
fn requests(ledger: &Value, run: &str) -> u64 {
    let lines = ledger["received"].as_array().expect("a ledger").iter();
    lines.filter(|line| line["run"] == run).map(|line| number(&line["requests"])).sum()
}

async fn every_pod_is_injected_and_every_call_is_mutual_tls(shop: &Shop<'_>) {
    let pods: Value = serde_json::from_str(&shop.kubectl(&["get", "pods", "-n", "shop", "-o", "json"]).await)
        .expect("JSON");
    for pod in pods["items"].as_array().expect("pods") {
        let name = &pod["metadata"]["name"];
        let steps = pod["spec"]["initContainers"].as_array().expect("the webhook was here");
        let names: Vec<&str> = steps.iter().filter_map(|step| step["name"].as_str()).collect();
        assert_eq!(names, ["gauze-redirect", "gauze-proxy"], "{name}");
        assert_eq!(pod["status"]["initContainerStatuses"][1]["ready"], true, "{name}");
        assert_eq!(pod["status"]["containerStatuses"][0]["ready"], true, "{name}");
    }
    shop.answers("load", 100).await;
    let expected: BTreeSet<(&str, String, String)> = [
        ("load", "outbound", "web"),
        ("web", "inbound", "load"),
        ("web", "outbound", "cart"),
        ("cart-v1", "inbound", "web"),
        ("cart-v1", "outbound", "payments"),
        ("cart-v2", "inbound", "web"),
        ("cart-v2", "outbound", "payments"),
        ("payments", "inbound", "cart"),
    ]
    .map(|(pod, direction, peer)| {
        (pod, direction.to_owned(), format!("mutual with spiffe://cluster.local/ns/shop/sa/{peer}"))
    })
    .into();
    eventually("every call is mutual TLS with both identities", async || {
        let mut seen = BTreeSet::new();
        for deployment in DEPLOYMENTS {
            seen.extend(edges(shop, deployment).await.into_iter().map(|(way, peer)| (deployment, way, peer)));
        }
        holds(seen == expected, seen)
    })
    .await;
}

/// With whom this pod exchanged requests, and how: direction, and TLS with the peer's identity.
async fn edges(shop: &Shop<'_>, deployment: &str) -> BTreeSet<(String, String)> {
    let target = format!("deployment/{deployment}");
    let ask = ["exec", &target, "-n", "shop", "-c", "gauze-proxy", "--", "/gauze-proxy", "ask", "/metrics"];
    let page = shop.kubectl(&ask).await;
    // What was refused while the shop was still opening reached nobody.
    let requests =
        page.lines().filter(|line| line.starts_with("gauze_requests_total{") && line.contains("error=\"\""));
    let text = |line: &str, label: &str| {
        let begin = line.split_once(&format!("{label}=\"")).expect("a label of every series").1;
        begin.split('"').next().unwrap_or_default().to_owned()
    };
    requests
        .map(|line| {
            (text(line, "direction"), format!("{} with {}", text(line, "tls"), text(line, "peer_identity")))
        })
        .collect()
}

async fn a_split_moves_the_traffic(shop: &Shop<'_>) {
    for (v1, v2, shares) in [(90, 10, 2..=22), (0, 100, 100..=100), (100, 0, 0..=0)] {
        shop.split(v1, v2).await;
        let mut attempt = 0;
        eventually(&format!("{v2} % of the requests go to v2"), async || {
            attempt += 1;
            let run = format!("split-{v2}-{attempt}");
            shop.begin(&run, RATE).await;
            shop.answers(&run, 150).await;
            let count = shop.end(&run).await;
            assert_eq!((count.failed, count.doubled), (0, 0), "{run}: {count:?}");
            let share = requests(&shop.ledger("cart-v2", &[]).await, &run) * 100 / count.sent;
            holds(shares.contains(&share), format!("{share} %"))
        })
        .await;
    }
    shop.split(50, 50).await;
}

async fn the_mesh_says_that_all_is_well(shop: &Shop<'_>) {
    let said = shop.helm(&["test", "gauze", "--logs", "--timeout", "60s"]).await;
    println!("{said}");
    assert!(said.contains("Phase:          Succeeded"), "{said}");
}

async fn an_upgrade_loses_no_request(shop: &Shop<'_>) {
    shop.loses_nothing("upgrade", async || {
        shop.apply_chart("upgrade", &["logLevel=debug"]).await;
        shop.apply_chart("upgrade", &["profile=ha"]).await;
    })
    .await;
    let ready =
        ["get", "deployment", "gauze-control-plane", "-n", SYSTEM, "-o", "jsonpath={.status.readyReplicas}"];
    assert_eq!(shop.kubectl(&ready).await, "2");
}

async fn what_is_uninstalled_leaves_the_apps_running(shop: &Shop<'_>) {
    shop.loses_nothing("uninstall", async || {
        let begin = Instant::now();
        shop.helm(&["uninstall", "gauze", "--wait", "--timeout", "120s"]).await;
        println!("helm uninstall --wait: {:?}", begin.elapsed());
    })
    .await;
    let restarts = r"jsonpath={.items[*].status.containerStatuses[*].restartCount} {.items[*].status.initContainerStatuses[*].restartCount}";
    let restarts = shop.kubectl(&["get", "pods", "-n", "shop", "-o", restarts]).await;
    assert!(restarts.split_whitespace().all(|count| count == "0"), "{restarts}");
    eventually("nothing of ours but the definitions", async || {
        let left = leftovers(shop).await;
        holds(left.is_empty(), left)
    })
    .await;
    // New pods start, outside the mesh.
    shop.kubectl(&["scale", "deployment/web", "-n", "shop", "--replicas=2"]).await;
    shop.kubectl(&["rollout", "status", "deployment/web", "-n", "shop", "--timeout=60s"]).await;
}

/// What has our name in the whole cluster, without the definitions of our kinds and the empty namespace.
async fn leftovers(shop: &Shop<'_>) -> Vec<String> {
    let kinds = shop.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).await;
    let kinds: Vec<&str> = kinds
        .lines()
        .filter(|kind| !kind.starts_with("events") && !kind.starts_with("componentstatuses"))
        .collect();
    let line = r#"jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{"\n"}{end}"#;
    let all = shop.kubectl(&["get", &kinds.join(","), "--all-namespaces", "-o", line]).await;
    let expected = [
        "CustomResourceDefinition /authorizationpolicies.gauze.dev",
        "CustomResourceDefinition /trafficpolicies.gauze.dev",
        "APIService /v1alpha1.gauze.dev",
        "Namespace /gauze-system",
        "ServiceAccount gauze-system/default",
        "ConfigMap gauze-system/kube-root-ca.crt",
    ];
    all.lines()
        .filter(|line| line.contains("gauze") && !expected.contains(line))
        .map(ToOwned::to_owned)
        .collect()
}
