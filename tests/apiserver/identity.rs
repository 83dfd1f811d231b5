//! Who gets a certificate in a cluster, and from which root. The API server judges the tokens; the control plane's
//! port is asked by hand, as an attacker would.

mod forge; // tokens signed by the cluster's own key
mod ports; // what each port tells whom
mod requests; // what a signing request cannot bring about
mod root; // one Secret, made once
mod tokens; // which tokens are good for what
mod trust; // the roots, where pods mount them

use http::HeaderMap;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, PostParams};
use rcgen::{CertificateParams, KeyPair};

use crate::harness::apiserver::ApiServer;
use crate::harness::enrolment::{Outcome, TlsPort, bearer, status};
use crate::harness::eventually;
use crate::harness::kube_mesh::{KubeMesh, Replica};
use crate::harness::mesh::free_address;

/// A control plane, and one that asks it for certificates.
struct Desk<'a> {
    mesh: KubeMesh<'a>,
    replica: Replica,
    port: TlsPort,
    key: KeyPair,
    /// A plain signing request for `key`.
    csr: String,
}

impl<'a> Desk<'a> {
    async fn open(server: &'a ApiServer) -> Desk<'a> {
        Desk::of(KubeMesh::start(server).await).await
    }

    async fn of(mesh: KubeMesh<'a>) -> Desk<'a> {
        let replica = mesh.replica("gauze-0", &mesh.server.kubeconfig(), &["--log-level", "debug"]).await;
        replica.ready().await;
        let port = port_of(&mesh, &replica).await;
        let key = KeyPair::generate().expect("a key");
        let csr = request(&CertificateParams::default(), &key);
        Desk { mesh, replica, port, key, csr }
    }

    /// A meshed pod of the namespace of pods, and its uid.
    async fn pod(&self, name: &str, account: &str) -> String {
        self.mesh.account(self.mesh.shop(), account).await;
        let pod = self.mesh.bare_pod(self.mesh.shop(), name, account, free_address(), true).await;
        pod.metadata.uid.expect("the API server gives one")
    }

    async fn ask(&self, headers: HeaderMap) -> Outcome {
        self.port.create(headers, self.csr.as_bytes(), 0).await
    }

    /// The pod's own token, once the control plane has seen the pod.
    async fn good_token(&self, pod: &str, account: &str) -> String {
        let uid = self.pod(pod, account).await;
        let token = self.mesh.token(pod, &uid, account, "gauze").await;
        eventually("the pod's own token is good", async || match self.ask(bearer(&token)).await {
            Outcome { status: status::OK, .. } => Ok(()),
            other => Err(other),
        })
        .await;
        token
    }

    fn identity(&self, account: &str) -> String {
        format!("spiffe://cluster.local/ns/{}/sa/{account}", self.mesh.shop())
    }
}

/// The TLS port of a replica, with the root that stands in the Secret.
async fn port_of(mesh: &KubeMesh<'_>, replica: &Replica) -> TlsPort {
    let roots = secret(mesh).await.expect("it is ready").0;
    TlsPort { address: replica.process.address("grpc"), roots }
}

/// Certificate and key of the root Secret.
async fn secret(mesh: &KubeMesh<'_>) -> Option<(String, String)> {
    let secrets: Api<Secret> = Api::namespaced(mesh.client.clone(), &mesh.system.name);
    let data = secrets.get_opt("gauze-root").await.expect("the API server answers")?.data?;
    let text = |key: &str| data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
    Some((text("tls.crt")?, text("tls.key")?))
}

fn request(params: &CertificateParams, key: &KeyPair) -> String {
    params.serialize_request(key).expect("well-formed").pem().expect("PEM")
}

/// What a token is bound to: kind, name, uid.
type Bound<'a> = Option<(&'a str, &'a str, &'a str)>;

async fn token(
    mesh: &KubeMesh<'_>,
    namespace: &str,
    account: &str,
    audiences: &[&str],
    bound: Bound<'_>,
) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(mesh.client.clone(), namespace);
    let spec = TokenRequestSpec {
        audiences: Some(audiences.iter().map(ToString::to_string).collect()),
        expiration_seconds: Some(600),
        bound_object_ref: bound.map(|(kind, name, uid)| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(kind.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
        }),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
    answer.expect("the API server gives one").status.and_then(|status| status.token).expect("a token")
}
