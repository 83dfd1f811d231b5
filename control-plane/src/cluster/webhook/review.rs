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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::inject::InjectionSettings;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        injection: InjectionSettings,
    }

    /// What the API server asks about this pod, with other values at these paths.
    fn question(pod: &Value, changes: &[(&str, Value)]) -> Vec<u8> {
        let kind = |kind: &str| json!({ "group": "", "version": "v1", "kind": kind });
        let mut review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "7d9b", "operation": "CREATE", "namespace": "shop", "name": "web", "dryRun": false,
                "kind": kind("Pod"), "resource": { "group": "", "version": "v1", "resource": "pods" },
                "userInfo": {}, "object": pod, "oldObject": null, "options": null,
            },
        });
        for (path, value) in changes {
            *review.pointer_mut(path).unwrap() = value.clone();
        }
        serde_json::to_vec(&review).unwrap()
    }

    fn pod(spec: Value) -> Value {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "generateName": "web-" }, "spec": spec })
    }

    fn app() -> Value {
        pod(json!({ "containers": [{ "name": "app", "fieldOfTomorrow": 1 }] }))
    }

    fn asked(body: &[u8], asked_by: AskedBy) -> Result<Reviewed, ReviewError> {
        let injector = Injector {
            settings: Flags::parse_from(["program"]).injection,
            trust_domain: "cluster.local".to_owned(),
            system_namespace: "gauze-system".to_owned(),
            mesh_networks: Vec::new(),
        };
        review(body, asked_by, &injector, "0123456789abcdef")
    }

    fn answered(reviewed: Reviewed) -> Value {
        let answer: Value = serde_json::from_slice(&reviewed.answer().unwrap()).unwrap();
        assert_eq!(
            (&answer["kind"], &answer["response"]["uid"]),
            (&json!("AdmissionReview"), &json!("7d9b"))
        );
        answer["response"].clone()
    }

    #[test]
    fn the_patch_injects_the_pod_and_keeps_fields_that_we_do_not_know() {
        let reviewed = asked(&question(&app(), &[]), AskedBy::Namespace).unwrap();
        let said = (reviewed.namespace.as_str(), reviewed.pod.as_str(), reviewed.rule, reviewed.action);
        assert_eq!(said, ("shop", "web-", Rule::NamespaceLabel, "injected"));
        let response = answered(reviewed);
        assert_eq!((&response["allowed"], &response["patchType"]), (&json!(true), &json!("JSONPatch")));
        let patch: Vec<u8> = serde_json::from_value(response["patch"].clone()).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        let mut patched = app();
        json_patch::patch(&mut patched, &patch).unwrap();
        assert_eq!(patched["spec"]["initContainers"][1]["name"], "gauze-proxy");
        let mut expected = app()["spec"]["containers"].clone();
        expected[0]["lifecycle"] = json!({ "preStop": { "sleep": { "seconds": 2 } } });
        assert_eq!(patched["spec"]["containers"], expected);
    }

    #[test]
    fn the_path_says_who_asks_and_a_dry_run_says_so() {
        let reviewed = asked(&question(&app(), &[]), AskedBy::Pod).unwrap();
        assert_eq!((reviewed.rule, reviewed.action, reviewed.dry_run), (Rule::NotAsked, "left", false));
        let dry = question(&app(), &[("/request/dryRun", json!(true))]);
        assert!(asked(&dry, AskedBy::Namespace).unwrap().dry_run);
    }

    #[test]
    fn a_refusal_names_every_reason_its_code_and_the_way_out_and_warnings_go_along() {
        let spec = json!({ "securityContext": { "runAsUser": 1337 }, "containers": [{ "name": "a" }, { "name": "b" }] });
        let mut reviewed = asked(&question(&pod(spec), &[]), AskedBy::Namespace).unwrap();
        reviewed.warn("one more".to_owned());
        let response = answered(reviewed);
        assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(422)));
        let message = response["status"]["message"].as_str().unwrap();
        for wanted in
            ["`a` would run as 1337", "`b` would run as 1337", "M2004", "gauze.dev/inject: disabled"]
        {
            assert!(message.contains(wanted), "no `{wanted}` in {message}");
        }
        assert_eq!(response["warnings"], json!(["one more"]));
    }

    #[test]
    fn what_is_no_question_about_a_new_pod_is_not_answered() {
        for (shows, body) in [
            ("no JSON", b"nonsense".to_vec()),
            ("no review", b"{}".to_vec()),
            (
                "an answer",
                br#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": null}"#
                    .to_vec(),
            ),
            ("another operation", question(&app(), &[("/request/operation", json!("UPDATE"))])),
            ("another kind", question(&app(), &[("/request/kind/kind", json!("Service"))])),
            ("a pod of wrong types", question(&pod(json!({ "containers": 1 })), &[])),
        ] {
            assert!(asked(&body, AskedBy::Namespace).is_err(), "{shows}");
        }
    }
}
