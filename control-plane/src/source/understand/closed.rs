//! What is left of an AuthorizationPolicy that is not understood: it is never gone, and never what it was before,
//! which another replica may not know. Whoever translates it takes it for closed.

use std::sync::Arc;

use gauze_crds::AuthorizationPolicy;
use gauze_crds::authorization_policy::{AuthorizationAction, AuthorizationPolicySpec, Unreadable};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Fault;
use crate::world::Object;

/// Marks a policy of whose spec something was not understood: without it, the rest may mean more than it should.
pub(super) fn if_not_understood(policy: Arc<AuthorizationPolicy>, faults: &[Fault]) -> Object {
    let Some(fault) = faults.iter().find(|fault| fault.path.starts_with(SPEC)) else {
        return Object::AuthorizationPolicy(policy);
    };
    let mut policy = Arc::unwrap_or_clone(policy);
    policy.spec.unreadable = Some(unreadable(fault));
    Object::AuthorizationPolicy(Arc::new(policy))
}

/// What can be told of one that is not even of the type; nothing, if it does not say which object it is.
pub(super) fn of_unreadable(given: &Value, fault: &Fault) -> Option<Object> {
    let spec = AuthorizationPolicySpec {
        target_refs: part(given, "/spec/targetRefs").flatten(),
        // What may be a Deny is taken for one.
        action: match given.pointer("/spec/action") {
            None => AuthorizationAction::default(),
            Some(_) => part(given, "/spec/action").unwrap_or(AuthorizationAction::Deny),
        },
        rules: Vec::new(),
        unreadable: Some(unreadable(fault)),
    };
    let metadata = part(given, "/metadata")?;
    Some(Object::AuthorizationPolicy(Arc::new(AuthorizationPolicy { metadata, spec, status: None })))
}

fn part<T: DeserializeOwned>(given: &Value, path: &str) -> Option<T> {
    serde_json::from_value(given.pointer(path)?.clone()).ok()
}

fn unreadable(fault: &Fault) -> Unreadable {
    let target_refs = fault.path.starts_with(TARGETS);
    Unreadable { path: fault.path.clone(), message: fault.message.clone(), target_refs }
}

const SPEC: &str = "spec";
const TARGETS: &str = "spec.targetRefs";
