//! A failure made by the proxy: one value that knows its code. The register in `model::codes` says
//! what the code means to HTTP, to gRPC and to the access log.

use std::borrow::Cow;
use std::fmt;

use gauze_model::Code;
use gauze_model::limits::Exceeded;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use crate::body::Body;
use crate::headers::{self, GAUZE_ERROR};

/// Why a request or connection was not carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// The particulars, for the one-line body and the log.
    pub detail: Cow<'static, str>,
}

/// What kind of client reads the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Http,
    /// Reads `grpc-status` where a plain client reads the status of HTTP.
    Grpc,
}

impl Reader {
    pub fn of(request: &HeaderMap) -> Reader {
        if headers::is_grpc(request) { Reader::Grpc } else { Reader::Http }
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

impl Refusal {
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { code, detail: detail.into() }
    }

    /// Seen from a caller, that our own app does not answer is another matter than a dead endpoint.
    #[must_use]
    pub fn of_the_app(self) -> Refusal {
        match self.code {
            Code::CONNECT_FAILED | Code::CONNECT_TIMEOUT => Refusal { code: Code::APP_UNREACHABLE, ..self },
            Code::STREAM_REFUSED => Refusal { code: Code::APP_REFUSED, ..self },
            _ => self,
        }
    }

    /// Whether no byte of the request reached our app: the caller's sidecar may send it to another
    /// endpoint, whatever the method.
    pub(crate) fn was_not_delivered(&self) -> bool {
        matches!(self.code, Code::APP_UNREACHABLE | Code::APP_REFUSED)
    }

    /// The response that tells the client: for gRPC a trailers-only one (gRPC over HTTP/2, "Responses").
    pub fn to_response(&self, reader: Reader) -> Response<Body> {
        match reader {
            Reader::Http => self.to_http(),
            Reader::Grpc => self.to_grpc(),
        }
    }

    fn to_http(&self) -> Response<Body> {
        let mut response = Response::new(Body::full(format!("{self}\n")));
        *response.status_mut() = self.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        self.mark(&mut response);
        response
    }

    fn to_grpc(&self) -> Response<Body> {
        let status = self.code.entry().map_or(2, |entry| entry.grpc);
        let message = HeaderValue::try_from(percent_encoded(&self.to_string())).ok();
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status)));
        headers.extend(message.map(|message| (GRPC_MESSAGE, message)));
        self.mark(&mut response);
        response
    }

    fn mark(&self, response: &mut Response<Body>) {
        let code = HeaderValue::try_from(self.code.to_string()).expect("a code is a letter and digits");
        response.headers_mut().insert(GAUZE_ERROR, code);
    }

    fn status(&self) -> StatusCode {
        let status = self.code.entry().and_then(|entry| StatusCode::from_u16(entry.status).ok());
        status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
    }
}

/// `grpc-message` is percent-encoded outside printable ASCII, and `%` itself (gRPC over HTTP/2).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => encoded.push_str("%25"),
            b' '..=b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// `M3005: The endpoint refused the connection: 10.1.0.4:8080: Connection refused`.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(entry) = self.code.entry() {
            write!(f, ": {}", entry.title)?;
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

impl std::error::Error for Refusal {}

impl From<Exceeded> for Refusal {
    fn from(exceeded: Exceeded) -> Refusal {
        Refusal::new(exceeded.code(), exceeded.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(response: &Response<Body>) -> (u16, Vec<(&str, &str)>) {
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
        (response.status().as_u16(), headers.collect())
    }

    #[test]
    fn a_refusal_tells_its_code_to_http() {
        let refusal = Refusal::new(Code::NO_ENDPOINT, "cluster/shop/cart/80");
        let response = refusal.to_response(Reader::Http);
        let wanted = vec![("content-type", "text/plain; charset=utf-8"), ("gauze-error", "M3003")];
        assert_eq!(told(&response), (503, wanted));
        let Body::Full(body) = response.into_body() else { panic!("a body at once") };
        assert_eq!(body, "M3003: The backend has no endpoint: cluster/shop/cart/80\n");
    }

    #[test]
    fn what_did_not_reach_the_app_is_told_apart() {
        for (met, told, not_delivered) in [
            (Code::CONNECT_FAILED, Code::APP_UNREACHABLE, true),
            (Code::CONNECT_TIMEOUT, Code::APP_UNREACHABLE, true),
            (Code::STREAM_REFUSED, Code::APP_REFUSED, true),
            (Code::UPSTREAM_RESET, Code::UPSTREAM_RESET, false),
            (Code::PLAINTEXT_REFUSED, Code::PLAINTEXT_REFUSED, false),
        ] {
            let refusal = Refusal::new(met, "").of_the_app();
            assert_eq!((refusal.code, refusal.was_not_delivered()), (told, not_delivered));
        }
    }

    #[test]
    fn a_refusal_is_a_status_and_a_message_to_grpc() {
        let response = Refusal::new(Code::NO_ROUTE, "50 % of \u{e9}").to_response(Reader::Grpc);
        let wanted = vec![
            ("content-type", "application/grpc"),
            ("grpc-status", "12"),
            ("grpc-message", "M3001: No route matches the request: 50 %25 of %C3%A9"),
            ("gauze-error", "M3001"),
        ];
        assert_eq!(told(&response), (200, wanted));
        assert!(http_body::Body::is_end_stream(response.body()));
    }
}
