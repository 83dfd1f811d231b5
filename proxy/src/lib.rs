//! The gauze sidecar proxy: it carries all TCP of one pod, encrypted, routed and measured.
//!
//! `run` is the life of the process. Workers carry traffic; everything else (configuration,
//! certificates, admin, logs) lives on one control thread.
//!
//! The modules, from the wire upwards, then what stands around the request path:

pub mod body; // what flows: one enum for all message bodies
pub mod h1; // HTTP/1.x on the wire
pub mod refusal; // a failure made by the proxy
pub mod stream; // one connection, plain or mesh TLS
pub mod target; // what the data path reads
pub mod tls; // mutual TLS inside the mesh

pub mod access_log; // one line for each request
pub mod metrics; // every number that the proxy shows
pub mod record; // the facts of one request
pub mod redirect; // the init step that brings a pod's TCP here
pub mod settings; // flags
pub mod trace; // what the proxy says of itself
