//! Finds the end of a head in bytes that arrive piece by piece, looking at each byte once, so that a
//! head that trickles in costs no more than one that comes at once. The limits of size hold here.

use super::{Limits, Malformed, is_token};

/// The search for the empty line that ends a head or a trailer section.
#[derive(Clone, Copy, Debug)]
pub struct HeadScan {
    of: Of,
    /// Bytes before this one were looked at.
    seen: usize,
    /// Where the line begins that is being looked at.
    line: usize,
    /// Lines that are complete; an empty line before a request is not counted.
    lines: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Request,
    Response,
    Trailers,
}

impl HeadScan {
    /// The scan of a request's head, which one empty line may precede (RFC 9112, 2.2).
    pub fn of_request() -> HeadScan {
        HeadScan::new(Of::Request)
    }

    /// The scan of a response's head.
    pub fn of_response() -> HeadScan {
        HeadScan::new(Of::Response)
    }

    pub(super) fn of_trailers() -> HeadScan {
        HeadScan::new(Of::Trailers)
    }

    fn new(of: Of) -> HeadScan {
        HeadScan { of, seen: 0, line: 0, lines: 0 }
    }

    /// The length of the head with its final empty line, once that has arrived. `bytes` is all that was
    /// read of this head so far: what was given before, and more.
    ///
    /// # Errors
    /// A bare line feed, a first byte that cannot begin a head, or more than the limits allow.
    pub fn end(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Malformed> {
        let within = &bytes[..bytes.len().min(limits.header_bytes)];
        if self.lines == 0 {
            self.check_start(within)?;
        }
        while let Some(offset) = memchr::memchr(b'\n', within.get(self.seen..).unwrap_or_default()) {
            if self.end_line(within, self.seen + offset)? {
                return Ok(Some(self.seen));
            }
            self.check_fields(limits)?;
        }
        self.seen = within.len();
        if bytes.len() >= limits.header_bytes { Err(self.too_large()) } else { Ok(None) }
    }

    /// Bytes of another protocol are refused at once, not when the time-out of a head has passed.
    fn check_start(&self, within: &[u8]) -> Result<(), Malformed> {
        match within.get(self.line).is_none_or(|byte| is_token(*byte) || matches!(byte, b'\r' | b'\n')) {
            true => Ok(()),
            false => Err(self.bad_start()),
        }
    }

    fn bad_start(&self) -> Malformed {
        match self.of {
            Of::Request => Malformed::RequestLine,
            Of::Response => Malformed::StatusLine,
            Of::Trailers => Malformed::Field,
        }
    }

    /// Ends the line whose line feed is at `feed`; tells whether it was the final empty one.
    fn end_line(&mut self, within: &[u8], feed: usize) -> Result<bool, Malformed> {
        if feed == self.line || within[feed - 1] != b'\r' {
            return Err(Malformed::BareLineFeed);
        }
        let empty = feed - 1 == self.line;
        let before_request = empty && self.of == Of::Request && self.line == 0;
        self.seen = feed + 1;
        self.line = feed + 1;
        self.lines += usize::from(!before_request);
        if before_request {
            self.check_start(within)?;
        }
        Ok(empty && !before_request)
    }

    fn check_fields(&self, limits: &Limits) -> Result<(), Malformed> {
        let first_line = usize::from(self.of != Of::Trailers);
        if self.lines > first_line + limits.headers { Err(Malformed::TooManyFields) } else { Ok(()) }
    }

    fn too_large(&self) -> Malformed {
        if self.of == Of::Request && self.lines == 0 {
            Malformed::TargetTooLong
        } else {
            Malformed::HeadTooLarge
        }
    }
}
