//! What `gauze check` says: sections of lines for people, one list for programs.

use std::fmt::Write;
use std::time::Duration;

use gauze_model::Code;
use serde_json::{Value, json};

use crate::terminal::Style;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    Fine,
    /// Worth knowing; nothing is wrong.
    Note,
    Warning,
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) severity: Severity,
    pub(crate) code: Option<Code>,
    pub(crate) what: String,
    /// Which pods, namespaces, fields; one a line.
    pub(crate) details: Vec<String>,
    /// A command, or what to change.
    pub(crate) fix: Option<String>,
}

/// Lines on one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    title: &'static str,
    pub(crate) lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) sections: Vec<Section>,
}

/// Details that are shown to people; of more it is said how many.
const DETAILS_MAX: usize = 8;
/// Before what belongs to a finding.
const INDENT: &str = "           ";

impl Line {
    pub(crate) fn fine(what: impl Into<String>) -> Line {
        Line { severity: Severity::Fine, code: None, what: what.into(), details: Vec::new(), fix: None }
    }

    pub(crate) fn note(what: impl Into<String>) -> Line {
        Line { severity: Severity::Note, ..Line::fine(what) }
    }

    pub(crate) fn warning(code: Code, what: impl Into<String>) -> Line {
        Line { severity: Severity::Warning, code: Some(code), ..Line::fine(what) }
    }

    pub(crate) fn error(code: Code, what: impl Into<String>) -> Line {
        Line { severity: Severity::Error, code: Some(code), ..Line::fine(what) }
    }

    pub(crate) fn with(self, details: Vec<String>) -> Line {
        Line { details, ..self }
    }

    pub(crate) fn fix(self, fix: impl Into<String>) -> Line {
        Line { fix: Some(fix.into()), ..self }
    }

    fn write(&self, page: &mut String, style: Style) {
        let mark = match self.severity {
            Severity::Fine => style.green("✔"),
            Severity::Note => style.dim("·"),
            Severity::Warning => style.yellow("▲"),
            Severity::Error => style.red("✖"),
        };
        let code = self.code.map_or_else(String::new, |code| format!("{}  ", style.bold(&code.to_string())));
        let _ = writeln!(page, "  {mark} {code}{}", self.what);
        for detail in self.details.iter().take(DETAILS_MAX) {
            let _ = writeln!(page, "{INDENT}{detail}");
        }
        if self.details.len() > DETAILS_MAX {
            let _ =
                writeln!(page, "{INDENT}and {} more (-o json lists all)", self.details.len() - DETAILS_MAX);
        }
        if let Some(fix) = &self.fix {
            let _ = writeln!(page, "{INDENT}fix:  {fix}");
        }
        if let Some(code) = self.code {
            let _ = writeln!(page, "{INDENT}{}", style.dim(&format!("more: gauze docs {code}")));
        }
    }
}

impl Section {
    pub(crate) fn new(title: &'static str) -> Section {
        Section { title, lines: Vec::new() }
    }

    pub(crate) fn extend(&mut self, lines: impl IntoIterator<Item = Line>) {
        self.lines.extend(lines);
    }
}

impl Report {
    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.sections.iter().flat_map(|section| &section.lines)
    }

    fn count(&self, severity: Severity) -> usize {
        self.lines().filter(|line| line.severity == severity).count()
    }

    pub(crate) fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// For people.
    pub(crate) fn page(&self, took: Duration, style: Style) -> String {
        let mut page = String::new();
        for section in self.sections.iter().filter(|section| !section.lines.is_empty()) {
            let _ = writeln!(page, "{}", style.bold(section.title));
            section.lines.iter().for_each(|line| line.write(&mut page, style));
        }
        let (errors, warnings) = (self.errors(), self.count(Severity::Warning));
        let seconds = took.as_secs_f64();
        let _ = match errors + warnings {
            0 => writeln!(page, "\neverything is fine, looked at in {seconds:.1} s"),
            all => writeln!(
                page,
                "\n{} ({}, {}) in {seconds:.1} s",
                counted(all, "finding"),
                counted(errors, "error"),
                counted(warnings, "warning")
            ),
        };
        page
    }

    /// For programs.
    pub(crate) fn to_json(&self) -> Value {
        let line = |section: &Section, line: &Line| {
            json!({
                "section": section.title,
                "severity": line.severity.name(),
                "code": line.code.map(|code| code.to_string()),
                "what": line.what,
                "details": line.details,
                "fix": line.fix,
            })
        };
        let lines = self
            .sections
            .iter()
            .flat_map(|section| section.lines.iter().map(move |found| line(section, found)));
        json!({
            "errors": self.errors(),
            "warnings": self.count(Severity::Warning),
            "lines": lines.collect::<Vec<_>>(),
        })
    }
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Fine => "fine",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// `1 pod`, `2 pods`.
pub(crate) fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_code_what_which_and_how_to_fix_it() {
        let mut section = Section::new("data plane");
        let pods = (0..10).map(|number| format!("shop/web-{number}")).collect();
        section.extend([
            Line::fine("2/2 sidecars connected"),
            Line::error(Code::SIDECAR_MISSING, "10 pods have no sidecar")
                .with(pods)
                .fix("kubectl rollout restart"),
        ]);
        let report = Report { sections: vec![Section::new("cluster"), section] };
        let page = report.page(Duration::from_millis(840), Style::PLAIN);
        let expected = "data plane
  ✔ 2/2 sidecars connected
  ✖ M2101  10 pods have no sidecar
           shop/web-0
           shop/web-1
           shop/web-2
           shop/web-3
           shop/web-4
           shop/web-5
           shop/web-6
           shop/web-7
           and 2 more (-o json lists all)
           fix:  kubectl rollout restart
           more: gauze docs M2101

1 finding (1 error, 0 warnings) in 0.8 s
";
        assert_eq!(page, expected);
        let json = report.to_json();
        assert_eq!((&json["errors"], &json["lines"][1]["code"]), (&json!(1), &json!("M2101")));
        assert_eq!(json["lines"][1]["details"].as_array().map(Vec::len), Some(10));
    }
}
