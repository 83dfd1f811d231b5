//! The gauze sidecar proxy.

pub mod refusal; // a failure made by the proxy
pub mod target; // what the data path reads
