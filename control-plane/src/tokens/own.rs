//! Tokens that we sign ourselves, where no API server does (directory mode). They look like the projected
//! ServiceAccount tokens of Kubernetes.

use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};

use super::{AUDIENCE, TokenError};
use crate::state::StateDirectory;
use crate::workload::Workload;

/// How long a token that we sign is good: the least that Kubernetes gives.
pub const LIFE: Duration = Duration::from_secs(600);

const ISSUER: &str = "gauze-control-plane";
const KEY: &str = "tokens.key";

/// The key that signs and checks tokens.
pub struct Tokens {
    signing: EncodingKey,
    checking: DecodingKey,
    validation: Validation,
}

/// What stands in a token (Kubernetes' names).
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: u64,
    iat: u64,
    nbf: u64,
    iss: String,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Bound,
}

#[derive(Debug, Serialize, Deserialize)]
struct Bound {
    namespace: String,
    pod: Object,
    serviceaccount: Object,
}

#[derive(Debug, Serialize, Deserialize)]
struct Object {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
}

impl Tokens {
    /// Opens the key kept in `state`, or creates it once.
    ///
    /// # Errors
    /// The key cannot be read, written or used.
    pub fn open(state: &StateDirectory) -> anyhow::Result<Tokens> {
        let _lock = state.lock_for_creation()?;
        let key = match state.read_key(KEY)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|e| anyhow::anyhow!("{KEY}: {e}"))?,
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                state.replace(KEY, &key.serialize_pem())?;
                key
            }
        };
        Ok(Tokens::of(&key))
    }

    fn of(key: &KeyPair) -> Tokens {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = 0;
        Tokens {
            signing: EncodingKey::from_ec_der(key.serialized_der()),
            checking: DecodingKey::from_ec_der(key.public_key_raw()),
            validation,
        }
    }

    /// Signs a token for `workload`, good for [`LIFE`] from `now`.
    ///
    /// # Errors
    /// The signature failed.
    pub fn sign(&self, workload: &Workload, now: SystemTime) -> Result<String, jsonwebtoken::errors::Error> {
        let claims = Claims::of(workload, now);
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.signing)
    }

    /// Checks signature, audience and times (by the system's clock), and reads who the token is for.
    ///
    /// # Errors
    /// Any of these does not hold, or the token is not bound to a pod.
    pub fn verify(&self, token: &str) -> Result<Workload, TokenError> {
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.checking, &self.validation);
        let claims = decoded.map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => TokenError::Expired,
            ErrorKind::InvalidAudience => TokenError::Audience,
            ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm | ErrorKind::InvalidIssuer => {
                TokenError::Signature
            }
            _ => TokenError::Malformed(error.to_string()),
        })?;
        claims.claims.workload()
    }
}

impl Claims {
    fn of(workload: &Workload, now: SystemTime) -> Claims {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Claims {
            aud: vec![AUDIENCE.to_owned()],
            exp: now + LIFE.as_secs(),
            iat: now,
            nbf: now,
            iss: ISSUER.to_owned(),
            sub: subject(&workload.namespace, &workload.service_account),
            kubernetes: Bound {
                namespace: workload.namespace.clone(),
                pod: Object { name: workload.pod.clone(), uid: workload.uid.clone() },
                serviceaccount: Object { name: workload.service_account.clone(), uid: String::new() },
            },
        }
    }

    fn workload(self) -> Result<Workload, TokenError> {
        let Bound { namespace, pod, serviceaccount } = self.kubernetes;
        if self.sub != subject(&namespace, &serviceaccount.name) {
            return Err(TokenError::Malformed("its subject is not its ServiceAccount".to_owned()));
        }
        Ok(Workload { namespace, pod: pod.name, uid: pod.uid, service_account: serviceaccount.name })
    }
}

fn subject(namespace: &str, service_account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{service_account}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn web() -> Workload {
        let [namespace, pod, uid, service_account] = ["shop", "web-0", "u1", "web"].map(str::to_owned);
        Workload { namespace, pod, uid, service_account }
    }

    pub(crate) fn tokens() -> Tokens {
        Tokens::of(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    /// A token of `tokens` whose claims were changed before signing.
    fn forged(tokens: &Tokens, change: impl FnOnce(&mut Claims)) -> String {
        let mut claims = Claims::of(&web(), SystemTime::now());
        change(&mut claims);
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &tokens.signing).unwrap()
    }

    #[test]
    fn a_token_says_who_it_was_signed_for() {
        let tokens = tokens();
        let token = tokens.sign(&web(), SystemTime::now()).unwrap();
        assert_eq!(tokens.verify(&token), Ok(web()));
    }

    #[test]
    fn a_token_is_refused_if() {
        let tokens = tokens();
        let other = self::tokens();
        let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
        let unsigned = "eyJhbGciOiJub25lIn0.e30.";
        for (why, token, expected) in [
            ("it has expired", tokens.sign(&web(), an_hour_ago).unwrap(), "expired"),
            ("another key signed it", other.sign(&web(), SystemTime::now()).unwrap(), "not signed by"),
            ("it is for others", forged(&tokens, |c| c.aud = vec!["vault".to_owned()]), "audience"),
            ("another issued it", forged(&tokens, |c| c.iss = "kubernetes".to_owned()), "not signed by"),
            ("its subject is another", forged(&tokens, |c| c.sub = subject("shop", "cart")), "subject"),
            ("it is not signed", unsigned.to_owned(), "not a ServiceAccount token"),
            ("it is garbage", "garbage".to_owned(), "not a ServiceAccount token"),
            ("it is empty", String::new(), "not a ServiceAccount token"),
        ] {
            let refused = tokens.verify(&token).expect_err(why).to_string();
            assert!(refused.contains(expected), "{why}: {refused}");
        }
    }

    #[test]
    fn the_key_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path().join(".gauze")).unwrap();
        let token = Tokens::open(&state).unwrap().sign(&web(), SystemTime::now()).unwrap();
        assert_eq!(Tokens::open(&state).unwrap().verify(&token), Ok(web()));
    }
}
