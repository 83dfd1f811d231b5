//! What a host in a URL stands for, as the cluster's DNS answers it to a pod.

use std::net::{IpAddr, SocketAddr};

use gauze_control_plane::world::World;
use gauze_model::Origin;
use gauze_model::why::Reason;
use k8s_openapi::api::core::v1::Service;

use super::Verdict;

/// The address that the app dials, or where its request ends instead.
pub(crate) fn resolve(
    world: &World,
    namespace: &str,
    host: &str,
    port: u16,
    steps: &mut Vec<Reason>,
) -> Result<SocketAddr, Verdict> {
    if let Ok(address) = host.parse::<IpAddr>() {
        let address = SocketAddr::new(address, port);
        steps.push(Reason::new("name", address.to_string(), "the URL holds an address"));
        return Ok(address);
    }
    if namespace.is_empty() && !host.contains('.') {
        return Err(Verdict::Outside(format!(
            "{host} is no name outside the cluster; write SERVICE.NAMESPACE"
        )));
    }
    let Some((name, in_namespace)) = service_name(host, namespace) else {
        return Err(Verdict::Outside(format!("{host} is no name of this cluster; its DNS decides")));
    };
    let Some(service) = world.service(in_namespace, name) else {
        return Err(Verdict::Outside(format!(
            "there is no Service {in_namespace}/{name}; if DNS knows {host}, the connection passes as it is"
        )));
    };
    let because = if host == name { format!("{namespace} is the caller's namespace") } else { String::new() };
    let origin = origin(service);
    let Some(address) = cluster_address(service) else {
        return headless(world, in_namespace, name, port, &origin, steps);
    };
    let address = SocketAddr::new(address, port);
    steps.push(Reason::new("name", format!("Service {in_namespace}/{name}, {address}"), because).by(&origin));
    Ok(address)
}

/// A headless Service's name stands for its pods: the app dials one of them.
fn headless(
    world: &World,
    namespace: &str,
    name: &str,
    port: u16,
    origin: &Origin,
    steps: &mut Vec<Reason>,
) -> Result<SocketAddr, Verdict> {
    let slices = world.slices_of(namespace, name);
    let mut addresses =
        slices.flat_map(|slice| slice.endpoints.iter().flatten()).flat_map(|endpoint| &endpoint.addresses);
    let Some(address) = addresses.find_map(|address| address.parse::<IpAddr>().ok()) else {
        return Err(Verdict::Refused(format!(
            "Service {namespace}/{name} is headless and has no endpoints: DNS has no answer"
        )));
    };
    let address = SocketAddr::new(address, port);
    let because = "the Service is headless: its name stands for its pods, and the app dials one";
    steps.push(Reason::new("name", format!("pod address {address}"), because).by(origin));
    Ok(address)
}

fn origin(service: &Service) -> Origin {
    Origin {
        kind: "Service".to_owned(),
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        name: service.metadata.name.clone().unwrap_or_default(),
        path: "spec.clusterIP".to_owned(),
        ..Origin::default()
    }
}

/// `None`: headless.
fn cluster_address(service: &Service) -> Option<IpAddr> {
    service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok()
}

/// `cart`, `cart.shop`, `cart.shop.svc`, `cart.shop.svc.cluster.local`: a Service and its namespace.
fn service_name<'h>(host: &'h str, namespace: &'h str) -> Option<(&'h str, &'h str)> {
    let host = host.trim_end_matches('.');
    let parts: Vec<&str> = host.split('.').collect();
    match parts[..] {
        [name] => Some((name, namespace)),
        [name, namespace] | [name, namespace, "svc"] | [name, namespace, "svc", "cluster", "local"] => {
            Some((name, namespace))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_dns_in_a_cluster_reads_them() {
        for (host, expected) in [
            ("cart", Some(("cart", "web"))),
            ("cart.shop", Some(("cart", "shop"))),
            ("cart.shop.svc", Some(("cart", "shop"))),
            ("cart.shop.svc.cluster.local.", Some(("cart", "shop"))),
            ("api.example.com", None),
        ] {
            assert_eq!(service_name(host, "web"), expected, "{host}");
        }
    }
}
