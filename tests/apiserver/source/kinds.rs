use serde_json::{Value, json};

use super::answers;
use crate::harness::App;
use crate::harness::apiserver::ApiServer;
use crate::harness::eventually::{eventually, holds};
use crate::harness::kube_mesh::{KubeMesh, Replica};
use crate::harness::mesh::SidecarOptions;

/// A definition whose schema lets everything through: as of another release, or by another hand.
fn definition(group: &str, version: &str, kind: &str) -> Value {
    let plural = kind.to_lowercase().replace("policy", "policie") + "s";
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            // The API server asks for it in this group.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                "subresources": {"status": {}},
            }],
        },
    })
}

fn split(mesh: &KubeMesh<'_>, spec: &str) -> String {
    format!(
        "{{apiVersion: split.smi-spec.io/v1alpha4, kind: TrafficSplit, metadata: {{name: cart, namespace: {}}}, spec: {spec}}}",
        mesh.shop()
    )
}

async fn has_problems(replica: &Replica, mesh: &KubeMesh<'_>, wanted: &[String]) {
    eventually("the problems are reported", async || {
        let problems = replica.problems().await;
        let of_test: Vec<_> = problems.into_iter().filter(|problem| problem.contains(mesh.shop())).collect();
        let missing: Vec<_> = wanted.iter().filter(|problem| !of_test.contains(problem)).collect();
        holds(missing.is_empty(), format!("missing {missing:?} in {of_test:?}"))
    })
    .await;
}

#[tokio::test]
async fn custom_kinds_come_and_go_and_a_malformed_object_of_any_kind_costs_only_itself() {
    let Some(server) = ApiServer::start_empty().await else { return };
    let mesh = KubeMesh::start(&server).await.writing_statuses();
    let replica = mesh.control_plane().await;
    assert_eq!(replica.problems().await, [""; 0], "that kinds are not installed is no problem");
    let apps = [App::start("cart").await, App::start("next").await];
    let none = SidecarOptions::default();
    let cart = mesh.pod("cart-0", "cart", Some(&apps[0]), none).await;
    let next = mesh.pod("next-0", "next", Some(&apps[1]), none).await;
    let service = mesh.service("cart", &[&cart]).await;
    mesh.service("next", &[&next]).await;
    let web = mesh.pod("web-0", "web", None, SidecarOptions { dials: &[service], ..none }).await;
    for pod in [&cart, &next, &web] {
        pod.ready().await;
    }
    answers(&web, "cart").await;

    for (group, version, kind) in [
        ("split.smi-spec.io", "v1alpha4", "TrafficSplit"),
        // An older version, whose matches stand beside metadata.
        ("specs.smi-spec.io", "v1alpha2", "HTTPRouteGroup"),
        ("gauze.dev", "v1alpha1", "TrafficPolicy"),
        ("gauze.dev", "v1alpha1", "AuthorizationPolicy"),
        ("gateway.networking.k8s.io", "v1", "HTTPRoute"),
        // Only an older version is installed.
        ("gateway.networking.k8s.io", "v1alpha2", "GRPCRoute"),
        ("gateway.networking.k8s.io", "v1alpha3", "TLSRoute"),
    ] {
        server.apply(&definition(group, version, kind).to_string()).await;
    }
    server
        .kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"])
        .await
        .expect("they are established");
    server.apply(&split(&mesh, "{service: cart, backends: [{service: next, weight: 1}]}")).await;
    answers(&web, "next").await;

    // The split becomes nonsense: its last good version stays. So does everything else.
    server.apply(&split(&mesh, "{service: [cart], backends: 7}")).await;
    let shop = mesh.shop();
    for (version, kind, spec) in [
        ("specs.smi-spec.io/v1alpha2", "HTTPRouteGroup", "{matches: everything}"),
        ("gauze.dev/v1alpha1", "TrafficPolicy", "{targetRefs: all}"),
        (
            "gauze.dev/v1alpha1",
            "AuthorizationPolicy",
            "{targetRefs: [{kind: Service, name: nobody}], rules: [{from: [{ipBlocks: [10.0.0.0/8]}]}]}",
        ),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", "{rules: [{matches: everything}]}"),
        ("gateway.networking.k8s.io/v1alpha2", "GRPCRoute", "{parentRefs: [{port: http}]}"),
        ("gateway.networking.k8s.io/v1alpha3", "TLSRoute", "{hostnames: cart.example}"),
    ] {
        let object = format!(
            "{{apiVersion: {version}, kind: {kind}, metadata: {{name: bad, namespace: {shop}}}, spec: {spec}}}"
        );
        server.apply(&object).await;
    }
    // Kubernetes' own kinds have no nonsense that the API server would let through, but our annotations do.
    let slip = "gauze.dev/mtsl=strict";
    for arguments in [
        &["annotate", "pod", "cart-0", "gauze.dev/mtls=sometimes", "--namespace", shop][..],
        &["annotate", "service", "cart", slip, "--namespace", shop],
        &["annotate", "namespace", shop, slip],
    ] {
        server.kubectl(arguments).await.expect("it is there");
    }
    // The pod of an endpoint is gone.
    mesh.bare_pod(shop, "next-1", "next", next.address, true).await;
    mesh.delete_pod("next-1").await;
    let mut lost = mesh.pod("lost-0", "next", None, none).await;
    mesh.endpoint("next", &lost).await;
    lost.process.kill();
    mesh.delete_pod("lost-0").await;
    let mtls = "metadata.annotations[gauze.dev/mtls] M1006";
    let mtsl = "metadata.annotations[gauze.dev/mtsl] M1002";
    let expected = [
        format!("TrafficSplit/{shop}/cart spec.backends M1003"),
        format!("HTTPRouteGroup/{shop}/bad spec.matches M1003"),
        format!("TrafficPolicy/{shop}/bad spec.targetRefs M1003"),
        format!("AuthorizationPolicy/{shop}/bad spec.rules[0].from[0].ipBlocks M1002"),
        format!("HTTPRoute/{shop}/bad spec.rules[0].matches M1003"),
        format!("GRPCRoute/{shop}/bad spec.parentRefs[0].port M1003"),
        format!("TLSRoute/{shop}/bad spec.hostnames M1003"),
        format!("Pod/{shop}/cart-0 {mtls}"),
        format!("Service/{shop}/cart {mtsl}"),
        format!("Namespace//{shop} {mtsl}"),
        format!("EndpointSlice/{shop}/next-lost-0 M1011"),
    ];
    has_problems(&replica, &mesh, &expected).await;
    answers(&web, "next").await;
    eventually("their statuses say so too", async || {
        let reason = r#"jsonpath={.status.conditions[?(@.reason=="Invalid")].message}"#;
        let said = server.kubectl(&["get", "trafficsplit", "cart", "--namespace", shop, "-o", reason]).await?;
        let expected = "spec.backends: invalid type: integer `7`, expected a sequence (M1003); its last good version stays in force";
        holds(said == expected, said)
    })
    .await;
    assert_eq!(replica.readiness().await.0, 200);

    // The kind is taken away: its objects have no effect any more, and no others notice.
    server.kubectl(&["delete", "crd", "trafficsplits.split.smi-spec.io"]).await.expect("it is there");
    answers(&web, "cart").await;
    has_problems(&replica, &mesh, &expected[1..]).await;
    let problems = replica.problems().await;
    assert!(!problems.iter().any(|problem| problem.contains("TrafficSplit")), "{problems:?}");

    // And it comes back.
    server.apply(&definition("split.smi-spec.io", "v1alpha4", "TrafficSplit").to_string()).await;
    eventually("the kind is served again", async || {
        let good = split(&mesh, "{service: cart, backends: [{service: next, weight: 1}]}");
        server.kubectl(&["get", "trafficsplits", "--all-namespaces"]).await.map(|_| good)
    })
    .await;
    server.apply(&split(&mesh, "{service: cart, backends: [{service: next, weight: 1}]}")).await;
    answers(&web, "next").await;
}
