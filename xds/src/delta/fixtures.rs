//! A small mesh for the dialogues: `web` leads to routes, routes to clusters. And a line for each message.

use std::sync::Arc;

use gauze_model::cluster::{Transport, Workload};
use gauze_model::listener::{HttpTarget, Inbound, Mtls, Outbound, PortProtocol};
use gauze_model::name::ServicePort;
use gauze_model::route::{Action, Backend, Filters, HeaderChange, HostPattern, RouteMatch, VirtualHost};
use gauze_model::snapshot::Resource;
use gauze_model::{
    Cluster, Endpoint, EndpointSet, Kind, Listener, Name, Origin, RouteRule, RouteTable, SpiffeId,
};

use crate::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use crate::{EncodedResource, kind_of, type_url};

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// `outbound/shop/10.0.0.1:80`, which leads to these routes.
pub(super) fn outbound(routes: &str) -> EncodedResource {
    let origin = origin("Service", "cart");
    let http = HttpTarget::Routes(name(routes));
    let outbound = Outbound { origin, protocol: PortProtocol::Http, http, tls: Vec::new(), tcp: Vec::new() };
    let outbound = Resource::Listener(Arc::new(Listener::Outbound(outbound)));
    EncodedResource::new(name("outbound/shop/10.0.0.1:80"), &outbound)
}

pub(super) fn inbound(mtls: Mtls) -> EncodedResource {
    let inbound = Inbound {
        origin: origin("Pod", "web-0"),
        identity: SpiffeId::new("cluster.local", "shop", "web"),
        addresses: vec!["10.1.0.1".parse().unwrap()],
        mtls,
        ports: Default::default(),
        mesh_networks: Vec::new(),
        policies: Vec::new(),
    };
    let inbound = Resource::Listener(Arc::new(Listener::Inbound(inbound)));
    EncodedResource::new(name("inbound/shop/web-0"), &inbound)
}

/// `routes/shop/SERVICE/80`, which splits over these clusters.
pub(super) fn routes(service: &str, clusters: &[&str]) -> EncodedResource {
    let backend = |cluster: &&str| Backend {
        cluster: name(cluster),
        weight: 1,
        request_headers: HeaderChange::default(),
        response_headers: HeaderChange::default(),
    };
    let rule = RouteRule {
        origin: origin("HTTPRoute", service),
        matches: RouteMatch::default(),
        filters: Filters::default(),
        action: Action::Forward(clusters.iter().map(backend).collect()),
        retry: Default::default(),
        timeouts: Default::default(),
    };
    let host = VirtualHost { domains: vec![HostPattern::Any], rules: vec![rule] };
    let table = RouteTable::from_hosts(origin("Service", service), vec![host]);
    let service = ServicePort::new("shop", service, 80);
    EncodedResource::new(Name::Routes { service, viewer: None }, &Resource::Routes(Arc::new(table)))
}

pub(super) fn cluster(of: &str) -> EncodedResource {
    let cluster =
        Cluster { origin: origin("Service", of), protocol: PortProtocol::Http, ..Cluster::default() };
    EncodedResource::new(name(of), &Resource::Cluster(Arc::new(cluster)))
}

pub(super) fn endpoints(of: &str, addresses: &[&str]) -> EncodedResource {
    let endpoint = |address: &&str| Endpoint {
        address: address.parse().unwrap(),
        weight: 1,
        transport: Transport::Plain,
        workload: Workload::default(),
    };
    let set = EndpointSet { endpoints: addresses.iter().map(endpoint).collect() };
    EncodedResource::new(name(of), &Resource::Endpoints(Arc::new(set)))
}

fn origin(kind: &str, name: &str) -> Origin {
    Origin { kind: kind.into(), namespace: "shop".into(), name: name.into(), ..Origin::default() }
}

/// A response of one kind.
pub(super) fn response(
    nonce: &str,
    kind: Kind,
    resources: &[&EncodedResource],
    removed: &[&str],
) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: type_url(kind).to_owned(),
        nonce: nonce.to_owned(),
        resources: resources.iter().map(|encoded| encoded.resource.clone()).collect(),
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

/// `Routes ack 1 +routes/shop/cart/80 -routes/shop/web/80`.
pub(super) fn said(requests: &[DeltaDiscoveryRequest]) -> Vec<String> {
    requests.iter().map(request_line).collect()
}

fn request_line(request: &DeltaDiscoveryRequest) -> String {
    let mut words = vec![kind_word(&request.type_url)];
    words.extend(request.node.as_ref().map(|node| format!("node {}", node.id)));
    let nonce = &request.response_nonce;
    match &request.error_detail {
        Some(status) => words.push(format!("nack {nonce} ({})", status.message)),
        None if !nonce.is_empty() => words.push(format!("ack {nonce}")),
        None => {}
    }
    for name in &request.resource_names_subscribe {
        let held = request.initial_resource_versions.contains_key(name);
        words.push(format!("+{name}{}", if held { " (held)" } else { "" }));
    }
    words.extend(request.resource_names_unsubscribe.iter().map(|name| format!("-{name}")));
    words.join(" ")
}

/// `Cluster 1 +cluster/shop/cart/80 -cluster/shop/web/80`.
pub(super) fn answered(responses: &[DeltaDiscoveryResponse]) -> Vec<String> {
    responses.iter().map(response_line).collect()
}

fn response_line(response: &DeltaDiscoveryResponse) -> String {
    let mut words = vec![kind_word(&response.type_url), response.nonce.clone()];
    words.extend(response.resources.iter().map(|resource| format!("+{}", resource.name)));
    words.extend(response.removed_resources.iter().map(|name| format!("-{name}")));
    words.join(" ")
}

fn kind_word(type_url: &str) -> String {
    kind_of(type_url).map_or("?".to_owned(), |kind| format!("{kind:?}"))
}
