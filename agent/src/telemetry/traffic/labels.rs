//! Which series a connection counts in.

use std::sync::Arc;

use super::Traffic;
use crate::{
    discovery::model::{ObjectName, TelemetryNames, Workload},
    identity::Identity,
    telemetry::{Reporter, ResponseFlags},
};

const UNKNOWN: &str = "unknown";

/// The labels of every family here, in Istio's order.
pub(super) const LABELS: &[&str] = &[
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
];

/// One end of a connection, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(in crate::telemetry) struct Peer {
    workload: Option<(Arc<str>, Arc<TelemetryNames>)>,
    principal: Option<Identity>,
}

impl Peer {
    pub(in crate::telemetry) fn new(
        workload: Option<&Arc<Workload>>,
        principal: Option<&Identity>,
    ) -> Self {
        let names = |w: &Arc<Workload>| (w.name.namespace.clone(), w.telemetry.clone());
        Self {
            workload: workload.map(names),
            principal: principal.cloned(),
        }
    }

    fn labels(&self, cluster: &str) -> [String; 8] {
        let principal = self.principal.as_ref();
        let principal = principal.map_or_else(|| UNKNOWN.into(), ToString::to_string);
        match &self.workload {
            Some((namespace, names)) => [
                names.workload.to_string(),
                names.canonical_service.to_string(),
                names.canonical_revision.to_string(),
                namespace.to_string(),
                principal,
                names.app.to_string(),
                names.version.to_string(),
                cluster.into(),
            ],
            None => [
                UNKNOWN.into(),
                UNKNOWN.into(),
                UNKNOWN.into(),
                UNKNOWN.into(),
                principal,
                UNKNOWN.into(),
                UNKNOWN.into(),
                UNKNOWN.into(),
            ],
        }
    }
}

/// All labels but `response_flags`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::telemetry) struct SeriesLabels {
    pub(in crate::telemetry) reporter: Reporter,
    pub(in crate::telemetry) source: Peer,
    pub(in crate::telemetry) destination: Peer,
    pub(in crate::telemetry) service: Option<ObjectName>,
    pub(in crate::telemetry) secured: bool,
}

impl SeriesLabels {
    /// What connections count under when there are too many series.
    pub(super) fn unknown(reporter: Reporter) -> Self {
        Self {
            reporter,
            source: Peer::default(),
            destination: Peer::default(),
            service: None,
            secured: false,
        }
    }

    /// A value for each of [`LABELS`].
    pub(super) fn values(&self, flags: ResponseFlags, traffic: &Traffic) -> Vec<String> {
        let service = match &self.service {
            Some(name) => [
                traffic.service_host(name),
                name.namespace.to_string(),
                name.name.to_string(),
            ],
            None => [UNKNOWN; 3].map(Into::into),
        };
        let security = if self.secured { "mutual_tls" } else { UNKNOWN };
        let mut values = Vec::with_capacity(LABELS.len());
        values.push(self.reporter.as_str().into());
        values.extend(self.source.labels(&traffic.cluster));
        values.extend(service);
        values.extend(self.destination.labels(&traffic.cluster));
        values.extend(["tcp", flags.as_str(), security].map(Into::into));
        values
    }
}
