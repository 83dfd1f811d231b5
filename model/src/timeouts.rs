//! How long a request may take. Waiting is the data path's.

use std::time::Duration;

use crate::origin::Origin;

/// Time limits of a request, each counted to the end of the response's head unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// The user's `timeouts` field; `None`: the default, which is no limit.
    pub origin: Option<Origin>,
    /// Of the whole request, all tries and waits and the response's body (Gateway API `timeouts.request`,
    /// Envoy `RouteAction.timeout`). A call's `grpc-timeout` counts beside it; the earlier holds.
    pub request: Option<Duration>,
    /// Of each try (Gateway API `timeouts.backendRequest`, Envoy `RetryPolicy.per_try_timeout`).
    pub per_try: Option<Duration>,
}
