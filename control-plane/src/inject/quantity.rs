//! Amounts of CPU and memory as Kubernetes writes them (`resource.Quantity`): read to be checked and compared;
//! what is written into the pod stays the user's own text.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// An amount that is not negative, with its text: `10m`, `64Mi`, `1.5`, `2e3`.
#[derive(Clone, Debug)]
pub struct Quantity {
    text: String,
    /// In units of 10^-9.
    nanos: u128,
}

/// Text that is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no amount; write for example 100m, 0.5, 64Mi or 1Gi")]
pub struct NotAQuantity(String);

const NANO: u128 = 1_000_000_000;
/// Digits that are read; Kubernetes itself rounds up beyond nano and caps at 2^63 - 1.
const DIGITS_MAX: usize = 18;

impl FromStr for Quantity {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Quantity, NotAQuantity> {
        let nanos = nanos(text).ok_or_else(|| NotAQuantity(text.to_owned()))?;
        Ok(Quantity { text: text.to_owned(), nanos })
    }
}

fn nanos(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = whole.len() + fraction.len();
    if !(1..=DIGITS_MAX).contains(&digits) || fraction.contains('.') {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let unit = unit(suffix)?;
    Some(digits.checked_mul(unit)? / 10u128.pow(u32::try_from(fraction.len()).ok()?))
}

/// One of this unit, in units of 10^-9.
fn unit(suffix: &str) -> Option<u128> {
    let binary = |power: u32| Some(NANO << (10 * power));
    let decimal = |power: i32| Some(10u128.pow(u32::try_from(9 + power).ok()?));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        _ => {
            let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (-9..=15).contains(&power).then(|| decimal(power))?
        }
    }
}

impl Quantity {
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// By amount: `1000m` equals `1`.
impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn amounts_are_compared_by_what_they_mean() {
        for (one, order, other) in [
            ("1000m", Ordering::Equal, "1"),
            ("1.5", Ordering::Equal, "1500m"),
            ("1Ki", Ordering::Equal, "1024"),
            ("1e3", Ordering::Equal, "1k"),
            ("5e-1", Ordering::Equal, "0.5"),
            ("32Mi", Ordering::Less, "256Mi"),
            ("1G", Ordering::Less, "1Gi"),
            ("100m", Ordering::Less, "0.2"),
            ("0", Ordering::Less, "1n"),
            (".5", Ordering::Equal, "500m"),
        ] {
            assert_eq!(quantity(one).cmp(&quantity(other)), order, "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_and_named() {
        for text in
            ["", "m", "64mb", "-1", "+1", "1.2.3", "1 Gi", "e3", "1e99", "1234567890123456789", "١", "10%"]
        {
            assert_eq!(text.parse::<Quantity>().unwrap_err(), NotAQuantity(text.to_owned()), "{text}");
        }
    }
}
