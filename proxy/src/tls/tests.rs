//! Handshakes over loopback sockets, with an authority of their own.

use std::net::Ipv4Addr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConnection, NamedGroup, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    CertifiedIssuer::self_signed(ca(), KeyPair::generate().unwrap()).unwrap()
}

fn ca() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn id(service_account: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", "shop", service_account)
}

/// A leaf with these URI names, valid from and until so many hours from now.
fn leaf(authority: &Authority, names: &[&str], hours: (i64, i64)) -> Credentials {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let hour = |hours: i64| {
        let offset = Duration::from_secs(3600 * hours.unsigned_abs());
        if hours < 0 { SystemTime::now() - offset } else { SystemTime::now() + offset }
    };
    (params.not_before, params.not_after) = (hour(hours.0).into(), hour(hours.1).into());
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    Credentials {
        chain: vec![certificate.der().clone()],
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        roots: vec![authority.der().clone()],
    }
}

fn workload(authority: &Authority, service_account: &str) -> Credentials {
    leaf(authority, &[&id(service_account).to_string()], (-1, 1))
}

fn tls(credentials: &Credentials) -> Tls {
    let tls = Tls::new("cluster.local");
    tls.set(Some(credentials)).unwrap();
    tls
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

/// Both ends of a handshake. What the server thinks of the client reaches it with its first read.
async fn shake(
    client: &Tls,
    server: &Tls,
    expect: &SpiffeId,
) -> (Result<Stream, TlsError>, Result<Stream, TlsError>) {
    let (near, far) = sockets().await;
    let connecting = async {
        let mut stream = client.connect(near, expect, Alpn::Http2).await?;
        stream.read_u8().await.map(drop).map_err(TlsError::from)?;
        Ok(stream)
    };
    let accepting = async {
        let mut stream = server.accept(Stream::plain(far).unwrap()).await?;
        stream.write_all(b"!").await.map_err(TlsError::Io)?;
        stream.flush().await.map_err(TlsError::Io)?;
        Ok(stream)
    };
    tokio::join!(connecting, accepting)
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let authority = authority();
    let (web, cart) = (workload(&authority, "web"), leaf(&authority, &[&id("cart").to_string()], (-1, 2)));
    let (client, server) = shake(&tls(&web), &tls(&cart), &id("cart")).await;
    let (client, server) = (client.unwrap(), server.unwrap());
    let leaf_expiry = tls(&web).expiry().unwrap(); // the earlier one
    assert_eq!(client.mesh(), Some(&Mesh { peer: id("cart"), alpn: Alpn::Http2, leaf_expiry }));
    assert_eq!(server.mesh(), Some(&Mesh { peer: id("web"), alpn: Alpn::Http2, leaf_expiry }));
    let left = leaf_expiry.duration_since(SystemTime::now()).unwrap();
    assert!((3590..=3600).contains(&left.as_secs()), "{left:?}");
}

#[tokio::test]
async fn who_is_not_as_expected_is_refused_and_both_sides_know_why() {
    let (ours, theirs) = (authority(), authority());
    let web = workload(&ours, "web");
    let of_another_root = Credentials { roots: web.roots.clone(), ..workload(&theirs, "cart") };
    let another_domain = leaf(&ours, &["spiffe://other/ns/shop/sa/cart"], (-1, 1));
    let rows = [
        (
            "another workload",
            workload(&ours, "payments"),
            "the peer is not who it should be: the peer is spiffe://cluster.local/ns/shop/sa/payments, \
             not spiffe://cluster.local/ns/shop/sa/cart",
            "the peer refused the handshake: AccessDenied",
        ),
        (
            "of another root",
            of_another_root,
            "the peer's certificate does not end in a root of this mesh",
            "the peer refused the handshake: UnknownCA",
        ),
        (
            "expired",
            leaf(&ours, &[&id("cart").to_string()], (-2, -1)),
            "the peer's certificate has expired",
            "the peer refused the handshake: CertificateExpired",
        ),
        (
            "not yet valid",
            leaf(&ours, &[&id("cart").to_string()], (1, 2)),
            "the peer's certificate is not valid yet",
            "the peer refused the handshake: CertificateExpired",
        ),
        (
            "of another trust domain",
            another_domain,
            "the peer is not who it should be: the peer is spiffe://other/ns/shop/sa/cart, \
             not spiffe://cluster.local/ns/shop/sa/cart",
            "the peer refused the handshake: AccessDenied",
        ),
    ];
    for (name, cart, refusing, refused) in rows {
        let cart = lenient(&cart);
        let (client, server) = shake(&tls(&web), &cart, &id("cart")).await;
        assert_eq!(client.unwrap_err().to_string(), refusing, "a server that is {name}");
        assert_eq!(server.unwrap_err().to_string(), refused, "a server that is {name}");

        // As a client it may be any workload of the trust domain, and asks for the same of the server.
        let (client, server) = shake(&cart, &tls(&web), &id("web")).await;
        let sides =
            (client.err().map(|error| error.to_string()), server.err().map(|error| error.to_string()));
        let without_particulars = refusing.split("the peer is spiffe").next().unwrap();
        match (name, sides) {
            ("another workload", (client, server)) => assert_eq!((client, server), (None, None)),
            ("of another trust domain", (_, server)) => {
                assert!(server.unwrap().starts_with(without_particulars))
            }
            (_, sides) => assert_eq!(sides, (Some(refused.to_owned()), Some(refusing.to_owned())), "{name}"),
        }
    }
}

/// A proxy of whatever trust domain its leaf is.
fn lenient(credentials: &Credentials) -> Tls {
    let domain = verify::identity_of(&credentials.chain[0]).unwrap().trust_domain;
    let tls = Tls::new(&domain);
    tls.set(Some(credentials)).unwrap();
    tls
}

#[tokio::test]
async fn a_client_without_certificate_or_without_our_protocols_is_refused() {
    let authority = authority();
    let web = workload(&authority, "web");
    let certified = || Some(certified_key(&web, &provider()).unwrap());
    let verifier = || PeerVerifier::new(trust_anchors(&web.roots).unwrap(), Expected::Exactly(id("web")));
    let without_protocols = || {
        let mut config = (*client_config(verifier(), certified(), b"")).clone();
        config.alpn_protocols.clear();
        Arc::new(config)
    };
    let rows = [
        ("certificate", client_config(verifier(), None, b"gauze/h2"), "the peer showed no certificate"),
        (
            "a protocol of ours",
            client_config(verifier(), certified(), b"h2"),
            "the peer offers none of our protocols (ALPN)",
        ),
        ("any protocol", without_protocols(), "the peer offers none of our protocols (ALPN)"),
    ];
    for (name, config, refusal) in rows {
        let (near, far) = sockets().await;
        let connecting = async {
            let mut stream = TlsConnector::from(config).connect(unnamed(), near).await?;
            stream.read_u8().await
        };
        let (client, server) =
            tokio::join!(connecting, async { tls(&web).accept(Stream::plain(far).unwrap()).await });
        assert!(client.is_err(), "without {name}");
        assert_eq!(server.unwrap_err().to_string(), refusal, "without {name}");
    }
}

/// The other features of a handshake, seen by rustls itself.
#[test]
fn a_handshake_is_post_quantum_and_leaves_nothing_to_resume() {
    let authority = authority();
    let web = workload(&authority, "web");
    let live = Live::new(&web, "cluster.local").unwrap();
    let config = client_config(
        PeerVerifier::new(live.roots.clone(), Expected::Exactly(id("web"))),
        Some(live.certified.clone()),
        Alpn::Tcp.id(),
    );
    let mut client = ClientConnection::new(config, unnamed()).unwrap();
    let mut server = ServerConnection::new(live.server.clone()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut &wire[..]).unwrap();
        server.process_new_packets().unwrap();
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut &wire[..]).unwrap();
        client.process_new_packets().unwrap();
    }
    let group = client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(client.tls13_tickets_received(), 0);
}

#[tokio::test]
async fn new_credentials_are_for_new_handshakes_only() {
    let (old, new) = (authority(), authority());
    let (client, server) = (tls(&workload(&old, "web")), tls(&workload(&old, "cart")));
    let (open, other_end) = shake(&client, &server, &id("cart")).await;
    let (mut open, mut other_end) = (open.unwrap(), other_end.unwrap());

    client.set(Some(&workload(&new, "web"))).unwrap();
    let (refused, _) = shake(&client, &server, &id("cart")).await;
    assert!(matches!(refused, Err(TlsError::UnknownRoot)));
    server.set(Some(&workload(&new, "cart"))).unwrap();
    assert!(shake(&client, &server, &id("cart")).await.0.is_ok());

    open.write_all(b"still").await.unwrap();
    open.shutdown().await.unwrap();
    let mut heard = String::new();
    other_end.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "still");

    client.set(None).unwrap();
    assert!(matches!(shake(&client, &server, &id("cart")).await.0, Err(TlsError::NoCredentials)));
}

#[tokio::test]
async fn a_chain_may_lead_over_an_intermediate() {
    let root = authority();
    let intermediate = CertifiedIssuer::signed_by(ca(), KeyPair::generate().unwrap(), &root).unwrap();
    let mut cart = workload(&intermediate, "cart");
    cart.chain.push(intermediate.der().clone());
    cart.roots = vec![root.der().clone()];
    let (client, server) = shake(&tls(&workload(&root, "web")), &tls(&cart), &id("cart")).await;
    assert_eq!((client.is_ok(), server.is_ok()), (true, true));
}

#[tokio::test]
async fn one_direction_can_end_before_the_other() {
    let authority = authority();
    let (web, cart) = (tls(&workload(&authority, "web")), tls(&workload(&authority, "cart")));
    let (client, server) = shake(&web, &cart, &id("cart")).await;
    for (mut first, mut second) in [(client.unwrap(), server.unwrap())] {
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        let mut heard = String::new();
        second.readable().await.unwrap();
        second.read_to_string(&mut heard).await.unwrap();
        second.write_all(b"answer").await.unwrap();
        second.shutdown().await.unwrap();
        first.readable().await.unwrap();
        first.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "questionanswer");
    }
}

#[test]
fn credentials_that_do_not_fit_are_refused_and_the_old_ones_stay() {
    let authority = authority();
    let web = || workload(&authority, "web");
    let name = id("web").to_string();
    let rows = [
        ("no leaf", Credentials { chain: vec![], ..web() }, "the certificate chain is empty"),
        (
            "another's key",
            Credentials { key: workload(&authority, "x").key, ..web() },
            "the key does not belong to the certificate",
        ),
        ("no roots", Credentials { roots: vec![], ..web() }, "the set of roots is empty"),
        (
            "a broken root",
            Credentials { roots: vec![vec![1, 2].into()], ..web() },
            "root 0 of the set cannot be read",
        ),
        ("no name", leaf(&authority, &[], (-1, 1)), "the certificate has 0 URI names instead of one"),
        (
            "two names",
            leaf(&authority, &[&name, &name], (-1, 1)),
            "the certificate has 2 URI names instead of one",
        ),
        ("no SPIFFE id", leaf(&authority, &["https://web"], (-1, 1)), "the certificate's name `https://web`"),
        (
            "another domain",
            leaf(&authority, &["spiffe://other/ns/shop/sa/web"], (-1, 1)),
            "spiffe://other/ns/shop/sa/web is not of trust domain `cluster.local`",
        ),
    ];
    for (name, credentials, problem) in rows {
        let tls = tls(&web());
        let expiry = tls.expiry();
        let refused = tls.set(Some(&credentials)).unwrap_err().to_string();
        assert!(refused.starts_with(problem), "{name}: {refused}");
        assert_eq!(tls.expiry(), expiry);
    }
}

/// The first bytes that a client sends.
fn first_bytes(alpn: &[&str], server_name: ServerName<'static>) -> Vec<u8> {
    let authority = authority();
    let anchors = trust_anchors(&[authority.der().clone()]).unwrap();
    let mut config =
        (*client_config(PeerVerifier::new(anchors, Expected::Exactly(id("web"))), None, b"")).clone();
    config.alpn_protocols = alpn.iter().map(|id| id.as_bytes().to_vec()).collect();
    config.enable_sni = true;
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), server_name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_client_hello_tells_the_mesh_from_the_app() {
    let named = || ServerName::try_from("db.example").unwrap();
    let rows = [
        ("a proxy", first_bytes(&["gauze/tcp"], unnamed()), Hello::Mesh),
        ("a proxy of a later version", first_bytes(&["gauze/h9", "gauze/h2"], unnamed()), Hello::Mesh),
        ("an app", first_bytes(&["h2", "http/1.1"], named()), Hello::Foreign),
        ("an app without protocols", first_bytes(&[], unnamed()), Hello::Foreign),
        ("no TLS", b"\x16\x03\x01\x00\x05hello".to_vec(), Hello::Foreign),
    ];
    for (name, bytes, kind) in rows {
        assert_eq!(hello(&bytes), kind, "{name}");
    }
}

#[test]
fn a_client_hello_that_is_cut_needs_more() {
    let bytes = first_bytes(&["gauze/h2"], unnamed());
    for cut in 0..bytes.len() {
        assert_eq!(hello(&bytes[..cut]), Hello::NeedMore, "cut at {cut}");
    }
}
