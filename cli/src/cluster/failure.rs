//! What an error of the API server means to the user: one sentence, and what to do next.

use std::error::Error;

use http::StatusCode;
use kube::client::UpgradeConnectionError;

use super::Cluster;
use crate::exit::Failure;

/// `doing` is what was tried: "list pods".
pub(super) fn explain(cluster: &Cluster, doing: &str, error: &kube::Error) -> Failure {
    let Cluster { name, server, .. } = cluster;
    Failure::Unreachable(match status_of(error) {
        Some((401, _)) => format!(
            "the API server of {name} does not know you: log in again, or choose another context with --context"
        ),
        Some((403, said)) => {
            format!("you may not {doing} in {name}{said}; `gauze check --pre` says all that is needed")
        }
        Some((404, _)) => format!(
            "cannot {doing} in {name}: there is nothing of that name or kind; `gauze check` says what is missing"
        ),
        Some((_, said)) => format!("cannot {doing} in {name}{said}"),
        None => format!(
            "the API server of {name} ({server}) does not answer: {}; does `kubectl cluster-info` reach it?",
            root_cause(error)
        ),
    })
}

/// The status that the API server answered with, and what it said.
fn status_of(error: &kube::Error) -> Option<(u16, String)> {
    match error {
        kube::Error::Api(status) => Some((status.code, format!(" ({})", status.message))),
        // The body of a refused upgrade is lost.
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => {
            let said = match *status {
                StatusCode::FORBIDDEN => String::new(),
                status => format!(" ({status})"),
            };
            Some((status.as_u16(), said))
        }
        _ => None,
    }
}

/// The innermost error, which names what the system said.
fn root_cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
