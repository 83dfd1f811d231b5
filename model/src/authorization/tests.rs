use super::*;

fn matching(texts: &[&str]) -> Vec<StringMatch> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn policy(name: &str, action: Action, rules: Vec<Rule>) -> Policy {
    let origin = Origin {
        kind: "AuthorizationPolicy".into(),
        namespace: "shop".into(),
        name: name.into(),
        ..Origin::default()
    };
    Policy { origin, action, ports: None, rules, broken: false }
}

fn from(source: Source) -> Rule {
    Rule { from: vec![source], to: Vec::new() }
}

fn to(operation: Operation) -> Rule {
    Rule { from: Vec::new(), to: vec![operation] }
}

fn identities(texts: &[&str]) -> Source {
    Source { identities: matching(texts), ..Source::default() }
}

fn paths(texts: &[&str]) -> Operation {
    Operation { paths: matching(texts), ..Operation::default() }
}

fn methods(texts: &[&str]) -> Operation {
    Operation { methods: matching(texts), ..Operation::default() }
}

fn web() -> SpiffeId {
    SpiffeId::new("cluster.local", "shop", "web")
}

fn get<'a>(peer: Option<&'a SpiffeId>, path: &'a str) -> Call<'a> {
    Call { peer, trust_domain: "cluster.local", port: 8080, http: Some(Http { method: "GET", path }) }
}

/// The decision in one word, with the name of the policy and the index of its rule.
fn decide(policies: &[Policy], call: &Call<'_>) -> String {
    let by = |by: By<'_>| match by.rule {
        Some(rule) => format!("{}[{rule}]", by.policy.origin.name),
        None => by.policy.origin.name.clone(),
    };
    match judge(policies, call).decision {
        Decision::NothingSays => "nothing says".to_owned(),
        Decision::Allowed(found) => format!("allowed by {}", by(found)),
        Decision::Denied(found) => format!("denied by {}", by(found)),
        Decision::NotAllowed(found) => format!("not allowed by {}", by(found)),
    }
}

#[test]
fn deny_comes_before_allow_and_audit_decides_nothing() {
    let web_id = web();
    let allow = policy("allow", Action::Allow, vec![from(identities(&["*/sa/web"]))]);
    let others = policy("others", Action::Allow, vec![from(identities(&["*/sa/other"]))]);
    let deny = policy("deny", Action::Deny, vec![Rule::default(), to(paths(&["/admin"]))]);
    let admin = policy("admin", Action::Deny, vec![to(paths(&["/x"])), to(paths(&["/admin"]))]);
    let audit = policy("audit", Action::Audit, vec![Rule::default()]);
    let nobody = policy("nobody", Action::Allow, Vec::new());
    for (what, policies, expected) in [
        ("no policy: allow", vec![], "nothing says"),
        ("only an AUDIT: allow", vec![&audit], "nothing says"),
        ("only a DENY that does not match: allow", vec![&admin], "nothing says"),
        ("an ALLOW that matches", vec![&allow], "allowed by allow[0]"),
        ("an ALLOW that does not match", vec![&others], "not allowed by others"),
        ("one of two ALLOWs", vec![&others, &allow], "allowed by allow[0]"),
        ("an ALLOW without rules allows nothing", vec![&nobody], "not allowed by nobody"),
        ("DENY wins, wherever it stands", vec![&allow, &audit, &deny], "denied by deny[0]"),
        ("a DENY that does not match leaves it to ALLOW", vec![&admin, &allow], "allowed by allow[0]"),
    ] {
        let policies: Vec<Policy> = policies.into_iter().cloned().collect();
        assert_eq!(decide(&policies, &get(Some(&web_id), "/")), expected, "{what}");
    }
}

#[test]
fn every_audit_that_matches_is_recorded_also_of_what_is_denied() {
    let audits = [
        policy("all", Action::Audit, vec![Rule::default()]),
        policy("admin", Action::Audit, vec![to(paths(&["/admin"]))]),
        policy("other", Action::Audit, vec![to(paths(&["/other"]))]),
        policy("deny", Action::Deny, vec![Rule::default()]),
    ];
    let web_id = web();
    let call = get(Some(&web_id), "/admin");
    let verdict = judge(&audits, &call);
    let audited: Vec<String> = verdict.audited.iter().map(|by| by.origin().to_string()).collect();
    assert_eq!(verdict.code(), Some(Code::DENIED));
    assert_eq!(
        audited,
        ["AuthorizationPolicy/shop/all spec.rules[0]", "AuthorizationPolicy/shop/admin spec.rules[0]"]
    );
}

#[test]
fn a_caller_is_named_by_identity_and_namespace() {
    let web_id = web();
    let stranger = SpiffeId::new("elsewhere.org", "shop", "web");
    let not = |identities: &[&str]| Source { not_identities: matching(identities), ..Source::default() };
    let namespaces = |texts: &[&str]| Source { namespaces: matching(texts), ..Source::default() };
    let not_namespaces = |texts: &[&str]| Source { not_namespaces: matching(texts), ..Source::default() };
    let both = Source { namespaces: matching(&["shop"]), ..not(&["*/sa/web"]) };
    // What an ALLOW and a DENY with this source say of: web, a stranger of another trust domain, and one outside the mesh.
    for (what, source, allow, deny) in [
        ("nothing is said", Source::default(), [true, true, false], [true, true, true]),
        (
            "exact",
            identities(&["spiffe://cluster.local/ns/shop/sa/web"]),
            [true, false, false],
            [true, false, false],
        ),
        (
            "a prefix: all of a namespace",
            identities(&["spiffe://cluster.local/ns/shop/*"]),
            [true, false, false],
            [true, false, false],
        ),
        (
            "a prefix: all of a trust domain",
            identities(&["spiffe://elsewhere.org/*"]),
            [false, true, false],
            [false, true, false],
        ),
        (
            "a prefix is no pattern of segments",
            identities(&["spiffe://cluster.local/ns/shop/sa/we*"]),
            [true, false, false],
            [true, false, false],
        ),
        ("a suffix", identities(&["*/sa/web"]), [true, true, false], [true, true, false]),
        ("anybody of the mesh", identities(&["*"]), [true, true, false], [true, true, false]),
        (
            "case counts",
            identities(&["spiffe://cluster.local/ns/shop/sa/Web"]),
            [false, false, false],
            [false, false, false],
        ),
        ("one of two", identities(&["*/sa/x", "*/sa/web"]), [true, true, false], [true, true, false]),
        (
            "anybody but web",
            not(&["spiffe://cluster.local/ns/shop/sa/web"]),
            [false, true, false],
            [false, true, true],
        ),
        ("nobody of the mesh", not(&["*"]), [false, false, false], [false, false, true]),
        (
            "a namespace is one of the own trust domain",
            namespaces(&["shop"]),
            [true, false, false],
            [true, false, false],
        ),
        ("by a prefix", namespaces(&["sh*"]), [true, false, false], [true, false, false]),
        ("another", namespaces(&["shops"]), [false, false, false], [false, false, false]),
        ("not this namespace", not_namespaces(&["shop"]), [false, false, false], [false, true, true]),
        ("not another namespace", not_namespaces(&["bank"]), [true, false, false], [true, true, true]),
        ("of this namespace, but not web", both, [false, false, false], [false, false, false]),
    ] {
        let says = |action| {
            let policies = [policy("p", action, vec![from(source.clone())])];
            [Some(&web_id), Some(&stranger), None].map(|peer| {
                judge(&policies, &get(peer, "/")).decision.by().is_some_and(|by| by.rule.is_some())
            })
        };
        assert_eq!((says(Action::Allow), says(Action::Deny)), (allow, deny), "{what}");
        assert_eq!(
            says(Action::Deny),
            says_audit(&source, [Some(&web_id), Some(&stranger), None]),
            "{what}: AUDIT"
        );
    }
}

fn says_audit(source: &Source, peers: [Option<&SpiffeId>; 3]) -> [bool; 3] {
    let policies = [policy("p", Action::Audit, vec![from(source.clone())])];
    peers.map(|peer| !judge(&policies, &get(peer, "/")).audited.is_empty())
}

#[test]
fn what_is_asked_for_is_named_by_method_path_and_port() {
    let not_paths = |texts: &[&str]| Operation { not_paths: matching(texts), ..Operation::default() };
    let not_methods = |texts: &[&str]| Operation { not_methods: matching(texts), ..Operation::default() };
    let ports = |ports: &[u16]| Operation { ports: ports.iter().copied().collect(), ..Operation::default() };
    let not_ports =
        |ports: &[u16]| Operation { not_ports: ports.iter().copied().collect(), ..Operation::default() };
    let both = Operation { ports: [8080].into(), ..methods(&["GET"]) };
    // What an ALLOW and a DENY say, of the request GET /items, and of a connection to the same port that is not HTTP.
    for (what, operation, allow, deny) in [
        ("nothing is said", Operation::default(), [true, true], [true, true]),
        ("the method", methods(&["GET"]), [true, false], [true, true]),
        ("another method", methods(&["POST"]), [false, false], [false, true]),
        ("any method", methods(&["*"]), [true, false], [true, true]),
        ("not this method", not_methods(&["GET"]), [false, false], [false, true]),
        ("not another method", not_methods(&["POST"]), [true, false], [true, true]),
        ("the path", paths(&["/items"]), [true, false], [true, true]),
        ("a prefix of it", paths(&["/it*"]), [true, false], [true, true]),
        ("its end", paths(&["*ems"]), [true, false], [true, true]),
        ("any path", paths(&["*"]), [true, false], [true, true]),
        ("another path", paths(&["/item"]), [false, false], [false, true]),
        ("not this path", not_paths(&["/items"]), [false, false], [false, true]),
        ("not another path", not_paths(&["/healthz"]), [true, false], [true, true]),
        ("the port", ports(&[1, 8080]), [true, true], [true, true]),
        ("another port", ports(&[1]), [false, false], [false, false]),
        ("not this port", not_ports(&[8080]), [false, false], [false, false]),
        ("not another port", not_ports(&[1]), [true, true], [true, true]),
        ("port and method", both, [true, false], [true, true]),
    ] {
        let says = |action| {
            let policies = [policy("p", action, vec![to(operation.clone())])];
            let http = get(None, "/items");
            let bytes = Call { http: None, ..http };
            [http, bytes]
                .map(|call| judge(&policies, &call).decision.by().is_some_and(|by| by.rule.is_some()))
        };
        assert_eq!((says(Action::Allow), says(Action::Deny)), (allow, deny), "{what}");
    }
}

/// An ALLOW of `/public/*` and a DENY of `/admin`, asked with what an attacker sends.
#[test]
fn an_encoded_path_gets_round_no_policy() {
    let allow = [policy("public", Action::Allow, vec![to(paths(&["/public/*"]))])];
    let deny = [policy("admin", Action::Deny, vec![to(paths(&["/admin", "/admin/*"]))])];
    for (target, is_allowed, is_denied) in [
        ("/public/x", true, false),
        ("/public/a%20b?x=/admin", true, false),
        ("/public/scope%2Fname", true, false),
        ("/public/../admin", false, true),
        ("/public/%2e%2e/admin", false, true),
        ("/public/..%2fadmin", false, true),
        ("/public/..%5cadmin", false, true),
        ("/public/..;/admin", false, true),
        ("/public/%252e%252e/admin", false, true),
        ("/public/.%00./admin", false, true),
        ("/public//../../admin", false, true),
        ("//admin", false, true),
        ("/./admin", false, true),
        ("/%61dmin", false, true),
        ("/%2561dmin", false, true),
        ("/admin/../public/x", false, true),
        ("/admin;x=1", false, true),
        ("/admin;/x", false, true),
        ("/admin%2Fx", false, true),
        ("/admin\\x", false, true),
        ("/admin#", false, true),
        ("http://public/admin", false, true),
        ("/admin?/public/x", false, true),
        ("/\u{ff0f}admin", false, false),
        ("/admins", false, false),
        ("/ADMIN", false, false),
    ] {
        let call = get(None, target);
        let found = (judge(&allow, &call).is_allowed(), !judge(&deny, &call).is_allowed());
        assert_eq!(found, (is_allowed, is_denied), "{target}");
    }
}

#[test]
fn a_method_in_another_case_gets_round_no_policy() {
    let call = Call { http: Some(Http { method: "post", path: "/" }), ..get(None, "/") };
    let deny = [policy("writes", Action::Deny, vec![to(methods(&["POST"]))])];
    let allow = [policy("writes", Action::Allow, vec![to(methods(&["POST"]))])];
    assert_eq!(decide(&deny, &call), "denied by writes[0]");
    assert_eq!(decide(&allow, &call), "not allowed by writes");
}

#[test]
fn a_policy_says_nothing_of_the_ports_that_it_does_not_select() {
    let on = |action, ports: &[u16]| Policy {
        ports: Some(ports.iter().copied().collect()),
        ..policy("p", action, vec![from(identities(&["*/sa/other"]))])
    };
    for (what, policy, expected) in [
        ("an ALLOW of the port", on(Action::Allow, &[8080]), "not allowed by p"),
        ("an ALLOW of another", on(Action::Allow, &[9090]), "nothing says"),
        ("an ALLOW of none, as of a Service that selects nothing", on(Action::Allow, &[]), "nothing says"),
        ("a closed DENY of the port", on(Action::Deny, &[8080]).closed(), "denied by p"),
        ("a closed DENY of another", on(Action::Deny, &[9090]).closed(), "nothing says"),
    ] {
        assert_eq!(decide(&[policy], &get(None, "/")), expected, "{what}");
    }
}

#[test]
fn a_broken_policy_is_closed() {
    let broken = |action| policy("broken", action, vec![Rule::default()]).closed();
    let allow = policy("allow", Action::Allow, vec![Rule::default()]);
    for (what, policies, expected, code) in [
        (
            "its ALLOW matches nothing",
            vec![broken(Action::Allow)],
            "not allowed by broken",
            Some(Code::POLICY_CLOSED),
        ),
        ("another ALLOW holds", vec![broken(Action::Allow), allow.clone()], "allowed by allow[0]", None),
        (
            "its DENY matches everything",
            vec![allow, broken(Action::Deny)],
            "denied by broken",
            Some(Code::POLICY_CLOSED),
        ),
        ("its AUDIT records nothing", vec![broken(Action::Audit)], "nothing says", None),
    ] {
        let call = get(None, "/");
        assert_eq!(decide(&policies, &call), expected, "{what}");
        assert_eq!(judge(&policies, &call).code(), code, "{what}");
        assert_eq!(judge(&policies, &call).audited, [], "{what}");
    }
}
