//! Somebody else's mutating webhook: it adds a container with a probe, once, to each pod of one namespace.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{Api, DeleteParams, PostParams};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;
use tokio_rustls::TlsAcceptor;

pub(crate) struct OtherWebhook {
    address: SocketAddr,
    certificate: String,
    calls: Arc<AtomicUsize>,
    name: OnceCell<String>,
}

impl OtherWebhook {
    pub(crate) async fn start() -> OtherWebhook {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = made.signing_key.serialize_der().try_into().expect("a key");
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("they fit each other");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let webhook = OtherWebhook {
            address: listener.local_addr().expect("an address"),
            certificate: made.cert.pem(),
            calls: Arc::default(),
            name: OnceCell::new(),
        };
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), Arc::clone(&webhook.calls)));
        webhook
    }

    /// Lets the API server call it for the pods of this namespace; by its name after ours.
    pub(crate) async fn configure(
        &self,
        api: &Api<MutatingWebhookConfiguration>,
        name: &str,
        namespace: &str,
    ) {
        let configuration = json!({
            "metadata": { "name": name },
            "webhooks": [{
                "name": "other.example.test",
                "clientConfig": {
                    "url": format!("https://localhost:{}/", self.address.port()),
                    "caBundle": ByteString(self.certificate.clone().into_bytes()),
                },
                "rules": [{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"] }],
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
            }],
        });
        let configuration = serde_json::from_value(configuration).expect("a configuration");
        api.create(&PostParams::default(), &configuration).await.expect("it is accepted");
        self.name.set(name.to_owned()).expect("it is configured once");
        self.is_called(api, namespace).await;
    }

    /// Waits until the API server has read the configuration.
    async fn is_called(&self, api: &Api<MutatingWebhookConfiguration>, namespace: &str) {
        let pods: Api<k8s_openapi::api::core::v1::Pod> =
            Api::namespaced(api.clone().into_client(), namespace);
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        let pod = super::pod("probe", &json!({}), &json!({}));
        super::eventually("the other webhook is called", async || {
            pods.create(&dry_run, &pod).await.map_err(|error| error.to_string())?;
            super::holds(self.calls() > 0, "not yet".to_owned())
        })
        .await;
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) async fn forget(&self, api: &Api<MutatingWebhookConfiguration>) {
        let name = self.name.get().expect("it was configured");
        api.delete(name, &DeleteParams::default()).await.expect("it is deleted");
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, calls: Arc<AtomicUsize>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(carry(stream, acceptor.clone(), Arc::clone(&calls)));
    }
}

async fn carry(stream: TcpStream, acceptor: TlsAcceptor, calls: Arc<AtomicUsize>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request: Request<Incoming>| {
        calls.fetch_add(1, Ordering::Relaxed);
        async move { Ok::<_, Infallible>(answer(request).await) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let review: Value = serde_json::from_slice(&body).expect("a review");
    let probe = json!({ "httpGet": { "path": "/", "port": 9090 } });
    let added = json!({ "name": "added", "image": "added", "readinessProbe": probe });
    let patch = json!([{ "op": "add", "path": "/spec/containers/-", "value": added }]);
    let response = json!({
        "uid": review["request"]["uid"], "allowed": true, "patchType": "JSONPatch",
        // A list of numbers is bytes to the API server, as is base64.
        "patch": patch.to_string().into_bytes(),
    });
    let answer =
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response });
    Response::builder()
        .header("content-type", "application/json")
        .body(Full::from(answer.to_string()))
        .expect("well-formed")
}
