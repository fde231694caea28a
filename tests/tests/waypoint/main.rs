//! Waypoints of a directory of manifests, and of a cluster: connections go through them where they are asked
//! for, and nowhere else.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

mod beside;
mod bodies;
mod change;
mod cluster;
mod ends;
mod frames;
mod held;
mod http;
mod http2;
mod idle;
mod lifecycle;
mod path;
mod policy;
mod protocols;
mod repeated;
mod resilience;
mod revocation;
mod shop;
mod smuggling;
mod stage;
mod steady;
mod store;
mod telemetry;
mod tokens;
