//! Whether a rule matches a connection, or a request.

mod headers;

use std::{
    borrow::Cow,
    cell::OnceCell,
    net::{IpAddr, SocketAddr},
};

use self::headers::header_fits;
use super::{Connection, RuleName, ViaWaypoint};
use crate::{
    identity::Identity,
    policy::{
        model::{
            Action, AuthorizationPolicy, Condition, Criteria, Operation, Pattern, Rule,
            ServiceAccount, Source,
        },
        path,
        request::HttpRequest,
    },
};

/// What rules ask about a connection, in the form in which they ask.
///
/// A client without identity fits no positive `principals`, `namespaces`, `serviceAccounts` or
/// `trustDomains`, and passes every negative form: Istio compares with an empty value there
/// (bulletin ISTIO-SECURITY-2021-004: under `notNamespaces: ["foo"]` plaintext is allowed). Whoever
/// wants to exclude plaintext adds `principals: ["*"]`, or STRICT. A request without token, or whose
/// token lacks the claim, is to `requestPrincipals` and `request.auth` what such a client is to those.
pub(super) struct Facts<'a> {
    identity: Option<&'a Identity>,
    /// The SPIFFE id without its scheme.
    principal: OnceCell<String>,
    source: IpAddr,
    destination: IpAddr,
    port: u16,
    pub(super) request: Option<&'a HttpRequest<'a>>,
    /// The path of the request without its escapes.
    path: OnceCell<Cow<'a, [u8]>>,
    /// `issuer/subject`, if the request has a token that says both.
    request_principal: OnceCell<Option<String>>,
}

impl<'a> Facts<'a> {
    pub(super) fn of(connection: &Connection<'a>) -> Self {
        Self::new(
            connection.source,
            connection.source_address,
            connection.destination_address,
            connection.request,
        )
    }

    pub(super) fn of_waypoint(connection: &ViaWaypoint<'a>) -> Self {
        Self::new(
            connection.source,
            connection.source_address,
            connection.asked_for,
            connection.request,
        )
    }

    fn new(
        identity: Option<&'a Identity>,
        source: IpAddr,
        destination: SocketAddr,
        request: Option<&'a HttpRequest<'a>>,
    ) -> Self {
        Self {
            identity,
            principal: OnceCell::new(),
            // A v6 socket sees IPv4 peers as ::ffff:a.b.c.d; policies are written for IPv4.
            source: source.to_canonical(),
            destination: destination.ip().to_canonical(),
            port: destination.port(),
            request,
            path: OnceCell::new(),
            request_principal: OnceCell::new(),
        }
    }

    fn principal_fits(&self, criteria: &Criteria<Pattern>) -> bool {
        criteria.admit(|pattern| {
            self.identity
                .is_some_and(|id| pattern.fits(self.principal.get_or_init(|| principal(id))))
        })
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

    /// The client behind any proxy.
    fn remote(&self) -> IpAddr {
        let forwarded = self.request.and_then(|request| request.forwarded_for);
        forwarded.map_or(self.source, |address| address.to_canonical())
    }

    fn request_principal_fits(&self, criteria: &Criteria<Pattern>) -> bool {
        let Some(request) = self.request else {
            return true;
        };
        if *criteria == Criteria::default() {
            return true;
        }
        let token = request.token;
        let principal = self
            .request_principal
            .get_or_init(|| token.and_then(|token| token.principal()));
        criteria.admit(|pattern| principal.as_ref().is_some_and(|text| pattern.fits(text)))
    }

    fn path(&self, request: &HttpRequest<'a>) -> &[u8] {
        self.path.get_or_init(|| path::decode(request.path))
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
    let action = policy.action;
    policy
        .rules
        .iter()
        .position(|rule| decidable(action, rule, facts) && matches(rule, facts, action))
        .map(|index| RuleName {
            policy: policy.name.clone(),
            index,
        })
}

/// Whether the L4 part of a rule may stand for the whole where there is no request. What a rule says of
/// HTTP can't be seen there: without it an ALLOW rule would allow more than was asked for, so it never
/// matches; a DENY rule denies more, and stays. The same choice as Istio's for ztunnel.
fn decidable(action: Action, rule: &Rule, facts: &Facts<'_>) -> bool {
    match action {
        Action::Allow => facts.request.is_some() || rule.http_fields.is_empty(),
        Action::Deny | Action::Audit => true,
    }
}

fn matches(rule: &Rule, facts: &Facts<'_>, action: Action) -> bool {
    let from = rule.from.is_empty() || rule.from.iter().any(|s| source_fits(s, facts));
    let to = rule.to.is_empty() || rule.to.iter().any(|o| operation_fits(o, facts));
    from && to && rule.when.iter().all(|c| condition_fits(c, facts, action))
}

fn source_fits(source: &Source, facts: &Facts<'_>) -> bool {
    facts.principal_fits(&source.principals)
        && facts.namespace_fits(&source.namespaces)
        && facts.service_account_fits(&source.service_accounts)
        && facts.trust_domain_fits(&source.trust_domains)
        && source.ip_blocks.admit(|net| net.contains(&facts.source))
        && source
            .remote_ip_blocks
            .admit(|net| net.contains(&facts.remote()))
        && facts.request_principal_fits(&source.request_principals)
}

fn operation_fits(operation: &Operation, facts: &Facts<'_>) -> bool {
    operation.ports.admit(|port| *port == facts.port)
        && facts.request.is_none_or(|request| {
            operation.methods.admit(|it| it.fits(request.method))
                && operation.hosts.admit(|it| it.fits(request.host))
                && operation.paths.admit(|it| it.fits(facts.path(request)))
        })
}

fn condition_fits(condition: &Condition, facts: &Facts<'_>, action: Action) -> bool {
    let request = || facts.request;
    let token = || facts.request.and_then(|request| request.token);
    match condition {
        Condition::SourceAddress(nets) => nets.admit(|net| net.contains(&facts.source)),
        Condition::RemoteAddress(nets) => nets.admit(|net| net.contains(&facts.remote())),
        Condition::SourceNamespace(namespaces) => facts.namespace_fits(namespaces),
        Condition::SourcePrincipal(principals) => facts.principal_fits(principals),
        Condition::SourceServiceAccount(accounts) => facts.service_account_fits(accounts),
        Condition::DestinationAddress(nets) => nets.admit(|net| net.contains(&facts.destination)),
        Condition::DestinationPort(ports) => ports.admit(|port| *port == facts.port),
        Condition::Unseen => action != Action::Allow,
        // Below, what only HTTP can decide: where there is no request it stands back.
        Condition::Header(name, values) => {
            request().is_none_or(|request| header_fits(request, name, values, action))
        }
        Condition::RequestPrincipal(principals) => facts.request_principal_fits(principals),
        Condition::RequestAudience(audiences) => request().is_none_or(|_| {
            let named = token().map_or(&[][..], |token| &token.audiences);
            audiences.admit(|pattern| named.iter().any(|name| pattern.fits(name)))
        }),
        Condition::RequestPresenter(presenters) => request().is_none_or(|_| {
            let presenter = token().and_then(|token| token.presenter.as_deref());
            presenters.admit(|pattern| presenter.is_some_and(|name| pattern.fits(name)))
        }),
        Condition::RequestClaim(path, values) => request().is_none_or(|_| {
            values.admit(|pattern| token().is_some_and(|token| token.claim_fits(path, pattern)))
        }),
    }
}
