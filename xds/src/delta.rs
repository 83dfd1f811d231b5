//! Incremental ADS (Envoy's `DeltaAggregatedResources`), both halves as state machines without IO or clock:
//! requests and responses go in, responses and requests come out, in the order in which they must be sent.
//!
//! A gauze client names what it wants, step by step, and never sends the wildcard. The driver of a stream
//! sends what these functions return, and says [`hello`](DeltaClient::hello) whenever a stream is new.

mod client;
#[cfg(test)]
mod fixtures;
mod server;

pub use client::DeltaClient;
pub use server::{Answer, DeltaServer, Heard, Held, Holding};
