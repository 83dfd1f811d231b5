//! The image of the sidecar holds one file. What a container of it does, it does here: the redirect step with no capability but
//! NET_ADMIN, the sidecar with none, both on a read-only root without users, shell or temporary folder, the control plane by name.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{NAMESPACE, PROXY_USER, Place, Pods, objects, pod};
use crate::harness::eventually::{eventually, holds, within};
use crate::harness::process::Process;

const NET_ADMIN: &str = "12";
const NAME: &str = "gauze-control-plane.gauze-system.svc";

/// The bound for a pod that was admitted before the control plane went away.
const READY_AFTER_RETURN: Duration = Duration::from_secs(30);

impl Pods {
    /// A root with our program, and the files that kubelet puts into every container.
    fn image(&self) -> PathBuf {
        let root = self.node.folder().join("image");
        if root.exists() {
            return root;
        }
        fs::create_dir_all(root.join("var/run/gauze/admin")).expect("a new folder");
        fs::create_dir_all(root.join("etc")).expect("a new folder");
        std::os::unix::fs::chown(root.join("var/run/gauze/admin"), Some(PROXY_USER), None).expect("root may");
        fs::copy(self.node.proxy(), root.join("gauze-proxy")).expect("a program");
        let resolver = "nameserver 10.99.0.1\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
        fs::write(root.join("etc/resolv.conf"), resolver).expect("written");
        fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n").expect("written");
        root
    }

    /// The program in a container of this image, in pod `bare`.
    fn container(&self, user: u32, capabilities: &[&str], arguments: &[&str]) -> Command {
        let root = self.image().display().to_string();
        let script = self.node.install("container").display().to_string();
        let mut command = self.node.command(Place::Pod("bare"), 0, super::node::PYTHON);
        command.args([&script, &root, &user.to_string()]).args(capabilities).args(["--", "/gauze-proxy"]);
        command.args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    fn redirect_step(&self, capabilities: &[&str]) -> (bool, String) {
        let arguments =
            ["redirect", "--skip-inbound-ports=", "--skip-outbound-ports=5432", "--skip-outbound-cidrs="];
        let output = self.container(0, capabilities, &arguments).output().expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }
}

#[tokio::test]
async fn an_image_with_one_file_redirects_with_net_admin_alone_and_waits_for_a_control_plane_that_is_away() {
    let Some(mut pods) = Pods::start().await else { return };
    let bare = pods.node.pod("bare", 14);
    pods.apply(
        "bare.yaml",
        &(objects::namespace(NAMESPACE, &["bare"]) + "---\n" + &pod("bare", bare, "strict")),
    );

    let (done, said) = pods.redirect_step(&[]);
    assert!(!done && said.contains("NET_ADMIN"), "without the capability: {said}");
    for run in ["the first", "after a restart of the sandbox"] {
        let (done, said) = pods.redirect_step(&[NET_ADMIN]);
        assert!(done && said.contains("tcp dport 5432 return"), "{run}: {said}");
    }

    pods.mount("bare", &pods.image().join("var/run/gauze/identity")).await;
    pods.control_plane = None;
    let addresses = bare.map(|address| address.to_string()).join(",");
    let address = format!("--control-plane={NAME}:15010");
    let mut command = pods.container(
        PROXY_USER,
        &[],
        &[
            &address,
            "--trust-roots=/var/run/gauze/identity/trust.pem",
            "--token=/var/run/gauze/identity/token",
            "--drain-time=1s",
        ],
    );
    command.env("GAUZE_ADMIN_SOCKET", "/var/run/gauze/admin/admin.sock").env("GAUZE_POD_IPS", addresses);
    command.env("GAUZE_NAMESPACE", NAMESPACE).env("GAUZE_POD", "bare").env("GAUZE_SERVICE_ACCOUNT", "bare");
    let mut sidecar = Process::spawn("the image", command).await;

    let says = async |pods: &Pods, reason: &str| {
        eventually(&format!("it says: {reason}"), async || {
            let answer = pods.client("bare", PROXY_USER, &["get", "127.0.0.1", "15020", "/ready"]);
            holds(answer.contains(" 503 ") && answer.contains(reason), answer)
        })
        .await;
    };
    says(&pods, "the name cannot be resolved").await;
    let _dns = pods
        .node
        .script(Place::Node, 0, "dns", &["10.99.0.1", &format!("{NAME}.cluster.local"), "10.99.0.1"])
        .await;
    says(&pods, "(10.99.0.1:15010): Connection refused").await;
    pods.start_control_plane().await;
    within(READY_AFTER_RETURN, "ready after the control plane's return", async || {
        let answer = pods.client("bare", PROXY_USER, &["get", "127.0.0.1", "15020", "/ready"]);
        holds(answer.contains(" 200 "), answer)
    })
    .await;
    assert_eq!(
        sidecar.log().matches("Connection refused").count(),
        1,
        "a problem is told once:\n{}",
        sidecar.log()
    );

    // What the CLI runs in a pod: the same image, no flags.
    let mut ask = pods.container(PROXY_USER, &[], &["ask", "/ready"]);
    let answer = ask.output().expect("it runs");
    assert_eq!(
        String::from_utf8_lossy(&answer.stdout),
        "ready\n",
        "{}",
        String::from_utf8_lossy(&answer.stderr)
    );
    assert!(pods.get("bare", &pods.cart[0].to_string(), "/asked").contains("x-app: cart"), "it carries");
    assert!(sidecar.terminate().await.success());
}
