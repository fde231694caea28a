//! What the kernel knows of pods' interfaces.

use std::net::IpAddr;

use ambit_common::map::{
    DIRECTION_INBOUND, DIRECTION_OUTBOUND, InterfaceValue, NETWORK_KEY_PREFIX, NetworkKey, PortKey,
    SourceKey,
};
use aya::maps::lpm_trie::Key;
use ipnet::IpNet;

use super::{Error, Maps, absent_is_fine, name, refused, to_key};
use crate::discovery::model::Exclusions;

impl Maps {
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
