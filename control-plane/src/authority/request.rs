//! Signing requests (PKCS #10). All that is taken from one is its public key.

use rcgen::{CertificateSigningRequestParams, PKCS_ECDSA_P256_SHA256, PublicKeyData};

/// Largest signing request that is read, in bytes; one for P-256 has about 500.
pub const REQUEST_SIZE_MAX: usize = 16 * 1024;
/// An uncompressed point of P-256 (SEC 1, 2.3.3).
const P256_POINT_SIZE: usize = 65;

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

/// The public key of a signing request whose signature proves that the client has the private one.
pub(super) fn public_key(request: &str) -> Result<impl PublicKeyData + use<>, RequestError> {
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
