//! Regular expressions of rules, compiled once, whose costs are bounded: the syntax is RE2's, matching
//! takes time linear in the value, and configuration cannot ask for more memory than the limits here.

use regex::{Regex, RegexBuilder};

/// A regular expression for the whole of a value; compared by its text.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// Largest compiled size of a pattern, in bytes.
const COMPILED_MAX: usize = 64 * 1024;

/// Largest cache that matching may build for a pattern, in bytes. A pattern that needs more is slower.
const CACHE_MAX: usize = 256 * 1024;

impl Pattern {
    /// Compiles `text`, anchored at both ends.
    ///
    /// # Errors
    /// The text is no regular expression, or compiles to more than 64 KiB.
    pub fn new(text: &str) -> Result<Pattern, regex::Error> {
        // Compiled alone first: `a)(b` must not become valid by what is put around it.
        compile(text)?;
        compile(&format!("^(?:{text})$")).map(Pattern)
    }

    /// Whether the whole of `value` is as the pattern says.
    pub fn is_match(&self, value: &str) -> bool {
        self.0.is_match(value)
    }

    /// The text that it was made from.
    pub fn text(&self) -> &str {
        let whole = self.0.as_str();
        &whole["^(?:".len()..whole.len() - ")$".len()]
    }
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(COMPILED_MAX).dfa_size_limit(CACHE_MAX).build()
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}
