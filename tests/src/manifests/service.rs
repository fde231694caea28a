//! A Kubernetes Service with its endpoints.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde_json::{Map, Value, json};

use super::yaml;
use crate::{Pod, Result, lab::Shared};

/// A Service and its EndpointSlices. Describe it, then [`Service::apply`] it; a changed one is
/// applied again and keeps its addresses.
#[derive(Debug, Clone)]
pub struct Service {
    shared: Arc<Shared>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<Port>,
    pub(crate) endpoints: Vec<Endpoint>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    spec: Map<String, Value>,
}

/// A port of a service, and the one behind it.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) target: u16,
    pub(crate) node_port: Option<u16>,
}

/// A pod behind a service.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ready: bool,
    node: String,
    pod: Value,
}

impl Service {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        namespace: &str,
        name: &str,
        addresses: Vec<IpAddr>,
    ) -> Service {
        Service {
            shared: Arc::clone(shared),
            namespace: namespace.into(),
            name: name.into(),
            addresses,
            ports: Vec::new(),
            endpoints: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            spec: Map::new(),
        }
    }

    /// Its virtual addresses, IPv4 first; none if it is headless.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// A port of its first virtual address.
    ///
    /// # Panics
    /// If the service is headless.
    #[must_use]
    #[track_caller]
    pub fn at(&self, port: u16) -> std::net::SocketAddr {
        let address = self.addresses.first();
        let address = address.unwrap_or_else(|| panic!("service {} is headless", self.name));
        (*address, port).into()
    }

    /// Adds a TCP port. The first is named `tcp-<port>` like every other.
    #[must_use]
    pub fn port(self, port: u16, target: u16) -> Service {
        self.named_port(&format!("tcp-{port}"), port, target)
    }

    /// Adds a TCP port with a name.
    #[must_use]
    pub fn named_port(mut self, name: &str, port: u16, target: u16) -> Service {
        self.ports.push(Port {
            name: name.into(),
            port,
            target,
            node_port: None,
        });
        self
    }

    /// Opens the port that was added last on every node too, with `externalTrafficPolicy:
    /// Cluster`: a Service of type `NodePort`.
    ///
    /// # Panics
    /// If no port was added.
    #[must_use]
    #[track_caller]
    pub fn node_port(mut self, node_port: u16) -> Service {
        let Some(last) = self.ports.last_mut() else {
            panic!("service {} has no port to open on nodes", self.name);
        };
        last.node_port = Some(node_port);
        self.spec("type", "NodePort")
    }

    /// Adds a pod that is ready.
    #[must_use]
    pub fn endpoint(self, pod: &Pod) -> Service {
        self.with_endpoint(pod, true)
    }

    /// Adds a pod that isn't ready.
    #[must_use]
    pub fn unready_endpoint(self, pod: &Pod) -> Service {
        self.with_endpoint(pod, false)
    }

    /// Removes all endpoints.
    #[must_use]
    pub fn without_endpoints(mut self) -> Service {
        self.endpoints.clear();
        self
    }

    /// Takes its virtual addresses away: `clusterIP: None`.
    #[must_use]
    pub fn headless(mut self) -> Service {
        self.addresses.clear();
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Service {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Service {
        self.annotations.insert(name.into(), value.into());
        self
    }

    /// Sets any field of `spec`, such as `trafficDistribution`.
    #[must_use]
    pub fn spec(mut self, field: &str, value: impl Into<Value>) -> Service {
        self.spec.insert(field.into(), value.into());
        self
    }

    /// Writes the Service and its EndpointSlices in one file, `service-<namespace>-<name>.yaml`.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn apply(self) -> Result<Service> {
        self.shared
            .manifests
            .write(&self.file(), &self.manifest()?)?;
        Ok(self)
    }

    /// Removes the file.
    ///
    /// # Errors
    /// If it can't be removed.
    pub fn delete(self) -> Result<()> {
        self.shared.manifests.remove(&self.file())
    }

    /// The Service and its EndpointSlices, one for each address family, as text.
    ///
    /// # Errors
    /// If it can't be written as YAML.
    pub fn manifest(&self) -> Result<String> {
        let mut text = yaml(&self.object())?;
        for v4 in [true, false] {
            if self
                .shared
                .family
                .pod(1, 0)
                .iter()
                .any(|prefix| prefix.address.is_ipv4() == v4)
            {
                text += "---\n";
                text += &yaml(&self.slice(v4))?;
            }
        }
        Ok(text)
    }

    pub(crate) fn is_same_object(&self, other: &Service) -> bool {
        (&self.namespace, &self.name) == (&other.namespace, &other.name)
    }

    fn with_endpoint(mut self, pod: &Pod, ready: bool) -> Service {
        self.endpoints.push(Endpoint {
            addresses: pod.addresses().to_vec(),
            ready,
            node: pod.node().name().into(),
            pod: json!({
                "kind": "Pod",
                "namespace": pod.spec().namespace,
                "name": pod.name(),
                "uid": pod.uid(),
            }),
        });
        self
    }

    fn file(&self) -> String {
        format!("service-{}-{}.yaml", self.namespace, self.name)
    }

    fn object(&self) -> Value {
        let ports = self.ports.iter().map(|port| {
            json!({
                "name": port.name, "port": port.port, "targetPort": port.target, "protocol": "TCP",
                "nodePort": port.node_port,
            })
        });
        let first = self
            .addresses
            .first()
            .map_or_else(|| "None".into(), IpAddr::to_string);
        let all = if self.addresses.is_empty() {
            json!(["None"])
        } else {
            json!(self.addresses)
        };
        let families: Vec<_> = self
            .shared
            .family
            .pod(1, 0)
            .iter()
            .map(|p| family(p.address))
            .collect();
        let mut spec = json!({
            "type": "ClusterIP",
            "clusterIP": first,
            "clusterIPs": all,
            "ipFamilies": families,
            "ports": ports.collect::<Vec<_>>(),
        });
        if let Value::Object(fields) = &mut spec {
            fields.extend(self.spec.clone());
        }
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "namespace": self.namespace,
                "name": self.name,
                "labels": self.labels,
                "annotations": self.annotations,
            },
            "spec": spec,
        })
    }

    fn slice(&self, v4: bool) -> Value {
        let kind = if v4 { "IPv4" } else { "IPv6" };
        let endpoints = self.endpoints.iter().filter_map(|endpoint| {
            let address = endpoint
                .addresses
                .iter()
                .find(|address| address.is_ipv4() == v4)?;
            Some(json!({
                "addresses": [address],
                "conditions": { "ready": endpoint.ready, "serving": endpoint.ready },
                "nodeName": endpoint.node,
                "targetRef": endpoint.pod,
            }))
        });
        let ports = self
            .ports
            .iter()
            .map(|port| json!({ "name": port.name, "port": port.target, "protocol": "TCP" }));
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": self.namespace,
                "name": format!("{}-{}", self.name, kind.to_lowercase()),
                "labels": { "kubernetes.io/service-name": self.name },
            },
            "addressType": kind,
            "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": ports.collect::<Vec<_>>(),
        })
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
