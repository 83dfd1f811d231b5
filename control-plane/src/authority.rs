//! The certificate authority: one root, leaves for workloads and for the control plane itself.
//!
//! Of a signing request only the public key is taken; who the leaf is for comes from a verified token.
//! It does not know how requests arrive (`certificates.rs`) nor who may ask (`tokens.rs`), nor where a
//! cluster keeps its root (`cluster/root.rs`).

mod profile; // what stands in each kind of certificate
mod request; // the public key of a signing request
mod root; // a key and a certificate that fit each other

use std::time::{Duration, SystemTime};

use gauze_model::{Code, SpiffeId};
use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};

use crate::state::{StateDirectory, StateError};

pub use profile::Subject;
pub use request::{REQUEST_SIZE_MAX, RequestError};
pub use root::{RootPem, RootProblem};

/// Names in the state directory.
const ROOT_KEY: &str = "root.key";
const ROOT_CERTIFICATE: &str = "root.crt";
/// The set of roots that proxies trust: all that a proxy needs to be given.
const TRUST: &str = "trust.pem";

/// A root and its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_pem: String,
    root_expires: SystemTime,
    /// The longest life of a leaf.
    life: Duration,
}

/// A chain and its private key, ready to be served.
pub struct Credentials {
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub expires: SystemTime,
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
    #[error(
        "{code}: {ROOT_KEY} and {ROOT_CERTIFICATE} in {path} cannot be used: {problem}",
        code = Code::ROOT_UNREADABLE, path = .state.path("").display()
    )]
    Unusable { state: StateDirectory, problem: RootProblem },
    #[error("cannot make a key or certificate: {0}")]
    Making(#[from] rcgen::Error),
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
        let root = match (state.read_key(ROOT_KEY)?, state.read(ROOT_CERTIFICATE)?) {
            (Some(key), Some(certificate)) => RootPem { key, certificate },
            (Some(_), None) => return Err(AuthorityError::CertificateMissing(state.clone())),
            (None, _) => create_root(state, trust_domain, now)?,
        };
        let authority = Authority::from_pem(&root, life, now);
        let authority =
            authority.map_err(|problem| AuthorityError::Unusable { state: state.clone(), problem })?;
        state.replace(TRUST, authority.roots())?;
        Ok(authority)
    }

    /// An authority over a root that is kept elsewhere. Its leaves live for `life` at most, and never
    /// longer than the root.
    ///
    /// # Errors
    /// The root cannot be used: unreadable, expired, not an authority's, or the key of another certificate.
    pub fn from_pem(root: &RootPem, life: Duration, now: SystemTime) -> Result<Authority, RootProblem> {
        let (key, certificate, root_expires) = root.read(now)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|e| RootProblem::Certificate(e.to_string()))?;
        let root_pem = root::pem(&certificate);
        let authority = Authority { issuer, root: certificate, root_pem, root_expires, life };
        authority.prove(now)?;
        Ok(authority)
    }

    /// Signs a leaf and verifies it against the root, as a peer would.
    fn prove(&self, now: SystemTime) -> Result<(), RootProblem> {
        let unproven = |e: webpki::Error| RootProblem::Unproven(e.to_string());
        let proof = Subject::Server(vec!["proof.invalid".to_owned()]);
        let leaf =
            self.credentials(&proof, now).map_err(|e| RootProblem::Unproven(e.to_string()))?.chain.remove(0);
        let anchor = webpki::anchor_from_trusted_cert(&self.root).map_err(unproven)?;
        let leaf = webpki::EndEntityCert::try_from(&leaf).map_err(unproven)?;
        let now = UnixTime::since_unix_epoch(since_epoch(now));
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        let usage = webpki::KeyUsage::server_auth();
        leaf.verify_for_usage(algorithms, &[anchor], &[], now, usage, None, None).map_err(unproven)?;
        Ok(())
    }

    /// The root, for verifying clients.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// When the root expires.
    pub fn root_expiry(&self) -> SystemTime {
        self.root_expires
    }

    /// The set of roots that everybody in the mesh trusts, in PEM (`trust.pem`, `roots.pem`, `caBundle`).
    pub fn roots(&self) -> &str {
        &self.root_pem
    }

    /// How long a leaf lives at most.
    pub fn life(&self) -> Duration {
        self.life
    }

    /// A fresh key and a leaf for it, for a server of this process.
    ///
    /// # Errors
    /// The root has expired, or the random source or the signature failed.
    pub fn credentials(&self, subject: &Subject, now: SystemTime) -> Result<Credentials, RequestError> {
        let signing = |e: rcgen::Error| RequestError::Signing(e.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(signing)?;
        let expires = self.leaf_expires(self.life, now)?;
        let leaf = profile::leaf(subject, now, expires).and_then(|leaf| leaf.signed_by(&key, &self.issuer));
        let leaf = leaf.map_err(signing)?;
        let private = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok(Credentials { chain: vec![leaf.into()], key: private.into(), expires })
    }

    /// Signs a leaf for the public key in `request` (PEM PKCS #10) and for nothing else that stands in it.
    /// `life` is what the client asks for; the authority's own is the most it gets.
    /// Returns the chain in PEM, the leaf first; the root signs leaves itself, so there is no intermediate.
    ///
    /// # Errors
    /// The request is too large, malformed, wrongly signed, or its key is not P-256. Or the root has expired.
    pub fn sign(
        &self,
        request: &str,
        id: &SpiffeId,
        life: Option<Duration>,
        now: SystemTime,
    ) -> Result<Vec<String>, RequestError> {
        let key = request::public_key(request)?;
        let expires = self.leaf_expires(life.unwrap_or(self.life).min(self.life), now)?;
        let leaf = profile::leaf(&Subject::Workload(id.clone()), now, expires);
        let leaf = leaf.and_then(|leaf| leaf.signed_by(&key, &self.issuer));
        let leaf = leaf.map_err(|e| RequestError::Signing(e.to_string()))?;
        Ok(vec![leaf.pem()])
    }

    fn leaf_expires(&self, life: Duration, now: SystemTime) -> Result<SystemTime, RequestError> {
        if now >= self.root_expires {
            return Err(RequestError::Signing("the root has expired".to_owned()));
        }
        Ok((now + life).min(self.root_expires))
    }
}

/// Makes a root. The key is renamed into place last: a key without its certificate is never left by a crash.
fn create_root(
    state: &StateDirectory,
    trust_domain: &str,
    now: SystemTime,
) -> Result<RootPem, AuthorityError> {
    let root = RootPem::create(trust_domain, now)?;
    state.replace(ROOT_CERTIFICATE, &root.certificate)?;
    state.replace(ROOT_KEY, &root.key)?;
    tracing::info!(trust_domain, "created a root certificate");
    Ok(root)
}

fn since_epoch(now: SystemTime) -> Duration {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
