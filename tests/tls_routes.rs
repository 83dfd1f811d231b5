//! TLSRoutes: the app's own TLS goes by its server name, through both sidecars, and ends at the app.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::configuration::find;
use crate::harness::eventually::{PATIENCE, eventually, holds};
use crate::harness::mesh::{Mesh, Sidecar, SidecarOptions, free_address};

/// The names of the two certificates; the third is nobody's.
const NAMES: [&[&str]; 2] = [&["a.example", "other.example"], &["b.example", "x.b.example"]];

/// Two TLS servers behind sidecars, and `web`, which dials the Service `vault`.
struct Vault {
    mesh: Mesh,
    web: Sidecar,
    stores: Vec<Sidecar>,
    servers: Vec<Server>,
    authority: Authority,
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// Who signs the certificates of the two servers, and what their client trusts.
struct Authority(Issuer);

/// Answers its letter, then bytes with the same bytes.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a root"))
    }

    fn acceptor(&self, names: &[&str]) -> TlsAcceptor {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .expect("key and certificate agree");
        TlsAcceptor::from(Arc::new(config))
    }

    /// A client that believes nobody but the servers whom this authority names.
    fn connector(&self, sends_server_name: bool) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a root");
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.enable_sni = sends_server_name;
        // What it would speak inside is not to be taken for HTTP.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl Server {
    async fn start(letter: u8, acceptor: TlsAcceptor) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Relaxed);
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await?;
                    stream.write_all(&[letter]).await?;
                    let mut heard = [0; 64];
                    loop {
                        let length = stream.read(&mut heard).await?;
                        if length == 0 {
                            return stream.shutdown().await;
                        }
                        stream.write_all(&heard[..length]).await?;
                    }
                });
            }
        });
        Server { address, connections }
    }
}

impl Vault {
    /// `port_name` says what the port of `vault` is declared to speak.
    async fn start(port_name: &str) -> Vault {
        let (mesh, authority) = (Mesh::start().await, Authority::new());
        let (mut stores, mut servers) = (Vec::new(), Vec::new());
        for (letter, names) in ["a", "b"].into_iter().zip(NAMES) {
            let server = Server::start(letter.as_bytes()[0], authority.acceptor(names)).await;
            let address = free_address();
            let inbound = format!("{address}={}", server.address);
            let arguments = ["--inbound", inbound.as_str()];
            let options = SidecarOptions { arguments: &arguments, ..Default::default() };
            let app = format!("store-{letter}");
            let store = mesh.pod_at(address, &format!("{app}-0"), &app, options).await;
            mesh.service(&app, mesh.service_address(), "any", &[&store]);
            stores.push(store);
            servers.push(server);
        }
        let vault = mesh.service_address();
        mesh.service("vault", vault, port_name, &[&stores[0]]);
        let options =
            SidecarOptions { dials: &[vault], arguments: &["--access-log", "json"], ..Default::default() };
        let web = mesh.pod("web-0", "web", None, options).await;
        for sidecar in stores.iter().chain([&web]) {
            sidecar.ready().await;
        }
        Vault { mesh, web, stores, servers, authority }
    }

    fn route(&self, name: &str, hostnames: &str, weights: [u32; 2]) {
        let [a, b] = weights;
        self.mesh.apply(
            &format!("route-{name}.yaml"),
            &format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
                 parentRefs: [{{group: '', kind: Service, name: vault}}]\n  hostnames: {hostnames}\n  rules:\n  \
                 - backendRefs: [{{name: store-a, port: 80, weight: {a}}}, {{name: store-b, port: 80, weight: {b}}}]\n"
            ),
        );
    }

    /// A connection that asks for a server name, and who serves it. It is verified by `verified`, where it asks for none.
    async fn connect(
        &self,
        asked: Option<&str>,
        verified: &'static str,
    ) -> Result<(char, TlsStream<TcpStream>), String> {
        let connector = self.authority.connector(asked.is_some());
        let name = asked.unwrap_or(verified).to_owned();
        let name = ServerName::try_from(name).expect("a name");
        let connecting = async {
            let stream = TcpStream::connect(self.web.outbound[0]).await?;
            let mut stream = connector.connect(name, stream).await?;
            let mut letter = [0];
            stream.read_exact(&mut letter).await?;
            std::io::Result::Ok((char::from(letter[0]), stream))
        };
        let connected = timeout(PATIENCE, connecting).await.expect("an answer or an end");
        connected.map_err(|error| error.to_string())
    }

    async fn serves(&self, asked: &str) -> Result<char, String> {
        self.connect(Some(asked), "").await.map(|(letter, _)| letter)
    }

    /// Waits until this server name leads there.
    async fn is_live(&self, asked: &str, letter: char) {
        eventually("the route is live", async || {
            let served = self.serves(asked).await;
            holds(served == Ok(letter), served)
        })
        .await;
    }

    fn connections(&self) -> Vec<usize> {
        self.servers.iter().map(|server| server.connections.load(Relaxed)).collect()
    }
}

#[tokio::test]
async fn tls_goes_by_its_server_name_and_ends_at_the_app_and_what_no_route_names_is_closed() {
    // Of the second port nothing is declared: there it is the first bytes that say that it is TLS.
    for port_name in ["tls-vault", "any"] {
        let vault = Vault::start(port_name).await;
        // Without routes, to the Service itself.
        assert_eq!(vault.serves("a.example").await, Ok('a'), "{port_name}");
        vault.route("b", "[b.example, '*.b.example']", [0, 1]);
        vault.is_live("b.example", 'b').await;
        vault.route("a", "[a.example]", [1, 0]);
        vault.is_live("a.example", 'a').await;
        assert_eq!(vault.serves("x.b.example").await, Ok('b'), "{port_name}");
        let before = vault.connections();
        for asked in [Some("other.example"), None] {
            let served = vault.connect(asked, "a.example").await.map(|(letter, _)| letter);
            assert!(served.is_err(), "{port_name} {asked:?}: {served:?}");
        }
        assert_eq!(vault.connections(), before, "{port_name}: no server heard of them");
        // Bytes that are no TLS are no matter of a TLSRoute.
        let mut plain = TcpStream::connect(vault.web.outbound[0]).await.expect("a connection");
        plain.write_all(b"\x00no TLS").await.expect("open");
        eventually("the Service itself hears bytes that are no TLS", async || {
            holds(vault.connections()[0] == before[0] + 1, vault.connections())
        })
        .await;
        told(&vault).await;
    }
}

/// What log, metrics and access log say of it.
async fn told(vault: &Vault) {
    let refused = ["direction=\"outbound\"", "protocol=\"tls\"", "error=\"M3030\""];
    eventually("the refusals are counted", async || {
        // Those while the routes became live count too.
        let count = vault.web.metric("gauze_streams_total", &refused).await;
        holds(count >= 2.0, count)
    })
    .await;
    let log = vault.web.process.log();
    assert!(log.contains("M3030") && log.contains("`other.example` at Service/shop/vault"), "{log}");
    let mut lines = Vec::new();
    eventually("the access log names the server name and where it led", async || {
        lines.extend(vault.web.process.new_lines());
        let mut lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.find(|line| line["server_name"] == "x.b.example");
        let led_to = line.as_ref().map(|line| (line["cluster"].clone(), line["tls"].clone()));
        holds(led_to == Some(("cluster/shop/store-b/80".into(), "mutual".into())), line)
    })
    .await;
    for store in &vault.stores {
        let clear = store.metric("gauze_streams_total", &["direction=\"inbound\"", "tls=\"none\""]).await;
        assert_eq!(clear, 0.0, "{}: something came in clear", store.pod);
    }
}

#[tokio::test]
async fn an_edit_moves_new_tls_connections_and_leaves_open_ones_and_weights_share_them_out() {
    let vault = Vault::start("tls-vault").await;
    vault.route("all", "['*.example']", [1, 0]);
    vault.is_live("a.example", 'a').await;
    let (_, mut open) = vault.connect(Some("a.example"), "").await.expect("a connection");
    vault.route("all", "['*.example']", [0, 1]);
    vault.is_live("b.example", 'b').await;
    open.write_all(b"still here").await.expect("open");
    let mut heard = [0; 10];
    timeout(PATIENCE, open.read_exact(&mut heard)).await.expect("in time").expect("it is open");
    assert_eq!(&heard, b"still here");

    vault.route("all", "['*.example']", [1, 3]);
    // The certificate tells who served: that of the other server is refused by the client, and counted there.
    vault.is_live("a.example", 'a').await;
    let before = vault.connections();
    for _ in 0..80 {
        let _ = vault.serves("a.example").await;
    }
    let now = vault.connections();
    let shares = [now[0] - before[0], now[1] - before[1]];
    assert_eq!(shares[0] + shares[1], 80);
    // 20 of 80 are expected; fewer than 4 or more than 40 once in a hundred thousand runs.
    assert!((4..=40).contains(&shares[0]), "{shares:?}");
}

#[tokio::test]
async fn a_policy_judges_tls_that_a_route_has_sent_and_no_byte_of_it_reaches_the_app() {
    let vault = Vault::start("tls-vault").await;
    vault.route("a", "[a.example]", [1, 0]);
    vault.route("b", "[b.example]", [0, 1]);
    vault.is_live("a.example", 'a').await;
    vault.is_live("b.example", 'b').await;
    vault.mesh.apply(
        "policy.yaml",
        "apiVersion: gauze.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: no-web, namespace: shop}\nspec:\n  \
         targetRefs: [{kind: Service, name: store-b}]\n  action: Deny\n  rules:\n  \
         - from: [{identities: ['spiffe://cluster.local/ns/shop/sa/web']}]\n",
    );
    eventually("the policy is live", async || {
        let served = vault.serves("b.example").await;
        holds(served.is_err(), served)
    })
    .await;
    let before = vault.connections();
    assert!(vault.serves("b.example").await.is_err());
    assert_eq!((vault.serves("a.example").await, vault.connections()[1]), (Ok('a'), before[1]));
    let denied = ["direction=\"inbound\"", "error=\"M4006\""];
    assert!(vault.stores[1].metric("gauze_streams_total", &denied).await >= 1.0);
}

#[tokio::test]
async fn the_status_of_a_tls_route_says_that_it_is_live_and_names_what_is_wrong() {
    let vault = Vault::start("any").await;
    vault.route("good", "[a.example]", [1, 0]);
    vault.route("late", "[a.example, 'B.example', b.example]", [0, 1]);
    vault.is_live("b.example", 'b').await;
    for (name, wanted) in [
        ("good", &["Programmed", "1/1"][..]),
        ("late", &["spec.hostnames[0]", "M5007", "spec.hostnames[1]", "M1006", "1/1"]),
    ] {
        eventually(&format!("the status of {name}"), async || {
            let objects = vault.mesh.ask("/objects").await;
            let said = find(&objects, "TLSRoute", name).map(ToString::to_string).unwrap_or_default();
            holds(wanted.iter().all(|part| said.contains(part)), said)
        })
        .await;
    }
}
