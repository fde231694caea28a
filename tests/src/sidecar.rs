//! The classic pattern that the mesh is compared with: in each pod, iptables rules as an init
//! container would write them, and a proxy process that does mutual TLS with those of other pods.
//!
//! What a proxy needs to be told is an [`Adapter`], in a file. `deploy/bench/` has those of HAProxy
//! and Envoy, and `example.yaml`, which describes the format.

mod adapter;
mod certificates;
mod member;
mod rules;
mod template;

use std::path::Path;

pub use adapter::{Adapter, Error as AdapterError};

use self::{certificates::Authority, member::Member};
use crate::{Error, Lab, Pod, Result};

/// Where Istio's sidecar listens for what comes to the pod.
const INBOUND_PORT: u16 = 15006;
/// Where Istio's sidecar listens for what the pod sends.
const OUTBOUND_PORT: u16 = 15001;
/// The uid and gid of Istio's sidecar, which no application has.
const USER: u32 = 1337;

/// Which proxy.
#[derive(Debug, Clone)]
pub enum Kind {
    /// HAProxy, as `deploy/bench/haproxy.yaml` configures it.
    HaProxy,
    /// HAProxy that reads HTTP, as `deploy/bench/haproxy-http.yaml` configures it.
    HaProxyHttp,
    /// Envoy, as `deploy/bench/envoy.yaml` configures it. No Debian package has it, so only the
    /// form of its configuration is tested.
    Envoy,
    /// Linkerd's proxy, which can't run without Linkerd's controllers, so there is no
    /// configuration for it: see [`Kind::available`].
    Linkerd,
    /// Any other.
    Adapter(Adapter),
}

/// Why a proxy can't be had on this machine, and the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{mode}: {why}: {cure}")]
pub struct Missing {
    /// The mode that can't be measured.
    pub mode: String,
    /// What is missing.
    pub why: String,
    /// What to do about it.
    pub cure: String,
}

impl Kind {
    /// The name of the mode in reports: `sidecar-haproxy`.
    #[must_use]
    pub fn mode(&self) -> String {
        format!("sidecar-{}", self.name())
    }

    /// Whether it passes on nothing but HTTP.
    #[must_use]
    pub fn is_http(&self) -> bool {
        self.adapter().is_some_and(|adapter| adapter.http)
    }

    /// Whether this machine has all that the sidecars need.
    ///
    /// # Errors
    /// What is missing, and the cure.
    pub fn available(&self) -> Result<(), Missing> {
        let missing = |why: String, cure: &str| Missing {
            mode: self.mode(),
            why,
            cure: cure.into(),
        };
        let Some(adapter) = self.adapter() else {
            let why = if on_path("linkerd2-proxy") {
                "linkerd2-proxy runs only with certificates and destinations from Linkerd's \
                 identity and destination controllers, which need a cluster"
            } else {
                "linkerd2-proxy isn't on PATH, and would need Linkerd's identity and destination \
                 controllers, which need a cluster"
            };
            return Err(missing(
                why.into(),
                "compare with Linkerd in a cluster, or with another proxy by an adapter file",
            ));
        };
        let needs = [
            (adapter.program(), "install it, or put it on PATH"),
            ("iptables-restore", "install iptables"),
            ("setpriv", "install util-linux"),
        ];
        match needs.into_iter().find(|(program, _)| !on_path(program)) {
            Some((program, cure)) => Err(missing(format!("{program} isn't on PATH"), cure)),
            None => Ok(()),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::HaProxy => "haproxy",
            Self::HaProxyHttp => "haproxy-http",
            Self::Envoy => "envoy",
            Self::Linkerd => "linkerd",
            Self::Adapter(adapter) => adapter.name(),
        }
    }

    /// How the proxy is started and configured; none for the one that can't be.
    fn adapter(&self) -> Option<Adapter> {
        match self {
            Self::HaProxy => Some(adapter::haproxy()),
            Self::HaProxyHttp => Some(adapter::haproxy_http()),
            Self::Envoy => Some(adapter::envoy()),
            Self::Linkerd => None,
            Self::Adapter(adapter) => Some(adapter.clone()),
        }
    }
}

/// Pods with sidecars. A pod can be in one fleet at a time.
///
/// Dropping it leaves the pods without: proxies are killed, rules and files removed, unless the lab
/// is kept.
#[derive(Debug)]
pub struct Fleet {
    members: Vec<Member>,
    adapter: Adapter,
    authority: Authority,
}

impl Fleet {
    /// Gives each pod its rules, a certificate of one new authority, and a proxy, and waits until
    /// all of them are ready.
    ///
    /// # Errors
    /// If the proxy isn't available, a pod has IPv6 addresses that the proxy can't serve, or a
    /// proxy isn't ready within 60 s; then no pod has a sidecar.
    pub fn start(lab: &Lab, kind: &Kind, pods: &[&Pod]) -> Result<Self> {
        let stranger = pods.iter().find(|pod| pod.shared.name != lab.name());
        if let Some(pod) = stranger {
            return Err(Error::Unsupported(format!(
                "pod {} is of another lab than {}, and can't reach its pods",
                pod.name(),
                lab.name()
            )));
        }
        kind.available()
            .map_err(|missing| Error::Unsupported(missing.to_string()))?;
        let adapter = kind
            .adapter()
            .ok_or_else(|| Error::Unsupported(format!("{} has no adapter", kind.mode())))?;
        let mut fleet = Self {
            members: Vec::with_capacity(pods.len()),
            adapter,
            authority: Authority::create().map_err(certificate_error)?,
        };
        for pod in pods {
            let member = fleet.prepare(pod)?;
            fleet.members.push(member);
        }
        for member in &mut fleet.members {
            member.await_ready()?;
        }
        Ok(fleet)
    }

    /// Gives one more pod a sidecar that the others trust, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Fleet::start`].
    pub fn add(&mut self, pod: &Pod) -> Result<()> {
        let mut member = self.prepare(pod)?;
        member.await_ready()?;
        self.members.push(member);
        Ok(())
    }

    /// Takes a pod's sidecar away: process, rules and files. None is there for one whose pod has
    /// none.
    pub fn remove(&mut self, pod: &Pod) {
        self.members
            .retain(|member| member.namespace() != pod.namespace());
    }

    /// The ids of all processes of the proxies, those that a proxy has started included.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let leaders: Vec<u32> = self.members.iter().map(Member::pid).collect();
        member::processes_of_groups(&leaders)
    }

    /// Restarts a pod's proxy as kubelet restarts a container: SIGTERM, SIGKILL if that doesn't
    /// end it, and a new one under the old rules. Returns when that is ready.
    ///
    /// # Errors
    /// If the pod has no sidecar, the old proxy had ended, or the new one isn't ready within 60 s.
    pub fn restart(&mut self, pod: &Pod) -> Result<()> {
        let member = self
            .members
            .iter_mut()
            .find(|member| member.namespace() == pod.namespace());
        let member = member
            .ok_or_else(|| Error::Unsupported(format!("pod {} has no sidecar", pod.name())))?;
        member.restart(&self.adapter)
    }

    fn prepare(&self, pod: &Pod) -> Result<Member> {
        let mut namespaces = self.members.iter().map(Member::namespace);
        if namespaces.any(|namespace| namespace == pod.namespace()) {
            // A second one would fail at the first one's ports, and take its rules away.
            let name = pod.name();
            return Err(Error::Unsupported(format!(
                "pod {name} has a sidecar already"
            )));
        }
        let spec = pod.spec();
        let identity = format!(
            "spiffe://cluster.local/ns/{}/sa/{}",
            spec.namespace, spec.service_account
        );
        let credentials = self.authority.sign(&identity).map_err(certificate_error)?;
        Member::start(pod, &self.adapter, &credentials)
    }
}

fn certificate_error(error: rcgen::Error) -> Error {
    Error::malformed("the certificate of a sidecar", error)
}

/// Whether there is a program of the name, or at the path.
fn on_path(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
