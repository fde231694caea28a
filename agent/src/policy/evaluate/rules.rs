//! Whether a rule matches a connection.

use std::net::IpAddr;

use super::{Connection, RuleName};
use crate::{
    identity::Identity,
    policy::model::{
        Action, AuthorizationPolicy, Condition, Criteria, Operation, Pattern, Rule, ServiceAccount,
        Source,
    },
};

/// What rules ask about a connection, in the form in which they ask.
///
/// A client without identity fits no positive `principals`, `namespaces`, `serviceAccounts` or
/// `trustDomains`, and passes every negative form: Istio compares with an empty value there
/// (bulletin ISTIO-SECURITY-2021-004: under `notNamespaces: ["foo"]` plaintext is allowed). Whoever
/// wants to exclude plaintext adds `principals: ["*"]`, or STRICT.
pub(super) struct Facts<'a> {
    identity: Option<&'a Identity>,
    /// The SPIFFE id without its scheme.
    principal: Option<String>,
    source: IpAddr,
    destination: IpAddr,
    port: u16,
}

impl<'a> Facts<'a> {
    pub(super) fn of(connection: &Connection<'a>) -> Self {
        Self {
            identity: connection.source,
            principal: connection.source.map(principal),
            // A v6 socket sees IPv4 peers as ::ffff:a.b.c.d; policies are written for IPv4.
            source: connection.source_address.to_canonical(),
            destination: connection.destination_address.ip().to_canonical(),
            port: connection.destination_address.port(),
        }
    }

    fn principal_fits(&self, criteria: &Criteria<Pattern>) -> bool {
        criteria.admit(|pattern| self.principal.as_deref().is_some_and(|p| pattern.fits(p)))
    }

    fn namespace_fits(&self, criteria: &Criteria<Pattern>) -> bool {
        criteria.admit(|pattern| self.identity.is_some_and(|id| pattern.fits(id.namespace())))
    }

    fn trust_domain_fits(&self, criteria: &Criteria<Pattern>) -> bool {
        criteria.admit(|pattern| {
            self.identity
                .is_some_and(|id| pattern.fits(id.trust_domain()))
        })
    }

    fn service_account_fits(&self, criteria: &Criteria<ServiceAccount>) -> bool {
        criteria.admit(|account| self.identity.is_some_and(|id| account.fits(id)))
    }
}

fn principal(identity: &Identity) -> String {
    format!(
        "{}/ns/{}/sa/{}",
        identity.trust_domain(),
        identity.namespace(),
        identity.service_account()
    )
}

/// The first rule of the policy that matches.
pub(super) fn first_match(policy: &AuthorizationPolicy, facts: &Facts<'_>) -> Option<RuleName> {
    policy
        .rules
        .iter()
        .position(|rule| decidable(policy.action, rule) && matches(rule, facts))
        .map(|index| RuleName {
            policy: policy.name.clone(),
            index,
        })
}

/// Whether the L4 part of a rule may stand for the whole. What a rule says of HTTP can't be seen
/// here: without it an ALLOW rule would allow more than was asked for, so it never matches; a
/// DENY rule denies more, and stays. The same choice as Istio's for ztunnel.
fn decidable(action: Action, rule: &Rule) -> bool {
    match action {
        Action::Allow => rule.http_fields.is_empty(),
        Action::Deny | Action::Audit => true,
    }
}

fn matches(rule: &Rule, facts: &Facts<'_>) -> bool {
    let from = rule.from.is_empty() || rule.from.iter().any(|s| source_fits(s, facts));
    let to = rule.to.is_empty() || rule.to.iter().any(|o| operation_fits(o, facts));
    from && to && rule.when.iter().all(|c| condition_fits(c, facts))
}

fn source_fits(source: &Source, facts: &Facts<'_>) -> bool {
    facts.principal_fits(&source.principals)
        && facts.namespace_fits(&source.namespaces)
        && facts.service_account_fits(&source.service_accounts)
        && facts.trust_domain_fits(&source.trust_domains)
        && source.ip_blocks.admit(|net| net.contains(&facts.source))
        && source
            .remote_ip_blocks
            .admit(|net| net.contains(&facts.source))
}

fn operation_fits(operation: &Operation, facts: &Facts<'_>) -> bool {
    operation.ports.admit(|port| *port == facts.port)
}

fn condition_fits(condition: &Condition, facts: &Facts<'_>) -> bool {
    match condition {
        Condition::SourceAddress(nets) => nets.admit(|net| net.contains(&facts.source)),
        Condition::SourceNamespace(namespaces) => facts.namespace_fits(namespaces),
        Condition::SourcePrincipal(principals) => facts.principal_fits(principals),
        Condition::SourceServiceAccount(accounts) => facts.service_account_fits(accounts),
        Condition::DestinationAddress(nets) => nets.admit(|net| net.contains(&facts.destination)),
        Condition::DestinationPort(ports) => ports.admit(|port| *port == facts.port),
    }
}
