//! Why a request got no response, told apart by the errors of hyper, h2 and TLS: whose fault it is, and whether
//! the peer can have looked at it.

use std::error::Error;
use std::io;

use gauze_model::Code;
use rustls::AlertDescription;

use crate::refusal::Refusal;
use crate::target::EndpointTarget;

/// A request that went out, wholly or in part, and got no response.
pub(super) fn broken(to: &EndpointTarget, code: Code, error: &(dyn Error + 'static)) -> Refusal {
    let innermost = causes(error).skip(1).last();
    let innermost = innermost.map_or_else(String::new, |cause| format!(": {cause}"));
    Refusal::new(code, format!("{}: {error}{innermost}", to.peer.address))
}

/// An HTTP/2 stream that broke before its response.
pub(super) fn unanswered(to: &EndpointTarget, is_unsent: bool, error: &hyper::Error) -> Refusal {
    let code = match code_of(error) {
        Code::UPSTREAM_RESET if is_unsent || is_dismissal(error) || is_refused(error) => Code::STREAM_REFUSED,
        code => code,
    };
    broken(to, code, error)
}

/// Whose fault it is that an HTTP/2 stream broke.
pub(super) fn code_of(error: &hyper::Error) -> Code {
    if causes(error).any(|cause| cause.downcast_ref().is_some_and(is_by_us)) {
        return Code::BAD_BODY;
    }
    if causes(error).any(is_refused_handshake) {
        return Code::UPSTREAM_TLS;
    }
    // What h2 itself objects to is the peer's breach of the protocol.
    if causes(error).any(|cause| cause.downcast_ref().is_some_and(h2::Error::is_library)) {
        return Code::UPSTREAM_PROTOCOL;
    }
    Code::UPSTREAM_RESET
}

/// We reset a stream ourselves when the request's body breaks off.
fn is_by_us(error: &h2::Error) -> bool {
    error.is_reset() && !error.is_remote() && !error.is_library()
}

/// In TLS 1.3 a server's refusal of our certificate arrives with the first bytes that we read, as an alert
/// of the handshake; nothing was processed then. Whatever else TLS finds wrong later says nothing of that.
fn is_refused_handshake(cause: &(dyn Error + 'static)) -> bool {
    let io: Option<&io::Error> = cause.downcast_ref();
    let tls = io.and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref());
    let Some(rustls::Error::AlertReceived(alert)) = tls else { return false };
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
            | AlertDescription::HandshakeFailure
            | AlertDescription::DecryptError
    )
}

/// The rule of HTTP/2 that a peer broke, if that is why its connection ended.
pub(crate) fn breach(error: &hyper::Error) -> Option<h2::Reason> {
    let mut found = causes(error).filter_map(|cause| cause.downcast_ref::<h2::Error>());
    found.find(|error| error.is_library()).and_then(h2::Error::reason)
}

/// Whether the stream is above the last one of the peer's GOAWAY: it was not looked at (RFC 9113, 6.8).
pub(super) fn is_dismissal(error: &hyper::Error) -> bool {
    by_the_peer(error).any(|error| error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR))
}

/// Whether the peer refused the stream before it looked at it (RFC 9113, 8.7).
fn is_refused(error: &hyper::Error) -> bool {
    by_the_peer(error).any(|error| error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

fn by_the_peer(error: &hyper::Error) -> impl Iterator<Item = &h2::Error> {
    causes(error).filter_map(|cause| cause.downcast_ref()).filter(|error: &&h2::Error| error.is_remote())
}

/// An error and what is behind it.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}
