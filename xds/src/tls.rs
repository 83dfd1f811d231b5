//! Mesh TLS as Envoy spells it: the same on every listener and cluster, but for a name and the inner protocol.
//!
//! Certificates and roots come by SDS under the names that SPIRE uses: a workload's own id, `default` for "whoever I
//! am", the trust domain's id and `ROOTCA` for the roots. Envoy cannot be told an endpoint's identity by EDS: it
//! verifies that a peer is *some* identity of the mesh, where a gauze proxy insists on the right one.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::util::pack_any;
use gauze_model::SpiffeId;

use crate::path::{At as _, Fault, Read, required};
use crate::values::{ads, boolean, unpack};

/// What ALPN says about the inner protocol.
pub(crate) const HTTP2: &str = "gauze/h2";
pub(crate) const HTTP1: &str = "gauze/http1";
pub(crate) const TCP: &str = "gauze/tcp";

/// What a pod's listener presents and demands.
pub(crate) fn downstream(identity: &SpiffeId, alpn: &[&str]) -> core::TransportSocket {
    let roots = format!("spiffe://{}", identity.trust_domain);
    let mut prefix = roots.clone();
    prefix.push('/');
    socket(tls::DownstreamTlsContext {
        common_tls_context: Some(common(&identity.to_string(), &roots, &prefix, alpn)),
        require_client_certificate: boolean(true),
        ..tls::DownstreamTlsContext::default()
    })
}

/// The identity that a listener presents.
pub(crate) fn read_downstream_identity(socket: &core::TransportSocket) -> Read<SpiffeId> {
    let Some(ConfigType::TypedConfig(config)) = &socket.config_type else {
        return Err(Fault::new("missing").at("typed_config"));
    };
    let context: tls::DownstreamTlsContext = unpack(config).at("typed_config")?;
    let certificates = context.common_tls_context.unwrap_or_default().tls_certificate_sds_secret_configs;
    let secret = certificates.into_iter().next();
    let identity = required(secret).and_then(|secret| {
        let identity: Result<SpiffeId, _> = secret.name.parse();
        identity.map_err(|problem| Fault::new(problem.to_string()).at("name"))
    });
    identity.item(0).at("tls_certificate_sds_secret_configs").at("common_tls_context").at("typed_config")
}

/// How a mesh endpoint is dialled.
pub(crate) fn upstream(alpn: &str) -> core::TransportSocket {
    socket(tls::UpstreamTlsContext {
        common_tls_context: Some(common("default", "ROOTCA", "spiffe://", &[alpn])),
        ..tls::UpstreamTlsContext::default()
    })
}

fn socket(context: impl prost::Name) -> core::TransportSocket {
    core::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack_any(context))),
    }
}

/// TLS 1.3 with a certificate on both sides, as between gauze proxies.
fn common(certificate: &str, roots: &str, peers: &str, alpn: &[&str]) -> tls::CommonTlsContext {
    let parameters = tls::TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv13 as i32,
        tls_maximum_protocol_version: TlsProtocol::TlSv13 as i32,
        ..tls::TlsParameters::default()
    };
    let peers =
        StringMatcher { ignore_case: false, match_pattern: Some(MatchPattern::Prefix(peers.to_owned())) };
    let peers = tls::SubjectAltNameMatcher {
        san_type: SanType::Uri as i32,
        matcher: Some(peers),
        ..tls::SubjectAltNameMatcher::default()
    };
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(tls::CertificateValidationContext {
            match_typed_subject_alt_names: vec![peers],
            ..tls::CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(secret(roots)),
        ..CombinedCertificateValidationContext::default()
    };
    tls::CommonTlsContext {
        tls_params: Some(parameters),
        tls_certificate_sds_secret_configs: vec![secret(certificate)],
        alpn_protocols: alpn.iter().map(ToString::to_string).collect(),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
        ..tls::CommonTlsContext::default()
    }
}

fn secret(name: &str) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name: name.to_owned(), sds_config: Some(ads()) }
}
