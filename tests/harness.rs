//! What the black-box tests stand on: built programs, child processes, a mesh in a directory, an app that
//! keeps a ledger, clients, and waiting for conditions. Nothing here knows the product's internals.

pub(crate) mod apiserver;
pub(crate) mod cluster;
pub(crate) mod enrolment;
pub(crate) mod eventually;
pub(crate) mod faults;
pub(crate) mod frames;
pub(crate) mod gateway_api;
pub(crate) mod kube_mesh;
pub(crate) mod kubernetes;
pub(crate) mod ledgers;
pub(crate) mod mesh;
pub(crate) mod mortal;
pub(crate) mod objects;
pub(crate) mod process;
pub(crate) mod programs;
pub(crate) mod refuser;
pub(crate) mod relay;
pub(crate) mod tools;
pub(crate) mod wire;

pub(crate) use eventually::eventually;
pub(crate) use gauze_tests::{App, client, load};
