//! Reading the wire: whatever a control plane sends is accepted whole or refused by name; what is accepted, its
//! policies that are closed included, is written and read back as the same. The first byte says what kind of
//! resource follows; a mutator of our own changes messages field by field, since bytes alone would get nowhere.
#![no_main]

use envoy_types::pb::google::protobuf::Any;
use gauze_model::Kind;
use gauze_xds::{Accepted, EncodedResource, discovery, from_xds, to_xds, type_url};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use prost::Message;

#[path = "from_xds/mutate.rs"]
mod mutate; // messages, changed field by field

/// The kinds, with a name of each form.
const NAMES: [(Kind, &str); 7] = [
    (Kind::Listener, "inbound/shop/web-0"),
    (Kind::Listener, "outbound/shop/10.0.0.1:80"),
    (Kind::Routes, "routes/shop/cart/80"),
    (Kind::Routes, "routes/shop/cart/80/for/web"),
    (Kind::Cluster, "cluster/shop/cart/80"),
    (Kind::Cluster, "cluster/pod/[fd00::1]:80"),
    (Kind::Endpoints, "cluster/shop/cart/80"),
];

/// Set in the first byte: what follows is a whole `Resource`, with names, aliases and metadata of its own.
const WHOLE: u8 = 0x80;

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 4 == 0 || size < 2 {
        return fuzzer_mutate(data, size, max_size);
    }
    match mutate::message(&data[1..size], seed).filter(|changed| changed.len() < max_size) {
        Some(changed) => {
            data[1..=changed.len()].copy_from_slice(&changed);
            changed.len() + 1
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else { return };
    let (kind, name) = NAMES[usize::from(which & !WHOLE) % NAMES.len()];
    let Some(resource) = resource(kind, name, bytes, which & WHOLE != 0) else { return };
    let read = from_xds(kind, &resource);
    assert_eq!(read, from_xds(kind, &resource), "the same bytes are read alike");
    match read {
        Ok(accepted) => check_accepted(kind, &resource, accepted),
        Err(rejection) => {
            assert_eq!((rejection.kind, &rejection.name), (kind, &resource.name), "refused by its name");
            assert!(!rejection.problem.is_empty());
        }
    }
});

/// The last of a field counts in protobuf, so the name behind the message is its name.
fn resource(kind: Kind, name: &str, bytes: &[u8], whole: bool) -> Option<discovery::Resource> {
    if whole {
        return discovery::Resource::decode(bytes).ok();
    }
    let mut value = bytes.to_vec();
    value.push(0x0a);
    value.push(name.len() as u8);
    value.extend_from_slice(name.as_bytes());
    let message = Any { type_url: type_url(kind).to_owned(), value };
    Some(discovery::Resource { name: name.to_owned(), resource: Some(message), ..Default::default() })
}

fn check_accepted(kind: Kind, resource: &discovery::Resource, accepted: Accepted) {
    assert_eq!(accepted.name.to_string(), resource.name);
    assert_eq!(accepted.resource.kind(), kind);
    for closed in &accepted.closed {
        assert_eq!((closed.kind, &closed.name), (kind, &resource.name));
        assert!(closed.is_of_a_policy(), "{closed:?}");
    }
    let written = to_xds(&accepted.name, &accepted.resource);
    let again = from_xds(kind, &written);
    let wanted = Accepted { closed: Vec::new(), ..accepted };
    assert_eq!(again, Ok(wanted.clone()), "written as {written:#?}");
    let encoded = || EncodedResource::new(wanted.name.clone(), &wanted.resource);
    assert_eq!(encoded().version, encoded().version, "the same resource is the same bytes");
}
