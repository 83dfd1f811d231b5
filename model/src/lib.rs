//! What a gauze proxy must know, and every decision it makes, as plain data and pure functions.
//!
//! Nothing here opens a socket, reads a clock, draws a number or spawns: time, draws and bytes are
//! arguments. The data path, `gauze explain` and the control plane all call these same functions.
//!
//! The modules, in reading order:

#![deny(missing_docs)]
// What is banned, and why, stands in model/clippy.toml. Tests may read the clock that they hand in.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod access_log; // how a line of the access log is written
pub mod authorization; // who may do what
pub mod balance; // which endpoint serves a request
pub mod budget; // how much may be retried in all
pub mod client_hello; // what a TLS client asks for
pub mod cluster; // a backend: its endpoints, limits and expectations
pub mod codes; // the register of problem codes
pub mod deadline; // how much time a request has
pub mod detect; // what the first bytes of a connection speak
pub mod framing; // where HTTP/1 messages begin and end
pub mod identity; // SPIFFE ids
pub mod limits; // whether a cluster lets something more in
pub mod listener; // where a connection goes: inbound and outbound
pub mod log_filter; // what may be written where a log level is asked for
pub mod name; // what a resource is called on the wire
pub mod origin; // the user's object and field behind it
pub mod outcome; // what came of one try of a request
pub mod outlier; // which endpoints get no traffic for a while
pub mod retry; // whether a request is tried again, and when
pub mod route; // which rule carries a request
pub mod server_name; // where a TLS connection goes
pub mod snapshot; // all configuration that one proxy holds
pub mod timeouts; // how long a request may take
pub mod why; // the same code decides and explains

pub use cluster::{Cluster, Endpoint, EndpointSet};
pub use codes::Code;
pub use identity::SpiffeId;
pub use listener::{Inbound, Listener, Outbound};
pub use name::{Kind, Name};
pub use origin::Origin;
pub use route::{RouteRule, RouteTable};
pub use snapshot::Snapshot;
