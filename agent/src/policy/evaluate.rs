//! The decision: policies and a connection, or a request, in, [`Permit`] or [`Denied`] out.
//!
//! The order is Istio's (reference of AuthorizationPolicy, and of PeerAuthentication for the first
//! step):
//! 1. Plaintext to a workload that is STRICT: denied.
//! 2. It comes from a waypoint of the workload, which has decided: allowed. It must, and doesn't: denied.
//! 3. A rule of a DENY policy matches: denied.
//! 4. No ALLOW policy is for the workload: allowed.
//! 5. A rule of an ALLOW policy matches: allowed.
//! 6. Denied.
//!
//! Policies that are attached to a waypoint, its class or a service are a set of their own, with steps 3 to 6
//! ([`evaluate_at_waypoint`]). What comes through a waypoint must pass both sets.

pub mod mtls;
mod rules;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use self::{
    mtls::{EffectiveMtls, MtlsLevel, effective_mtls},
    rules::{Facts, first_match},
};
use super::{
    model::{Action, AuthorizationPolicy, MtlsMode, Rule},
    request::HttpRequest,
    set::{PolicySet, WaypointScope},
};
use crate::{
    discovery::model::{ObjectName, Workload, WorkloadUid},
    identity::Identity,
};

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
    /// Whether it comes by way of a waypoint.
    pub through: Through<'a>,
    /// The request that is decided; `None` where a connection is, whose bytes are nobody's business.
    pub request: Option<&'a HttpRequest<'a>>,
}

/// What a waypoint knows of a connection or a request before it has chosen where it goes.
#[derive(Debug, Clone, Copy)]
pub struct ViaWaypoint<'a> {
    /// The client, proven by its certificate.
    pub source: Option<&'a Identity>,
    /// The client's address, which proves nothing.
    pub source_address: IpAddr,
    /// What the client asked for: the service's address and port, or the workload's.
    pub asked_for: SocketAddr,
    /// The request that is decided; `None` where a connection is.
    pub request: Option<&'a HttpRequest<'a>>,
}

/// How a connection stands to the waypoints of its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through<'a> {
    /// It needn't come by way of any, or nobody is there who could tell: plaintext.
    None,
    /// The client is that waypoint, which has decided by the same policies who may connect.
    Waypoint(&'a ObjectName),
    /// It must come by way of that one, and doesn't.
    Past(&'a ObjectName),
}

/// Proof that a connection was allowed. Only [`evaluate`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Permit {
    rule: Option<RuleName>,
    workload: WorkloadUid,
    destination_address: SocketAddr,
}

impl Permit {
    /// The ALLOW rule that matched; `None` where no ALLOW policy is for the destination.
    #[must_use]
    pub fn rule(&self) -> Option<&RuleName> {
        self.rule.as_ref()
    }

    /// The life of the pod that may be dialled.
    #[must_use]
    pub fn workload(&self) -> &WorkloadUid {
        &self.workload
    }

    /// Where it may be dialled.
    #[must_use]
    pub fn destination_address(&self) -> SocketAddr {
        self.destination_address
    }
}

/// A rule, written `namespace/policy rules[0]` as its path in the manifest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleName {
    /// The policy.
    pub policy: ObjectName,
    /// Counts from 0.
    pub index: usize,
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rules[{}]", self.policy, self.index)
    }
}

/// Why a connection was refused, in words for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// A DENY rule matched.
    #[error("denied by AuthorizationPolicy {rule}")]
    ByPolicy {
        /// The rule that matched.
        rule: RuleName,
    },
    /// ALLOW policies apply, and none of their rules matches.
    #[error(
        "no rule of the ALLOW policies that apply matches ({}){}",
        list(policies),
        passed_over(http_rules)
    )]
    NotAllowed {
        /// The policies that were tried.
        policies: Arc<[ObjectName]>,
        /// Those of their rules that could not match here, because they ask about HTTP.
        http_rules: Arc<[RuleName]>,
    },
    /// The workload's traffic must come through its waypoint.
    #[error(
        "the workload demands that connections come through its waypoint {waypoint}, and the client \
         isn't that one: its agent doesn't know of the waypoint yet, or isn't of this mesh"
    )]
    PastWaypoint {
        /// The waypoint.
        waypoint: ObjectName,
    },
    /// STRICT, and the client spoke plaintext.
    #[error(
        "PeerAuthentication {policy} demands mutual TLS ({level}), and the client spoke plaintext"
    )]
    PlaintextRefused {
        /// The policy that says STRICT.
        policy: ObjectName,
        /// Where it says so.
        level: MtlsLevel,
    },
}

/// Decides one connection.
///
/// # Errors
/// [`Denied`], naming the policy and the rule.
pub fn evaluate(policies: &PolicySet, connection: &Connection<'_>) -> Result<Permit, Denied> {
    let rule = decide(policies, connection, |policy| !policy.dry_run)?;
    Ok(Permit {
        rule,
        workload: connection.destination.uid.clone(),
        destination_address: connection.destination_address,
    })
}

/// Decides one connection or request by the policies that are attached to the waypoint it goes through, to
/// the waypoint's class or to the service it is for.
///
/// # Errors
/// [`Denied`], naming the policy and the rule.
pub fn evaluate_at_waypoint(
    policies: &PolicySet,
    scope: &WaypointScope<'_>,
    connection: &ViaWaypoint<'_>,
) -> Result<(), Denied> {
    let attached = || policies.authorizations_at(scope).map(AsRef::as_ref);
    let in_force = || attached().filter(|policy: &&AuthorizationPolicy| !policy.dry_run);
    judge(in_force, &Facts::of_waypoint(connection)).map(drop)
}

/// Whether what [`evaluate`] says of connections to a workload, in one state of its policies, follows
/// from the client's identity and the port alone.
#[must_use]
pub fn is_same_for_all_addresses(policies: &PolicySet, destination: &Workload) -> bool {
    let mut of_destination = policies.authorizations_for(destination);
    !of_destination.any(|policy| policy.rules.iter().any(Rule::asks_for_addresses))
}

/// What [`evaluate`] would say if the dry runs were in force. For the log; it permits nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DryRun {
    /// Allowed, by this rule if an ALLOW policy is for the destination.
    WouldAllow(Option<RuleName>),
    /// Denied.
    WouldDeny(Denied),
}

impl From<Result<Option<RuleName>, Denied>> for DryRun {
    fn from(decided: Result<Option<RuleName>, Denied>) -> Self {
        match decided {
            Ok(rule) => Self::WouldAllow(rule),
            Err(denied) => Self::WouldDeny(denied),
        }
    }
}

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldAllow(Some(rule)) => write!(f, "dry run: would be allowed by {rule}"),
            Self::WouldAllow(None) => f.write_str("dry run: would be allowed"),
            Self::WouldDeny(denied) => write!(f, "dry run: would be refused: {denied}"),
        }
    }
}

/// Decides one connection as if the dry runs were in force. `None` where none is for the
/// destination, which costs next to nothing.
#[must_use]
pub fn dry_run(policies: &PolicySet, connection: &Connection<'_>) -> Option<DryRun> {
    let is_decided = matches!(connection.through, Through::Waypoint(_));
    let mut of_destination = policies.authorizations_for(connection.destination);
    let asks = !is_decided && of_destination.any(|policy| asks_for_dry_run(policy));
    asks.then(|| decide(policies, connection, |_| true).into())
}

/// What [`evaluate_at_waypoint`] would say if the dry runs were in force. `None` where none is attached.
#[must_use]
pub fn dry_run_at_waypoint(
    policies: &PolicySet,
    scope: &WaypointScope<'_>,
    connection: &ViaWaypoint<'_>,
) -> Option<DryRun> {
    let attached = || policies.authorizations_at(scope).map(AsRef::as_ref);
    let asks = attached().any(asks_for_dry_run);
    asks.then(|| judge(attached, &Facts::of_waypoint(connection)).into())
}

fn asks_for_dry_run(policy: &AuthorizationPolicy) -> bool {
    policy.dry_run && policy.action != Action::Audit
}

fn decide(
    policies: &PolicySet,
    connection: &Connection<'_>,
    in_force: impl Fn(&AuthorizationPolicy) -> bool,
) -> Result<Option<RuleName>, Denied> {
    refuse_plaintext(policies, connection)?;
    match connection.through {
        Through::None => {}
        Through::Waypoint(_) => return Ok(None),
        Through::Past(_) if policies.lets_past_waypoints() => {}
        Through::Past(waypoint) => {
            return Err(Denied::PastWaypoint {
                waypoint: waypoint.clone(),
            });
        }
    }

    let of_destination = || {
        policies
            .authorizations_for(connection.destination)
            .map(AsRef::as_ref)
            .filter(|policy| in_force(policy))
    };
    judge(of_destination, &Facts::of(connection))
}

/// DENY before ALLOW, among policies that apply.
fn judge<'p, I>(applying: impl Fn() -> I, facts: &Facts<'_>) -> Result<Option<RuleName>, Denied>
where
    I: Iterator<Item = &'p AuthorizationPolicy>,
{
    let with_action = |action| applying().filter(move |policy| policy.action == action);
    let denying = with_action(Action::Deny).find_map(|policy| first_match(policy, facts));
    if let Some(rule) = denying {
        return Err(Denied::ByPolicy { rule });
    }
    if with_action(Action::Allow).next().is_none() {
        return Ok(None);
    }
    let allowing = with_action(Action::Allow).find_map(|policy| first_match(policy, facts));
    allowing.map(Some).ok_or_else(|| Denied::NotAllowed {
        policies: with_action(Action::Allow)
            .map(|policy| policy.name.clone())
            .collect(),
        http_rules: with_action(Action::Allow)
            .filter(|_| facts.request.is_none())
            .flat_map(http_rules)
            .collect(),
    })
}

fn refuse_plaintext(policies: &PolicySet, connection: &Connection<'_>) -> Result<(), Denied> {
    if connection.source.is_some() {
        return Ok(());
    }
    let port = connection.destination_address.port();
    match effective_mtls(policies, connection.destination, port) {
        Some(EffectiveMtls {
            mode: MtlsMode::Strict,
            policy,
            level,
        }) => Err(Denied::PlaintextRefused { policy, level }),
        _ => Ok(()),
    }
}

fn http_rules(policy: &AuthorizationPolicy) -> impl Iterator<Item = RuleName> {
    policy
        .rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| !rule.http_fields.is_empty())
        .map(|(index, _)| RuleName {
            policy: policy.name.clone(),
            index,
        })
}

fn passed_over(http_rules: &[RuleName]) -> String {
    if http_rules.is_empty() {
        return String::new();
    }
    format!(
        "; these ask about HTTP, which only a waypoint can answer: {}",
        list(http_rules)
    )
}

fn list(items: &[impl ToString]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
