//! Where spans go, and of which traces.

use std::{fmt, str::FromStr};

use super::{Sampling, Tracer};
use crate::telemetry::otlp::{self, Endpoint, Exporter};

/// Where spans go, and of which traces.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The collector; none: spans aren't recorded.
    pub endpoint: Option<Endpoint>,
    /// Of traces that begin at a waypoint. Default: 1 %.
    pub sampling: Sampling,
}

impl Settings {
    /// What a waypoint's command line says of them.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let arguments = self.endpoint.iter().flat_map(|endpoint| {
            [
                format!("--otlp-endpoint={endpoint}"),
                format!("--trace-sampling={}", self.sampling),
            ]
        });
        arguments.collect()
    }

    /// What records spans, and what is to run to export them, if they are to go anywhere.
    /// `resource` says whose they are, as attributes of OpenTelemetry's.
    ///
    /// # Errors
    /// If TLS can't be set up for the collector.
    pub fn tracer(
        self,
        resource: &[(&str, &str)],
    ) -> Result<(Tracer, Option<Exporter>), otlp::Error> {
        let Some(endpoint) = self.endpoint else {
            return Ok((Tracer::default(), None));
        };
        let exporter = Exporter::new(endpoint, resource)?;
        Ok((Tracer::new(self.sampling, exporter.queue()), Some(exporter)))
    }
}

/// Text that is no [`Sampling`].
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a share: write a number from 0 to 1, as 0.01 for one trace of a hundred")]
pub struct SamplingError(String);

impl FromStr for Sampling {
    type Err = SamplingError;

    fn from_str(text: &str) -> Result<Self, SamplingError> {
        let share = text.parse().ok().and_then(Self::new);
        share.ok_or_else(|| SamplingError(text.to_owned()))
    }
}

impl fmt::Display for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.share().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_from_0_to_1() {
        for (text, share) in [
            ("0", Some(0.0)),
            ("1", Some(1.0)),
            ("0.25", Some(0.25)),
            ("1.5", None),
            ("-1", None),
            ("NaN", None),
            ("half", None),
        ] {
            let parsed = text.parse().ok().map(Sampling::share);
            assert_eq!(parsed, share, "{text}");
        }
    }

    #[test]
    fn a_waypoint_is_told_only_of_a_collector() {
        let sampling = Sampling::new(0.5).unwrap();
        let told = |endpoint: Option<&str>| {
            let endpoint = endpoint.map(|text| text.parse().unwrap());
            Settings { endpoint, sampling }.arguments()
        };
        assert_eq!(told(None), Vec::<String>::new());
        assert_eq!(
            told(Some("http://collector:4317")),
            [
                "--otlp-endpoint=http://collector:4317/",
                "--trace-sampling=0.5"
            ]
        );
    }
}
