//! A refused resource, and how a NACK carries it: as `ResourceError`s in the details of its status, each with
//! the code as `google.rpc.ErrorInfo` and the field as `google.rpc.BadRequest`, and once more as lines of text for people and for servers that
//! know nothing of gauze.

use envoy_types::pb::envoy::service::discovery::v3::{ResourceError, ResourceName};
use envoy_types::pb::google::protobuf::{Any, ListValue};
use envoy_types::pb::google::rpc;
use envoy_types::util::pack_any;
use gauze_model::{Code, Kind, Origin};
use prost::Message;

use crate::metadata::{origin_from_list, origin_to_list};

/// Why a resource was refused; the last good one stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {path}{}{problem}", if path.is_empty() { "" } else { ": " })]
pub struct Rejection {
    pub kind: Kind,
    /// The name on the wire, as it came; empty where a client refused a whole response.
    pub name: String,
    /// `FEATURE_REQUIRED`, `CONFIGURATION_UNSUPPORTED`, `CONFIGURATION_REFUSED` for all else, or `POLICY_CLOSED`: then
    /// the resource is held, and only the policy of this origin is not what it should be.
    pub code: Code,
    /// The field, for example `virtual_hosts[0].routes[3].route.timeout`; empty: the resource.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
    /// The user's object and field behind it, as far as it was read.
    pub origin: Option<Box<Origin>>,
}

impl Rejection {
    /// Whether the resource is held all the same, with one policy closed.
    pub fn is_of_a_policy(&self) -> bool {
        self.code == Code::POLICY_CLOSED
    }
}

/// The `error_detail` of a NACK.
pub(crate) fn to_status(rejections: &[Rejection]) -> rpc::Status {
    let lines: Vec<String> = rejections.iter().map(line).collect();
    rpc::Status {
        code: rpc::Code::InvalidArgument as i32,
        message: lines.join("\n"),
        details: rejections.iter().map(|rejection| pack_any(to_resource_error(rejection))).collect(),
    }
}

/// What a NACK says. A status without readable details is one rejection without a name.
pub(crate) fn from_status(kind: Kind, status: &rpc::Status) -> Vec<Rejection> {
    let named: Vec<Rejection> =
        status.details.iter().filter_map(|detail| from_resource_error(kind, unpack(detail)?)).collect();
    if !named.is_empty() {
        return named;
    }
    let problem = status.message.clone();
    let code = Code::CONFIGURATION_REFUSED;
    vec![Rejection { kind, name: String::new(), code, path: String::new(), problem, origin: None }]
}

fn line(rejection: &Rejection) -> String {
    match &rejection.origin {
        Some(origin) => format!("{rejection} ({origin})"),
        None => rejection.to_string(),
    }
}

fn to_resource_error(rejection: &Rejection) -> ResourceError {
    let violation = FieldViolation { field: rejection.path.clone(), description: rejection.problem.clone() };
    let field = pack_any(BadRequest { field_violations: vec![violation] });
    let reason = pack_any(ErrorInfo { reason: rejection.code.to_string(), domain: DOMAIN.to_owned() });
    let origin = rejection.origin.as_ref().map(|origin| pack_any(origin_to_list(origin)));
    ResourceError {
        resource_name: Some(ResourceName {
            name: rejection.name.clone(),
            dynamic_parameter_constraints: None,
        }),
        error_detail: Some(rpc::Status {
            code: rpc::Code::InvalidArgument as i32,
            message: line(rejection),
            details: [reason, field].into_iter().chain(origin).collect(),
        }),
    }
}

fn from_resource_error(kind: Kind, error: ResourceError) -> Option<Rejection> {
    let name = error.resource_name?.name;
    let rpc::Status { message, details, .. } = error.error_detail.unwrap_or_default();
    let origin = details.iter().find_map(unpack::<ListValue>);
    let origin = origin.and_then(|list| origin_from_list(list).ok()).map(Box::new);
    let reason = details.iter().find_map(unpack::<ErrorInfo>).filter(|reason| reason.domain == DOMAIN);
    let code = reason.and_then(|reason| reason.reason.parse().ok()).unwrap_or(Code::CONFIGURATION_REFUSED);
    let violation = details.iter().find_map(unpack::<BadRequest>);
    let violation = violation.and_then(|request| request.field_violations.into_iter().next());
    let FieldViolation { field: path, description: problem } =
        violation.unwrap_or(FieldViolation { field: String::new(), description: message });
    Some(Rejection { kind, name, code, path, problem, origin })
}

fn unpack<M: Message + prost::Name + Default>(any: &Any) -> Option<M> {
    (any.type_url == M::type_url()).then(|| M::decode(any.value.as_slice()).ok()).flatten()
}

/// Of the codes in `ErrorInfo.reason`.
const DOMAIN: &str = "gauze.dev";

/// `google.rpc.ErrorInfo`, which `envoy-types` does not have.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
}

impl prost::Name for ErrorInfo {
    const NAME: &'static str = "ErrorInfo";
    const PACKAGE: &'static str = "google.rpc";

    fn type_url() -> String {
        "type.googleapis.com/google.rpc.ErrorInfo".to_owned()
    }
}

/// `google.rpc.BadRequest`, which it does not have either.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<FieldViolation>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

impl prost::Name for BadRequest {
    const NAME: &'static str = "BadRequest";
    const PACKAGE: &'static str = "google.rpc";

    fn type_url() -> String {
        "type.googleapis.com/google.rpc.BadRequest".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(name: &str, origin: Option<Origin>) -> Rejection {
        let origin = origin.map(Box::new);
        let (path, problem) = ("route.timeout".to_owned(), "not supported".to_owned());
        let code = Code::CONFIGURATION_UNSUPPORTED;
        Rejection { kind: Kind::Routes, name: name.to_owned(), code, path, problem, origin }
    }

    #[test]
    fn a_nack_reads_back_as_it_was_written() {
        let origin = Origin {
            kind: "HTTPRoute".into(),
            namespace: "shop".into(),
            name: "cart".into(),
            uid: "u".into(),
            generation: 7,
            path: "spec.rules[1]".into(),
        };
        let written = [rejection("routes/shop/cart/80", Some(origin)), rejection("*", None)];
        let status = to_status(&written);
        assert_eq!(from_status(Kind::Routes, &status), written);
        assert_eq!(
            status.message,
            "routes/shop/cart/80: route.timeout: not supported (HTTPRoute/shop/cart spec.rules[1])\n\
             *: route.timeout: not supported"
        );
    }

    #[test]
    fn a_nack_without_details_is_about_the_whole_response() {
        let status = rpc::Status { code: 13, message: "no such filter".into(), details: Vec::new() };
        let read = from_status(Kind::Listener, &status);
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].name.as_str(), read[0].problem.as_str()), ("", "no such filter"));
    }
}
