//! Idle connections.

use std::{net::SocketAddr, time::Duration};

use crate::{Child, Place, Result};

/// How long it may take to open a connection: beside others, on two cores.
const EACH: Duration = Duration::from_millis(10);
/// And all of them, at least.
const AT_LEAST: Duration = Duration::from_secs(20);

/// Keep-alive connections of HTTP/1.1 with one answered request each, and none after it. They end
/// when this is dropped.
#[derive(Debug)]
pub struct IdleConnections {
    _child: Child,
}

impl IdleConnections {
    /// Opens 1 to 20,000 of them, from a place to a [`crate::LoadServer`] to be reached at `target`.
    ///
    /// # Errors
    /// If `lab-load` isn't built, or one of the requests isn't answered.
    pub fn open(place: &Place, target: SocketAddr, connections: u16) -> Result<Self> {
        let mut child = place.spawn(
            place.own_program("lab-load")?,
            [
                "hold",
                "--connect",
                &target.to_string(),
                "--connections",
                &connections.to_string(),
            ],
        )?;
        let deadline = AT_LEAST + EACH * connections.into();
        child.await_stdout(deadline, |line| line.contains("held"))?;
        Ok(Self { _child: child })
    }
}
