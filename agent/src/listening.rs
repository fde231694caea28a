//! What every listener does about clients that come too fast, stay too long, or can't be taken.

mod places;

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

pub(crate) use self::places::{Place, Places};
use crate::telemetry::listeners;

/// A pause after an accept that failed for want of file descriptors or memory: nothing tells when there
/// are some again.
const PAUSE: Duration = Duration::from_millis(50);

/// The next connection, on which nothing waits for the acknowledgement of what was sent before: an answer of
/// several frames would come 40 ms late. Failures are counted, and tried again after a while.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                // Only fails on a connection that is gone already, which reading will tell.
                let _ = stream.set_nodelay(true);
                return (stream, client);
            }
            // Who connected was gone before its turn: nobody else is concerned.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                listeners::accept_failed(&error);
                sleep(PAUSE).await;
            }
        }
    }
}
