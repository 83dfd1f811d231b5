//! One replica of several leads: it writes what is written once. All replicas serve.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::PostParams;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::lease::{LIFE, Observed, renewed};
use super::{Cluster, MANAGER};
use crate::metrics::Metrics;
use crate::readiness::{Readiness, Unready};

/// The Lease of whoever leads.
const NAME: &str = "gauze-control-plane";
const RENEW: Duration = Duration::from_secs(2);
/// A leader that could not renew for so long no longer leads: well before others may take the Lease ([`LIFE`]).
const GIVE_UP: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

impl Cluster {
    /// Takes part in the election until the process stops; then gives the Lease back.
    pub(crate) async fn campaign(self, metrics: Arc<Metrics>, readiness: Arc<Readiness>) {
        let mut campaign = Campaign {
            leases: Api::namespaced(self.client.clone(), &self.namespace),
            cluster: self,
            observed: Observed::default(),
            renewed: None,
            metrics,
        };
        tokio::select! {
            () = campaign.run() => {}
            _ = readiness.until(|reason| reason == Unready::Stopping) => {}
        }
        campaign.resign().await;
    }
}

struct Campaign {
    cluster: Cluster,
    leases: Api<Lease>,
    observed: Observed,
    /// When we last began to renew with success.
    renewed: Option<Instant>,
    metrics: Arc<Metrics>,
}

impl Campaign {
    async fn run(&mut self) {
        loop {
            let began = Instant::now();
            match timeout(CALL_TIMEOUT, self.hold()).await {
                Ok(Ok(true)) => self.renewed = Some(began),
                Ok(Ok(false)) => self.renewed = None,
                Ok(Err(error)) => debug!(%error, "cannot renew the leader's Lease"),
                Err(_) => debug!("no answer about the leader's Lease in time"),
            }
            self.tell();
            // A call takes at most its time-out, so a leader looks at its clock often enough.
            sleep(RENEW).await;
            self.tell();
        }
    }

    /// Takes or renews the Lease, if it may; says whether we hold it.
    async fn hold(&mut self) -> kube::Result<bool> {
        let us = &self.cluster.pod;
        let former = self.leases.get_opt(NAME).await?;
        let spec = former.as_ref().and_then(|lease| lease.spec.as_ref());
        if spec.is_some_and(|spec| !self.observed.may_be_taken(spec, us, Instant::now())) {
            return Ok(false);
        }
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let exists = former.is_some();
        let lease = renewed(former, NAME, us, LIFE);
        let written = match exists {
            true => self.leases.replace(NAME, &parameters, &lease).await,
            false => self.leases.create(&parameters, &lease).await,
        };
        match written {
            // Another was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            written => written.map(|_| true),
        }
    }

    fn tell(&self) {
        let leads = self.renewed.is_some_and(|renewed| renewed.elapsed() < GIVE_UP);
        let changed = self.cluster.leads.send_if_modified(|former| std::mem::replace(former, leads) != leads);
        self.metrics.leader.set(leads.into());
        match (changed, leads) {
            (true, true) => info!(pod = self.cluster.pod, "this replica leads now"),
            (true, false) => warn!(pod = self.cluster.pod, "this replica no longer leads"),
            (false, _) => {}
        }
    }

    /// Lets another lead at once.
    async fn resign(&mut self) {
        if self.renewed.take().is_none() {
            return;
        }
        self.tell();
        let given_back = timeout(CALL_TIMEOUT, async {
            let former = self.leases.get_opt(NAME).await?;
            let spec = former.as_ref().and_then(|lease| lease.spec.as_ref());
            if spec.and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.cluster.pod) {
                let lease = renewed(former, NAME, "", LIFE);
                self.leases.replace(NAME, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        });
        if !matches!(given_back.await, Ok(Ok(()))) {
            debug!("the leader's Lease was not given back; others take it after {LIFE:?}");
        }
    }
}
