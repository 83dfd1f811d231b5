//! The programs under test, built once per test run, in the profile of the tests themselves.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of a program of this workspace, built and up to date.
pub(crate) fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(build).join(name)
}

/// The path of an example of this workspace, likewise.
pub(crate) fn example(name: &str) -> PathBuf {
    program("examples").join(name)
}

/// `cargo test` builds no programs of other packages, so this does; it takes a moment when all is fresh.
fn build() -> PathBuf {
    let executable = std::env::current_exe().expect("a test has an executable");
    let folder = executable.ancestors().nth(2).expect("target/PROFILE/deps/NAME").to_owned();
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => unreachable!("{} has a name", folder.display()),
    };
    let status = Command::new(env!("CARGO"))
        .args(["build", "--workspace", "--bins", "--examples", "--locked", "--quiet", "--profile", profile])
        .current_dir(repository())
        .env("CARGO_TARGET_DIR", folder.parent().expect("target/PROFILE"))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the programs do not build");
    folder
}

/// The root of the checkout.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the checkout")
}
