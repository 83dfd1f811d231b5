//! Who this proxy is. The key is made here and never leaves memory; the certificate comes from the
//! control plane's authority, for the workload token. It is renewed at half of its life with a new key;
//! connections that are open keep what they began with.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gauze_model::{Code, SpiffeId};
use gauze_xds::certificate::{CREATE_CERTIFICATE, CertificateRequest, CertificateResponse};
use http::uri::PathAndQuery;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic_prost::ProstCodec;

use crate::control_plane::{Backoff, Complaint, ControlPlane, DialError};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::tls::{Credentials, CredentialsError, Tls};

/// Keeps the certificate and the roots current.
pub struct Certificates {
    control_plane: Arc<ControlPlane>,
    identity: SpiffeId,
    files: Files,
    tls: Tls,
    metrics: Arc<Metrics>,
    current: watch::Sender<Option<Arc<Credentials>>>,
}

/// What others write and we read again: the roots when they change, the token at each use.
struct Files {
    trust_roots: PathBuf,
    token: PathBuf,
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{path}: {problem}", path = .path.display())]
    File { path: PathBuf, problem: String },
    #[error("the key or the request cannot be made: {0}")]
    Request(#[from] rcgen::Error),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the authority refused: {message} ({code:?})", code = .0.code(), message = .0.message())]
    Refused(#[from] tonic::Status),
    #[error("the authority's answer cannot be read: {0}")]
    Unreadable(String),
    #[error("the certificate is for {found}, not for {wanted}")]
    Other { found: String, wanted: SpiffeId },
    #[error(transparent)]
    Unusable(#[from] CredentialsError),
}

/// How often the file of the roots is looked at.
const ROOTS_INTERVAL: Duration = Duration::from_secs(1);

/// A request for a certificate ends after this time, and the next one may begin.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Size of a file that we read, and of an answer, in bytes.
const FILE_MAX: u64 = 1024 * 1024;

impl Certificates {
    pub fn new(
        settings: &Settings,
        control_plane: Arc<ControlPlane>,
        tls: Tls,
        metrics: Arc<Metrics>,
    ) -> Certificates {
        let (of, workload) = (&settings.control_plane, &settings.workload);
        Certificates {
            control_plane,
            identity: SpiffeId::new(&of.trust_domain, &workload.namespace, &workload.service_account),
            files: Files { trust_roots: of.trust_roots.clone(), token: of.token.clone() },
            tls,
            metrics,
            current: watch::Sender::new(None),
        }
    }

    /// The credentials in use, now and later; for whoever dials with them beside [`Tls`].
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Credentials>>> {
        self.current.subscribe()
    }

    /// Runs for as long as the process.
    pub async fn keep(self) {
        tokio::join!(self.renew(), self.watch_roots());
    }

    /// Gets the first certificate and then each next one at about half the life of the last.
    async fn renew(&self) {
        let (mut backoff, mut complaint) = (retry(None), Complaint::default());
        loop {
            let begun = Instant::now();
            let pause = match self.replace().await {
                Ok(life) => {
                    tracing::info!(identity = %self.identity, life_s = life.as_secs(), "certificate received");
                    self.metrics.certificate_renewals.inc();
                    self.control_plane.note(None);
                    (backoff, complaint) = (retry(Some(life)), Complaint::default());
                    half_life(life, fastrand::f64())
                }
                Err(error) => {
                    self.metrics.certificate_failures.inc();
                    self.complain(&error, &mut complaint);
                    // From beginning to beginning: a control plane that is back is found within 5 s.
                    backoff.pause(fastrand::f64()).saturating_sub(begun.elapsed())
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn complain(&self, error: &CertificateError, complaint: &mut Complaint) {
        let code = self.code(error).map(|code| code.to_string());
        self.control_plane.note(Some(format!("{} {error}", code.as_deref().unwrap_or_default())));
        if complaint.is_new(error) {
            tracing::warn!(code, %error, "no new certificate; trying again");
        }
    }

    /// What `gauze docs` explains: that time runs out counts more than why.
    fn code(&self, error: &CertificateError) -> Option<Code> {
        match error {
            _ if self.current.borrow().is_some() => Some(Code::CERTIFICATE_EXPIRING),
            CertificateError::Dial(error) => Some(error.code()),
            _ => None,
        }
    }

    /// Asks for a certificate with a new key and uses it; returns what is left of its life.
    async fn replace(&self) -> Result<Duration, CertificateError> {
        let request = tokio::time::timeout(REQUEST_TIMEOUT, self.request());
        let credentials =
            request.await.map_err(|_| tonic::Status::deadline_exceeded("no answer in time"))??;
        self.put_to_use(credentials)?;
        let expiry = self.tls.expiry().unwrap_or(UNIX_EPOCH);
        Ok(expiry.duration_since(SystemTime::now()).unwrap_or_default())
    }

    async fn request(&self) -> Result<Credentials, CertificateError> {
        let roots = self.files.roots()?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut request = tonic::Request::new(CertificateRequest {
            csr: signing_request(&key, &self.identity)?,
            validity_duration: 0,
            metadata: None,
        });
        request.metadata_mut().insert("authorization", self.files.bearer()?);

        let channel = self.control_plane.dial(&roots, None).await?;
        let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(FILE_MAX as usize);
        client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(CREATE_CERTIFICATE);
        let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
        let answer = client.unary(request, path, codec).await?.into_inner();

        let chain = chain(&answer, &roots)?;
        check_identity(&chain, &self.identity)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Credentials { chain, key, roots })
    }

    fn put_to_use(&self, credentials: Credentials) -> Result<(), CertificateError> {
        self.tls.set(Some(&credentials))?;
        let expiry = self.tls.expiry().and_then(|expiry| expiry.duration_since(UNIX_EPOCH).ok());
        self.metrics
            .certificate_expiry
            .set(expiry.map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX)));
        self.current.send_replace(Some(Arc::new(credentials)));
        Ok(())
    }

    /// Takes new roots into use as soon as their file holds them; a broken file changes nothing.
    async fn watch_roots(&self) {
        let mut interval = tokio::time::interval(ROOTS_INTERVAL);
        let mut seen = None;
        loop {
            interval.tick().await;
            let stamp = self.files.stamp();
            if stamp == seen {
                continue;
            }
            seen = stamp;
            if let Err(error) = self.take_roots() {
                tracing::warn!(%error, "the roots changed and cannot be used; the old ones stay");
            }
        }
    }

    fn take_roots(&self) -> Result<(), CertificateError> {
        let Some(current) = self.current.borrow().clone() else { return Ok(()) };
        let roots = self.files.roots()?;
        if roots == current.roots {
            return Ok(());
        }
        tracing::info!(count = roots.len(), "new set of trust roots");
        self.put_to_use(Credentials { chain: current.chain.clone(), key: current.key.clone_key(), roots })
    }
}

impl Files {
    fn roots(&self) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
        let text = read(&self.trust_roots)?;
        certificates(&text)
            .map_err(|problem| CertificateError::File { path: self.trust_roots.clone(), problem })
    }

    /// The token as the value of an `authorization` header, which is never shown.
    fn bearer(&self) -> Result<MetadataValue<tonic::metadata::Ascii>, CertificateError> {
        let unusable =
            |_| CertificateError::File { path: self.token.clone(), problem: "not a token".to_owned() };
        let token = read(&self.token)?;
        let mut bearer = MetadataValue::try_from(format!("Bearer {}", token.trim())).map_err(unusable)?;
        bearer.set_sensitive(true);
        Ok(bearer)
    }

    /// What changes when the file of the roots is written to, or replaced: kubelet writes all files of a
    /// projected volume anew into another directory, and turns the link to it.
    fn stamp(&self) -> Option<(u64, SystemTime, u64)> {
        let file = std::fs::metadata(&self.trust_roots).ok()?;
        Some((file.ino(), file.modified().ok()?, file.len()))
    }
}

fn read(path: &Path) -> Result<String, CertificateError> {
    let failed = |problem: String| CertificateError::File { path: path.to_owned(), problem };
    let size = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > FILE_MAX {
        return Err(failed(format!("{size} bytes; at most {FILE_MAX} are read")));
    }
    std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))
}

/// All certificates of a PEM text; at least one.
fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match read {
        Ok(all) if all.is_empty() => Err("holds no certificate in PEM".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("not PEM: {error}")),
    }
}

/// A CSR in PEM with our SPIFFE id as its only name.
fn signing_request(key: &KeyPair, identity: &SpiffeId) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity.to_string())?)];
    params.serialize_request(key)?.pem()
}

/// The leaf and its intermediates; a root is not sent, the peer has its own.
fn chain(
    answer: &CertificateResponse,
    roots: &[CertificateDer<'_>],
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let all = certificates(&answer.cert_chain.concat()).map_err(CertificateError::Unreadable)?;
    Ok(all.into_iter().filter(|certificate| !roots.contains(certificate)).collect())
}

/// A certificate for somebody else would make us somebody else.
fn check_identity(chain: &[CertificateDer<'_>], wanted: &SpiffeId) -> Result<(), CertificateError> {
    let leaf = chain.first().ok_or(CredentialsError::NoLeaf)?;
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(CredentialsError::Leaf)?;
    let names: Vec<&str> = leaf.valid_uri_names().collect();
    if names == [wanted.to_string()] {
        return Ok(());
    }
    Err(CertificateError::Other { found: names.join(", "), wanted: wanted.clone() })
}

/// When a certificate with this much life left is renewed: between 45 % and 55 % of it.
fn half_life(life: Duration, draw: f64) -> Duration {
    life.mul_f64(0.45 + draw / 10.0)
}

/// How a failed request is repeated: often while there is none, then 5 s to 150 s apart, and closer
/// where a life is so short that this would use it up.
fn retry(life: Option<Duration>) -> Backoff {
    let (first, most) = match life {
        None => (Duration::from_millis(200), Duration::from_secs(5)),
        Some(life) => ((life / 20).min(Duration::from_secs(5)), (life / 10).min(Duration::from_secs(150))),
    };
    let at_least = Duration::from_millis(100);
    Backoff::new(first.max(at_least), most.max(at_least))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn web() -> SpiffeId {
        SpiffeId::new("cluster.local", "shop", "web")
    }

    fn signed(identity: &SpiffeId) -> (KeyPair, rcgen::Certificate) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            vec![SanType::URI(Ia5String::try_from(identity.to_string()).expect("ASCII"))];
        let certificate = params.self_signed(&key).expect("a certificate");
        (key, certificate)
    }

    #[test]
    fn a_request_carries_our_identity_as_its_only_name() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let request = signing_request(&key, &web()).expect("a request");
        let read = rcgen::CertificateSigningRequestParams::from_pem(&request).expect("it reads back");
        let name = SanType::URI(Ia5String::try_from("spiffe://cluster.local/ns/shop/sa/web").expect("ASCII"));
        assert_eq!(read.params.subject_alt_names, [name]);
    }

    #[test]
    fn a_root_is_not_part_of_the_chain_that_we_show() {
        let ((_, leaf), (_, root)) = (signed(&web()), signed(&SpiffeId::new("cluster.local", "a", "b")));
        let answer = CertificateResponse { cert_chain: vec![leaf.pem() + &root.pem(), root.pem()] };
        assert_eq!(chain(&answer, &[root.der().clone()]).expect("a chain"), [leaf.der().clone()]);
        let empty = CertificateResponse { cert_chain: vec![String::new()] };
        assert!(matches!(chain(&empty, &[]), Err(CertificateError::Unreadable(_))));
    }

    #[test]
    fn a_certificate_for_somebody_else_is_refused() {
        let (_, leaf) = signed(&web());
        let chain = [leaf.der().clone()];
        assert!(check_identity(&chain, &web()).is_ok());
        let other = check_identity(&chain, &SpiffeId::new("cluster.local", "shop", "cart"));
        assert!(matches!(other, Err(CertificateError::Other { .. })), "{other:?}");
    }

    #[test]
    fn a_certificate_is_renewed_around_half_of_its_life() {
        assert_eq!(half_life(24 * HOUR, 0.5), 12 * HOUR);
        assert!(half_life(HOUR, 0.0) >= HOUR * 2 / 5);
        assert!(half_life(HOUR, 1.0) <= HOUR * 3 / 5);
    }

    #[test]
    fn retries_are_close_at_first_contact_and_scale_with_a_short_life() {
        let spans = |life: Option<Duration>| {
            let mut backoff = retry(life);
            let pauses: Vec<_> = (0..30).map(|_| backoff.pause(1.0)).collect();
            (pauses[0], pauses[29])
        };
        let seconds = Duration::from_secs;
        assert_eq!(spans(None), (Duration::from_millis(200), seconds(5)));
        assert_eq!(spans(Some(24 * HOUR)), (seconds(5), seconds(150)));
        assert_eq!(spans(Some(seconds(10))), (Duration::from_millis(500), seconds(1)));
        assert_eq!(spans(Some(seconds(0))), (Duration::from_millis(100), Duration::from_millis(100)));
    }

    #[test]
    fn a_broken_file_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("roots.pem");
        let files = Files { trust_roots: path.clone(), token: path.clone() };
        let error = |files: &Files| files.roots().expect_err("no roots").to_string();
        assert!(error(&files).contains("roots.pem: No such file"), "{}", error(&files));
        std::fs::write(&path, "nothing").expect("written");
        assert!(error(&files).contains("roots.pem: holds no certificate"), "{}", error(&files));
        assert!(files.bearer().is_ok_and(|bearer| bearer.is_sensitive() && bearer == "Bearer nothing"));
    }

    #[test]
    fn what_kubelet_replaces_is_seen_and_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let (root, link) = (directory.path(), directory.path().join("..data"));
        let files = Files { trust_roots: root.join("roots.pem"), token: root.join("token") };
        let mut stamps = Vec::new();
        for version in ["1", "2"] {
            std::fs::create_dir(root.join(version)).expect("a new folder");
            for file in ["roots.pem", "token"] {
                std::fs::write(root.join(version).join(file), version).expect("written");
                let _ = std::os::unix::fs::symlink(format!("..data/{file}"), root.join(file));
            }
            std::os::unix::fs::symlink(version, root.join("..data_tmp")).expect("a link");
            std::fs::rename(root.join("..data_tmp"), &link).expect("turned");
            stamps.push(files.stamp().expect("it is there"));
            let bearer = files.bearer().expect("a token");
            assert_eq!(bearer, format!("Bearer {version}").as_str());
        }
        assert_ne!(stamps[0], stamps[1]);
    }
}
