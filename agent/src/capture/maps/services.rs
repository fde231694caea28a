//! What the kernel knows of services.

use std::{collections::HashMap, net::SocketAddr, ops::Range};

use ambit_common::{
    balance::{EndpointKey, EndpointValue, ServiceValue},
    map::ServiceKey,
    name,
};
use aya::maps::MapError;

use super::{
    Error, Maps, absent_is_fine, from_key, from_service_key, refused, service_key, to_key,
};
use crate::capture::balance::{Balance, BalanceMaps};

/// The entry must not be there yet: `BPF_NOEXIST` of linux/bpf.h.
const BPF_NOEXIST: u64 = 1;
/// It must be there.
const BPF_EXIST: u64 = 2;

impl Maps {
    /// Adds or removes a VIP's port. Of one that is there, what is known stays.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_service(&mut self, vip: SocketAddr, known: bool) -> Result<(), Error> {
        let key = service_key(vip);
        if known {
            let unknown = ServiceValue::default();
            present_is_fine(self.services.insert(key, unknown, BPF_NOEXIST))
        } else {
            absent_is_fine(self.services.remove(&key))
        }
        .map_err(refused(name::SERVICES))
    }

    /// VIPs and ports that the kernel has.
    pub fn services(&self) -> impl Iterator<Item = SocketAddr> {
        let keys = self.services.keys().filter_map(Result::ok);
        keys.filter_map(|key| from_service_key(&key))
    }

    fn remove_endpoints(&mut self, service: ServiceKey, range: Range<usize>) -> Result<(), Error> {
        range
            .filter_map(|index| endpoint_key(service, index))
            .try_for_each(|key| {
                absent_is_fine(self.local_endpoints.remove(&key))
                    .map_err(refused(name::LOCAL_ENDPOINTS))
            })
    }

    fn set_endpoints(
        &mut self,
        service: ServiceKey,
        endpoints: &[SocketAddr],
    ) -> Result<(), Error> {
        for (index, endpoint) in endpoints.iter().enumerate() {
            let value = EndpointValue {
                address: to_key(endpoint.ip()),
                port: endpoint.port().into(),
            };
            if let Some(key) = endpoint_key(service, index) {
                self.local_endpoints
                    .insert(key, value, 0)
                    .map_err(refused(name::LOCAL_ENDPOINTS))?;
            }
        }
        Ok(())
    }

    fn set_service_value(&mut self, key: ServiceKey, value: ServiceValue) -> Result<(), Error> {
        absent_is_fine(self.services.insert(key, value, BPF_EXIST)).map_err(refused(name::SERVICES))
    }
}

impl BalanceMaps for Maps {
    fn balances(&self) -> HashMap<SocketAddr, Balance> {
        let mut balances = HashMap::<SocketAddr, Balance>::new();
        let mut entries: Vec<(EndpointKey, EndpointValue)> =
            self.local_endpoints.iter().filter_map(Result::ok).collect();
        entries.sort_by_key(|(key, _)| key.index);
        for (key, endpoint) in entries {
            let (Some(frontend), Ok(port)) =
                (from_service_key(&key.service), u16::try_from(endpoint.port))
            else {
                continue;
            };
            let endpoints = self
                .services
                .get(&key.service, 0)
                .unwrap_or_default()
                .endpoints;
            let balance = balances.entry(frontend).or_default();
            balance.endpoints = endpoints;
            balance
                .here
                .push(SocketAddr::new(from_key(endpoint.address), port));
        }
        balances
    }

    fn set_balance(
        &mut self,
        frontend: SocketAddr,
        before: &Balance,
        after: &Balance,
    ) -> Result<(), Error> {
        let key = service_key(frontend);
        // The programs find an endpoint for each index at any time.
        if let Err(error) = self.set_endpoints(key, &after.here) {
            self.set_service_value(key, ServiceValue::default())?;
            let most = before.here.len().max(after.here.len());
            self.remove_endpoints(key, 0..most)?;
            return Err(error);
        }
        let value = ServiceValue {
            endpoints: after.endpoints,
            here: u32::try_from(after.here.len()).unwrap_or(0),
        };
        self.set_service_value(key, value)?;
        self.remove_endpoints(key, after.here.len()..before.here.len())
    }
}

fn endpoint_key(service: ServiceKey, index: usize) -> Option<EndpointKey> {
    let index = u32::try_from(index).ok()?;
    Some(EndpointKey { service, index })
}

fn present_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::SyscallError(call)) if call.io_error.raw_os_error() == Some(libc::EEXIST) => {
            Ok(())
        }
        other => other,
    }
}
