//! From a pool's key to an authenticated stream: TCP to the other agent, then TLS both ways.

use tokio::net::TcpStream;

use super::dial::{self, Marking};
use crate::{
    channel::{self, Channel, ChannelStream, HandshakeError},
    hbone::pool::{Connector, PoolKey},
    identity::{
        Certificates, certificates,
        tls::{ALPN_DIRECT, PeerError, Protocols, client_config, identity_sni},
    },
};

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
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

impl From<HandshakeError> for Error {
    fn from(error: HandshakeError) -> Self {
        match PeerError::from_handshake(error) {
            Ok(peer) => Self::Peer(peer),
            Err(io) => Self::Handshake(io),
        }
    }
}

/// Connects as a workload of this node.
#[derive(Clone)]
pub(super) struct TunnelConnector {
    certificates: Certificates,
    marking: Marking,
}

impl TunnelConnector {
    /// Shows certificates of this cache.
    #[must_use]
    pub(super) fn new(certificates: Certificates, marking: Marking) -> Self {
        Self {
            certificates,
            marking,
        }
    }

    /// Connects as `key.source`, makes sure that `key.destination` is at the other end, and says
    /// whether it speaks the direct protocol.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) async fn channel(
        &self,
        key: &PoolKey,
        protocols: Protocols,
    ) -> Result<(Box<Channel<TcpStream>>, bool), Error> {
        let certificate = self.certificates.certificate(&key.source).await?;
        let stream = dial::agent(key.address, self.marking).await?;
        let config = client_config(&certificate, key.destination.clone(), protocols);
        let shaken = channel::connect(stream, config, identity_sni(&key.destination)).await?;
        let is_direct = shaken.alpn.as_deref() == Some(ALPN_DIRECT);
        Ok((shaken.channel, is_direct))
    }
}

impl Connector for TunnelConnector {
    type Io = ChannelStream<TcpStream>;
    type Error = Error;

    async fn connect(&self, key: &PoolKey) -> Result<Self::Io, Error> {
        let (channel, _) = self.channel(key, Protocols::Http2).await?;
        Ok(ChannelStream::new(*channel))
    }
}
