//! Typed handles of the pinned maps: the only place that reads or writes them.

mod past_veth;
mod services;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use ambit_common::{
    balance::{EndpointKey, EndpointValue, ServiceValue},
    capture::Listener,
    counter::Counter,
    map::{
        Address, Configuration, DIRECTION_INBOUND, DIRECTION_OUTBOUND, InterfaceValue,
        NETWORK_KEY_PREFIX, NetworkKey, PortKey, ServiceKey, SourceKey,
    },
    name,
    splice::Place,
};
use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, SockMap, lpm_trie::Key},
};
use ipnet::IpNet;

use crate::discovery::model::Exclusions;

/// Why a map could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object and the agent were not built together.
    #[error("the eBPF object has no map {name} of the expected type: {source}")]
    Missing {
        /// The map.
        name: &'static str,
        /// What aya found.
        source: MapError,
    },
    /// The kernel refused an operation.
    #[error("eBPF map {name}: {source}{}", cure(source))]
    Refused {
        /// The map.
        name: &'static str,
        /// The kernel's reason.
        source: MapError,
    },
}

impl Error {
    /// Whether there is no room: in the map, or at present in the kernel's memory for it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let code = match self {
            Self::Refused {
                source: MapError::SyscallError(call),
                ..
            } => call.io_error.raw_os_error(),
            _ => None,
        };
        matches!(code, Some(libc::E2BIG | libc::ENOMEM))
    }

    /// The kernel's refusal with this error code.
    #[cfg(test)]
    pub(super) fn refusal(code: i32) -> Self {
        Self::Refused {
            name: name::WORKLOADS,
            source: MapError::SyscallError(aya::sys::SyscallError {
                call: "bpf_map_update_elem",
                io_error: std::io::Error::from_raw_os_error(code),
            }),
        }
    }
}

fn cure(error: &MapError) -> &'static str {
    match error {
        MapError::SyscallError(call) if call.io_error.raw_os_error() == Some(libc::E2BIG) => {
            " (the map is full: this node has more entries than it was made for)"
        }
        _ => "",
    }
}

/// The maps that user space writes.
pub struct Maps {
    interfaces: HashMap<MapData, u32, InterfaceValue>,
    sources: HashMap<MapData, SourceKey, u32>,
    pods: HashMap<MapData, Address, u32>,
    workloads: HashMap<MapData, Address, u32>,
    services: HashMap<MapData, ServiceKey, ServiceValue>,
    local_endpoints: HashMap<MapData, EndpointKey, EndpointValue>,
    excluded_ports: HashMap<MapData, PortKey, u32>,
    excluded_networks: LpmTrie<MapData, NetworkKey, u32>,
    node_addresses: HashMap<MapData, Address, u32>,
    past_veth: HashMap<MapData, u32, u32>,
    listeners: SockMap<MapData>,
    configuration: Array<MapData, Configuration>,
}

/// Reads the counters; a handle of its own, for metrics.
pub struct Counters(PerCpuArray<MapData, u64>);

impl Maps {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn take(object: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            interfaces: take(object, name::INTERFACES)?,
            sources: take(object, name::SOURCES)?,
            pods: take(object, name::PODS)?,
            workloads: take(object, name::WORKLOADS)?,
            services: take(object, name::SERVICES)?,
            local_endpoints: take(object, name::LOCAL_ENDPOINTS)?,
            excluded_ports: take(object, name::EXCLUDED_PORTS)?,
            excluded_networks: take(object, name::EXCLUDED_NETWORKS)?,
            node_addresses: take(object, name::NODE_ADDRESSES)?,
            past_veth: take(object, name::PAST_VETH)?,
            listeners: take(object, name::LISTENERS)?,
            configuration: take(object, name::CONFIGURATION)?,
        })
    }

    /// The settings that the programs work by.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn configuration(&self) -> Result<Configuration, Error> {
        self.configuration
            .get(&0, 0)
            .map_err(refused(name::CONFIGURATION))
    }

    /// Changes the settings.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_configuration(&mut self, value: Configuration) -> Result<(), Error> {
        self.configuration
            .set(0, value, 0)
            .map_err(refused(name::CONFIGURATION))
    }

    /// Puts a listening socket where the programs find it: from now on it takes what is captured.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_listener(
        &mut self,
        role: Listener,
        is_ipv6: bool,
        socket: &impl AsRawFd,
    ) -> Result<(), Error> {
        self.listeners
            .set(role.slot(is_ipv6), socket, 0)
            .map_err(refused(name::LISTENERS))
    }

    /// The interfaces that have an entry.
    pub fn interfaces(&self) -> impl Iterator<Item = (u32, InterfaceValue)> {
        self.interfaces.iter().filter_map(Result::ok)
    }

    /// Writes an interface's state.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_interface(&mut self, index: u32, value: InterfaceValue) -> Result<(), Error> {
        self.interfaces
            .insert(index, value, 0)
            .map_err(refused(name::INTERFACES))
    }

    /// Forgets an interface and all that was said of it.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn remove_interface(&mut self, index: u32) -> Result<(), Error> {
        self.set_sources(index, &[])?;
        self.set_exclusions(index, &Exclusions::default())?;
        self.forget_past_veth(index)?;
        absent_is_fine(self.interfaces.remove(&index)).map_err(refused(name::INTERFACES))
    }

    /// Makes `addresses` the ones that the interface may send from.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_sources(&mut self, interface: u32, addresses: &[IpAddr]) -> Result<(), Error> {
        let wanted: Vec<SourceKey> = addresses
            .iter()
            .map(|address| SourceKey {
                interface,
                address: to_key(*address),
            })
            .collect();
        let present = self.sources.keys().filter_map(Result::ok);
        let stale: Vec<SourceKey> = present
            .filter(|key| key.interface == interface && !wanted.contains(key))
            .collect();
        for key in wanted {
            self.sources
                .insert(key, 1, 0)
                .map_err(refused(name::SOURCES))?;
            self.pods
                .insert(key.address, interface, 0)
                .map_err(refused(name::PODS))?;
        }
        for key in stale {
            absent_is_fine(self.sources.remove(&key)).map_err(refused(name::SOURCES))?;
            // Another pod may have the address by now.
            if self
                .pods
                .get(&key.address, 0)
                .is_ok_and(|holder| holder == interface)
            {
                absent_is_fine(self.pods.remove(&key.address)).map_err(refused(name::PODS))?;
            }
        }
        Ok(())
    }

    /// Makes `exclusions` the interface's.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_exclusions(&mut self, interface: u32, exclusions: &Exclusions) -> Result<(), Error> {
        let port_key = |port, direction| PortKey {
            interface,
            port,
            direction,
        };
        let outbound = exclusions
            .outbound_ports
            .iter()
            .map(|p| port_key(*p, DIRECTION_OUTBOUND));
        let inbound = exclusions
            .inbound_ports
            .iter()
            .map(|p| port_key(*p, DIRECTION_INBOUND));
        let ports: Vec<PortKey> = outbound.chain(inbound).collect();
        let present = self.excluded_ports.keys().filter_map(Result::ok);
        let stale: Vec<PortKey> = present
            .filter(|key| key.interface == interface && !ports.contains(key))
            .collect();
        for key in ports {
            self.excluded_ports
                .insert(key, 1, 0)
                .map_err(refused(name::EXCLUDED_PORTS))?;
        }
        for key in stale {
            absent_is_fine(self.excluded_ports.remove(&key))
                .map_err(refused(name::EXCLUDED_PORTS))?;
        }
        self.set_excluded_networks(interface, &exclusions.outbound_cidrs)
    }

    fn set_excluded_networks(&mut self, interface: u32, networks: &[IpNet]) -> Result<(), Error> {
        let wanted: Vec<(u32, NetworkKey)> = networks
            .iter()
            .map(|network| network_key(interface, network))
            .collect();
        let present = self.excluded_networks.keys().filter_map(Result::ok);
        let stale: Vec<Key<NetworkKey>> = present
            .filter(|key| {
                let (prefix, data) = (key.prefix_len(), key.data());
                data.interface == interface.to_be_bytes() && !wanted.contains(&(prefix, data))
            })
            .collect();
        for (prefix, data) in wanted {
            self.excluded_networks
                .insert(&Key::new(prefix, data), 1, 0)
                .map_err(refused(name::EXCLUDED_NETWORKS))?;
        }
        for key in stale {
            absent_is_fine(self.excluded_networks.remove(&key))
                .map_err(refused(name::EXCLUDED_NETWORKS))?;
        }
        Ok(())
    }

    /// Makes `addresses` the ones that are the node's own.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_node_addresses(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
        let present: Vec<Address> = self.node_addresses.keys().filter_map(Result::ok).collect();
        for stale in present
            .into_iter()
            .filter(|key| !addresses.contains(&from_key(*key)))
        {
            absent_is_fine(self.node_addresses.remove(&stale))
                .map_err(refused(name::NODE_ADDRESSES))?;
        }
        for address in addresses {
            self.node_addresses
                .insert(to_key(*address), 1, 0)
                .map_err(refused(name::NODE_ADDRESSES))?;
        }
        Ok(())
    }

    /// Adds or removes the address of an enrolled workload.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_workload(&mut self, address: IpAddr, enrolled: bool) -> Result<(), Error> {
        let key = to_key(address);
        if enrolled {
            self.workloads.insert(key, 1, 0)
        } else {
            absent_is_fine(self.workloads.remove(&key))
        }
        .map_err(refused(name::WORKLOADS))
    }

    /// Addresses of enrolled workloads that the kernel has.
    pub fn workloads(&self) -> impl Iterator<Item = IpAddr> {
        self.workloads.keys().filter_map(Result::ok).map(from_key)
    }
}

impl Counters {
    /// Opens the counters once more, from an object whose other maps were taken.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn take(object: &mut Ebpf) -> Result<Self, Error> {
        take(object, name::COUNTERS).map(Self)
    }

    /// Every counter with its name, summed over the CPUs. One that can't be read is left out.
    #[must_use]
    pub fn read(&self) -> Vec<(&'static str, u64)> {
        (0_u32..)
            .zip(Counter::ALL)
            .filter_map(|(index, counter)| {
                let values = self.0.get(&index, 0).ok()?;
                Some((counter.name(), values.iter().sum()))
            })
            .collect()
    }
}

pub(super) fn take<T: TryFrom<Map, Error = MapError>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<T, Error> {
    let map = object.take_map(name).ok_or_else(|| Error::Missing {
        name,
        source: MapError::InvalidName {
            name: name.to_owned(),
        },
    })?;
    T::try_from(map).map_err(|source| Error::Missing { name, source })
}

pub(super) fn refused(name: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Refused { name, source }
}

pub(super) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(call)) if call.io_error.raw_os_error() == Some(libc::ENOENT) => {
            Ok(())
        }
        other => other,
    }
}

/// A VIP and port as the maps have it.
pub(super) fn service_key(frontend: SocketAddr) -> ServiceKey {
    ServiceKey {
        address: to_key(frontend.ip()),
        port: frontend.port().into(),
    }
}

/// `None` if that can't be a port.
pub(super) fn from_service_key(key: &ServiceKey) -> Option<SocketAddr> {
    let port = u16::try_from(key.port).ok()?;
    Some(SocketAddr::new(from_key(key.address), port))
}

/// An address as the maps have it.
pub(crate) fn to_key(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Where an end of a connection is.
pub(crate) fn place(end: SocketAddr, namespace: i32) -> Place {
    Place {
        address: to_key(end.ip()),
        port: end.port(),
        padding: 0,
        namespace,
    }
}

pub(super) fn from_key(key: Address) -> IpAddr {
    IpAddr::from(key).to_canonical()
}

fn network_key(interface: u32, network: &IpNet) -> (u32, NetworkKey) {
    let mapped = match network {
        IpNet::V4(_) => 96,
        IpNet::V6(_) => 0,
    };
    let prefix = NETWORK_KEY_PREFIX + mapped + u32::from(network.prefix_len());
    (
        prefix,
        NetworkKey {
            interface: interface.to_be_bytes(),
            address: to_key(network.network()),
        },
    )
}
