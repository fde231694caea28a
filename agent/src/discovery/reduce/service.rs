//! Services and EndpointSlices as the mesh sees them.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort as ApiPort, ServiceSpec},
        discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{FieldError, Reducer, address, gateway, is_tcp, port};
use crate::discovery::{
    facts::{Candidate, Families, ServiceFacts, SliceFacts, TargetPort},
    model::{AppProtocol, Endpoint, ObjectName, ServicePort, TrafficDistribution},
};

pub(super) fn reduce(
    reducer: &mut Reducer,
    service: Service,
    issues: &mut Vec<FieldError>,
) -> Result<ServiceFacts, FieldError> {
    let name = reducer.object_name(&service.metadata)?;
    let waypoint = gateway::use_waypoint(&service.metadata, &name.namespace, issues);
    let spec = service.spec.unwrap_or_default();
    let cluster = cluster_addresses(&spec)?;
    let families = families(&spec, &cluster);
    let mut vips = cluster;
    for (index, text) in spec.external_ips.iter().flatten().enumerate() {
        vips.push(address(format!("spec.externalIPs[{index}]"), text)?);
    }
    let mut ports = Vec::new();
    for (index, declared) in spec.ports.iter().flatten().enumerate() {
        if is_tcp(declared.protocol.as_deref()) {
            ports.push(service_port(reducer, index, declared)?);
        }
    }
    Ok(ServiceFacts {
        name,
        vips,
        ports,
        traffic_distribution: distribution(&spec, issues),
        selector: spec.selector.filter(|selector| !selector.is_empty()),
        waypoint,
        publish_not_ready: spec.publish_not_ready_addresses == Some(true),
        families,
    })
}

/// `clusterIPs`, else `clusterIP`. A headless service says `None` there and has no address.
fn cluster_addresses(spec: &ServiceSpec) -> Result<Vec<IpAddr>, FieldError> {
    let is_set = |text: &str| !text.is_empty() && text != "None";
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    if listed.is_empty() {
        let single = spec.cluster_ip.as_deref().filter(|text| is_set(text));
        return single
            .map(|text| address("spec.clusterIP", text))
            .into_iter()
            .collect();
    }
    let all = listed.iter().enumerate().filter(|(_, text)| is_set(text));
    all.map(|(index, text)| address(format!("spec.clusterIPs[{index}]"), text))
        .collect()
}

/// `ipFamilies`, which the API server fills in; a bare manifest has those of its addresses, and a
/// headless one both.
fn families(spec: &ServiceSpec, cluster: &[IpAddr]) -> Families {
    let declared = spec.ip_families.as_deref().unwrap_or_default();
    let has = |family: &str| declared.iter().any(|declared| declared == family);
    if !declared.is_empty() {
        return Families {
            v4: has("IPv4"),
            v6: has("IPv6"),
        };
    }
    Families {
        v4: cluster.is_empty() || cluster.iter().any(IpAddr::is_ipv4),
        v6: cluster.is_empty() || cluster.iter().any(IpAddr::is_ipv6),
    }
}

fn service_port(
    reducer: &mut Reducer,
    index: usize,
    declared: &ApiPort,
) -> Result<(ServicePort, TargetPort), FieldError> {
    let number = port(format!("spec.ports[{index}].port"), declared.port)?;
    let target = match &declared.target_port {
        None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
        Some(IntOrString::Int(target)) => {
            TargetPort::Number(port(format!("spec.ports[{index}].targetPort"), *target)?)
        }
        Some(IntOrString::String(name)) => TargetPort::Name(reducer.interner.text(name)),
    };
    let name = reducer
        .interner
        .text(declared.name.as_deref().unwrap_or_default());
    let protocol = protocol(declared.app_protocol.as_deref(), &name);
    let port = ServicePort {
        name,
        port: number,
        protocol,
    };
    Ok((port, target))
}

/// `appProtocol`, else the port's name as far as its first `-`, as Istio reads it.
fn protocol(declared: Option<&str>, name: &str) -> AppProtocol {
    let named = name.split('-').next().unwrap_or_default();
    match declared.unwrap_or(named).to_ascii_lowercase().as_str() {
        "http" | "kubernetes.io/ws" => AppProtocol::Http,
        "http2" | "grpc" | "kubernetes.io/h2c" => AppProtocol::Http2,
        // A client speaks TLS there, and nobody in between can read it.
        "tcp" | "tls" | "https" | "kubernetes.io/wss" | "mongo" | "mysql" | "redis" | "udp" => {
            AppProtocol::Tcp
        }
        _ => AppProtocol::Unknown,
    }
}

/// `internalTrafficPolicy: Local` is a must and wins; `trafficDistribution` is a preference.
fn distribution(spec: &ServiceSpec, issues: &mut Vec<FieldError>) -> TrafficDistribution {
    let mut report = |field: &str, value: &str, expected: &str| {
        issues.push(FieldError::unexpected(field, value, expected));
    };
    match spec.internal_traffic_policy.as_deref() {
        Some("Local") => return TrafficDistribution::OnlySameNode,
        None | Some("" | "Cluster") => {}
        Some(other) => {
            let expected = "\"Cluster\" or \"Local\"; it counts as \"Cluster\"";
            report("spec.internalTrafficPolicy", other, expected);
        }
    }
    match spec.traffic_distribution.as_deref() {
        Some("PreferSameNode") => TrafficDistribution::PreferSameNode,
        Some("PreferSameZone" | "PreferClose") => TrafficDistribution::PreferSameZone,
        None | Some("") => TrafficDistribution::Any,
        Some(other) => {
            let expected = "\"PreferSameNode\", \"PreferSameZone\" or \"PreferClose\"; \
                            it counts as not set";
            report("spec.trafficDistribution", other, expected);
            TrafficDistribution::Any
        }
    }
}

pub(super) fn reduce_slice(
    reducer: &mut Reducer,
    slice: &EndpointSlice,
) -> Result<SliceFacts, FieldError> {
    let name = reducer.object_name(&slice.metadata)?;
    let labels = slice.metadata.labels.as_ref();
    let owner = labels.and_then(|labels| labels.get("kubernetes.io/service-name"));
    let service = owner.map(|service| ObjectName {
        namespace: Arc::clone(&name.namespace),
        name: service.as_str().into(),
    });
    let mut endpoints = Vec::new();
    // FQDN slices have no addresses to dial.
    if slice.address_type != "FQDN" {
        let ports = slice_ports(reducer, slice)?;
        for (index, endpoint) in slice.endpoints.iter().flatten().enumerate() {
            candidates(reducer, index, endpoint, &ports, &mut endpoints)?;
        }
    }
    Ok(SliceFacts {
        name,
        service,
        endpoints,
    })
}

/// Name and number of the TCP ports. One without a number means "any port", which no service has.
fn slice_ports(
    reducer: &mut Reducer,
    slice: &EndpointSlice,
) -> Result<Vec<(Arc<str>, u16)>, FieldError> {
    let mut ports = Vec::new();
    for (index, declared) in slice.ports.iter().flatten().enumerate() {
        let (true, Some(number)) = (is_tcp(declared.protocol.as_deref()), declared.port) else {
            continue;
        };
        let name = reducer
            .interner
            .text(declared.name.as_deref().unwrap_or_default());
        ports.push((name, port(format!("ports[{index}].port"), number)?));
    }
    Ok(ports)
}

/// Conditions as kube-proxy reads them: absent `ready` and `serving` are true. Of the addresses
/// only the first has a meaning in the API.
fn candidates(
    reducer: &mut Reducer,
    index: usize,
    endpoint: &ApiEndpoint,
    ports: &[(Arc<str>, u16)],
    found: &mut Vec<Candidate>,
) -> Result<(), FieldError> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let last_resort = conditions.serving.unwrap_or(true) && conditions.terminating.unwrap_or(false);
    let Some(text) = endpoint.addresses.first().filter(|_| ready || last_resort) else {
        return Ok(());
    };
    let address = address(format!("endpoints[{index}].addresses[0]"), text)?;
    let node = endpoint
        .node_name
        .as_deref()
        .map(|node| reducer.interner.text(node));
    let zone = endpoint.zone.as_deref();
    let zone = zone.map(|zone| reducer.interner.text(zone));
    found.extend(ports.iter().map(|(port_name, port)| Candidate {
        endpoint: Endpoint {
            port_name: Arc::clone(port_name),
            address,
            port: *port,
            node: node.clone(),
            zone: zone.clone(),
        },
        ready,
    }));
    Ok(())
}
