//! Which identities a node may ask for: those of workloads and waypoints that run on it. And which a
//! waypoint may.

use std::sync::Arc;

use crate::{
    discovery::{
        model::{ObjectName, WaypointPlace, Workload},
        store::Store,
    },
    identity::Identity,
};

/// Knows what runs where.
pub trait NodeAuthorizer: Send + Sync + 'static {
    /// Whether a workload with this identity runs on this node now.
    fn runs_on(&self, identity: &Identity, node: &str) -> bool;

    /// Whether this is the identity of that Gateway's waypoint.
    fn is_waypoint(&self, identity: &Identity, gateway: &ObjectName) -> bool;
}

/// Workloads that have ended aren't in the store.
impl NodeAuthorizer for Store {
    fn runs_on(&self, identity: &Identity, node: &str) -> bool {
        let snapshot = self.snapshot();
        // Its namespace and account are the Gateway's name.
        let gateway = ObjectName {
            namespace: identity.namespace().into(),
            name: identity.service_account().into(),
        };
        let waypoint = snapshot.waypoint(&gateway);
        let place = waypoint
            .filter(|it| it.identity == *identity)
            .map(|it| &it.place);
        let is_here = |place: &WaypointPlace| matches!(place, WaypointPlace::Node(Some(there)) if **there == *node);
        // The node's own alone: a call must not cost more the larger the cluster is.
        place.is_some_and(is_here) || any_runs_on(snapshot.local_workloads(node), identity, node)
    }

    fn is_waypoint(&self, identity: &Identity, gateway: &ObjectName) -> bool {
        let snapshot = self.snapshot();
        let waypoint = snapshot.waypoint(gateway);
        waypoint.is_some_and(|waypoint| waypoint.identity == *identity)
    }
}

impl<A: NodeAuthorizer + ?Sized> NodeAuthorizer for Arc<A> {
    fn runs_on(&self, identity: &Identity, node: &str) -> bool {
        (**self).runs_on(identity, node)
    }

    fn is_waypoint(&self, identity: &Identity, gateway: &ObjectName) -> bool {
        (**self).is_waypoint(identity, gateway)
    }
}

fn any_runs_on<'a>(
    workloads: impl IntoIterator<Item = &'a Arc<Workload>>,
    identity: &Identity,
    node: &str,
) -> bool {
    let mut workloads = workloads.into_iter();
    // A pod that isn't scheduled yet has an empty node, which no caller may stand for.
    !node.is_empty()
        && workloads.any(|workload| workload.identity == *identity && *workload.node == *node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        discovery::model::{Enrolment, ObjectName, TelemetryNames, Tunnel, WorkloadUid},
        identity::testing::shop,
    };

    fn workload(account: &str, node: &str) -> Arc<Workload> {
        let name = ObjectName {
            namespace: "shop".into(),
            name: account.into(),
        };
        let unknown: Arc<str> = "unknown".into();
        Arc::new(Workload {
            uid: WorkloadUid(format!("{account}@{node}").into()),
            name,
            addresses: Vec::new(),
            node: node.into(),
            node_addresses: Vec::new(),
            identity: shop(account),
            enrolment: Enrolment::Enrolled,
            labels: Arc::default(),
            exclusions: Arc::default(),
            tunnel: Tunnel::NodeAgent,
            waypoint: None,
            ready: false,
            terminating: false,
            telemetry: Arc::new(TelemetryNames {
                workload: Arc::clone(&unknown),
                workload_type: Arc::clone(&unknown),
                canonical_service: Arc::clone(&unknown),
                canonical_revision: Arc::clone(&unknown),
                app: Arc::clone(&unknown),
                version: unknown,
            }),
        })
    }

    #[test]
    fn a_node_stands_for_what_runs_on_it_alone() {
        let workloads = [
            workload("web", "node-a"),
            workload("web", "node-b"),
            workload("db", "node-b"),
            workload("pending", ""),
        ];
        let foreign = Identity::new("elsewhere", "shop", "web");
        for (identity, node, expected) in [
            (shop("web"), "node-a", true),
            (shop("web"), "node-b", true),
            (shop("db"), "node-b", true),
            (shop("db"), "node-a", false),
            (shop("web"), "node-c", false),
            (shop("unknown"), "node-a", false),
            (shop("pending"), "", false),
            (foreign, "node-a", false),
        ] {
            let found = any_runs_on(&workloads, &identity, node);
            assert_eq!(found, expected, "{identity} on {node:?}");
        }
    }
}
