//! What differs between a cluster and a directory: where objects, root and tokens come from, and what
//! is done beside serving. How proxies are served does not.

mod directory;
mod kubernetes;

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::authority::Authority;
use crate::metrics::Metrics;
use crate::port::{AmongReplicas, OwnCertificate};
use crate::push::Push;
use crate::readiness::{Readiness, Unready};
use crate::settings::Settings;
use crate::source::Update;
use crate::tokens::TokenCheck;

pub(crate) use kubernetes::Kubernetes;

/// What every part may look at.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) push: Arc<Push>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: Arc<Readiness>,
}

pub(crate) enum Mode {
    /// All is read already.
    Directory(Box<Prepared>),
    Kubernetes(Box<Kubernetes>),
}

/// All that serving needs.
pub(crate) struct Prepared {
    pub(crate) authority: Arc<Authority>,
    pub(crate) tokens: TokenCheck,
    /// The TLS port's own leaf.
    pub(crate) own: Arc<OwnCertificate>,
    /// What other replicas are told; a directory has none.
    pub(crate) replicas: Option<AmongReplicas>,
    /// What changes from now on.
    pub(crate) updates: mpsc::Receiver<Update>,
    /// What goes on beside serving, until the process ends.
    pub(crate) tasks: JoinSet<()>,
    /// What ends by itself when the process stops, after a last word.
    pub(crate) last: JoinSet<()>,
}

impl Mode {
    /// Begins with what needs no API server.
    ///
    /// # Errors
    /// The settings cannot be used.
    pub(crate) async fn start(shared: &Shared) -> anyhow::Result<Mode> {
        Ok(match &shared.settings.directory {
            Some(directory) => Mode::Directory(Box::new(directory::prepare(directory, shared).await?)),
            None => Mode::Kubernetes(Box::new(Kubernetes::start(shared).await?)),
        })
    }

    /// Waits until all objects are read and the root is at hand. `port` is where we, and so all replicas, serve.
    ///
    /// # Errors
    /// There will never be a root.
    pub(crate) async fn prepare(self, shared: &Shared, port: u16) -> anyhow::Result<Prepared> {
        match self {
            Mode::Directory(prepared) => Ok(*prepared),
            Mode::Kubernetes(kubernetes) => kubernetes.prepare(shared, port).await,
        }
    }
}

/// Reads everything once: nothing is served before what does not exist is known.
async fn read_all(
    mut updates: mpsc::Receiver<Update>,
    shared: &Shared,
) -> anyhow::Result<mpsc::Receiver<Update>> {
    let started = Instant::now();
    while !shared.push.world().is_synced() {
        let update = updates.recv().await.context("no objects can be read")?;
        shared.push.update(vec![update], Instant::now());
    }
    shared.readiness.set(Unready::NotSynced, false);
    tracing::info!(took = ?started.elapsed(), "read all objects");
    Ok(updates)
}
