//! What a pod without sidecar, and the node, can reach: nothing of a strict workload, by whatever address or port, and of
//! our own ports the metrics and probes alone.

use serde_json::Value;

use crate::harness::cluster::{Cluster, REGISTRY, TAG, demo_app};
use crate::harness::eventually::{eventually, holds};
use crate::harness::programs::repository;

const NAMESPACE: &str = "exposure";
/// Where the app listens too, and nobody says so.
const UNDECLARED: u16 = 9090;

/// An address, a port, a path.
type Door = (String, u16, &'static str);

/// A pod with sidecar, and a Service of both families for it. Its app listens at a declared port and at another.
fn workload(mtls: &str) -> String {
    let container = |name: &str, port: u16, declared: &str| {
        format!(
            "  - name: {name}\n    image: {REGISTRY}/gauze:{TAG}\n    imagePullPolicy: Never\n    \
             args: [demo-app, --service={mtls}, --version=v1, \"--listen=[::]:{port}\", --pod={mtls}]\n{declared}"
        )
    };
    let app = container("app", 8080, "    ports: [{containerPort: 8080}]\n");
    let more = container("more", UNDECLARED, "");
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {mtls}, namespace: {NAMESPACE}}}\nspec:\n  \
         ipFamilyPolicy: RequireDualStack\n  selector: {{app: {mtls}}}\n  ports: [{{name: http, port: 80, targetPort: 8080}}]\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {mtls}\n  namespace: {NAMESPACE}\n  labels: {{app: {mtls}}}\n  \
         annotations: {{gauze.dev/mtls: {mtls}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n{app}{more}"
    )
}

async fn object(cluster: &Cluster, kind: &str, name: &str) -> Value {
    let arguments = ["get", kind, name, "--namespace", NAMESPACE, "--output=json"];
    serde_json::from_str(&cluster.kubectl(&arguments).await.expect("it is there")).expect("JSON")
}

fn texts(list: &Value, field: &str) -> Vec<String> {
    let of = |item: &Value| item.get(field).unwrap_or(item).as_str().expect("a text").to_owned();
    list.as_array().expect("a list").iter().map(of).collect()
}

/// By Service, by pod address and by the port that nobody declared, IPv4 and IPv6.
async fn ways_to_the_app(cluster: &Cluster, name: &str) -> Vec<Door> {
    let service = texts(&object(cluster, "service", name).await["spec"]["clusterIPs"], "ip");
    let pod = addresses(&object(cluster, "pod", name).await);
    let by_service = service.into_iter().map(|address| (address, 80, "/"));
    let by_pod =
        pod.iter().flat_map(|address| [(address.clone(), 8080, "/"), (address.clone(), UNDECLARED, "/")]);
    by_service.chain(by_pod).collect()
}

fn addresses(pod: &Value) -> Vec<String> {
    let addresses = texts(&pod["status"]["podIPs"], "ip");
    assert_eq!(addresses.len(), 2, "IPv4 and IPv6: {addresses:?}");
    addresses
}

/// Somebody outside the mesh.
#[derive(Clone, Debug)]
enum Stranger {
    Node,
    /// In this network namespace of the node.
    Pod(String),
}

impl Stranger {
    async fn knocks(&self, cluster: &Cluster, doors: &[Door]) -> Vec<String> {
        let script = repository().join("tests/cluster/knock.py").display().to_string();
        let mut command: Vec<String> = match self {
            Stranger::Node => Vec::new(),
            Stranger::Pod(namespace) => ["ip", "netns", "exec", namespace].map(ToOwned::to_owned).to_vec(),
        };
        command.extend(["python3".to_owned(), script]);
        for (address, port, path) in doors {
            command.extend([address.clone(), port.to_string(), (*path).to_owned()]);
        }
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let said = cluster.run(&command).await.expect("the script runs");
        serde_json::from_str(&said).expect("a list of texts")
    }
}

/// The workloads `strict` and `permissive`, and strangers to both.
async fn strangers(cluster: &Cluster) -> Vec<Stranger> {
    let namespace = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}, labels: {{gauze.dev/inject: enabled}}}}\n"
    );
    let stranger = demo_app(NAMESPACE, "stranger", &[]).replacen(
        "labels: {",
        "labels: {gauze.dev/inject: disabled, ",
        1,
    );
    cluster.apply(&(namespace + &workload("strict") + &workload("permissive") + &stranger)).await;
    cluster.pods_ready(NAMESPACE).await;
    vec![Stranger::Node, Stranger::Pod(cluster.network_of(NAMESPACE, "stranger").await)]
}

#[tokio::test]
async fn a_stranger_reaches_nothing_of_a_strict_workload_and_of_our_ports_metrics_and_probes_alone() {
    let Some(cluster) = Cluster::with_mesh().await else { return };
    let Cluster::Own(_) = cluster else { return };
    for stranger in strangers(cluster).await {
        the_app_is_reached_where_permissive_and_not_where_strict(cluster, &stranger).await;
        a_sidecar_tells_metrics_and_health(cluster, &stranger).await;
        the_control_plane_tells_metrics_and_health(cluster, &stranger).await;
    }
}

async fn the_app_is_reached_where_permissive_and_not_where_strict(cluster: &Cluster, stranger: &Stranger) {
    let open = ways_to_the_app(cluster, "permissive").await;
    assert_eq!(open.len(), 6, "{open:?}");
    eventually(&format!("{stranger:?} is let in where permissive"), async || {
        let answers = stranger.knocks(cluster, &open).await;
        holds(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200 ")), answers)
    })
    .await;
    let closed = ways_to_the_app(cluster, "strict").await;
    for (door, answer) in closed.iter().zip(stranger.knocks(cluster, &closed).await) {
        println!("{stranger:?} {door:?}: {}", answer.lines().next().unwrap_or_default());
        let denied = !answer.contains(" 200 ") && !answer.contains("\"pod\"");
        assert!(denied, "{stranger:?} {door:?}: {answer}");
    }
}

/// Doors of one host, each with whether it is open.
async fn are_open(
    cluster: &Cluster,
    stranger: &Stranger,
    addresses: &[String],
    doors: &[(u16, &'static str, bool)],
) {
    for address in addresses {
        let knocked: Vec<Door> =
            doors.iter().map(|(port, path, _)| (address.clone(), *port, *path)).collect();
        let answers = stranger.knocks(cluster, &knocked).await;
        for ((port, path, open), answer) in doors.iter().zip(answers) {
            let answered = answer.starts_with("HTTP/1.1 200 ");
            assert_eq!(answered, *open, "{stranger:?} [{address}]:{port}{path}: {answer}");
        }
    }
}

async fn a_sidecar_tells_metrics_and_health(cluster: &Cluster, stranger: &Stranger) {
    for pod in ["strict", "permissive"] {
        let addresses = addresses(&object(cluster, "pod", pod).await);
        let doors = [
            (15020, "/metrics", true),
            (15020, "/live", true),
            (15020, "/ready", true),
            (15020, "/config_dump", false),
            (15020, "/clusters", false),
            (15020, "/certs", false),
            (15020, "/logging?level=trace", false),
            (15020, "/quitquitquit", false),
            (15020, "/probe/app/live", false),
            (15020, "/", false),
            (15000, "/ready", false),
            (15000, "/config_dump", false),
            (15001, "/", false),
            (15002, "/", false),
            (15006, "/", false),
        ];
        are_open(cluster, stranger, &addresses, &doors).await;
    }
}

async fn the_control_plane_tells_metrics_and_health(cluster: &Cluster, stranger: &Stranger) {
    let arguments = ["get", "pods", "--namespace=gauze-system", "--output=json"];
    let pods: Value =
        serde_json::from_str(&cluster.kubectl(&arguments).await.expect("it is installed")).expect("JSON");
    for pod in pods["items"].as_array().expect("a list") {
        let doors = [
            (15014, "/metrics", true),
            (15014, "/live", true),
            (15014, "/objects", false),
            (15014, "/about", false),
            (15014, "/logging?level=trace", false),
            (15012, "/metrics", false),
            (15017, "/metrics", false),
            (15000, "/ready", false),
        ];
        are_open(cluster, stranger, &addresses(pod), &doors).await;
    }
}
