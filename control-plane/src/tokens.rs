//! Workload tokens: what a proxy shows to get its certificate. Kubernetes projects them into the pod, and its
//! API server judges them; in directory mode we sign and judge our own.
//!
//! A good token says who asks. Whether that pod exists is the world's to say.

use std::net::IpAddr;
use std::sync::Arc;

mod files; // one for each meshed pod of a directory
mod own; // signed by ourselves

pub use files::{TokenFiles, keep};
pub use own::{LIFE, Tokens};

use crate::cluster::review::Reviewer;
use crate::workload::Workload;

/// Who a token is for (`--audience` of a projected token).
pub const AUDIENCE: &str = "gauze";
/// Largest token that is looked at, in bytes.
pub const SIZE_MAX: usize = 8 * 1024;

/// Who says whether a token is good.
#[derive(Clone)]
pub enum TokenCheck {
    /// We signed it ourselves.
    Own(Arc<Tokens>),
    /// The API server.
    Review(Arc<Reviewer>),
}

/// Why a token is refused. Nothing of the token itself is repeated: logs are read by many.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token has {0} bytes, more than {SIZE_MAX}")]
    TooLarge(usize),
    #[error("the token has expired; read the token file anew at each use")]
    Expired,
    #[error("the token is not for the audience `{AUDIENCE}`")]
    Audience,
    #[error("the token is not signed by this control plane")]
    Signature,
    #[error("the token is not a ServiceAccount token bound to a pod: {0}")]
    Malformed(String),
    #[error("the API server does not accept the token: {0}")]
    Rejected(String),
    #[error("the token is not a ServiceAccount's, but of `{0}`")]
    NotAServiceAccount(String),
    #[error("the token of ServiceAccount {0} is not bound to a pod")]
    NotBoundToAPod(String),
    #[error("tokens of this address are being reviewed already, as many as may be at once; try again")]
    TooMany,
    /// Nothing is known about the token: neither good nor bad.
    #[error("the API server cannot be asked about the token: {0}")]
    NotReviewed(String),
}

impl TokenCheck {
    /// Who `token` is for, if it is good now. `client` is the address that showed it.
    ///
    /// # Errors
    /// The token is refused, or nobody can be asked.
    pub async fn verify(&self, token: &str, client: IpAddr) -> Result<Workload, TokenError> {
        if token.len() > SIZE_MAX {
            return Err(TokenError::TooLarge(token.len()));
        }
        if token.is_empty() {
            return Err(TokenError::Malformed("it is empty".to_owned()));
        }
        // RFC 6750, b64token. The API server would read on to the first space and not look at the rest.
        if !token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)) {
            return Err(TokenError::Malformed("it has characters that no token has".to_owned()));
        }
        match self {
            TokenCheck::Own(tokens) => tokens.verify(token),
            TokenCheck::Review(reviewer) => reviewer.review(token, client).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_that_is_too_large_is_not_even_looked_at() {
        let check = TokenCheck::Own(Arc::new(own::tests::tokens()));
        let refused = check.verify(&"x".repeat(SIZE_MAX + 1), IpAddr::from([127, 0, 0, 1])).await;
        assert_eq!(refused, Err(TokenError::TooLarge(SIZE_MAX + 1)));
    }
}
