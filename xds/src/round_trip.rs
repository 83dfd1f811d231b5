//! What is written reads back, and is the same bytes each time.

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::util::pack_any;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::arbitrary::{
    named_cluster, named_endpoints, named_inbound, named_outbound, named_resource, named_routes,
};
use crate::{Accepted, EncodedResource, discovery, envoy, from_xds, to_xds};

macro_rules! reads_back {
    ($($test:ident: $strategy:ident),* $(,)?) => { proptest! { $(
        #[test]
        fn $test((name, resource) in $strategy()) {
            let read = from_xds(resource.kind(), &to_xds(&name, &resource));
            prop_assert_eq!(read, Ok(Accepted { name, resource, closed: Vec::new() }));
        }
    )* } };
}

reads_back! {
    an_inbound_listener_reads_back: named_inbound,
    an_outbound_listener_reads_back: named_outbound,
    a_route_table_reads_back: named_routes,
    a_cluster_reads_back: named_cluster,
    endpoints_read_back: named_endpoints,
}

proptest! {
    /// Each map has an order of its own, so this finds a map with two entries.
    #[test]
    fn the_same_resource_is_the_same_bytes((name, resource) in named_resource()) {
        let once = EncodedResource::new(name.clone(), &resource);
        prop_assert_eq!(once.version, EncodedResource::new(name, &resource).version);
    }
}

/// Envoy wants more of a value than that it can be written (a timeout above 0, for example); `translate` keeps to that.
#[test]
fn envoy_accepts_arbitrary_resources() {
    let Some(envoy) = envoy::find() else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut runner = TestRunner::deterministic();
    let resources: Vec<_> = (0..200)
        .map(|_| named_resource().new_tree(&mut runner).unwrap().current())
        .map(|(name, resource)| to_xds(&name, &resource))
        .collect();
    envoy::validate(&envoy, directory.path(), &resources).unwrap();
}

/// Otherwise the test above would prove nothing.
#[test]
fn envoy_refuses_what_is_wrong() {
    let Some(envoy) = envoy::find() else { return };
    let directory = tempfile::tempdir().unwrap();
    let broken = route::VirtualHost { name: "no domains".to_owned(), ..Default::default() };
    let broken = route::RouteConfiguration { virtual_hosts: vec![broken], ..Default::default() };
    let broken = discovery::Resource { resource: Some(pack_any(broken)), ..Default::default() };
    let problem = envoy::validate(&envoy, directory.path(), &[broken]).unwrap_err();
    assert!(problem.contains("VirtualHostValidationError.Domains"), "{problem}");
}
