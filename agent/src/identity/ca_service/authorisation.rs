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
    /// Whether a workload with this identity runs on this node now, or a waypoint that its agent has
    /// started. A waypoint's identity is for nobody else.
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
        match waypoint.filter(|it| it.identity == *identity) {
            // Destinations believe it who the client is: a workload of the same account must not have it.
            Some(waypoint) => match &waypoint.place {
                WaypointPlace::Node(Some(there)) => **there == *node,
                WaypointPlace::Node(None) | WaypointPlace::Pods => false,
            },
            // The node's own alone: a call must not cost more the larger the cluster is.
            None => any_runs_on(snapshot.local_workloads(node), identity, node),
        }
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
        discovery::{
            manifest::{self, Format},
            model::{Enrolment, ObjectName, TelemetryNames, Tunnel, WorkloadUid},
            reduce::Reducer,
            store::{Change, Placement},
        },
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

    /// Gateway shop/w is a waypoint, for node-a if it may choose; shop/i is one of another class. A pod of
    /// account w runs on either node, one of account web on node-a.
    fn store(placement: Placement) -> Store {
        let gateway = |name: &str, class: &str| {
            format!(
                "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{namespace: shop, \
                 name: {name}, annotations: {{ambit.dev/waypoint-node: node-a}}}}, \
                 spec: {{gatewayClassName: {class}, \
                 listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]}}}}\n"
            )
        };
        let pod = |name: &str, account: &str, node: &str, address: &str| {
            format!(
                "---\n{{apiVersion: v1, kind: Pod, metadata: {{namespace: shop, name: {name}, uid: {name}}}, \
                 spec: {{nodeName: {node}, serviceAccountName: {account}}}, \
                 status: {{podIP: {address}, hostIP: 192.0.2.1}}}}\n"
            )
        };
        let yaml = [
            "{apiVersion: v1, kind: Node, metadata: {name: node-a}, \
             status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}\n"
                .to_owned(),
            gateway("w", "ambit-waypoint"),
            gateway("i", "istio-waypoint"),
            pod("w-0", "w", "node-a", "10.0.0.1"),
            pod("w-1", "w", "node-b", "10.0.1.1"),
            pod("web-0", "web", "node-a", "10.0.0.2"),
            pod("i-0", "i", "node-a", "10.0.0.3"),
        ];
        let mut reducer = Reducer::new(shop("w").trust_domain());
        let parsed = manifest::parse(&yaml.concat(), Format::Yaml, &mut reducer).unwrap();
        let store = Store::default();
        store.place_waypoints(placement);
        let objects = parsed.objects.into_iter();
        store.apply(objects.map(|parsed| Change::Upsert(parsed.object)));
        store
    }

    #[test]
    fn a_waypoints_identity_is_for_the_agent_that_runs_it_and_no_other() {
        use Placement::{Nodes, Pods};
        for (placement, account, node, expected) in [
            (Nodes, "w", "node-a", true),
            // A workload of its account is none.
            (Nodes, "w", "node-b", false),
            (Nodes, "w", "", false),
            (Nodes, "web", "node-a", true),
            (Pods, "w", "node-a", false),
            (Pods, "w", "node-b", false),
            (Pods, "web", "node-a", true),
            (Pods, "web", "node-b", false),
            // Of another's class it is but a workload.
            (Pods, "i", "node-a", true),
        ] {
            let allowed = store(placement).runs_on(&shop(account), node);
            assert_eq!(allowed, expected, "{placement:?} {account} {node:?}");
        }
    }

    #[test]
    fn a_waypoint_has_the_identity_of_its_gateway_alone() {
        let store = store(Placement::Pods);
        let other_namespace = Identity::new(shop("w").trust_domain(), "street", "w");
        for (identity, namespace, name, expected) in [
            (shop("w"), "shop", "w", true),
            (shop("web"), "shop", "w", false),
            (shop("i"), "shop", "w", false),
            (Identity::new("elsewhere", "shop", "w"), "shop", "w", false),
            (other_namespace.clone(), "shop", "w", false),
            (other_namespace, "street", "w", false),
            // No Gateway, or one of another class.
            (shop("web"), "shop", "web", false),
            (shop("i"), "shop", "i", false),
        ] {
            let gateway = ObjectName {
                namespace: namespace.into(),
                name: name.into(),
            };
            let allowed = store.is_waypoint(&identity, &gateway);
            assert_eq!(allowed, expected, "{identity} for {gateway}");
        }
    }
}
