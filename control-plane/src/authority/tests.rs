use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;

use profile::BACKDATED;

const LIFE: Duration = Duration::from_secs(24 * 3600);

fn state() -> (tempfile::TempDir, StateDirectory) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDirectory::open(directory.path().join(".gauze")).unwrap();
    (directory, state)
}

fn open(state: &StateDirectory) -> Result<Authority, AuthorityError> {
    Authority::open(state, "cluster.local", LIFE, SystemTime::now())
}

fn web() -> SpiffeId {
    SpiffeId::new("cluster.local", "shop", "web")
}

fn request(params: &CertificateParams, key: &KeyPair) -> String {
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

/// Verifies a chain in PEM as a peer would, and returns the URIs of its leaf.
fn verified_names(
    authority: &Authority,
    chain: &[String],
    at: SystemTime,
) -> Result<Vec<String>, webpki::Error> {
    let leaf = CertificateDer::from_pem_slice(chain[0].as_bytes()).unwrap();
    let leaf = webpki::EndEntityCert::try_from(&leaf)?;
    let anchor = webpki::anchor_from_trusted_cert(authority.root()).unwrap();
    let now = UnixTime::since_unix_epoch(since_epoch(at));
    for usage in [webpki::KeyUsage::client_auth(), webpki::KeyUsage::server_auth()] {
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            std::slice::from_ref(&anchor),
            &[],
            now,
            usage,
            None,
            None,
        )?;
    }
    Ok(leaf.valid_uri_names().map(str::to_owned).collect())
}

#[test]
fn a_restart_keeps_the_root() {
    let (_directory, state) = state();
    let first = open(&state).unwrap().root().clone();
    assert_eq!(open(&state).unwrap().root(), &first);
    assert_eq!(state.read("trust.pem").unwrap(), state.read("root.crt").unwrap());
}

#[test]
fn many_starts_at_once_make_one_root() {
    let (_directory, state) = state();
    let starts: Vec<_> = (0..8).map(|_| state.clone()).collect();
    let threads: Vec<_> = starts
        .into_iter()
        .map(|state| std::thread::spawn(move || open(&state).unwrap().root().to_vec()))
        .collect();
    let roots: std::collections::BTreeSet<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert_eq!(roots.len(), 1);
}

#[test]
fn a_start_that_was_killed_half_way_is_made_good() {
    let (_directory, state) = state();
    state.replace(ROOT_CERTIFICATE, "written, but the key was not").unwrap();
    open(&state).unwrap();
}

#[test]
fn a_root_that_cannot_sign_is_refused_with_the_place_named() {
    let (_directory, state) = state();
    open(&state).unwrap();
    let (_other_directory, other) = self::state();
    open(&other).unwrap();

    state.replace(ROOT_KEY, &other.read(ROOT_KEY).unwrap().unwrap()).unwrap();
    let refused = open(&state).err().unwrap().to_string();
    assert!(
        refused.starts_with("M1106: root.key and root.crt in ") && refused.contains(".gauze"),
        "{refused}"
    );
    assert!(refused.ends_with("cannot be used: the key is not the certificate's"), "{refused}");

    std::fs::remove_file(state.path(ROOT_CERTIFICATE)).unwrap();
    let refused = open(&state).err().unwrap().to_string();
    assert!(refused.contains("no root.crt"), "{refused}");
}

/// A root whose certificate was changed before it was signed.
fn root_with(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> RootPem {
    let mut params = profile::root("cluster.local", SystemTime::now()).unwrap();
    change(&mut params);
    RootPem { key: key.serialize_pem(), certificate: params.self_signed(key).unwrap().pem() }
}

fn from_pem(root: &RootPem) -> Result<Authority, RootProblem> {
    Authority::from_pem(root, LIFE, SystemTime::now())
}

#[test]
fn a_root_is_refused_if() {
    let now = SystemTime::now();
    let good = RootPem::create("cluster.local", now).unwrap();
    let year = |year| rcgen::date_time_ymd(year, 1, 1);
    let of = |change: fn(&mut CertificateParams)| root_with(&key(), change);
    for (why, root, expected) in [
        ("it has no key", RootPem { key: String::new(), ..good.clone() }, "the key is not a private key"),
        (
            "its key is a certificate",
            RootPem { key: good.certificate.clone(), ..good.clone() },
            "the key is not",
        ),
        (
            "its certificate is garbage",
            RootPem { certificate: "garbage".to_owned(), ..good.clone() },
            "not an X.509",
        ),
        (
            "its certificate is a key",
            RootPem { certificate: good.key.clone(), ..good.clone() },
            "not an X.509",
        ),
        (
            "its key is another's",
            RootPem { key: key().serialize_pem(), ..good.clone() },
            "not the certificate's",
        ),
        ("it is no CA", of(|p| p.is_ca = IsCa::ExplicitNoCa), "not one of an authority"),
        ("it does not say whether it is a CA", of(|p| p.is_ca = IsCa::NoCa), "not one of an authority"),
        ("it may not sign", of(|p| p.key_usages = vec![KeyUsagePurpose::CrlSign]), "not one of an authority"),
        ("it has expired", root_with(&key(), |p| p.not_after = year(2020)), "expired"),
        ("it is not valid yet", root_with(&key(), |p| p.not_before = year(2090)), "valid only from"),
    ] {
        let refused = from_pem(&root).err().expect(why).to_string();
        assert!(refused.contains(expected), "{why}: {refused}");
    }
}

/// What cert-manager, openssl and step make.
#[test]
fn a_root_of_another_kind_of_key_signs_as_well() {
    let anything = || request(&CertificateParams::default(), &key());
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let authority = from_pem(&root_with(&key, |_| ())).unwrap();
        let now = SystemTime::now();
        let chain = authority.sign(&anything(), &web(), None, now).unwrap();
        assert_eq!(verified_names(&authority, &chain, now), Ok(vec![web().to_string()]), "{algorithm:?}");
    }
}

#[test]
fn only_the_first_certificate_of_a_root_is_trusted() {
    let root = RootPem::create("cluster.local", SystemTime::now()).unwrap();
    let other = RootPem::create("cluster.local", SystemTime::now()).unwrap();
    let chain =
        RootPem { certificate: format!("# mine\n{}{}", root.certificate, other.certificate), ..root.clone() };
    assert_eq!(from_pem(&chain).unwrap().roots(), root.certificate);
}

#[test]
fn a_leaf_does_not_outlive_the_root() {
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let end = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(now + hour);
    let authority = from_pem(&root_with(&key(), |params| params.not_after = end)).unwrap();
    let request = request(&CertificateParams::default(), &key());
    let chain = authority.sign(&request, &web(), None, now).unwrap();
    assert!(verified_names(&authority, &chain, now + hour + Duration::from_secs(2)).is_err());
    let refused = authority.sign(&request, &web(), None, now + hour);
    assert_eq!(refused, Err(RequestError::Signing("the root has expired".to_owned())));
}

/// The webhook's leaf chains to the mesh's root, so it must be worth nothing inside the mesh.
#[test]
fn a_leaf_by_dns_names_is_a_server_and_nobody_in_the_mesh() {
    let authority = from_pem(&RootPem::create("cluster.local", SystemTime::now()).unwrap()).unwrap();
    let name = "gauze-control-plane.gauze-system.svc";
    let leaf = authority.credentials(&Subject::Server(vec![name.to_owned()]), SystemTime::now()).unwrap();
    let leaf = webpki::EndEntityCert::try_from(&leaf.chain[0]).unwrap();
    assert_eq!(leaf.valid_dns_names().collect::<Vec<_>>(), [name]);
    assert_eq!(leaf.valid_uri_names().count(), 0);
    let anchor = webpki::anchor_from_trusted_cert(authority.root()).unwrap();
    let now = UnixTime::now();
    let verify = |usage| {
        let anchors = std::slice::from_ref(&anchor);
        leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, anchors, &[], now, usage, None, None).is_ok()
    };
    assert!(verify(webpki::KeyUsage::server_auth()));
    assert!(!verify(webpki::KeyUsage::client_auth()));
}

#[test]
fn the_key_is_not_printed() {
    let root = RootPem::create("cluster.local", SystemTime::now()).unwrap();
    assert!(!format!("{root:?}").contains("PRIVATE"));
}

#[test]
fn only_the_public_key_is_taken_from_a_request() {
    let (_directory, state) = state();
    let authority = open(&state).unwrap();
    let key = key();
    let mut greedy = CertificateParams::new(vec!["payments.example".to_owned()]).unwrap();
    greedy
        .subject_alt_names
        .push(SanType::URI("spiffe://cluster.local/ns/shop/sa/payments".try_into().unwrap()));
    greedy.distinguished_name.push(DnType::CommonName, "payments");
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];

    let now = SystemTime::now();
    let chain = authority.sign(&request(&greedy, &key), &web(), None, now).unwrap();
    assert_eq!(verified_names(&authority, &chain, now), Ok(vec![web().to_string()]));
    let leaf = CertificateDer::from_pem_slice(chain[0].as_bytes()).unwrap();
    assert!(!leaf.windows(8).any(|bytes| bytes == b"payments"), "neither names nor subject are copied");
}

#[test]
fn a_leaf_lives_as_long_as_asked_for_but_no_longer_than_set() {
    let (_directory, state) = state();
    let authority = open(&state).unwrap();
    let request = request(&CertificateParams::default(), &key());
    let now = SystemTime::now();
    for (asked, good_for) in [(Some(10), 10), (None, 24 * 3600), (Some(48 * 3600), 24 * 3600)] {
        let asked = asked.map(Duration::from_secs);
        let chain = authority.sign(&request, &web(), asked, now).unwrap();
        let end = now + Duration::from_secs(good_for);
        assert!(verified_names(&authority, &chain, now - BACKDATED / 2).is_ok(), "clocks differ");
        assert!(verified_names(&authority, &chain, end - Duration::from_secs(1)).is_ok());
        assert!(verified_names(&authority, &chain, end + Duration::from_secs(2)).is_err());
    }
}

#[test]
fn a_request_is_refused_if() {
    let (_directory, state) = state();
    let authority = open(&state).unwrap();
    let good = request(&CertificateParams::default(), &key());
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let of = |key: &KeyPair| request(&CertificateParams::default(), key);
    for (why, request, expected) in [
        ("its key is P-384", of(&p384), "not ECDSA P-256"),
        ("its key is RSA", of(&rsa), "not ECDSA P-256"),
        ("its key is Ed25519", of(&ed25519), "not ECDSA P-256"),
        ("its signature is broken", broken(&good), "signature"),
        ("it is garbage", "garbage".to_owned(), "not a PEM"),
        ("it is cut off", good[..good.len() / 2].to_owned(), "not a PEM"),
        ("it is huge", "x".repeat(REQUEST_SIZE_MAX + 1), "more than 16384"),
    ] {
        let refused = authority.sign(&request, &web(), None, SystemTime::now()).expect_err(why).to_string();
        assert!(refused.contains(expected), "{why}: {refused}");
    }
}

/// The same request with a few bits of its signature changed.
fn broken(request: &str) -> String {
    let at = request.find("-----END").unwrap() - 12;
    let other = if &request[at..=at] == "A" { "B" } else { "A" };
    format!("{}{other}{}", &request[..at], &request[at + 1..])
}
