//! The root of the mesh: one Secret, made once, by whoever leads; or somebody else's, which is never made.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{Desk, port_of, secret};
use crate::harness::apiserver::ApiServer;
use crate::harness::eventually;
use crate::harness::eventually::holds;
use crate::harness::kube_mesh::{KubeMesh, Replica};

/// How often two control planes are started together.
const ROUNDS: usize = 5;

/// Control planes with roots of their own would write them into each other's namespaces, so these tests have a server
/// without meshed pods.
async fn server() -> Option<&'static ApiServer> {
    static SERVER: OnceCell<Option<ApiServer>> = OnceCell::const_new();
    SERVER.get_or_init(ApiServer::start).await.as_ref()
}

fn secrets(mesh: &KubeMesh<'_>) -> Api<Secret> {
    Api::namespaced(mesh.client.clone(), &mesh.system.name)
}

/// The identity that a replica shows, to those who trust the root of the Secret.
async fn shows_itself(mesh: &KubeMesh<'_>, replica: &Replica) {
    let id = format!("spiffe://cluster.local/ns/{}/sa/gauze-control-plane", mesh.system.name);
    let names = port_of(mesh, replica).await.names().await;
    assert_eq!(names.expect("its leaf chains to the Secret's root"), [id], "{}", replica.pod);
}

#[tokio::test]
async fn two_control_planes_that_start_together_make_one_root_and_a_restart_none() {
    let Some(server) = server().await else { return };
    let admin = server.kubeconfig();
    for round in 0..ROUNDS {
        let mesh = KubeMesh::without_root(server).await;
        let (first, second) =
            tokio::join!(mesh.replica("gauze-0", &admin, &[]), mesh.replica("gauze-1", &admin, &[]));
        tokio::join!(first.ready(), second.ready());
        let made = secrets(&mesh).get("gauze-root").await.expect("it was made");
        for replica in [&first, &second] {
            shows_itself(&mesh, replica).await;
        }
        drop((first, second));
        if round == 0 {
            let next = mesh.replica("gauze-2", &admin, &[]).await;
            // The Lease of the dead leader runs out first; whoever does not lead reads the root and serves.
            next.ready().await;
            shows_itself(&mesh, &next).await;
        }
        let now = secrets(&mesh).get("gauze-root").await.expect("it is there");
        assert_eq!(now.resource_version(), made.resource_version(), "nobody wrote it again");
        assert_eq!((now.type_.as_deref(), now.immutable), (Some("kubernetes.io/tls"), Some(true)));
    }
}

/// What the code relies on when two replicas believe that they lead.
#[tokio::test]
async fn the_api_server_refuses_a_second_root_in_the_same_secret_from_the_same_manager() {
    let Some(server) = server().await else { return };
    let desk = Desk::of(KubeMesh::without_root(server).await).await;
    let (_, key) = secret(&desk.mesh).await.expect("it was made");
    for manager in ["gauze", "somebody"] {
        let other = manifest("gauze-root", &root(|_| ()));
        let parameters = PatchParams::apply(manager);
        let refused = secrets(&desk.mesh).patch("gauze-root", &parameters, &Patch::Apply(&other)).await;
        let Err(kube::Error::Api(status)) = refused else { panic!("{manager}: it was written") };
        assert!(matches!(status.code, 409 | 422), "{manager}: {status:?}");
    }
    assert_eq!(secret(&desk.mesh).await.expect("it is there").1, key);
}

#[tokio::test]
async fn a_secret_that_was_deleted_is_put_back_with_the_same_root() {
    let Some(server) = server().await else { return };
    let desk = Desk::of(KubeMesh::without_root(server).await).await;
    let before = secret(&desk.mesh).await;
    secrets(&desk.mesh).delete("gauze-root", &DeleteParams::default()).await.expect("it is there");
    let back = eventually("the Secret is back", async || {
        secrets(&desk.mesh).get("gauze-root").await.map_err(|error| error.to_string())
    })
    .await;
    assert_eq!((secret(&desk.mesh).await, back.immutable), (before, Some(true)));
    desk.replica.process.logs("put it back").await;
}

#[tokio::test]
async fn a_replica_that_does_not_lead_waits_for_the_secret_and_says_so() {
    let Some(server) = server().await else { return };
    let mesh = KubeMesh::without_root(server).await;
    let leases: Api<Lease> = Api::namespaced(mesh.client.clone(), &mesh.system.name);
    let lease = json!({
        "metadata": {"name": "gauze-control-plane"},
        "spec": {"holderIdentity": "another", "leaseDurationSeconds": 3600},
    });
    let lease = serde_json::from_value(lease).expect("well-formed");
    leases.create(&PostParams::default(), &lease).await.expect("the API server takes it");
    let replica = mesh.replica("gauze-0", &server.kubeconfig(), &[]).await;
    is_not_ready(&replica, &["does not exist yet; the leading replica makes it"]).await;
    let root = root(|_| ());
    create(&mesh, "gauze-root", &root).await;
    replica.ready().await;
    shows_itself(&mesh, &replica).await;
}

#[tokio::test]
async fn an_existing_secret_is_used_and_one_that_cannot_be_used_is_named_with_the_remedy() {
    let Some(server) = server().await else { return };
    let mesh = KubeMesh::without_root(server).await;
    let flags = ["--root-secret-exists", "--root-secret", "company-root"];
    let replica = mesh.replica("gauze-0", &server.kubeconfig(), &flags).await;
    let name = format!("Secret {}/company-root", mesh.system.name);
    is_not_ready(&replica, &["M1110", &name, "does not exist", "create it"]).await;
    assert!(replica.page("/live").await.status == 200, "it waits, it does not fail");
    let good = root(|_| ());
    let other = root(|_| ());
    let old = root(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let server_leaf = root(|params| params.is_ca = IsCa::ExplicitNoCa);
    for (what, (certificate, key), words) in [
        ("no certificate", (String::new(), good.1.clone()), "has no `tls.crt`"),
        ("no key", (good.0.clone(), String::new()), "has no `tls.key`"),
        ("garbage for a certificate", ("garbage".to_owned(), good.1.clone()), "not an X.509"),
        ("garbage for a key", (good.0.clone(), "garbage".to_owned()), "not a private key"),
        ("the key of another certificate", (good.0.clone(), other.1), "not the certificate's"),
        ("a certificate that has expired", old, "expired"),
        ("a certificate that is no authority's", server_leaf, "not one of an authority"),
    ] {
        create(&mesh, "company-root", &(certificate, key)).await;
        println!("{what}");
        is_not_ready(&replica, &["M1109", &name, words, "restore it"]).await;
    }
    create(&mesh, "company-root", &good).await;
    replica.ready().await;
    let names =
        crate::harness::enrolment::TlsPort { address: replica.process.address("grpc"), roots: good.0 };
    assert!(names.names().await.is_ok(), "it serves with that root");
    assert!(secret(&mesh).await.is_none(), "none was made beside it");
}

/// With a root of cert-manager's kind: RSA, PKCS #1.
#[tokio::test]
async fn a_root_of_rsa_signs_as_well() {
    let Some(server) = server().await else { return };
    let mesh = KubeMesh::without_root(server).await;
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
    create(&mesh, "gauze-root", &root_of(&key, |_| ())).await;
    let replica = mesh.replica("gauze-0", &server.kubeconfig(), &[]).await;
    replica.ready().await;
    shows_itself(&mesh, &replica).await;
}

async fn is_not_ready(replica: &Replica, words: &[&str]) {
    eventually(&format!("/ready says {words:?}"), async || {
        let (status, text) = replica.readiness().await;
        holds(status == 503 && words.iter().all(|word| text.contains(word)), text)
    })
    .await;
}

/// Certificate and key.
fn root(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    root_of(&KeyPair::generate().expect("a key"), change)
}

fn root_of(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    (params.self_signed(key).expect("well-formed").pem(), key.serialize_pem())
}

fn manifest(name: &str, (certificate, key): &(String, String)) -> Value {
    let bytes = |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec());
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": name},
        "data": {"tls.crt": bytes(certificate), "tls.key": bytes(key)},
    })
}

/// In place of what is there.
async fn create(mesh: &KubeMesh<'_>, name: &str, root: &(String, String)) {
    let parameters = PatchParams::apply("test").force();
    let patched = secrets(mesh).patch(name, &parameters, &Patch::Apply(&manifest(name, root))).await;
    patched.expect("the API server takes it");
}
