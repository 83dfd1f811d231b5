//! What is decided, counted and noted. Which policy matches what is tested where that is decided.

use std::collections::BTreeMap;

use gauze_model::authorization::{Rule, Source};
use gauze_model::listener::{InboundPort, PortProtocol};

use super::*;
use crate::access_log::AccessLog;
use crate::metrics::{Direction, Protocol};

fn policy(name: &str, action: Action, from: &str) -> Policy {
    let origin = Origin {
        kind: "AuthorizationPolicy".to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        ..Origin::default()
    };
    let from = vec![Source { identities: vec![from.parse().unwrap()], ..Source::default() }];
    Policy { origin, action, ports: None, rules: vec![Rule { from, to: Vec::new() }], broken: false }
}

/// A pod that takes plaintext, but not on 9090.
fn inbound(policies: Vec<Policy>, metrics: &Metrics) -> InboundTarget {
    let strict = InboundPort { protocol: PortProtocol::Detect, mtls: Mtls::Strict };
    let inbound = Inbound {
        origin: Origin::default(),
        identity: SpiffeId::new("cluster.local", "shop", "cart"),
        addresses: Vec::new(),
        mtls: Mtls::Permissive,
        ports: BTreeMap::from([(9090, strict)]),
        mesh_networks: Vec::new(),
        policies,
    };
    InboundTarget::new(inbound, metrics)
}

/// The code, the policy and the recording ones of a call to this port, as its record has them.
fn tell(target: &InboundTarget, metrics: &Metrics, peer: Option<&SpiffeId>, port: u16) -> [String; 3] {
    let source = "10.0.0.1:4000".parse().unwrap();
    let nowhere = metrics.nowhere(Direction::Inbound);
    let mut record = Record::connection(&AccessLog::off(), nowhere, Protocol::Tcp, source, source);
    let call = Told { peer, source, port, http: None };
    let told = target.judge(peer, port, None).tell(&call, &mut record);
    assert_eq!(told.err().map(|refusal| refusal.code), record.error);
    let text = |said: Option<&Said>| said.map(ToString::to_string).unwrap_or_default();
    let code = record.error.map(|code| code.to_string()).unwrap_or_default();
    [code, text(record.policy.as_ref()), text(record.audited.first())]
}

#[test]
fn a_verdict_is_noted_with_the_users_policy_and_counted_under_it() {
    let metrics = Metrics::new();
    let policies = vec![
        policy("web", Action::Allow, "*/sa/web"),
        policy("rogue", Action::Deny, "*/sa/rogue"),
        policy("all", Action::Audit, "*"),
    ];
    let target = inbound(policies, &metrics);
    let [web, rogue, other] =
        ["web", "rogue", "other"].map(|app| SpiffeId::new("cluster.local", "shop", app));
    let rule = |name: &str| format!("AuthorizationPolicy/shop/{name} spec.rules[0]");
    for (what, peer, port, expected) in [
        ("an ALLOW", Some(&web), 8080, [String::new(), rule("web"), rule("all")]),
        ("a DENY", Some(&rogue), 8080, ["M4006".into(), rule("rogue"), rule("all")]),
        (
            "no ALLOW",
            Some(&other),
            8080,
            ["M4007".into(), "AuthorizationPolicy/shop/web".into(), rule("all")],
        ),
        ("nobody known", None, 8080, ["M4007".into(), "AuthorizationPolicy/shop/web".into(), String::new()]),
        ("strict comes first", None, 9090, ["M4001".into(), String::new(), String::new()]),
    ] {
        assert_eq!(tell(&target, &metrics, peer, port), expected, "{what}");
    }
    let counts = [("allowed", "web"), ("not_allowed", "web"), ("denied", "rogue"), ("audited", "all")]
        .map(|(decision, name)| metrics.verdicts(decision, &format!("shop/{name}")).get());
    assert_eq!(counts, [1, 2, 1, 3]);
}

#[test]
fn a_denial_says_its_code_and_nothing_of_the_policy() {
    let metrics = Metrics::new();
    let target = inbound(vec![policy("secret", Action::Deny, "*")], &metrics);
    let web = SpiffeId::new("cluster.local", "shop", "web");
    let refusal = target.judge(Some(&web), 8080, None).allowed().unwrap_err();
    assert_eq!(refusal.to_string(), "M4006: A policy denies this call");
}

#[test]
fn what_is_logged_of_a_call_is_bounded_and_says_outside() {
    let path = "x".repeat(10_000);
    let http = Some(Http { method: "GET", path: &path });
    let call = Told { peer: None, source: "10.0.0.1:4000".parse().unwrap(), port: 8080, http };
    let told = call.to_string();
    assert!(told.len() < 400 && told.ends_with(" on port 8080 by outside (10.0.0.1:4000)"), "{told}");
}

#[test]
fn a_policy_has_one_line_a_second_at_most() {
    let told = LastTold { since: Instant::now(), second: AtomicU64::new(0) };
    let lines = (0..1000).filter(|_| told.is_due()).count();
    assert!((1..=2).contains(&lines) || told.since.elapsed().as_secs() > 0, "{lines}");
}
