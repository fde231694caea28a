//! The waypoint of mode `ambit+waypoint`: what asks for it, and what it says of itself.

use std::{path::Path, sync::Arc};

use anyhow::Result;
use lab::{ApiServer, Kubelet, Lab, Pod, Service, WaypointPod};

use super::stage::{NAMESPACE, PORT as SERVER_PORT};

/// The node that its one pod runs on.
const NODE: &str = "b";
/// Of the Gateway, and of all that control makes of it.
const NAME: &str = "w";
/// What control is told of its image: every pod runs the program that is measured.
pub(super) const IMAGE: [&str; 2] = ["--waypoint-image", "ambit"];
/// The port of the service.
pub(super) const SERVICE_PORT: u16 = 80;

/// The routes that `deploy/bench/haproxy-http.yaml` has, too.
const OBJECTS: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: w
  namespace: bench
  labels: {istio.io/waypoint-for: service}
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
    lab.namespace(NAMESPACE).labelled(&[
        ("ambit.dev/mesh", "enabled"),
        ("ambit.dev/use-waypoint", NAME),
    ])?;
    lab.apply("waypoint.yaml", OBJECTS)?;
    // By its name the waypoint knows that the port speaks HTTP.
    let service = lab.service(NAMESPACE, server.name());
    let service = service.named_port("http", SERVICE_PORT, SERVER_PORT);
    Ok(service.endpoint(server).apply()?)
}

/// Runs a pod of the Deployment that control makes of the Gateway, and waits until the cluster knows that it is
/// ready.
///
/// # Errors
/// Control makes none, or it isn't ready in time.
pub(super) fn start(lab: &Lab, api: &Arc<ApiServer>, program: &Path) -> Result<WaypointPod> {
    let kubelet = Kubelet::new(lab, api, NAMESPACE).program(program);
    kubelet.await_made(NAME)?;
    let waypoint = kubelet.start((NAME, 0), NODE)?;
    kubelet.await_ready(&waypoint)?;
    Ok(waypoint)
}

/// How many requests it has answered.
///
/// # Errors
/// It can't be asked.
pub(super) fn requests(waypoint: &WaypointPod) -> Result<f64> {
    Ok(sum(&waypoint.metrics()?))
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
