//! Which requests a rule is for.

use ::http::{HeaderName, Method};
use gauze_crds::gateway::NamedMatch;
use gauze_crds::grpc_route::{GrpcMethodMatch, GrpcRouteMatch};
use gauze_crds::http_route::{HttpPathMatch, HttpRouteMatch};
use gauze_model::route::{HeaderMatch, PathMatch, Pattern, QueryMatch, RouteMatch, ValueMatch};
use gauze_model::{Code, Origin};

use crate::problem::Problem;

/// # Errors
/// What of it cannot be understood.
pub(super) fn http(given: &HttpRouteMatch, origin: &Origin) -> Result<RouteMatch, Problem> {
    Ok(RouteMatch {
        path: given
            .path
            .as_ref()
            .map_or(Ok(PathMatch::default()), |path| self::path(path, &at(origin, "path")))?,
        method: given
            .method
            .as_ref()
            .map(|method| self::method(method, &at(origin, "method")))
            .transpose()?,
        headers: headers(given.headers.as_deref().unwrap_or_default(), &at(origin, "headers"))?,
        query: query(given.query_params.as_deref().unwrap_or_default(), &at(origin, "queryParams"))?,
    })
}

/// # Errors
/// What of it cannot be understood.
pub(super) fn grpc(given: &GrpcRouteMatch, origin: &Origin) -> Result<RouteMatch, Problem> {
    Ok(RouteMatch {
        path: given
            .method
            .as_ref()
            .map_or(Ok(PathMatch::default()), |method| call(method, &at(origin, "method")))?,
        headers: headers(given.headers.as_deref().unwrap_or_default(), &at(origin, "headers"))?,
        ..RouteMatch::default()
    })
}

/// One field deeper.
pub(in crate::translate) fn at(origin: &Origin, field: &str) -> Origin {
    origin.at(format!("{}.{field}", origin.path))
}

/// One item of a list.
pub(in crate::translate) fn item(origin: &Origin, index: usize) -> Origin {
    origin.at(format!("{}[{index}]", origin.path))
}

fn path(given: &HttpPathMatch, origin: &Origin) -> Result<PathMatch, Problem> {
    let value = given.value.as_deref().unwrap_or("/");
    let absolute = || match value.starts_with('/') {
        true => Ok(value.to_owned()),
        false => Err(invalid(origin, format!("`{value}` must start with `/`"))),
    };
    match given.match_type.as_deref().unwrap_or("PathPrefix") {
        "Exact" => Ok(PathMatch::Exact(absolute()?)),
        "PathPrefix" => Ok(PathMatch::Prefix(without_trailing_slash(absolute()?))),
        "RegularExpression" => Ok(PathMatch::Regex(pattern(value, origin)?)),
        other => Err(unknown_type(origin, other, "Exact, PathPrefix or RegularExpression")),
    }
}

/// A trailing slash of a prefix is ignored (Gateway API `PathMatchPathPrefix`).
fn without_trailing_slash(mut path: String) -> String {
    if path.len() > 1 && path.ends_with('/') {
        path.pop();
    }
    path
}

/// gRPC calls `/<service>/<method>` (gRPC over HTTP/2, "Requests").
fn call(given: &GrpcMethodMatch, origin: &Origin) -> Result<PathMatch, Problem> {
    // Empty means any, as if it were left out (Gateway API `GRPCMethodMatch`).
    let [service, method] =
        [&given.service, &given.method].map(|name| name.as_deref().filter(|name| !name.is_empty()));
    match (given.match_type.as_deref().unwrap_or("Exact"), service, method) {
        (_, None, None) => Err(invalid(origin, "write `service`, `method` or both".to_owned())),
        ("Exact", Some(service), Some(method)) => Ok(PathMatch::Exact(format!("/{service}/{method}"))),
        ("Exact", Some(service), None) => Ok(PathMatch::Prefix(format!("/{service}"))),
        ("Exact", None, Some(method)) => {
            Ok(PathMatch::Regex(pattern(&format!("/[^/]+/{}", escaped(method)), origin)?))
        }
        ("RegularExpression", ..) => {
            // Each alone first: `a)(b` must not become valid by what is put around it.
            for part in [service, method].into_iter().flatten() {
                pattern(part, origin)?;
            }
            let any = "[^/]+";
            let text = format!("/(?:{})/(?:{})", service.unwrap_or(any), method.unwrap_or(any));
            Ok(PathMatch::Regex(pattern(&text, origin)?))
        }
        (other, ..) => Err(unknown_type(origin, other, "Exact or RegularExpression")),
    }
}

/// A method's name as a regular expression that matches just this.
fn escaped(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_alphanumeric() || c == '_' { c.to_string() } else { format!("\\x{{{:x}}}", u32::from(c)) }
        })
        .collect()
}

/// Methods are case-sensitive (RFC 9110, 9.1), and these are all that there are here (Gateway API `HTTPMethod`).
fn method(given: &str, origin: &Origin) -> Result<Method, Problem> {
    const METHODS: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    METHODS.into_iter().find(|method| method.as_str() == given).ok_or_else(|| {
        invalid(
            origin,
            format!("`{given}` is not known here; write GET, POST or another method in upper case"),
        )
    })
}

/// Of several with the same name the first counts (Gateway API `HTTPRouteMatch.headers`).
fn headers(given: &[NamedMatch], origin: &Origin) -> Result<Vec<HeaderMatch>, Problem> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for (index, header) in given.iter().enumerate() {
        let origin = item(origin, index);
        let name = HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|_| invalid(&at(&origin, "name"), format!("`{}` is not a header name", header.name)))?;
        let value = value(header, &origin)?;
        if headers.iter().all(|known| known.name != name) {
            headers.push(HeaderMatch { name, value });
        }
    }
    Ok(headers)
}

/// Of several with the same name the first counts (Gateway API `HTTPRouteMatch.queryParams`).
fn query(given: &[NamedMatch], origin: &Origin) -> Result<Vec<QueryMatch>, Problem> {
    let mut query: Vec<QueryMatch> = Vec::new();
    for (index, parameter) in given.iter().enumerate() {
        let value = value(parameter, &item(origin, index))?;
        if query.iter().all(|known| known.name != parameter.name) {
            query.push(QueryMatch { name: parameter.name.clone(), value });
        }
    }
    Ok(query)
}

fn value(given: &NamedMatch, origin: &Origin) -> Result<ValueMatch, Problem> {
    match given.match_type.as_deref().unwrap_or("Exact") {
        "Exact" => Ok(ValueMatch::Exact(given.value.clone())),
        "RegularExpression" => Ok(ValueMatch::Regex(pattern(&given.value, &at(origin, "value"))?)),
        other => Err(unknown_type(origin, other, "Exact or RegularExpression")),
    }
}

pub(in crate::translate) fn pattern(text: &str, origin: &Origin) -> Result<Pattern, Problem> {
    Pattern::new(text).map_err(|error| {
        // The last line says what is wrong; those above draw it with carets.
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Problem::new(
            Code::INVALID_PATTERN,
            origin.clone(),
            format!("`{text}` is not a regular expression: {reason}"),
        )
    })
}

pub(in crate::translate) fn invalid(origin: &Origin, message: String) -> Problem {
    Problem::new(Code::INVALID_VALUE, origin.clone(), message)
}

fn unknown_type(origin: &Origin, given: &str, known: &str) -> Problem {
    invalid(&at(origin, "type"), format!("`{given}` is not known here; write {known}"))
}
