//! The control plane over real sockets: who gets a certificate, who gets configuration, and who gets neither.

#![allow(clippy::unwrap_used)] // helpers of tests, which clippy takes for none

mod admin;
mod certificates;
mod client;
mod streams;
