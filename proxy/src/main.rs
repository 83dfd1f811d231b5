//! The program `gauze-proxy`; all of it is in the library, so that `gauze demo` runs the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    gauze_proxy::command(std::env::args_os())
}
