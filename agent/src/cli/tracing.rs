//! Where waypoints' spans go.

use clap::Args;

use crate::telemetry::{
    otlp::Endpoint,
    trace::{Sampling, Settings},
};

#[derive(Debug, Args)]
#[group(id = "TracingArguments")]
pub(super) struct Arguments {
    /// Where waypoints send the spans of requests, by OTLP over gRPC, as http://host:4317. Unset:
    /// nowhere, and requests' trace headers pass as they are.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<Endpoint>,
    /// How many of the traces that begin at waypoints are recorded: a share, from 0 to 1. Of a trace
    /// that begins before, whoever began it has decided.
    #[arg(
        long,
        env = "AMBIT_TRACE_SAMPLING",
        value_name = "SHARE",
        default_value_t
    )]
    trace_sampling: Sampling,
}

impl From<Arguments> for Settings {
    fn from(arguments: Arguments) -> Self {
        Self {
            endpoint: arguments.otlp_endpoint,
            sampling: arguments.trace_sampling,
        }
    }
}
