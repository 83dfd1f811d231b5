use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::retry_policy::RetryHostPredicate;
use envoy_types::pb::envoy::config::route::v3::route::Action as ActionKind;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use gauze_model::retry::{BackOff, Conditions, GrpcStatuses, RetryPolicy, StatusSet, Unanswered};
use gauze_model::route::{
    Action, Backend, Filters, HeaderChange, HeaderMatch, HostPattern, PathChange, PathMatch, Pattern,
    QueryMatch, Redirect, Rewrite, RouteMatch, ValueMatch, VirtualHost,
};
use gauze_model::snapshot::Resource;
use gauze_model::timeouts::Timeouts;
use gauze_model::{Name, RouteRule, RouteTable};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use prost::Message;

use super::{Add, add, every_field_counts, name, origin};
use crate::values::duration;
use crate::{from_xds, to_xds};

const SECOND: Duration = Duration::from_secs(1);

/// A forwarding, a redirecting and an answering rule, each with all that a rule can have.
fn routes() -> (Name, Resource) {
    let change = HeaderChange {
        set: vec![(HeaderName::from_static("x-set"), HeaderValue::from_static("50%"))],
        add: vec![(HeaderName::from_static("x-add"), HeaderValue::from_static("b"))],
        remove: vec![HeaderName::from_static("x-remove")],
    };
    let of_backend = HeaderChange {
        set: vec![(HeaderName::from_static("x-b"), HeaderValue::from_static("b"))],
        ..HeaderChange::default()
    };
    let backend = Backend {
        cluster: name("cluster/shop/v1/80"),
        weight: 3,
        request_headers: of_backend.clone(),
        response_headers: of_backend,
    };
    let matches = RouteMatch {
        path: PathMatch::Prefix("/cart".into()),
        method: Some(Method::GET),
        headers: vec![HeaderMatch {
            name: HeaderName::from_static("x"),
            value: ValueMatch::Exact("y".into()),
        }],
        query: vec![QueryMatch { name: "q".into(), value: ValueMatch::Regex(Pattern::new("a+").unwrap()) }],
    };
    let rewrite = Rewrite { host: Some("cart".into()), path: Some(PathChange::ReplacePrefix("/".into())) };
    let redirect = Redirect {
        scheme: Some("https".into()),
        host: Some("cart".into()),
        port: Some(8443),
        path: Some(PathChange::ReplaceFull("/".into())),
        status: StatusCode::FOUND,
    };
    let retry = Arc::new(RetryPolicy {
        origin: Some(origin("spec.rules[0].retry")),
        retries: 7,
        on: Conditions {
            unanswered: Unanswered::Never,
            statuses: StatusSet::gateway_errors(),
            grpc: GrpcStatuses::of_word("unavailable").unwrap(),
        },
        back_off: BackOff { least: SECOND, base: SECOND, max: 2 * SECOND },
        replay_limit: 7,
    });
    let timeouts = Timeouts {
        origin: Some(origin("spec.rules[0].timeouts")),
        request: Some(7 * SECOND),
        per_try: Some(2 * SECOND),
    };
    let answers = |rule| RouteRule { retry: Arc::default(), timeouts: Timeouts::default(), ..rule };
    let rule = |action, rewrite| RouteRule {
        origin: origin("spec.rules[0]"),
        matches: matches.clone(),
        filters: Filters { request_headers: change.clone(), response_headers: change.clone(), rewrite },
        action,
        retry: retry.clone(),
        timeouts: timeouts.clone(),
    };
    let rules = vec![
        rule(Action::Forward(vec![backend]), rewrite),
        answers(rule(Action::Redirect(redirect), Rewrite::default())),
        answers(rule(Action::Respond(StatusCode::IM_A_TEAPOT), Rewrite::default())),
    ];
    let host = VirtualHost { domains: vec![HostPattern::Any], rules };
    let table = RouteTable::from_hosts(origin("spec"), vec![host]);
    (name("routes/shop/cart/80"), Resource::Routes(Arc::new(table)))
}

type Routes = route::RouteConfiguration;

fn rule(routes: &mut Routes, index: usize) -> &mut route::Route {
    &mut routes.virtual_hosts[0].routes[index]
}

fn matches(routes: &mut Routes) -> &mut route::RouteMatch {
    rule(routes, 0).r#match.as_mut().unwrap()
}

fn header_value(routes: &mut Routes) -> &mut StringMatcher {
    match &mut matches(routes).headers[1].header_match_specifier {
        Some(HeaderMatchSpecifier::StringMatch(value)) => value,
        other => panic!("{other:?}"),
    }
}

fn query_value(routes: &mut Routes) -> &mut StringMatcher {
    match &mut matches(routes).query_parameters[0].query_parameter_match_specifier {
        Some(QueryParameterMatchSpecifier::StringMatch(value)) => value,
        other => panic!("{other:?}"),
    }
}

fn forward(routes: &mut Routes) -> &mut route::RouteAction {
    match &mut rule(routes, 0).action {
        Some(ActionKind::Route(action)) => action,
        other => panic!("{other:?}"),
    }
}

fn retry(routes: &mut Routes) -> &mut route::RetryPolicy {
    forward(routes).retry_policy.as_mut().unwrap()
}

fn shares(routes: &mut Routes) -> &mut route::WeightedCluster {
    match &mut forward(routes).cluster_specifier {
        Some(ClusterSpecifier::WeightedClusters(shares)) => shares,
        other => panic!("{other:?}"),
    }
}

fn redirect(routes: &mut Routes) -> &mut route::RedirectAction {
    match &mut rule(routes, 1).action {
        Some(ActionKind::Redirect(redirect)) => redirect,
        other => panic!("{other:?}"),
    }
}

fn answer(routes: &mut Routes) -> &mut route::DirectResponseAction {
    match &mut rule(routes, 2).action {
        Some(ActionKind::DirectResponse(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_field_of_a_route_table_is_dropped() {
    let check = |what, labels: &[u32], add_to: Add<Routes>| {
        every_field_counts(what, &routes(), labels, add_to);
    };
    // most_specific_header_mutations_wins; name, virtual_clusters and metadata of a host; name, decorator and stat_prefix of a route; engine of a pattern
    check("RouteConfiguration", &[10], &|routes, field| add(routes, field));
    check("VirtualHost", &[1, 5, 24], &|routes, field| add(&mut routes.virtual_hosts[0], field));
    check("Route", &[14, 5, 19], &|routes, field| add(rule(routes, 0), field));
    check("RouteMatch", &[], &|routes, field| add(matches(routes), field));
    check("HeaderMatcher", &[], &|routes, field| add(&mut matches(routes).headers[1], field));
    check("HeaderMatcher of a method", &[], &|routes, field| add(&mut matches(routes).headers[0], field));
    check("StringMatcher of a header", &[], &|routes, field| add(header_value(routes), field));
    check("QueryParameterMatcher", &[], &|routes, field| {
        add(&mut matches(routes).query_parameters[0], field)
    });
    check("StringMatcher of a query", &[], &|routes, field| add(query_value(routes), field));
    check("RouteAction", &[], &|routes, field| add(forward(routes), field));
    // host_selection_retry_max_attempts
    check("RetryPolicy", &[6], &|routes, field| add(retry(routes), field));
    check("MaxStreamDuration", &[], &|routes, field| {
        add(forward(routes).max_stream_duration.as_mut().unwrap(), field)
    });
    check("WeightedCluster", &[], &|routes, field| add(shares(routes), field));
    check("ClusterWeight", &[], &|routes, field| add(&mut shares(routes).clusters[0], field));
    // keep_empty_value of a value that is not empty
    check("HeaderValueOption", &[4], &|routes, field| {
        add(&mut rule(routes, 0).request_headers_to_add[0], field)
    });
    check("HeaderValue", &[], &|routes, field| {
        add(rule(routes, 0).request_headers_to_add[0].header.as_mut().unwrap(), field)
    });
    check("RegexMatchAndSubstitute", &[], &|routes, field| {
        add(forward(routes).regex_rewrite.as_mut().unwrap(), field)
    });
    check("RedirectAction", &[], &|routes, field| add(redirect(routes), field));
    check("DirectResponseAction", &[], &|routes, field| add(answer(routes), field));
}

// What a refusal says.

type Break = fn(&mut Routes);

#[test]
fn a_refusal_names_the_field_and_what_the_user_wrote() {
    let cases: [(Break, &str, &str); 16] = [
        (
            |routes| forward(routes).hedge_policy = Some(Default::default()),
            "virtual_hosts[0].routes[0].route.hedge_policy: not supported",
            "spec.rules[0]",
        ),
        (
            |routes| forward(routes).timeout = Some(duration(SECOND)),
            "virtual_hosts[0].routes[0].route.max_stream_duration.grpc_timeout_header_max: not the only form that is supported",
            "spec.rules[0]",
        ),
        (
            |routes| retry(routes).retriable_headers.push(Default::default()),
            "virtual_hosts[0].routes[0].route.retry_policy.retriable_headers: not supported",
            "spec.rules[0]",
        ),
        (
            |routes| retry(routes).retry_on = "5xx,retriable-headers".into(),
            "virtual_hosts[0].routes[0].route.retry_policy.retry_on: `retriable-headers` is not supported",
            "spec.rules[0]",
        ),
        (
            |routes| retry(routes).retry_on = "5xx".into(),
            "virtual_hosts[0].routes[0].route.retry_policy.retriable_status_codes: has no effect unless `retry_on` names `retriable-status-codes`",
            "spec.rules[0]",
        ),
        (
            |routes| retry(routes).retriable_status_codes.push(600),
            "virtual_hosts[0].routes[0].route.retry_policy.retriable_status_codes[3]: 600 is not an HTTP status",
            "spec.rules[0]",
        ),
        (
            |routes| {
                let omit = RetryHostPredicate { name: "omit_host_metadata".into(), config_type: None };
                retry(routes).retry_host_predicate.push(omit);
            },
            "virtual_hosts[0].routes[0].route.retry_policy.retry_host_predicate[1].typed_config: missing",
            "spec.rules[0]",
        ),
        (
            |routes| {
                let back_off = retry(routes).retry_back_off.as_mut().unwrap();
                back_off.max_interval = Some(duration(SECOND / 2));
            },
            "virtual_hosts[0].routes[0].route.retry_policy.retry_back_off.max_interval: shorter than `base_interval`",
            "spec.rules[0]",
        ),
        (
            |routes| rule(routes, 1).per_request_buffer_limit_bytes = crate::values::uint(7),
            "virtual_hosts[0].routes[1]: retries of what is not forwarded",
            "spec.rules[0]",
        ),
        (
            |routes| forward(routes).request_mirror_policies.push(Default::default()),
            "virtual_hosts[0].routes[0].route.request_mirror_policies: not supported",
            "spec.rules[0]",
        ),
        (
            |routes| rule(routes, 1).r#match.as_mut().unwrap().headers[1].invert_match = true,
            "virtual_hosts[0].routes[1].match.headers[1].invert_match: not supported",
            "spec.rules[0]",
        ),
        (
            |routes| shares(routes).clusters[0].name = "routes/a/b/80".into(),
            "virtual_hosts[0].routes[0].route.weighted_clusters.clusters[0].name: `routes/a/b/80` is not the name of a cluster",
            "spec.rules[0]",
        ),
        (
            |routes| header_value(routes).match_pattern = None,
            "virtual_hosts[0].routes[0].match.headers[1].string_match: only `exact` and `safe_regex` are supported",
            "spec.rules[0]",
        ),
        (
            |routes| {
                rule(routes, 2).request_headers_to_add[1].header.as_mut().unwrap().value =
                    "%PROTOCOL%".into();
            },
            "virtual_hosts[0].routes[2].request_headers_to_add[1].header.value: commands (`%…%`) are not supported",
            "spec.rules[0]",
        ),
        (
            |routes| routes.virtual_hosts[0].domains.push("*-cart".into()),
            "virtual_hosts[0].domains[1]: `*-cart`: only `*.` and a host is supported",
            "spec",
        ),
        (
            |routes| routes.ignore_port_in_host_matching = false,
            "ignore_port_in_host_matching: anything but `true` is not supported",
            "spec",
        ),
    ];
    let (name, resource) = routes();
    for (break_it, refusal, path) in cases {
        let mut message = to_xds(&name, &resource);
        let packed = &mut message.resource.as_mut().unwrap().value;
        let mut changed = Routes::decode(packed.as_slice()).unwrap();
        break_it(&mut changed);
        *packed = changed.encode_to_vec();
        let refused = from_xds(resource.kind(), &message).unwrap_err();
        assert_eq!(refused.to_string(), format!("{name}: {refusal}"));
        assert_eq!(refused.origin.as_deref(), Some(&origin(path)));
    }
}
