//! What the agent tells: metrics, one log line per connection, and its own log.
//!
//! A [`ConnectionReport`] belongs to each connection and feeds both metrics and access log, so
//! that the two can't disagree. Names and labels are Istio's, so that existing dashboards work.

pub mod access_log;
mod collector;
pub mod control;
mod denials;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod labels;
pub mod logging;
pub mod metrics;
mod process;
pub mod report;
mod traffic;
pub mod transfer;

pub use labels::{Direction, Reporter, ResponseFlags};
pub use metrics::Metrics;
pub use report::{ConnectionDescription, ConnectionReport, Outcome, WaypointUse};
pub use transfer::Transfer;
