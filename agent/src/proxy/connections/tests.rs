use std::{collections::HashSet, net::IpAddr};

use super::{
    verdict::{Present, check},
    *,
};
use crate::{
    discovery::{
        model::{Enrolment, WorkloadUid},
        store::{AddressChange, ServiceChange, Update, WorkloadChange},
    },
    policy::{Connection, Denied},
    telemetry::{
        Outcome, ResponseFlags,
        fixtures::{denied_by, object, service, workload},
    },
};

const NODE: &str = "node-b";

fn connection() -> OpenConnection {
    let source = workload("web", "client", "node-a");
    OpenConnection {
        reporter: Reporter::Destination,
        source_identity: Some(source.identity.clone()),
        source: Some(source),
        source_address: ([10, 0, 0, 1], 40_000).into(),
        destination: Some(workload("shop", "server", NODE)),
        destination_address: ([10, 0, 1, 1], 8080).into(),
        service: Some(object("shop", "front")),
        waypoint: None,
        decided: Decided::ByServer,
        transfer: Arc::default(),
    }
}

/// A connection that no workload of the mesh is known to take part in, so that any snapshot will
/// do.
fn unrelated() -> OpenConnection {
    OpenConnection {
        source: None,
        destination: None,
        ..connection()
    }
}

fn connections(limit: usize) -> Arc<Connections> {
    let limits = Limits {
        total: limit,
        per_pod: usize::MAX,
    };
    Arc::new(Connections::new(NODE.into(), limits))
}

/// The same pod under another service account.
fn with_account(workload: &Arc<Workload>, account: &str) -> Arc<Workload> {
    let identity = Identity::new("cluster.local", workload.identity.namespace(), account);
    Arc::new(Workload {
        identity,
        ..Workload::clone(workload)
    })
}

#[test]
fn a_connection_stays_while_its_ends_are_who_they_were_and_policy_allows_it() {
    let open = connection();
    let source = open.source.clone().unwrap();
    let destination = open.destination.clone().unwrap();
    let elsewhere = workload("shop", "server", "node-c");
    let both = [source.clone(), destination.clone()];
    let gone = |end, name: &str| CloseReason::Gone {
        end,
        workload: object(if name == "client-0" { "web" } else { "shop" }, name),
    };
    let changed = |end, before: &Arc<Workload>, now: &Arc<Workload>| CloseReason::IdentityChanged {
        end,
        workload: before.name.clone(),
        now: now.identity.clone(),
    };
    let denied = || Err(denied_by("lock-down"));
    let new_source = with_account(&source, "other");
    let new_destination = with_account(&destination, "other");

    type Verdict = Result<(), Denied>;
    let unenrolled = OpenConnection {
        destination: Some(left(&destination)),
        ..open.clone()
    };
    let of_nobody = OpenConnection {
        destination: None,
        ..open.clone()
    };
    let joined = || CloseReason::JoinedMesh {
        workload: destination.name.clone(),
    };
    let case = |name: &str,
                connection: &OpenConnection,
                known: &[Arc<Workload>],
                policy: Verdict,
                expected: Option<CloseReason>| {
        let present = Present {
            workload: |uid: &WorkloadUid| known.iter().find(|workload| workload.uid == *uid),
            holder: |address| {
                let mut servers = known
                    .iter()
                    .filter(|workload| workload.node.as_ref() == NODE);
                servers.find(|_| address == connection.destination_address.ip())
            },
            evaluate: |_: &Connection<'_>| policy.clone(),
        };
        assert_eq!(check(&present, NODE, connection).err(), expected, "{name}");
    };
    case("nothing changed", &open, &both, Ok(()), None);
    case(
        "policy denies",
        &open,
        &both,
        denied(),
        Some(CloseReason::Denied(denied_by("lock-down"))),
    );
    case(
        "the client's pod ended",
        &open,
        &both[1..],
        Ok(()),
        Some(gone(End::Source, "client-0")),
    );
    case(
        "the server's pod ended",
        &open,
        &both[..1],
        Ok(()),
        Some(gone(End::Destination, "server-0")),
    );
    for (name, end, pods) in [
        (
            "the client left the mesh",
            End::Source,
            [left(&source), destination.clone()],
        ),
        (
            "the server left the mesh",
            End::Destination,
            [source.clone(), left(&destination)],
        ),
    ] {
        let workload = if end == End::Source {
            &source
        } else {
            &destination
        };
        let reason = CloseReason::LeftMesh {
            end,
            workload: workload.name.clone(),
        };
        case(name, &open, &pods, Ok(()), Some(reason));
    }
    for (name, connection, server, expected) in [
        (
            "the server joined the mesh",
            &unenrolled,
            &destination,
            Some(joined()),
        ),
        (
            "the server is still outside",
            &unenrolled,
            &left(&destination),
            None,
        ),
        (
            "an unknown server turns out to be enrolled",
            &of_nobody,
            &destination,
            Some(joined()),
        ),
        (
            "an unknown server turns out not to be",
            &of_nobody,
            &left(&destination),
            None,
        ),
    ] {
        let pods = [source.clone(), server.clone()];
        case(name, connection, &pods, denied(), expected);
    }
    case(
        "the client has another service account",
        &open,
        &[new_source.clone(), destination.clone()],
        Ok(()),
        Some(changed(End::Source, &source, &new_source)),
    );
    case(
        "the server has another service account",
        &open,
        &[source.clone(), new_destination.clone()],
        Ok(()),
        Some(changed(End::Destination, &destination, &new_destination)),
    );
    let outbound = OpenConnection {
        reporter: Reporter::Source,
        destination: Some(elsewhere.clone()),
        ..open.clone()
    };
    case(
        "policy is the other node's business",
        &outbound,
        &[source.clone(), elsewhere],
        denied(),
        None,
    );
    let same_node = OpenConnection {
        reporter: Reporter::Source,
        ..open.clone()
    };
    case(
        "one agent has both ends",
        &same_node,
        &both,
        denied(),
        Some(CloseReason::Denied(denied_by("lock-down"))),
    );
    case(
        "to a server outside the mesh",
        &unrelated(),
        &[],
        denied(),
        None,
    );
}

fn left(workload: &Arc<Workload>) -> Arc<Workload> {
    let enrolment = Enrolment::NotLabelled;
    Arc::new(Workload {
        enrolment,
        ..(**workload).clone()
    })
}

#[test]
fn policy_is_asked_about_the_connection_as_it_is() {
    let mut open = connection();
    open.source = None;
    let known = open.destination.clone().unwrap();
    let present = Present {
        workload: |_: &WorkloadUid| Some(&known),
        holder: |_| None,
        evaluate: |asked: &Connection<'_>| {
            assert_eq!(asked.source, open.source_identity.as_ref());
            assert_eq!(asked.source_address, IpAddr::from([10, 0, 0, 1]));
            assert_eq!(asked.destination, &*known);
            assert_eq!(asked.destination_address, open.destination_address);
            Err(denied_by("asked"))
        },
    };
    assert!(check(&present, NODE, &open).is_err());
}

#[tokio::test]
async fn a_closed_connection_is_told_why_and_only_it() {
    let connections = connections(10);
    let snapshot = Snapshot::default();
    let mut guards = Vec::new();
    for port in [8080, 9090] {
        let mut connection = connection();
        connection.destination_address.set_port(port);
        guards.push(connections.register(connection, &snapshot).unwrap());
    }
    let denies_8080 = |connection: &OpenConnection| {
        let port = connection.destination_address.port();
        (port == 8080).then(|| CloseReason::Denied(denied_by("lock-down")))
    };
    assert_eq!(connections.close_where(denies_8080), 1);
    assert_eq!(connections.close_where(denies_8080), 0, "closed before");

    guards[0].token().cancelled().await;
    let reason = guards[0].closed_by().unwrap();
    assert_eq!(*reason, CloseReason::Denied(denied_by("lock-down")));
    assert!(
        matches!(reason.outcome(), Outcome::Denied(denied) if *denied == denied_by("lock-down"))
    );
    assert_eq!(guards[1].closed_by(), None);
    assert!(!guards[1].token().is_cancelled());
}

#[tokio::test]
async fn what_a_connection_waits_for_is_given_up_when_it_must_end() {
    let connections = connections(10);
    let guard = connections
        .register(unrelated(), &Snapshot::default())
        .unwrap();
    assert_eq!(guard.unless_closed(async { 7 }).await, Ok(7));
    let (waited, closed) = tokio::join!(guard.unless_closed(std::future::pending::<()>()), async {
        connections.close_all(&CloseReason::Drained)
    });
    assert_eq!((waited, closed), (Err(CloseReason::Drained), 1));
}

#[test]
fn reevaluation_closes_connections_of_workloads_that_are_gone() {
    let connections = connections(10);
    let snapshot = Arc::<Snapshot>::default();
    let of_the_mesh = connections.register(connection(), &snapshot).unwrap();
    let other = connections.register(unrelated(), &snapshot).unwrap();
    assert_eq!(connections.reevaluate(&snapshot, &Concern::Everything), 1);
    let reason = of_the_mesh.closed_by().unwrap();
    assert_eq!(
        reason.to_string(),
        "the client's workload web/client-0 is gone"
    );
    let flags = match reason.outcome() {
        Outcome::Failed { flags, .. } => Some(flags),
        Outcome::Complete | Outcome::Denied(_) | Outcome::Refused(_) => None,
    };
    assert_eq!(flags, Some(ResponseFlags::None));
    assert_eq!(other.closed_by(), None);
}

#[test]
fn a_change_is_applied_to_the_connections_that_it_can_concern() {
    let gone = |workload: &Option<Arc<Workload>>| WorkloadChange {
        before: workload.clone(),
        after: None,
    };
    let open = connection();
    let nobodys = unrelated();
    let update = Update {
        snapshot: Arc::default(),
        workloads: Vec::new(),
        addresses: Vec::new(),
        services: Vec::new(),
        waypoints_changed: false,
        routes_changed: false,
        policies_changed: false,
    };
    let services_only = Update {
        services: vec![ServiceChange {
            before: Some(service("shop", "front")),
            after: None,
        }],
        ..update.clone()
    };
    assert_eq!(Concern::of(&services_only), None);

    let new_holder = |address: IpAddr| AddressChange {
        address,
        before: None,
        after: open.destination.clone(),
    };
    let at = open.destination_address.ip();
    let elsewhere = WorkloadChange {
        before: None,
        after: Some(workload("shop", "another", NODE)),
    };
    let table = [
        (
            "client",
            vec![gone(&open.source)],
            vec![],
            false,
            [true, false],
        ),
        (
            "server",
            vec![gone(&open.destination)],
            vec![],
            false,
            [true, false],
        ),
        (
            "another pod",
            vec![elsewhere.clone()],
            vec![],
            false,
            [false, false],
        ),
        // Whose server was a pod when it was decided goes by that pod.
        (
            "its address",
            vec![],
            vec![new_holder(at)],
            false,
            [false, true],
        ),
        (
            "another address",
            vec![],
            vec![new_holder([10, 9, 9, 9].into())],
            false,
            [false, false],
        ),
        ("policies", vec![], vec![], true, [true, true]),
        (
            "policies and another pod",
            vec![elsewhere],
            vec![],
            true,
            [true, true],
        ),
    ];
    for (what, workloads, addresses, policies_changed, expected) in table {
        let is_about_workloads = !policies_changed || !workloads.is_empty();
        let concern = Concern::of(&Update {
            workloads,
            addresses,
            policies_changed,
            ..update.clone()
        });
        let concern = concern.unwrap();
        assert_eq!(
            [&open, &nobodys].map(|it| concern.includes(it)),
            expected,
            "{what}"
        );
        assert_eq!(concern.is_about_workloads(), is_about_workloads, "{what}");
    }
    let all = Concern::Everything;
    assert!(all.includes(&nobodys) && all.is_about_workloads());
}

#[test]
fn only_connections_that_a_change_concerns_are_decided_again() {
    let connections = connections(10);
    let snapshot = Arc::<Snapshot>::default();
    let guard = connections.register(connection(), &snapshot).unwrap();
    let nobody = Concern::Pods {
        workloads: HashSet::new(),
        addresses: HashSet::new(),
    };
    assert_eq!(connections.reevaluate(&snapshot, &nobody), 0);
    let source = guard.entry.connection.source.clone().unwrap();
    let client = Concern::Pods {
        workloads: HashSet::from([source.uid.clone()]),
        addresses: HashSet::new(),
    };
    assert_eq!(connections.reevaluate(&snapshot, &client), 1);
}

#[test]
fn a_connection_is_listed_until_its_guard_is_dropped() {
    let connections = connections(10);
    let snapshot = Snapshot::default();
    let open = connection();
    open.transfer.add_sent(300);
    let guard = connections.register(open, &snapshot).unwrap();
    let second = connections.register(unrelated(), &snapshot).unwrap();

    let listed = connections.list();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].source.as_deref(), Some("web/client-0"));
    assert_eq!(listed[0].service.as_deref(), Some("shop/front"));
    assert_eq!(listed[0].bytes_sent, 300);
    assert_eq!(listed[1].source, None);
    let text = serde_json::to_string(&listed[0]).unwrap();
    let read: ConnectionView = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);

    drop(guard);
    assert_eq!(connections.list().len(), 1);
    drop(second);
    assert!(connections.is_empty());
}

#[test]
fn a_full_set_refuses_with_the_cure_until_one_leaves() {
    let connections = connections(1);
    let snapshot = Snapshot::default();
    let first = connections.register(unrelated(), &snapshot).unwrap();
    let error = connections.register(unrelated(), &snapshot).unwrap_err();
    assert_eq!(error, RegisterError::Full { limit: 1 });
    assert!(error.to_string().contains("--max-connections"), "{error}");
    drop(first);
    assert!(connections.register(unrelated(), &snapshot).is_ok());
}

#[test]
fn a_pods_share_leaves_room_for_another_and_says_whose_it_is() {
    let connections = connections(8);
    let snapshot = Snapshot::default();
    let mut held: Vec<_> = (0..6)
        .map(|_| connections.register(connection(), &snapshot).unwrap())
        .collect();
    let error = connections.register(connection(), &snapshot).unwrap_err();
    assert_eq!(
        error,
        RegisterError::PodFull {
            pod: Some(object("web", "client-0")),
            open: 6,
        }
    );
    assert!(matches!(error.outcome(), Outcome::Refused(_)));
    // Nobody vouches for this one: it counts for its server.
    let plaintext = || OpenConnection {
        source_identity: None,
        source: None,
        ..connection()
    };
    let other = connections.register(plaintext(), &snapshot).unwrap();
    held.pop();
    held.push(connections.register(connection(), &snapshot).unwrap());
    drop(other);
}
