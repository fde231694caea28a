//! Services that nobody serves.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{complaint, ledger::Complaint};
use crate::discovery::{
    facts::{Kind, ObjectKey},
    model::{ObjectName, Service},
    store::Store,
};

/// How long a service may be without an endpoint: longer than most pods take to start, or to be replaced.
const GRACE: Duration = Duration::from_secs(60);

/// Since when each service is without an endpoint.
#[derive(Debug, Default)]
pub(super) struct Unserved(HashMap<ObjectName, Instant>);

impl Unserved {
    /// Those of enrolled namespaces that have been without one for too long.
    pub(super) fn look(&mut self, store: &Store, now: Instant) -> Vec<Complaint> {
        let snapshot = store.snapshot();
        let unserved = snapshot.services().filter(|service| is_unserved(service));
        let enrolled = unserved.filter(|service| store.enrols(&service.name.namespace));
        let found: Vec<&Arc<Service>> = enrolled.collect();
        let before = std::mem::take(&mut self.0);
        let since = |service: &Service| before.get(&service.name).copied().unwrap_or(now);
        self.0 = found
            .iter()
            .map(|service| (service.name.clone(), since(service)))
            .collect();
        let mut late: Vec<_> = self
            .0
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= GRACE)
            .map(|(name, _)| told(name))
            .collect();
        late.sort_by(|a, b| a.about.cmp(&b.about));
        late
    }
}

/// Whether clients would find nobody: it can be connected to, but has no endpoint.
fn is_unserved(service: &Service) -> bool {
    !service.vips.is_empty() && !service.ports.is_empty() && service.endpoints.is_empty()
}

fn told(service: &ObjectName) -> Complaint {
    let about = ObjectKey {
        kind: Kind::Service,
        name: service.clone(),
    };
    let note = format!(
        "{about}: no endpoint is ready, so connections to it are reset: are there pods with the labels of \
         spec.selector, and are they ready?"
    );
    complaint(about, "NoEndpoints", note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::{manifest, reduce::Reducer, store::Change};

    fn apply(store: &Store, yaml: &str) {
        let mut reducer = Reducer::new("cluster.local");
        let read = manifest::parse(yaml, manifest::Format::Yaml, &mut reducer).unwrap();
        assert!(read.errors.is_empty(), "{:?}", read.errors);
        let objects = read.objects.into_iter();
        store.apply(objects.map(|parsed| Change::Upsert(parsed.object)));
    }

    fn namespace(name: &str, label: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{ambit.dev/mesh: {label}}}}}}}\n---\n"
        )
    }

    fn service(namespace: &str, name: &str, vip: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{namespace: {namespace}, name: {name}}},
               spec: {{clusterIP: {vip}, selector: {{app: {name}}}, ports: [{{port: 80}}]}}}}\n---\n"
        )
    }

    fn slice(service: &str, address: &str) -> String {
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
               metadata: {{namespace: shop, name: {service}-1, labels: {{kubernetes.io/service-name: {service}}}}},
               endpoints: [{address}], ports: [{{port: 80}}]}}\n---\n"
        )
    }

    #[test]
    fn a_service_of_the_mesh_that_has_no_endpoint_for_long_is_told_of() {
        let store = Store::default();
        apply(
            &store,
            &[
                namespace("shop", "enabled"),
                namespace("other", "disabled"),
                service("shop", "web", "10.0.0.1"),
                service("shop", "headless", "None"),
                service("other", "web", "10.0.0.2"),
            ]
            .concat(),
        );
        let begun = Instant::now();
        let at = |second: u64| begun + Duration::from_secs(second);
        let mut unserved = Unserved::default();
        let names = |late: Vec<Complaint>| -> Vec<String> {
            late.iter().map(|late| late.about.to_string()).collect()
        };
        assert!(unserved.look(&store, at(0)).is_empty());
        assert!(unserved.look(&store, at(59)).is_empty());
        assert_eq!(names(unserved.look(&store, at(60))), ["Service shop/web"]);
        apply(&store, &slice("web", "{addresses: [10.1.0.1]}"));
        assert!(unserved.look(&store, at(70)).is_empty());
        // It is given as long once more.
        apply(&store, &slice("web", ""));
        assert!(unserved.look(&store, at(80)).is_empty());
        assert!(unserved.look(&store, at(139)).is_empty());
        assert_eq!(names(unserved.look(&store, at(140))), ["Service shop/web"]);
    }
}
