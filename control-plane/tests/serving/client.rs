//! A control plane in this process, in a directory of its own, and clients of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use gauze_control_plane::logging::Logging;
use gauze_control_plane::state::StateDirectory;
use gauze_control_plane::tokens::Tokens;
use gauze_control_plane::{ControlPlane, Settings};
use gauze_model::SpiffeId;
use gauze_xds::certificate::{CREATE_CERTIFICATE, CertificateRequest, CertificateResponse};
use gauze_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

pub(crate) const CONTROL_PLANE: &str = "spiffe://cluster.local/ns/gauze-system/sa/gauze-control-plane";

/// Longer than anything here takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running control plane.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    directory: PathBuf,
    stop: oneshot::Sender<()>,
    served: JoinHandle<anyhow::Result<()>>,
}

/// A directory of YAML with the pods `shop/web-0` and `shop/cart-0`, and a Service for the latter.
pub(crate) fn shop() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "web.yaml", &pod("shop", "web-0", "web", "10.1.0.1"));
    write(directory.path(), "cart.yaml", &pod("shop", "cart-0", "cart", "10.1.0.2"));
    write(directory.path(), "cart-service.yaml", &service("cart", "10.96.0.2", 8080));
    directory
}

pub(crate) fn pod(namespace: &str, name: &str, account: &str, address: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{namespace: {namespace}, name: {name}, labels: {{app: {account}}}}}
spec:
  serviceAccountName: {account}
  initContainers: [{{name: gauze-proxy, image: gauze-proxy, restartPolicy: Always}}]
  containers: [{{name: app, image: app, ports: [{{containerPort: 8080}}]}}]
status:
  phase: Running
  podIP: {address}
  podIPs: [{{ip: {address}}}]
  conditions: [{{type: Ready, status: \"True\"}}]
"
    )
}

pub(crate) fn service(name: &str, address: &str, target_port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{namespace: shop, name: {name}}}
spec:
  clusterIP: {address}
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: {target_port}}}]
"
    )
}

/// Writes a file as editors do: whole, by renaming.
pub(crate) fn write(directory: &Path, name: &str, text: &str) {
    let draft = directory.join(format!(".{name}.draft"));
    std::fs::write(&draft, text).unwrap();
    std::fs::rename(draft, directory.join(name)).unwrap();
}

impl Running {
    pub(crate) async fn start(directory: &Path) -> Running {
        Running::try_start(directory, &[]).await.unwrap()
    }

    pub(crate) async fn start_with(directory: &Path, flags: &[&str]) -> Running {
        Running::try_start(directory, flags).await.unwrap()
    }

    pub(crate) async fn try_start(directory: &Path, flags: &[&str]) -> anyhow::Result<Running> {
        let directory = directory.to_owned();
        let arguments = ["gauze-control-plane", "--directory", directory.to_str().unwrap()];
        let settings = Settings::try_parse_from(arguments.iter().chain(flags)).unwrap();
        let control_plane = ControlPlane::start(&settings, Logging::none()).await?;
        let line: Value = serde_json::from_str(&control_plane.listening().unwrap()).unwrap();
        let address = |of: &str| line["listening"][of][0].as_str().unwrap().parse().unwrap();
        let (address, metrics) = (address("grpc"), address("metrics"));
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(control_plane.serve(async move { drop(stopped.await) }));
        Ok(Running { address, metrics, directory, stop, served })
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(PATIENCE, self.served).await.unwrap().unwrap().unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(".gauze").join(name)
    }

    pub(crate) fn file(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The key that signs this directory's tokens.
    pub(crate) fn tokens(&self) -> Tokens {
        Tokens::open(&StateDirectory::open(self.directory.join(".gauze")).unwrap()).unwrap()
    }

    /// A connection with or without a certificate of the mesh.
    pub(crate) async fn connect(&self, credentials: Option<Credentials>) -> Channel {
        self.try_connect(credentials).await.unwrap()
    }

    pub(crate) async fn try_connect(
        &self,
        credentials: Option<Credentials>,
    ) -> Result<Channel, tonic::transport::Error> {
        let connector = TlsConnector::from(Arc::new(client_config(&self.file("trust.pem"), credentials)));
        let address = self.address;
        let dial = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("control-plane").unwrap();
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        // A small window: a client that does not read is noticed soon.
        let endpoint = Endpoint::from_static("http://gauze-control-plane").initial_stream_window_size(65_535);
        endpoint.connect_with_connector(dial).await
    }

    /// Gets a certificate as `pod`'s proxy does: with a fresh key and the token of the pod's file.
    pub(crate) async fn enroll(&self, pod: &str) -> Credentials {
        let token = self.file(&format!("tokens/{pod}"));
        let key = KeyPair::generate().unwrap();
        let response = self.create_certificate(Some(&token), &request(&key)).await.unwrap();
        Credentials::new(&response.cert_chain, &key)
    }

    pub(crate) async fn create_certificate(
        &self,
        token: Option<&str>,
        csr: &str,
    ) -> Result<CertificateResponse, Status> {
        let mut grpc = Grpc::new(self.connect(None).await);
        grpc.ready().await.unwrap();
        let csr = csr.to_owned();
        let mut request = Request::new(CertificateRequest { csr, validity_duration: 0, metadata: None });
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().map_err(|_| Status::internal("no header value"))?;
            request.metadata_mut().insert("authorization", value);
        }
        let path = PathAndQuery::from_static(CREATE_CERTIFICATE);
        let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
        grpc.unary(request, path, codec).await.map(tonic::Response::into_inner)
    }

    /// Opens a configuration stream.
    pub(crate) async fn stream(&self, credentials: Option<Credentials>) -> Result<AdsStream, Status> {
        let channel = self.connect(credentials).await;
        let (requests, receiver) = mpsc::channel(64);
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.unwrap();
        let path = PathAndQuery::from_static(gauze_control_plane::ads::DELTA);
        let codec = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
        let request = Request::new(ReceiverStream::new(receiver));
        let responses = grpc.streaming(request, path, codec).await?.into_inner();
        Ok(AdsStream { requests, responses })
    }
}

/// A configuration stream.
pub(crate) struct AdsStream {
    pub(crate) requests: mpsc::Sender<DeltaDiscoveryRequest>,
    pub(crate) responses: Streaming<DeltaDiscoveryResponse>,
}

impl AdsStream {
    pub(crate) async fn send(&self, requests: impl IntoIterator<Item = DeltaDiscoveryRequest>) {
        for request in requests {
            self.requests.send(request).await.unwrap();
        }
    }

    /// The next response, or how the stream ended.
    pub(crate) async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let next = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        next.expect("no response in time")?.ok_or_else(|| Status::ok("the stream ended"))
    }
}

/// A request for `names` of the listener's kind, from the pod `node_id`.
pub(crate) fn asks_for(node_id: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(gauze_xds::Node { id: node_id.to_owned(), ..Default::default() }),
        type_url: gauze_xds::type_url(gauze_model::Kind::Listener).to_owned(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

/// A plain signing request.
pub(crate) fn request(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

/// A chain and its key.
pub(crate) struct Credentials {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    fn new(chain: &[String], key: &KeyPair) -> Credentials {
        let chain = chain.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap());
        Credentials { chain: chain.collect(), key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
    }

    /// Who the leaf is for.
    pub(crate) fn identity(&self) -> SpiffeId {
        let leaf = webpki::EndEntityCert::try_from(&self.chain[0]).unwrap();
        leaf.valid_uri_names().next().unwrap().parse().unwrap()
    }
}

fn client_config(trust: &str, credentials: Option<Credentials>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(trust.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = aws_lc_rs::default_provider();
    let algorithms = provider.signature_verification_algorithms;
    let config = ClientConfig::builder_with_provider(Arc::<CryptoProvider>::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(IsControlPlane { roots, algorithms }));
    let mut config = match credentials {
        Some(Credentials { chain, key }) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// The server must chain to the roots and be the control plane, as a proxy demands.
#[derive(Debug)]
struct IsControlPlane {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for IsControlPlane {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        let names = webpki::EndEntityCert::try_from(leaf).unwrap();
        assert_eq!(names.valid_uri_names().collect::<Vec<_>>(), [CONTROL_PLANE]);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("the port speaks TLS 1.3 only")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
