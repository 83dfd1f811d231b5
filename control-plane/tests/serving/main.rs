//! The control plane over real sockets: who gets a certificate, who gets configuration, and who gets neither.

mod admin;
mod certificates;
mod client;
mod streams;
