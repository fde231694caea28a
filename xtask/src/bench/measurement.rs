//! What a run yields, in the words of `report.json`: their names are fixed, for whoever compares.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// The mode that every ratio is taken to: plain TCP.
pub(super) const BASELINE: &str = "none";

/// One figure of one round, as it was taken.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub(super) scenario: String,
    pub(super) mode: String,
    /// `None` where it makes no difference: memory is a sum over the nodes.
    pub(super) placement: Option<Placement>,
    pub(super) metric: Metric,
    pub(super) unit: Unit,
    /// Ratios pair the rounds of this number: what was measured within seconds of each other.
    pub(super) round: u32,
    /// In `unit`; a sample that isn't finite is left out of every statistic.
    pub(super) value: f64,
    /// Of memory only: how many pods were in the mesh.
    pub(super) pods: Option<u32>,
}

/// The latency distribution of one round, in steps that rise in both numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Curve {
    pub(super) scenario: String,
    pub(super) mode: String,
    pub(super) placement: Option<Placement>,
    pub(super) round: u32,
    /// Quantile (0 to 1) and the latency in us that this share of the requests didn't exceed.
    pub(super) points: Vec<(f64, f64)>,
}

/// What was not measured, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Missing {
    pub(super) mode: String,
    /// `None`: all of them.
    pub(super) scenario: Option<String>,
    /// With the cure, if there is one.
    pub(super) reason: String,
}

/// One figure of a run: an object of `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Measurement {
    pub(super) scenario: String,
    pub(super) mode: String,
    pub(super) placement: Option<Placement>,
    pub(super) metric: Metric,
    pub(super) unit: Unit,
    /// The median of the rounds; of a ratio, the median of the rounds' ratios.
    pub(super) value: f64,
    /// The lower quartile of the rounds; of a ratio, where its 95 % confidence interval starts.
    pub(super) low: f64,
    /// The upper quartile of the rounds; of a ratio, where its 95 % confidence interval ends.
    pub(super) high: f64,
    /// How many rounds it comes from.
    pub(super) rounds: u32,
    /// Of memory only: how many pods were in the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pods: Option<u32>,
    /// Not measured, but read off the line through what was.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) extrapolated: bool,
}

/// Where client and server of a load are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Placement {
    SameNode,
    CrossNode,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Metric {
    Throughput,
    Requests,
    P50,
    P90,
    P99,
    P999,
    Cpu,
    Resident,
    Dropped,
}

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum Unit {
    #[serde(rename = "Gbit/s")]
    GigabitsPerSecond,
    #[serde(rename = "1/s")]
    PerSecond,
    #[serde(rename = "us")]
    Microseconds,
    #[serde(rename = "ms")]
    Milliseconds,
    /// CPU time per 10^9 bytes.
    #[serde(rename = "s/GB")]
    SecondsPerGigabyte,
    /// CPU time; the same number as milliseconds per 1,000 requests.
    #[serde(rename = "us/request")]
    MicrosecondsPerRequest,
    #[serde(rename = "MiB")]
    Mebibytes,
    #[serde(rename = "connections")]
    Connections,
    /// To mode `none`, which is 1.
    #[serde(rename = "ratio")]
    Ratio,
}

impl Metric {
    /// As it is written in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Metric::Throughput => "throughput",
            Metric::Requests => "requests",
            Metric::P50 => "p50",
            Metric::P90 => "p90",
            Metric::P99 => "p99",
            Metric::P999 => "p999",
            Metric::Cpu => "cpu",
            Metric::Resident => "resident",
            Metric::Dropped => "dropped",
        }
    }

    /// `Greater` if more of it is better. Holds for the ratio too.
    pub(super) fn better(self) -> Ordering {
        match self {
            Metric::Throughput | Metric::Requests => Ordering::Greater,
            Metric::P50
            | Metric::P90
            | Metric::P99
            | Metric::P999
            | Metric::Cpu
            | Metric::Resident
            | Metric::Dropped => Ordering::Less,
        }
    }
}

impl Unit {
    /// As it is written in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Unit::GigabitsPerSecond => "Gbit/s",
            Unit::PerSecond => "1/s",
            Unit::Microseconds => "us",
            Unit::Milliseconds => "ms",
            Unit::SecondsPerGigabyte => "s/GB",
            Unit::MicrosecondsPerRequest => "us/request",
            Unit::Mebibytes => "MiB",
            Unit::Connections => "connections",
            Unit::Ratio => "ratio",
        }
    }
}

impl Placement {
    /// As it is written in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Placement::SameNode => "same-node",
            Placement::CrossNode => "cross-node",
        }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}
