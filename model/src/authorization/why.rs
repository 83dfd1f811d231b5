//! Why policies say what they say of a call: which rule matched, and which field of the others did not.
//! For `gauze explain`; it asks the functions that decide.

use super::matches::{Asked, matching, operation_matches, source_matches};
use super::{Action, Call, Decision, Operation, Policy, Rule, Source, judge};
use crate::why::Reason;

/// Misses of one policy that are told; who needs more reads the policy.
const MISSES_TOLD_MAX: usize = 4;

/// The verdict, and then what each policy says that decides or records, those first that decide first.
pub fn explain(policies: &[Policy], call: &Call<'_>) -> Vec<Reason> {
    let mut reasons = vec![verdict(&judge(policies, call).decision, call.port)];
    let asked = Asked::of(call);
    for action in [Action::Deny, Action::Allow, Action::Audit] {
        let of_this = policies.iter().filter(|policy| policy.action == action);
        reasons.extend(of_this.map(|policy| what_it_says(policy, &asked)));
    }
    reasons
}

fn verdict(decision: &Decision<'_>, port: u16) -> Reason {
    let (decided, because) = match decision {
        Decision::NothingSays => ("let in", format!("no Allow is about port {port}, and no Deny matches")),
        Decision::Allowed(_) => ("let in", "an Allow matches, and no Deny".to_owned()),
        Decision::Denied(_) => ("refused", "a Deny matches".to_owned()),
        Decision::NotAllowed(_) => ("refused", format!("there are Allows for port {port}, and none matches")),
    };
    let reason = Reason::new("authorization", decided, because);
    match decision.by() {
        Some(by) => reason.by(&by.origin()),
        None => reason,
    }
}

fn what_it_says(policy: &Policy, asked: &Asked<'_>) -> Reason {
    let (action, object) = (policy.action.name(), &policy.origin);
    let matched = matching(policy, asked).filter(|_| policy.selects(asked.call.port));
    let decided = match matched {
        Some(_) => format!("{action} {object}"),
        None => format!("not {action} {object}"),
    };
    let because = match matched {
        _ if !policy.selects(asked.call.port) => format!("it is not about port {}", asked.call.port),
        _ if policy.broken => "it could not be read, and is closed".to_owned(),
        Some(_) => "it matches".to_owned(),
        None if policy.rules.is_empty() => "it has no rules".to_owned(),
        None => misses(policy, asked).join("; "),
    };
    let origin = matched.map_or_else(|| object.clone(), |by| by.origin());
    Reason::new("policy", decided, because).by(&origin)
}

/// Which fields of a policy's rules do not match, by their paths.
fn misses(policy: &Policy, asked: &Asked<'_>) -> Vec<String> {
    let rules = policy.rules.iter().enumerate();
    let all =
        rules.flat_map(|(at, rule)| misses_of(rule, &format!("spec.rules[{at}]"), policy.action, asked));
    let mut all: Vec<String> = all.collect();
    if all.len() > MISSES_TOLD_MAX {
        let more = all.len() - MISSES_TOLD_MAX;
        all.truncate(MISSES_TOLD_MAX);
        all.push(format!("and {more} more"));
    }
    all
}

/// All sources miss, or all operations do: a half of which one entry matches is no reason.
fn misses_of(rule: &Rule, path: &str, action: Action, asked: &Asked<'_>) -> Vec<String> {
    let sources = rule.from.iter().enumerate();
    let sources =
        sources.map(|(at, source)| source_miss(source, &format!("{path}.from[{at}]"), action, asked));
    let operations = rule.to.iter().enumerate();
    let operations = operations
        .map(|(at, operation)| operation_miss(operation, &format!("{path}.to[{at}]"), action, asked));
    let halves: [Option<Vec<String>>; 2] = [sources.collect(), operations.collect()];
    halves.into_iter().flatten().flatten().collect()
}

/// The first field that alone keeps the source from matching; `None`: it matches.
fn source_miss(source: &Source, path: &str, action: Action, asked: &Asked<'_>) -> Option<String> {
    let misses = |source: &Source| !action.is_enough(source_matches(source, asked));
    if !misses(source) {
        return None;
    }
    let Source { identities, not_identities, namespaces, not_namespaces } = source.clone();
    let alone = Source::default();
    let fields = [
        ("identities", texts(&identities), Source { identities, ..alone.clone() }),
        ("notIdentities", texts(&not_identities), Source { not_identities, ..alone.clone() }),
        ("namespaces", texts(&namespaces), Source { namespaces, ..alone.clone() }),
        ("notNamespaces", texts(&not_namespaces), Source { not_namespaces, ..alone }),
    ];
    let who = match asked.call.peer {
        Some(peer) => peer.to_string(),
        None => "a caller outside the mesh has no identity".to_owned(),
    };
    let missed = fields.into_iter().find(|(_, texts, field)| !texts.is_empty() && misses(field));
    Some(said(path, missed.map(|(name, texts, _)| (name, texts)), &who))
}

/// The same of an operation.
fn operation_miss(operation: &Operation, path: &str, action: Action, asked: &Asked<'_>) -> Option<String> {
    let misses = |operation: &Operation| !action.is_enough(operation_matches(operation, asked));
    if !misses(operation) {
        return None;
    }
    let Operation { methods, not_methods, paths, not_paths, ports, not_ports } = operation.clone();
    let alone = Operation::default();
    let call = asked.call;
    let method = call.http.map_or(NOT_HTTP, |http| http.method);
    let target = call.http.map_or(NOT_HTTP, |http| http.path);
    let port = call.port.to_string();
    let fields = [
        ("methods", texts(&methods), method, Operation { methods, ..alone.clone() }),
        ("notMethods", texts(&not_methods), method, Operation { not_methods, ..alone.clone() }),
        ("paths", texts(&paths), target, Operation { paths, ..alone.clone() }),
        ("notPaths", texts(&not_paths), target, Operation { not_paths, ..alone.clone() }),
        ("ports", texts(&ports), &port, Operation { ports, ..alone.clone() }),
        ("notPorts", texts(&not_ports), &port, Operation { not_ports, ..alone }),
    ];
    let missed = fields.into_iter().find(|(_, texts, _, field)| !texts.is_empty() && misses(field));
    let value = missed.as_ref().map_or("", |(_, _, value, _)| value);
    Some(said(path, missed.as_ref().map(|(name, texts, ..)| (*name, texts.clone())), value))
}

const NOT_HTTP: &str = "it is not HTTP";

/// `spec.rules[0].to[0].methods [POST]: GET`.
fn said(path: &str, missed: Option<(&str, Vec<String>)>, value: &str) -> String {
    match missed {
        Some((field, wanted)) => format!("{path}.{field} [{}]: {value}", wanted.join(", ")),
        None => format!("{path}: {value}"),
    }
}

fn texts<'a, T: ToString + 'a>(list: impl IntoIterator<Item = &'a T>) -> Vec<String> {
    list.into_iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Http;
    use super::*;
    use crate::{Origin, SpiffeId};

    fn policy(name: &str, action: Action, rules: Vec<Rule>) -> Policy {
        let origin =
            Origin { kind: "P".into(), namespace: "shop".into(), name: name.into(), ..Origin::default() };
        Policy { origin, action, ports: None, rules, broken: false }
    }

    fn list<T: FromIterator<crate::authorization::StringMatch>>(text: &str) -> T {
        [text.parse().unwrap()].into_iter().collect()
    }

    /// `web` and `POST` in one rule, and a rule for anybody who asks for `/public/*` on 9090.
    fn rules() -> Vec<Rule> {
        let web = Source { identities: list("*/sa/web"), ..Source::default() };
        let writes = Operation { methods: list("POST"), ..Operation::default() };
        let public = Operation { paths: list("/public/*"), ports: [9090].into(), ..Operation::default() };
        vec![Rule { from: vec![web], to: vec![writes] }, Rule { from: Vec::new(), to: vec![public] }]
    }

    #[test]
    fn what_misses_is_named_by_its_path() {
        let web = SpiffeId::new("cluster.local", "shop", "web");
        let get = |path| Some(Http { method: "GET", path });
        for (what, action, peer, http, because) in [
            (
                "half of a rule is enough to miss, and only that is told",
                Action::Allow,
                Some(&web),
                get("/items"),
                "spec.rules[0].to[0].methods [POST]: GET; spec.rules[1].to[0].paths [/public/*]: /items",
            ),
            (
                "both halves miss",
                Action::Allow,
                None,
                get("/public/x"),
                "spec.rules[0].from[0].identities [*/sa/web]: a caller outside the mesh has no identity; \
                 spec.rules[0].to[0].methods [POST]: GET; spec.rules[1].to[0].ports [9090]: 8080",
            ),
            (
                "a connection that is not HTTP matches no method or path",
                Action::Allow,
                Some(&web),
                None,
                "spec.rules[0].to[0].methods [POST]: it is not HTTP; \
                 spec.rules[1].to[0].paths [/public/*]: it is not HTTP",
            ),
            ("for a DENY what is not known is a match", Action::Deny, Some(&web), None, "it matches"),
        ] {
            let policies = [policy("p", action, rules())];
            let call = Call { peer, trust_domain: "cluster.local", port: 8080, http };
            let reasons = explain(&policies, &call);
            assert_eq!(reasons[1].because, because, "{what}");
        }
    }

    #[test]
    fn the_verdict_comes_first_then_what_decides_first() {
        let anybody = || vec![Rule::default()];
        let policies = [
            policy("all", Action::Audit, anybody()),
            Policy { ports: Some([9090].into()), ..policy("metrics", Action::Allow, anybody()) },
            policy("nobody", Action::Allow, Vec::new()),
            policy("web", Action::Allow, anybody()),
            policy("broken", Action::Deny, anybody()).closed(),
        ];
        let call = Call { peer: None, trust_domain: "cluster.local", port: 8080, http: None };
        let told = |policies: &[Policy]| -> Vec<[String; 4]> {
            let reasons = explain(policies, &call).into_iter();
            let origin =
                |reason: &Reason| reason.origin.as_ref().map(ToString::to_string).unwrap_or_default();
            reasons.map(|it| [it.step.clone(), it.decided.clone(), it.because.clone(), origin(&it)]).collect()
        };
        let closed = ["policy", "Deny P/shop/broken", "it could not be read, and is closed", "P/shop/broken"];
        let others = [
            ["policy", "not Allow P/shop/metrics", "it is not about port 8080", "P/shop/metrics"],
            ["policy", "not Allow P/shop/nobody", "it has no rules", "P/shop/nobody"],
            ["policy", "Allow P/shop/web", "it matches", "P/shop/web spec.rules[0]"],
            ["policy", "Audit P/shop/all", "it matches", "P/shop/all spec.rules[0]"],
        ];
        let denied = ["authorization", "refused", "a Deny matches", "P/shop/broken"];
        assert_eq!(told(&policies), [&[denied, closed][..], &others].concat());
        let allowed =
            ["authorization", "let in", "an Allow matches, and no Deny", "P/shop/web spec.rules[0]"];
        assert_eq!(told(&policies[..4]), [&[allowed][..], &others].concat());
        let nothing = ["authorization", "let in", "no Allow is about port 8080, and no Deny matches", ""];
        assert_eq!(told(&policies[..2])[0], nothing);
        let none = "there are Allows for port 8080, and none matches";
        assert_eq!(told(&policies[..3])[0], ["authorization", "refused", none, "P/shop/nobody"]);
    }
}
