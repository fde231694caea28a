//! The label values that are chosen from a fixed set.

use serde::{Deserialize, Serialize};

/// Which end of a connection reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reporter {
    /// The agent of the client's node.
    Source,
    /// The agent of the server's node.
    Destination,
    /// A waypoint between the two.
    Waypoint,
}

impl Reporter {
    /// Label `reporter`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Waypoint => "waypoint",
        }
    }

    /// Seen from the reporting node's pods.
    #[must_use]
    pub fn direction(self) -> Direction {
        match self {
            Self::Source => Direction::Outbound,
            Self::Destination => Direction::Inbound,
            Self::Waypoint => Direction::Through,
        }
    }
}

/// Which way a connection or tunnel was opened, seen from this node's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Towards a pod of this node.
    Inbound,
    /// By a pod of this node.
    Outbound,
    /// By a client of a waypoint, to a server behind it.
    Through,
}

impl Direction {
    /// The access log's `direction` and our own metrics' label of that name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Through => "through",
        }
    }
}

/// Label `response_flags`: how a connection ended, in Istio's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResponseFlags {
    /// As it should, or by an error on either side after it was up.
    None,
    /// Policy refused it.
    Deny,
    /// The server, or the agent of its node, couldn't be reached.
    Connect,
    /// The TLS handshake with the other agent failed.
    TlsFailure,
    /// TLS worked, HTTP/2 over it did not.
    H2HandshakeFailure,
    /// The other agent's port didn't answer, as a NetworkPolicy that blocks it looks.
    NetworkPolicy,
    /// No certificate for the identity could be had, or the peer's is another's.
    IdentityError,
}

impl ResponseFlags {
    /// Every flag, in the order of [`Self::index`].
    pub(super) const ALL: [Self; 7] = [
        Self::None,
        Self::Deny,
        Self::Connect,
        Self::TlsFailure,
        Self::H2HandshakeFailure,
        Self::NetworkPolicy,
        Self::IdentityError,
    ];

    /// Label `response_flags`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
        }
    }

    /// The position in [`Self::ALL`].
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_is_at_its_own_index() {
        for (position, flag) in ResponseFlags::ALL.into_iter().enumerate() {
            assert_eq!(flag.index(), position, "{flag:?}");
        }
    }
}
