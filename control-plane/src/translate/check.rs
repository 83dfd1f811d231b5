//! What is wrong with objects that have no status of their own: pods, Services, slices, namespaces, groups of requests.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use gauze_model::Code;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{age, annotation, annotation_path, pods, services, splits};
use crate::inject::wishes::{ANNOTATIONS, is_unknown};
use crate::inject::{INJECT, PREFIX};
use crate::problem::Problem;
use crate::world::{Object, ObjectKind, World, origin};

/// All that is wrong with such objects, each thing once.
pub fn check(world: &World) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut claims = Claims::default();
    for object in world.objects() {
        match object {
            Object::Namespace(namespace) => {
                annotations(ObjectKind::Namespace, &namespace.metadata, &mut problems);
                problems.extend(asks_in_vain(&namespace.metadata));
            }
            Object::Pod(pod) => check_pod(world, pod, &mut claims, &mut problems),
            Object::Service(service) => check_service(world, service, &mut claims, &mut problems),
            Object::HttpRouteGroup(group) => splits::check_group(group, &mut problems),
            Object::ServiceAccount(_)
            | Object::EndpointSlice(_)
            | Object::HttpRoute(_)
            | Object::GrpcRoute(_)
            | Object::TlsRoute(_)
            | Object::TrafficSplit(_)
            | Object::TrafficPolicy(_)
            | Object::AuthorizationPolicy(_) => {}
        }
    }
    claims.check(world, &mut problems);
    let mut seen = BTreeSet::new();
    problems.retain(|problem| seen.insert((problem.origin.clone(), problem.code, problem.message.clone())));
    problems
}

fn check_pod<'w>(world: &World, pod: &'w Pod, claims: &mut Claims<'w>, problems: &mut Vec<Problem>) {
    annotations(ObjectKind::Pod, &pod.metadata, problems);
    if !pods::is_meshed(pod) {
        return;
    }
    pods::strictness(world, pod, problems);
    for address in pods::addresses(pod).into_iter().filter(|address| pods::owns(pod, *address)) {
        claims.add(address, ObjectKind::Pod, &pod.metadata);
    }
}

fn check_service<'w>(
    world: &World,
    service: &'w Service,
    claims: &mut Claims<'w>,
    problems: &mut Vec<Problem>,
) {
    annotations(ObjectKind::Service, &service.metadata, problems);
    problems.extend(without_address(service));
    for address in services::addresses_of(service) {
        claims.add(address, ObjectKind::Service, &service.metadata);
    }
    for (_, port) in services::tcp_ports(service) {
        services::endpoints(world, service, port, problems);
    }
}

/// A Service that should have an address and has none: nobody dials it.
fn without_address(service: &Service) -> Option<Problem> {
    let (code, message) = services::not_dialled(service).filter(|(code, _)| *code == Code::MISSING_FIELD)?;
    Some(Problem::new(code, origin(ObjectKind::Service, &service.metadata).at("spec.clusterIP"), message))
}

/// An annotation of ours that means nothing is a slip of the pen.
fn annotations(kind: ObjectKind, metadata: &ObjectMeta, problems: &mut Vec<Problem>) {
    for key in metadata.annotations.iter().flat_map(|annotations| annotations.keys()) {
        let Some(name) = key.strip_prefix(PREFIX).filter(|_| is_unknown(key)) else { continue };
        let message = format!("gauze knows no annotation `{name}`; it knows {}", ANNOTATIONS.join(", "));
        problems.push(Problem::new(
            Code::UNKNOWN_FIELD,
            origin(kind, metadata).at(annotation_path(key)),
            message,
        ));
    }
}

/// A namespace that asks for injection in a way that the API server cannot hear: its pods start outside the mesh.
fn asks_in_vain(namespace: &ObjectMeta) -> Option<Problem> {
    let origin = origin(ObjectKind::Namespace, namespace);
    if let Some(value) = namespace.labels.as_ref().and_then(|labels| labels.get(INJECT)) {
        let message =
            format!("`{value}` is not understood, so no pod is injected for it; write enabled or disabled");
        let is_slip = !["enabled", "disabled"].contains(&value.as_str());
        return is_slip.then(|| {
            Problem::new(Code::INJECT_VALUE_UNKNOWN, origin.at(format!("metadata.labels[{INJECT}]")), message)
        });
    }
    annotation(namespace, INJECT)?;
    let message = "an annotation of a namespace has no effect, since the API server selects by labels; write it as a label";
    Some(Problem::new(Code::INJECT_MISPLACED, origin.at(annotation_path(INJECT)), message))
}

/// Who says that an address is its own.
#[derive(Default)]
struct Claims<'w> {
    by_address: BTreeMap<IpAddr, Vec<(ObjectKind, &'w ObjectMeta)>>,
}

impl<'w> Claims<'w> {
    fn add(&mut self, address: IpAddr, kind: ObjectKind, metadata: &'w ObjectMeta) {
        self.by_address.entry(address).or_default().push((kind, metadata));
    }

    fn check(self, world: &World, problems: &mut Vec<Problem>) {
        for (address, mut claims) in self.by_address {
            claims.sort_by(rank);
            let Some(((kind, holder), others)) = claims.split_first() else { continue };
            let holder = origin(*kind, holder);
            problems.extend(others.iter().map(|(kind, metadata)| {
                let message = format!(
                    "{holder} has the address {address} too, and connections to it go there; give each its own"
                );
                Problem::new(Code::ADDRESS_SHARED, origin(*kind, metadata), message)
            }));
            if !world.settings().mesh_networks.iter().any(|network| network.contains(&address)) {
                let message = format!(
                    "{address} lies outside the mesh networks, so connections to it pass by the mesh; add its network to them"
                );
                problems.push(Problem::new(Code::OUTSIDE_MESH_NETWORKS, holder, message));
            }
        }
    }
}

/// First who has the address, as `outbound/` chooses: Services before pods, the oldest Service, the youngest pod.
fn rank(one: &(ObjectKind, &ObjectMeta), other: &(ObjectKind, &ObjectMeta)) -> Ordering {
    let is_pod = |claim: &(ObjectKind, &ObjectMeta)| claim.0 == ObjectKind::Pod;
    let by_age = age(one.1).cmp(&age(other.1));
    is_pod(one).cmp(&is_pod(other)).then(if is_pod(one) { by_age.reverse() } else { by_age })
}
