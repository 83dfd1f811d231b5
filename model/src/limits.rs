//! Whether a cluster's limits let something more in, from what is in use (Envoy's circuit breakers).
//! The counting is the data path's.

use std::fmt;

use crate::cluster::Limits;
use crate::codes::Code;

/// What is in use of a cluster, in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Connections open or being opened.
    pub connections: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
    /// Requests in flight, those that wait included.
    pub requests: u32,
}

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// [`Limits::connections`], which it carries.
    Connections(u32),
    /// [`Limits::pending`], which it carries.
    Pending(u32),
    /// [`Limits::requests`], which it carries.
    Requests(u32),
}

/// How a request that finds no free connection gets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A connection may be opened for it.
    Open,
    /// It waits for one that others use.
    Wait,
}

impl Limits {
    /// Whether one more request may begin.
    ///
    /// # Errors
    /// As many are in flight as the limit allows.
    pub fn admit_request(&self, in_use: InUse) -> Result<(), Exceeded> {
        if in_use.requests < self.requests { Ok(()) } else { Err(Exceeded::Requests(self.requests)) }
    }

    /// Whether one more connection may be opened: for an opaque stream, which cannot wait.
    ///
    /// # Errors
    /// As many are open as the limit allows.
    pub fn admit_connection(&self, in_use: InUse) -> Result<(), Exceeded> {
        if in_use.connections < self.connections {
            Ok(())
        } else {
            Err(Exceeded::Connections(self.connections))
        }
    }

    /// What a request does for which no connection is free. Without any connection to wait for (a
    /// limit of 0), it is refused.
    ///
    /// # Errors
    /// Neither may a connection be opened, nor another request wait.
    pub fn place(&self, in_use: InUse) -> Result<Place, Exceeded> {
        match self.admit_connection(in_use) {
            Ok(()) => Ok(Place::Open),
            Err(exceeded) if in_use.connections == 0 => Err(exceeded),
            Err(_) if in_use.pending < self.pending => Ok(Place::Wait),
            Err(_) => Err(Exceeded::Pending(self.pending)),
        }
    }
}

impl Exceeded {
    /// The code of the refusal.
    pub fn code(self) -> Code {
        match self {
            Exceeded::Connections(_) => Code::TOO_MANY_CONNECTIONS,
            Exceeded::Pending(_) => Code::TOO_MANY_PENDING,
            Exceeded::Requests(_) => Code::TOO_MANY_REQUESTS,
        }
    }
}

impl std::error::Error for Exceeded {}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exceeded::Connections(limit) => write!(f, "the limit of {limit} connections is reached"),
            Exceeded::Pending(limit) => write!(f, "the limit of {limit} waiting requests is reached"),
            Exceeded::Requests(limit) => write!(f, "the limit of {limit} requests in flight is reached"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { connections: 2, pending: 1, requests: 4 };

    #[test]
    fn a_request_begins_below_the_limit_only() {
        let with = |requests| LIMITS.admit_request(InUse { requests, ..InUse::default() });
        assert_eq!(
            [with(0), with(3), with(4), with(9)],
            [Ok(()), Ok(()), Err(Exceeded::Requests(4)), Err(Exceeded::Requests(4))]
        );
    }

    #[test]
    fn a_request_without_a_connection_opens_one_or_waits() {
        let in_use = |connections, pending| InUse { connections, pending, requests: 0 };
        let none = Limits { connections: 0, ..LIMITS };
        for (what, limits, in_use, wanted) in [
            ("room for a connection", LIMITS, in_use(1, 1), Ok(Place::Open)),
            ("all connections in use", LIMITS, in_use(2, 0), Ok(Place::Wait)),
            ("and the queue full", LIMITS, in_use(2, 1), Err(Exceeded::Pending(1))),
            ("more in use than a limit that was lowered", LIMITS, in_use(7, 9), Err(Exceeded::Pending(1))),
            ("no connection to wait for", none, in_use(0, 0), Err(Exceeded::Connections(0))),
        ] {
            assert_eq!(limits.place(in_use), wanted, "{what}");
        }
    }

    #[test]
    fn every_limit_has_a_code_and_names_its_value() {
        for (exceeded, code, text) in [
            (Exceeded::Connections(2), Code::TOO_MANY_CONNECTIONS, "2 connections"),
            (Exceeded::Pending(1), Code::TOO_MANY_PENDING, "1 waiting requests"),
            (Exceeded::Requests(4), Code::TOO_MANY_REQUESTS, "4 requests"),
        ] {
            assert_eq!(exceeded.code(), code);
            assert!(exceeded.to_string().contains(text));
        }
    }
}
