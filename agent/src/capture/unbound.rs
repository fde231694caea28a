//! Why a pod's interface isn't known, in words that say what to do: pure.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use super::{
    bind::Conflict,
    devices::{Device, Observation},
};
use crate::discovery::model::Workload;

/// Why a pod has no interface, although it has addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unbound {
    /// It's being deleted, and whoever has its address by now may be another pod.
    Ending,
    /// Its interface has gone.
    Lost,
    /// More than one could be its, or one of them could be another pod's.
    Doubt {
        /// Their names.
        interfaces: Vec<String>,
    },
    /// The node's route to it leads through a device of a kind that can't be captured.
    NoPair {
        /// The pod's address.
        address: IpAddr,
        /// The device's name.
        device: String,
    },
    /// The node's route to it leads through a veth that counts as the node's own.
    Nodes {
        /// The pod's address.
        address: IpAddr,
        /// The device's name.
        device: String,
    },
    /// A bridge has learned where its address is, which any pod on it can bring about.
    Learned {
        /// The pod's address.
        address: IpAddr,
        /// The port's name.
        port: String,
    },
    /// Nothing says where its addresses are.
    Nowhere {
        /// They.
        addresses: Vec<IpAddr>,
    },
}

impl fmt::Display for Unbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ending => write!(f, "it is being deleted"),
            Self::Lost => write!(
                f,
                "its interface has gone; it is looked for again when the pod's object changes"
            ),
            Self::Doubt { interfaces } => write!(
                f,
                "more than one interface claims its address, or its interface claims another \
                 pod's too: {}",
                interfaces.join(", ")
            ),
            Self::NoPair { address, device } => write!(
                f,
                "the node's route to {address} leads through {device}, which is no veth or netkit \
                 pair (but macvlan, ipvlan or SR-IOV, perhaps): what passes there can't be captured"
            ),
            Self::Nodes { address, device } => write!(
                f,
                "the node's route to {address} leads through {device}, which counts as the node's \
                 own: a route with a gateway leads through it, or it bears a network's address"
            ),
            Self::Learned { address, port } => write!(
                f,
                "only what a bridge has learned from frames says that {address} is behind {port}, \
                 and any pod on the bridge can send such frames: needed is a host route, an \
                 address in the pod's namespace, or a permanent neighbour and a sticky forwarding \
                 entry"
            ),
            Self::Nowhere { addresses } => {
                let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "none of the node's interfaces leads to {}: no host route, no address in the \
                     namespace of any pod's interface, no entry of a bridge",
                    addresses.join(", ")
                )
            }
        }
    }
}

/// What is wrong with a pod that [`super::bind`] has left out, in the order of what to mend first.
pub(super) fn reason(
    pod: &Workload,
    is_lost: bool,
    conflicts: &[Conflict],
    observation: &Observation,
) -> Unbound {
    let device = |index: &u32| observation.devices.get(index);
    let name =
        |index: &u32| device(index).map_or_else(|| index.to_string(), |device| device.name.clone());
    let at = |places: &BTreeMap<IpAddr, u32>| {
        let mut addresses = pod.addresses.iter();
        addresses.find_map(|address| Some((*address, *places.get(address)?)))
    };
    if is_lost {
        return Unbound::Lost;
    }
    if pod.terminating {
        return Unbound::Ending;
    }
    let conflict = conflicts
        .iter()
        .find(|conflict| conflict.workload == pod.name);
    if let Some(conflict) = conflict {
        return Unbound::Doubt {
            interfaces: conflict.interfaces.iter().map(name).collect(),
        };
    }
    if let Some((address, index)) = at(&observation.elsewhere) {
        let device_name = name(&index);
        return if device(&index).is_some_and(|device: &Device| device.peer.is_some()) {
            Unbound::Nodes {
                address,
                device: device_name,
            }
        } else {
            Unbound::NoPair {
                address,
                device: device_name,
            }
        };
    }
    if let Some((address, port)) = at(&observation.learned) {
        return Unbound::Learned {
            address,
            port: name(&port),
        };
    }
    Unbound::Nowhere {
        addresses: pod.addresses.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::capture::bind::tests::pod;

    fn device(index: u32, name: &str, peer: Option<(i32, u32)>) -> (u32, Device) {
        let device = Device {
            index,
            name: name.into(),
            peer,
            bridge: None,
            is_bridge: false,
            learns: true,
            mac: None,
            has_link_header: true,
            is_loopback: false,
        };
        (index, device)
    }

    #[test]
    fn the_reason_is_the_one_to_mend_first() {
        let one: IpAddr = "10.0.0.1".parse().unwrap();
        let two: IpAddr = "10.0.0.2".parse().unwrap();
        let pod = pod("x", &["10.0.0.1", "10.0.0.2"]);
        let ending = Workload {
            terminating: true,
            ..(*pod).clone()
        };
        let ending = Arc::new(ending);
        let doubt = [Conflict {
            workload: pod.name.clone(),
            interfaces: vec![3, 9],
        }];
        let devices = BTreeMap::from([
            device(3, "veth3", Some((1, 2))),
            device(4, "macvlan4", None),
            device(5, "port5", Some((2, 2))),
        ]);
        let nowhere = "none of the node's interfaces leads to 10.0.0.1, 10.0.0.2";
        let check = |pod: &Workload,
                     is_lost,
                     conflicts: &[Conflict],
                     elsewhere: &[(IpAddr, u32)],
                     learned: &[(IpAddr, u32)],
                     expected: &str| {
            let observation = Observation {
                devices: devices.clone(),
                elsewhere: elsewhere.iter().copied().collect(),
                learned: learned.iter().copied().collect(),
                ..Observation::default()
            };
            let told = reason(pod, is_lost, conflicts, &observation).to_string();
            assert!(told.contains(expected), "{told:?} isn't {expected:?}");
        };
        let port = [(two, 5)];
        let (other, own) = ([(one, 4)], [(two, 3)]);
        check(
            &ending,
            true,
            &doubt,
            &other,
            &port,
            "its interface has gone",
        );
        check(&ending, false, &doubt, &other, &port, "it is being deleted");
        check(
            &pod,
            false,
            &doubt,
            &other,
            &port,
            "another pod's too: veth3, 9",
        );
        check(
            &pod,
            false,
            &[],
            &other,
            &port,
            "10.0.0.1 leads through macvlan4, which is no",
        );
        check(
            &pod,
            false,
            &[],
            &own,
            &port,
            "10.0.0.2 leads through veth3, which counts",
        );
        check(
            &pod,
            false,
            &[],
            &[],
            &port,
            "says that 10.0.0.2 is behind port5",
        );
        check(&pod, false, &[], &[], &[], nowhere);
    }
}
