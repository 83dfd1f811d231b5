//! `gauze` as a user meets it: answers, and errors that say what to do.

use std::path::Path;
use std::process::{Command, Output};

use crate::harness::mesh::Mesh;
use crate::harness::programs::program;
use crate::splitting::Canary;

fn gauze(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("gauze"));
    command.args(arguments).current_dir(folder);
    // Nobody's cluster is asked.
    command.env("HOME", folder).env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST");
    command.output().expect("gauze runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn explain_says_the_same_from_files_as_from_the_running_control_plane() {
    let canary = Canary::start(Mesh::start().await, [90, 10]).await;
    let directory = canary.mesh.directory().display().to_string();
    let asked = ["explain", "shop/web-0", "GET", "http://cart/items", "--directory", directory.as_str()];
    let live = gauze(canary.mesh.directory(), &asked);
    assert!(live.status.success(), "{}", text(&live));
    canary.split([90, 10]);
    let mut canary = canary;
    canary.mesh.kill_control_plane();
    let offline = gauze(canary.mesh.directory(), &asked);
    assert!(offline.status.success(), "{}", text(&offline));
    assert_eq!(String::from_utf8_lossy(&live.stdout), String::from_utf8_lossy(&offline.stdout));
    for wanted in ["TrafficSplit", "cart-v1", "cart-v2", "90", "spiffe://cluster.local/ns/shop/sa/cart"] {
        assert!(text(&live).contains(wanted), "no {wanted} in {}", text(&live));
    }
}

#[tokio::test]
async fn a_mistake_is_answered_with_what_is_wrong_and_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (arguments, code, wanted) in [
        (&["docs", "M9999"][..], 2, "M9999"),
        (&["get", "pods", "--directory", "nowhere"], 2, "nowhere"),
        (&["split", "set", "cart", "v1=fifty"], 2, "fifty"),
        (&["explain", "shop/web", "GET", "http://cart/"], 3, "gauze demo"),
        (&["get", "--kubeconfig", "nowhere"], 3, "--kubeconfig names another"),
        (&["get", "--kubeconfig", "nowhere", "--directory", "."], 2, "leave one out"),
        (&["apply", "-f", "cart.yaml"], 2, "kubectl apply -f cart.yaml"),
    ] {
        let output = gauze(folder.path(), arguments);
        assert!(text(&output).contains(wanted), "{arguments:?}: {}", text(&output));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
}
