//! Why a request got no response, told apart by the errors of h2 and TLS: whose fault it is, and whether
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
pub(super) fn unanswered(to: &EndpointTarget, is_unsent: bool, error: &h2::Error) -> Refusal {
    let code = match code_of(error) {
        Code::UPSTREAM_RESET if is_unsent || is_dismissal(error) || is_refused(error) => Code::STREAM_REFUSED,
        code => code,
    };
    broken(to, code, error)
}

/// Whose fault it is that an HTTP/2 stream broke.
pub(super) fn code_of(error: &h2::Error) -> Code {
    if is_by_us(error) {
        return Code::BAD_BODY;
    }
    if error.get_io().is_some_and(is_refused_handshake) {
        return Code::UPSTREAM_TLS;
    }
    // What h2 itself objects to is the peer's breach of the protocol.
    if error.is_library() {
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
fn is_refused_handshake(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
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
pub(crate) fn breach(error: &h2::Error) -> Option<h2::Reason> {
    error.reason().filter(|_| error.is_library())
}

/// Whether the stream is above the last one of the peer's GOAWAY: it was not looked at (RFC 9113, 6.8).
pub(super) fn is_dismissal(error: &h2::Error) -> bool {
    error.is_remote() && error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
}

/// Whether the peer refused the stream before it looked at it (RFC 9113, 8.7).
fn is_refused(error: &h2::Error) -> bool {
    error.is_remote() && error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

/// An error and what is behind it.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}
