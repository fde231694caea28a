//! Least requests of two choices: of two endpoints picked at random, the one with fewer open
//! connections from this node.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::discovery::model::Endpoint;

/// Open connections by endpoint. Bounded by the connections that are open.
#[derive(Debug, Default)]
pub(super) struct Load(Mutex<HashMap<SocketAddr, usize>>);

impl Load {
    /// The index of the endpoint to take; `endpoints` has at least one.
    #[must_use]
    pub(super) fn choose(&self, endpoints: &[&Endpoint]) -> usize {
        if endpoints.len() < 2 {
            return 0;
        }
        let first = rand::random_range(0..endpoints.len());
        // Another one than the first, each as likely.
        let second = (first + rand::random_range(1..endpoints.len())) % endpoints.len();
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |index: usize| {
            let endpoint = endpoints[index];
            let address = SocketAddr::new(endpoint.address, endpoint.port);
            counts.get(&address).copied().unwrap_or(0)
        };
        if open(second) < open(first) {
            second
        } else {
            first
        }
    }

    /// Counts a connection to an endpoint until the guard is dropped.
    #[must_use]
    pub(super) fn count(self: &Arc<Self>, endpoint: SocketAddr) -> LoadGuard {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(endpoint).or_default() += 1;
        LoadGuard {
            load: self.clone(),
            endpoint,
        }
    }
}

/// A connection that counts.
#[derive(Debug)]
pub(super) struct LoadGuard {
    load: Arc<Load>,
    endpoint: SocketAddr,
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        let mut counts = self.load.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.endpoint) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.endpoint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(last: u8) -> Endpoint {
        Endpoint {
            port_name: "".into(),
            address: [10, 0, 0, last].into(),
            port: 80,
            node: None,
        }
    }

    #[test]
    fn the_busier_of_two_is_never_taken() {
        let load = Arc::new(Load::default());
        let (idle, busy) = (endpoint(1), endpoint(2));
        let _open = load.count(SocketAddr::new(busy.address, busy.port));
        for _ in 0..100 {
            assert_eq!(load.choose(&[&busy, &idle]), 1);
        }
    }

    #[test]
    fn every_idle_endpoint_is_taken_sometimes() {
        let load = Arc::new(Load::default());
        let endpoints: Vec<Endpoint> = (0..4).map(endpoint).collect();
        let endpoints: Vec<&Endpoint> = endpoints.iter().collect();
        let mut taken = [false; 4];
        // The chance of missing one in 1,000 draws is below 10^-120.
        for _ in 0..1000 {
            taken[load.choose(&endpoints)] = true;
        }
        assert_eq!(taken, [true; 4]);
    }

    #[test]
    fn a_closed_connection_leaves_nothing_behind() {
        let load = Arc::new(Load::default());
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        let (first, second) = (load.count(address), load.count(address));
        drop(first);
        assert_eq!(load.0.lock().unwrap().get(&address), Some(&1));
        drop(second);
        assert!(load.0.lock().unwrap().is_empty());
    }
}
