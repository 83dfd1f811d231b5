//! A namespace in the mesh with a steady load on one Service, apps behind it that count what they receive, and a tool
//! that acts there with the rights of its role.

use serde_json::Value;

use crate::harness::cluster::{Cluster, demo_app};
use crate::harness::eventually::{eventually, holds};
use crate::harness::objects;
use crate::harness::programs::repository;

/// How many requests may be outstanding: a machine that does not keep up gets fewer, and the others on it are not starved.
const AT_ONCE: u32 = 4;
/// How far the share of a fair draw may be off by chance: as often as once in 150,000 draws.
const SIGMAS: f64 = 4.5;

pub(super) struct Stage {
    pub cluster: &'static Cluster,
    pub namespace: String,
    /// The Service that the load calls.
    target: String,
    runs: std::cell::Cell<u32>,
}

/// An app behind the Service: its pod's name and labels.
pub(super) struct App {
    pub pod: &'static str,
    pub labels: &'static str,
}

/// What became of the requests of one run so far.
#[derive(Debug)]
pub(super) struct Count {
    pub answered: u64,
    /// Which pods answered.
    pods: Value,
    failed: u64,
    reasons: Value,
}

impl Stage {
    /// Starts the apps, injected. The load will call port 80 of Service `target`, which need not exist yet.
    pub(super) async fn set(cluster: &'static Cluster, namespace: &str, target: &str, apps: &[App]) -> Stage {
        let injected = objects::namespace(namespace, &["tool"]).replacen(
            "metadata: {",
            "metadata: {labels: {gauze.dev/inject: enabled}, ",
            1,
        );
        cluster.apply(&injected).await;
        let apps = apps.iter().map(|app| {
            let labels = format!("labels: {{{}}}", app.labels);
            demo_app(namespace, app.pod, &[]).replacen(&format!("labels: {{app: {}}}", app.pod), &labels, 1)
        });
        cluster.apply(&apps.collect::<String>()).await;
        cluster.pods_ready(namespace).await;
        let (namespace, target) = (namespace.to_owned(), target.to_owned());
        Stage { cluster, namespace, target, runs: std::cell::Cell::default() }
    }

    /// Applies what the user writes.
    pub(super) async fn apply(&self, yaml: &str) {
        self.cluster.apply(yaml).await;
    }

    /// An object as the user sees it; its `kind` may name a version: `trafficsplits.v1alpha4.split.smi-spec.io`.
    pub(super) async fn object(&self, kind: &str, name: &str) -> Result<Value, String> {
        let said = self.cluster.kubectl(&["get", kind, name, "-n", &self.namespace, "-o", "json"]).await?;
        serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))
    }

    /// Sends so many requests per second from now on, until the stage ends.
    pub(super) async fn begin_load(&self, rate: u32) {
        let address = self.address_of(&self.target).await;
        self.apply(&load(&self.namespace, &self.target, &address, rate)).await;
        self.cluster.pods_ready(&self.namespace).await;
    }

    async fn address_of(&self, service: &str) -> String {
        let service = self.object("service", service).await.expect("it is there");
        service["spec"]["clusterIP"].as_str().expect("an address").to_owned()
    }

    /// What becomes of so many requests sent from now on.
    pub(super) async fn count(&self, requests: u64) -> Count {
        let number = self.runs.get() + 1;
        self.runs.set(number);
        let run = format!("run-{number}");
        let ledger = self.order(&["--run", &run, "--requests", &requests.to_string()]).await;
        let account = &ledger[run];
        Count {
            answered: number_in(account, "answered"),
            pods: account["pods"].clone(),
            failed: number_in(account, "failed"),
            reasons: account["reasons"].clone(),
        }
    }

    /// Ends the load, and asserts that of all that it ever sent nothing failed and nothing came twice.
    pub(super) async fn assert_nothing_lost(&self) {
        self.order(&["--rate", "0"]).await;
        let ledger = eventually("the last answers", async || {
            let ledger = self.ledger("load").await?;
            let runs = ledger.as_object().expect("a ledger").values();
            let open: u64 = runs.map(|run| number_in(run, "open")).sum();
            holds(open == 0, open.to_string()).map(|()| ledger)
        })
        .await;
        let runs = ledger.as_object().expect("a ledger");
        let sum = |field: &str| runs.values().map(|run| number_in(run, field)).sum::<u64>();
        let mut doubled = 0;
        for pod in self.apps().await {
            let ledger = self.ledger(&pod).await.unwrap_or_else(|error| panic!("{pod}: {error}"));
            doubled += number_in(&ledger, "duplicates");
        }
        println!("{}: {} requests, {} failed, {doubled} twice", self.namespace, sum("sent"), sum("failed"));
        assert_eq!((sum("failed"), doubled), (0, 0), "{ledger}");
    }

    /// Takes it down.
    pub(super) async fn strike(&self) {
        self.cluster.leave(&self.namespace).await;
    }

    /// What becomes of so many requests to port 80 of this Service with these headers (`NAME=VALUE`), sent by a
    /// process beside the load.
    pub(super) async fn ask(&self, service: &str, requests: u32, headers: &[&str]) -> Vec<Answer> {
        let network = self.cluster.network_of(&self.namespace, "load").await;
        let address = self.address_of(service).await;
        let script = repository().join("tests/cluster/delivery/ask.py").display().to_string();
        let requests = requests.to_string();
        let ask = ["ip", "netns", "exec", &network, "python3", &script, &address, "80", service, &requests];
        let said = self.cluster.run(&[&ask, headers].concat()).await.expect("the script runs");
        let answers: Vec<Value> = serde_json::from_str(&said).expect("a list");
        answers.iter().map(Answer::read).collect()
    }

    /// The pods of the namespace but the load.
    async fn apps(&self) -> Vec<String> {
        let names = ["get", "pods", "-n", &self.namespace, "-o", "jsonpath={.items[*].metadata.name}"];
        let names = self.cluster.kubectl(&names).await.expect("pods can be listed");
        names.split_whitespace().filter(|name| *name != "load").map(ToOwned::to_owned).collect()
    }

    async fn ledger(&self, pod: &str) -> Result<Value, String> {
        let said = self.cluster.get(&self.namespace, pod, 8080, "/ledger").await?;
        serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))
    }

    /// Orders the load, and returns its ledger.
    async fn order(&self, order: &[&str]) -> Value {
        let exec = ["exec", "load", "-c", "app", "-n", &self.namespace, "--", "/gauze", "demo-ledger"];
        let said = self.cluster.kubectl(&[&exec, order].concat()).await;
        let said = said.unwrap_or_else(|error| panic!("{order:?}: {error}"));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

/// What one request was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u64,
    /// The pod that answered; empty if none did.
    pub pod: String,
    pub set_cookie: Vec<String>,
}

impl Count {
    /// Asserts that none failed, and that so many of a hundred came to this pod, within what chance allows.
    pub(super) fn expect(&self, step: &str, pod: &str, percent: f64) {
        assert_eq!(self.failed, 0, "{step}: {}", self.reasons);
        let share = self.share(pod);
        let allowed = SIGMAS * (percent * (100.0 - percent) / self.answered as f64).sqrt();
        println!("{step}: {share:.1} % of {} at {pod}, expected {percent} ± {allowed:.1}", self.answered);
        assert!((share - percent).abs() <= allowed, "{step}: expected {percent} ± {allowed:.1} %: {self:?}");
    }

    /// The percentage that came to this pod.
    pub(super) fn share(&self, pod: &str) -> f64 {
        number_in(&self.pods, pod) as f64 * 100.0 / self.answered as f64
    }
}

impl Answer {
    fn read(answer: &Value) -> Answer {
        let cookies = answer[1]["set-cookie"].as_array().into_iter().flatten();
        Answer {
            status: answer[0].as_u64().unwrap_or_default(),
            pod: answer[2]["pod"].as_str().unwrap_or_default().to_owned(),
            set_cookie: cookies.filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
        }
    }
}

fn number_in(object: &Value, field: &str) -> u64 {
    object[field].as_u64().unwrap_or_default()
}

/// A Pod that sends HTTP/1.1, HTTP/2 and gRPC to a Service, whose address it need not look up: the cluster's DNS is not
/// what is measured here.
fn load(namespace: &str, target: &str, address: &str, rate: u32) -> String {
    let app = demo_app(namespace, "load", &[]);
    let (before, after) = app.split_once("    args: ").expect("it has arguments");
    let after = after.split_once('\n').expect("in a line").1;
    let known = format!("spec:\n  hostAliases: [{{ip: {address}, hostnames: [{target}]}}]\n");
    let arguments = format!(
        "    args: [demo-load, \"--target={target}:80\", --rate={rate}, --at-once={AT_ONCE}, \"--listen=[::]:8080\"]\n"
    );
    before.replacen("spec:\n", &known, 1) + &arguments + after
}

/// A Service on port 80 for the pods with these labels.
pub(super) fn service(namespace: &str, name: &str, selector: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
         selector: {{{selector}}}\n  ports: [{{name: http, port: 80, targetPort: 8080}}]\n"
    )
}
