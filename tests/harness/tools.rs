//! The programs of others that the tests against Kubernetes need: where they are, and what to do without them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::programs::repository;

/// Folders with kube-apiserver, etcd, kubectl, helm and so on, to be put before the `PATH`.
pub(crate) struct Tools {
    path: String,
}

impl Tools {
    /// Those that are found, if all that these names say are among them. envtest's come first, if
    /// `KUBEBUILDER_ASSETS` names them; what they lack is ours, built by `tests/rig/programs`.
    ///
    /// # Panics
    /// In CI, if one is missing. Elsewhere that is a printed skip, `None`.
    pub(crate) fn find(names: &[&str]) -> Option<Tools> {
        let path = folders().join(":");
        let missing: Vec<&&str> = names.iter().filter(|name| !is_in(&path, name)).collect();
        if missing.is_empty() {
            return Some(Tools { path });
        }
        skip(&format!(
            "{missing:?} not found: `tests/rig/programs` builds our own, tests/README.md names other ways"
        ))
    }

    /// Where one of those lies that were asked for.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        let mut found = self.path.split(':').map(|folder| Path::new(folder).join(name));
        found.find(|path| path.exists()).unwrap_or_else(|| panic!("{name} was not asked for"))
    }

    /// A command that finds these programs.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("PATH", &self.path).env_remove("KUBECONFIG");
        command
    }
}

/// Says why a test does not run.
///
/// # Panics
/// In CI, where nothing may be skipped.
pub(crate) fn skip<T>(reason: &str) -> Option<T> {
    assert!(env::var("CI").as_deref() != Ok("true"), "{reason}");
    println!("skipped: {reason}");
    None
}

/// Where programs are looked for, in this order.
pub(crate) fn folders() -> Vec<String> {
    let given = env::var("KUBEBUILDER_ASSETS").ok();
    let found = Command::new(repository().join("tests/rig/programs"))
        .arg("--find")
        .stderr(Stdio::null())
        .output()
        .expect("tests/rig/programs runs");
    let built = String::from_utf8(found.stdout).expect("paths are text");
    let built = built.lines().map(ToOwned::to_owned);
    given.into_iter().chain(built).chain(env::var("PATH").ok()).collect()
}

fn is_in(path: &str, name: &str) -> bool {
    path.split(':').any(|folder| Path::new(folder).join(name).exists())
}
