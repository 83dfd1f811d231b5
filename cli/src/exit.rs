//! Exit codes, so that scripts can tell a finding from a failure.

use std::fmt;
use std::process::ExitCode;

use crate::terminal;

/// How a command ended that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Fine,
    /// It did its work and found problems, which it has printed.
    Problems,
}

/// An error with an exit code of its own; any other error exits with 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// What was asked cannot be: exit code 2, as for wrong flags.
    Usage(String),
    /// Nobody answers: exit code 3.
    Unreachable(String),
    /// It did not happen in time: exit code 4.
    TimedOut(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Unreachable(text) | Failure::TimedOut(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

/// Prints what went wrong, if anything, and says how to exit.
pub(crate) fn report(outcome: anyhow::Result<Exit>) -> ExitCode {
    if let Err(error) = &outcome {
        eprintln!("{} {error:#}", terminal::errors().red("error:"));
    }
    ExitCode::from(code(&outcome))
}

fn code(outcome: &anyhow::Result<Exit>) -> u8 {
    match outcome {
        Ok(Exit::Fine) => 0,
        Ok(Exit::Problems) => 1,
        Err(error) => match error.downcast_ref::<Failure>() {
            Some(Failure::Usage(_)) => 2,
            Some(Failure::Unreachable(_)) => 3,
            Some(Failure::TimedOut(_)) => 4,
            None => 1,
        },
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn each_way_to_end_has_its_exit_code() {
        let failed = |failure: Failure| Err(anyhow::Error::new(failure));
        for (outcome, expected) in [
            (Ok(Exit::Fine), 0),
            (Ok(Exit::Problems), 1),
            (Err(anyhow::anyhow!("anything else")), 1),
            (failed(Failure::Usage("no such pod".into())), 2),
            (failed(Failure::Unreachable("nobody listens".into())), 3),
            (failed(Failure::TimedOut("30 s".into())), 4),
            (failed(Failure::Unreachable("nobody listens".into())).context("asking the control plane"), 3),
        ] {
            assert_eq!(code(&outcome), expected, "{outcome:?}");
        }
    }
}
