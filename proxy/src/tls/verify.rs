//! The other side's certificate: its chain against the current roots, its one name against whom we expect.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use gauze_model::SpiffeId;
use gauze_model::identity::NotAnIdentity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

use super::provider;

/// A chain must end in one of these.
pub(super) type Roots = Arc<Vec<TrustAnchor<'static>>>;

/// A leaf that does not name one workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityProblem {
    #[error("the certificate has {0} URI names instead of one")]
    NotOne(usize),
    #[error("the certificate's name {0}")]
    NotSpiffe(NotAnIdentity),
    #[error("{found} is not of trust domain `{wanted}`")]
    TrustDomain { wanted: String, found: Box<SpiffeId> },
    #[error("the peer is {found}, not {wanted}")]
    Other { wanted: Box<SpiffeId>, found: Box<SpiffeId> },
}

/// When a certificate expires. webpki tells it only in refusing: a path is checked from the leaf on, its
/// validity first, so nothing is verified here.
pub(super) fn not_after(leaf: &CertificateDer<'_>) -> Result<SystemTime, webpki::Error> {
    let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX >> 1));
    let usage = KeyUsage::client_auth();
    match EndEntityCert::try_from(leaf)?.verify_for_usage(&[], &[], &[], end_of_time, usage, None, None) {
        Err(webpki::Error::CertExpired { not_after, .. }) => {
            Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(not_after.as_secs()))
        }
        Err(problem) => Err(problem),
        Ok(_) => Err(webpki::Error::InvalidCertValidity),
    }
}

/// Whom a handshake may end with.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// Any workload of this trust domain.
    Anyone(Arc<str>),
    Exactly(SpiffeId),
}

impl Expected {
    pub(super) fn check(&self, leaf: &CertificateDer<'_>) -> Result<SpiffeId, IdentityProblem> {
        let found = identity_of(leaf)?;
        match self {
            Expected::Anyone(domain) if found.trust_domain != **domain => {
                Err(IdentityProblem::TrustDomain { wanted: domain.to_string(), found: found.into() })
            }
            Expected::Exactly(wanted) if found != *wanted => {
                Err(IdentityProblem::Other { wanted: wanted.clone().into(), found: found.into() })
            }
            Expected::Anyone(_) | Expected::Exactly(_) => Ok(found),
        }
    }
}

/// The one identity that a leaf names (X509-SVID, section 2: exactly one URI SAN).
pub(super) fn identity_of(leaf: &CertificateDer<'_>) -> Result<SpiffeId, IdentityProblem> {
    let certificate = EndEntityCert::try_from(leaf).map_err(|_| IdentityProblem::NotOne(0))?;
    let names: Vec<&str> = certificate.valid_uri_names().collect();
    let [name] = names[..] else {
        return Err(IdentityProblem::NotOne(names.len()));
    };
    name.parse().map_err(IdentityProblem::NotSpiffe)
}

/// Checks the certificate of the other side, whichever that is.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    roots: Roots,
    expected: Expected,
    algorithms: WebPkiSupportedAlgorithms,
    /// Why an identity was refused. rustls carries no such text, and says `access_denied` to the peer
    /// only for an error without one.
    refused: OnceLock<IdentityProblem>,
}

impl PeerVerifier {
    pub(super) fn new(roots: Roots, expected: Expected) -> Arc<PeerVerifier> {
        let algorithms = provider().signature_verification_algorithms;
        Arc::new(PeerVerifier { roots, expected, algorithms, refused: OnceLock::new() })
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        EndEntityCert::try_from(leaf)
            .and_then(|leaf| {
                let algorithms = self.algorithms.all;
                leaf.verify_for_usage(algorithms, &self.roots, intermediates, now, usage, None, None)
                    .map(drop)
            })
            .map_err(certificate_error)?;
        self.expected.check(leaf).map(drop).map_err(|problem| {
            tracing::debug!(%problem, "peer refused");
            let _ = self.refused.set(problem);
            CertificateError::ApplicationVerificationFailure.into()
        })
    }

    /// Why the identity was refused, for the one connection that this was made for.
    pub(super) fn refused(&self) -> Option<IdentityProblem> {
        self.refused.get().cloned()
    }
}

fn certificate_error(problem: webpki::Error) -> Error {
    use webpki::Error as P;
    let problem = match problem {
        P::CertExpired { .. } => CertificateError::Expired,
        P::CertNotValidYet { .. } => CertificateError::NotValidYet,
        P::UnknownIssuer => CertificateError::UnknownIssuer,
        P::BadDer | P::BadDerTime => CertificateError::BadEncoding,
        // A root of the same name with another key: not a root of this mesh either.
        P::InvalidSignatureForPublicKey => CertificateError::UnknownIssuer,
        P::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
    };
    problem.into()
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken in the mesh".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
