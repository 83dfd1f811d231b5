//! The register of problem codes: one table for responses, logs, metrics, statuses and `gauze docs`.
//! Families: M1 control plane, M2 injection, M3 data path, M4 identity and policy, M5 routes and splits.
//! A code never changes its meaning and is never used again; the rows are in `codes/table.rs`.

use std::fmt;
use std::str::FromStr;

mod table;

/// A problem that gauze reports, by its stable code: `M3001`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u16);

/// What `gauze docs CODE` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The code itself.
    pub code: Code,
    /// Half a sentence, without the particulars.
    pub title: &'static str,
    /// What happened, in whole sentences.
    pub cause: &'static str,
    /// What to do about it, in whole sentences.
    pub remedy: &'static str,
    /// Envoy's response flag in the access log (`UH`, `NR` …); empty where Envoy has none for it.
    pub flag: &'static str,
    /// The HTTP status of a refusal; 0 where no request is answered.
    pub status: u16,
    /// The gRPC status of a refusal on a gRPC call, mostly as Envoy maps `status`; 0 where no request is answered.
    pub grpc: u8,
}

/// A string that is no code of the register.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a problem code; they look like M3001, and `gauze docs` lists them all")]
pub struct UnknownCode(pub String);

impl Code {
    /// What the register says about this code; `None` if it was never given out.
    pub fn entry(self) -> Option<&'static Entry> {
        let at = table::ENTRIES.binary_search_by_key(&self, |entry| entry.code).ok()?;
        Some(&table::ENTRIES[at])
    }

    /// The whole register, by rising code.
    pub fn all() -> &'static [Entry] {
        table::ENTRIES
    }
}

/// Envoy's mapping of an HTTP status to the gRPC status of a local reply (`Grpc::Utility::httpToGrpcStatus`).
pub const fn grpc_status(http: u16) -> u8 {
    match http {
        400 => 13,                   // INTERNAL
        401 => 16,                   // UNAUTHENTICATED
        403 => 7,                    // PERMISSION_DENIED
        404 => 12,                   // UNIMPLEMENTED
        429 | 502 | 503 | 504 => 14, // UNAVAILABLE
        _ => 2,                      // UNKNOWN
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "M{}", self.0)
    }
}

impl FromStr for Code {
    type Err = UnknownCode;

    /// Reads `M3001`, also in lower case, if it stands in the register.
    fn from_str(text: &str) -> Result<Code, UnknownCode> {
        let number = text.get(1..).and_then(|digits| digits.parse().ok());
        let entry = number.and_then(|number| Code(number).entry());
        let code = entry.map(|entry| entry.code).filter(|code| code.to_string().eq_ignore_ascii_case(text));
        code.ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_rise_and_belong_to_a_family() {
        assert!(Code::all().windows(2).all(|pair| pair[0].code < pair[1].code));
        assert!(Code::all().iter().all(|entry| (1000..6000).contains(&entry.code.0)));
    }

    #[test]
    fn every_code_reads_back_as_it_was_written_and_leads_to_its_entry() {
        for entry in Code::all() {
            assert_eq!(entry.code.to_string().parse(), Ok(entry.code));
            assert_eq!(entry.code.to_string().to_lowercase().parse(), Ok(entry.code));
            assert_eq!(entry.code.entry(), Some(entry));
        }
    }

    #[test]
    fn what_is_no_code_is_refused_and_named() {
        for text in ["", "M", "3001", "M1", "M9999", "M99999", "MM3001", "M+3001"] {
            assert_eq!(text.parse::<Code>(), Err(UnknownCode(text.to_owned())));
        }
    }

    #[test]
    fn titles_are_half_a_sentence_and_texts_are_whole_ones() {
        for Entry { code, title, cause, remedy, .. } in Code::all() {
            assert!(
                title.starts_with(|c: char| c.is_uppercase()) && !title.ends_with('.'),
                "{code}: {title}"
            );
            for text in [cause, remedy] {
                assert!(text.starts_with(|c: char| c.is_uppercase() || c == '`'), "{code}: {text}");
                assert!(text.ends_with('.') && !text.contains("  "), "{code}: {text}");
            }
        }
    }

    #[test]
    fn titles_are_unique() {
        let titles: std::collections::BTreeSet<_> = Code::all().iter().map(|entry| entry.title).collect();
        assert_eq!(titles.len(), Code::all().len());
    }

    #[test]
    fn only_the_data_path_answers_requests_and_with_known_flags() {
        let flags = ["", "DPE", "NC", "NR", "SI", "UAEX", "UC", "UF", "UH", "UO", "UPE", "UR", "UT"];
        for entry in Code::all() {
            let answers = entry.status != 0 || !entry.flag.is_empty();
            assert!(!answers || matches!(entry.code.0 / 1000, 3 | 4), "{}", entry.code);
            assert!(entry.status == 0 || (400..600).contains(&entry.status), "{}", entry.code);
            assert!(flags.contains(&entry.flag), "{}: {}", entry.code, entry.flag);
            assert_eq!(entry.grpc == 0, entry.status == 0, "{}", entry.code);
        }
    }
}
