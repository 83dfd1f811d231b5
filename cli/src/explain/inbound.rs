//! What the called pod says: whether its port takes the caller at all, and what its policies say of the call. The data
//! path asks the same function, `authorization::judge`.

use gauze_model::authorization::{Call, Http, explain, judge};
use gauze_model::cluster::{Endpoint, Transport};
use gauze_model::listener::{HttpTarget, Inbound, Listener, Mtls, Outbound};
use gauze_model::snapshot::Resource;
use gauze_model::why::Reason;
use gauze_model::{Code, Kind, Name, SpiffeId};

use super::walk::{Walk, refused};
use super::{Asked, Verdict, backend};

/// What arrives at the called pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Arriving {
    /// Who calls; `None`: from outside the mesh, or from a pod without sidecar.
    pub(super) peer: Option<SpiffeId>,
    /// The pod that calls: what it asks of itself meets no sidecar.
    pub(super) pod: (String, String),
    /// Method and path after the route's rewrite; `None`: not HTTP.
    pub(super) http: Option<(String, String)>,
}

impl Walk<'_> {
    /// Whether the pod behind an endpoint lets the call in; the code of its refusal.
    pub(super) fn enter(&mut self, name: &Name, endpoint: &Endpoint) -> Option<Code> {
        let workload = &endpoint.workload;
        let is_own = (&workload.namespace, &workload.pod) == (&self.arriving.pod.0, &self.arriving.pod.1);
        if endpoint.transport == Transport::Plain || is_own {
            return None; // no sidecar in between
        }
        let inbound = self.inbound(endpoint)?;
        let port = endpoint.address.port();
        let arriving = self.arriving.clone();
        if arriving.peer.is_none() && inbound.port(port).mtls == Mtls::Strict {
            let decided = format!("{}: refused", backend::short(name));
            self.note_once(Reason::new("strict", decided, format!("port {port} takes no plaintext")));
            return Some(Code::PLAINTEXT_REFUSED);
        }
        let is_opaque = arriving.peer.is_none() && inbound.port(port).protocol.is_opaque();
        let http = arriving.http.as_ref().filter(|_| !is_opaque);
        let call = Call {
            peer: arriving.peer.as_ref(),
            trust_domain: &inbound.identity.trust_domain,
            port,
            http: http.map(|(method, path)| Http { method, path }),
        };
        for reason in explain(&inbound.policies, &call) {
            let decided = match reason.step.as_str() {
                "authorization" => format!("{}: {}", backend::short(name), reason.decided),
                _ => reason.decided,
            };
            self.note_once(Reason { decided, ..reason });
        }
        judge(&inbound.policies, &call).code()
    }

    /// How the pod behind an endpoint accepts.
    pub(super) fn inbound(&mut self, endpoint: &Endpoint) -> Option<Inbound> {
        let workload = &endpoint.workload;
        let name = Name::Inbound { namespace: workload.namespace.clone(), pod: workload.pod.clone() };
        let translation = self.look(&name);
        let Some(Resource::Listener(listener)) = translation.answer.resource(Kind::Listener) else {
            return None;
        };
        match &**listener {
            Listener::Inbound(inbound) => Some(inbound.clone()),
            Listener::Outbound(_) => None,
        }
    }

    /// The pods of a cluster usually say the same.
    fn note_once(&mut self, reason: Reason) {
        if !self.steps.contains(&reason) {
            self.steps.push(reason);
        }
    }

    /// A caller without sidecar dials the address itself, in plaintext: there are no routes and no splits, but a called
    /// pod that is in the mesh has its say.
    pub(super) fn arrive_plain(&mut self, outbound: &Outbound, asked: &Asked) -> Verdict {
        let cluster = match &outbound.http {
            HttpTarget::Routes(Name::Routes { service, .. }) => Name::Cluster(service.clone()),
            HttpTarget::Routes(name) | HttpTarget::Cluster(name) => name.clone(),
        };
        self.arriving.http = asked.http();
        let because = "the caller has no sidecar: no routes, no splits, no mutual TLS";
        self.steps.push(Reason::new("plain", backend::short(&cluster), because).by(&outbound.origin));
        self.carry(&[(cluster, 1)])
    }
}

/// Where the call goes that some pods let in and others refuse.
pub(super) fn verdict(ways: &[String], refusing: &[(String, Code)]) -> Option<Verdict> {
    let (_, code) = refusing.first()?;
    let mut pods: Vec<&str> = refusing.iter().map(|(pod, _)| pod.as_str()).collect();
    pods.dedup();
    let pods = pods.join(", ");
    if ways.is_empty() {
        return Some(refused(*code, &format!("by {pods}")));
    }
    Some(Verdict::Carried(format!("{}; but {pods} refuses with {code}", ways.join(" or "))))
}
