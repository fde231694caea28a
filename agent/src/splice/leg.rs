//! A connection between the agent and an application of this node.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use ambit_common::{counter::SpliceCounter, splice::JoinRequest};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use tokio::net::TcpStream;

use super::ACTIVE;
use crate::capture::{maps::to_key, splice::Kernel};

/// Whether and when a connection is spliced.
///
/// Not before the application has sent something: by then its socket is in the mode in which it
/// is used (one that connects with a deadline is a blocking one only afterwards), and a
/// connection that carries nothing costs nothing.
#[derive(Debug, Default)]
pub struct Leg {
    /// Id of the pod's network namespace in the agent's; `None`: never spliced.
    namespace: Option<i32>,
    is_asked: AtomicBool,
    is_spliced: AtomicBool,
}

impl Leg {
    /// With a pod whose network namespace has that id here. `None` if it isn't known, or the
    /// connection isn't to be spliced.
    #[must_use]
    pub fn new(namespace: Option<i32>) -> Self {
        Self {
            namespace,
            ..Self::default()
        }
    }

    /// Something was read from the application: asks once for the connection to be spliced.
    pub fn has_read(&self, stream: &TcpStream) {
        let (Some(namespace), Some(active)) = (self.namespace, ACTIVE.get()) else {
            return;
        };
        if self.is_asked.swap(true, Relaxed) {
            return;
        }
        if let (Ok(agent), Ok(application)) = (stream.local_addr(), stream.peer_addr()) {
            let joined = join(&active.kernel, namespace, agent, application);
            if joined == SpliceCounter::Joined {
                // What waits past TCP must leave room in it; more than most sockets are allowed.
                let _ = set_socket_recv_buffer_size_force(stream, active.limit);
                self.is_spliced.store(true, Relaxed);
            }
        }
    }

    /// Whether both ends are members.
    pub(crate) fn is_spliced(&self) -> bool {
        self.is_spliced.load(Relaxed)
    }
}

/// Asks for both ends of a connection to become members; what came of it is counted.
pub(super) fn join(
    kernel: &Kernel,
    namespace: i32,
    agent: SocketAddr,
    application: SocketAddr,
) -> SpliceCounter {
    kernel.join(&JoinRequest {
        // Two that are equal would be refused, once in many lives of the universe.
        id: rand::random(),
        agent: to_key(agent.ip()),
        application: to_key(application.ip()),
        agent_port: agent.port(),
        application_port: application.port(),
        namespace,
    })
}
