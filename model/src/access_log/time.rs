//! Dates in UTC: RFC 3339, and the parts of `strftime` that Envoy's `%START_TIME(…)%` is used with.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A date in a form of the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeFormat(Vec<TimePart>);

/// A part of a date.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TimePart {
    /// As it is.
    Text(String),
    /// `%Y`
    Year,
    /// `%m`
    Month,
    /// `%b`, `Nov`
    MonthName,
    /// `%d`
    Day,
    /// `%H`
    Hour,
    /// `%M`
    Minute,
    /// `%S`
    Second,
    /// `%s`, since 1970
    Timestamp,
    /// `%3f`: so many digits of the fraction of the second; `%f` has nine
    Fraction(u8),
    /// `%z`, always `+0000`
    Offset,
    /// `%Z`, always `UTC`
    Zone,
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl TimeFormat {
    /// Reads a format of `strftime`.
    ///
    /// # Errors
    /// A letter after `%` is not one of those that are known.
    pub fn read(format: &str) -> Result<TimeFormat, String> {
        let mut parts = Vec::new();
        let mut rest = format;
        while let Some((before, after)) = rest.split_once('%') {
            push_text(&mut parts, before);
            let mut letters = after.chars();
            match letters.next() {
                Some('Y') => parts.push(TimePart::Year),
                Some('m') => parts.push(TimePart::Month),
                Some('b') => parts.push(TimePart::MonthName),
                Some('d') => parts.push(TimePart::Day),
                Some('H') => parts.push(TimePart::Hour),
                Some('M') => parts.push(TimePart::Minute),
                Some('S') => parts.push(TimePart::Second),
                Some('s') => parts.push(TimePart::Timestamp),
                Some('z') => parts.push(TimePart::Offset),
                Some('Z') => parts.push(TimePart::Zone),
                Some('f') => parts.push(TimePart::Fraction(9)),
                Some('F') => parts.extend(TimeFormat::read("%Y-%m-%d")?.0),
                Some('T') => parts.extend(TimeFormat::read("%H:%M:%S")?.0),
                Some('%') => push_text(&mut parts, "%"),
                Some(digit @ '1'..='9') if letters.clone().next() == Some('f') => {
                    letters.next();
                    parts.push(TimePart::Fraction(digit as u8 - b'0'));
                }
                _ => {
                    return Err(format!(
                        "%START_TIME({format})%: after % write Y m b d H M S s z Z F T f, 1f to 9f or %"
                    ));
                }
            }
            rest = letters.as_str();
        }
        push_text(&mut parts, rest);
        Ok(TimeFormat(parts))
    }

    /// Writes a time.
    pub fn write(&self, time: SystemTime) -> String {
        let moment = Moment::of(time);
        let mut out = String::with_capacity(32);
        for part in &self.0 {
            moment.write(&mut out, part).expect("a String takes all");
        }
        out
    }
}

fn push_text(parts: &mut Vec<TimePart>, text: &str) {
    match parts.last_mut() {
        Some(TimePart::Text(last)) => last.push_str(text),
        _ if text.is_empty() => {}
        _ => parts.push(TimePart::Text(text.to_owned())),
    }
}

/// A time, taken apart.
struct Moment {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    /// Since 1970.
    since: Duration,
}

impl Moment {
    fn of(time: SystemTime) -> Moment {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (year, month, day) = date(since.as_secs() / 86_400);
        let second = since.as_secs() % 86_400;
        Moment { year, month, day, hour: second / 3600, minute: second / 60 % 60, second: second % 60, since }
    }

    fn write(&self, out: &mut String, part: &TimePart) -> std::fmt::Result {
        let Moment { year, month, day, hour, minute, second, since } = self;
        match part {
            TimePart::Text(text) => out.write_str(text),
            TimePart::Year => write!(out, "{year:04}"),
            TimePart::Month => write!(out, "{month:02}"),
            TimePart::MonthName => out.write_str(MONTHS[*month as usize - 1]),
            TimePart::Day => write!(out, "{day:02}"),
            TimePart::Hour => write!(out, "{hour:02}"),
            TimePart::Minute => write!(out, "{minute:02}"),
            TimePart::Second => write!(out, "{second:02}"),
            TimePart::Timestamp => write!(out, "{}", since.as_secs()),
            TimePart::Fraction(digits) => {
                let nanoseconds = format!("{:09}", since.subsec_nanos());
                out.write_str(&nanoseconds[..usize::from(*digits)])
            }
            TimePart::Offset => out.write_str("+0000"),
            TimePart::Zone => out.write_str("UTC"),
        }
    }
}

/// RFC 3339 in UTC, with milliseconds.
pub fn timestamp(time: SystemTime) -> String {
    let Moment { year, month, day, hour, minute, second, since } = Moment::of(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// The date of a day since 1970 (Hinnant, "chrono-Compatible Low-Level Date Algorithms", for years from 1970 on).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}
