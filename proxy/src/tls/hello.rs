//! Whose TLS a connection begins with: that of the mesh, to be ended here, or the app's own, to be passed through.

use rustls::server::{Acceptor, ClientHello};

use super::Alpn;

/// What a connection that begins with TLS wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// The ClientHello is not whole yet.
    NeedMore,
    /// A peer of the mesh: it offers one of our protocols.
    Mesh,
    /// The app's own TLS, to be passed through; with the server name that it asks for.
    Foreign { server_name: Option<String> },
}

/// Longest ClientHello that is waited for, in bytes; a post-quantum one has about 1.8 KiB.
pub const HELLO_MAX: usize = 16 * 1024;

/// Looks at a ClientHello without answering it. What cannot be read as one is foreign, never an error:
/// it is passed through, and the app will say.
pub fn hello(bytes: &[u8]) -> Hello {
    let mut acceptor = Acceptor::default();
    let mut unread = bytes;
    while !unread.is_empty() {
        if acceptor.read_tls(&mut unread).is_err() {
            return Hello::Foreign { server_name: None };
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return kind_of(&accepted.client_hello()),
            Ok(None) => {}
            Err(_) => return Hello::Foreign { server_name: None },
        }
    }
    if bytes.len() < HELLO_MAX { Hello::NeedMore } else { Hello::Foreign { server_name: None } }
}

fn kind_of(hello: &ClientHello<'_>) -> Hello {
    let ours = |id: &[u8]| Alpn::of(id).is_some();
    if hello.alpn().is_some_and(|mut ids| ids.any(ours)) {
        return Hello::Mesh;
    }
    Hello::Foreign { server_name: hello.server_name().map(str::to_owned) }
}
