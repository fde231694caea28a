//! A connection between the agent and an application of this node.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use ambit_common::{
    counter::SpliceCounter,
    splice::{JoinRequest, OWN_NAMESPACE, Place},
};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::ACTIVE;
use crate::capture::{maps::place, splice::Kernel};

/// Reads and writes after which a connection that couldn't be spliced yet never is.
const MOST_CALLS: u32 = 1 << 20;

/// The first of them at which it is asked for, unless one before is a write of [`MUCH`]. To be spliced costs a short
/// connection, with its end, about a tenth of all that it costs the agent.
const FIRST: u32 = 4;
/// Bytes at once that more are likely to follow. An application that sends so much is ahead of the agent: the queue is
/// always full, so that most goes through TCP and into it from there, which costs more than TCP alone.
const MUCH: usize = 16 * 1024;
/// Up to this one it is asked for at each. Where much comes, a moment in which nobody has read a part of a
/// packet is found after some.
const OFTEN: u32 = 32;

/// Whether and when a connection is spliced.
///
/// Not before the application has sent and read something: by then its socket is in the mode in which it
/// is used (one that connects with a deadline is a blocking one only afterwards), and a
/// connection that carries nothing, or a question and its answer, costs nothing.
#[derive(Debug, Default)]
pub struct Leg {
    /// Id of the pod's network namespace in the agent's; `None`: never spliced.
    namespace: Option<i32>,
    /// How often something was read or written before it was decided; [`MOST_CALLS`]: it is.
    calls: AtomicU32,
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

    /// So many bytes were read from the application: asks for the connection to be spliced, if it's time to.
    pub fn has_read(&self, stream: &TcpStream, bytes: usize) {
        if bytes < MUCH {
            self.has_moved(stream, false);
        } else if self.calls.load(Relaxed) != MOST_CALLS {
            self.calls.store(0, Relaxed);
        }
    }

    /// So many were written to it.
    pub fn has_written(&self, stream: &TcpStream, bytes: usize) {
        self.has_moved(stream, bytes >= MUCH);
    }

    fn has_moved(&self, stream: &TcpStream, is_much: bool) {
        let before = self.calls.load(Relaxed);
        if before == MOST_CALLS {
            return;
        }
        let calls = before + 1;
        self.calls.store(calls, Relaxed);
        let is_worth_it = calls >= FIRST || is_much;
        // If it wasn't possible yet, later and later.
        let is_due = calls <= OFTEN || calls.is_power_of_two();
        if is_worth_it && is_due && !self.join(stream) {
            self.calls.store(MOST_CALLS, Relaxed);
        }
    }

    /// Whether it may be asked for again.
    fn join(&self, stream: &TcpStream) -> bool {
        let (Some(namespace), Some(active)) = (self.namespace, ACTIVE.get()) else {
            return false;
        };
        let (Ok(agent), Ok(application)) = (stream.local_addr(), stream.peer_addr()) else {
            return false;
        };
        let (agent, application) = (place(agent, OWN_NAMESPACE), place(application, namespace));
        match join(&active.kernel, agent, application) {
            Ok(_) => {
                // What waits past TCP must leave room in it; more than most sockets are allowed. And as
                // `connected` has it of the application's end. Refused, it is merely slower.
                let _ = set_socket_recv_buffer_size_force(stream, active.limit);
                let _ = SockRef::from(stream).set_tcp_notsent_lowat(1);
                false
            }
            Err(reason) => may_join_later(reason),
        }
    }
}

/// Whether what stood in the way of a join may pass.
pub(super) fn may_join_later(reason: SpliceCounter) -> bool {
    matches!(reason, SpliceCounter::Unused | SpliceCounter::Reading)
}

/// Asks for both ends of a connection to become members. What stands in the way is counted by the programs.
pub(super) fn join(kernel: &Kernel, first: Place, second: Place) -> Result<u64, SpliceCounter> {
    kernel.join(&JoinRequest {
        // Two that are equal would be refused, once in many lives of the universe.
        id: rand::random(),
        first,
        second,
    })
}
