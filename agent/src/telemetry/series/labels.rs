//! The labels that connections and requests have in common.

use std::sync::Arc;

use crate::{
    discovery::model::{ObjectName, TelemetryNames, Workload},
    identity::Identity,
    telemetry::{ConnectionDescription, Reporter},
};

const UNKNOWN: &str = "unknown";

/// Istio's labels of traffic in Istio's order: those that all families have, and between them what
/// tells one family from another.
macro_rules! traffic_labels {
    ($($own:literal),* $(,)?) => {
        &[
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
            $($own,)*
            "connection_security_policy",
        ]
    };
}
pub(in crate::telemetry) use traffic_labels;

/// What the cluster is called.
#[derive(Debug, Clone)]
pub(in crate::telemetry) struct ClusterNames {
    /// Labels `source_cluster` and `destination_cluster`.
    pub(in crate::telemetry) cluster: Arc<str>,
    /// The end of services' names.
    pub(in crate::telemetry) domain: Arc<str>,
}

impl ClusterNames {
    /// The service's DNS name.
    pub(in crate::telemetry) fn service_host(&self, service: &ObjectName) -> String {
        service.service_host(&self.domain)
    }
}

/// One end of a connection or request, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(in crate::telemetry) struct Peer {
    pub(in crate::telemetry) workload: Option<(Arc<str>, Arc<TelemetryNames>)>,
    pub(in crate::telemetry) principal: Option<Identity>,
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

/// From whom, to whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::telemetry) struct SeriesLabels {
    pub(in crate::telemetry) reporter: Reporter,
    pub(in crate::telemetry) source: Peer,
    pub(in crate::telemetry) destination: Peer,
    pub(in crate::telemetry) service: Option<ObjectName>,
    pub(in crate::telemetry) secured: bool,
}

impl SeriesLabels {
    /// Of a connection.
    pub(in crate::telemetry) fn of(description: &ConnectionDescription) -> Self {
        let known = description;
        Self {
            reporter: known.reporter,
            source: Peer::new(known.source.as_ref(), known.source_identity.as_ref()),
            destination: Peer::new(
                known.destination.as_ref(),
                known.destination_identity.as_ref(),
            ),
            service: known.service.as_ref().map(|service| service.name.clone()),
            secured: known.secured,
        }
    }

    /// Nothing is known.
    pub(in crate::telemetry) fn unknown(reporter: Reporter) -> Self {
        Self {
            reporter,
            source: Peer::default(),
            destination: Peer::default(),
            service: None,
            secured: false,
        }
    }

    /// A value for each of [`traffic_labels`].
    pub(in crate::telemetry) fn values(
        &self,
        own: impl IntoIterator<Item = String>,
        names: &ClusterNames,
    ) -> Vec<String> {
        let service = match &self.service {
            Some(name) => [
                names.service_host(name),
                name.namespace.to_string(),
                name.name.to_string(),
            ],
            None => [UNKNOWN; 3].map(Into::into),
        };
        let security = if self.secured { "mutual_tls" } else { UNKNOWN };
        let mut values = vec![self.reporter.as_str().into()];
        values.extend(self.source.labels(&names.cluster));
        values.extend(service);
        values.extend(self.destination.labels(&names.cluster));
        values.extend(own);
        values.push(security.into());
        values
    }
}
