//! The certificate authority: one root, leaves for workloads and for the control plane itself.
//!
//! Of a signing request only the public key is taken; who the leaf is for comes from a verified token.
//! It does not know how requests arrive (`certificates.rs`) nor who may ask (`tokens.rs`).

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use gauze_model::{Code, SpiffeId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};

use crate::state::{StateDirectory, StateError};

/// Names in the state directory.
const ROOT_KEY: &str = "root.key";
const ROOT_CERTIFICATE: &str = "root.crt";
/// The set of roots that proxies trust: all that a proxy needs to be given.
const TRUST: &str = "trust.pem";

const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long before its signing a certificate is valid already: clocks of two machines differ.
const BACKDATED: Duration = Duration::from_secs(60);
/// Largest signing request that is read, in bytes; one for P-256 has about 500.
pub const REQUEST_SIZE_MAX: usize = 16 * 1024;
/// An uncompressed point of P-256 (SEC 1, 2.3.3).
const P256_POINT_SIZE: usize = 65;

/// A root and its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    /// The longest life of a leaf.
    life: Duration,
}

/// A chain and its private key, ready to be served.
pub struct Credentials {
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(
        "{code}: {path} holds {ROOT_KEY} but no {ROOT_CERTIFICATE}: put the certificate back, or remove the key to begin with a new root",
        code = Code::ROOT_UNREADABLE, path = .0.path("").display()
    )]
    CertificateMissing(StateDirectory),
    #[error("{code}: {file} in the state directory cannot be used: {problem}", code = Code::ROOT_UNREADABLE)]
    Unusable { file: &'static str, problem: String },
    #[error("cannot make a key or certificate: {0}")]
    Making(#[from] rcgen::Error),
}

/// Why a signing request is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the signing request has {0} bytes, more than {REQUEST_SIZE_MAX}")]
    TooLarge(usize),
    #[error("the signing request is not a PEM PKCS #10 request with a good signature: {0}")]
    Malformed(String),
    #[error("the signing request's key is not ECDSA P-256 signed with SHA-256")]
    NotP256,
    #[error("signing failed: {0}")]
    Signing(String),
}

impl Authority {
    /// Opens the root kept in `state`, or creates it: once, whoever else starts at the same time.
    /// `trust.pem` is written anew.
    ///
    /// # Errors
    /// Key or certificate cannot be read, written or used together.
    pub fn open(
        state: &StateDirectory,
        trust_domain: &str,
        life: Duration,
        now: SystemTime,
    ) -> Result<Authority, AuthorityError> {
        let _lock = state.lock_for_creation()?;
        let (key, certificate) = match (state.read_key(ROOT_KEY)?, state.read(ROOT_CERTIFICATE)?) {
            (Some(key), Some(certificate)) => (key, certificate),
            (Some(_), None) => return Err(AuthorityError::CertificateMissing(state.clone())),
            (None, _) => create_root(state, trust_domain, now)?,
        };
        let authority = Authority::of(&key, &certificate, life)?;
        authority.prove(now)?;
        state.replace(TRUST, &certificate)?;
        Ok(authority)
    }

    fn of(key: &str, certificate: &str, life: Duration) -> Result<Authority, AuthorityError> {
        let unusable =
            |file| move |e: &dyn ToString| AuthorityError::Unusable { file, problem: e.to_string() };
        let key = KeyPair::from_pem(key).map_err(|e| unusable(ROOT_KEY)(&e))?;
        let root = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|e| unusable(ROOT_CERTIFICATE)(&e))?;
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(|e| unusable(ROOT_CERTIFICATE)(&e))?;
        Ok(Authority { issuer, root, life })
    }

    /// Signs a leaf and verifies it against the root: finds a key of another root, and a root that has expired.
    fn prove(&self, now: SystemTime) -> Result<(), AuthorityError> {
        let unusable = |problem: String| AuthorityError::Unusable { file: ROOT_CERTIFICATE, problem };
        let leaf = self.credentials(&SpiffeId::new("proof", "proof", "proof"), now)?.chain.remove(0);
        let anchor = webpki::anchor_from_trusted_cert(&self.root).map_err(|e| unusable(e.to_string()))?;
        let leaf = webpki::EndEntityCert::try_from(&leaf).map_err(|e| unusable(e.to_string()))?;
        let now = UnixTime::since_unix_epoch(since_epoch(now));
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        let usage = webpki::KeyUsage::server_auth();
        leaf.verify_for_usage(algorithms, &[anchor], &[], now, usage, None, None).map_err(|e| {
            unusable(format!("a leaf signed with {ROOT_KEY} does not verify against it ({e})"))
        })?;
        Ok(())
    }

    /// The root, for verifying clients.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// When the root expires. webpki tells it only in refusing; the validity is what it looks at first.
    pub fn root_expiry(&self) -> Option<SystemTime> {
        let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX >> 1));
        let root = webpki::EndEntityCert::try_from(&self.root).ok()?;
        let usage = webpki::KeyUsage::server_auth();
        match root.verify_for_usage(&[], &[], &[], end_of_time, usage, None, None) {
            Err(webpki::Error::CertExpired { not_after, .. }) => {
                Some(SystemTime::UNIX_EPOCH + Duration::from_secs(not_after.as_secs()))
            }
            _ => None,
        }
    }

    /// How long a leaf lives at most.
    pub fn life(&self) -> Duration {
        self.life
    }

    /// A fresh key and a leaf for it, for a server of this process.
    ///
    /// # Errors
    /// The random source or the signature failed.
    pub fn credentials(&self, id: &SpiffeId, now: SystemTime) -> Result<Credentials, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let leaf = leaf(id, now, self.life)?.signed_by(&key, &self.issuer)?;
        let private = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok(Credentials { chain: vec![leaf.into()], key: private.into() })
    }

    /// Signs a leaf for the public key in `request` (PEM PKCS #10) and for nothing else that stands in it.
    /// `life` is what the client asks for; the authority's own is the most it gets.
    /// Returns the chain in PEM, the leaf first; the root signs leaves itself, so there is no intermediate.
    ///
    /// # Errors
    /// The request is too large, malformed, wrongly signed, or its key is not P-256.
    pub fn sign(
        &self,
        request: &str,
        id: &SpiffeId,
        life: Option<Duration>,
        now: SystemTime,
    ) -> Result<Vec<String>, RequestError> {
        let key = public_key(request)?;
        let life = life.unwrap_or(self.life).min(self.life);
        let leaf = leaf(id, now, life).and_then(|leaf| leaf.signed_by(&key, &self.issuer));
        let leaf = leaf.map_err(|e| RequestError::Signing(e.to_string()))?;
        Ok(vec![leaf.pem()])
    }
}

/// Makes a root. The key is renamed into place last: a key without its certificate is never left by a crash.
fn create_root(
    state: &StateDirectory,
    trust_domain: &str,
    now: SystemTime,
) -> Result<(String, String), AuthorityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = root(trust_domain, now)?.self_signed(&key)?;
    let (key, certificate) = (key.serialize_pem(), certificate.pem());
    state.replace(ROOT_CERTIFICATE, &certificate)?;
    state.replace(ROOT_KEY, &key)?;
    tracing::info!(trust_domain, "created a root certificate");
    Ok((key, certificate))
}

fn root(trust_domain: &str, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut root = dated(now, ROOT_LIFE)?;
    // A common name holds 64 characters at most (X.520 ub-common-name).
    let name: String = format!("gauze root of {trust_domain}").chars().take(64).collect();
    root.distinguished_name.push(DnType::CommonName, name);
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(root)
}

/// SPIFFE X509-SVID: one URI SAN, critical since the subject is empty; no CA; used by clients and servers.
fn leaf(id: &SpiffeId, now: SystemTime, life: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut leaf = dated(now, life)?;
    leaf.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    Ok(leaf)
}

/// Without a subject; with a serial number drawn at random, since the same key may be signed twice.
fn dated(now: SystemTime, life: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    serial[0] = serial[0] & 0x7f | 0x40; // positive, and never shorter
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut certificate = CertificateParams::default();
    certificate.distinguished_name = DistinguishedName::new();
    certificate.serial_number = Some(SerialNumber::from_slice(&serial));
    certificate.not_before = epoch + since_epoch(now).saturating_sub(BACKDATED);
    certificate.not_after = epoch + since_epoch(now) + life;
    Ok(certificate)
}

/// The public key of a signing request whose signature proves that the client has the private one.
fn public_key(request: &str) -> Result<impl PublicKeyData, RequestError> {
    if request.len() > REQUEST_SIZE_MAX {
        return Err(RequestError::TooLarge(request.len()));
    }
    let request = CertificateSigningRequestParams::from_pem(request)
        .map_err(|e| RequestError::Malformed(e.to_string()))?;
    // rcgen names the curve after the signature's algorithm: a P-384 key that signs with SHA-256 must not pass.
    let key = request.public_key;
    if *key.algorithm() == PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == P256_POINT_SIZE {
        return Ok(key);
    }
    Err(RequestError::NotP256)
}

fn since_epoch(now: SystemTime) -> Duration {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_root_that_cannot_sign_is_refused_with_the_file_named() {
        let (_directory, state) = state();
        open(&state).unwrap();
        let (_other_directory, other) = self::state();
        open(&other).unwrap();

        state.replace(ROOT_KEY, &other.read(ROOT_KEY).unwrap().unwrap()).unwrap();
        let refused = open(&state).err().unwrap().to_string();
        assert!(refused.contains("M1106: root.crt") && refused.contains("does not verify"), "{refused}");

        state.replace(ROOT_KEY, "garbage").unwrap();
        let refused = open(&state).err().unwrap().to_string();
        assert!(refused.contains("root.key"), "{refused}");

        std::fs::remove_file(state.path(ROOT_CERTIFICATE)).unwrap();
        let refused = open(&state).err().unwrap().to_string();
        assert!(refused.contains("no root.crt"), "{refused}");
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
            let refused =
                authority.sign(&request, &web(), None, SystemTime::now()).expect_err(why).to_string();
            assert!(refused.contains(expected), "{why}: {refused}");
        }
    }

    /// The same request with a few bits of its signature changed.
    fn broken(request: &str) -> String {
        let at = request.find("-----END").unwrap() - 12;
        let other = if &request[at..=at] == "A" { "B" } else { "A" };
        format!("{}{other}{}", &request[..at], &request[at + 1..])
    }
}
