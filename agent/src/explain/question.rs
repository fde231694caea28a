//! What is asked: names and addresses as people write them, made definite.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::discovery::{
    model::{ObjectName, Service, ServicePort, Workload},
    store::Snapshot,
};

/// Connections from one end to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Who connects.
    pub source: Source,
    /// What to.
    pub destination: Destination,
}

/// Who connects.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A pod.
    Pod(Arc<Workload>),
    /// Somebody the mesh doesn't know.
    Address(IpAddr),
}

/// What is connected to.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// The service that was named, or whose VIP was.
    pub service: Option<Arc<Service>>,
    /// The pod that was named, or whose address was.
    pub pod: Option<Arc<Workload>>,
    /// What an application connects to. `None`: a service without VIP and without ready endpoints.
    pub address: Option<SocketAddr>,
    /// Of the service or the pod.
    pub port: u16,
}

/// Why a question can't be answered, and how to ask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// Neither address nor full name.
    #[error("{end} `{text}`: write NAMESPACE/NAME, or an address")]
    NotAName {
        /// `source` or `destination`.
        end: &'static str,
        /// As it was written.
        text: String,
    },
    /// Nobody has that name.
    #[error(
        "{end} `{name}`: there is no {kinds} of that name; `ambit workloads -n {namespace}` and `ambit \
         services -n {namespace}` list what there is"
    )]
    Unknown {
        /// `source` or `destination`.
        end: &'static str,
        /// Namespace and name.
        name: String,
        /// The namespace.
        namespace: String,
        /// What was looked for.
        kinds: &'static str,
    },
    /// The pod was found, and has none.
    #[error("pod {0} has no address yet (status.podIPs): ask again when it has")]
    NoAddress(ObjectName),
    /// It is needed.
    #[error("destination `{text}`: say which port, as in `{text}:{example}`{known}")]
    NoPort {
        /// As it was written.
        text: String,
        /// A port that there is, or could be.
        example: u16,
        /// The ports that there are.
        known: String,
    },
    /// It isn't one of the service's.
    #[error("service {service} has no port {port}; it has {known}")]
    NotServed {
        /// The service.
        service: ObjectName,
        /// As it was written.
        port: String,
        /// The ports that there are.
        known: String,
    },
    /// It can't be a port of a pod.
    #[error(
        "destination port `{0}`: write a number from 1 to 65535; only services have named ports"
    )]
    NotAPort(String),
}

impl Question {
    /// Understands what was written, for the agent of `node`. A source is `NAMESPACE/POD`, `NAMESPACE/NAME` of
    /// what owns pods (a Deployment), or an address; a destination these or a service, by
    /// `NAMESPACE/NAME` or DNS name, and a port, which services with one port needn't say.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub fn parse(
        snapshot: &Snapshot,
        node: &str,
        source: &str,
        destination: &str,
    ) -> Result<Self, QuestionError> {
        let source = parse_source(snapshot, node, source)?;
        let client = match &source {
            Source::Pod(pod) => pod.addresses.first().copied(),
            Source::Address(address) => Some(*address),
        };
        let (host, port) = split_port(destination);
        let destination = match host.parse::<IpAddr>() {
            Ok(address) => at_address(snapshot, address.to_canonical(), port, destination)?,
            Err(_) => {
                let name = object_name("destination", host)?;
                named(snapshot, node, client, &name, (port, destination))?
            }
        };
        Ok(Self {
            source,
            destination,
        })
    }
}

fn parse_source(snapshot: &Snapshot, node: &str, text: &str) -> Result<Source, QuestionError> {
    let pod = match text.parse::<IpAddr>() {
        Ok(address) => {
            let address = address.to_canonical();
            match snapshot.workload_by_address(address) {
                Some(pod) => pod.clone(),
                None => return Ok(Source::Address(address)),
            }
        }
        Err(_) => {
            let name = object_name("source", text)?;
            let unknown = || QuestionError::Unknown {
                end: "source",
                name: name.to_string(),
                namespace: name.namespace.to_string(),
                kinds: "pod, nor a workload with pods,",
            };
            pod_named(snapshot, node, &name).ok_or_else(unknown)?
        }
    };
    match pod.addresses.is_empty() {
        true => Err(QuestionError::NoAddress(pod.name.clone())),
        false => Ok(Source::Pod(pod)),
    }
}

/// The pod of that name, or else one of those that belong to what has the name: one of this node if there is.
fn pod_named(snapshot: &Snapshot, node: &str, name: &ObjectName) -> Option<Arc<Workload>> {
    if let Some(pod) = snapshot.workloads().find(|pod| pod.name == *name) {
        return Some(pod.clone());
    }
    let owned = snapshot
        .workloads()
        .filter(|pod| pod.name.namespace == name.namespace && pod.telemetry.workload == name.name);
    owned
        .min_by_key(|pod| (*pod.node != *node, &pod.name))
        .cloned()
}

fn at_address(
    snapshot: &Snapshot,
    address: IpAddr,
    port: Option<&str>,
    text: &str,
) -> Result<Destination, QuestionError> {
    let port = number(port, text)?;
    let dialled = SocketAddr::new(address, port);
    Ok(Destination {
        service: snapshot.service_by_vip(dialled).cloned(),
        pod: snapshot.workload_by_address(address).cloned(),
        address: Some(dialled),
        port,
    })
}

fn named(
    snapshot: &Snapshot,
    node: &str,
    client: Option<IpAddr>,
    name: &ObjectName,
    (port, text): (Option<&str>, &str),
) -> Result<Destination, QuestionError> {
    let family = |address: &&IpAddr| client.is_none_or(|it| it.is_ipv4() == address.is_ipv4());
    if let Some(service) = snapshot.service(name) {
        let port = service_port(service, port, text)?;
        let vip = service.vips.iter().find(family).or(service.vips.first());
        let address = match vip {
            Some(vip) => Some(SocketAddr::new(*vip, port)),
            None => {
                let candidates = service.candidates(node, port);
                candidates.first().map(|endpoint| endpoint.socket_address())
            }
        };
        return Ok(Destination {
            service: Some(service.clone()),
            pod: None,
            address,
            port,
        });
    }
    let unknown = || QuestionError::Unknown {
        end: "destination",
        name: name.to_string(),
        namespace: name.namespace.to_string(),
        kinds: "service or pod, nor a workload with pods,",
    };
    let pod = pod_named(snapshot, node, name).ok_or_else(unknown)?;
    let own = pod.addresses.iter().find(family).or(pod.addresses.first());
    let own = *own.ok_or_else(|| QuestionError::NoAddress(pod.name.clone()))?;
    at_address(snapshot, own, port, text)
}

fn service_port(service: &Service, port: Option<&str>, text: &str) -> Result<u16, QuestionError> {
    let known = || {
        let mut ports = service.ports.iter().map(|port| match &*port.name {
            "" => port.port.to_string(),
            name => format!("{} ({name})", port.port),
        });
        ports.by_ref().collect::<Vec<_>>().join(", ")
    };
    match (port, &service.ports[..]) {
        (None, [only]) => Ok(only.port),
        (None, ports) => Err(QuestionError::NoPort {
            text: text.to_owned(),
            example: ports.first().map_or(80, |port| port.port),
            known: format!(" (it has {})", known()),
        }),
        (Some(asked), ports) => {
            let is_asked =
                |port: &&ServicePort| *port.name == *asked || asked.parse() == Ok(port.port);
            let found = ports.iter().find(is_asked);
            found
                .map(|port| port.port)
                .ok_or_else(|| QuestionError::NotServed {
                    service: service.name.clone(),
                    port: asked.to_owned(),
                    known: known(),
                })
        }
    }
}

fn number(port: Option<&str>, text: &str) -> Result<u16, QuestionError> {
    let Some(port) = port else {
        return Err(QuestionError::NoPort {
            text: text.to_owned(),
            example: 80,
            known: String::new(),
        });
    };
    let number = port.parse().ok().filter(|port| *port != 0);
    number.ok_or_else(|| QuestionError::NotAPort(port.to_owned()))
}

/// `[fd00::1]:80`, `fd00::1`, `10.0.0.1:80`, `shop/web:http`, ...
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some(bracketed) = text.strip_prefix('[')
        && let Some((address, rest)) = bracketed.split_once(']')
    {
        return (address, rest.strip_prefix(':'));
    }
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    }
}

/// `shop/web`, or `web.shop` with or without the rest of a service's DNS name.
fn object_name(end: &'static str, text: &str) -> Result<ObjectName, QuestionError> {
    let slashed = text.split_once('/');
    let dotted = || {
        let (name, rest) = text.trim_end_matches('.').split_once('.')?;
        let (namespace, domain) = rest.split_once('.').unwrap_or((rest, "svc"));
        (domain == "svc" || domain.starts_with("svc.")).then_some((namespace, name))
    };
    let parts = match end {
        "destination" => slashed.or_else(dotted),
        _ => slashed,
    };
    match parts {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok(ObjectName {
            namespace: namespace.into(),
            name: name.into(),
        }),
        _ => Err(QuestionError::NotAName {
            end,
            text: text.to_owned(),
        }),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod) => write!(f, "{}", pod.name),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.service, &self.pod, self.address) {
            (Some(service), ..) => write!(f, "{}:{}", service.name, self.port),
            (None, Some(pod), _) => write!(f, "{}:{}", pod.name, self.port),
            (None, None, Some(address)) => write!(f, "{address}"),
            (None, None, None) => write!(f, "port {}", self.port),
        }
    }
}
