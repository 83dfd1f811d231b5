//! Sets of statuses, small enough to be looked at for every response.

use std::fmt;

use http::StatusCode;

/// HTTP statuses from 100 to 599.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct StatusSet {
    /// A bit for each, from 100 on.
    bits: [u64; 8],
}

impl StatusSet {
    /// No status.
    pub const NONE: StatusSet = StatusSet { bits: [0; 8] };

    /// Every status from 500 to 599 (Envoy `5xx`).
    pub fn server_errors() -> StatusSet {
        (500..600).collect()
    }

    /// 502, 503 and 504 (Envoy `gateway-error`).
    pub fn gateway_errors() -> StatusSet {
        (502..505).collect()
    }

    /// Whether it has this status.
    pub fn contains(&self, status: StatusCode) -> bool {
        self.has(status.as_u16())
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        *self == StatusSet::NONE
    }

    /// In rising order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (100..600).filter(|status| self.has(*status))
    }

    fn has(&self, status: u16) -> bool {
        place(status).is_some_and(|(word, bit)| self.bits[word] & bit != 0)
    }
}

/// Which bit stands for a status; `None`: it is none.
fn place(status: u16) -> Option<(usize, u64)> {
    let at = status.checked_sub(100).filter(|at| *at < 500)?;
    Some((usize::from(at / 64), 1 << (at % 64)))
}

/// What is no status is left out.
impl FromIterator<u16> for StatusSet {
    fn from_iter<I: IntoIterator<Item = u16>>(statuses: I) -> StatusSet {
        let mut set = StatusSet::default();
        for (word, bit) in statuses.into_iter().filter_map(place) {
            set.bits[word] |= bit;
        }
        set
    }
}

/// As ranges: `429, 500-599`.
impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let firsts = self.iter().filter(|status| !self.has(status - 1));
        for (index, first) in firsts.enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{first}")?;
            let last = (first..600).take_while(|status| self.has(*status)).last().unwrap_or(first);
            if last > first {
                write!(f, "-{last}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatusSet({self})")
    }
}

/// gRPC statuses that can be retried on: those that Envoy and Linkerd have words for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct GrpcStatuses {
    /// A bit for each code.
    bits: u32,
}

/// The word for each (Envoy `retry_on`).
const GRPC: [(GrpcStatuses, &str); 5] = [
    (GrpcStatuses::CANCELLED, "cancelled"),
    (GrpcStatuses::DEADLINE_EXCEEDED, "deadline-exceeded"),
    (GrpcStatuses::RESOURCE_EXHAUSTED, "resource-exhausted"),
    (GrpcStatuses::INTERNAL, "internal"),
    (GrpcStatuses::UNAVAILABLE, "unavailable"),
];

impl GrpcStatuses {
    /// No status.
    pub const NONE: GrpcStatuses = GrpcStatuses { bits: 0 };
    /// CANCELLED (1).
    pub const CANCELLED: GrpcStatuses = GrpcStatuses { bits: 1 << 1 };
    /// DEADLINE_EXCEEDED (4).
    pub const DEADLINE_EXCEEDED: GrpcStatuses = GrpcStatuses { bits: 1 << 4 };
    /// RESOURCE_EXHAUSTED (8).
    pub const RESOURCE_EXHAUSTED: GrpcStatuses = GrpcStatuses { bits: 1 << 8 };
    /// INTERNAL (13).
    pub const INTERNAL: GrpcStatuses = GrpcStatuses { bits: 1 << 13 };
    /// UNAVAILABLE (14).
    pub const UNAVAILABLE: GrpcStatuses = GrpcStatuses { bits: 1 << 14 };

    /// The status of this word; `None`: none that can be retried on.
    pub fn of_word(word: &str) -> Option<GrpcStatuses> {
        GRPC.iter().find(|(_, known)| *known == word).map(|(status, _)| *status)
    }

    /// Whether it has this code.
    pub fn contains(&self, code: u8) -> bool {
        1_u32.checked_shl(code.into()).is_some_and(|bit| self.bits & bit != 0)
    }

    /// Whether it has none. Then nothing of a response needs to be waited for but its head.
    pub fn is_empty(&self) -> bool {
        self.bits == 0
    }

    /// These and those.
    #[must_use]
    pub fn with(self, more: GrpcStatuses) -> GrpcStatuses {
        GrpcStatuses { bits: self.bits | more.bits }
    }

    /// The words, in order of their codes.
    pub fn words(&self) -> impl Iterator<Item = &'static str> + '_ {
        GRPC.iter().filter(|(status, _)| self.bits & status.bits != 0).map(|(_, word)| *word)
    }
}

impl fmt::Debug for GrpcStatuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.words()).finish()
    }
}
