//! A pod: a network namespace, a veth pair to its node, a cgroup and a manifest.

mod spec;
mod wiring;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    ops::Deref,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

pub use spec::PodSpec;

use crate::{
    Error, Node, Place, PodNetwork, Result, cgroup, ip,
    lab::check_name,
    manifests,
    plan::{self, BRIDGE},
};

/// The pod's own interface.
const INTERFACE: &str = "eth0";

/// How far a pod has come, in the eyes of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is bound to its node; its addresses aren't known yet.
    Pending,
    /// The CNI has answered: the status has addresses, and the pod is ready.
    Running,
}

/// A pod that has a node and addresses, but no interface and no processes.
#[derive(Debug)]
pub struct ScheduledPod {
    node: Node,
    name: String,
    spec: PodSpec,
    addresses: Vec<IpAddr>,
    uid: String,
    host_interface: String,
}

/// A pod with its interface up. Its processes run through its [`Place`].
#[derive(Debug)]
pub struct Pod {
    place: Place,
    scheduled: ScheduledPod,
}

impl Deref for Pod {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Deref for ScheduledPod {
    type Target = PodSpec;

    fn deref(&self) -> &PodSpec {
        &self.spec
    }
}

impl Pod {
    /// The pod's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.scheduled.name
    }

    /// What the pod was made from.
    #[must_use]
    pub fn spec(&self) -> &PodSpec {
        &self.scheduled.spec
    }

    /// The node it runs on.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.scheduled.node
    }

    /// `metadata.uid`: one life of the pod.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.scheduled.uid
    }

    /// Its addresses, IPv4 first unless its spec says otherwise.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.scheduled.addresses
    }

    /// The first of its addresses.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.scheduled.addresses[0]
    }

    /// A port of its first address.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(), port)
    }

    /// A port of each of its addresses.
    #[must_use]
    pub fn all_at(&self, port: u16) -> Vec<SocketAddr> {
        self.addresses()
            .iter()
            .map(|address| SocketAddr::new(*address, port))
            .collect()
    }

    /// The veth of the pod on its node.
    #[must_use]
    pub fn host_interface(&self) -> &str {
        &self.scheduled.host_interface
    }

    /// The pod's manifest, as text.
    ///
    /// # Errors
    /// If it can't be written as YAML.
    pub fn manifest(&self) -> Result<String> {
        self.scheduled.manifest(Phase::Running)
    }

    /// Writes the manifest of the running pod, or writes it again.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn announce(&self) -> Result<()> {
        self.scheduled.announce(Phase::Running)
    }

    /// Kills the pod's processes and removes cgroup, interfaces and namespace, as kubelet and CNI
    /// do before Kubernetes forgets the pod: its manifest stays.
    ///
    /// # Errors
    /// If a process survives, or the system refuses.
    pub fn stop(self) -> Result<ScheduledPod> {
        cgroup::remove(&self.place.cgroup)?;
        // The veth goes first and for sure: that of a deleted namespace goes some time later,
        // and its routes with it.
        let veth = format!("link del {}", self.scheduled.host_interface);
        ip::inside(self.scheduled.node.namespace(), &[veth])?;
        ip::outside(&[format!("netns del {}", self.place.namespace)])?;
        Ok(self.scheduled)
    }

    /// Stops the pod and removes its manifest. Another pod may have its addresses then.
    ///
    /// # Errors
    /// See [`Pod::stop`].
    pub fn delete(self) -> Result<()> {
        self.stop()?.delete()
    }
}

impl ScheduledPod {
    pub(crate) fn new(node: &Node, name: &str, spec: PodSpec) -> Result<ScheduledPod> {
        check_name("pod", name)?;
        let (number, addresses) = reserve(node, name, &spec)?;
        let path = Path::new("/proc/sys/kernel/random/uuid");
        let uid = fs::read_to_string(path)
            .map_err(Error::path("read", path))?
            .trim()
            .to_owned();
        // Linux allows 15 bytes.
        let host_interface = format!("v{number}-{name}").chars().take(15).collect();
        Ok(ScheduledPod {
            node: node.clone(),
            name: name.into(),
            spec,
            addresses,
            uid,
            host_interface,
        })
    }

    /// The pod's manifest in a phase, as text.
    ///
    /// # Errors
    /// If it can't be written as YAML.
    pub fn manifest(&self, phase: Phase) -> Result<String> {
        let addresses = match phase {
            Phase::Pending => &[],
            Phase::Running => self.addresses.as_slice(),
        };
        let pod = spec::Rendered {
            name: &self.name,
            uid: &self.uid,
            node: self.node.name(),
            host_addresses: self.node.addresses(),
            addresses,
        };
        manifests::yaml(&self.spec.render(&pod))
    }

    /// Writes the manifest, as it is in a phase.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn announce(&self, phase: Phase) -> Result<()> {
        let text = self.manifest(phase)?;
        self.node
            .shared
            .manifests
            .write(&self.manifest_file(), &text)
    }

    /// Makes the namespace, the interfaces, the addresses and the cgroup. Writes no manifest.
    ///
    /// # Errors
    /// If the system refuses, for example because the node has another pod of the name.
    pub fn start(self) -> Result<Pod> {
        let place = Place {
            shared: Arc::clone(&self.node.shared),
            label: format!("{}/{}", self.node.name(), self.name),
            namespace: self
                .node
                .shared
                .namespace(&format!("{}-{}", self.node.name(), self.name)),
            cgroup: self.node.pod_cgroup(&self.name),
        };
        let host = self.host_interface.as_str();
        let hardware = plan::hardware_address(self.addresses[0]);
        let mtu = self.spec.mtu;
        ip::outside(&[
            format!("netns add {}", place.namespace),
            format!(
                "link add {INTERFACE} address {hardware} mtu {mtu} netns {} \
                 type veth peer name {host} mtu {mtu} netns {}",
                place.namespace,
                self.node.namespace(),
            ),
        ])?;
        cgroup::create(&place.cgroup)?;
        let setting = |name: &str, value| (format!("{name}/{INTERFACE}/{value}"), "1");
        ip::sysctl(
            &place.namespace,
            &[
                ("ipv6/conf/all/accept_dad".into(), "0"),
                (format!("ipv6/conf/{INTERFACE}/accept_dad"), "0"),
                // As CNI's bridge plugin does: tell the neighbours who has the address now.
                setting("ipv4/conf", "arp_notify"),
                setting("ipv6/conf", "ndisc_notify"),
            ],
        )?;
        // The node's end first: the pod's end then has a carrier from its start.
        ip::inside(self.node.namespace(), &self.node_commands())?;
        let shown = ip::inside(&place.namespace, &self.pod_commands())?;
        ip::await_links(&place.namespace, &[INTERFACE], &shown)?;
        let bridge = (self.node.shared.network == PodNetwork::Bridged).then_some(BRIDGE);
        let node_side: Vec<&str> = [host].into_iter().chain(bridge).collect();
        ip::await_links(self.node.namespace(), &node_side, "")?;
        Ok(Pod {
            place,
            scheduled: self,
        })
    }

    /// Removes the manifest and gives the addresses free.
    ///
    /// # Errors
    /// If the file can't be removed.
    pub fn delete(self) -> Result<()> {
        self.node.shared.manifests.remove(&self.manifest_file())?;
        let mut taken = self
            .node
            .inner
            .taken
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        for address in &self.addresses {
            taken.remove(address);
        }
        Ok(())
    }

    fn manifest_file(&self) -> String {
        format!("pod-{}-{}.yaml", self.spec.namespace, self.name)
    }
}

/// Takes the addresses a pod asks for, or the node's next ones.
fn reserve(node: &Node, name: &str, spec: &PodSpec) -> Result<(u8, Vec<IpAddr>)> {
    let family = node.shared.family;
    let full = |address, cause| Error::Address {
        pod: name.into(),
        address,
        cause,
    };
    let mut taken = node
        .inner
        .taken
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let (number, addresses) = loop {
        let number = node.inner.next_pod.fetch_add(1, Ordering::Relaxed);
        if number == u8::MAX {
            node.inner.next_pod.store(number, Ordering::Relaxed);
            return Err(full(node.address(), "the node has had all of its pods"));
        }
        if !spec.addresses.is_empty() {
            break (number, spec.addresses.clone());
        }
        let prefixes = family.pod(node.inner.index, number);
        let addresses: Vec<_> = prefixes.iter().map(|prefix| prefix.address).collect();
        if addresses.iter().all(|address| !taken.contains(address)) {
            break (number, addresses);
        }
    };
    for address in &addresses {
        if taken.contains(address) {
            return Err(full(*address, "another pod has it"));
        }
        let networks = family.pod(node.inner.index, 0);
        if !networks.iter().any(|network| network.contains(*address)) {
            return Err(full(*address, "it isn't in the pod network of the node"));
        }
    }
    taken.extend(&addresses);
    Ok((number, addresses))
}
