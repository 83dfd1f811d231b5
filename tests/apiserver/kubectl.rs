//! What kubectl shows of our kinds: the answer in its columns, a text for each field, and why a bad object is refused.

use serde_json::json;

use crate::bad_objects::BAD_OBJECTS;
use crate::docs::objects::the_api_server_takes_every_object;
use crate::harness::apiserver::{ApiServer, Namespace};

/// The columns of a table as kubectl prints it, line by line, without the age.
fn table(printed: &str) -> Vec<Vec<String>> {
    let Some(head) = printed.lines().find(|line| line.starts_with("NAME")) else { return Vec::new() };
    let starts: Vec<usize> = head
        .char_indices()
        .filter(|(at, c)| *c != ' ' && (*at == 0 || head[..*at].ends_with("  ")))
        .map(|(at, _)| at)
        .collect();
    let cell = |line: &str, column: usize| {
        let end = starts.get(column + 1).map_or(line.len(), |end| (*end).min(line.len()));
        line.get(starts[column]..end).unwrap_or_default().trim().to_owned()
    };
    let lines = printed.lines().filter(|line| !line.is_empty());
    lines.map(|line| (0..starts.len() - 1).map(|column| cell(line, column)).collect()).collect()
}

/// One object of each of our kinds, with a status as the control plane writes it.
async fn apply_with_statuses(server: &ApiServer, namespace: &Namespace<'_>) {
    let name = &namespace.name;
    let objects = format!(
        "apiVersion: gauze.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: cart, namespace: {name}}}\nspec:\n  \
         targetRefs: [{{kind: Service, name: cart}}, {{kind: Service, name: web, sectionName: http}}]\n  connectTimeout: 500ms\n\
         ---\napiVersion: gauze.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: cart, namespace: {name}}}\nspec:\n  \
         targetRefs: [{{kind: Pod, selector: {{matchLabels: {{app: cart}}}}}}]\n  action: Deny\n  \
         rules: [{{to: [{{paths: [/admin*]}}]}}]\n\
         ---\napiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {{name: cart, namespace: {name}}}\nspec:\n  \
         service: cart\n  backends: [{{service: v1, weight: 90}}, {{service: v2, weight: 10}}]\n"
    );
    server.apply(&objects).await;
    for (kind, status) in [
        ("trafficpolicy", json!({"targets": "cart,web:http", "accepted": "1/2", "programmed": "37/40"})),
        ("authorizationpolicy", json!({"targets": "pods app=cart", "accepted": "True", "programmed": "3/3"})),
        ("trafficsplit", json!({"split": "v1=90 v2=10", "accepted": "True", "programmed": "37/40"})),
    ] {
        let patch = json!({"status": status}).to_string();
        let arguments = [
            "patch",
            kind,
            "cart",
            "--namespace",
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ];
        server.kubectl(&arguments).await.expect("a status that the schema permits");
    }
}

#[tokio::test]
async fn the_answer_stands_in_the_columns_of_each_kind_and_of_them_all() {
    let Some(server) = ApiServer::shared().await else { return };
    let namespace = server.namespace("columns").await;
    apply_with_statuses(server, &namespace).await;
    let get = async |kind: &str| {
        server.kubectl(&["get", kind, "--namespace", &namespace.name]).await.expect("kubectl shows it")
    };
    let [policy, denial, split] = [
        [
            ["NAME", "TARGETS", "ACCEPTED", "PROGRAMMED"].map(str::to_owned).to_vec(),
            ["cart", "cart,web:http", "1/2", "37/40"].map(str::to_owned).to_vec(),
        ],
        [
            ["NAME", "ACTION", "TARGETS", "ACCEPTED", "PROGRAMMED"].map(str::to_owned).to_vec(),
            ["cart", "Deny", "pods app=cart", "True", "3/3"].map(str::to_owned).to_vec(),
        ],
        [
            ["NAME", "SERVICE", "SPLIT", "ACCEPTED", "PROGRAMMED"].map(str::to_owned).to_vec(),
            ["cart", "cart", "v1=90 v2=10", "True", "37/40"].map(str::to_owned).to_vec(),
        ],
    ];
    for (kind, expected) in [
        ("trafficpolicies", &policy),
        ("tpol", &policy),
        ("authorizationpolicies.gauze.dev", &denial),
        ("apol", &denial),
        ("trafficsplits", &split),
        ("ts", &split),
    ] {
        assert_eq!(table(&get(kind).await), *expected, "kubectl get {kind}");
    }
    let all = get("gauze").await;
    for object in [
        "trafficpolicy.gauze.dev/cart",
        "authorizationpolicy.gauze.dev/cart",
        "trafficsplit.split.smi-spec.io/cart",
    ] {
        assert!(all.contains(object), "kubectl get gauze: {all}");
    }
}

#[tokio::test]
async fn every_field_is_explained() {
    let Some(server) = ApiServer::shared().await else { return };
    for (field, text) in [
        (
            "trafficpolicy",
            "How clients inside the mesh balance over, limit and connect to the endpoints of a",
        ),
        ("tpol.spec.limits.requests", "Requests in flight at once. Default: 1024."),
        ("tpol.spec.outlierDetection.maxEjectionTime", "The longest ejection. Default: 300s"),
        ("tpol.spec.balance.type", "LeastRequest"),
        ("apol.spec.rules.from.identities", "spiffe://cluster.local/ns/shop/sa/web"),
        ("apol.status.targets", "what the policy is for"),
        ("ts.spec.backends.weight", "relative to the sum of all"),
    ] {
        let explained = server.kubectl(&["explain", field]).await.expect(field);
        let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(explained.contains(text), "kubectl explain {field}: {explained}");
    }
    for kind in ["trafficpolicy", "authorizationpolicies.gauze.dev", "trafficsplit"] {
        let explained = server.kubectl(&["explain", kind, "--recursive"]).await.expect(kind);
        assert!(explained.contains("spec") && !explained.contains("<no description>"), "{kind}: {explained}");
    }
}

#[tokio::test]
async fn a_bad_object_is_refused_with_what_to_write() {
    let Some(server) = ApiServer::shared().await else { return };
    let namespace = server.namespace("bad").await;
    for bad in BAD_OBJECTS {
        let said = server.refusal(&bad.yaml(&namespace.name)).await;
        assert!(said.contains(bad.refusal), "{}: {said}", bad.what);
    }
}

#[tokio::test]
async fn the_server_takes_every_object_of_the_pages() {
    let Some(server) = ApiServer::with_gateway_api().await else { return };
    the_api_server_takes_every_object(server).await;
}
