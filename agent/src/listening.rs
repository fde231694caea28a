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

/// The next connection. Failures are counted, and tried again after a while.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // Who connected was gone before its turn: nobody else is concerned.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                listeners::accept_failed(&error);
                sleep(PAUSE).await;
            }
        }
    }
}
