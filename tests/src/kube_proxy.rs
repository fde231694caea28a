//! The rules that kube-proxy writes in its iptables mode, real ones, in a node's namespace.

use std::{fs::File, net::IpAddr, path::Path, process};

use crate::{Error, Node, Place, PodNetwork, Result, Service, ip, node::is_on, plan::Prefix, sys};

/// The bit by which kube-proxy marks packets whose source it will replace.
const MASQUERADE: &str = "0x4000/0x4000";

/// Makes `services` the services of a node, whatever they were before.
pub(crate) fn install(node: &Node, services: &[Service]) -> Result<()> {
    for pods in node.shared.family.pods() {
        let (program, sysctl) = if pods.address.is_ipv4() {
            (
                "iptables-restore",
                "/proc/sys/net/bridge/bridge-nf-call-iptables",
            )
        } else {
            (
                "ip6tables-restore",
                "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
            )
        };
        if node.shared.network == PodNetwork::Bridged
            && !node.in_namespace(|| is_on(Path::new(sysctl)))?
        {
            return Err(Error::Unsupported(format!(
                "{sysctl} isn't 1, so answers between pods of one bridge would keep the pod's \
                 address instead of the service's: load the kernel module br_netfilter"
            )));
        }
        restore(node, program, &rules(services, pods))?;
    }
    Ok(())
}

/// Feeds tables to iptables-restore or ip6tables-restore in a place, instead of those of the name.
pub(crate) fn restore(place: &Place, program: &str, rules: &str) -> Result<()> {
    let mut command = process::Command::new(program);
    // Legacy iptables has one lock for the whole machine.
    command.args(["-w", "10"]);
    let procs = place.cgroup().join("cgroup.procs");
    let procs = File::options()
        .write(true)
        .open(&procs)
        .map_err(Error::path("open", &procs))?;
    let namespace = ip::namespace_path(place.namespace());
    let namespace = File::open(&namespace).map_err(Error::path("open", &namespace))?;
    sys::start_in(&mut command, procs, namespace);
    ip::feed(&mut command, program, rules).map(drop)
}

/// The tables for the services' addresses of one family, as iptables-restore reads them.
fn rules(services: &[Service], pods: Prefix) -> String {
    let mut table = Rules {
        pods,
        chains: String::new(),
        nat: String::new(),
        reject: String::new(),
    };
    for (number, service) in services.iter().enumerate() {
        table.add(number, service);
    }
    let Rules {
        chains,
        nat,
        reject,
        ..
    } = table;
    format!(
        "*nat\n\
         :KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n\
         :KUBE-MARK-MASQ - [0:0]\n{chains}\
         -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" \
         -j KUBE-POSTROUTING\n\
         -A KUBE-POSTROUTING -m mark ! --mark {MASQUERADE} -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n{nat}\
         -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n\
         *filter\n\
         :KUBE-FORWARD - [0:0]\n:KUBE-SERVICES - [0:0]\n\
         -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         -A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
         -A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m mark --mark {MASQUERADE} -j ACCEPT\n\
         -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n{reject}COMMIT\n"
    )
}

/// The parts of the tables that depend on services.
struct Rules {
    pods: Prefix,
    chains: String,
    nat: String,
    reject: String,
}

impl Rules {
    fn add(&mut self, number: usize, service: &Service) {
        let same = |address: &&IpAddr| address.is_ipv4() == self.pods.address.is_ipv4();
        let Some(vip) = service.addresses.iter().find(same).copied() else {
            return;
        };
        let ready = service.endpoints.iter().filter(|endpoint| endpoint.ready);
        let endpoints: Vec<IpAddr> = ready
            .filter_map(|endpoint| endpoint.addresses.iter().find(same).copied())
            .collect();
        for (index, port) in service.ports.iter().enumerate() {
            let at = format!("-d {vip} -p tcp -m tcp --dport {}", port.port);
            if endpoints.is_empty() {
                self.reject += &format!("-A KUBE-SERVICES {at} -j REJECT\n");
                continue;
            }
            // kube-proxy ends the names of chains with hashes; 28 characters are the limit.
            let chain = format!("KUBE-SVC-{number}-{index}");
            self.chains += &format!(":{chain} - [0:0]\n");
            self.nat += &format!("-A KUBE-SERVICES {at} -j {chain}\n");
            self.nat += &format!("-A {chain} ! -s {} {at} -j KUBE-MARK-MASQ\n", self.pods);
            if let Some(node_port) = port.node_port {
                let external = format!("KUBE-EXT-{number}-{index}");
                self.chains += &format!(":{external} - [0:0]\n");
                self.nat += &format!(
                    "-A KUBE-NODEPORTS -p tcp -m tcp --dport {node_port} -j {external}\n\
                     -A {external} -j KUBE-MARK-MASQ\n-A {external} -j {chain}\n"
                );
            }
            for (position, endpoint) in endpoints.iter().enumerate() {
                let separate = format!("KUBE-SEP-{number}-{index}-{position}");
                let left = endpoints.len() - position;
                self.nat += &match left {
                    1 => format!("-A {chain} -j {separate}\n"),
                    _ => format!(
                        "-A {chain} -m statistic --mode random --probability {:.10} -j {separate}\n",
                        1.0 / f64::from(u32::try_from(left).unwrap_or(u32::MAX))
                    ),
                };
                let target = std::net::SocketAddr::new(*endpoint, port.target);
                self.chains += &format!(":{separate} - [0:0]\n");
                // A pod that reaches itself would answer itself without this.
                self.nat += &format!("-A {separate} -s {endpoint} -j KUBE-MARK-MASQ\n");
                self.nat +=
                    &format!("-A {separate} -p tcp -m tcp -j DNAT --to-destination {target}\n");
            }
        }
    }
}
