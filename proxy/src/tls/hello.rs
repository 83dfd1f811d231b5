//! Whose TLS a connection begins with: that of the mesh, to be ended here, or the app's own, to be passed through.

use gauze_model::client_hello::{Reading, read};

use super::Alpn;

/// What a connection that begins with TLS wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// The ClientHello is not whole yet.
    NeedMore,
    /// A peer of the mesh: it offers one of our protocols.
    Mesh,
    /// The app's own TLS, to be passed through.
    Foreign,
}

/// Looks at a ClientHello without answering it. What cannot be read as one is foreign, never an error: it is passed
/// through, and the app will say.
pub fn hello(bytes: &[u8]) -> Hello {
    match read(bytes) {
        Reading::NeedMore => Hello::NeedMore,
        Reading::Whole(hello) if hello.protocols().any(|id| Alpn::of(id).is_some()) => Hello::Mesh,
        Reading::Whole(_) | Reading::Unreadable(_) => Hello::Foreign,
    }
}
