use k8s_openapi::ByteString;
use serde_json::json;

use super::*;

const DEFINITION: &str = "trafficsplits.split.smi-spec.io";
const ALL: [&str; 4] = ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"];

/// How it is converted, and the versions in which it is served.
async fn served(installed: &Installed) -> (String, Vec<String>) {
    let definition = installed.object("crd", DEFINITION).await;
    assert_eq!(definition["status"]["storedVersions"], json!(["v1alpha4"]));
    let versions = definition["spec"]["versions"].as_array().expect("versions").iter();
    let served = versions.filter(|version| version["served"] == true);
    let names = served.map(|version| version["name"].as_str().expect("a name").to_owned()).collect();
    (definition["spec"]["conversion"]["strategy"].as_str().expect("a text").to_owned(), names)
}

pub(super) async fn serves_all_versions(installed: &Installed) {
    assert_eq!(served(installed).await, ("Webhook".to_owned(), ALL.map(ToOwned::to_owned).to_vec()));
}

async fn change(installed: &Installed, patch: &Value) {
    let patch = patch.to_string();
    installed.kubectl(&["patch", "crd", DEFINITION, "--type=merge", "--patch", &patch]).await;
}

pub(super) async fn an_upgrade_keeps_its_bundle_and_brings_versions_that_it_lacked(installed: &Installed) {
    // As the control plane does.
    let roots = installed.object("configmap", "kube-root-ca.crt").await["data"]["ca.crt"].clone();
    let roots = json!(ByteString(roots.as_str().expect("a text").as_bytes().to_vec()));
    let client = json!({ "caBundle": roots });
    change(installed, &json!({ "spec": { "conversion": { "webhook": { "clientConfig": client } } } })).await;
    installed.helm(&["upgrade", "gauze", &chart()]).await;
    let kept = installed.object("crd", DEFINITION).await;
    assert_eq!(kept["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"], roots);

    // As an older release installed it.
    let mut stored = kept["spec"]["versions"].as_array().expect("versions").clone();
    stored.retain(|version| version["storage"] == true);
    let none = json!({ "strategy": "None", "webhook": null });
    change(installed, &json!({ "spec": { "conversion": none, "versions": stored } })).await;
    assert_eq!(served(installed).await, ("None".to_owned(), vec!["v1alpha4".to_owned()]));
    installed.helm(&["upgrade", "gauze", &chart()]).await;
    serves_all_versions(installed).await;
}

/// What the hook before an uninstallation does.
pub(super) async fn is_served_as_stored_alone(installed: &Installed) {
    let said = installed.run_hook("gauze-stop-conversion").await;
    assert_eq!(
        said,
        format!("stopped conversion of CustomResourceDefinition {DEFINITION}; only v1alpha4 is served\n")
    );
    assert_eq!(served(installed).await, ("None".to_owned(), vec!["v1alpha4".to_owned()]));
    assert_eq!(installed.run_hook("gauze-stop-conversion").await, "", "nothing is left to do");
}

pub(super) async fn a_new_installation_brings_all_versions_back(installed: &Installed) {
    // What the hook wrote belongs to nobody, so it is in nobody's way.
    let ours = repository().join("crds/yaml/traffic_split.yaml");
    let ours = ours.to_str().expect("a path of text");
    let applied = ["apply", "--server-side", "--dry-run=server", "--field-manager=another", "-f", ours];
    installed.kubectl(&applied).await;
    installed.helm(&["install", "gauze", &chart()]).await;
    serves_all_versions(installed).await;
    let split =
        installed.kubectl(&["get", "trafficsplits", "cart", "--namespace", "shop", "-o", "name"]).await;
    assert_eq!(split, "trafficsplit.split.smi-spec.io/cart\n");
}
