//! Whether anybody is looking, and colours for those who are.

use std::io::IsTerminal;

/// How text is made to stand out on one output: with colours, or not at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    colours: bool,
}

/// The style of stdout.
pub(crate) fn output() -> Style {
    Style { colours: wants_colours(std::io::stdout().is_terminal()) }
}

/// The style of stderr.
pub(crate) fn errors() -> Style {
    Style { colours: wants_colours(std::io::stderr().is_terminal()) }
}

/// <https://no-color.org> and `CLICOLOR_FORCE`; a dumb terminal has none.
fn wants_colours(is_terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if set("NO_COLOR") {
        return false;
    }
    set("CLICOLOR_FORCE") || (is_terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb"))
}

impl Style {
    /// No colours at all.
    #[cfg(test)]
    pub(crate) const PLAIN: Style = Style { colours: false };

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
