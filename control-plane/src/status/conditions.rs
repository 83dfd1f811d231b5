//! From what is wrong with an object to Kubernetes conditions, with the reasons of Gateway API and GEP-713.

use gauze_model::Code;

use super::programmed::Count;
use super::{Condition, Truth};
use crate::problem::Problem;
use crate::translate::Judgement;
use crate::world::ObjectKind;

/// Problems that one condition spells out; of more it says how many.
const MESSAGES_MAX: usize = 5;
/// Characters of a message, for a person to read; Kubernetes would take 32,768.
const MESSAGE_MAX: usize = 4_096;

/// The conditions of an object at one parent. `unusable` says why its newest version is not the one in force.
pub(super) fn of(
    kind: ObjectKind,
    judgement: &Judgement,
    unusable: Option<&Problem>,
    programmed: &Count,
    generation: i64,
) -> Vec<Condition> {
    // What cannot be used is the newest version; all else is said of the one in force.
    let newest: Vec<Condition> =
        unusable.into_iter().map(|problem| unusable_condition(problem, true)).collect();
    let mut conditions = match (unusable, &judgement.refused) {
        (Some(_), _) => Vec::new(),
        (None, Some(problem)) => vec![refused(problem)],
        (None, None) => accepted(kind, judgement),
    };
    if judgement.refused.is_none() || judgement.in_force {
        conditions.push(match &judgement.overridden {
            Some(problem) => condition("Programmed", Truth::False, "Overridden", text(problem)),
            None => programmed.condition(),
        });
    }
    let in_force =
        conditions.into_iter().map(|condition| Condition { observed_generation: generation, ..condition });
    newest.into_iter().chain(in_force).collect()
}

/// The condition of an object that its source cannot use.
pub(super) fn unusable_condition(problem: &Problem, earlier_in_force: bool) -> Condition {
    let earlier = if earlier_in_force { "; its last good version stays in force" } else { "" };
    let place = problem.place.as_ref().map_or_else(String::new, |place| format!(" ({place})"));
    let message = format!("{}{place}{earlier}", text(problem));
    let condition = condition("Accepted", Truth::False, "Invalid", message);
    Condition { observed_generation: problem.origin.generation, ..condition }
}

fn refused(problem: &Problem) -> Condition {
    let is_route = matches!(problem.origin.kind.as_str(), "HTTPRoute" | "GRPCRoute" | "TLSRoute");
    let reason = match problem.code {
        Code::PARENT_MISSING | Code::PARENT_PORT_MISSING | Code::PARENT_KIND_UNSUPPORTED => {
            if is_route {
                "NoMatchingParent"
            } else {
                "TargetNotFound"
            }
        }
        Code::CONFLICT => "Conflicted",
        Code::INCOMPATIBLE_FILTERS => "IncompatibleFilters",
        Code::INVALID_VALUE | Code::POLICY_CLOSED if !is_route => "Invalid",
        _ => "UnsupportedValue",
    };
    condition("Accepted", Truth::False, reason, text(problem))
}

fn accepted(kind: ObjectKind, judgement: &Judgement) -> Vec<Condition> {
    let of_class = |class: Class| -> Vec<&Problem> {
        judgement.problems.iter().filter(|problem| class_of(problem) == class).collect()
    };
    let (notes, references, rules) =
        (of_class(Class::Note), of_class(Class::Reference), of_class(Class::Rule));
    let mut conditions = vec![condition("Accepted", Truth::True, "Accepted", texts(&notes, "accepted"))];
    // A policy refers to nothing but its targets.
    if !matches!(kind, ObjectKind::TrafficPolicy | ObjectKind::AuthorizationPolicy) {
        conditions.push(resolved(&references));
    }
    if !rules.is_empty() {
        // Gateway API wants these words first, so that a reader knows that no earlier version stands in.
        let first = if kind == ObjectKind::TrafficSplit { "" } else { "Dropped Rule: " };
        let message = format!("{first}{}", texts(&rules, ""));
        conditions.push(condition("PartiallyInvalid", Truth::True, "UnsupportedValue", message));
    }
    conditions
}

fn resolved(problems: &[&Problem]) -> Condition {
    match problems.first() {
        None => condition("ResolvedRefs", Truth::True, "ResolvedRefs", "all references resolve".to_owned()),
        Some(first) => {
            condition("ResolvedRefs", Truth::False, reason_of_reference(first.code), texts(problems, ""))
        }
    }
}

/// Which condition a problem belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Something has no effect; what there is, is right.
    Note,
    /// A backend cannot be used.
    Reference,
    /// A rule, or a match of it, cannot be used.
    Rule,
}

fn class_of(problem: &Problem) -> Class {
    match problem.code {
        Code::BACKEND_MISSING
        | Code::BACKEND_PORT_MISSING
        | Code::BACKEND_KIND_UNSUPPORTED
        | Code::BACKEND_NOT_PERMITTED
        | Code::SERVICE_TYPE_UNSUPPORTED
        | Code::NO_ENDPOINTS
        | Code::MATCH_GROUP_MISSING
        | Code::MATCH_KIND_UNSUPPORTED => Class::Reference,
        _ if problem.spoils_rule() => Class::Rule,
        _ => Class::Note,
    }
}

fn reason_of_reference(code: Code) -> &'static str {
    match code {
        Code::BACKEND_KIND_UNSUPPORTED | Code::SERVICE_TYPE_UNSUPPORTED | Code::MATCH_KIND_UNSUPPORTED => {
            "InvalidKind"
        }
        Code::BACKEND_NOT_PERMITTED => "RefNotPermitted",
        Code::NO_ENDPOINTS => "NoEndpoints",
        Code::MATCH_GROUP_MISSING => "RouteGroupNotFound",
        _ => "BackendNotFound",
    }
}

pub(super) fn condition(
    condition_type: &'static str,
    status: Truth,
    reason: &'static str,
    mut message: String,
) -> Condition {
    if let Some((end, _)) = message.char_indices().nth(MESSAGE_MAX) {
        message.truncate(end);
        message.push('…');
    }
    Condition {
        condition_type: condition_type.into(),
        status,
        reason: reason.into(),
        message,
        observed_generation: 0,
    }
}

fn text(problem: &Problem) -> String {
    match problem.origin.path.as_str() {
        "" => format!("{} ({})", problem.message, problem.code),
        path => format!("{path}: {} ({})", problem.message, problem.code),
    }
}

fn texts(problems: &[&Problem], none: &str) -> String {
    if problems.is_empty() {
        return none.to_owned();
    }
    let mut texts: Vec<String> = problems.iter().take(MESSAGES_MAX).map(|problem| text(problem)).collect();
    if problems.len() > MESSAGES_MAX {
        texts.push(format!("and {} more", problems.len() - MESSAGES_MAX));
    }
    texts.join("; ")
}
