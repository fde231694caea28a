//! Why connections from one end to another come about, or don't: the steps of such a connection in the order
//! in which it meets them, each by the function that decides it for real.
//!
//! What a node alone knows (interfaces, the kernel's verdicts, certificates, who can be reached) comes from
//! [`NodeFacts`]; all else is the same on every node.

mod allowed;
mod client;
mod question;
mod trust;
mod view;
mod way;

use std::{net::SocketAddr, time::SystemTime};

use futures::future::BoxFuture;

pub use self::{
    question::{Question, QuestionError},
    view::{Explanation, State, Step},
};
use crate::{
    admin::CertificateView,
    discovery::{
        model::{Workload, WorkloadUid},
        store::Snapshot,
    },
    hbone::pool::PoolKey,
    identity::Identity,
    proxy::route::MissingWaypoint,
};

/// What the agent of a node knows of its own node.
pub trait NodeFacts: Send + Sync {
    /// Its name.
    fn node(&self) -> &str;
    /// Where a pod of the node is captured, or why it isn't known.
    fn interface(&self, pod: &Workload) -> Result<InterfaceFacts, String>;
    /// What the kernel knows of connections of a kind between pods of the node.
    fn verdict(&self, source: &Identity, destination: &WorkloadUid, port: u16) -> KernelVerdict;
    /// The certificate of an identity of the node.
    fn certificate(&self, identity: &Identity) -> Option<CertificateView>;
    /// What becomes of connections whose waypoint isn't ready.
    fn missing(&self) -> MissingWaypoint;
    /// Tries to reach whoever takes tunnels for a connection.
    fn probe(&self, probe: Probe) -> BoxFuture<'_, Result<Reached, ProbeError>>;
}

/// The host side of a pod's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// How programs are attached: `TCX` or `clsact`.
    pub mechanism: &'static str,
    /// Whether they are.
    pub is_attached: bool,
}

/// Whether connections between pods of one node need the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelVerdict {
    /// All do, by `--same-node proxy`.
    Off,
    /// Those of this kind pass without it: it has allowed them, in this generation.
    Passes(u64),
    /// The next of this kind does: nothing was decided in this generation.
    Asks(u64),
}

/// Who is to be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Whoever listens: the source's certificate is another node's.
    Listener(SocketAddr),
    /// The other end of a tunnel, which must prove who it is.
    Tunnel(PoolKey),
}

/// Who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// Somebody.
    Listener,
    /// Who was meant, with a certificate that lives until then.
    Peer(Option<SystemTime>),
}

/// Why nobody answered, or the wrong one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// Nothing came back.
    #[error("no answer within {0} s")]
    Silence(u64),
    /// The host is there, and nobody listens.
    #[error("connection refused")]
    Refused,
    /// The kernel has no way there.
    #[error("{0}")]
    Unreachable(String),
    /// Somebody listens, and no tunnel comes about.
    #[error("{0}")]
    Peer(String),
}

/// Explains what becomes of the connections that a question is about.
pub async fn explain(
    snapshot: &Snapshot,
    facts: &dyn NodeFacts,
    question: &Question,
) -> Explanation {
    let mut steps = Vec::new();
    let client = client::steps(&mut steps, facts, question);
    if let Some(found) = way::steps(&mut steps, snapshot, facts, question, &client) {
        let judged = allowed::steps(&mut steps, snapshot, question, &client, &found);
        trust::steps(&mut steps, facts, &client, judged).await;
    }
    Explanation::new(question, facts.node(), steps)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
