//! Which endpoints of a service the kernel may have a pod connect to: those on this node.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use super::{maps, publish::frontends};
use crate::discovery::{
    model::Service,
    store::{Snapshot, Update},
};

/// What maps can do of services that they know.
pub trait BalanceMaps {
    /// Of every VIP and port that has endpoints in the maps.
    fn balances(&self) -> HashMap<SocketAddr, Balance>;
    /// Replaces what is known of a VIP's port. One that the maps don't have stays without.
    ///
    /// # Errors
    /// [`maps::Error`]; where there is no room, one that [says so](maps::Error::is_full), and then nothing
    /// of it is there.
    fn set_balance(
        &mut self,
        frontend: SocketAddr,
        before: &Balance,
        after: &Balance,
    ) -> Result<(), maps::Error>;
}

/// What there is to draw from for a VIP's port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balance {
    /// All endpoints that come into question for a pod of this node.
    pub endpoints: u32,
    /// Those that are here and of the VIP's family.
    pub here: Vec<SocketAddr>,
}

impl Balance {
    fn new(service: &Service, frontend: SocketAddr, node: &str) -> Self {
        let candidates = service.candidates(node, frontend.port());
        let here = candidates
            .iter()
            .filter(|endpoint| endpoint.is_on(node))
            .map(|endpoint| SocketAddr::new(endpoint.address, endpoint.port))
            .filter(|endpoint| endpoint.is_ipv4() == frontend.is_ipv4());
        Self {
            endpoints: u32::try_from(candidates.len()).unwrap_or(u32::MAX),
            here: here.collect(),
        }
    }
}

/// Keeps the maps in line with the store. To be told after [`Publisher`](super::publish::Publisher).
#[derive(Debug)]
pub struct Balancer {
    node: Arc<str>,
    /// Of VIPs and ports with endpoints here; `None` until the maps were looked at.
    published: Option<HashMap<SocketAddr, Balance>>,
}

impl Balancer {
    /// For the pods of a node.
    #[must_use]
    pub fn new(node: Arc<str>) -> Self {
        Self {
            node,
            published: None,
        }
    }

    /// Makes the maps say what the snapshot says, whatever they said before.
    ///
    /// # Errors
    /// A map that refused an entry for another reason than being full.
    pub fn publish_all(
        &mut self,
        maps: &mut impl BalanceMaps,
        snapshot: &Snapshot,
    ) -> Result<(), maps::Error> {
        let published = self.published.get_or_insert_with(|| maps.balances());
        let known: BTreeSet<SocketAddr> = published
            .keys()
            .copied()
            .chain(snapshot.services().flat_map(|service| frontends(service)))
            .collect();
        known
            .into_iter()
            .try_for_each(|frontend| self.publish_one(maps, snapshot, frontend))
    }

    /// Carries one update over.
    ///
    /// # Errors
    /// A map that refused an entry for another reason than being full.
    pub fn publish(
        &mut self,
        maps: &mut impl BalanceMaps,
        update: &Update,
    ) -> Result<(), maps::Error> {
        if update.waypoints_changed {
            return self.publish_all(maps, &update.snapshot);
        }
        for change in &update.services {
            let either = change.before.iter().chain(&change.after);
            for frontend in either.flat_map(|service| frontends(service)) {
                self.publish_one(maps, &update.snapshot, frontend)?;
            }
        }
        Ok(())
    }

    fn publish_one(
        &mut self,
        maps: &mut impl BalanceMaps,
        snapshot: &Snapshot,
        frontend: SocketAddr,
    ) -> Result<(), maps::Error> {
        let published = self.published.get_or_insert_default();
        let service = snapshot.service_by_vip(frontend);
        let after = service
            // What goes through a waypoint goes to no endpoint by itself.
            .filter(|service| snapshot.waypoint_of_service(service).is_none())
            .map(|service| Balance::new(service, frontend, &self.node))
            .filter(|balance| !balance.here.is_empty())
            .unwrap_or_default();
        let before = published.remove(&frontend).unwrap_or_default();
        if before != after
            && let Err(error) = maps.set_balance(frontend, &before, &after)
        {
            if !error.is_full() {
                return Err(error);
            }
            tracing::warn!(%frontend, "the agent carries all connections to it: {error}");
            return Ok(());
        }
        if !after.here.is_empty() {
            published.insert(frontend, after);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
