//! What the kernel is asked for this process at its start: as many open files as it may have, and that its
//! memory, which holds the key and requests in clear, is never written to a file or read by its neighbours.

use rustix::io;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Prepares this process. What is refused is said, and no reason not to run.
pub fn prepare() {
    for (what, done) in [
        ("the limit of open files cannot be raised", raise_open_files()),
        ("core dumps cannot be forbidden", forbid_dumps()),
    ] {
        if let Err(error) = done {
            tracing::warn!(%error, "{what}");
        }
    }
}

/// The soft limit is there for programs that use select(2): a container often starts with 1024.
fn raise_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
}

/// No core file, also where cores are piped to a program, which no limit stops; and no ptrace or
/// /proc/PID/mem for a process of our user.
fn forbid_dumps() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::dumpable_behavior;

    #[test]
    fn all_files_that_it_may_open_and_no_core() {
        raise_open_files().expect("up to the hard limit anybody may");
        forbid_dumps().expect("less anybody may have");
        let files = getrlimit(Resource::Nofile);
        assert_eq!(files.current, files.maximum);
        assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
    }
}
