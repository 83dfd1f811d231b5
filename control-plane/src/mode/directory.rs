//! A directory of YAML, on one machine: root and token keys lie in its state directory.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use tokio::task::JoinSet;

use super::{Prepared, Shared, read_all};
use crate::authority::Authority;
use crate::own_identity;
use crate::port::OwnCertificate;
use crate::readiness::Unready;
use crate::source;
use crate::state::StateDirectory;
use crate::tokens::{self, TokenCheck, TokenFiles, Tokens};
use crate::workload::Workload;

pub(super) async fn prepare(directory: &Path, shared: &Shared) -> anyhow::Result<Prepared> {
    let Shared { settings, push, metrics, readiness } = shared;
    let state = StateDirectory::open(settings.state_directory())?;
    let authority =
        Authority::open(&state, &settings.trust_domain, settings.certificate_life, SystemTime::now())?;
    let authority = Arc::new(authority);
    let own =
        OwnCertificate::issue(Arc::clone(&authority), own_identity(settings).into(), Arc::clone(metrics))?;
    readiness.set(Unready::NoRoot, false);

    let tokens = Arc::new(Tokens::open(&state)?);
    let watched = source::directory::watch(directory)
        .with_context(|| format!("cannot watch {}", directory.display()))?;
    let updates = read_all(watched, shared).await?;
    // Before anybody is told where to connect: a proxy needs its token first of all.
    let mut token_files = TokenFiles::open(&state)?;
    token_files.keep(&tokens, Workload::meshed(&push.world()), SystemTime::now());

    let mut tasks = JoinSet::new();
    tasks.spawn(tokens::keep(token_files, Arc::clone(&tokens), Arc::clone(push), Arc::clone(metrics)));
    let tokens = TokenCheck::Own(tokens);
    Ok(Prepared { authority, tokens, own, replicas: None, updates, tasks, last: JoinSet::new() })
}
