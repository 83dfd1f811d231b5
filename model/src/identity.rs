//! SPIFFE ids, parsed once and compared as values (SPIFFE-ID standard, section 2).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Who a workload is: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, the form that
/// Istio and ztunnel use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SpiffeId {
    /// Whose roots vouch for it.
    pub trust_domain: String,
    /// The Kubernetes namespace.
    pub namespace: String,
    /// The ServiceAccount in that namespace.
    pub service_account: String,
}

/// A string that is not an identity of this mesh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not of the form spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")]
pub struct NotAnIdentity(pub String);

impl SpiffeId {
    /// The identity of these parts, which are taken as they are; [`FromStr`] checks them.
    pub fn new(
        trust_domain: impl Into<String>,
        namespace: impl Into<String>,
        service_account: impl Into<String>,
    ) -> SpiffeId {
        SpiffeId {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        }
    }

    /// The one identity that may serve configuration and certificates.
    pub fn control_plane(trust_domain: impl Into<String>, system_namespace: impl Into<String>) -> SpiffeId {
        SpiffeId::new(trust_domain, system_namespace, "gauze-control-plane")
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl FromStr for SpiffeId {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<SpiffeId, NotAnIdentity> {
        let refused = || NotAnIdentity(text.to_owned());
        let rest = text.strip_prefix("spiffe://").ok_or_else(refused)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [trust_domain, "ns", namespace, "sa", service_account] = parts[..] else {
            return Err(refused());
        };
        if !is_trust_domain(trust_domain) || !is_segment(namespace) || !is_segment(service_account) {
            return Err(refused());
        }
        Ok(SpiffeId::new(trust_domain, namespace, service_account))
    }
}

/// SPIFFE-ID 2.1: lower case letters, digits, dots, dashes and underscores.
fn is_trust_domain(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b))
}

/// SPIFFE-ID 2.2: letters, digits, dots, dashes and underscores; never a relative segment.
fn is_segment(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text != "."
        && text != ".."
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = NotAnIdentity;

    fn try_from(text: String) -> Result<SpiffeId, NotAnIdentity> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_as_it_was_written() {
        let id = SpiffeId::new("cluster.local", "shop", "web");
        assert_eq!("spiffe://cluster.local/ns/shop/sa/web".parse(), Ok(id));
    }

    #[test]
    fn near_misses_are_refused() {
        for text in [
            "spiffe://cluster.local/ns/shop/sa/web/",
            "spiffe://cluster.local/ns/shop/sa/",
            "spiffe://Cluster.local/ns/shop/sa/web",
            "spiffe://cluster.local/ns/../sa/web",
            "spiffe://cluster.local/ns/sh%6fp/sa/web",
            "spiffe://cluster.local/ns/shop/sa/web?x",
            "https://cluster.local/ns/shop/sa/web",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}
