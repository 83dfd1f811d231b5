//! Many proxies and one control plane over queues in memory: from a seed, the world changes, messages are delivered
//! in any order between streams, connections drop, both sides restart. After each step no proxy serves anything that
//! leads nowhere; at rest every proxy serves what the world yields from scratch.
//!
//! `GAUZE_SEED=n` replays one seed.

#![allow(clippy::unwrap_used)] // what helps a test is test

mod mesh;
mod objects;

use std::env;
use std::time::{Duration, Instant};

use fastrand::Rng;

use mesh::Mesh;

/// Seeds are tried for so long.
const TIME: Duration = Duration::from_secs(5);
const STEPS: usize = 600;

#[test]
fn every_proxy_comes_to_serve_what_the_world_yields_and_never_leads_nowhere() {
    if let Ok(seed) = env::var("GAUZE_SEED") {
        return simulate(seed.parse().expect("GAUZE_SEED is a number"));
    }
    let start = Instant::now();
    let mut seeds = 0;
    while start.elapsed() < TIME || seeds == 0 {
        simulate(fastrand::u64(..));
        seeds += 1;
    }
    println!("{seeds} seeds");
}

fn simulate(seed: u64) {
    println!("GAUZE_SEED={seed}"); // shown when a test fails
    let mut random = Rng::with_seed(seed);
    let mut mesh = Mesh::new(&mut random);
    for _ in 0..STEPS {
        mesh.step(&mut random);
    }
    mesh.come_to_rest();
    mesh.check_at_rest();
}
