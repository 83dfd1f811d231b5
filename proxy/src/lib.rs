//! The gauze sidecar proxy: it carries all TCP of one pod, encrypted, routed and measured.
//!
//! [`Proxy`] is what they share, `run` the life of the process. Workers carry traffic; everything else (configuration,
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
pub mod certificates; // who this proxy is
pub mod config; // what the data path knows
pub mod control_plane; // how the control plane is dialled
pub mod metrics; // every number that the proxy shows
pub mod record; // the facts of one request
pub mod redirect; // the init step that brings a pod's TCP here
pub mod self_check; // whether the redirect rules are in force
pub mod settings; // flags
pub mod trace; // what the proxy says of itself

use std::sync::Arc;

use crate::access_log::AccessLog;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::self_check::SelfCheck;
use crate::settings::Settings;
use crate::tls::Tls;

/// What all threads of a proxy share. Nothing in it is locked on the request path.
pub struct Proxy {
    pub settings: Settings,
    pub config: Arc<Config>,
    pub tls: Tls,
    pub metrics: Arc<Metrics>,
    pub access_log: AccessLog,
    pub self_check: SelfCheck,
}
