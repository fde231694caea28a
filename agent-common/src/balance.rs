//! Services whose endpoints the kernel may choose: layouts, and the draw.
//!
//! As a pod connects to a VIP, a program draws one of the service's endpoints. If that is on this node
//! and the connection would pass without the agent, the pod connects to the endpoint itself. If not, the agent
//! carries the connection, and is told that there was a draw: it then leaves out what the kernel would
//! have taken, so that each endpoint has its share.

use core::mem::size_of;

use crate::map::{Address, ServiceKey};

/// Endpoints on this node, once for each VIP and port that they are behind. The agent carries what is
/// for a service of which there is no room for all.
pub const MAX_LOCAL_ENDPOINTS: u32 = 65_536;
/// Network namespaces that are known as a pod's.
pub const MAX_NAMESPACES: u32 = 16_384;
/// Carried connections of which the agent hasn't asked yet whether there was a draw.
pub const MAX_DRAWN: u32 = 8_192;

/// What is known of a VIP's port.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServiceValue {
    /// Endpoints that come into question on this node.
    pub endpoints: u32,
    /// Those of them that are here, of the VIP's family: they have entries of their own. 0: the agent
    /// chooses among all.
    pub here: u32,
}
const _: () = assert!(size_of::<ServiceValue>() == 8);

/// An endpoint on this node.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    /// The VIP's port.
    pub service: ServiceKey,
    /// Below [`ServiceValue::here`].
    pub index: u32,
}
const _: () = assert!(size_of::<EndpointKey>() == 24);

/// Where it listens.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointValue {
    /// The pod's address.
    pub address: Address,
    /// The target port.
    pub port: u32,
}
const _: () = assert!(size_of::<EndpointValue>() == 20);

/// The socket isn't connecting to a service.
pub const CHOICE_NONE: u32 = 0;
/// To a service, of which nothing was drawn.
pub const CHOICE_OPEN: u32 = 1;
/// One was drawn, and it isn't for the kernel to connect to.
pub const CHOICE_DRAWN: u32 = 2;
/// The socket connects to an endpoint in place of the VIP.
pub const CHOICE_MADE: u32 = 3;

/// What is kept with a socket that connects to a service.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Choice {
    /// Cookie of the socket's network namespace.
    pub namespace: u64,
    /// What the application connects to.
    pub service: ServiceKey,
    /// `CHOICE_*`.
    pub state: u32,
}
const _: () = assert!(size_of::<Choice>() == 32);

/// The endpoint that a random number stands for, all alike.
#[must_use]
#[inline(always)]
pub fn draw(service: &ServiceValue, random: u32) -> Draw {
    // The multiplication in place of a remainder, which has a bias towards the first.
    let drawn = ((random as u64 * service.endpoints as u64) >> 32) as u32;
    if service.here == 0 {
        Draw::None
    } else if drawn < service.here {
        Draw::Here(drawn)
    } else {
        Draw::Elsewhere
    }
}

/// What was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// Nothing: it's for the agent to choose among all.
    None,
    /// The endpoint on this node with that index.
    Here(u32),
    /// One that isn't for the kernel to choose.
    Elsewhere,
}

#[cfg(feature = "user")]
mod user {
    #![expect(
        unsafe_code,
        reason = "aya asks for an unsafe marker on plain-data map types"
    )]
    use super::{EndpointKey, EndpointValue, ServiceValue};

    // SAFETY: repr(C), Copy, 'static, no padding (asserted above), every bit pattern valid.
    unsafe impl aya::Pod for ServiceValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for EndpointKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for EndpointValue {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_has_the_same_share_of_the_random_numbers() {
        for (endpoints, here) in [(1, 1), (2, 1), (3, 3), (7, 2), (1000, 10)] {
            let service = ServiceValue { endpoints, here };
            let rounds = 100;
            let (mut elsewhere, mut taken) = (0, [0; 10]);
            // Evenly over all that there are.
            let step = (1_u64 << 32) / u64::from(endpoints * rounds);
            for n in 0..u64::from(endpoints * rounds) {
                match draw(&service, u32::try_from(n * step).unwrap()) {
                    Draw::Here(index) => taken[index as usize] += 1,
                    Draw::Elsewhere => elsewhere += 1,
                    Draw::None => panic!("nothing drawn of {service:?}"),
                }
            }
            for (index, taken) in taken.iter().enumerate() {
                let expected = if index < here as usize { rounds } else { 0 };
                assert!(
                    expected.abs_diff(*taken) <= 1,
                    "{service:?} {index}: {taken}"
                );
            }
            assert!(
                (rounds * (endpoints - here)).abs_diff(elsewhere) <= here,
                "{service:?}"
            );
        }
    }

    #[test]
    fn nothing_is_drawn_where_no_endpoint_is_here() {
        for random in [0, 1, u32::MAX] {
            for endpoints in [0, 5] {
                let service = ServiceValue { endpoints, here: 0 };
                assert_eq!(draw(&service, random), Draw::None);
            }
        }
    }
}
