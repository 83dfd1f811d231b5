//! How much time a request has, over all its hops. A gRPC call brings its deadline with it
//! (`grpc-timeout`), a route may set one; the earlier counts, and the next hop is told what is left of it.
//!
//! The clock is the caller's: all here are durations.

use std::time::Duration;

/// What ends a try that got no response in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The request as a whole: no further try can help.
    Request,
    /// This try (Envoy `per_try_timeout`): another may follow.
    Try,
}

/// Reads `grpc-timeout` (gRPC over HTTP/2, "Timeout"): one to eight digits and a unit. `None`: it is no
/// timeout, which is for the server to object to.
pub fn read_grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0, |amount, digit| amount * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Writes `grpc-timeout` as finely as eight digits allow, never longer than `left`: the next hop must not
/// wait for longer than we do. At least a microsecond, since some servers object to none.
pub fn write_grpc_timeout(left: Duration) -> String {
    const DIGITS: u128 = 100_000_000;
    let micros = left.as_micros().max(1);
    for (unit, per_unit) in [('u', 1), ('m', 1_000), ('S', 1_000_000), ('M', 60_000_000)] {
        if micros / per_unit < DIGITS {
            return format!("{}{unit}", micros / per_unit);
        }
    }
    format!("{}H", (micros / 3_600_000_000).min(DIGITS - 1))
}

/// How long a request may take in all: the shorter of what its route says and what it brings with it.
pub fn total(route: Option<Duration>, grpc: Option<Duration>) -> Option<Duration> {
    route.into_iter().chain(grpc).min()
}

/// When a try that begins now ends at the latest, and what ends it then; `None`: nothing does.
pub fn of_try(left: Option<Duration>, per_try: Option<Duration>) -> Option<(Duration, Expiry)> {
    let (left, per_try) = (left.map(|left| (left, Expiry::Request)), per_try.map(|of| (of, Expiry::Try)));
    left.into_iter().chain(per_try).min_by_key(|(after, _)| *after)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn a_grpc_timeout_is_digits_and_a_unit() {
        for (text, wanted) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("250u", Some(Duration::from_micros(250))),
            ("0n", Some(Duration::ZERO)),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("100000000m", None),
            ("m", None),
            ("", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("5 S", None),
        ] {
            assert_eq!(read_grpc_timeout(text.as_bytes()), wanted, "{text:?}");
        }
    }

    #[test]
    fn what_is_left_is_told_finely_and_never_longer() {
        for (left, wanted) in [
            (Duration::from_nanos(1_999_999), "1999u"),
            (Duration::from_secs(99), "99000000u"),
            (Duration::from_millis(100_001), "100001m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(100_000_000), "1666666M"),
            (Duration::from_secs(100_000_000 * 60), "1666666H"),
            (Duration::ZERO, "1u"),
            (Duration::MAX, "99999999H"),
        ] {
            let text = write_grpc_timeout(left);
            assert_eq!(text, wanted);
            let read = read_grpc_timeout(text.as_bytes()).unwrap();
            assert!(read <= left.max(Duration::from_micros(1)), "{text} is longer than {left:?}");
        }
    }

    #[test]
    fn the_shorter_limit_counts() {
        assert_eq!(total(None, None), None);
        assert_eq!(total(Some(2 * MILLI), Some(MILLI)), Some(MILLI));
        assert_eq!(total(None, Some(MILLI)), Some(MILLI));
        assert_eq!(of_try(None, None), None);
        assert_eq!(of_try(Some(MILLI), Some(2 * MILLI)), Some((MILLI, Expiry::Request)));
        assert_eq!(of_try(Some(3 * MILLI), Some(2 * MILLI)), Some((2 * MILLI, Expiry::Try)));
        assert_eq!(of_try(Some(MILLI), Some(MILLI)), Some((MILLI, Expiry::Request)), "no try would follow");
    }
}
