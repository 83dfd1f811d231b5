//! TLSRoute: where TLS connections to one Service port go by the server name that they ask for.
//!
//! As HTTPRoutes do, TLSRoutes decide alone: where there is one, TLS that asks for a name of none is refused. Bytes that
//! are no TLS are no matter of theirs. Of routes that claim one name the oldest counts, then the first by name.

use std::collections::BTreeSet;

use gauze_crds::TlsRoute;
use gauze_crds::tls_route::{NoFilter, TlsRouteRule};
use gauze_model::listener::WeightedCluster;
use gauze_model::name::ServicePort;
use gauze_model::route::HostPattern;
use gauze_model::server_name::TlsRule;
use gauze_model::{Code, Origin};
use k8s_openapi::api::core::v1 as core;

use super::backends::{self, Rule};
use super::filters::Changes;
use super::matches::{at, item};
use super::{Attached, Side, attached};
use crate::problem::Problem;
use crate::translate::{namespace_of, ports, services};
use crate::world::{self, ObjectKind, World};

pub(super) fn origin(route: &TlsRoute) -> Origin {
    world::origin(ObjectKind::TlsRoute, &route.metadata)
}

/// The rules for the clients of a namespace: those of the routes there, else those of the Service's own namespace.
pub(in crate::translate) fn seen_by(
    world: &World,
    viewer: &str,
    name: &ServicePort,
    port: &core::ServicePort,
    problems: &mut Vec<Problem>,
) -> Vec<TlsRule> {
    let consumer = attached(world, name, port, Side::Consumer(viewer));
    match consumer.tls.is_empty() {
        true => rules(world, name, &attached(world, name, port, Side::Producer), problems),
        false => rules(world, name, &consumer, problems),
    }
}

/// One rule for each route that a server name is left for.
pub(super) fn rules(
    world: &World,
    name: &ServicePort,
    attached: &Attached<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<TlsRule> {
    let mut taken = BTreeSet::new();
    let rules = attached.tls.iter().filter_map(|route| {
        if let Some(problem) = without_effect(world, name, route, attached) {
            problems.push(problem);
            return None;
        }
        let mut server_names = read_hostnames(route, problems);
        server_names.retain(|(pattern, origin)| {
            let is_free = taken.insert(pattern.clone());
            if !is_free {
                problems.push(claimed(pattern, origin));
            }
            is_free
        });
        let server_names: Vec<_> = server_names.into_iter().map(|(pattern, _)| pattern).collect();
        let (origin, shares) = read_rule(world, route, problems);
        (!server_names.is_empty()).then_some(TlsRule { origin, server_names, shares })
    });
    rules.collect()
}

/// Why a route decides nothing at this port, whatever it says.
fn without_effect(
    world: &World,
    name: &ServicePort,
    route: &TlsRoute,
    attached: &Attached<'_>,
) -> Option<Problem> {
    let origin = origin(route);
    if attached.sees_requests() {
        let message = format!(
            "an HTTPRoute or GRPCRoute is attached to port {} of Service `{}` and decides alone there; remove it, or attach one of them to another port",
            name.port, name.service
        );
        return Some(Problem::new(Code::CONFLICT, origin, message));
    }
    let (service, _, port) = services::find(world, name)?;
    let may_be_tls = ports::of_service(world, service, port).may_be_tls();
    (!may_be_tls).then(|| {
        let message = format!(
            "port {} of Service `{}` is declared to speak something else than TLS, so nobody looks for a server name there; declare `appProtocol: tls`, or nothing",
            name.port, name.service
        );
        Problem::new(Code::PROTOCOL_CONFLICT, origin, message)
    })
}

fn claimed(pattern: &HostPattern, origin: &Origin) -> Problem {
    let message =
        format!("an older TLSRoute has `{pattern}` at the same Service port already; remove one of the two");
    Problem::new(Code::CONFLICT, origin.clone(), message)
}

/// The server names of a route, each with its place.
fn read_hostnames(route: &TlsRoute, problems: &mut Vec<Problem>) -> Vec<(HostPattern, Origin)> {
    let list = origin(route).at("spec.hostnames");
    let Some(given) = route.spec.hostnames.as_ref().filter(|names| !names.is_empty()) else {
        return vec![(HostPattern::Any, list)];
    };
    let names = given.iter().enumerate().filter_map(|(index, name)| {
        let origin = item(&list, index);
        let Some(pattern) = read_hostname(name) else {
            let message = format!(
                "`{name}` is no server name: write labels of lower-case letters, digits and `-`, the first may be `*`, and no address"
            );
            problems.push(Problem::new(Code::INVALID_VALUE, origin, message));
            return None;
        };
        Some((pattern, origin))
    });
    names.collect()
}

/// Gateway API `Hostname`, without addresses, which no client may ask for (RFC 6066, 3).
fn read_hostname(name: &str) -> Option<HostPattern> {
    let (is_wildcard, plain) = name.strip_prefix("*.").map_or((false, name), |suffix| (true, suffix));
    let is_label = |label: &str| {
        let letters = label.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-');
        letters && !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_address = plain.parse::<std::net::IpAddr>().is_ok();
    let is_name = plain.len() <= 253 && !is_address && plain.split('.').all(is_label);
    is_name.then(|| match is_wildcard {
        true => HostPattern::Wildcard(plain.to_owned()),
        false => HostPattern::Exact(plain.to_owned()),
    })
}

/// The first rule: no other can be meant.
fn read_rule(world: &World, route: &TlsRoute, problems: &mut Vec<Problem>) -> (Origin, Vec<WeightedCluster>) {
    let list = origin(route).at("spec.rules");
    let given = route.spec.rules.as_deref().unwrap_or_default();
    if given.len() > 1 {
        let message = "nothing tells the rules of a TLSRoute apart, so the first is for all of its connections; write a TLSRoute for each";
        problems.push(Problem::new(Code::UNSUPPORTED_FIELD, item(&list, 1), message));
    }
    let origin = item(&list, 0);
    let rule = Rule { world, namespace: namespace_of(&route.metadata), origin: &origin, unusable: "refused" };
    let shares = read_shares(&rule, given.first().unwrap_or(&TlsRouteRule::default()), problems);
    (origin, shares)
}

fn read_shares(rule: &Rule<'_>, given: &TlsRouteRule, problems: &mut Vec<Problem>) -> Vec<WeightedCluster> {
    let no_filters = |_: &[NoFilter], _: &Origin| Ok(Changes::default());
    let backends = given.backend_refs.as_deref().unwrap_or_default();
    let backends = backends::backends(rule, backends, no_filters, problems);
    let shares: Vec<_> = backends
        .into_iter()
        .map(|backend| WeightedCluster { cluster: backend.cluster, weight: backend.weight })
        .collect();
    let (code, message) = match shares.iter().any(|share| share.weight > 0) {
        true => return shares,
        false if shares.is_empty() => {
            (Code::NO_BACKEND_NAMED, "the rule names no backend, so its connections are refused; name one")
        }
        false => (Code::WEIGHTS_ALL_ZERO, "all weights are 0, so the connections are refused; raise one"),
    };
    problems.push(Problem::new(code, at(rule.origin, "backendRefs"), message));
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_server_names_are_hostnames() {
        for (name, is_one) in [
            ("cart.example.com", true),
            ("cart", true),
            ("*.example.com", true),
            ("3com.example", true),
            ("*", false),
            ("", false),
            ("*.", false),
            ("a.*.example.com", false),
            ("*a.example.com", false),
            ("Cart.example.com", false),
            ("cart.example.com.", false),
            ("cart..example.com", false),
            ("-cart.example.com", false),
            ("cart_.example.com", false),
            ("10.0.0.1", false),
            ("fd00::1", false),
            (&format!("{}.example", "a".repeat(64)), false),
            (&["abcdefgh"; 29].join("."), false),
        ] {
            assert_eq!(read_hostname(name).is_some(), is_one, "{name}");
        }
    }
}
