//! What came of one try of a request at one endpoint, as the side that dialled saw it. Whether it may be
//! tried again and whether it counts against the endpoint are
//! decided from this value alone.

use http::StatusCode;

/// The end of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response began.
    Responded {
        /// Its status.
        status: StatusCode,
        /// What a gRPC server says of the call, where that is known before any message of the response:
        /// in the headers (a trailers-only response), or in trailers that follow them at once.
        grpc_status: Option<u8>,
    },
    /// No byte of the request reached the app: to try again is safe for every method.
    NotDelivered(NotDelivered),
    /// The connection or stream ended before the response began; the app may have seen the request.
    Reset,
    /// No response began in time (Envoy `per_try_timeout`); the app may have seen the request.
    Timeout,
}

/// How it is known that no byte reached the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDelivered {
    /// No connection came about: refused, unreachable, timed out, or not the peer that it must be.
    ConnectFailure,
    /// RST_STREAM with REFUSED_STREAM, or a GOAWAY below the stream's id (RFC 9113, section 8.7).
    RefusedStream,
    /// The peer's sidecar says so: `gauze-not-delivered`, believed only over mesh TLS.
    SaidByPeer,
}
