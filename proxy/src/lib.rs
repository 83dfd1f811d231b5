//! The gauze sidecar proxy.

pub mod body; // what flows: one enum for all message bodies
pub mod h1; // HTTP/1.x on the wire
pub mod refusal; // a failure made by the proxy
pub mod stream; // one connection, plain or mesh TLS
pub mod target; // what the data path reads
pub mod tls; // mutual TLS inside the mesh
