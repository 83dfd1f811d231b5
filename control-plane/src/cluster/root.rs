//! The root of the mesh in a cluster: one Secret (kubernetes.io/tls), made once by the leader, read and used by
//! every replica. It is made immutable by server-side apply, so that of two who make it at once, whoever
//! they believe to be, the API server refuses the second; what counts is what is read back.

use std::time::{Duration, SystemTime};

use gauze_model::Code;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{Cluster, MANAGER, reason};
use crate::authority::{Authority, RootPem, RootProblem};
use crate::settings::Settings;

/// The keys of a Secret of type `kubernetes.io/tls`.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// How long to wait before the Secret is looked at again, while there is no root.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is looked at when there is one.
const CHECK: Duration = Duration::from_secs(10);
/// How long the API server may take for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the root lies, and what may be done about it.
#[derive(Clone)]
pub(crate) struct RootSecret {
    api: Api<Secret>,
    namespace: String,
    name: String,
    /// Somebody else makes it (`--root-secret-exists`).
    exists: bool,
    trust_domain: String,
    life: Duration,
}

/// Why there is no root yet. Each names what to do, since the replica waits until it is done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoot {
    #[error("{code}: Secret {0} does not exist, and --root-secret-exists says that gauze does not make it: create it (kubernetes.io/tls, with {CERTIFICATE} and {KEY})", code = Code::ROOT_SECRET_MISSING)]
    Missing(String),
    #[error("{code}: Secret {0} does not exist yet; the leading replica makes it", code = Code::ROOT_SECRET_MISSING)]
    NotMadeYet(String),
    #[error("{code}: Secret {secret} cannot be {doing}: {problem}", code = Code::ROOT_SECRET_MISSING)]
    Unreachable { secret: String, doing: &'static str, problem: String },
    #[error("{code}: Secret {secret} has no `{key}`: correct it, or restore it from a backup", code = Code::ROOT_SECRET_UNUSABLE)]
    NoSuchKey { secret: String, key: &'static str },
    #[error("{code}: Secret {secret} cannot be used ({CERTIFICATE}, {KEY}): {problem}; correct it, or restore it from a backup", code = Code::ROOT_SECRET_UNUSABLE)]
    Unusable { secret: String, problem: RootProblem },
    #[error("cannot make a root: {0}")]
    Making(String),
}

impl RootSecret {
    pub(crate) fn new(cluster: &Cluster, settings: &Settings) -> RootSecret {
        RootSecret {
            api: Api::namespaced(cluster.client.clone(), &cluster.namespace),
            namespace: cluster.namespace.clone(),
            name: settings.kubernetes.root_secret.clone(),
            exists: settings.kubernetes.root_secret_exists,
            trust_domain: settings.trust_domain.clone(),
            life: settings.certificate_life,
        }
    }

    /// Waits until there is a root that can be used; the leader makes it. `tell` hears why there is none.
    pub(crate) async fn obtain(
        &self,
        mut leader: watch::Receiver<bool>,
        tell: impl Fn(&NoRoot),
    ) -> (Authority, RootPem) {
        let mut said = None;
        loop {
            let leads = *leader.borrow_and_update();
            let why = match self.attempt(leads).await {
                Ok(root) => return root,
                Err(why) => why,
            };
            if said.as_ref() != Some(&why) {
                warn!("{why}");
                tell(&why);
                said = Some(why);
            }
            let _ = timeout(RETRY, leader.changed()).await;
            // A channel that is closed is no reason to spin.
            if leader.has_changed().is_err() {
                sleep(RETRY).await;
            }
        }
    }

    async fn attempt(&self, leads: bool) -> Result<(Authority, RootPem), NoRoot> {
        if let Some(root) = self.read().await? {
            return self.open(root);
        }
        if self.exists {
            return Err(NoRoot::Missing(self.full_name()));
        }
        if !leads {
            return Err(NoRoot::NotMadeYet(self.full_name()));
        }
        let root = RootPem::create(&self.trust_domain, SystemTime::now());
        if self.apply(&root.map_err(|error| NoRoot::Making(error.to_string()))?).await? {
            info!(secret = self.full_name(), "made the root of the mesh");
        }
        match self.read().await? {
            Some(root) => self.open(root),
            None => Err(NoRoot::NotMadeYet(self.full_name())),
        }
    }

    fn open(&self, root: RootPem) -> Result<(Authority, RootPem), NoRoot> {
        let authority = Authority::from_pem(&root, self.life, SystemTime::now());
        let authority =
            authority.map_err(|problem| NoRoot::Unusable { secret: self.full_name(), problem })?;
        Ok((authority, root))
    }

    async fn read(&self) -> Result<Option<RootPem>, NoRoot> {
        let secret = self.within("read", self.api.get_opt(&self.name)).await?;
        secret.map(|secret| root_in(&secret, &self.full_name())).transpose()
    }

    /// Makes the Secret. False, if there was one already: it stays as it is.
    async fn apply(&self, root: &RootPem) -> Result<bool, NoRoot> {
        let secret = manifest(&self.name, root);
        let parameters = PatchParams::apply(MANAGER);
        let applying = async {
            match self.api.patch(&self.name, &parameters, &Patch::Apply(&secret)).await {
                Ok(_) => Ok(true),
                // It is immutable (422), or another manager made it (409).
                Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.within("made", applying).await
    }

    async fn within<T>(
        &self,
        doing: &'static str,
        asking: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, NoRoot> {
        let problem = match timeout(ANSWER_TIMEOUT, asking).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => reason(&error),
            Err(_) => format!("no answer in {ANSWER_TIMEOUT:?}"),
        };
        Err(NoRoot::Unreachable { secret: self.full_name(), doing, problem })
    }

    fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Looks after the Secret for ever: the leader puts one that was deleted back, since after the next restart
    /// there would be a second root; one that was changed is told of.
    pub(crate) async fn keep(self, held: RootPem, leader: watch::Receiver<bool>) {
        let mut said = None;
        loop {
            sleep(CHECK).await;
            let leads = *leader.borrow();
            let found = match self.read().await {
                Ok(None) if leads && !self.exists => self.put_back(&held).await,
                Ok(Some(root)) if root != held => Err(Changed::Differs),
                Ok(_) => Ok(()),
                Err(NoRoot::Unreachable { .. }) => continue,
                Err(why) => Err(Changed::Unusable(why)),
            };
            if let Some(changed) = found.as_ref().err().filter(|_| said != found.clone().err()) {
                warn!(code = %Code::ROOT_SECRET_CHANGED, secret = self.full_name(), "{changed}");
            }
            said = found.err();
        }
    }

    async fn put_back(&self, held: &RootPem) -> Result<(), Changed> {
        match self.apply(held).await {
            Ok(true) => warn!(secret = self.full_name(), "the Secret of the root was deleted; put it back"),
            Ok(false) => {}
            Err(why) => return Err(Changed::Unusable(why)),
        }
        Ok(())
    }
}

/// What became of the Secret that was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Changed {
    #[error("it holds another root now; this replica goes on with the one that it has read")]
    Differs,
    #[error("it can no longer be used; this replica goes on with what it has read: {0}")]
    Unusable(NoRoot),
}

fn root_in(secret: &Secret, full_name: &str) -> Result<RootPem, NoRoot> {
    let text = |key| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).filter(|bytes| !bytes.0.is_empty());
        let bytes = bytes.ok_or_else(|| NoRoot::NoSuchKey { secret: full_name.to_owned(), key })?;
        // What is not text is not PEM, and is refused as such.
        Ok(String::from_utf8_lossy(&bytes.0).into_owned())
    };
    Ok(RootPem { certificate: text(CERTIFICATE)?, key: text(KEY)? })
}

fn manifest(name: &str, root: &RootPem) -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": MANAGER}},
        "type": "kubernetes.io/tls",
        "immutable": true,
        "data": {
            CERTIFICATE: ByteString(root.certificate.clone().into_bytes()),
            KEY: ByteString(root.key.clone().into_bytes()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_holds_what_was_put_in() {
        let root = RootPem::create("cluster.local", SystemTime::now()).unwrap();
        let secret: Secret = serde_json::from_value(manifest("gauze-root", &root)).unwrap();
        assert_eq!(root_in(&secret, "gauze-system/gauze-root"), Ok(root));
        assert_eq!(secret.immutable, Some(true));
    }

    #[test]
    fn a_secret_without_a_key_is_refused_by_name_with_the_remedy() {
        let root = RootPem::create("cluster.local", SystemTime::now()).unwrap();
        for (what, missing) in [("the certificate", CERTIFICATE), ("the private key", KEY)] {
            let mut secret: Secret = serde_json::from_value(manifest("gauze-root", &root)).unwrap();
            secret.data.as_mut().unwrap().remove(missing);
            let refused = root_in(&secret, "gauze-system/gauze-root").unwrap_err().to_string();
            let expected = format!("M1109: Secret gauze-system/gauze-root has no `{missing}`: correct it");
            assert!(refused.starts_with(&expected), "{what}: {refused}");
        }
    }
}
