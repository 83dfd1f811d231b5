//! The API server's verdict on a workload's token (TokenReview). What it says is read closely: an
//! authenticator that does not know audiences accepts tokens that were never meant for us.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::reason;
use crate::tokens::{AUDIENCE, TokenError};
use crate::workload::Workload;

/// Reviews going on at once; further ones wait.
const REVIEWS_MAX: usize = 64;
/// Of these, those asked for from one address: one pod cannot keep the others out.
const REVIEWS_OF_ONE_CLIENT_MAX: usize = 4;
/// How long a proxy waits for a verdict, the wait for its turn included. It gives up itself after 10 s.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// What is repeated of the API server's words, in characters.
const REASON_LENGTH_MAX: usize = 300;

/// What TokenReview says of the pod that a token is bound to (KEP-1205, KEP-4193).
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Asks the API server about tokens.
pub struct Reviewer {
    api: Api<TokenReview>,
    places: Semaphore,
    asking: Asking,
}

impl Reviewer {
    pub fn new(client: Client) -> Reviewer {
        Reviewer { api: Api::all(client), places: Semaphore::new(REVIEWS_MAX), asking: Asking::default() }
    }

    /// Who the token is for, by the API server's word.
    ///
    /// # Errors
    /// It does not accept the token, the token is not bound to a pod, or it cannot be asked.
    pub async fn review(&self, token: &str, client: IpAddr) -> Result<Workload, TokenError> {
        let _turn = self.asking.begin(client).ok_or(TokenError::TooMany)?;
        let status = timeout(REVIEW_TIMEOUT, self.ask(token)).await;
        let status =
            status.map_err(|_| TokenError::NotReviewed(format!("no answer in {REVIEW_TIMEOUT:?}")))?;
        judge(status?)
    }

    async fn ask(&self, token: &str) -> Result<TokenReviewStatus, TokenError> {
        let _place = self.places.acquire().await;
        let spec = TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: token.to_owned() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = self.api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| TokenError::NotReviewed(reason(&error)))?;
        answer.status.ok_or_else(|| TokenError::NotReviewed("its answer has no status".to_owned()))
    }
}

/// Reads the verdict: what is not said outright is a refusal.
fn judge(status: TokenReviewStatus) -> Result<Workload, TokenError> {
    if status.authenticated != Some(true) {
        let reason = status.error.unwrap_or_else(|| "it is not valid".to_owned());
        return Err(TokenError::Rejected(reason.chars().take(REASON_LENGTH_MAX).collect()));
    }
    if !status.audiences.unwrap_or_default().iter().any(|audience| audience == AUDIENCE) {
        return Err(TokenError::Audience);
    }
    let user = status.user.unwrap_or_default();
    let (namespace, service_account) = service_account(&user)
        .ok_or_else(|| TokenError::NotAServiceAccount(user.username.clone().unwrap_or_default()))?;
    let (Some(pod), Some(uid)) = (extra(&user, POD_NAME), extra(&user, POD_UID)) else {
        return Err(TokenError::NotBoundToAPod(format!("{namespace}/{service_account}")));
    };
    Ok(Workload { namespace, pod, uid, service_account })
}

/// Namespace and name of `system:serviceaccount:NAMESPACE:NAME`; neither can hold a colon.
fn service_account(user: &UserInfo) -> Option<(String, String)> {
    let (namespace, name) = user.username.as_deref()?.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
    let named = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
    named.then(|| (namespace.to_owned(), name.to_owned()))
}

/// The one value of a key; none, if there are several.
fn extra(user: &UserInfo, key: &str) -> Option<String> {
    match user.extra.as_ref()?.get(key)?.as_slice() {
        [value] if !value.is_empty() => Some(value.clone()),
        _ => None,
    }
}

/// How many reviews each address waits for now.
#[derive(Default)]
struct Asking(Mutex<BTreeMap<IpAddr, usize>>);

/// One of these; it is given back when dropped.
struct Turn<'a> {
    asking: &'a Asking,
    client: IpAddr,
}

impl Asking {
    fn begin(&self, client: IpAddr) -> Option<Turn<'_>> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let going_on = clients.entry(client).or_default();
        if *going_on == REVIEWS_OF_ONE_CLIENT_MAX {
            return None;
        }
        *going_on += 1;
        Some(Turn { asking: self, client })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut clients = self.asking.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(going_on) = clients.get_mut(&self.client) else { return };
        *going_on -= 1;
        if *going_on == 0 {
            clients.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn verdict(change: impl FnOnce(&mut serde_json::Value)) -> Result<Workload, TokenError> {
        let mut status = json!({
            "authenticated": true,
            "audiences": ["gauze"],
            "user": {
                "username": "system:serviceaccount:shop:web",
                "uid": "a1",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"],
                "extra": {POD_NAME: ["web-0"], POD_UID: ["u1"]}
            }
        });
        change(&mut status);
        judge(serde_json::from_value(status).unwrap())
    }

    #[test]
    fn a_verdict_names_the_pod() {
        let [namespace, pod, uid, service_account] = ["shop", "web-0", "u1", "web"].map(str::to_owned);
        assert_eq!(verdict(|_| ()), Ok(Workload { namespace, pod, uid, service_account }));
    }

    #[test]
    fn a_verdict_that_leaves_anything_open_is_a_refusal() {
        let rejected = |why: &str| TokenError::Rejected(why.to_owned());
        let nobody = |name: &str| TokenError::NotAServiceAccount(name.to_owned());
        let unbound = || TokenError::NotBoundToAPod("shop/web".to_owned());
        type Change = fn(&mut serde_json::Value);
        let rows: [(&str, Change, TokenError); 14] = [
            ("not authenticated", |s| s["authenticated"] = json!(false), rejected("it is not valid")),
            ("nothing is said", |s| *s = json!({}), rejected("it is not valid")),
            (
                "an error beside a user",
                |s| *s = json!({"error": "expired", "user": s["user"]}),
                rejected("expired"),
            ),
            ("the server knows no audiences", |s| s["audiences"] = json!(null), TokenError::Audience),
            ("no audience fits", |s| s["audiences"] = json!([]), TokenError::Audience),
            ("another audience fits", |s| s["audiences"] = json!(["gauze2", "api"]), TokenError::Audience),
            ("there is no user", |s| s["user"] = json!(null), nobody("")),
            ("the user is a person", |s| s["user"]["username"] = json!("jane"), nobody("jane")),
            (
                "the user is a node",
                |s| s["user"]["username"] = json!("system:node:node1"),
                nobody("system:node:node1"),
            ),
            (
                "the name has a part too many",
                |s| s["user"]["username"] = json!("system:serviceaccount:shop:web:x"),
                nobody("system:serviceaccount:shop:web:x"),
            ),
            ("it is bound to nothing", |s| s["user"]["extra"] = json!(null), unbound()),
            ("it is bound to a pod without uid", |s| s["user"]["extra"][POD_UID] = json!([]), unbound()),
            ("it is bound to a pod without name", |s| s["user"]["extra"][POD_NAME] = json!([""]), unbound()),
            ("it is bound to two pods", |s| s["user"]["extra"][POD_NAME] = json!(["a", "b"]), unbound()),
        ];
        for (what, change, expected) in rows {
            assert_eq!(verdict(change), Err(expected), "{what}");
        }
    }

    #[test]
    fn one_address_gets_few_turns_and_others_theirs() {
        let asking = Asking::default();
        let [pod, other] = [[10, 1, 0, 4], [10, 1, 0, 5]].map(IpAddr::from);
        let mut turns: Vec<_> = (0..REVIEWS_OF_ONE_CLIENT_MAX).map(|_| asking.begin(pod).unwrap()).collect();
        assert!(asking.begin(pod).is_none());
        assert!(asking.begin(other).is_some());
        turns.pop();
        assert!(asking.begin(pod).is_some());
        drop(turns);
        assert!(asking.0.lock().unwrap().is_empty(), "nothing is remembered of those who left");
    }
}
