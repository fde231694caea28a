//! Workloads and connections for tests.

use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use super::{
    ConnectionDescription, Metrics, Reporter,
    metrics::{MetricsOptions, Page},
};
use crate::{
    discovery::model::{
        Enrolment, ObjectName, Service, TelemetryNames, TrafficDistribution, Tunnel, Workload,
        WorkloadUid,
    },
    identity::Identity,
    policy::{Denied, RuleName},
};

pub(crate) fn object(namespace: &str, name: &str) -> ObjectName {
    ObjectName {
        namespace: namespace.into(),
        name: name.into(),
    }
}

/// A pod `<name>-0` of Deployment `<name>` on `node`.
pub(crate) fn workload(namespace: &str, name: &str, node: &str) -> Arc<Workload> {
    let pod = object(namespace, &format!("{name}-0"));
    Arc::new(Workload {
        uid: WorkloadUid(format!("uid of {pod}").into()),
        name: pod,
        addresses: vec![[10, 0, 0, 1].into()],
        node: node.into(),
        node_addresses: vec![[192, 0, 2, 1].into()],
        identity: Identity::new("cluster.local", namespace, name),
        enrolment: Enrolment::Enrolled,
        labels: Arc::default(),
        exclusions: Arc::default(),
        tunnel: Tunnel::NodeAgent,
        waypoint: None,
        ready: true,
        terminating: false,
        telemetry: Arc::new(TelemetryNames {
            workload: name.into(),
            workload_type: "deployment".into(),
            canonical_service: format!("{name}-canonical").into(),
            canonical_revision: "r1".into(),
            app: format!("{name}-app").into(),
            version: "v1".into(),
        }),
    })
}

pub(crate) fn service(namespace: &str, name: &str) -> Arc<Service> {
    Arc::new(Service {
        name: object(namespace, name),
        vips: vec![[10, 96, 0, 1].into()],
        ports: Vec::new(),
        traffic_distribution: TrafficDistribution::Any,
        waypoint: None,
        endpoints: Arc::new([]),
    })
}

/// From `web/client` to `shop/server` by service `shop/front`, over HBONE, everything known.
pub(crate) fn description() -> ConnectionDescription {
    let source = workload("web", "client", "node-a");
    let destination = workload("shop", "server", "node-b");
    ConnectionDescription {
        reporter: Reporter::Source,
        source_identity: Some(source.identity.clone()),
        source: Some(source),
        source_address: ([10, 0, 0, 1], 40_000).into(),
        destination_identity: Some(destination.identity.clone()),
        destination: Some(destination),
        destination_address: ([192, 0, 2, 2], 15_008).into(),
        hbone_address: Some(([10, 0, 1, 1], 8080).into()),
        service: Some(service("shop", "front")),
        secured: true,
        passed: false,
        waypoint: None,
    }
}

/// From an address that nothing is known of, in plaintext.
pub(crate) fn stranger() -> ConnectionDescription {
    ConnectionDescription {
        reporter: Reporter::Destination,
        source: None,
        source_identity: None,
        destination_address: ([10, 0, 1, 1], 8080).into(),
        hbone_address: None,
        service: None,
        secured: false,
        ..description()
    }
}

/// Denied by policy `shop/<name>`.
pub(crate) fn denied_by(name: &str) -> Denied {
    Denied::ByPolicy {
        rule: RuleName {
            policy: object("shop", name),
            index: 0,
        },
    }
}

pub(crate) fn metrics() -> Arc<Metrics> {
    Metrics::new(MetricsOptions::default()).unwrap()
}

/// The labels of all traffic that [`description`] tells of, in Istio's order, with `own` where a family has its own.
pub(crate) fn traffic<'a>(
    reporter: &'a str,
    own: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let mut labels = vec![
        ("reporter", reporter),
        ("source_workload", "client"),
        ("source_canonical_service", "client-canonical"),
        ("source_canonical_revision", "r1"),
        ("source_workload_namespace", "web"),
        (
            "source_principal",
            "spiffe://cluster.local/ns/web/sa/client",
        ),
        ("source_app", "client-app"),
        ("source_version", "v1"),
        ("source_cluster", "Kubernetes"),
        ("destination_service", "front.shop.svc.cluster.local"),
        ("destination_service_namespace", "shop"),
        ("destination_service_name", "front"),
        ("destination_workload", "server"),
        ("destination_canonical_service", "server-canonical"),
        ("destination_canonical_revision", "r1"),
        ("destination_workload_namespace", "shop"),
        (
            "destination_principal",
            "spiffe://cluster.local/ns/shop/sa/server",
        ),
        ("destination_app", "server-app"),
        ("destination_version", "v1"),
        ("destination_cluster", "Kubernetes"),
    ];
    labels.extend_from_slice(own);
    labels.push(("connection_security_policy", "mutual_tls"));
    labels
}

/// A sample of the exposition text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    /// In their order.
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

impl Sample {
    pub(crate) fn pairs(&self) -> Vec<(&str, &str)> {
        let pairs = self.labels.iter();
        pairs.map(|(name, value)| (&**name, &**value)).collect()
    }

    pub(crate) fn label(&self, name: &str) -> &str {
        let found = self.labels.iter().find(|(label, _)| label == name);
        found.map_or("", |(_, value)| value)
    }
}

/// Every sample of the page, or of the families whose names start with `prefix`.
///
/// Values with escapes aren't needed and not understood.
pub(crate) fn scrape(metrics: &Metrics, prefix: &str) -> Vec<Sample> {
    let page = metrics.encode().unwrap();
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').unwrap();
        let pairs = labels.split_terminator("\",").map(|pair| {
            let (label, value) = pair.split_once("=\"").unwrap();
            (label.to_owned(), value.trim_end_matches('"').to_owned())
        });
        Sample {
            name: name.to_owned(),
            labels: pairs.collect(),
            value: value.parse().unwrap(),
        }
    });
    samples.filter(|s| s.name.starts_with(prefix)).collect()
}

/// The only sample of `name` with these labels, among others.
pub(crate) fn value(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let samples = scrape(metrics, name).into_iter().filter(|sample| {
        let same = |(label, value): &(&str, &str)| sample.label(label) == *value;
        sample.name == name && labels.iter().all(same)
    });
    let found: Vec<_> = samples.collect();
    assert!(found.len() <= 1, "{found:?}");
    found.first().map(|sample| sample.value)
}

/// A log that is kept in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
