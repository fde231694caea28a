//! What all stories are played with.

use std::{net::SocketAddr, time::Duration};

use lab::{Lab, Mesh, PeerServer, Pod, PodSpec, Result, RunningMesh, Service, Way, eventually};

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Where a waypoint takes HBONE, if nothing else is said; metrics and readiness are on the next two.
pub(crate) const PORT: u16 = 15088;

/// Clients on node a, and a server on either node.
pub(crate) struct Shop {
    pub(crate) friend: Pod,
    pub(crate) stranger: Pod,
    pub(crate) near: Pod,
    pub(crate) far: Pod,
    pub(crate) near_echo: PeerServer,
    pub(crate) far_echo: PeerServer,
    /// A service of either server alone.
    pub(crate) services: [Service; 2],
}

impl Shop {
    pub(crate) fn open(lab: &Lab) -> Result<Self> {
        lab.namespace("shop").enrolled()?;
        lab.announce_nodes()?;
        let pod = |node, account| pod(lab, node, account);
        let (near, far) = (pod("a", "near")?, pod("b", "far")?);
        let service = |name: &str, pod: &Pod| {
            let service = lab.service("shop", name).port(80, 8080);
            service.endpoint(pod).apply()
        };
        Ok(Self {
            friend: pod("a", "friend")?,
            stranger: pod("a", "stranger")?,
            near_echo: near.echo(8080)?,
            far_echo: far.echo(8080)?,
            services: [service("near", &near)?, service("far", &far)?],
            near,
            far,
        })
    }

    /// How the friend's connections arrive at the server on its node, and at the other.
    pub(crate) fn ways(&mut self) -> Result<[Way; 2]> {
        let [near, far] = self.vips();
        Ok([
            self.friend.talk(&mut self.near_echo, near)?,
            self.friend.talk(&mut self.far_echo, far)?,
        ])
    }

    pub(crate) fn vips(&self) -> [SocketAddr; 2] {
        [&self.services[0], &self.services[1]].map(|service| service.at(80))
    }
}

/// A pod of its own account, after which it is called.
pub(crate) fn pod(lab: &Lab, node: &str, account: &str) -> Result<Pod> {
    let spec = PodSpec::in_namespace("shop").service_account(account);
    lab.node(node).pod(account, spec.label("app", account))
}

/// Has a service in front of pods.
pub(crate) fn in_front(service: Service, pods: &[&Pod]) -> Result<Service> {
    pods.iter()
        .fold(service, |service, pod| service.endpoint(pod))
        .apply()
}

/// Has the namespace in the mesh, and its services and pods use a waypoint of that name.
pub(crate) fn use_waypoint(lab: &Lab, name: &str) -> Result<()> {
    let labels = [
        ("ambit.dev/mesh", "enabled"),
        ("ambit.dev/use-waypoint", name),
    ];
    lab.namespace("shop").labelled(&labels)
}

/// A Gateway on a node, for such traffic.
pub(crate) fn gateway(name: &str, node: &str, serves: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: {name}, namespace: shop, labels: {{istio.io/waypoint-for: {serves}}}, \
         annotations: {{ambit.dev/waypoint-node: {node}}}}}\n\
         spec: {{gatewayClassName: ambit-waypoint, \
         listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]}}\n"
    )
}

/// Waits until the waypoint on a node is ready.
pub(crate) fn await_ready(lab: &Lab, node: &str) {
    let url = format!("{}/healthz/ready", base(lab, node, 2));
    eventually("the waypoint to be ready", DEADLINE, || {
        lab.node(node).fetch(&url).is_ok()
    });
}

/// Connections that the waypoint on a node has opened.
pub(crate) fn opened(lab: &Lab, node: &str) -> f64 {
    count_opened(&metrics(lab, node))
}

/// The page of metrics of the waypoint on a node.
pub(crate) fn metrics(lab: &Lab, node: &str) -> String {
    let url = format!("{}/metrics", base(lab, node, 1));
    lab.node(node).fetch(&url).unwrap()
}

/// The sum of the samples on a page that have all these labels.
pub(crate) fn sample(page: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""));
    let labels: Vec<_> = labels.collect();
    let lines = page.lines().filter(|line| {
        let is_named = line
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('{'));
        is_named && labels.iter().all(|label| line.contains(label.as_str()))
    });
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}

/// Connections opened, by a waypoint's page of metrics.
pub(crate) fn count_opened(page: &str) -> f64 {
    let lines = page.lines().filter(|line| {
        line.starts_with("istio_tcp_connections_opened_total{reporter=\"waypoint\"")
    });
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

fn base(lab: &Lab, node: &str, offset: u16) -> String {
    let address = lab.node(node).address();
    format!("http://{}", SocketAddr::new(address, PORT + offset))
}

/// A mesh whose services go through a waypoint on node b.
pub(crate) fn mesh_with_waypoint<'a>(lab: &'a Lab, serves: &str) -> Result<RunningMesh<'a>> {
    lab.apply("gateway.yaml", &gateway("w", "b", serves))?;
    use_waypoint(lab, "w")?;
    let mesh = Mesh::default().start(lab)?;
    await_ready(lab, "b");
    Ok(mesh)
}
