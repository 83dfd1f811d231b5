//! Pods as network namespaces with real redirect rules, programmed by `gauze-proxy redirect`: what only a kernel can
//! prove. `cargo test -p gauze-tests -- netns::` runs these alone; they need root.

mod image;
mod node;
mod probes;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::harness::eventually::{eventually, holds};
use crate::harness::mesh::NAMESPACE;
use crate::harness::objects;
use crate::harness::process::Process;
use node::{APP_USER, Node, PROXY_USER, Place};

/// Where apps listen; the next port only on the loopback, the one after greets first.
const PORT: u16 = 8080;
const SERVICE_V4: &str = "10.96.0.10";
const SERVICE_V6: &str = "fd00:96::10";

/// `web` and `cart` with sidecars, `plain` without, on one node; `cart` is a Service of both families.
struct Pods {
    node: Node,
    control_plane: Option<Process>,
    sidecars: Vec<Process>,
    _apps: Vec<Process>,
    cart: [IpAddr; 2],
    control_plane_address: String,
}

/// What differs from a pod without wishes.
#[derive(Clone, Copy, Default)]
struct Wishes<'a> {
    /// Arguments of the redirect step of every pod.
    redirect: &'a [&'a str],
    /// Further arguments of the sidecar of `cart`.
    cart: &'a [String],
}

impl Pods {
    async fn start() -> Option<Pods> {
        Pods::start_with(Wishes::default()).await
    }

    async fn start_with(wishes: Wishes<'_>) -> Option<Pods> {
        let node = Node::start().await?;
        let web = node.pod("web", 11);
        let cart = node.pod("cart", 12);
        node.pod("plain", 13);
        let mut pods = Pods {
            node,
            control_plane: None,
            sidecars: Vec::new(),
            _apps: Vec::new(),
            cart,
            control_plane_address: "10.99.0.1:15010".to_owned(),
        };
        fs::create_dir(pods.directory()).expect("a new folder");
        pods.apply("namespace.yaml", &objects::namespace(NAMESPACE, &["web", "cart"]));
        pods.apply("web.yaml", &pod("web", web, "permissive"));
        pods.set_mtls("permissive");
        pods.apply("cart.yaml", &service(cart));
        pods.start_control_plane().await;
        for (name, addresses) in [("web", web), ("cart", cart)] {
            pods.redirect(name, wishes.redirect);
            let further = if name == "cart" { wishes.cart } else { &[] };
            let sidecar = pods.sidecar(name, addresses, further).await;
            pods.sidecars.push(sidecar);
        }
        for name in ["cart", "plain"] {
            let arguments = [&PORT.to_string(), name];
            let app = pods.node.script(Place::Pod(name), APP_USER, "app", &arguments).await;
            pods._apps.push(app);
        }
        for name in ["web", "cart"] {
            pods.ready(name).await;
        }
        Some(pods)
    }

    fn directory(&self) -> PathBuf {
        self.node.folder().join("objects")
    }

    fn apply(&self, file: &str, yaml: &str) {
        fs::write(self.directory().join(file), yaml).expect("the folder is ours");
    }

    /// Whether `cart` lets in plaintext; the sidecar hears of it a moment later.
    fn set_mtls(&self, mtls: &str) {
        self.apply("cart-pod.yaml", &pod("cart", self.cart, mtls));
    }

    /// The same, and the sidecar has heard of it.
    async fn with_mtls(&self, mtls: &str) {
        self.set_mtls(mtls);
        eventually(&format!("cart is {mtls}"), async || {
            let answer = self.get("plain", &self.cart[0].to_string(), "/mtls");
            holds(answer.contains("x-app: cart") == (mtls == "permissive"), answer)
        })
        .await;
    }

    async fn start_control_plane(&mut self) {
        let program = crate::harness::programs::program("gauze-control-plane");
        let mut command = self.node.command(Place::Node, 0, program);
        command.arg("--directory").arg(self.directory());
        command.args(["--listen", &self.control_plane_address, "--metrics-listen", "127.0.0.1:0"]);
        self.control_plane = Some(Process::spawn("gauze-control-plane", command).await);
    }

    fn redirect(&self, pod: &str, arguments: &[&str]) {
        let arguments = [&["redirect"], arguments].concat();
        self.node.run(Place::Pod(pod), 0, self.node.proxy(), &arguments);
    }

    /// As kubelet does: what the sidecar mounts is a copy that its user may read.
    async fn mount(&self, name: &str, mounted: &Path) {
        let token = self.directory().join(format!(".gauze/tokens/{NAMESPACE}.{name}"));
        eventually("the pod's token", async || holds(token.exists(), "no file")).await;
        fs::create_dir_all(mounted).expect("a new folder");
        std::os::unix::fs::chown(mounted, Some(PROXY_USER), None).expect("root may");
        for (source, file) in [(token, "token"), (self.directory().join(".gauze/trust.pem"), "trust.pem")] {
            fs::copy(source, mounted.join(file)).expect("the source is there");
            std::os::unix::fs::chown(mounted.join(file), Some(PROXY_USER), None).expect("root may");
        }
    }

    async fn sidecar(&self, name: &str, addresses: [IpAddr; 2], further: &[String]) -> Process {
        let mounted = self.node.folder().join(name);
        self.mount(name, &mounted).await;
        let mut command = self.node.command(Place::Pod(name), PROXY_USER, self.node.proxy());
        command.args(["--mode", "transparent", "--control-plane", &self.control_plane_address]);
        command.args(["--namespace", NAMESPACE, "--pod", name, "--service-account", name, "--app", name]);
        command.args(["--pod-ip", &addresses.map(|address| address.to_string()).join(",")]);
        command.args(["--mesh-networks", "10.0.0.0/8,fd00::/16"]);
        for (flag, file) in
            [("--token", "token"), ("--trust-roots", "trust.pem"), ("--admin-socket", "admin.sock")]
        {
            command.arg(flag).arg(mounted.join(file));
        }
        command.args(further);
        Process::spawn(name, command).await
    }

    async fn ready(&self, pod: &str) {
        eventually(&format!("{pod} is ready"), async || {
            let answer = self.client(pod, PROXY_USER, &["get", "127.0.0.1", "15020", "/ready"]);
            holds(answer.contains(" 200 "), answer)
        })
        .await;
    }

    /// What a client in this pod gets.
    fn client(&self, pod: &str, user: u32, arguments: &[&str]) -> String {
        self.node.call(Place::Pod(pod), user, "client", arguments)
    }

    fn get(&self, pod: &str, address: &str, path: &str) -> String {
        self.client(pod, APP_USER, &["get", address, &PORT.to_string(), path])
    }
}

fn pod(name: &str, [v4, v6]: [IpAddr; 2], mtls: &str) -> String {
    let pod = objects::Pod {
        namespace: NAMESPACE,
        name,
        app: name,
        version: "v1",
        account: name,
        address: SocketAddr::new(v4, PORT),
        meshed: true,
        annotations: &[("gauze.dev/mtls", mtls)],
    };
    pod.yaml()
        .replace(&format!("podIPs: [{{ip: {v4}}}]"), &format!("podIPs: [{{ip: {v4}}}, {{ip: \"{v6}\"}}]"))
}

/// Service `cart` with three ports in both families: HTTP, and two that nothing declares.
fn service([v4, v6]: [IpAddr; 2]) -> String {
    let ports = format!(
        "[{{name: http, port: {PORT}, protocol: TCP}}, {{name: any, port: {}, protocol: TCP}}]",
        PORT + 2
    );
    let slice = |family: &str, address: IpAddr| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: cart-{lower}\n  namespace: {NAMESPACE}\n  \
             labels: {{kubernetes.io/service-name: cart}}\naddressType: {family}\nports: {ports}\nendpoints:\n\
             - addresses: [\"{address}\"]\n  conditions: {{ready: true}}\n  targetRef: {{kind: Pod, name: cart, namespace: {NAMESPACE}}}\n",
            lower = family.to_lowercase(),
        )
    };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: {NAMESPACE}}}\nspec:\n  clusterIP: {SERVICE_V4}\n  \
         clusterIPs: [{SERVICE_V4}, \"{SERVICE_V6}\"]\n  ipFamilies: [IPv4, IPv6]\n  selector: {{app: cart}}\n  ports: {ports}\n{}{}",
        slice("IPv4", v4),
        slice("IPv6", v6),
    )
}

#[tokio::test]
async fn a_request_between_two_pods_is_never_seen_in_clear_on_the_wire() {
    let Some(pods) = Pods::start().await else { return };
    let report = pods.node.folder().join("frames");
    let arguments =
        [report.to_str().expect("a plain path"), "/secret-marker", "/open-marker", "/last-marker"];
    let _wire = pods.node.script(Place::Node, 0, "wire", &arguments).await;
    let [v4, v6] = pods.cart.map(|address| address.to_string());
    for address in [SERVICE_V4, SERVICE_V6, &v4, &v6] {
        let answer = pods.get("web", address, "/secret-marker");
        assert!(
            answer.contains("x-app: cart") && answer.ends_with("cart /secret-marker"),
            "{address}: {answer}"
        );
    }
    // The wire is really watched: what a pod outside the mesh sends is seen.
    assert!(pods.get("plain", &v4, "/open-marker").contains("x-app: cart"));
    assert!(pods.get("plain", &v6, "/last-marker").contains("x-app: cart"));
    let seen = eventually("the last frames were looked at", async || {
        let text = fs::read_to_string(&report).unwrap_or_default();
        let seen: Vec<u64> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
        if seen.get(3).is_some_and(|last| *last > 0) { Ok(seen) } else { Err(text) }
    })
    .await;
    println!("{} frames, markers in {:?}", seen[0], &seen[1..]);
    assert_eq!(seen[1], 0, "frames with the marker in clear");
    assert!(seen[2] > 0, "the plaintext of an unmeshed pod is seen");
}

#[tokio::test]
async fn no_port_of_the_sidecar_and_no_loopback_port_of_the_app_is_reached_from_another_pod() {
    let Some(pods) = Pods::start().await else { return };
    for mtls in ["permissive", "strict"] {
        pods.with_mtls(mtls).await;
        for address in pods.cart.map(|address| address.to_string()) {
            for port in [15000, 15001, 15006, PORT + 1] {
                for from in ["plain", "web"] {
                    let answer = pods.client(from, APP_USER, &["bytes", &address, &port.to_string()]);
                    let refused = answer == "closed" || answer.contains("gauze-error: M");
                    assert!(refused, "{mtls}: {from} got `{answer}` from {address}:{port}");
                }
            }
            for (page, status) in [
                ("/metrics", 200),
                ("/ready", 200),
                ("/live", 200),
                ("/config_dump", 404),
                ("/quitquitquit", 403),
            ] {
                let answer = pods.client("plain", APP_USER, &["get", &address, "15020", page]);
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status} ")),
                    "{mtls}: {page} at {address}: {answer}"
                );
            }
        }
    }
    pods.with_mtls("permissive").await; // it still serves
}

#[tokio::test]
async fn a_strict_pod_gives_no_byte_of_its_app_to_a_pod_without_a_sidecar() {
    let Some(pods) = Pods::start().await else { return };
    pods.with_mtls("strict").await;
    for address in pods.cart.map(|address| address.to_string()) {
        // The declared port, the one that nothing declares and whose server speaks first, one that nobody listens on.
        for port in [PORT, PORT + 2, PORT + 9].map(|port| port.to_string()) {
            for verb in ["bytes", "listen"] {
                let answer = pods.client("plain", APP_USER, &[verb, &address, &port]);
                let refused = answer == "closed" || answer.contains("gauze-error: M");
                assert!(refused, "{verb} of {address}:{port} got `{answer}`");
            }
        }
        let answer = pods.get("web", &address, "/meshed");
        assert!(answer.contains("x-app: cart"), "a meshed pod is let in at {address}: {answer}");
    }
}

#[tokio::test]
async fn an_endpoint_sees_the_apps_port_only_through_rules_that_skip_it_or_not() {
    let redirect = ["--skip-inbound-ports", "8082", "--skip-outbound-ports", "8082-8083"];
    let Some(pods) = Pods::start_with(Wishes { redirect: &redirect, ..Wishes::default() }).await else {
        return;
    };
    let cart = pods.cart[0].to_string();
    let greeting = pods.client("web", APP_USER, &["listen", &cart, "8082"]);
    assert_eq!(greeting, "greetings from cart|", "a skipped port passes both sidecars by");
    let exempt = pods.client("web", PROXY_USER, &["get", &cart, &PORT.to_string(), "/exempt"]);
    assert!(
        exempt.contains("x-app: cart"),
        "the proxy's user is not redirected, and permissive lets it in: {exempt}"
    );
    let page = pods.client("web", PROXY_USER, &["get", "127.0.0.1", "15020", "/metrics"]);
    let carried =
        page.split('|').filter(|line| line.starts_with("gauze_requests_total{direction=\"outbound\""));
    assert_eq!(carried.count(), 0, "neither went through the sidecar of web");
}

#[tokio::test]
async fn a_silent_start_a_greeting_server_and_a_later_request_are_all_carried_transparently() {
    let Some(pods) = Pods::start().await else { return };
    let undeclared = (PORT + 2).to_string();
    for address in [SERVICE_V4, SERVICE_V6] {
        let greeting = pods.client("web", APP_USER, &["listen", address, &undeclared]);
        assert_eq!(greeting, "greetings from cart|", "{address}: without a byte from the client");
        let late = pods.client("web", APP_USER, &["late", address, &PORT.to_string(), "/late"]);
        assert!(late.ends_with("cart /late"), "{address}: {late}");
    }
}

#[tokio::test]
async fn a_public_address_passes_with_the_control_plane_down() {
    let Some(mut pods) = Pods::start().await else { return };
    pods.node.run(Place::Node, 0, "ip", &["addr", "add", "203.0.113.7/32", "dev", "lo"]);
    let _public = pods.node.script(Place::Node, 0, "app", &[&PORT.to_string(), "public"]).await;
    pods.control_plane = None;
    let answer = pods.get("web", "203.0.113.7", "/out");
    assert!(answer.contains("x-app: public"), "{answer}");
    let unknown = pods.get("web", "10.96.0.99", "/never-asked");
    assert!(unknown.contains("gauze-error: M"), "an address of the mesh is refused: {unknown}");
}

#[tokio::test]
async fn a_sidecar_whose_rules_do_not_hold_is_not_ready_and_says_why() {
    let Some(pods) = Pods::start().await else { return };
    let bare = pods.node.pod("bare", 14);
    pods.apply(
        "bare.yaml",
        &(objects::namespace(NAMESPACE, &["bare"]) + "---\n" + &pod("bare", bare, "permissive")),
    );
    let sidecar = pods.sidecar("bare", bare, &[]).await;
    sidecar.logs("redirect").await;
    let answer = pods.client("bare", PROXY_USER, &["get", "127.0.0.1", "15020", "/ready"]);
    assert!(answer.contains(" 503 ") && answer.contains("redirect"), "{answer}");
    pods.redirect("bare", &[]);
    pods.redirect("bare", &[]); // programming twice is programming once
    pods.ready("bare").await;
}
