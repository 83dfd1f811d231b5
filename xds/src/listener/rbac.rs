//! Authorization policies for Envoy: its RBAC filters, a DENY before an ALLOW. A gauze proxy reads the policies from
//! the metadata, and insists that these filters say the same. AUDIT changes nothing and is left out.
//!
//! Where Envoy cannot say the same, the filter keeps out more: what may mean something else to the app than to Envoy
//! (`;`, letters that stay encoded) counts as unknown, and so do a policy's own paths with characters that a request
//! may carry encoded.

use envoy_types::pb::envoy::config::rbac::v3::permission::{self, Rule as PermissionRule};
use envoy_types::pb::envoy::config::rbac::v3::principal::{self, Authenticated, Identifier};
use envoy_types::pb::envoy::config::rbac::v3::{self as rbac, Permission, Principal};
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as http_rbac;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as network_rbac;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::matcher::v3::path_matcher::Rule as PathRule;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::google::protobuf::Any;
use gauze_model::authorization::{Action, Operation, Policy, Rule, Source, StringMatch};
use prost::{Message as _, Name as _};

/// The filters of one kind: their names, and what is in them.
pub(super) struct Filters {
    pub(super) http: Vec<(&'static str, Any)>,
    pub(super) network: Vec<(&'static str, Any)>,
}

/// What is unreserved in a path is decoded by Envoy, if it decodes at all; these could still be read otherwise by the app.
const ODD_PATHS: &str = r".*(;|\\|//|%(25|2[eEfFdD]|3[bB0-9]|5[cCfF0-9aA]|7[eE0-9aA]|[46][0-9a-fA-F])).*";

pub(super) fn filters(policies: &[Policy], trust_domain: &str) -> Filters {
    let mut filters = Filters { http: Vec::new(), network: Vec::new() };
    let of = |action: Action| {
        policies.iter().filter(move |policy| policy.action == action && !is_of_no_port(policy))
    };
    for (name, action) in [("gauze.deny", Action::Deny), ("gauze.allow", Action::Allow)] {
        if of(action).next().is_none() {
            continue;
        }
        let entries = |speaks: Speaks| {
            let saying = Saying { action, speaks, trust_domain };
            let mut entries: Vec<(String, rbac::Policy)> =
                of(action).flat_map(|policy| saying.entries(policy)).collect();
            entries.extend((action == Action::Allow).then(|| unselected(of(action))).flatten());
            entries
        };
        filters.http.push((name, http_filter(action, entries(Speaks::Http))));
        filters.network.push((name, network_filter(action, entries(Speaks::Bytes))));
    }
    filters
}

/// Whether a policy is about paths, which Envoy then must make of one form.
pub(super) fn is_about_paths(policies: &[Policy]) -> bool {
    let operations = policies.iter().flat_map(|policy| &policy.rules).flat_map(|rule| &rule.to);
    operations.into_iter().any(|to| !to.paths.is_empty() || !to.not_paths.is_empty())
}

fn is_of_no_port(policy: &Policy) -> bool {
    policy.ports.as_ref().is_some_and(|ports| ports.is_empty())
}

// A map's entries have no order in protobuf, and the same policies must be the same bytes. So each entry is written as
// a message of its own: one after another, messages are one message, with the fields of all.

fn http_filter(action: Action, entries: Vec<(String, rbac::Policy)>) -> Any {
    let filter = |rules| http_rbac::Rbac { rules: Some(rules), ..http_rbac::Rbac::default() }.encode_to_vec();
    Any {
        type_url: http_rbac::Rbac::type_url(),
        value: rules(action, entries).into_iter().flat_map(filter).collect(),
    }
}

fn network_filter(action: Action, entries: Vec<(String, rbac::Policy)>) -> Any {
    let filter = |rules| {
        let stat_prefix = "inbound".to_owned();
        network_rbac::Rbac { rules: Some(rules), stat_prefix, ..network_rbac::Rbac::default() }
            .encode_to_vec()
    };
    let value = rules(action, entries).into_iter().flat_map(filter).collect();
    Any { type_url: network_rbac::Rbac::type_url(), value }
}

/// First the action alone: with an ALLOW that has no entry nobody comes in.
fn rules(action: Action, entries: Vec<(String, rbac::Policy)>) -> Vec<rbac::Rbac> {
    let action = match action {
        Action::Deny => rbac::rbac::Action::Deny as i32,
        Action::Allow | Action::Audit => rbac::rbac::Action::Allow as i32,
    };
    let with = |policies| rbac::Rbac { action, policies, audit_logging_options: None };
    let entries = entries.into_iter().map(|entry| with([entry].into()));
    [with([].into())].into_iter().chain(entries).collect()
}

/// Ports that no ALLOW policy selects take everything that is not denied.
fn unselected<'p>(policies: impl Iterator<Item = &'p Policy>) -> Option<(String, rbac::Policy)> {
    let ports: Option<Vec<_>> = policies.map(|policy| policy.ports.as_ref()).collect();
    let selected = any_of(ports?.into_iter().flatten().map(|port| on_port(*port)).collect());
    Some(("ports that no policy selects".to_owned(), entry(not(selected), anybody())))
}

/// What a filter sees of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http,
    Bytes,
}

/// How conditions are said: an ALLOW only what is certain, a DENY all that is possible.
#[derive(Clone, Copy)]
struct Saying<'a> {
    action: Action,
    speaks: Speaks,
    trust_domain: &'a str,
}

impl Saying<'_> {
    fn entries(self, policy: &Policy) -> Vec<(String, rbac::Policy)> {
        let on_ports = |permission: Permission| match &policy.ports {
            None => permission,
            Some(ports) => {
                all_of(vec![any_of(ports.iter().map(|port| on_port(*port)).collect()), permission])
            }
        };
        if policy.broken {
            let everything = (policy.origin.to_string(), entry(on_ports(anything()), anybody()));
            return (self.action == Action::Deny).then_some(everything).into_iter().collect();
        }
        let rules = policy.rules.iter().enumerate().map(|(index, Rule { from, to })| {
            let permission = match to.as_slice() {
                [] => anything(),
                to => any_of(to.iter().map(|operation| self.operation(operation)).collect()),
            };
            let principal = match from.as_slice() {
                [] => anybody(),
                from => any_id(from.iter().map(|source| self.source(source)).collect()),
            };
            let name = policy.origin.at(format!("spec.rules[{index}]")).to_string();
            (name, entry(on_ports(permission), principal))
        });
        rules.collect()
    }

    /// A condition on what is not known.
    fn unknown(self) -> Permission {
        if self.action == Action::Deny { anything() } else { not(anything()) }
    }

    fn operation(self, operation: &Operation) -> Permission {
        let Operation { methods, not_methods, paths, not_paths, ports, not_ports } = operation;
        let mut all = vec![anything()];
        if !ports.is_empty() {
            all.push(any_of(ports.iter().map(|port| on_port(*port)).collect()));
        }
        all.extend(not_ports.iter().map(|port| not(on_port(*port))));
        if !methods.is_empty() {
            all.push(self.http_or_unknown(|| method_is(methods, self.action == Action::Deny)));
        }
        if !not_methods.is_empty() {
            all.push(self.http_or_unknown(|| not(method_is(not_methods, self.action == Action::Allow))));
        }
        if !paths.is_empty() {
            all.push(self.http_or_unknown(|| self.path_is(paths)));
        }
        if !not_paths.is_empty() {
            all.push(self.http_or_unknown(|| self.path_is_not(not_paths)));
        }
        all_of(all)
    }

    fn http_or_unknown(self, permission: impl FnOnce() -> Permission) -> Permission {
        if self.speaks == Speaks::Http { permission() } else { self.unknown() }
    }

    fn path_is(self, paths: &[StringMatch]) -> Permission {
        if !paths.iter().all(is_never_encoded) {
            return self.unknown();
        }
        let is_one = any_of(paths.iter().map(path_matches).collect());
        match self.action {
            Action::Deny => any_of(vec![is_one, odd_path()]),
            Action::Allow | Action::Audit => all_of(vec![is_one, not(odd_path())]),
        }
    }

    fn path_is_not(self, paths: &[StringMatch]) -> Permission {
        if !paths.iter().all(is_never_encoded) {
            return self.unknown();
        }
        let is_none = not(any_of(paths.iter().map(path_matches).collect()));
        match self.action {
            Action::Deny => any_of(vec![is_none, odd_path()]),
            Action::Allow | Action::Audit => all_of(vec![is_none, not(odd_path())]),
        }
    }

    fn source(self, source: &Source) -> Principal {
        let Source { identities, not_identities, namespaces, not_namespaces } = source;
        let mut all = vec![anybody()];
        if self.action == Action::Allow {
            // Who says nothing of itself is believed nothing.
            all.push(identity(MatchPattern::Prefix("spiffe://".to_owned())));
        }
        if !identities.is_empty() {
            all.push(any_id(identities.iter().map(|it| identity(pattern(it, "spiffe://"))).collect()));
        }
        all.extend(not_identities.iter().map(|it| not_id(identity(pattern(it, "spiffe://")))));
        if !namespaces.is_empty() {
            all.push(any_id(namespaces.iter().map(|it| self.namespace(it)).collect()));
        }
        if !not_namespaces.is_empty() && self.action == Action::Allow {
            all.push(self.namespace(&StringMatch::Any));
        }
        all.extend(not_namespaces.iter().map(|it| not_id(self.namespace(it))));
        Principal { identifier: Some(Identifier::AndIds(principal::Set { ids: all })) }
    }

    /// A namespace of the own trust domain.
    fn namespace(self, of: &StringMatch) -> Principal {
        let home = format!("spiffe://{}/ns/", self.trust_domain);
        identity(match of {
            StringMatch::Any => MatchPattern::Prefix(home),
            StringMatch::Exact(namespace) => MatchPattern::Prefix(format!("{home}{namespace}/sa/")),
            StringMatch::Prefix(start) => MatchPattern::Prefix(format!("{home}{start}")),
            StringMatch::Suffix(end) => {
                // Trust domains and namespaces hold no other character that means something in it.
                let [home, end] = [home.as_str(), end.as_str()].map(|text| text.replace('.', r"\."));
                MatchPattern::SafeRegex(regex_of(format!("{home}[^/]*{end}/sa/.*")))
            }
        })
    }
}

/// Whether a request can carry it in no other form.
fn is_never_encoded(path: &StringMatch) -> bool {
    path.text().bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b))
}

// The parts.

fn entry(permission: Permission, principal: Principal) -> rbac::Policy {
    rbac::Policy { permissions: vec![permission], principals: vec![principal], ..rbac::Policy::default() }
}

fn permission(rule: PermissionRule) -> Permission {
    Permission { rule: Some(rule) }
}

fn anything() -> Permission {
    permission(PermissionRule::Any(true))
}

fn on_port(port: u16) -> Permission {
    permission(PermissionRule::DestinationPort(port.into()))
}

fn all_of(rules: Vec<Permission>) -> Permission {
    permission(PermissionRule::AndRules(permission::Set { rules }))
}

fn any_of(rules: Vec<Permission>) -> Permission {
    permission(PermissionRule::OrRules(permission::Set { rules }))
}

fn not(rule: Permission) -> Permission {
    permission(PermissionRule::NotRule(Box::new(rule)))
}

fn method_is(methods: &[StringMatch], in_any_case: bool) -> Permission {
    let methods = methods.iter().map(|method| {
        let matcher = string(pattern(method, ""), in_any_case);
        permission(PermissionRule::Header(HeaderMatcher {
            name: ":method".to_owned(),
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(matcher)),
            ..HeaderMatcher::default()
        }))
    });
    any_of(methods.collect())
}

fn path_matches(path: &StringMatch) -> Permission {
    url_path(pattern(path, "/"))
}

fn odd_path() -> Permission {
    url_path(MatchPattern::SafeRegex(regex_of(ODD_PATHS.to_owned())))
}

fn url_path(pattern: MatchPattern) -> Permission {
    let path = matcher::PathMatcher { rule: Some(PathRule::Path(string(pattern, false))) };
    permission(PermissionRule::UrlPath(path))
}

fn anybody() -> Principal {
    Principal { identifier: Some(Identifier::Any(true)) }
}

fn any_id(ids: Vec<Principal>) -> Principal {
    Principal { identifier: Some(Identifier::OrIds(principal::Set { ids })) }
}

fn not_id(id: Principal) -> Principal {
    Principal { identifier: Some(Identifier::NotId(Box::new(id))) }
}

fn identity(pattern: MatchPattern) -> Principal {
    let authenticated = Authenticated { principal_name: Some(string(pattern, false)) };
    Principal { identifier: Some(Identifier::Authenticated(authenticated)) }
}

/// Envoy takes no empty prefix: what every value begins with stands for any.
fn pattern(of: &StringMatch, all_begin_with: &str) -> MatchPattern {
    match of {
        StringMatch::Any if all_begin_with.is_empty() => MatchPattern::SafeRegex(regex_of(".+".to_owned())),
        StringMatch::Any => MatchPattern::Prefix(all_begin_with.to_owned()),
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        StringMatch::Suffix(text) => MatchPattern::Suffix(text.clone()),
    }
}

fn string(pattern: MatchPattern, ignore_case: bool) -> matcher::StringMatcher {
    let is_regex = matches!(pattern, MatchPattern::SafeRegex(_));
    matcher::StringMatcher { ignore_case: ignore_case && !is_regex, match_pattern: Some(pattern) }
}

fn regex_of(regex: String) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex, ..matcher::RegexMatcher::default() }
}
