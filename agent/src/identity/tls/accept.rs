//! The server's side of a tunnel: which local workload's certificate to show.

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{ALPN_DIRECT, PeerError, Protocols, peer_identity, server_config, sni};
use crate::{
    channel::{Channel, HandshakeError, Incoming},
    identity::{Certificates, Identity, certificates, x509::expiry},
};

/// How long a client may take for a handshake, our own wait for a certificate included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a tunnel wasn't accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The connection broke off.
    #[error("the connection broke off during the TLS handshake: {0}")]
    Io(io::Error),
    /// TLS or the client's certificate was refused.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Nothing tells whose certificate to show.
    #[error("the client named no server, and the connection wasn't captured for a pod")]
    NoServerName,
    /// The client asks for somebody who isn't here.
    #[error("no workload of this node has the identity that the client asks for ({0})")]
    NotHere(String),
    /// The client asks for another identity than the pod it addresses has.
    #[error("the client asks for another identity than {destination}, which has the pod's address")]
    OtherDestination {
        /// Who has the address.
        destination: Identity,
    },
    /// Our own certificate isn't there.
    #[error(transparent)]
    Certificate(#[from] certificates::Error),
    /// Too slow.
    #[error("the TLS handshake took longer than {}s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
}

/// A tunnel whose both ends are known, each by its certificate.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The connection.
    pub channel: Box<Channel<IO>>,
    /// What is spoken in it: direct, or else HTTP/2.
    pub is_direct: bool,
    /// Whose certificate the client showed.
    pub client: Identity,

    /// Whose certificate we showed.
    pub server: Identity,
    /// When the first of both certificates expires.
    pub until: SystemTime,
}

/// The certificates of a node's workloads, to be chosen from for each incoming tunnel.
pub struct ServerCertificates {
    certificates: Certificates,
    local: ArcSwap<HashMap<String, Identity>>,
}

impl ServerCertificates {
    /// Over the node's cache; nobody is local yet.
    #[must_use]
    pub fn new(certificates: Certificates) -> Self {
        Self {
            certificates,
            local: ArcSwap::default(),
        }
    }

    /// Says which identities workloads of this node have.
    pub fn set_local(&self, identities: impl IntoIterator<Item = Identity>) {
        let by_name = identities
            .into_iter()
            .map(|identity| (sni(&identity), identity))
            .collect();
        self.local.store(Arc::new(by_name));
    }

    /// The local identity that a server name stands for.
    #[must_use]
    pub fn by_sni(&self, name: &str) -> Option<Identity> {
        self.local.load().get(name).cloned()
    }

    /// Accepts a tunnel.
    ///
    /// `destination` is the identity of the pod that the connection was captured for, if it was:
    /// such a client needn't name a server, but if it names one of ours it must be the pod's.
    ///
    /// # Errors
    /// [`AcceptError`].
    pub async fn accept<IO>(
        &self,
        io: IO,
        destination: Option<&Identity>,
        protocols: Protocols,
    ) -> Result<Accepted<IO>, AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        tokio::time::timeout(
            HANDSHAKE_TIMEOUT,
            self.handshake(io, destination, protocols),
        )
        .await
        .map_err(|_| AcceptError::Timeout)?
    }

    async fn handshake<IO>(
        &self,
        io: IO,
        destination: Option<&Identity>,
        protocols: Protocols,
    ) -> Result<Accepted<IO>, AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let incoming = Incoming::read(io).await?;
        let identity = self.choose(incoming.hello().server_name.as_deref(), destination)?;
        let certificate = self.certificates.certificate(&identity).await?;
        let accepted = incoming
            .accept(server_config(&certificate, protocols))
            .await?;
        let client = peer_identity(&accepted.certificates).map_err(PeerError::from)?;
        let client_until = expiry(&accepted.certificates).map_err(PeerError::from)?;
        let until = client_until.min(certificate.not_after());
        Ok(Accepted {
            channel: accepted.channel,
            is_direct: accepted.alpn.as_deref() == Some(ALPN_DIRECT),
            client,
            server: identity,
            until,
        })
    }

    /// Whose certificate to show.
    fn choose(
        &self,
        name: Option<&str>,
        destination: Option<&Identity>,
    ) -> Result<Identity, AcceptError> {
        match (name, destination) {
            // Other implementations send no name, or one of their own, to a pod's address.
            (Some(name), Some(destination)) if name.ends_with(super::SNI_SUFFIX) => {
                if name == sni(destination) {
                    Ok(destination.clone())
                } else {
                    Err(AcceptError::OtherDestination {
                        destination: destination.clone(),
                    })
                }
            }
            (_, Some(destination)) => Ok(destination.clone()),
            (Some(name), None) => self
                .by_sni(name)
                .ok_or_else(|| AcceptError::NotHere(name.to_owned())),
            (None, None) => Err(AcceptError::NoServerName),
        }
    }
}

impl From<HandshakeError> for AcceptError {
    fn from(error: HandshakeError) -> Self {
        match PeerError::from_handshake(error) {
            Ok(peer) => Self::Peer(peer),
            Err(io) => Self::Io(io),
        }
    }
}
