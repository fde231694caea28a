//! Typed handles of the pinned maps: the only place that reads or writes them.

mod interfaces;
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
    map::{Address, Configuration, InterfaceValue, NetworkKey, PortKey, ServiceKey, SourceKey},
    name,
    splice::Place,
};
use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, SockMap},
};

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
