//! A refused resource, and how a NACK carries it.

use gauze_model::{Kind, Origin};

/// Why a resource was refused; the last good one stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {path}{}{problem}", if path.is_empty() { "" } else { ": " })]
pub struct Rejection {
    pub kind: Kind,
    /// The name on the wire, as it came; empty where a client refused a whole response.
    pub name: String,
    /// The field, for example `virtual_hosts[0].routes[3].route.timeout`; empty: the resource.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
    /// The user's object and field behind it, as far as it was read.
    pub origin: Option<Origin>,
}
