//! What is done with a request: Envoy's `RouteAction`, `RedirectAction` and `DirectResponseAction`.

use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::route::Action as ActionKind;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use gauze_model::RouteRule;
use gauze_model::route::{Action, Backend, HeaderChange, PathChange, PathMatch, Redirect, Rewrite};
use http::StatusCode;

use super::headers::{HeaderFields, read_header_change, write_header_change};
use super::path_change::{self, Written, from_root};
use super::retry::{self, Beside, Patience, Times};
use crate::path::{At as _, Fault, Read, each, refuse, required};
use crate::values::{read_cluster_name, read_port, uint};

/// A rewrite, retries and timeouts only mean something where the request goes on.
pub(super) fn write(rule: &RouteRule) -> ActionKind {
    let matched = &rule.matches.path;
    match &rule.action {
        Action::Forward(backends) => ActionKind::Route(write_forward(backends, rule)),
        Action::Redirect(redirect) => ActionKind::Redirect(write_redirect(redirect, matched)),
        Action::Respond(status) => ActionKind::DirectResponse(route::DirectResponseAction {
            status: status.as_u16().into(),
            ..route::DirectResponseAction::default()
        }),
    }
}

/// What is done, with a request that was changed in this way, so long and so often.
type Done = (Action, Rewrite, Patience);

pub(super) fn read(action: Option<ActionKind>, matched: &PathMatch, beside: &Beside) -> Read<Done> {
    let answered =
        |action| retry::refuse_beside(beside).map(|()| (action, Rewrite::default(), Patience::default()));
    match required(action).at("action")? {
        ActionKind::Route(forward) => read_forward(forward, matched, beside).at("route"),
        ActionKind::Redirect(redirect) => {
            answered(Action::Redirect(read_redirect(redirect, matched).at("redirect")?))
        }
        ActionKind::DirectResponse(response) => {
            answered(Action::Respond(read_direct_response(response).at("direct_response")?))
        }
        ActionKind::FilterAction(_) => Err(Fault::unsupported("filter_action")),
        ActionKind::NonForwardingAction(_) => Err(Fault::unsupported("non_forwarding_action")),
    }
}

// Forwarding.

fn write_forward(backends: &[Backend], rule: &RouteRule) -> route::RouteAction {
    let (rewrite, matched) = (&rule.filters.rewrite, &rule.matches.path);
    let Times { timeout, max_stream_duration } = retry::write_times(&rule.timeouts);
    let clusters = backends.iter().map(write_backend).collect();
    let shares = route::WeightedCluster { clusters, ..route::WeightedCluster::default() };
    let host = rewrite.host.clone().map(HostRewriteSpecifier::HostRewriteLiteral);
    let mut action = route::RouteAction {
        cluster_not_found_response_code: ClusterNotFoundResponseCode::InternalServerError as i32,
        timeout,
        max_stream_duration,
        retry_policy: Some(retry::write(&rule.retry, rule.timeouts.per_try)),
        cluster_specifier: Some(ClusterSpecifier::WeightedClusters(shares)),
        host_rewrite_specifier: host,
        ..route::RouteAction::default()
    };
    match rewrite.path.as_ref().and_then(|change| path_change::write(change, matched)) {
        Some(Written::Prefix(to)) => action.prefix_rewrite = to,
        Some(Written::Regex(regex)) => action.regex_rewrite = Some(regex),
        None => {}
    }
    action
}

fn read_forward(action: route::RouteAction, matched: &PathMatch, beside: &Beside) -> Read<Done> {
    let route::RouteAction {
        cluster_not_found_response_code,
        metadata_match,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        path_rewrite,
        append_x_forwarded_host,
        timeout,
        idle_timeout,
        flush_timeout,
        early_data_policy,
        retry_policy,
        retry_policy_typed_config,
        request_mirror_policies,
        priority,
        rate_limits,
        include_vh_rate_limits,
        hash_policy,
        cors,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy,
        internal_redirect_action,
        max_internal_redirects,
        hedge_policy,
        max_stream_duration,
        cluster_specifier,
        host_rewrite_specifier,
    } = action;
    refuse!(metadata_match, path_rewrite_policy, path_rewrite, append_x_forwarded_host, idle_timeout);
    refuse!(flush_timeout, early_data_policy, retry_policy_typed_config);
    refuse!(request_mirror_policies, rate_limits, include_vh_rate_limits, hash_policy, cors);
    refuse!(max_grpc_timeout, grpc_timeout_offset, upgrade_configs, internal_redirect_policy);
    refuse!(internal_redirect_action, max_internal_redirects, hedge_policy);
    if priority != RoutingPriority::Default as i32 {
        return Err(Fault::unsupported("priority"));
    }
    let patience = retry::read(retry_policy, Times { timeout, max_stream_duration }, beside)?;
    if cluster_not_found_response_code != ClusterNotFoundResponseCode::InternalServerError as i32 {
        let problem = "anything but `INTERNAL_SERVER_ERROR` is not supported";
        return Err(Fault::beyond(problem).at("cluster_not_found_response_code"));
    }
    let host = match host_rewrite_specifier {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => Some(host),
        Some(_) => return Err(Fault::unsupported("host_rewrite_specifier")),
    };
    let path = match (prefix_rewrite.is_empty(), regex_rewrite) {
        (true, None) => None,
        (false, None) => Some(path_change::read_prefix(&prefix_rewrite, matched).at("prefix_rewrite")?),
        (true, Some(regex)) => Some(path_change::read_regex(regex, matched).at("regex_rewrite")?),
        (false, Some(_)) => return Err(Fault::unsupported("prefix_rewrite")),
    };
    let backends = read_clusters(cluster_specifier)?;
    Ok((Action::Forward(backends), Rewrite { host, path }, patience))
}

fn read_clusters(clusters: Option<ClusterSpecifier>) -> Read<Vec<Backend>> {
    match required(clusters).at("cluster_specifier")? {
        ClusterSpecifier::WeightedClusters(shares) => read_shares(shares).at("weighted_clusters"),
        ClusterSpecifier::Cluster(name) => {
            let cluster = read_cluster_name(&name).at("cluster")?;
            let (request_headers, response_headers) = (HeaderChange::default(), HeaderChange::default());
            Ok(vec![Backend { cluster, weight: 1, request_headers, response_headers }])
        }
        ClusterSpecifier::ClusterHeader(_) => Err(Fault::unsupported("cluster_header")),
        ClusterSpecifier::ClusterSpecifierPlugin(_) => Err(Fault::unsupported("cluster_specifier_plugin")),
        ClusterSpecifier::InlineClusterSpecifierPlugin(_) => {
            Err(Fault::unsupported("inline_cluster_specifier_plugin"))
        }
    }
}

fn read_shares(shares: route::WeightedCluster) -> Read<Vec<Backend>> {
    let route::WeightedCluster { clusters, total_weight, runtime_key_prefix, random_value_specifier } =
        shares;
    refuse!(total_weight, runtime_key_prefix, random_value_specifier);
    let backends = each(clusters, read_backend).at("clusters")?;
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    match total {
        0 => Err(Fault::new("the weights come to 0").at("clusters")),
        1..=0xffff_ffff => Ok(backends),
        _ => Err(Fault::new("the weights come to more than 4294967295").at("clusters")),
    }
}

fn write_backend(backend: &Backend) -> ClusterWeight {
    let Backend { cluster, weight, request_headers, response_headers } = backend;
    let request = write_header_change(request_headers);
    let response = write_header_change(response_headers);
    ClusterWeight {
        name: cluster.to_string(),
        weight: uint(*weight),
        request_headers_to_add: request.to_add,
        request_headers_to_remove: request.to_remove,
        response_headers_to_add: response.to_add,
        response_headers_to_remove: response.to_remove,
        ..ClusterWeight::default()
    }
}

fn read_backend(share: ClusterWeight) -> Read<Backend> {
    let ClusterWeight {
        name,
        cluster_header,
        weight,
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = share;
    refuse!(cluster_header, metadata_match, typed_per_filter_config, host_rewrite_specifier);
    let request = HeaderFields { to_add: request_headers_to_add, to_remove: request_headers_to_remove };
    let response = HeaderFields { to_add: response_headers_to_add, to_remove: response_headers_to_remove };
    Ok(Backend {
        cluster: read_cluster_name(&name).at("name")?,
        weight: required(weight).at("weight")?.value,
        request_headers: read_header_change(request, "request_headers")?,
        response_headers: read_header_change(response, "response_headers")?,
    })
}

// Redirects.

fn write_redirect(redirect: &Redirect, matched: &PathMatch) -> route::RedirectAction {
    let Redirect { scheme, host, port, path, status } = redirect;
    let path = match path {
        Some(PathChange::ReplaceFull(path)) => Some(PathRewriteSpecifier::PathRedirect(from_root(path))),
        Some(change) => path_change::write(change, matched).map(|change| match change {
            Written::Prefix(to) => PathRewriteSpecifier::PrefixRewrite(to),
            Written::Regex(regex) => PathRewriteSpecifier::RegexRewrite(regex),
        }),
        None => None,
    };
    route::RedirectAction {
        host_redirect: host.clone().unwrap_or_default(),
        port_redirect: port.map_or(0, u32::from),
        response_code: write_redirect_status(*status) as i32,
        strip_query: false,
        scheme_rewrite_specifier: scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: path,
    }
}

/// `translate` makes no others than these, which are those of the Gateway API.
fn write_redirect_status(status: StatusCode) -> RedirectResponseCode {
    match status {
        StatusCode::MOVED_PERMANENTLY => RedirectResponseCode::MovedPermanently,
        StatusCode::SEE_OTHER => RedirectResponseCode::SeeOther,
        StatusCode::TEMPORARY_REDIRECT => RedirectResponseCode::TemporaryRedirect,
        StatusCode::PERMANENT_REDIRECT => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::Found,
    }
}

fn read_redirect(redirect: route::RedirectAction, matched: &PathMatch) -> Read<Redirect> {
    let route::RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = redirect;
    refuse!(strip_query);
    let path = match path_rewrite_specifier {
        None => None,
        Some(PathRewriteSpecifier::PathRedirect(path)) => Some(PathChange::ReplaceFull(path)),
        Some(PathRewriteSpecifier::PrefixRewrite(to)) => {
            Some(path_change::read_prefix(&to, matched).at("prefix_rewrite")?)
        }
        Some(PathRewriteSpecifier::RegexRewrite(regex)) => {
            Some(path_change::read_regex(regex, matched).at("regex_rewrite")?)
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => return Err(Fault::unsupported("path_rewrite")),
    };
    let scheme = scheme_rewrite_specifier.map(|scheme| match scheme {
        SchemeRewriteSpecifier::SchemeRedirect(scheme) => Ok(scheme),
        SchemeRewriteSpecifier::HttpsRedirect(_) => Err(Fault::unsupported("https_redirect")),
    });
    let port = (port_redirect != 0).then(|| read_port(port_redirect).at("port_redirect"));
    Ok(Redirect {
        scheme: scheme.transpose()?,
        host: (!host_redirect.is_empty()).then_some(host_redirect),
        port: port.transpose()?,
        path,
        status: read_redirect_status(response_code).at("response_code")?,
    })
}

fn read_redirect_status(code: i32) -> Read<StatusCode> {
    let code = RedirectResponseCode::try_from(code).map_err(|_| Fault::beyond("not supported"))?;
    Ok(match code {
        RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
        RedirectResponseCode::Found => StatusCode::FOUND,
        RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
        RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
        RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
    })
}

// Answers of the proxy's own.

fn read_direct_response(response: route::DirectResponseAction) -> Read<StatusCode> {
    let route::DirectResponseAction { status, body, body_format } = response;
    refuse!(body, body_format);
    let status = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    status.ok_or_else(|| Fault::new("not an HTTP status").at("status"))
}
