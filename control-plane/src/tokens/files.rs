//! A token for each meshed pod, in a file of its own: what kubelet does for a pod in a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;
use tracing::{debug, warn};

use super::own::{LIFE, Tokens};
use crate::metrics::Metrics;
use crate::push::Push;
use crate::state::{self, StateDirectory, StateError};
use crate::workload::Workload;

const DIRECTORY: &str = "tokens";
/// How often the files are looked at, if nothing changes.
const CHECK: Duration = Duration::from_secs(60);

/// The token files of a directory: `tokens/<namespace>.<pod>`, one for each meshed pod, always good for
/// at least half of [`LIFE`].
pub struct TokenFiles {
    directory: PathBuf,
    /// When each was written.
    written: BTreeMap<Workload, SystemTime>,
}

impl TokenFiles {
    /// Begins with what an earlier process left.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(state: &StateDirectory) -> Result<TokenFiles, StateError> {
        Ok(TokenFiles { directory: state.subdirectory(DIRECTORY)?, written: BTreeMap::new() })
    }

    /// Makes the files be those of `workloads`. A file that cannot be written is logged and tried again next time.
    pub fn keep(&mut self, tokens: &Tokens, workloads: Vec<Workload>, now: SystemTime) {
        self.written.retain(|workload, at| {
            workloads.binary_search(workload).is_ok() && now < *at + LIFE / 2 && *at <= now
        });
        for workload in &workloads {
            if self.written.contains_key(workload) {
                continue;
            }
            match self.write(tokens, workload, now) {
                Ok(()) => drop(self.written.insert(workload.clone(), now)),
                Err(error) => warn!(namespace = workload.namespace, pod = workload.pod, %error, "no token"),
            }
        }
        self.remove_others(&workloads);
    }

    fn write(&self, tokens: &Tokens, workload: &Workload, now: SystemTime) -> anyhow::Result<()> {
        let name = file_name(workload)
            .ok_or_else(|| anyhow::anyhow!("its name is not one that Kubernetes would allow"))?;
        state::replace_file(&self.directory.join(&name), &tokens.sign(workload, now)?)?;
        debug!(file = name, "wrote a workload token");
        Ok(())
    }

    fn remove_others(&self, workloads: &[Workload]) {
        let wanted: BTreeSet<String> = workloads.iter().filter_map(file_name).collect();
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name.to_str().is_none_or(|name| !wanted.contains(name)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Keeps the files in step with the world for ever.
pub async fn keep(mut files: TokenFiles, tokens: Arc<Tokens>, push: Arc<Push>, metrics: Arc<Metrics>) {
    let mut changes = push.changes();
    loop {
        changes.mark_unchanged();
        let workloads = Workload::meshed(&push.world());
        metrics.workload_tokens.set(i64::try_from(workloads.len()).unwrap_or(i64::MAX));
        let tokens = Arc::clone(&tokens);
        // Thousands of signatures and files must not hold up the streams.
        let kept = tokio::task::spawn_blocking(move || {
            files.keep(&tokens, workloads, SystemTime::now());
            files
        });
        let Ok(kept) = kept.await else { return };
        files = kept;
        let _ = timeout(CHECK, changes.changed()).await;
    }
}

/// A namespace holds no dot, so the first dot is where the pod's name begins.
fn file_name(workload: &Workload) -> Option<String> {
    let is_name = |text: &str, dots: bool| {
        (1..=253).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (dots && b == b'.'))
            && !text.starts_with(['.', '-'])
    };
    let named = is_name(&workload.namespace, false) && is_name(&workload.pod, true);
    named.then(|| format!("{}.{}", workload.namespace, workload.pod))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::own::tests::{tokens, web};

    #[test]
    fn files_follow_the_pods_and_are_renewed_at_half_of_their_life() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path().join(".gauze")).unwrap();
        let (tokens, mut files) = (tokens(), TokenFiles::open(&state).unwrap());
        let read = || fs::read_to_string(state.path("tokens/shop.web-0")).ok();
        let start = SystemTime::now();

        files.keep(&tokens, vec![web()], start);
        let first = read().unwrap();
        files.keep(&tokens, vec![web()], start + LIFE / 4);
        assert_eq!(read().as_ref(), Some(&first), "still young");
        files.keep(&tokens, vec![web()], start + LIFE / 2);
        assert_ne!(read(), Some(first), "renewed");
        files.keep(&tokens, vec![], start + LIFE / 2);
        assert_eq!(read(), None, "removed with its pod");
    }

    #[test]
    fn a_pod_cannot_choose_a_path() {
        for (namespace, pod) in [("shop", "../../x"), ("..", "x"), ("a.b", "c"), ("shop", ".x"), ("", "x")] {
            let workload = Workload { namespace: namespace.to_owned(), pod: pod.to_owned(), ..web() };
            assert_eq!(file_name(&workload), None, "{namespace} {pod}");
        }
    }
}
