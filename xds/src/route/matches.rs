//! What a rule is for: Envoy's `RouteMatch`. A method is a match of the pseudo-header `:method`.

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use gauze_model::route::{HeaderMatch, PathMatch, QueryMatch, RouteMatch, ValueMatch};
use http::Method;

use super::headers::read_header_name;
use crate::path::{At as _, Fault, Read, each, refuse, required};
use crate::values::{pattern, read_pattern};

const METHOD: &str = ":method";

pub(super) fn write(matches: &RouteMatch) -> route::RouteMatch {
    let RouteMatch { path, method, headers, query } = matches;
    let method = method.iter().map(|method| {
        let value = ValueMatch::Exact(method.to_string());
        write_header(METHOD, &value)
    });
    let headers = headers.iter().map(|header| write_header(header.name.as_str(), &header.value));
    route::RouteMatch {
        headers: method.chain(headers).collect(),
        query_parameters: query.iter().map(write_query).collect(),
        path_specifier: Some(write_path(path)),
        ..route::RouteMatch::default()
    }
}

pub(super) fn read(matches: route::RouteMatch) -> Read<RouteMatch> {
    let route::RouteMatch {
        case_sensitive,
        runtime_fraction,
        headers,
        query_parameters,
        cookies,
        grpc,
        tls_context,
        dynamic_metadata,
        filter_state,
        path_specifier,
    } = matches;
    refuse!(runtime_fraction, cookies, grpc, tls_context, dynamic_metadata, filter_state);
    if case_sensitive.is_some_and(|sensitive| !sensitive.value) {
        return Err(Fault::unsupported("case_sensitive"));
    }
    let path = required(path_specifier).at("path_specifier").and_then(read_path)?;
    let (methods, headers): (Vec<_>, Vec<_>) =
        headers.into_iter().enumerate().partition(|(_, header)| header.name == METHOD);
    let mut methods = methods.into_iter();
    let method = methods.next().map(|(index, method)| read_method(method).item(index).at("headers"));
    if let Some((second, _)) = methods.next() {
        return Err(Fault::beyond("a second method is not supported").item(second).at("headers"));
    }
    let headers = headers.into_iter().map(|(index, header)| read_header(header).item(index).at("headers"));
    Ok(RouteMatch {
        path,
        method: method.transpose()?,
        headers: headers.collect::<Read<_>>()?,
        query: each(query_parameters, read_query).at("query_parameters")?,
    })
}

/// Envoy takes `/` only as a plain prefix, and every other prefix of whole elements only as the separated one.
fn write_path(path: &PathMatch) -> PathSpecifier {
    match path {
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Prefix(prefix) if prefix == "/" => PathSpecifier::Prefix(prefix.clone()),
        PathMatch::Prefix(prefix) => PathSpecifier::PathSeparatedPrefix(prefix.clone()),
        PathMatch::Regex(regex) => PathSpecifier::SafeRegex(pattern(regex)),
    }
}

fn read_path(path: PathSpecifier) -> Read<PathMatch> {
    match path {
        PathSpecifier::Path(path) => Ok(PathMatch::Exact(path)),
        PathSpecifier::Prefix(prefix) if prefix == "/" => Ok(PathMatch::Prefix(prefix)),
        PathSpecifier::Prefix(_) => {
            Err(Fault::beyond("only `/` is supported; use `path_separated_prefix`").at("prefix"))
        }
        PathSpecifier::PathSeparatedPrefix(prefix) if prefix.starts_with('/') && !prefix.ends_with('/') => {
            Ok(PathMatch::Prefix(prefix))
        }
        PathSpecifier::PathSeparatedPrefix(_) => {
            let problem = "does not start with a slash, or ends with one";
            Err(Fault::new(problem).at("path_separated_prefix"))
        }
        PathSpecifier::SafeRegex(regex) => read_pattern(regex).map(PathMatch::Regex).at("safe_regex"),
        PathSpecifier::ConnectMatcher(_) => Err(Fault::unsupported("connect_matcher")),
        PathSpecifier::PathMatchPolicy(_) => Err(Fault::unsupported("path_match_policy")),
    }
}

fn write_header(name: &str, value: &ValueMatch) -> route::HeaderMatcher {
    route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(write_value(value))),
        ..route::HeaderMatcher::default()
    }
}

fn read_header(header: route::HeaderMatcher) -> Read<HeaderMatch> {
    let name = read_header_name(&header.name).at("name")?;
    Ok(HeaderMatch { name, value: read_header_value(header)? })
}

fn read_method(header: route::HeaderMatcher) -> Read<Method> {
    match read_header_value(header)? {
        ValueMatch::Exact(method) => {
            method.parse().map_err(|_| Fault::new(format!("`{method}` is not a method")).at("string_match"))
        }
        ValueMatch::Regex(_) => {
            Err(Fault::beyond("a method is only supported as it stands").at("string_match"))
        }
    }
}

fn read_header_value(header: route::HeaderMatcher) -> Read<ValueMatch> {
    let route::HeaderMatcher { name: _, invert_match, treat_missing_header_as_empty, header_match_specifier } =
        header;
    refuse!(invert_match, treat_missing_header_as_empty);
    match header_match_specifier {
        Some(HeaderMatchSpecifier::StringMatch(value)) => read_value(value).at("string_match"),
        _ => Err(Fault::beyond("only `string_match` is supported").at("header_match_specifier")),
    }
}

fn write_query(query: &QueryMatch) -> route::QueryParameterMatcher {
    let value = QueryParameterMatchSpecifier::StringMatch(write_value(&query.value));
    route::QueryParameterMatcher { name: query.name.clone(), query_parameter_match_specifier: Some(value) }
}

fn read_query(query: route::QueryParameterMatcher) -> Read<QueryMatch> {
    let route::QueryParameterMatcher { name, query_parameter_match_specifier } = query;
    match query_parameter_match_specifier {
        Some(QueryParameterMatchSpecifier::StringMatch(value)) => {
            Ok(QueryMatch { name, value: read_value(value).at("string_match")? })
        }
        _ => Err(Fault::beyond("only `string_match` is supported").at("query_parameter_match_specifier")),
    }
}

fn write_value(value: &ValueMatch) -> matcher::StringMatcher {
    let value = match value {
        ValueMatch::Exact(value) => MatchPattern::Exact(value.clone()),
        ValueMatch::Regex(regex) => MatchPattern::SafeRegex(pattern(regex)),
    };
    matcher::StringMatcher { ignore_case: false, match_pattern: Some(value) }
}

fn read_value(value: matcher::StringMatcher) -> Read<ValueMatch> {
    let matcher::StringMatcher { ignore_case, match_pattern } = value;
    refuse!(ignore_case);
    match match_pattern {
        Some(MatchPattern::Exact(value)) => Ok(ValueMatch::Exact(value)),
        Some(MatchPattern::SafeRegex(regex)) => read_pattern(regex).map(ValueMatch::Regex).at("safe_regex"),
        _ => Err(Fault::beyond("only `exact` and `safe_regex` are supported")),
    }
}
