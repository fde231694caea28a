//! A connection between two applications of this node, that passes without the agent.

use std::{net::SocketAddr, time::Duration};

use ambit_common::counter::SpliceCounter;
use tokio::time;

use super::{
    ACTIVE,
    leg::{join, may_join_later},
};
use crate::capture::{maps::place, splice::Kernel};

/// When it is asked again where an application hasn't used its socket, or is reading from it: after
/// this long, then twice that, and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Where one is being read from, how long until it is asked again at first, and how often before the pauses grow: under
/// load a moment in which no part of a packet is read is soon found, and until then bulk has half its speed.
const READING_PAUSE: Duration = Duration::from_millis(1);
const READING_TRIES: u32 = 64;
/// At 65,536 idle connections, a thousand questions a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// One end: its address, and the id of its pod's network namespace in the agent's.
pub type PodEnd = (SocketAddr, i32);

/// A connection whose bytes go past TCP.
#[derive(Debug)]
pub struct Joined {
    kernel: Kernel,
    key: u64,
}

impl Joined {
    /// From now on nothing goes past TCP, and what was on its way there is lost.
    pub fn part(&self) {
        self.kernel.part(self.key);
    }
}

/// Has the bytes of a connection go past TCP. Not before both applications have sent or read
/// something: by then their sockets are in the mode in which they are used. `None` if it can't be.
///
/// `ends` tells where client and server are; not at once after a start of the agent.
pub async fn join_between(ends: impl Fn() -> Option<[PodEnd; 2]>) -> Option<Joined> {
    let kernel = &ACTIVE.get()?.kernel;
    let mut pause = FIRST_PAUSE;
    let mut tries = 0..READING_TRIES;
    loop {
        if let Some(ends) = ends() {
            let [client, server] = ends.map(|(address, namespace)| place(address, namespace));
            match join(kernel, client, server) {
                Ok(key) => {
                    let kernel = kernel.clone();
                    return Some(Joined { kernel, key });
                }
                Err(SpliceCounter::Reading) if tries.next().is_some() => {
                    time::sleep(READING_PAUSE).await;
                    continue;
                }
                Err(reason) if may_join_later(reason) => {}
                Err(_) => return None,
            }
        }
        time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}
