//! What may be written where a log level is asked for. `tracing` takes a word that is no level for the name of a
//! module, of which it would then log everything: a typing error would look like silence.

/// The levels, each also for a target (`gauze_proxy=debug`).
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Checks a filter: levels and `target=level`, separated by commas.
///
/// # Errors
/// A part has no level; the message says which, and what to write.
pub fn check(filter: &str) -> Result<(), String> {
    for part in filter.split(',').map(str::trim) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
            return Err(format!(
                "`{part}` is no level: write off, error, warn, info, debug or trace, alone or for a target as in gauze_proxy=debug"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_levels_alone_or_for_targets() {
        for filter in ["info", "DEBUG", "off", "warn,gauze_proxy::config=trace", "info, gauze_proxy=debug"] {
            assert_eq!(check(filter), Ok(()), "{filter}");
        }
        for (filter, part) in [
            ("loud", "`loud`"),
            ("gauze_proxy", "`gauze_proxy`"),
            ("info,gauze_proxy=loud", "`gauze_proxy=loud`"),
            ("info,", "``"),
            ("", "``"),
            ("gauze_proxy%3Ddebug", "`gauze_proxy%3Ddebug`"),
        ] {
            let error = check(filter).expect_err(filter);
            assert!(error.starts_with(part) && error.contains("debug or trace"), "{filter}: {error}");
        }
    }
}
