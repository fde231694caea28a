//! What the agent tells: metrics, one log line per connection, and its own log.
//!
//! A [`ConnectionReport`] belongs to each connection and feeds both metrics and access log, so
//! that the two can't disagree. Names and labels are Istio's, so that existing dashboards work.

pub mod access_log;
pub mod activity;
pub(crate) mod busy_polls;
mod collector;
pub mod control;
mod denials;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod flows;
pub mod graph;
pub mod labels;
pub(crate) mod listeners;
pub(crate) mod log_limit;
pub mod logging;
pub mod metrics;
mod open_count;
pub mod otlp;
mod process;
mod refusals;
pub mod report;
pub mod requests;
mod resilience;
mod series;
pub mod trace;
mod traffic;
pub mod transfer;

pub use activity::Activity;
pub use labels::{Direction, Reporter, ResponseFlags};
pub use metrics::Metrics;
pub use open_count::OpenCount;
pub use refusals::{Refusal, RefusalReason, TunnelRefusal};
pub use report::{ConnectionDescription, ConnectionReport, Outcome, WaypointUse};
pub use requests::{RequestDescription, RequestFlags, RequestReport, ResponseOutcome};
pub use resilience::{ResilienceCounts, ResilienceEvent, ResilienceMetrics, RetryResult};
pub use transfer::Transfer;
