use k8s_openapi::api::core::v1::{ConfigMap, Namespace};

use super::*;
use crate::harness::apiserver::output;
use crate::harness::programs::program;

#[tokio::test]
async fn without_a_control_plane_splits_of_every_origin_are_read_changed_and_deleted_with_owner_and_namespace()
 {
    let Some(server) = ApiServer::start().await else { return };
    let conversion = Conversion::start(&server).await;
    before_the_first_start(&conversion).await;
    let replica = conversion.replica("gauze-0").await;
    conversion.converts(&[&replica]);
    conversion.in_force().await;
    let owner = owner(&conversion).await;
    let namespace = namespace_of_splits(&conversion).await;
    // One writes them whole, the other owns fields in the version that it wrote.
    let made = split("v1alpha1", "created", &json!(["1"]), &owner);
    conversion.splits("v1alpha1").create(&PostParams::default(), &made).await.expect("it is taken");
    let applied = split("v1alpha1", "applied", &json!(["1"]), &owner);
    let applying = PatchParams::apply("somebody");
    conversion
        .splits("v1alpha1")
        .patch("applied", &applying, &Patch::Apply(&applied))
        .await
        .expect("it is taken");
    conversion.apply_as("v1alpha1", "somebody", "kept", &json!(["1", "2"])).await.expect("it is taken");

    conversion.front.point_to(&[]);
    conversion.front.cut();
    drop(replica);
    nobody_converts(&conversion).await;
    what_is_stored_goes_on(&conversion).await;
    goes_with_its_owner(&conversion).await;
    goes_with_its_namespace(&conversion, &namespace).await;

    conversion.front.mend();
    let replicas = [conversion.replica("gauze-1").await, conversion.replica("gauze-2").await];
    conversion.converts(&[&replicas[0], &replicas[1]]);
    conversion.in_force().await;
    assert_eq!(conversion.weights("kept").await, json!([["3", "4"], [3, 4], [3, 4], [3, 4]]));
    let [first, second] = replicas;
    drop(first);
    conversion.in_force().await;
    assert!(second.metric("conversions_total", "converted").await > 0.0);
    after_an_uninstallation(&conversion).await;
    somebody_elses_definition_is_left_alone(&conversion, &second).await;
}

/// The definition alone: what is stored works, and whoever wants another version is told who is missing.
async fn before_the_first_start(conversion: &Conversion<'_>) {
    let made = split("v1alpha4", "early", &json!([1]), &json!({}));
    conversion.splits("v1alpha4").create(&PostParams::default(), &made).await.expect("it is taken");
    conversion.delete("early").await;
}

async fn nobody_converts(conversion: &Conversion<'_>) {
    let written = split("v1alpha1", "late", &json!(["1"]), &json!({}));
    let refused = conversion.splits("v1alpha1").create(&PostParams::default(), &written).await;
    let refused = refused.expect_err("nobody converts").to_string();
    let expected = "conversion webhook for split.smi-spec.io/v1alpha1, Kind=TrafficSplit failed";
    assert!(refused.contains(expected), "{refused}");
}

async fn what_is_stored_goes_on(conversion: &Conversion<'_>) {
    let api = conversion.splits("v1alpha4");
    assert_eq!(weights(&api.get("kept").await.expect("it is there")), json!([1, 2]));
    let listed = api.list(&ListParams::default()).await.expect("it is served");
    assert_eq!(listed.items.len(), 3);
    let patch = json!({ "spec": { "backends": backends(&json!([3, 4])) } });
    let patched =
        api.patch("kept", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("it is taken");
    assert_eq!(weights(&patched), json!([3, 4]));
    // kubectl asks for what discovery prefers.
    let names = ["get", "trafficsplits", "-n", conversion.mesh.shop(), "-o", "name"];
    let names = conversion.mesh.server.kubectl(&names).await.expect("it is served");
    assert_eq!(names.lines().count(), 3, "{names}");
}

/// The owner of splits, as `ownerReferences` name it.
async fn owner(conversion: &Conversion<'_>) -> Value {
    let api: Api<ConfigMap> = Api::namespaced(conversion.mesh.client.clone(), conversion.mesh.shop());
    let owner = serde_json::from_value(json!({ "metadata": { "name": "owner" } })).expect("an object");
    let owner = api.create(&PostParams::default(), &owner).await.expect("it is taken");
    let reference =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid });
    json!({ "ownerReferences": [reference] })
}

async fn goes_with_its_owner(conversion: &Conversion<'_>) {
    let api: Api<ConfigMap> = Api::namespaced(conversion.mesh.client.clone(), conversion.mesh.shop());
    api.delete("owner", &DeleteParams::default()).await.expect("it is there");
    eventually("the splits go with their owner", async || {
        let listed = conversion.splits("v1alpha4").list(&ListParams::default()).await.expect("it is served");
        let names: Vec<String> = listed.items.into_iter().filter_map(|split| split.metadata.name).collect();
        holds(names == ["kept"], names)
    })
    .await;
}

/// A namespace with a split of each version, written by server-side apply.
async fn namespace_of_splits(conversion: &Conversion<'_>) -> String {
    let name = format!("{}-goes", conversion.mesh.shop());
    conversion
        .mesh
        .server
        .apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"))
        .await;
    for version in VERSIONS {
        let weight = if version == "v1alpha1" { json!(["1"]) } else { json!([1]) };
        let split = split(version, version, &weight, &json!({}));
        let api = splits(&conversion.mesh.client, &name, version);
        let applied = api.patch(version, &PatchParams::apply("somebody"), &Patch::Apply(&split)).await;
        applied.expect("it is taken");
    }
    name
}

async fn goes_with_its_namespace(conversion: &Conversion<'_>, name: &str) {
    let api: Api<Namespace> = Api::all(conversion.mesh.client.clone());
    api.delete(name, &DeleteParams::default()).await.expect("it is there");
    eventually("the namespace goes", async || match api.get_opt(name).await.expect("it is served") {
        None => Ok(()),
        Some(left) => Err(format!("{:?}", left.status)),
    })
    .await;
}

/// Fields that somebody owns in a version that is served no more are in nobody's way.
async fn after_an_uninstallation(conversion: &Conversion<'_>) {
    conversion.apply_as("v1alpha1", "somebody", "owned", &json!(["1", "2"])).await.expect("it is taken");
    let mut command = std::process::Command::new(program("gauze-control-plane"));
    command.args(["uninstall", "--stop-conversion", "--system-namespace", &conversion.mesh.system.name]);
    command.arg("--kubeconfig").arg(conversion.mesh.server.kubeconfig());
    let said = output(command, "").await.expect("it is allowed");
    assert!(said.ends_with("only v1alpha4 is served\n"), "{said}");
    eventually("v1alpha1 is not served", async || match conversion.splits("v1alpha1").get("owned").await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let read = conversion.splits("v1alpha4").get("owned").await.expect("it is there");
    let managers = read.metadata.managed_fields.unwrap_or_default();
    let older =
        managers.iter().any(|entry| entry.api_version.as_deref() == Some("split.smi-spec.io/v1alpha1"));
    assert!(older, "nobody owns a field in v1alpha1: {managers:?}");
    let split = split("v1alpha4", "owned", &json!([5, 6]), &json!({}));
    let forced = PatchParams::apply("another").force();
    let applied = conversion.splits("v1alpha4").patch("owned", &forced, &Patch::Apply(&split)).await;
    assert_eq!(weights(&applied.expect("it is taken")), json!([5, 6]));
}

/// A definition of the same name that another mesh brought, with two versions and no conversion, as linkerd-smi's.
async fn somebody_elses_definition_is_left_alone(conversion: &Conversion<'_>, replica: &Replica) {
    let server = conversion.mesh.server;
    let delete = ["delete", "customresourcedefinition", DEFINITION, "--timeout=30s"];
    server.kubectl(&delete).await.expect("it goes with all objects");
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage,
            "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
        })
    };
    let names = json!({ "kind": "TrafficSplit", "plural": "trafficsplits", "singular": "trafficsplit" });
    let theirs = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": DEFINITION },
        "spec": {
            "group": "split.smi-spec.io", "scope": "Namespaced", "names": names,
            "versions": [version("v1alpha1", true), version("v1alpha2", false)],
        },
    });
    server.apply(&theirs.to_string()).await;
    let made = split("v1alpha1", "theirs", &json!(["500m"]), &json!({}));
    let api = conversion.splits("v1alpha2");
    eventually("their split is taken", async || {
        let made = conversion.splits("v1alpha1").create(&PostParams::default(), &made).await;
        made.map(drop).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(weights(&api.get("theirs").await.expect("it is served")), json!(["500m"]));
    eventually("the control plane follows it", async || {
        let objects = replica.ask("/objects").await["objects"].to_string();
        holds(objects.contains("theirs"), objects)
    })
    .await;
    let get = ["get", "customresourcedefinition", DEFINITION, "-o", "json", "--show-managed-fields"];
    let seen: Value = serde_json::from_str(&server.kubectl(&get).await.expect("it is there")).expect("JSON");
    assert_eq!(seen["spec"]["conversion"], json!({ "strategy": "None" }));
    let managers = seen["metadata"]["managedFields"].as_array().expect("managers").iter();
    let ours = managers.filter(|entry| entry["manager"] == "gauze").count();
    assert_eq!(ours, 0, "the control plane has written to it");
}
