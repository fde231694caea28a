//! Where a connection goes: the service's endpoints, and the way to each.

use std::{cell::Cell, net::SocketAddr, sync::Arc};

use super::{
    KernelVerdict, NodeFacts, Question, Step,
    client::{Client, described, enrolment},
};
use crate::{
    discovery::{
        model::{Endpoint, Service, Workload},
        store::Snapshot,
    },
    proxy::route::{self, NoRoute, Request, Route},
};

/// Endpoints of a service that are looked at; it is the same with those beyond, almost always.
const LOOKED_AT: usize = 64;

/// The ways that such a connection may take: one for each endpoint that it may be sent to. At least one.
pub(super) struct Found {
    pub(super) ways: Vec<Request>,
}

impl Found {
    /// Of the pods that it may end at.
    pub(super) fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.ways.iter().filter_map(|way| way.route.workload())
    }
}

/// `None`: there is no way.
pub(super) fn steps(
    steps: &mut Vec<Step>,
    snapshot: &Snapshot,
    facts: &dyn NodeFacts,
    question: &Question,
    client: &Client<'_>,
) -> Option<Found> {
    let asked = &question.destination;
    let found = find(snapshot, facts, question, client);
    if let Some(service) = &asked.service {
        steps.push(of_service(service, asked.port, &found));
    }
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            if asked.service.is_none() || matches!(error, NoRoute::NoWaypoint { .. }) {
                steps.push(no_way(&error));
            }
            return None;
        }
    };
    let workloads: Vec<_> = found.workloads().collect();
    match workloads[..] {
        [] if asked.service.is_none() => {
            let text = "no pod that the mesh knows: whatever is sent there is left as it is";
            steps.push(Step::note("destination", text));
        }
        [] => {}
        [pod, ..] => {
            steps.push(Step::ok("destination", described(pod)));
            steps.push(enrolment("destination", pod));
        }
    }
    let first = found.ways.first()?;
    steps.push(of_way(first, client));
    kernel(steps, facts, first, client);
    Some(found)
}

/// Every way that the product would choose among.
fn find(
    snapshot: &Snapshot,
    facts: &dyn NodeFacts,
    question: &Question,
    client: &Client<'_>,
) -> Result<Found, NoRoute> {
    let asked = &question.destination;
    let node = client.pod.map_or(facts.node(), |pod| &*pod.node);
    let Some(address) = asked.address else {
        let service = asked.service.as_ref();
        return Err(NoRoute::NoEndpoint {
            service: service.map(|it| it.name.to_string()).unwrap_or_default(),
            port: asked.port,
        });
    };
    let mut ways = Vec::new();
    let choices = Cell::new(1);
    while ways.len() < choices.get().min(LOOKED_AT) {
        let choose = |endpoints: &[&Endpoint]| {
            choices.set(endpoints.len());
            ways.len()
        };
        let way = match client.identity {
            Some(identity) => {
                let asking = route::Client {
                    node,
                    identity,
                    missing: facts.missing(),
                    out_of_reach: &[],
                };
                route::route(snapshot, &asking, address, choose)?
            }
            None => as_it_is(snapshot, node, address, choose)?,
        };
        ways.push(way);
    }
    Ok(Found { ways })
}

/// The way of a connection that isn't captured: by kube-proxy, if that is how services are served.
fn as_it_is(
    snapshot: &Snapshot,
    node: &str,
    address: SocketAddr,
    choose: impl Fn(&[&Endpoint]) -> usize,
) -> Result<Request, NoRoute> {
    let service = snapshot.service_by_vip(address).cloned();
    let address = match &service {
        Some(service) => route::endpoint(service, node, address.port(), choose)?,
        None => address,
    };
    Ok(Request {
        service,
        address,
        route: Route::Plain(snapshot.workload_by_address(address.ip()).cloned()),
        waypoint: None,
    })
}

fn of_service(service: &Service, port: u16, found: &Result<Found, NoRoute>) -> Step {
    let all = service.of_port(port).count();
    let vips: Vec<_> = service.vips.iter().map(ToString::to_string).collect();
    let at = match &vips[..] {
        [] => "headless".to_owned(),
        vips => vips.join(" and "),
    };
    let text = format!("{} ({at}) port {port}, {all} ready endpoints", service.name);
    match found {
        Err(error @ (NoRoute::NoEndpoint { .. } | NoRoute::NoLocalEndpoint { .. })) => Step::fails(
            "service",
            error.to_string(),
            "are its pods ready, and do selector and targetPort fit? `kubectl describe service`",
        ),
        _ => Step::ok("service", text),
    }
}

fn no_way(error: &NoRoute) -> Step {
    let cure = match error {
        NoRoute::NoWaypoint { waypoint } => format!(
            "see why it isn't ready: kubectl -n {} describe gateway {}",
            waypoint.namespace, waypoint.name
        ),
        NoRoute::NoEndpoint { .. } | NoRoute::NoLocalEndpoint { .. } => {
            "see `ambit services`".to_owned()
        }
    };
    Step::fails("route", error.to_string(), cure)
}

fn of_way(way: &Request, client: &Client<'_>) -> Step {
    let missing = match &way.waypoint {
        Some(waypoint) if !way.is_by_waypoint() => {
            format!(
                ", without waypoint {}, which isn't ready (--waypoint-missing allow)",
                waypoint.name
            )
        }
        _ => String::new(),
    };
    match &way.route {
        Route::Local(pod) => {
            let node = &pod.node;
            Step::ok("route", format!("both pods are on node {node}{missing}"))
        }
        Route::Tunnel { workload, via } => Step::ok(
            "route",
            format!("HBONE to {via} on node {}{missing}", workload.node),
        ),
        Route::Waypoint { waypoint, via, .. } => Step::ok(
            "route",
            format!("through waypoint {} by HBONE to {via}", waypoint.name),
        ),
        Route::Plain(pod) => {
            let who = match (client.identity, pod) {
                (None, _) => "the source isn't captured",
                (Some(_), Some(_)) => "the destination isn't enrolled",
                (Some(_), None) => "the destination isn't of the mesh",
            };
            Step::note("route", format!("as it is, in plaintext: {who}"))
        }
    }
}

/// Whether connections from pod to pod need the agent.
fn kernel(steps: &mut Vec<Step>, facts: &dyn NodeFacts, way: &Request, client: &Client<'_>) {
    let (Route::Local(pod), Some(identity), true) = (&way.route, client.identity, client.is_here)
    else {
        return;
    };
    let text = match facts.verdict(identity, &pod.uid, way.address.port()) {
        KernelVerdict::Off => "the agent carries every connection (--same-node proxy)".to_owned(),
        KernelVerdict::Passes(generation) => format!(
            "allowed in generation {generation}: new ones pass from pod to pod without the agent"
        ),
        KernelVerdict::Asks(generation) => format!(
            "nothing decided in generation {generation}: the next one goes through the agent"
        ),
    };
    steps.push(Step::note("kernel verdict", text));
}
