//! From a pool's key to an authenticated stream: TCP to the other agent, then TLS both ways.

use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::dial;
use crate::{
    hbone::pool::{Connector, PoolKey},
    identity::{
        Certificates, certificates,
        tls::{PeerError, client_config, identity_sni},
    },
};

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client's workload has no certificate.
    #[error(transparent)]
    Certificate(#[from] certificates::Error),
    /// The other agent can't be reached.
    #[error("{0}; a NetworkPolicy or firewall may block port 15008, or no agent runs there")]
    Dial(#[from] dial::Error),
    /// The other end isn't who it should be, or refused us.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// TCP broke off.
    #[error(
        "the TLS handshake broke off: {0}; the other agent's log says why: it may have no \
         certificate for the workload yet"
    )]
    Handshake(std::io::Error),
}

/// Connects as a workload of this node.
pub struct TunnelConnector {
    certificates: Certificates,
}

impl TunnelConnector {
    /// Shows certificates of this cache.
    #[must_use]
    pub fn new(certificates: Certificates) -> Self {
        Self { certificates }
    }
}

impl Connector for TunnelConnector {
    type Io = TlsStream<TcpStream>;
    type Error = Error;

    async fn connect(&self, key: &PoolKey) -> Result<Self::Io, Error> {
        let certificate = self.certificates.certificate(&key.source).await?;
        let stream = dial::agent(key.address).await?;
        let config = client_config(&certificate, key.destination.clone());
        TlsConnector::from(config)
            .connect(identity_sni(&key.destination), stream)
            .await
            .map_err(|error| match PeerError::from_io(&error) {
                Some(peer) => Error::Peer(peer),
                None => Error::Handshake(error),
            })
    }
}
