//! The waypoint of mode `ambit+waypoint`: what asks for it, and what it says of itself.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lab::{Lab, Pod, Service};

use super::stage::{NAMESPACE, PORT as SERVER_PORT};

/// The node that it runs on.
pub(super) const NODE: &str = "b";
/// The port of the service.
pub(super) const SERVICE_PORT: u16 = 80;
/// Where metrics and readiness are, if nothing else is said.
const METRICS: u16 = 15089;
const READY: u16 = 15090;
/// How long it may take to be ready.
const DEADLINE: Duration = Duration::from_secs(30);

/// The routes that `deploy/bench/haproxy-http.yaml` has, too.
const OBJECTS: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: w
  namespace: bench
  labels: {istio.io/waypoint-for: service}
  annotations: {ambit.dev/waypoint-node: b}
spec:
  gatewayClassName: ambit-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: far, namespace: bench}
spec:
  parentRefs: [{group: "", kind: Service, name: far, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters:
    - type: URLRewrite
      urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-bench-route, value: old}]}
    backendRefs: [{name: far, port: 80}]
  - matches: [{headers: [{name: x-canary, value: "yes"}]}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-bench-route, value: canary}]}
    backendRefs: [{name: far, port: 80}]
  - filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-bench-route, value: default}]}
    backendRefs: [{name: far, port: 80}]
"#;

/// Has the pods of the benchmark use a waypoint, and gives a server a service with routes.
///
/// # Errors
/// A manifest can't be written.
pub(super) fn ask_for(lab: &Lab, server: &Pod) -> Result<Service> {
    lab.announce_nodes()?;
    lab.namespace(NAMESPACE).labelled(&[
        ("ambit.dev/mesh", "enabled"),
        ("ambit.dev/use-waypoint", "w"),
    ])?;
    lab.apply("waypoint.yaml", OBJECTS)?;
    // By its name the waypoint knows that the port speaks HTTP.
    let service = lab.service(NAMESPACE, server.name());
    let service = service.named_port("http", SERVICE_PORT, SERVER_PORT);
    Ok(service.endpoint(server).apply()?)
}

/// Waits until it is ready.
///
/// # Errors
/// It isn't in time.
pub(super) fn await_ready(lab: &Lab) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(50);

    let url = format!("http://{}/healthz/ready", at(lab, READY));
    let end = Instant::now() + DEADLINE;
    loop {
        match lab.node(NODE).fetch(&url) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= end => {
                return Err(error).context("the waypoint isn't ready");
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// How many requests it has answered.
///
/// # Errors
/// It can't be asked.
pub(super) fn requests(lab: &Lab) -> Result<f64> {
    let url = format!("http://{}/metrics", at(lab, METRICS));
    Ok(sum(&lab.node(NODE).fetch(&url)?))
}

fn at(lab: &Lab, port: u16) -> SocketAddr {
    SocketAddr::new(lab.node(NODE).address(), port)
}

fn sum(metrics: &str) -> f64 {
    let lines = metrics.lines();
    lines
        .filter(|line| line.starts_with("istio_requests_total{"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_all_kinds_are_added_up() {
        let page = "# TYPE istio_requests_total counter\n\
                    istio_requests_total{response_code=\"200\"} 7\n\
                    istio_requests_total{response_code=\"404\"} 2\n\
                    istio_request_bytes_count{response_code=\"200\"} 9\n";
        assert!((sum(page) - 9.0).abs() < 0.1);
    }
}
