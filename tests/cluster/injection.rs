//! Injected pods that a real kubelet starts: what runs before the app, beside it and after it.

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use crate::harness::cluster::{Cluster, REGISTRY, TAG, demo_app};
use crate::harness::eventually::{holds, within};

/// Two images' start, on a machine that is busy.
const READY: Duration = Duration::from_secs(120);
/// How long a sidecar may take to end after the app, and how much later than a plain one a Job may be complete: what
/// kubelet and the Job controller take themselves is no part of it. Kubernetes writes whole seconds.
const ENDING: f64 = 5.0;
const ROUNDING: f64 = 1.0;

/// A namespace that asks, and in it `db`, which only the mesh may call; returns its Service's address.
async fn strict_database(cluster: &Cluster, namespace: &str) -> String {
    let injected = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{gauze.dev/inject: enabled}}}}\n"
    );
    let service = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: {namespace}}}\nspec:\n  \
         selector: {{app: db}}\n  ports: [{{name: http, port: 80, targetPort: 8080}}]\n"
    );
    let strict = "\n  annotations: {gauze.dev/mtls: strict}\nspec:";
    let app = demo_app(namespace, "db", &[]).replacen("\nspec:", strict, 1);
    cluster.apply(&(injected + &service + &app)).await;
    cluster.pods_ready(namespace).await;
    let address = ["get", "service", "db", "--namespace", namespace, "--output=jsonpath={.spec.clusterIP}"];
    cluster.kubectl(&address).await.expect("the Service has one")
}

/// A container that asks the database once, and ends with success if it was answered.
fn asks(name: &str, database: &str) -> String {
    format!(
        "{{name: {name}, image: \"{REGISTRY}/gauze:{TAG}\", imagePullPolicy: Never, args: [demo-ledger, \"--at={database}:80\"]}}"
    )
}

async fn object(cluster: &Cluster, arguments: &[&str]) -> Value {
    let all = [&["get", "--output=json"], arguments].concat();
    let said = cluster.kubectl(&all).await.unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    serde_json::from_str(&said).expect("JSON")
}

/// Seconds since 1970, as Kubernetes writes times: `2026-01-02T03:04:05Z`. Only differences matter.
async fn seconds(cluster: &Cluster, time: &Value) -> f64 {
    let time = time.as_str().unwrap_or_else(|| panic!("{time} is no time"));
    let said = cluster.run(&["date", "--utc", "--date", time, "+%s"]).await.expect("date reads it");
    said.trim().parse().expect("a number")
}

/// A Job of one container that ends, with these fields beside it in the spec of its pods.
fn job(namespace: &str, name: &str, labels: &str, beside: &str, app: &str) -> String {
    format!(
        "---\napiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
         backoffLimit: 0\n  template:\n    metadata: {{labels: {{{labels}}}}}\n    spec:\n      restartPolicy: Never\n      \
         {beside}\n      containers: [{app}]\n"
    )
}

/// How a Job ended: seconds from the end of its app.
#[derive(Debug)]
struct Ending {
    /// To the end of its sidecar, if it had one.
    sidecar: Option<f64>,
    /// To the Job's completion, as its controller heard of it.
    completion: f64,
}

/// Waits for the success of a Job, and says how it ended.
async fn ending(cluster: &Cluster, namespace: &str, name: &str) -> Ending {
    let done = within(READY, &format!("Job {name} has ended"), async || {
        let job = object(cluster, &["job", name, "--namespace", namespace]).await;
        let ended = job["status"]["succeeded"] == 1 || job["status"]["failed"] == 1;
        holds(ended, job["status"].clone()).map(|()| job)
    })
    .await;
    let selector = format!("--selector=job-name={name}");
    let pods = object(cluster, &["pods", "--namespace", namespace, &selector]).await;
    let status = &pods["items"][0]["status"];
    assert_eq!(done["status"]["succeeded"], 1, "{name}: {status}");
    let finished = |container: &Value| container["state"]["terminated"]["finishedAt"].clone();
    let ended = seconds(cluster, &finished(&status["containerStatuses"][0])).await;
    let mut inits = status["initContainerStatuses"].as_array().into_iter().flatten();
    let sidecar = match inits.find(|container| container["name"] == "gauze-proxy") {
        Some(container) => Some(seconds(cluster, &finished(container)).await - ended),
        None => None,
    };
    Ending { sidecar, completion: seconds(cluster, &done["status"]["completionTime"]).await - ended }
}

#[tokio::test]
async fn a_job_has_the_mesh_from_its_first_init_container_on_and_completes_when_its_app_does() {
    let Some(cluster) = Cluster::with_mesh().await else { return };
    let namespace = "injection-job";
    let database = strict_database(cluster, namespace).await;
    let (first, app) = (asks("first", &database), asks("app", &database));
    let meshed = job(namespace, "meshed", "", &format!("initContainers: [{first}]"), &app);
    // What a Job takes without us.
    let version = format!(
        "{{name: app, image: \"{REGISTRY}/gauze:{TAG}\", imagePullPolicy: Never, args: [version, --client]}}"
    );
    let plain = job(namespace, "plain", "gauze.dev/inject: disabled", "", &version);
    cluster.apply(&(meshed + &plain)).await;
    let (meshed, plain) =
        tokio::join!(ending(cluster, namespace, "meshed"), ending(cluster, namespace, "plain"));
    println!("seconds after its app: {meshed:?}; without a sidecar: {plain:?}");
    assert!(plain.sidecar.is_none(), "{plain:?}");
    let sidecar = meshed.sidecar.expect("it was injected");
    assert!(sidecar <= ENDING, "{meshed:?}");
    assert!(meshed.completion - plain.completion <= ENDING + 2.0 * ROUNDING, "{meshed:?} {plain:?}");
    cluster.leave(namespace).await;
}

#[tokio::test]
async fn pods_of_every_kind_become_ready_in_the_mesh() {
    let Some(cluster) = Cluster::with_mesh().await else { return };
    let namespace = "injection-kinds";
    let database = strict_database(cluster, namespace).await;
    // An init container of each asks the database, which answers the mesh alone.
    let asks = asks("asks", &database);
    let goes_on = asks.replace("name: asks", "name: goes-on, restartPolicy: Always").replace(
        &format!("demo-ledger, \"--at={database}:80\""),
        "demo-app, --service=goes-on, --version=v1, \"--listen=[::]:9090\", --pod=goes-on",
    );
    let kinds = [
        ("plain", format!("initContainers: [{asks}]")),
        (
            "not-root",
            format!(
                "initContainers: [{asks}]\n  securityContext: {{runAsUser: 1000, runAsNonRoot: true, fsGroup: 1000}}"
            ),
        ),
        ("shared-processes", format!("initContainers: [{asks}]\n  shareProcessNamespace: true")),
        ("restartable-init", format!("initContainers: [{goes_on}, {asks}]")),
        (
            "bounded",
            format!("initContainers: [{asks}]\n  resources: {{limits: {{cpu: 500m, memory: 128Mi}}}}"),
        ),
        ("host-network", "hostNetwork: true".to_owned()),
    ];
    let mut pods = String::new();
    for (index, (name, spec)) in kinds.iter().enumerate() {
        // On the node's network each needs a port of its own.
        let port = format!("{}", 8081 + index);
        let pod = demo_app(namespace, name, &[]).replace("8080", &port);
        write!(pods, "{}", pod.replacen("\nspec:", &format!("\nspec:\n  {spec}"), 1))
            .expect("a string grows");
    }
    cluster.apply(&pods).await;
    cluster.pods_ready(namespace).await;
    for (name, _) in &kinds {
        let pod = object(cluster, &["pod", name, "--namespace", namespace]).await;
        let init = pod["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
        let is_injected = init.get(1).is_some_and(|second| second["name"] == "gauze-proxy");
        assert_eq!(is_injected, *name != "host-network", "{name}: {init:?}");
    }
    cluster.leave(namespace).await;
}
