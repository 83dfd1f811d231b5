//! Istio's `IstioCertificateService` (`security/proto/istio/v1/auth/ca.proto`), so that an external authority such
//! as istio-csr can stand in for ours. The token travels as `authorization: Bearer …` in the call's metadata.

use envoy_types::pb::google::protobuf::Struct;

/// `NamedService::NAME` of the service.
pub const SERVICE: &str = "istio.v1.auth.IstioCertificateService";

/// The path of its only method.
pub const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// Asks for a certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    /// PEM. Our authority takes only the public key from it.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Wanted life in seconds; the authority may give less.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// The certificate.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CertificateResponse {
    /// PEM: the leaf, then intermediates, then the root.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn a_request_has_the_bytes_that_istio_reads() {
        let request = CertificateRequest { csr: "x".into(), validity_duration: 5, metadata: None };
        assert_eq!(request.encode_to_vec(), [0x0a, 1, b'x', 0x18, 5]);
    }
}
