//! A root as it is kept: a key and a certificate in PEM, and whether they can be used together.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::profile;

/// A root in PEM: a private key (PKCS #8, PKCS #1 or SEC 1), and the certificate of its public key.
#[derive(Clone, PartialEq, Eq)]
pub struct RootPem {
    pub key: String,
    pub certificate: String,
}

/// The key stays out of logs.
impl fmt::Debug for RootPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootPem").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Why a root cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootProblem {
    #[error("the key is not a private key in PEM that can sign: {0}")]
    Key(String),
    #[error("the certificate is not an X.509 certificate in PEM: {0}")]
    Certificate(String),
    #[error(
        "the certificate is not one of an authority: it needs CA:TRUE, and certificate signing as key usage"
    )]
    NotAnAuthority,
    #[error("the certificate expired {0}")]
    Expired(String),
    #[error("the certificate is valid only from {0}")]
    NotYetValid(String),
    #[error("the key is not the certificate's")]
    Mismatch,
    #[error("a leaf signed with the key does not verify against the certificate: {0}")]
    Unproven(String),
}

impl RootPem {
    /// Makes a new root (ECDSA P-256, ten years).
    ///
    /// # Errors
    /// The random source or the signature failed.
    pub fn create(trust_domain: &str, now: SystemTime) -> Result<RootPem, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = profile::root(trust_domain, now)?.self_signed(&key)?;
        Ok(RootPem { key: key.serialize_pem(), certificate: certificate.pem() })
    }

    /// Key and certificate (the first of the text), if they fit each other and may sign now; and when the certificate expires.
    pub(super) fn read(
        &self,
        now: SystemTime,
    ) -> Result<(KeyPair, CertificateDer<'static>, SystemTime), RootProblem> {
        let key = KeyPair::from_pem(&self.key).map_err(|e| RootProblem::Key(e.to_string()))?;
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .map_err(|e| RootProblem::Certificate(e.to_string()))?;
        let (_, certificate) =
            X509Certificate::from_der(&der).map_err(|e| RootProblem::Certificate(e.to_string()))?;
        let expires = may_sign(&certificate, now)?;
        if certificate.public_key().raw != key.subject_public_key_info() {
            return Err(RootProblem::Mismatch);
        }
        drop(certificate);
        Ok((key, der, expires))
    }
}

/// When the certificate expires, if it is an authority's and valid now.
fn may_sign(certificate: &X509Certificate<'_>, now: SystemTime) -> Result<SystemTime, RootProblem> {
    let is_authority = certificate.is_ca();
    let usage = certificate.key_usage().ok().flatten();
    if !is_authority || usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(RootProblem::NotAnAuthority);
    }
    let validity = certificate.validity();
    let at = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let (from, until) = (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()));
    if now >= until {
        return Err(RootProblem::Expired(validity.not_after.to_string()));
    }
    if now < from {
        return Err(RootProblem::NotYetValid(validity.not_before.to_string()));
    }
    Ok(until)
}

/// One certificate in PEM. What is given to others is written by us, whatever stood around it in what was read.
pub(super) fn pem(certificate: &CertificateDer<'_>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate.as_ref()), config)
}
