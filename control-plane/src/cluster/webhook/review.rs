//! One admission review: bytes in, the decision, and the answer as bytes. No sockets, no clock, no dice.

use k8s_openapi::api::core::v1::Pod;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use serde::Deserialize;
use serde_json::Value;

use crate::inject::{Action, Asked, Finding, INJECT, Injector, Rule, decide, inject};

/// Which of the two webhooks the API server called: it has evaluated their selectors, so nothing needs to be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskedBy {
    /// The pod has `gauze.dev/inject`.
    Pod,
    /// Its namespace has the label `gauze.dev/inject: enabled`, and the pod says nothing.
    Namespace,
}

/// A review that was read and decided.
pub(super) struct Reviewed {
    pub(super) namespace: String,
    /// Its name, or what its name will begin with.
    pub(super) pod: String,
    pub(super) dry_run: bool,
    pub(super) rule: Rule,
    /// `injected`, `left` or `refused`.
    pub(super) action: &'static str,
    response: AdmissionResponse,
}

/// Why a review cannot be answered. The API server then does as `failurePolicy` says.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReviewError {
    #[error("this is no admission review of version v1: {0}")]
    Unreadable(String),
    #[error("only pods that are created are reviewed here, not {0}")]
    NotAPod(String),
    #[error("the pod cannot be read: {0}")]
    PodUnreadable(serde_path_to_error::Error<serde_json::Error>),
}

/// Decides about the pod of a review. `word` is what `inject` asks for.
pub(super) fn review(
    body: &[u8],
    asked_by: AskedBy,
    injector: &Injector,
    word: &str,
) -> Result<Reviewed, ReviewError> {
    let unreadable = |error: &dyn std::fmt::Display| ReviewError::Unreadable(error.to_string());
    let json: Value = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    let review = AdmissionReview::<DynamicObject>::deserialize(&json).map_err(|error| unreadable(&error))?;
    let request: AdmissionRequest<DynamicObject> = review.try_into().map_err(|error| unreadable(&error))?;
    if request.kind.kind != "Pod" || request.operation != Operation::Create || request.sub_resource.is_some()
    {
        return Err(ReviewError::NotAPod(format!("{} ({:?})", request.kind.kind, request.operation)));
    }
    // As it was sent: our types may not know all fields.
    let object = &json["request"]["object"];
    let pod: Pod = serde_path_to_error::deserialize(object).map_err(ReviewError::PodUnreadable)?;

    let namespace = request.namespace.clone().unwrap_or_default();
    let label = (asked_by == AskedBy::Namespace).then(|| "enabled".to_owned());
    let decision = decide(&pod, &Asked { namespace: namespace.clone(), label }, injector);
    let mut response = AdmissionResponse::from(&request);
    let action = match &decision.action {
        Action::Inject(wishes) => {
            let injected = inject(object, decision.rule, &decision.reason(), wishes, injector, word);
            response = response
                .with_patch(json_patch::diff(object, &injected))
                .map_err(|error| unreadable(&error))?;
            "injected"
        }
        Action::Leave => "left",
        Action::Refuse(findings) => {
            response = response.deny(refusal(findings));
            response.result.code = 422;
            "refused"
        }
    };
    let warnings: Vec<String> = decision.warnings.iter().map(Finding::to_string).collect();
    response.warnings = (!warnings.is_empty()).then_some(warnings);
    response.audit_annotations.insert("rule".to_owned(), decision.rule.to_string());
    let pod = pod.metadata.name.or(pod.metadata.generate_name).unwrap_or_default();
    Ok(Reviewed { namespace, pod, dry_run: request.dry_run, rule: decision.rule, action, response })
}

/// What kubectl shows, or the event of the pod's owner.
fn refusal(findings: &[Finding]) -> String {
    let reasons: Vec<String> = findings.iter().map(Finding::to_string).collect();
    format!(
        "gauze cannot inject this pod: {}. Without a sidecar it starts with {INJECT}: disabled",
        reasons.join("; ")
    )
}

impl Reviewed {
    /// Adds a warning, which kubectl shows.
    pub(super) fn warn(&mut self, warning: String) {
        self.response.warnings.get_or_insert_default().push(warning);
    }

    /// The answer as JSON.
    pub(super) fn answer(self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&self.response.into_review())
    }
}
