//! Whether a port of a workload accepts plaintext.

use std::fmt;

use crate::{
    discovery::model::{ObjectName, Workload},
    policy::{
        model::{MtlsMode, PeerAuthentication},
        set::{PolicySet, Scope},
    },
};

/// What a PeerAuthentication says of one port of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveMtls {
    /// Never UNSET.
    pub mode: MtlsMode,
    /// The policy that says so.
    pub policy: ObjectName,
    /// Where it says so.
    pub level: MtlsLevel,
}

/// Where a PeerAuthentication says its mode. The text is shown to operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MtlsLevel {
    /// `portLevelMtls` of a policy that selects the workload.
    Port(u16),
    /// A policy that selects the workload.
    Workload,
    /// A policy without selector, in the workload's namespace.
    Namespace,
    /// A policy without selector, in a root namespace.
    Mesh,
}

impl fmt::Display for MtlsLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "for port {port} of this workload"),
            Self::Workload => f.write_str("for this workload"),
            Self::Namespace => f.write_str("for the namespace"),
            Self::Mesh => f.write_str("for the mesh"),
        }
    }
}

/// The mode for a port of a workload: the narrowest level that is not UNSET. `None` where no level
/// says anything, which means PERMISSIVE.
///
/// One policy speaks for each level: the oldest, then the first by name. If that one is UNSET the
/// level is, whatever younger ones say.
#[must_use]
pub fn effective_mtls(
    policies: &PolicySet,
    workload: &Workload,
    port: u16,
) -> Option<EffectiveMtls> {
    let speaking_for = |scope| {
        policies
            .peer_authentications_for(workload)
            .filter(move |policy| policies.peer_authentication_scope(policy) == scope)
            .min_by(|a, b| a.precedence().cmp(&b.precedence()))
    };
    let wide = |scope, level| {
        let policy = speaking_for(scope)?;
        said(policy, policy.mode, level)
    };

    speaking_for(Scope::Workloads)
        .and_then(|policy| {
            let of_port = policy.ports.get(&port).copied().unwrap_or_default();
            said(policy, of_port, MtlsLevel::Port(port))
                .or_else(|| said(policy, policy.mode, MtlsLevel::Workload))
        })
        .or_else(|| wide(Scope::Namespace, MtlsLevel::Namespace))
        .or_else(|| wide(Scope::Mesh, MtlsLevel::Mesh))
}

fn said(policy: &PeerAuthentication, mode: MtlsMode, level: MtlsLevel) -> Option<EffectiveMtls> {
    (mode != MtlsMode::Unset).then(|| EffectiveMtls {
        mode,
        policy: policy.name.clone(),
        level,
    })
}
