//! Route tables: Envoy's `RouteConfiguration`.
//!
//! What Envoy does differently by default is said explicitly, so that it means the same there: no timeout,
//! hosts compared without their port, 500 for an unknown cluster.

mod action; // what is done with a request
mod headers; // header changes
mod matches; // what a rule is for
mod path_change; // rewrites of the path
mod retry; // retries and timeouts

use std::collections::HashSet;

use envoy_types::pb::envoy::config::route::v3 as route;
use gauze_model::route::{Action, Filters, HeaderChange, HostPattern, VirtualHost};
use gauze_model::{Name, RouteRule, RouteTable};

use crate::metadata::{Facts, read_only_origin};
use crate::path::{At as _, Fault, Read, each, refuse, required};
use crate::values::{boolean, uint};
use headers::{HeaderFields, read_header_change, write_header_change};
use retry::Patience;

pub(crate) fn write(name: &Name, table: &RouteTable) -> route::RouteConfiguration {
    route::RouteConfiguration {
        name: name.to_string(),
        virtual_hosts: table.hosts().iter().map(write_host).collect(),
        metadata: Some(Facts::origin(&table.origin).into_metadata()),
        validate_clusters: boolean(false), // warming sees to it
        ignore_port_in_host_matching: true,
        ..route::RouteConfiguration::default()
    }
}

pub(crate) fn read(configuration: route::RouteConfiguration) -> Read<RouteTable> {
    let route::RouteConfiguration {
        name: _, // compared with the resource's by the caller
        virtual_hosts,
        vhds,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins: _, // all are made by routes and their shares
        validate_clusters,
        max_direct_response_body_size_bytes,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata,
        route_specifiers,
    } = configuration;
    let origin = read_only_origin(metadata).at("metadata")?;
    let hosts = || {
        refuse!(vhds, internal_only_headers, response_headers_to_add, response_headers_to_remove);
        refuse!(request_headers_to_add, request_headers_to_remove, max_direct_response_body_size_bytes);
        refuse!(cluster_specifier_plugins, request_mirror_policies, vhost_header);
        refuse!(ignore_path_parameters_in_path_matching, typed_per_filter_config, route_specifiers);
        insist(ignore_port_in_host_matching).at("ignore_port_in_host_matching")?;
        refuse_true(validate_clusters.is_some_and(|validate| validate.value)).at("validate_clusters")?;
        let hosts = each(virtual_hosts, read_host).at("virtual_hosts")?;
        hosts_differ(&hosts).at("virtual_hosts").map(|()| hosts)
    };
    let hosts = hosts().by(&origin)?;
    Ok(RouteTable::from_hosts(origin, hosts))
}

fn insist(flag: bool) -> Read<()> {
    if flag { Ok(()) } else { Err(Fault::beyond("anything but `true` is not supported")) }
}

fn refuse_true(flag: bool) -> Read<()> {
    if flag { Err(Fault::beyond("`true` is not supported")) } else { Ok(()) }
}

/// A domain can lead to one host only (so Envoy).
fn hosts_differ(hosts: &[VirtualHost]) -> Read<()> {
    let mut seen = HashSet::new();
    for (index, host) in hosts.iter().enumerate() {
        if let Some(twice) = host.domains.iter().find(|domain| !seen.insert(*domain)) {
            let problem = format!("the domain `{}` stands twice in the table", write_domain(twice));
            return Err(Fault::new(problem).at("domains").item(index));
        }
    }
    Ok(())
}

fn write_host(host: &VirtualHost) -> route::VirtualHost {
    let domains: Vec<String> = host.domains.iter().map(write_domain).collect();
    route::VirtualHost {
        name: domains.first().cloned().unwrap_or_default(), // Envoy wants one of its own for each
        domains,
        routes: host.rules.iter().map(write_rule).collect(),
        ..route::VirtualHost::default()
    }
}

fn read_host(host: route::VirtualHost) -> Read<VirtualHost> {
    let route::VirtualHost {
        name: _, // a label
        domains,
        routes,
        matcher,
        require_tls,
        virtual_clusters: _, // labels of statistics
        rate_limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        metadata: _, // says nothing that changes what is done
        route_specifiers,
    } = host;
    refuse!(matcher, require_tls, rate_limits, request_headers_to_add, request_headers_to_remove);
    refuse!(response_headers_to_add, response_headers_to_remove, cors, typed_per_filter_config);
    refuse!(include_request_attempt_count, include_attempt_count_in_response, retry_policy);
    refuse!(retry_policy_typed_config, hedge_policy, include_is_timeout_retry_header);
    refuse!(per_request_buffer_limit_bytes, request_body_buffer_limit, request_mirror_policies);
    refuse!(route_specifiers);
    if domains.is_empty() {
        return Err(Fault::new("none").at("domains"));
    }
    let domains = each(&domains, |domain| read_domain(domain)).at("domains")?;
    let rules = each(routes, read_rule).at("routes")?;
    Ok(VirtualHost { domains, rules })
}

fn write_domain(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Wildcard(suffix) => format!("*.{suffix}"),
        HostPattern::Any => "*".to_owned(),
    }
}

fn read_domain(domain: &str) -> Read<HostPattern> {
    let pattern = match domain.strip_prefix('*') {
        None => HostPattern::Exact(domain.to_ascii_lowercase()),
        Some("") => HostPattern::Any,
        Some(rest) => match rest.strip_prefix('.') {
            Some(suffix) => HostPattern::Wildcard(suffix.to_ascii_lowercase()),
            None => return Err(Fault::beyond(format!("`{domain}`: only `*.` and a host is supported"))),
        },
    };
    let (HostPattern::Exact(host) | HostPattern::Wildcard(host)) = &pattern else { return Ok(pattern) };
    let has_port = host.contains(':') && !host.starts_with('[');
    if host.is_empty() || host.contains('*') || has_port {
        return Err(Fault::new(format!("`{domain}` is not a host")));
    }
    Ok(pattern)
}

fn write_rule(rule: &RouteRule) -> route::Route {
    let RouteRule { origin, matches, filters, action, retry, timeouts } = rule;
    let Filters { request_headers, response_headers, rewrite: _ } = filters; // the action's
    let is_forwarded = matches!(action, Action::Forward(_));
    let facts = Facts::origin(origin);
    let facts = if is_forwarded { retry::write_facts(facts, retry, timeouts) } else { facts };
    let mut action = action.clone();
    let request = write_header_change(&headers::apart(request_headers, &mut request_changes(&mut action)));
    let response = write_header_change(&headers::apart(response_headers, &mut response_changes(&mut action)));
    route::Route {
        r#match: Some(matches::write(matches)),
        metadata: Some(facts.into_metadata()),
        per_request_buffer_limit_bytes: is_forwarded.then(|| uint(retry.replay_limit)).flatten(),
        request_headers_to_add: request.to_add,
        request_headers_to_remove: request.to_remove,
        response_headers_to_add: response.to_add,
        response_headers_to_remove: response.to_remove,
        action: Some(action::write(&RouteRule { action, ..rule.clone() })),
        ..route::Route::default()
    }
}

fn request_changes(action: &mut Action) -> Vec<&mut HeaderChange> {
    let Action::Forward(backends) = action else { return Vec::new() };
    backends.iter_mut().map(|backend| &mut backend.request_headers).collect()
}

fn response_changes(action: &mut Action) -> Vec<&mut HeaderChange> {
    let Action::Forward(backends) = action else { return Vec::new() };
    backends.iter_mut().map(|backend| &mut backend.response_headers).collect()
}

fn read_rule(rule: route::Route) -> Read<RouteRule> {
    let route::Route {
        name: _, // a label
        r#match,
        metadata,
        decorator: _, // labels of traces
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        stat_prefix: _, // a label of statistics
        request_body_buffer_limit,
        route_specifiers,
        action,
    } = rule;
    let mut facts = Facts::read(metadata).at("metadata")?;
    let origin = facts.take_origin().at("metadata")?;
    let rest = || {
        let beside = retry::read_facts(&mut facts, per_request_buffer_limit_bytes);
        let beside = beside.and_then(|beside| facts.end().map(|()| beside)).at("metadata")?;
        refuse!(typed_per_filter_config, tracing, request_body_buffer_limit, route_specifiers);
        let matches = required(r#match).and_then(matches::read).at("match")?;
        let request = HeaderFields { to_add: request_headers_to_add, to_remove: request_headers_to_remove };
        let response =
            HeaderFields { to_add: response_headers_to_add, to_remove: response_headers_to_remove };
        let request_headers = read_header_change(request, "request_headers")?;
        let response_headers = read_header_change(response, "response_headers")?;
        let (action, rewrite, patience) = action::read(action, &matches.path, &beside)?;
        Ok((matches, Filters { request_headers, response_headers, rewrite }, action, patience))
    };
    let (matches, filters, action, Patience { retry, timeouts }) = rest().by(&origin)?;
    Ok(RouteRule { origin, matches, filters, action, retry, timeouts })
}
