//! The way of a request, in order: caller, name, protocol, route, split, endpoints, identity, limits, and what the
//! called pod says.

use std::net::SocketAddr;

use gauze_control_plane::problem::Problem;
use gauze_control_plane::translate::{Translation, translate};
use gauze_control_plane::world::World;
use gauze_model::listener::{HttpTarget, Outbound, PortProtocol, WeightedCluster};
use gauze_model::retry::RetryPolicy;
use gauze_model::route::{Action, Backend, RequestHead, RouteRule, route};
use gauze_model::server_name::{TlsRule, by_server_name};
use gauze_model::snapshot::Resource;
use gauze_model::timeouts::Timeouts;
use gauze_model::why::{Reason, Why};
use gauze_model::{Code, Kind, Listener, Name, Origin, RouteTable};

use super::inbound::Arriving;
use super::{Asked, Explanation, Verdict, backend, caller, destination};
use crate::exit::Failure;

/// What happens to this request in this world.
///
/// # Errors
/// The caller or the URL make no sense.
pub(crate) fn explain(world: &World, asked: &Asked) -> Result<Explanation, Failure> {
    let mut walk = Walk { world, steps: Vec::new(), problems: Vec::new(), arriving: Arriving::default() };
    let verdict = walk.decide(asked)?;
    let mut problems = walk.problems;
    problems.sort_by_key(ToString::to_string);
    problems.dedup();
    Ok(Explanation { steps: walk.steps, verdict, problems })
}

/// A world, and what was noted on the way.
pub(super) struct Walk<'w> {
    pub(super) world: &'w World,
    pub(super) steps: Vec<Reason>,
    pub(super) problems: Vec<Problem>,
    /// What the called pod will be asked; changes on the way there.
    pub(super) arriving: Arriving,
}

impl Walk<'_> {
    fn decide(&mut self, asked: &Asked) -> Result<Verdict, Failure> {
        let (host, port) = asked.host()?;
        let caller = caller::find(self.world, &asked.from, &mut self.steps)?;
        let resolved = destination::resolve(self.world, &caller.namespace, host, port, &mut self.steps);
        let address = match resolved {
            Ok(address) => address,
            Err(verdict) => return Ok(verdict),
        };
        let outbound = self.outbound(&caller.namespace, address);
        let Some(outbound) = outbound else {
            return Ok(self.nobody(address));
        };
        self.arriving.peer = caller.identity;
        self.arriving.pod = (caller.namespace, caller.pod);
        if self.arriving.peer.is_none() {
            return Ok(self.arrive_plain(&outbound, asked));
        }
        self.note_protocol(&outbound, asked);
        if outbound.protocol.is_opaque() || asked.is_opaque() {
            return Ok(self.carry_opaque(&outbound, asked));
        }
        self.arriving.http = asked.http();
        Ok(self.carry_http(&outbound, asked))
    }

    /// What a name stands for; what is wrong with the objects behind it is kept.
    pub(super) fn look(&mut self, name: &Name) -> Translation {
        let translation = translate(self.world, name);
        self.problems.extend(translation.problems.iter().cloned());
        translation
    }

    fn outbound(&mut self, viewer: &str, address: SocketAddr) -> Option<Outbound> {
        let name = Name::Outbound { viewer: viewer.to_owned(), address };
        match self.look(&name).answer.resource(Kind::Listener) {
            Some(Resource::Listener(listener)) => match &**listener {
                Listener::Outbound(outbound) => Some(outbound.clone()),
                Listener::Inbound(_) => None,
            },
            _ => None,
        }
    }

    /// An address that nobody has.
    fn nobody(&mut self, address: SocketAddr) -> Verdict {
        let networks = &self.world.settings().mesh_networks;
        if networks.iter().any(|network| network.contains(&address.ip())) {
            let because = "no Service port and no pod has it";
            self.steps.push(Reason::new("name", format!("nobody has {address}"), because));
        } else {
            self.steps.push(Reason::new(
                "name",
                format!("{address} is not asked for"),
                "it is outside meshNetworks",
            ));
        }
        Verdict::Outside(format!("the connection to {address} passes as it is"))
    }

    fn note_protocol(&mut self, outbound: &Outbound, asked: &Asked) {
        let decided = match outbound.protocol {
            _ if asked.is_tls() && !outbound.protocol.is_http() => "the app's own TLS, passed through",
            PortProtocol::Detect => "found out by the first bytes",
            PortProtocol::Http => "HTTP/1.1 or HTTP/2, told apart by the first bytes",
            PortProtocol::Http2 => "HTTP/2",
            PortProtocol::Grpc => "gRPC",
            PortProtocol::Tls => "the app's own TLS, passed through",
            PortProtocol::Opaque => "opaque TCP",
        };
        let because = match outbound.protocol {
            PortProtocol::Detect => "the port declares none",
            _ => "the port declares it",
        };
        self.steps.push(Reason::new("protocol", decided, because).by(&outbound.origin));
    }

    fn carry_opaque(&mut self, outbound: &Outbound, asked: &Asked) -> Verdict {
        if asked.is_tls() && !outbound.tls.is_empty() {
            return self.carry_tls(outbound, asked.server_name());
        }
        let because = match asked.is_tls() {
            true => "no TLSRoute is for the port",
            false => "bytes that are not HTTP see no route",
        };
        self.carry_shares(&outbound.tcp, because, &outbound.origin)
    }

    /// By the data path's own function.
    fn carry_tls(&mut self, outbound: &Outbound, asked: Option<&str>) -> Verdict {
        let asks = asked.map_or_else(|| "no server name".to_owned(), |name| format!("server name `{name}`"));
        let Some(rule) = by_server_name(&outbound.tls, asked) else {
            for rule in &outbound.tls {
                let because = format!("it is for {}, not for {asks}", names(rule));
                self.steps.push(Reason::new("route", "passed over", because).by(&rule.origin));
            }
            return refused(Code::NO_TLS_ROUTE, &asks);
        };
        let because = format!("{asks}; it is for {}", names(rule));
        self.steps.push(Reason::new("route", rule.origin.to_string(), because).by(&rule.origin));
        self.carry_shares(&rule.shares, "drawn for each connection, by weight", &rule.origin)
    }

    fn carry_shares(&mut self, shares: &[WeightedCluster], because: &str, origin: &Origin) -> Verdict {
        let shares: Vec<(Name, u32)> =
            shares.iter().map(|share| (share.cluster.clone(), share.weight)).collect();
        self.steps.push(Reason::new("split", backend::shares(&shares), because).by(origin));
        self.carry(&shares)
    }

    fn carry_http(&mut self, outbound: &Outbound, asked: &Asked) -> Verdict {
        let name = match &outbound.http {
            HttpTarget::Cluster(cluster) => {
                let because = "a pod's own address: no Service, so no routes and no splits";
                self.steps.push(Reason::new("route", cluster.to_string(), because).by(&outbound.origin));
                self.note_patience(&RetryPolicy::default(), &Timeouts::default());
                return self.carry(&[(cluster.clone(), 1)]);
            }
            HttpTarget::Routes(name) => name.clone(),
        };
        let translation = self.look(&name);
        let Some(Resource::Routes(table)) = translation.answer.resource(Kind::Routes) else {
            return refused(Code::NO_ROUTE, &format!("{name} does not exist"));
        };
        match choose(table, asked, &mut self.steps) {
            None => refused(Code::NO_ROUTE, "see the steps for the rules that came close"),
            Some(rule) => {
                self.rewrite(rule, asked);
                self.act(rule)
            }
        }
    }

    /// What the called pod is asked is what the rule makes of it.
    fn rewrite(&mut self, rule: &RouteRule, asked: &Asked) {
        let head = request_head(asked);
        let path = rule.filters.rewrite.path_and_query(&rule.matches.path, &head);
        if let (Some(path), Some(http)) = (path, &mut self.arriving.http) {
            http.1 = path;
        }
    }

    fn act(&mut self, rule: &RouteRule) -> Verdict {
        match &rule.action {
            Action::Respond(status) => {
                let because = "the rule has no backend that can be used";
                self.steps.push(Reason::new("split", format!("answered {status}"), because).by(&rule.origin));
                refused(Code::NO_BACKEND, "asking nobody")
            }
            Action::Redirect(redirect) => {
                Verdict::Answered(format!("{}: redirected by {}", redirect.status, rule.origin))
            }
            Action::Forward(backends) => {
                let shares: Vec<(Name, u32)> = backends
                    .iter()
                    .map(|Backend { cluster, weight, .. }| (cluster.clone(), *weight))
                    .collect();
                let because = match backends.len() {
                    1 => "one backend",
                    _ => "drawn for each request, by weight",
                };
                self.steps.push(Reason::new("split", backend::shares(&shares), because).by(&rule.origin));
                self.note_patience(&rule.retry, &rule.timeouts);
                self.carry(&shares)
            }
        }
    }
}

fn names(rule: &TlsRule) -> String {
    let names: Vec<String> = rule.server_names.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// Runs the data path's own function with ears open.
fn choose<'t>(table: &'t RouteTable, asked: &Asked, why: &mut impl Why) -> Option<&'t RouteRule> {
    route(table, &request_head(asked), why)
}

fn request_head(asked: &Asked) -> RequestHead<'_> {
    let authority = asked.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let authority = authority.or_else(|| asked.url.authority().map(http::uri::Authority::as_str));
    RequestHead {
        method: &asked.method,
        authority: authority.unwrap_or_default(),
        path: asked.url.path(),
        query: asked.url.query(),
        headers: &asked.headers,
    }
}

/// A refusal by the mesh, as the caller sees it.
pub(super) fn refused(code: Code, particulars: &str) -> Verdict {
    let (title, status) = code.entry().map_or(("", 0), |entry| (entry.title, entry.status));
    Verdict::Refused(format!("{status} {code}: {title}; {particulars} (gauze docs {code})"))
}
