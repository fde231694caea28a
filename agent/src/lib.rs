//! Ambit: a per-node ambient service mesh.
//!
//! Start with `ARCHITECTURE.md`. Each module owns one outside world: `capture` alone knows aya
//! and rtnetlink, `discovery` and
//! `control` alone know Kubernetes objects, `identity` alone holds keys.

pub mod admin;
pub mod app;
pub mod capture;
pub mod channel;
pub mod cli;
pub mod control;
pub mod direct;
pub mod discovery;
pub mod explain;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hbone;
pub mod identity;
mod listening;
mod millis;
pub mod policy;
pub mod proxy;
pub mod reporting;
mod sharded;
pub mod splice;
pub mod takeover;
pub mod telemetry;
pub mod waypoint;
