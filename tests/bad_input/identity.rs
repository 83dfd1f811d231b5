//! Who says that it is somebody else: to the control plane, and in its name. (Tokens and signing requests against a
//! real API server: `apiserver::identity`.)

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use super::stage::Stage;
use super::tls::{Root, leaf};
use crate::harness::enrolment::{ADS, Leaf, TlsPort, bearer, status};
use crate::harness::eventually::{eventually, holds};
use crate::harness::mesh::{NAMESPACE, SidecarOptions, Surroundings, free_address};
use crate::harness::process::Process;

const CONTROL_PLANE: &str = "spiffe://cluster.local/ns/gauze-system/sa/gauze-control-plane";

/// Listens where a proxy looks for the control plane, and counts the bytes that it is told.
struct Impostor {
    address: SocketAddr,
    told: Arc<std::sync::Mutex<(usize, usize)>>,
    task: AbortHandle,
}

impl Impostor {
    async fn start(chain: &str, key: &KeyPair) -> Impostor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![leaf], key)
            .expect("they fit");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let told = Arc::new(std::sync::Mutex::new((0, 0)));
        let counted = Arc::clone(&told);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let accepted = acceptor.accept(stream).await;
                let mut bytes = Vec::new();
                if let Ok(mut stream) = accepted {
                    let _ = stream.read_to_end(&mut bytes).await;
                }
                let mut told = counted.lock().expect("nobody panics with it open");
                told.0 += 1;
                told.1 += bytes.len();
            }
        });
        Impostor { address, told, task: task.abort_handle() }
    }

    /// How often it was dialled, and how many bytes it was told.
    fn told(&self) -> (usize, usize) {
        *self.told.lock().expect("nobody panics with it open")
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn nobody_poses_as_the_control_plane_to_a_proxy() {
    let stage = Stage::start("http").await;
    let root = Root::of(&stage);
    let signed = |names: &[&str]| {
        let key = KeyPair::generate().expect("a key");
        (root.signs(&leaf(names), &key), key)
    };
    let by_itself = {
        let key = KeyPair::generate().expect("a key");
        (leaf(&[CONTROL_PLANE]).self_signed(&key).expect("well-formed").pem(), key)
    };
    let expired = {
        let key = KeyPair::generate().expect("a key");
        let mut params = leaf(&[CONTROL_PLANE]);
        params.not_after = (std::time::SystemTime::now() - std::time::Duration::from_secs(30)).into();
        (root.signs(&params, &key), key)
    };
    for (what, (chain, key)) in [
        ("a leaf of the mesh", signed(&["spiffe://cluster.local/ns/shop/sa/web"])),
        (
            "the control plane's account elsewhere",
            signed(&["spiffe://cluster.local/ns/shop/sa/gauze-control-plane"]),
        ),
        (
            "another account beside the control plane",
            signed(&["spiffe://cluster.local/ns/gauze-system/sa/gauze"]),
        ),
        (
            "the control plane of another trust domain",
            signed(&["spiffe://elsewhere/ns/gauze-system/sa/gauze-control-plane"]),
        ),
        (
            "the control plane and somebody else",
            signed(&[CONTROL_PLANE, "spiffe://cluster.local/ns/shop/sa/web"]),
        ),
        ("a certificate of the right name that signed itself", by_itself),
        ("a certificate of the right name that has expired", expired),
    ] {
        let impostor = Impostor::start(&chain, &key).await;
        let state = stage.mesh.directory().join(".gauze");
        let surroundings = Surroundings {
            control_plane: impostor.address,
            roots: &state.join("trust.pem"),
            token: &state.join("tokens/shop.web-0"),
            socket: &state.join("impostor.sock"),
            namespace: NAMESPACE,
        };
        let arguments = surroundings.arguments("web-0", "web", free_address(), &SidecarOptions::default());
        let mut proxy = Process::start("gauze-proxy", &arguments).await;
        proxy.logs("M1208").await;
        eventually(&format!("{what}: it is dialled again"), async || {
            holds(impostor.told().0 >= 2, impostor.told())
        })
        .await;
        assert_eq!(impostor.told().1, 0, "{what}: it was told something, perhaps the token");
        assert!(proxy.terminate().await.success(), "{what}");
    }
    stage.check().await;
}

#[tokio::test]
async fn configuration_is_given_only_to_the_pod_that_the_certificate_can_be_and_only_its_own() {
    let mut stage = Stage::start("http").await;
    let port = port(&mut stage);
    let root = Root::of(&stage);
    let key = KeyPair::generate().expect("a key");
    let chain = [root.signs(&leaf(&["spiffe://cluster.local/ns/shop/sa/web"]), &key)];
    let listener = "type.googleapis.com/envoy.config.listener.v3.Listener";
    let routes = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    for (what, node, kind, name, wanted, code) in [
        ("its own", "shop/web-0", listener, "inbound/shop/web-0", status::OK, ""),
        ("another pod", "shop/cart-0", listener, "inbound/shop/cart-0", status::PERMISSION_DENIED, "M1201"),
        (
            "a pod that is not",
            "shop/web-9",
            listener,
            "inbound/shop/web-9",
            status::PERMISSION_DENIED,
            "M1201",
        ),
        (
            "a pod of another namespace",
            "admin/web-0",
            listener,
            "inbound/admin/web-0",
            status::PERMISSION_DENIED,
            "M1201",
        ),
        ("no pod", "web-0", listener, "inbound/shop/web-0", status::INVALID_ARGUMENT, "M1201"),
        (
            "how another pod accepts",
            "shop/web-0",
            listener,
            "inbound/shop/cart-0",
            status::PERMISSION_DENIED,
            "M1202",
        ),
        (
            "another namespace's destination",
            "shop/web-0",
            listener,
            "outbound/admin/10.96.0.1:80",
            status::PERMISSION_DENIED,
            "M1202",
        ),
        (
            "another namespace's routes",
            "shop/web-0",
            routes,
            "routes/shop/cart/80/for/admin",
            status::PERMISSION_DENIED,
            "M1202",
        ),
    ] {
        let asked = request(node, kind, name);
        let outcome =
            port.call(Some((&chain, &key)), ADS, HeaderMap::new(), &asked).await.expect("the port answers");
        assert_eq!(outcome.status, wanted, "{what}: {outcome:?}");
        assert!(outcome.message.starts_with(code), "{what}: {outcome:?}");
        if !code.is_empty() {
            stage.mesh.control_plane().logs(code).await;
        }
    }
    stage.check().await;
}

#[tokio::test]
async fn a_certificate_is_for_the_bearer_of_the_token_whatever_the_request_says() {
    let mut stage = Stage::start("http").await;
    let port = port(&mut stage);
    let tokens = stage.mesh.directory().join(".gauze/tokens");
    let token = std::fs::read_to_string(tokens.join("shop.web-0")).expect("a token");
    let key = KeyPair::generate().expect("a key");
    let uri = |id: &str| SanType::URI(id.try_into().expect("ASCII"));
    let mut greedy = CertificateParams::default();
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.subject_alt_names = vec![
        uri("spiffe://cluster.local/ns/shop/sa/cart"),
        uri(CONTROL_PLANE),
        SanType::DnsName("cart.shop.svc".try_into().expect("ASCII")),
    ];
    let csr = greedy.serialize_request(&key).and_then(|csr| csr.pem()).expect("well-formed");
    let outcome = port.create(bearer(token.trim()), csr.as_bytes(), 0).await;
    let leaf = Leaf::read(
        outcome.chain.first().expect("a certificate"),
        &port.roots,
        &key,
        std::time::SystemTime::now(),
    );
    assert_eq!(
        (leaf.names, leaf.authority, leaf.chains),
        (vec!["spiffe://cluster.local/ns/shop/sa/web".to_owned()], false, true)
    );
    for (what, headers, code) in [
        ("no token", HeaderMap::new(), "M1101"),
        ("garbage", bearer("garbage"), "M1102"),
        ("a token without its end", bearer(&token.trim()[..token.trim().len() - 2]), "M1102"),
    ] {
        let outcome = port.create(headers, csr.as_bytes(), 0).await;
        assert_eq!(
            (outcome.status, outcome.chain.len()),
            (status::UNAUTHENTICATED, 0),
            "{what}: {outcome:?}"
        );
        assert!(outcome.message.starts_with(code), "{what}: {outcome:?}");
        stage.mesh.control_plane().logs(code).await;
    }
    stage.check().await;
}

fn port(stage: &mut Stage) -> TlsPort {
    let roots = std::fs::read_to_string(stage.mesh.directory().join(".gauze/trust.pem")).expect("the roots");
    TlsPort { address: stage.mesh.control_plane().address("grpc"), roots }
}

/// Envoy's DeltaDiscoveryRequest: `node.id`, the type, and one name.
fn request(node: &str, kind: &str, name: &str) -> Vec<u8> {
    let field = |number: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).ok().filter(|length| *length < 0x80).expect("a short one");
        [&[number << 3 | 2, length], content].concat()
    };
    [field(1, &field(1, node.as_bytes())), field(2, kind.as_bytes()), field(3, name.as_bytes())].concat()
}
