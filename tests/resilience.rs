//! What a misbehaving upstream costs its callers, and what it does not.

mod faults; // each fault by name: what the caller is told, and what reached the app
