//! Which tokens are good for what: the whole table against the real TokenReview.

use std::time::SystemTime;

use http::HeaderMap;
use k8s_openapi::api::core::v1::{Node, Secret, ServiceAccount};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use super::forge::{self, Forge};
use super::{Desk, token};
use crate::harness::apiserver::{ApiServer, NODE};
use crate::harness::enrolment::{Leaf, Outcome, bearer, header, status};
use crate::harness::eventually;
use crate::harness::eventually::holds;
use crate::harness::mesh::free_address;

/// What a row must end with.
#[derive(Clone)]
enum Expected {
    /// A certificate for this identity.
    Certificate(String),
    /// gRPC's status, the code, and words of the message.
    Refusal(u32, &'static str, &'static str),
}

use Expected::{Certificate, Refusal};

type Row = (&'static str, HeaderMap, Expected);

const UNAUTHENTICATED: u32 = status::UNAUTHENTICATED;
const DENIED: u32 = status::PERMISSION_DENIED;

#[tokio::test]
async fn only_the_token_of_a_meshed_pod_for_us_gets_a_certificate_and_only_the_pods_own() {
    let Some(server) = ApiServer::shared().await else { return };
    let desk = Desk::open(server).await;
    let good = desk.good_token("web-0", "web").await;
    let mut rows = header_forms(&good, &desk);
    rows.extend(issued_tokens(&desk, &good).await);
    rows.extend(forged_tokens(server, &desk).await);
    assert!(rows.len() >= 40, "{} rows", rows.len());
    for (what, headers, expected) in &rows {
        check(&desk, what, headers, expected).await;
    }
    let log = desk.replica.process.log();
    for (what, headers, _) in &rows {
        let shown = headers.values().next().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let secret = shown.as_deref().and_then(|shown| shown.rsplit('.').next()).unwrap_or("");
        assert!(secret.len() < 40 || !log.contains(secret), "{what}: the token stands in the log");
    }
}

/// A row may have to wait until the control plane has seen a pod, but what must be refused is refused from the first.
async fn check(desk: &Desk<'_>, what: &str, headers: &HeaderMap, expected: &Expected) {
    eventually(what, async || {
        let now = SystemTime::now();
        let outcome = desk.ask(headers.clone()).await;
        let Refusal(status, code, words) = expected else {
            let [leaf] = outcome.chain.as_slice() else { return Err(outcome) };
            let leaf = Leaf::read(leaf, &desk.port.roots, &desk.key, now);
            let Certificate(id) = expected else { unreachable!() };
            assert_eq!(leaf.names, [id.as_str()], "{what}");
            return Ok(());
        };
        assert!(outcome.chain.is_empty(), "{what}: a certificate was issued");
        let message = &outcome.message;
        let fits = outcome.status == *status && message.starts_with(code) && message.contains(words);
        holds(fits, outcome)
    })
    .await;
}

/// How the token is shown.
fn header_forms(good: &str, desk: &Desk<'_>) -> Vec<Row> {
    let missing = || Refusal(UNAUTHENTICATED, "M1101", "authorization: Bearer");
    let refused = |words| Refusal(UNAUTHENTICATED, "M1102", words);
    let authorization = |value: &str| header("authorization", value);
    let mut twice = bearer(good);
    twice.append("authorization", "Bearer x".parse().expect("a value"));
    vec![
        ("the token of the pod itself", bearer(good), Certificate(desk.identity("web"))),
        ("no token at all", HeaderMap::new(), missing()),
        ("an empty header", authorization(""), missing()),
        ("a scheme without a token", authorization("Bearer"), missing()),
        ("a token without a scheme", authorization(good), missing()),
        ("another scheme", authorization(&format!("Basic {good}")), missing()),
        ("the token in another header", header("x-forwarded-authorization", good), missing()),
        ("the token beside another one", twice, missing()),
        ("a header that is not ASCII", authorization("Bearer \u{fc}mlaut"), missing()),
        ("an empty token", authorization("Bearer "), refused("empty")),
        ("a token after two spaces", authorization(&format!("Bearer  {good}")), refused("characters")),
        ("a token followed by another", bearer(&format!("{good} {good}")), refused("characters")),
        ("two tokens joined by a comma", bearer(&format!("{good},{good}")), refused("characters")),
        ("garbage", bearer("garbage"), refused("does not accept")),
        ("dots", bearer("..."), refused("does not accept")),
        ("a token without its signature", bearer(&unsigned(good)), refused("does not accept")),
        ("a token with another's signature", bearer(&(unsigned(good) + "AAAA")), refused("does not accept")),
        ("a token of 9,000 bytes", bearer(&"x".repeat(9_000)), refused("more than 8192")),
    ]
}

fn unsigned(token: &str) -> String {
    let end = token.rfind('.').expect("a JWT has dots") + 1;
    token[..end].to_owned()
}

/// What the API server hands out to those who ask it.
async fn issued_tokens(desk: &Desk<'_>, good: &str) -> Vec<Row> {
    let (mesh, shop, system) = (&desk.mesh, desk.mesh.shop(), desk.mesh.system.name.as_str());
    let rejected = || Refusal(UNAUTHENTICATED, "M1102", "does not accept");
    let unbound = || Refusal(UNAUTHENTICATED, "M1102", "not bound to a pod");
    let of = async |account: &str, audiences: &[&str], bound: super::Bound<'_>| {
        bearer(&token(mesh, shop, account, audiences, bound).await)
    };
    let web = ("Pod", "web-1", desk.pod("web-1", "web").await);
    let web = Some((web.0, web.1, web.2.as_str()));
    let mut rows = vec![
        ("a token for another audience", of("web", &["vault"], web).await, rejected()),
        ("a token for an audience that begins like ours", of("web", &["gauze2"], web).await, rejected()),
        ("a token for our audience in capitals", of("web", &["GAUZE"], web).await, rejected()),
        ("a token for the API server", of("web", &[], web).await, rejected()),
        (
            "a token for several, us among them",
            of("web", &["vault", "gauze"], web).await,
            Certificate(desk.identity("web")),
        ),
        ("a token bound to nothing", of("web", &["gauze"], None).await, unbound()),
    ];
    let secret = made(mesh, json!({"metadata": {"name": "bind"}})).await;
    let bound = Some(("Secret", "bind", secret.metadata.uid.as_deref().expect("a uid")));
    rows.push(("a token bound to a Secret", of("web", &["gauze"], bound).await, unbound()));
    let node: Node = Api::<Node>::all(mesh.client.clone()).get(NODE).await.expect("it is there");
    let bound = Some(("Node", NODE, node.metadata.uid.as_deref().expect("a uid")));
    rows.push(("a token bound to a Node", of("web", &["gauze"], bound).await, unbound()));
    rows.push(("a token that never expires, of a Secret", bearer(&legacy_token(desk).await), rejected()));

    let uid = desk.pod("gone-0", "web").await;
    let token_of_gone = of("web", &["gauze"], Some(("Pod", "gone-0", &uid))).await;
    mesh.delete_pod("gone-0").await;
    rows.push(("a token of a pod that was deleted", token_of_gone, rejected()));
    let uid = desk.pod("again-0", "web").await;
    let token_of_first = of("web", &["gauze"], Some(("Pod", "again-0", &uid))).await;
    mesh.delete_pod("again-0").await;
    let uid = desk.pod("again-0", "web").await;
    let token_of_second = of("web", &["gauze"], Some(("Pod", "again-0", &uid))).await;
    rows.push(("a token of a pod whose name another has now", token_of_first, rejected()));
    rows.push(("a token of the pod that took the name", token_of_second, Certificate(desk.identity("web"))));

    let plain = mesh.bare_pod(shop, "plain-0", "web", free_address(), false).await;
    let bound = Some(("Pod", "plain-0", plain.metadata.uid.as_deref().expect("a uid")));
    let not_meshed = Refusal(DENIED, "M1108", "has no sidecar");
    rows.push(("a token of a pod without sidecar", of("web", &["gauze"], bound).await, not_meshed));
    let uid = desk.pod("cart-0", "cart").await;
    let token_of_cart = of("cart", &["gauze"], Some(("Pod", "cart-0", &uid))).await;
    rows.push(("a token of another ServiceAccount", token_of_cart, Certificate(desk.identity("cart"))));

    mesh.account(system, "web").await;
    for (what, account, expected) in [
        (
            "a token of the same names in another namespace",
            "web",
            Certificate(format!("spiffe://cluster.local/ns/{system}/sa/web")),
        ),
        (
            "a token of a pod that runs as the control plane",
            "gauze-control-plane",
            Refusal(DENIED, "M1102", "the control plane's own identity"),
        ),
    ] {
        let name = format!("{account}-0");
        let pod = mesh.bare_pod(system, &name, account, free_address(), true).await;
        let bound = Some(("Pod", name.as_str(), pod.metadata.uid.as_deref().expect("a uid")));
        rows.push((what, bearer(&token(mesh, system, account, &["gauze"], bound).await), expected));
    }
    rows.push(("the first token again", bearer(good), Certificate(desk.identity("web"))));
    rows
}

async fn made(mesh: &crate::harness::kube_mesh::KubeMesh<'_>, secret: Value) -> Secret {
    let secrets: Api<Secret> = Api::namespaced(mesh.client.clone(), mesh.shop());
    let secret = serde_json::from_value(secret).expect("well-formed");
    secrets.create(&PostParams::default(), &secret).await.expect("the API server takes it")
}

/// As before Kubernetes 1.24: the controllers fill it in.
async fn legacy_token(desk: &Desk<'_>) -> String {
    let annotations = json!({"kubernetes.io/service-account.name": "web"});
    let metadata = json!({"name": "legacy", "annotations": annotations});
    made(&desk.mesh, json!({"metadata": metadata, "type": "kubernetes.io/service-account-token"})).await;
    let secrets: Api<Secret> = Api::namespaced(desk.mesh.client.clone(), desk.mesh.shop());
    eventually("the controllers write the token", async || {
        let secret = secrets.get("legacy").await.map_err(|error| error.to_string())?;
        let token = secret.data.as_ref().and_then(|data| data.get("token")).ok_or("not yet")?;
        Ok::<_, String>(String::from_utf8_lossy(&token.0).into_owned())
    })
    .await
}

/// What nobody is handed out, signed with the cluster's own key, or with another.
async fn forged_tokens(server: &ApiServer, desk: &Desk<'_>) -> Vec<Row> {
    let rejected = || Refusal(UNAUTHENTICATED, "M1102", "does not accept");
    let unbound = || Refusal(UNAUTHENTICATED, "M1102", "not bound to a pod");
    let uid = desk.pod("web-2", "web").await;
    let pod = ("web-2", uid.as_str());
    let [web, cart] = [account(desk, "web").await, account(desk, "cart").await];
    let good = forge::claims(desk.mesh.shop(), ("web", &web), pod);
    let ours = Forge::of(server);
    let with = |changes: &[(&str, Value)]| {
        let mut claims = good.clone();
        for (path, value) in changes {
            *claims.pointer_mut(path).expect("it is there") = value.clone();
        }
        claims
    };
    let now = good["iat"].as_u64().expect("a number");
    let expired =
        with(&[("/iat", json!(now - 7200)), ("/nbf", json!(now - 7200)), ("/exp", json!(now - 3600))]);
    let other_subject = format!("system:serviceaccount:{}:cart", desk.mesh.shop());
    let as_cart = forge::claims(desk.mesh.shop(), ("cart", &cart), pod);
    let none = |claims: &Value| {
        let parts =
            [&json!({"alg": "none"}), claims].map(|part| forge::base64url(part.to_string().as_bytes()));
        parts.join(".") + "."
    };
    let tokens: Vec<(&'static str, String, Expected)> = vec![
        ("a token like the API server's own", ours.sign(&good), Certificate(desk.identity("web"))),
        ("a token that has expired", ours.sign(&expired), rejected()),
        ("a token that is not valid yet", ours.sign(&with(&[("/nbf", json!(now + 3600))])), rejected()),
        ("a token of another issuer", ours.sign(&with(&[("/iss", json!("https://elsewhere"))])), rejected()),
        ("a token that another cluster signed", Forge::elsewhere().sign(&good), rejected()),
        ("a token that nobody signed", none(&good), rejected()),
        (
            "a token with the algorithm of shared keys",
            ours.sign_as(&json!({"alg": "HS256"}), &good),
            rejected(),
        ),
        (
            "a token with another subject, which the API server does not read",
            ours.sign(&with(&[("/sub", json!(other_subject))])),
            Certificate(desk.identity("web")),
        ),
        (
            "a token whose account has another uid",
            ours.sign(&with(&[("/kubernetes.io/serviceaccount/uid", json!("x"))])),
            rejected(),
        ),
        (
            "a token whose pod has another uid",
            ours.sign(&with(&[("/kubernetes.io/pod/uid", json!("x"))])),
            rejected(),
        ),
        (
            "a token whose pod does not exist",
            ours.sign(&with(&[("/kubernetes.io/pod/name", json!("x"))])),
            rejected(),
        ),
        (
            "a token whose pod is in another namespace",
            ours.sign(&with(&[("/kubernetes.io/namespace", json!("default"))])),
            rejected(),
        ),
        (
            "a token of an account that the pod does not have",
            ours.sign(&as_cart),
            Refusal(DENIED, "M1103", "ServiceAccount cart"),
        ),
        (
            "a token that is bound to no pod",
            ours.sign(&with(&[("/kubernetes.io/pod", Value::Null)])),
            unbound(),
        ),
        (
            "a token that is none of Kubernetes",
            ours.sign(&with(&[("/kubernetes.io", Value::Null)])),
            rejected(),
        ),
    ];
    tokens.into_iter().map(|(what, token, expected)| (what, bearer(&token), expected)).collect()
}

async fn account(desk: &Desk<'_>, name: &str) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(desk.mesh.client.clone(), desk.mesh.shop());
    accounts.get(name).await.expect("it is there").uid().expect("a uid")
}

#[tokio::test]
async fn while_the_api_server_is_away_nobody_gets_a_certificate_and_everybody_is_told_to_try_again() {
    let Some(server) = ApiServer::start().await else { return };
    let desk = Desk::open(&server).await;
    let token = desk.good_token("web-0", "web").await;
    server.stop_apiserver().await;
    eventually("the port says that it cannot ask", async || {
        let outcome = desk.ask(bearer(&token)).await;
        assert!(outcome.chain.is_empty(), "a certificate was issued");
        let fits = outcome.status == status::UNAVAILABLE && outcome.message.starts_with("M1107");
        holds(fits, outcome)
    })
    .await;
    server.start_apiserver().await;
    check(&desk, "it is back", &bearer(&token), &Certificate(desk.identity("web"))).await;
}

#[tokio::test]
async fn a_token_that_was_good_is_good_no_more_when_its_pod_is_gone() {
    let Some(server) = ApiServer::shared().await else { return };
    let desk = Desk::open(server).await;
    let token = desk.good_token("web-0", "web").await;
    desk.mesh.delete_pod("web-0").await;
    // The API server remembers for some seconds that the token was good; the world does not.
    eventually("no certificate any more", async || {
        let outcome = desk.ask(bearer(&token)).await;
        match outcome {
            Outcome { ref chain, .. } if !chain.is_empty() => Err("a certificate was issued".to_owned()),
            Outcome { ref message, .. } => {
                holds(message.starts_with("M1103") || message.starts_with("M1102"), message.clone())
            }
        }
    })
    .await;
}
