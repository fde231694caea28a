//! Istio's documented semantics, rule by rule, and Istio's own examples.

mod examples;
mod http;
mod mtls;
mod properties;
mod rules;
mod waypoints;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Connection, Denied, Permit, Through, evaluate};
use crate::{
    discovery::model::{
        Enrolment, Exclusions, ObjectName, TelemetryNames, Tunnel, Workload, WorkloadUid,
    },
    identity::Identity,
    policy::{PolicySet, parse},
};

/// A client, and the port it connects to.
#[derive(Debug, Clone)]
pub(super) struct Client {
    identity: Option<Identity>,
    address: IpAddr,
    port: u16,
}

/// Service account `web` of namespace `client` at 10.0.0.1, towards port 8080.
fn web() -> Client {
    Client {
        identity: Some(Identity::new("cluster.local", "client", "web")),
        address: [10, 0, 0, 1].into(),
        port: 8080,
    }
}

/// The same without identity.
fn plaintext() -> Client {
    Client {
        identity: None,
        ..web()
    }
}

impl Client {
    fn of(self, trust_domain: &str, namespace: &str, service_account: &str) -> Self {
        Self {
            identity: Some(Identity::new(trust_domain, namespace, service_account)),
            ..self
        }
    }

    fn at(self, address: &str) -> Self {
        Self {
            address: address.parse().unwrap(),
            ..self
        }
    }

    fn on_port(self, port: u16) -> Self {
        Self { port, ..self }
    }
}

/// A workload `httpbin` at 10.1.0.9, labels `app: httpbin` and `version: v1`.
fn httpbin_in(namespace: &str) -> Workload {
    let name: Arc<str> = "httpbin".into();
    Workload {
        uid: WorkloadUid("uid".into()),
        name: ObjectName {
            namespace: namespace.into(),
            name: name.clone(),
        },
        addresses: vec![[10, 1, 0, 9].into()],
        node: "node".into(),
        node_addresses: vec![[192, 0, 2, 1].into()],
        identity: Identity::new("cluster.local", namespace, "httpbin"),
        enrolment: Enrolment::Enrolled,
        labels: Arc::new(BTreeMap::from(
            [("app", "httpbin"), ("version", "v1")].map(|(k, v)| (k.to_owned(), v.to_owned())),
        )),
        exclusions: Arc::new(Exclusions::default()),
        tunnel: Tunnel::NodeAgent,
        waypoint: None,
        ready: true,
        terminating: false,
        telemetry: Arc::new(TelemetryNames {
            workload: name.clone(),
            workload_type: "pod".into(),
            canonical_service: name.clone(),
            canonical_revision: "latest".into(),
            app: name,
            version: "v1".into(),
        }),
    }
}

/// Reads YAML documents of both kinds.
fn policies(yaml: &str) -> PolicySet {
    let mut policies = PolicySet::default();
    for document in serde_norway::Deserializer::from_str(yaml) {
        let value = Value::deserialize(document).unwrap();
        if value.is_null() {
            // YAML sees a document in an empty text too.
            continue;
        }
        if value["kind"] == "PeerAuthentication" {
            policies.insert_peer_authentication(parse::peer_authentication(value).unwrap());
        } else {
            policies.insert_authorization(parse::authorization_policy(value).unwrap());
        }
    }
    policies
}

/// One AuthorizationPolicy, its spec in YAML.
fn policy_in(namespace: &str, name: &str, spec: &str) -> PolicySet {
    let spec: Value = serde_norway::from_str(spec).unwrap();
    let metadata = json!({ "namespace": namespace, "name": name });
    let mut policies = PolicySet::default();
    policies.insert_authorization(
        parse::authorization_policy(json!({ "metadata": metadata, "spec": spec })).unwrap(),
    );
    policies
}

fn judge(policies: &PolicySet, client: &Client, server: &Workload) -> Result<Permit, Denied> {
    evaluate(
        policies,
        &Connection {
            source: client.identity.as_ref(),
            source_address: client.address,
            destination: server,
            destination_address: (server.addresses[0], client.port).into(),
            through: Through::None,
            request: None,
        },
    )
}

/// The verdict in a few words.
fn verdict(policies: &PolicySet, client: &Client, server: &Workload) -> String {
    match judge(policies, client, server) {
        Ok(permit) => match permit.rule() {
            Some(rule) => format!("allowed by {rule}"),
            None => "allowed".to_owned(),
        },
        Err(Denied::ByPolicy { rule }) => format!("denied by {rule}"),
        Err(Denied::NotAllowed { .. }) => "not allowed".to_owned(),
        Err(Denied::PastWaypoint { waypoint }) => format!("not by {waypoint}"),
        Err(Denied::PlaintextRefused { policy, level }) => {
            format!("plaintext refused by {policy} {level}")
        }
    }
}

#[test]
fn a_waypoint_has_decided_and_nobody_else_gets_past_one_that_is_demanded() {
    let waypoint = ObjectName {
        namespace: "foo".into(),
        name: "w".into(),
    };
    let server = httpbin_in("foo");
    let denying = policy_in("foo", "deny", "action: DENY\nrules: [{}]");
    let none = PolicySet::default();
    let lenient = PolicySet::default().letting_past_waypoints(true);
    let denied = Err(Denied::PastWaypoint {
        waypoint: waypoint.clone(),
    });
    let client = web();
    for (policies, through, expected) in [
        (&none, Through::None, Ok(())),
        (&none, Through::Waypoint(&waypoint), Ok(())),
        (&denying, Through::Waypoint(&waypoint), Ok(())),
        (&none, Through::Past(&waypoint), denied.clone()),
        (&denying, Through::Past(&waypoint), denied),
        (&lenient, Through::Past(&waypoint), Ok(())),
    ] {
        let connection = Connection {
            source: client.identity.as_ref(),
            source_address: client.address,
            destination: &server,
            destination_address: (server.addresses[0], 80).into(),
            through,
            request: None,
        };
        let told = evaluate(policies, &connection).map(drop);
        assert_eq!(told, expected, "{through:?}");
    }
}
