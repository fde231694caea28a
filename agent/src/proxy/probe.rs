//! Whether somebody can be reached who would take a tunnel, without opening one.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, time};

use super::{core::Core, dial};
use crate::{
    channel,
    explain::{Probe, ProbeError, Reached},
    hbone::pool::PoolKey,
    identity::{
        tls::{PeerError, Protocols, client_config, identity_sni},
        x509,
    },
};

/// To be answered. An operator waits for it, and what answers does so in milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);

impl Core {
    /// Connects, shakes hands where there is a certificate to do so with, and hangs up.
    pub(crate) async fn probe(&self, probe: Probe) -> Result<Reached, ProbeError> {
        match probe {
            Probe::Listener(address) => {
                self.knock(address).await?;
                Ok(Reached::Listener)
            }
            Probe::Tunnel(key) => {
                let stream = self.knock(key.address).await?;
                let shaking = self.shake(stream, &key);
                let late = |_| ProbeError::Peer("the TLS handshake isn't answered".to_owned());
                time::timeout(PATIENCE, shaking).await.map_err(late)?
            }
        }
    }

    async fn knock(&self, address: SocketAddr) -> Result<TcpStream, ProbeError> {
        let silence = ProbeError::Silence(PATIENCE.as_secs());
        let dialled = time::timeout(PATIENCE, dial::agent(address, self.marking)).await;
        match dialled {
            Err(_) | Ok(Err(dial::Error::Timeout { .. })) => Err(silence),
            Ok(Err(dial::Error::Connect { source, .. })) => Err(match source.kind() {
                io::ErrorKind::ConnectionRefused => ProbeError::Refused,
                io::ErrorKind::TimedOut => silence,
                _ => ProbeError::Unreachable(source.to_string()),
            }),
            Ok(Ok(stream)) => Ok(stream),
        }
    }

    async fn shake(&self, stream: TcpStream, key: &PoolKey) -> Result<Reached, ProbeError> {
        let certificate = self.certificates.certificate(&key.source).await;
        let certificate = certificate.map_err(|error| ProbeError::Peer(error.to_string()))?;
        let config = client_config(&certificate, key.destination.clone(), Protocols::Any);
        let shaken = channel::connect(stream, config, identity_sni(&key.destination)).await;
        let shaken = shaken.map_err(|error| {
            ProbeError::Peer(match PeerError::from_handshake(error) {
                Ok(peer) => peer.to_string(),
                Err(io) => format!("the TLS handshake broke off: {io}"),
            })
        })?;
        let leaf = shaken.certificates.first();
        let facts = leaf.and_then(|leaf| x509::facts(leaf).ok());
        Ok(Reached::Peer(facts.map(|facts| facts.not_after)))
    }
}
