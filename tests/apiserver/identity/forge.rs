//! Tokens that the API server would not give, signed with the key that it signs with: what it then refuses, it refuses
//! for its claims.

use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{KeyPair, SigningKey};
use serde_json::{Value, json};

use crate::harness::apiserver::ApiServer;

pub(super) const ISSUER: &str = "https://kubernetes.default.svc";

pub(super) struct Forge(KeyPair);

impl Forge {
    /// With the key of this cluster.
    pub(super) fn of(server: &ApiServer) -> Forge {
        let folder = server.kubeconfig().ancestors().nth(2).expect("FOLDER/kubeconfig/admin").to_owned();
        let pem = std::fs::read_to_string(folder.join("pki/service-account.key")).expect("the rig's key");
        Forge(KeyPair::from_pem(&pem).expect("an RSA key"))
    }

    /// With the key of some other cluster.
    pub(super) fn elsewhere() -> Forge {
        Forge(KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key"))
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({"alg": "RS256", "typ": "JWT"}), claims)
    }

    pub(super) fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let signed = [header, claims].map(|part| base64url(part.to_string().as_bytes())).join(".");
        let signature = self.0.sign(signed.as_bytes()).expect("the key signs");
        format!("{signed}.{}", base64url(&signature))
    }
}

/// The claims of a projected token, good for ten minutes (k8s.io/kubernetes/pkg/serviceaccount/claims.go).
pub(super) fn claims(namespace: &str, account: (&str, &str), pod: (&str, &str)) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    json!({
        "aud": ["gauze"], "iss": ISSUER, "iat": now - 60, "nbf": now - 60, "exp": now + 540,
        "jti": "6f1dd5a4-0f4b-4e6a-9f3f-2b8b1f0a0c11",
        "sub": format!("system:serviceaccount:{namespace}:{}", account.0),
        "kubernetes.io": {
            "namespace": namespace,
            "serviceaccount": {"name": account.0, "uid": account.1},
            "pod": {"name": pod.0, "uid": pod.1},
        },
    })
}

/// RFC 4648, section 5, without padding.
pub(super) fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let group = |chunk: &[u8]| {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len())
            .map(|at| char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize]))
            .collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}
