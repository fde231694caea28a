//! Least requests of two choices: of two endpoints picked at random, the one with fewer open
//! connections from this node.

use std::{net::SocketAddr, sync::Arc};

use super::counts::{CountGuard, Counts};
use crate::discovery::model::Endpoint;

/// Open connections by endpoint.
#[derive(Debug, Default)]
pub(crate) struct Load(Arc<Counts<SocketAddr>>);

impl Load {
    /// The index of the endpoint to take; `endpoints` has at least one.
    #[must_use]
    pub(crate) fn choose(&self, endpoints: &[&Endpoint]) -> usize {
        if endpoints.len() < 2 {
            return 0;
        }
        let first = rand::random_range(0..endpoints.len());
        // Another one than the first, each as likely.
        let second = (first + rand::random_range(1..endpoints.len())) % endpoints.len();
        let address = |index: usize| {
            let endpoint = endpoints[index];
            SocketAddr::new(endpoint.address, endpoint.port)
        };
        let (open_first, open_second) = self.0.of_both(&address(first), &address(second));
        if open_second < open_first {
            second
        } else {
            first
        }
    }

    /// Counts a connection to an endpoint until the guard is dropped.
    #[must_use]
    pub(crate) fn count(&self, endpoint: SocketAddr) -> CountGuard<SocketAddr> {
        self.0.count(endpoint)
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
            zone: None,
        }
    }

    #[test]
    fn the_busier_of_two_is_never_taken() {
        let load = Load::default();
        let (idle, busy) = (endpoint(1), endpoint(2));
        let _open = load.count(SocketAddr::new(busy.address, busy.port));
        for _ in 0..100 {
            assert_eq!(load.choose(&[&busy, &idle]), 1);
        }
    }

    #[test]
    fn every_idle_endpoint_is_taken_sometimes() {
        let load = Load::default();
        let endpoints: Vec<Endpoint> = (0..4).map(endpoint).collect();
        let endpoints: Vec<&Endpoint> = endpoints.iter().collect();
        let mut taken = [false; 4];
        // The chance of missing one in 1,000 draws is below 10^-120.
        for _ in 0..1000 {
            taken[load.choose(&endpoints)] = true;
        }
        assert_eq!(taken, [true; 4]);
    }
}
