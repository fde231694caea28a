//! Whether policy allows a connection, and which.

use std::sync::Arc;

use super::{Question, Step, client::Client, way::Found};
use crate::{
    discovery::{
        model::{AppProtocol, ObjectName, Waypoint, Workload},
        store::Snapshot,
    },
    policy::{
        self, Connection, Denied, RuleName, Through, ViaWaypoint, WaypointScope,
        evaluate::mtls::effective_mtls,
    },
    proxy::route::{Request, Route},
};

/// What is said of one way.
enum Judgement {
    /// It is allowed.
    Allowed(String),
    /// Nobody asks.
    Unasked(String),
    /// It follows from what each request says.
    Requests(String),
    /// It isn't.
    Denied(Denied),
}

/// Says what policy says of all ways, and gives the way that is worth following: the first that is refused, or
/// else the first.
pub(super) fn steps<'f>(
    steps: &mut Vec<Step>,
    snapshot: &Snapshot,
    question: &Question,
    client: &Client<'_>,
    found: &'f Found,
) -> &'f Request {
    let judged: Vec<_> = found
        .ways
        .iter()
        .map(|way| (way, judge(snapshot, question, client, way)))
        .collect();
    let is_denied = |judgement: &Judgement| matches!(judgement, Judgement::Denied(_));
    let refused = judged.iter().filter(|(_, it)| is_denied(it)).count();
    let worst = judged.iter().find(|(_, it)| is_denied(it));
    // There is always one.
    let (way, judgement) = worst.unwrap_or(&judged[0]);
    let among = match (judged.len(), refused) {
        (1, _) | (_, 0) => String::new(),
        (all, refused) => format!(" ({refused} of {all} endpoints refuse, as {})", way.address),
    };
    steps.push(match judgement {
        Judgement::Allowed(text) => Step::ok("policy", text),
        Judgement::Unasked(text) | Judgement::Requests(text) => Step::note("policy", text),
        Judgement::Denied(denied) => {
            Step::fails("policy", format!("{denied}{among}"), cure(denied, client))
        }
    });
    if let Some(dry_run) = dry_run(snapshot, client, way) {
        steps.push(Step::note("dry run", dry_run));
    }
    way
}

fn judge(
    snapshot: &Snapshot,
    question: &Question,
    client: &Client<'_>,
    way: &Request,
) -> Judgement {
    if let Route::Waypoint { waypoint, .. } = &way.route {
        return at_waypoint(snapshot, question, client, way, waypoint);
    }
    let enrolled = way.route.workload().filter(|pod| pod.is_enrolled());
    let Some(pod) = enrolled else {
        return Judgement::Unasked("none is asked: the destination isn't enrolled".to_owned());
    };
    let port = way.address.port();
    if client.identity.is_none() && pod.exclusions.inbound_ports.contains(&port) {
        return Judgement::Unasked(format!(
            "none is asked: annotation ambit.dev/exclude-inbound-ports of the destination has {port}"
        ));
    }
    match policy::evaluate(snapshot.policies(), &connection(snapshot, client, way, pod)) {
        Ok(permit) => Judgement::Allowed(allowed(snapshot, permit.rule(), pod, port)),
        Err(denied) => Judgement::Denied(denied),
    }
}

fn connection<'a>(
    snapshot: &'a Snapshot,
    client: &Client<'a>,
    way: &'a Request,
    pod: &'a Workload,
) -> Connection<'a> {
    let through = match &way.route {
        // As the waypoint asks, in the client's name.
        Route::Waypoint { .. } => Through::None,
        Route::Local(_) | Route::Tunnel { .. } | Route::Plain(_) => {
            snapshot.through(client.identity, pod)
        }
    };
    Connection {
        source: client.identity,
        source_address: client.address,
        destination: pod,
        destination_address: way.address,
        through,
        request: None,
    }
}

fn allowed(snapshot: &Snapshot, rule: Option<&RuleName>, pod: &Workload, port: u16) -> String {
    let policies = snapshot.policies();
    let applying = policies.authorizations_for(pod).count();
    let by = match (rule, applying) {
        (Some(rule), _) => format!("allowed by AuthorizationPolicy {rule}"),
        (None, 0) => "allowed: no AuthorizationPolicy is for the destination".to_owned(),
        (None, _) => "allowed: no DENY rule matches, and no ALLOW policy is for it".to_owned(),
    };
    match effective_mtls(policies, pod, port) {
        Some(mtls) => format!(
            "{by}; PeerAuthentication {} says {}",
            mtls.policy, mtls.mode
        ),
        None => by,
    }
}

/// A waypoint asks two sets of policies: those attached to it or to the service, and those of the pod.
fn at_waypoint(
    snapshot: &Snapshot,
    question: &Question,
    client: &Client<'_>,
    way: &Request,
    waypoint: &Waypoint,
) -> Judgement {
    let policies = snapshot.policies();
    let service = way.service.as_deref();
    let scope = WaypointScope {
        gateway: &waypoint.name,
        service: service.map(|service| &service.name),
    };
    let port = question.destination.port;
    let is_tcp = service.is_some_and(|it| it.protocol(port) == AppProtocol::Tcp);
    let pods = behind(snapshot, way);
    let of_pods = pods.iter().flat_map(|pod| policies.authorizations_for(pod));
    let all = policies.authorizations_at(&scope).chain(of_pods);
    let mut by_request: Vec<&ObjectName> = all
        .filter(|policy| !policy.dry_run)
        .filter(|policy| policy.rules.iter().any(|rule| !rule.http_fields.is_empty()))
        .map(|policy| &policy.name)
        .collect();
    by_request.sort();
    by_request.dedup();
    if !is_tcp && !by_request.is_empty() {
        let names: Vec<_> = by_request.iter().map(ToString::to_string).collect();
        return Judgement::Requests(format!(
            "the waypoint decides each request: AuthorizationPolicy {} asks about HTTP (the waypoint's log \
             says which rule refused)",
            names.join(", ")
        ));
    }
    let attached = ViaWaypoint {
        source: client.identity,
        source_address: client.address,
        asked_for: way.address,
        request: None,
    };
    if let Err(denied) = policy::evaluate_at_waypoint(policies, &scope, &attached) {
        return Judgement::Denied(denied);
    }
    for pod in &pods {
        if let Err(denied) = policy::evaluate(policies, &connection(snapshot, client, way, pod)) {
            return Judgement::Denied(denied);
        }
    }
    let routes = service.and_then(|service| snapshot.routes_of(&service.name));
    Judgement::Allowed(match routes {
        Some(_) => "allowed by the waypoint's policies and the pods'; routes say where requests go"
            .to_owned(),
        None => "allowed by the waypoint's policies and the pods'".to_owned(),
    })
}

/// The enrolled pods that a waypoint may send a connection to, if no route says otherwise.
fn behind(snapshot: &Snapshot, way: &Request) -> Vec<Arc<Workload>> {
    let addressed = way.route.workload().cloned().into_iter();
    let endpoints = way.service.iter().flat_map(|service| {
        let endpoints = service.of_port(way.address.port());
        endpoints.filter_map(|endpoint| snapshot.workload_by_address(endpoint.address).cloned())
    });
    let all = addressed.chain(endpoints);
    all.filter(|pod| pod.is_enrolled()).collect()
}

fn dry_run(snapshot: &Snapshot, client: &Client<'_>, way: &Request) -> Option<String> {
    let pod = way.route.workload().filter(|pod| pod.is_enrolled())?;
    let connection = connection(snapshot, client, way, pod);
    let said = policy::dry_run(snapshot.policies(), &connection)?;
    Some(said.to_string())
}

fn cure(denied: &Denied, client: &Client<'_>) -> String {
    let see = |policy: &ObjectName| {
        format!(
            "kubectl -n {} get authorizationpolicy {} -o yaml",
            policy.namespace, policy.name
        )
    };
    match denied {
        Denied::ByPolicy { rule } => {
            format!("change the rule if it's wrong: {}", see(&rule.policy))
        }
        Denied::NotAllowed { policies, .. } => {
            let who = match client.identity {
                Some(identity) => format!(
                    "principal {}/ns/{}/sa/{}",
                    identity.trust_domain(),
                    identity.namespace(),
                    identity.service_account()
                ),
                None => format!("address {}", client.address),
            };
            let policy = policies.first().map(see).unwrap_or_default();
            format!("add a rule for {who}: {policy}")
        }
        Denied::PastWaypoint { .. } => {
            "the source must be captured by an agent that knows of the waypoint".to_owned()
        }
        Denied::PlaintextRefused { .. } => match client.pod {
            Some(pod) => format!(
                "enrol the source (label namespace {} ambit.dev/mesh=enabled), or set the policy to PERMISSIVE",
                pod.name.namespace
            ),
            None => "let the client come from an enrolled pod, or set the policy to PERMISSIVE"
                .to_owned(),
        },
    }
}
