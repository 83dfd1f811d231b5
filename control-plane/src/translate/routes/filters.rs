//! What a rule changes on the way, or that it redirects.

use ::http::StatusCode;
use gauze_crds::gateway::HeaderFilter;
use gauze_crds::grpc_route::GrpcRouteFilter;
use gauze_crds::http_route::{HttpRouteFilter, RequestRedirect, UrlRewrite};
use gauze_model::route::{Filters, Redirect, Rewrite};
use gauze_model::{Code, Origin};

use super::headers::header_change;
use super::matches::{at, invalid, item};
use super::targets::{host_name, path_change};
use crate::problem::Problem;

/// The filters of a rule or backend.
#[derive(Default)]
pub(super) struct Changes {
    pub filters: Filters,
    pub redirect: Option<Redirect>,
    /// What is not as it is meant to be written, and has an effect all the same.
    pub notes: Vec<Problem>,
}

/// One filter, whichever kind of route it stands in.
enum Filter<'a> {
    RequestHeaders(&'a HeaderFilter),
    ResponseHeaders(&'a HeaderFilter),
    Redirect(&'a RequestRedirect),
    Rewrite(&'a UrlRewrite),
    /// Not supported yet. It is skipped: whoever asks gets the same answer without it.
    Mirror,
}

/// # Errors
/// The first filter that cannot be applied: what it asks for must not be passed over (Gateway API).
pub(super) fn http(given: &[HttpRouteFilter], origin: &Origin) -> Result<Changes, Problem> {
    collect(given, origin, |filter, origin| {
        let missing = |field| missing(origin, field);
        match filter.filter_type.as_str() {
            "RequestHeaderModifier" => filter
                .request_header_modifier
                .as_ref()
                .map(Filter::RequestHeaders)
                .ok_or_else(|| missing("requestHeaderModifier")),
            "ResponseHeaderModifier" => filter
                .response_header_modifier
                .as_ref()
                .map(Filter::ResponseHeaders)
                .ok_or_else(|| missing("responseHeaderModifier")),
            "RequestRedirect" => filter
                .request_redirect
                .as_ref()
                .map(Filter::Redirect)
                .ok_or_else(|| missing("requestRedirect")),
            "URLRewrite" => {
                filter.url_rewrite.as_ref().map(Filter::Rewrite).ok_or_else(|| missing("urlRewrite"))
            }
            "RequestMirror" => Ok(Filter::Mirror),
            other => Err(unsupported(origin, other)),
        }
    })
}

/// # Errors
/// As [`http`].
pub(super) fn grpc(given: &[GrpcRouteFilter], origin: &Origin) -> Result<Changes, Problem> {
    collect(given, origin, |filter, origin| match filter.filter_type.as_str() {
        "RequestHeaderModifier" => filter
            .request_header_modifier
            .as_ref()
            .map(Filter::RequestHeaders)
            .ok_or_else(|| missing(origin, "requestHeaderModifier")),
        "ResponseHeaderModifier" => filter
            .response_header_modifier
            .as_ref()
            .map(Filter::ResponseHeaders)
            .ok_or_else(|| missing(origin, "responseHeaderModifier")),
        "RequestMirror" => Ok(Filter::Mirror),
        other => Err(unsupported(origin, other)),
    })
}

fn collect<F>(
    given: &[F],
    origin: &Origin,
    read: impl for<'f> Fn(&'f F, &Origin) -> Result<Filter<'f>, Problem>,
) -> Result<Changes, Problem> {
    let mut changes = Changes::default();
    let mut seen = Vec::new();
    for (index, filter) in given.iter().enumerate() {
        let origin = item(origin, index);
        let filter = read(filter, &origin)?;
        let kind = std::mem::discriminant(&filter);
        // Requests may be mirrored to several.
        if seen.contains(&kind) && !matches!(filter, Filter::Mirror) {
            return Err(incompatible(&origin, "this filter stands here already; merge the two"));
        }
        seen.push(kind);
        match filter {
            Filter::RequestHeaders(given) => {
                let origin = at(&origin, "requestHeaderModifier");
                changes.filters.request_headers = header_change(given, &origin, &mut changes.notes)?;
            }
            Filter::ResponseHeaders(given) => {
                let origin = at(&origin, "responseHeaderModifier");
                changes.filters.response_headers = header_change(given, &origin, &mut changes.notes)?;
            }
            Filter::Redirect(given) => {
                changes.redirect = Some(redirect(given, &at(&origin, "requestRedirect"))?);
            }
            Filter::Rewrite(given) => changes.filters.rewrite = rewrite(given, &at(&origin, "urlRewrite"))?,
            Filter::Mirror => {
                let message = "requests are not mirrored yet, so `RequestMirror` has no effect; the rest of the rule has";
                changes.notes.push(Problem::new(Code::UNSUPPORTED_FIELD, at(&origin, "type"), message));
            }
        }
    }
    if changes.redirect.is_some() && changes.filters.rewrite != Rewrite::default() {
        return Err(incompatible(
            origin,
            "a redirect cannot be rewritten; remove RequestRedirect or URLRewrite",
        ));
    }
    Ok(changes)
}

fn rewrite(given: &UrlRewrite, origin: &Origin) -> Result<Rewrite, Problem> {
    let host = given.hostname.as_deref().map(|host| host_name(host, &at(origin, "hostname")));
    let path = given.path.as_ref().map(|path| path_change(path, &at(origin, "path")));
    Ok(Rewrite { host: host.transpose()?, path: path.transpose()? })
}

/// The status codes of a redirect (Gateway API `HTTPRequestRedirectFilter.statusCode`).
const REDIRECT_CODES: [i32; 5] = [301, 302, 303, 307, 308];

fn redirect(given: &RequestRedirect, origin: &Origin) -> Result<Redirect, Problem> {
    let status = given.status_code.unwrap_or(302);
    let status = u16::try_from(status)
        .ok()
        .filter(|_| REDIRECT_CODES.contains(&status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| {
            invalid(
                &at(origin, "statusCode"),
                format!("{status} does not redirect; write 301, 302, 303, 307 or 308"),
            )
        })?;
    let port = given.port.map(|port| {
        crate::translate::ports::number(port)
            .ok_or_else(|| invalid(&at(origin, "port"), format!("{port} is not a port")))
    });
    if let Some(scheme) = given.scheme.as_deref().filter(|scheme| !["http", "https"].contains(scheme)) {
        return Err(invalid(&at(origin, "scheme"), format!("`{scheme}` must be http or https")));
    }
    let host = given.hostname.as_deref().map(|host| host_name(host, &at(origin, "hostname")));
    let path = given.path.as_ref().map(|path| path_change(path, &at(origin, "path")));
    Ok(Redirect {
        scheme: given.scheme.clone(),
        host: host.transpose()?,
        port: port.transpose()?,
        path: path.transpose()?,
        status,
    })
}

pub(super) fn missing(origin: &Origin, field: &str) -> Problem {
    Problem::new(Code::MISSING_FIELD, origin.clone(), format!("the type asks for a field `{field}`; add it"))
}

fn unsupported(origin: &Origin, filter: &str) -> Problem {
    Problem::new(
        Code::UNSUPPORTED_FILTER,
        at(origin, "type"),
        format!(
            "filter `{filter}` is not supported here, so these requests are answered 500; remove the filter"
        ),
    )
}

pub(super) fn incompatible(origin: &Origin, message: &str) -> Problem {
    Problem::new(Code::INCOMPATIBLE_FILTERS, origin.clone(), message)
}
