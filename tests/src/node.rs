//! A machine of the lab: a network namespace with a wire to the other nodes.

use std::{
    collections::HashSet,
    fs,
    net::IpAddr,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicU8},
};

use crate::{
    Error, Place, Pod, PodNetwork, PodSpec, Result, ScheduledPod, Service, cgroup, ip, kube_proxy,
    lab::Shared,
    plan::{BRIDGE, NODE_INTERFACE, ROUTED_GATEWAY_V4},
    sys,
};

/// The cgroup of a node's own processes, beside those of its pods. No pod can have the name.
const SYSTEM_CGROUP: &str = "node.system";

/// A node. Its processes (an agent, a probe, tcpdump) run through its [`Place`].
#[derive(Debug, Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    place: Place,
    pub(crate) name: String,
    /// From 1: part of every address.
    pub(crate) index: u8,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) next_pod: AtomicU8,
    /// The addresses of its pods, those that are scheduled included.
    pub(crate) taken: Mutex<HashSet<IpAddr>>,
    /// The services that kube-proxy's rules are written for.
    proxied: Mutex<Vec<Service>>,
}

impl Deref for Node {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.inner.place
    }
}

impl Node {
    /// The node's name, as in `spec.nodeName`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The node's addresses on the wire, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.inner.addresses
    }

    /// The first of the node's addresses.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.inner.addresses[0]
    }

    /// A directory of the node's own, for whatever its processes keep.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.shared.directory.join(self.name())
    }

    /// The node's own BPF file system.
    #[must_use]
    pub fn bpf_directory(&self) -> PathBuf {
        self.directory().join("bpf")
    }

    /// Where the node's agents meet.
    #[must_use]
    pub fn run_directory(&self) -> PathBuf {
        self.directory().join("run")
    }

    /// Makes a pod: namespace, interface and addresses first, then its manifest, as running.
    ///
    /// # Errors
    /// If the name or an address is taken, or the system refuses.
    pub fn pod(&self, name: &str, spec: PodSpec) -> Result<Pod> {
        let announce = spec.announced;
        let pod = self.schedule(name, spec)?.start()?;
        if announce {
            pod.announce()?;
        }
        Ok(pod)
    }

    /// Gives a pod a place on this node without starting it: it has its addresses, but neither
    /// interface nor manifest. The test decides about the order of the rest.
    ///
    /// # Errors
    /// If the name is unfit or an address is taken.
    pub fn schedule(&self, name: &str, spec: PodSpec) -> Result<ScheduledPod> {
        ScheduledPod::new(self, name, spec)
    }

    /// Writes the rules that kube-proxy would write for a service, beside those of the services
    /// that were given before; a service of the same name is replaced.
    ///
    /// # Errors
    /// If iptables-restore refuses them, or bridged pods' packets don't pass iptables.
    pub fn kube_proxy(&self, service: &Service) -> Result<()> {
        let mut proxied = self
            .inner
            .proxied
            .lock()
            .unwrap_or_else(|error| error.into_inner());
        proxied.retain(|other| !other.is_same_object(service));
        proxied.push(service.clone());
        kube_proxy::install(self, &proxied)
    }

    /// Writes a setting of the node; `name` is a path below `/proc/sys/net`.
    ///
    /// # Errors
    /// If the kernel has no such setting, or refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        ip::sysctl(self.namespace(), &[(name.into(), value)])
    }

    /// Gives a namespace that exists its interfaces, except the wire's, and settings.
    pub(crate) fn set_up(shared: &Arc<Shared>, name: &str, index: u8) -> Result<Node> {
        let addresses = shared
            .family
            .node(index)
            .iter()
            .map(|prefix| prefix.address)
            .collect();
        let cgroup = tree(shared, name).join(SYSTEM_CGROUP);
        cgroup::create(&cgroup)?;
        let place = Place {
            shared: Arc::clone(shared),
            label: name.into(),
            namespace: shared.namespace(name),
            cgroup,
        };
        let node = Node {
            inner: Arc::new(Inner {
                place,
                name: name.into(),
                index,
                addresses,
                next_pod: AtomicU8::new(2),
                taken: Mutex::default(),
                proxied: Mutex::default(),
            }),
        };
        let bpf = node.bpf_directory();
        for directory in [&node.directory(), &bpf] {
            fs::create_dir(directory).map_err(Error::path("create", directory))?;
        }
        sys::mount_bpf(&bpf).map_err(Error::path("mount a BPF file system on", &bpf))?;
        node.configure()?;
        Ok(node)
    }

    fn configure(&self) -> Result<()> {
        let rp_filter = self.shared.rp_filter.to_string();
        let settings = [
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/rp_filter", &rp_filter),
            ("ipv4/conf/default/rp_filter", &rp_filter),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
        ];
        ip::sysctl(
            &self.namespace,
            &settings.map(|(name, value)| (name.into(), value)),
        )?;
        let mut commands = vec!["link set lo up".into()];
        if self.shared.network == PodNetwork::Bridged {
            commands.push(format!(
                // A hardware address of its own: a bridge otherwise takes that of a port, and
                // changes it as ports come and go. No querier is there for multicast snooping.
                "link add {BRIDGE} address 0a:58:ff:00:00:{:02x} type bridge mcast_snooping 0",
                self.inner.index
            ));
            commands.push(format!("link set {BRIDGE} up"));
            for gateway in self.shared.family.pod(self.inner.index, 1) {
                commands.push(address(&gateway.to_string(), BRIDGE, gateway.address));
            }
        }
        ip::inside(&self.namespace, &commands).map(drop)
    }

    /// Brings up the wire, which is there already: addresses, and routes to the other nodes' pods.
    pub(crate) fn connect(&self, others: &[&Node]) -> Result<()> {
        let mut commands = vec![format!("link set {NODE_INTERFACE} up")];
        for own in self.shared.family.node(self.inner.index) {
            commands.push(address(&own.to_string(), NODE_INTERFACE, own.address));
            // Every real node has a default route: without one, a connection to a service address
            // fails before iptables sees it. This one leads nowhere.
            let all = if own.address.is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            };
            commands.push(format!("route add {all} dev {NODE_INTERFACE}"));
        }
        for other in others {
            let networks = self.shared.family.pod(other.inner.index, 0);
            for (network, via) in networks.iter().zip(other.addresses()) {
                // onlink: before the wire's other end is up, IPv6 has no route to it.
                commands.push(format!(
                    "route add {network} via {via} dev {NODE_INTERFACE} onlink"
                ));
            }
        }
        ip::inside(&self.namespace, &commands).map(drop)
    }

    /// The cgroup above those of the node's own processes and of its pods.
    pub(crate) fn cgroup_tree(&self) -> PathBuf {
        tree(&self.shared, self.name())
    }

    pub(crate) fn pod_cgroup(&self, pod: &str) -> PathBuf {
        self.cgroup_tree().join(pod)
    }

    /// The next hops of the node's pods, one a family.
    pub(crate) fn gateways(&self) -> Vec<IpAddr> {
        let prefixes = self.shared.family.pod(self.inner.index, 1);
        let of = |address: IpAddr| match self.shared.network {
            PodNetwork::Bridged => address,
            PodNetwork::Routed if address.is_ipv4() => ROUTED_GATEWAY_V4,
            PodNetwork::Routed => crate::plan::ROUTED_GATEWAY_V6,
        };
        prefixes
            .into_iter()
            .map(|prefix| of(prefix.address))
            .collect()
    }
}

/// The cgroup of all that runs on a node.
fn tree(shared: &Shared, name: &str) -> PathBuf {
    shared.cgroup.join(name)
}

/// The `ip` command for an address that is usable at once.
pub(crate) fn address(prefix: &str, interface: &str, address: IpAddr) -> String {
    let nodad = if address.is_ipv6() { " nodad" } else { "" };
    format!("address add {prefix} dev {interface}{nodad}")
}

/// Whether a sysctl exists and is on, seen from the calling thread's namespace.
pub(crate) fn is_on(sysctl: &Path) -> bool {
    fs::read_to_string(sysctl).is_ok_and(|value| value.trim() == "1")
}
