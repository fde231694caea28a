//! Policies as they are decided upon: checked once by [`super::parse`], free of Kubernetes types.

pub mod http;
mod request_authentication;

use std::{collections::BTreeMap, fmt, sync::Arc};

use ::http::HeaderName;
use ipnet::IpNet;
use jiff::Timestamp;

pub use self::{
    http::{HostPattern, PathPattern, Template},
    request_authentication::{JwtRule, KeySource, RequestAuthentication, TokenPlace},
};
use crate::{discovery::model::ObjectName, identity::Identity};

/// A `security.istio.io` AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Namespace and name.
    pub name: ObjectName,
    /// What happens to connections that a rule matches.
    pub action: Action,
    /// What it is attached to.
    pub target: Target,
    /// Any one that matches is enough. None: nothing matches, so that ALLOW allows nothing.
    pub rules: Vec<Rule>,
    /// Annotation `istio.io/dry-run`: reported by [`super::dry_run`], never enforced.
    pub dry_run: bool,
}

/// What happens to connections that a policy matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Allowed; and whatever no ALLOW policy of the workload matches is denied.
    Allow,
    /// Denied, whatever any ALLOW policy says.
    Deny,
    /// No effect on whether a connection is allowed.
    Audit,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
        })
    }
}

/// What an AuthorizationPolicy is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Workloads: of the policy's namespace, or of all if that is a root namespace.
    Workloads(Selector),
    /// `targetRefs`: whoever serves these at L7. Never applied at L4.
    References(Vec<TargetReference>),
}

impl Target {
    /// Its `targetRefs`.
    #[must_use]
    pub fn references(&self) -> &[TargetReference] {
        match self {
            Self::Workloads(_) => &[],
            Self::References(references) => references,
        }
    }
}

/// One entry of `targetRefs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetReference {
    /// What it is.
    pub kind: TargetKind,
    /// A name in the policy's own namespace, but for classes, which have none.
    pub name: Arc<str>,
}

/// What a policy can be attached to. The text is shown to operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the Kubernetes API")]
pub enum TargetKind {
    Gateway,
    GatewayClass,
    Service,
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// `selector.matchLabels`. Empty selects every workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(pub BTreeMap<String, String>);

impl Selector {
    /// Whether a workload with these labels has them all.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Whether every workload is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One rule: some source, some operation and every condition must match. An empty list of any of
/// them is no constraint, so that the rule `{}` matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// `from[].source`.
    pub from: Vec<Source>,
    /// `to[].operation`.
    pub to: Vec<Operation>,
    /// `when[]`.
    pub when: Vec<Condition>,
    /// The fields of the rule that only HTTP can decide, as paths within the rule
    /// (`to[0].operation.methods`). With any, an ALLOW rule never matches at L4.
    pub http_fields: Vec<String>,
}

impl Rule {
    /// Whether it depends on an address of either end.
    #[must_use]
    pub fn asks_for_addresses(&self) -> bool {
        let of_source = self
            .from
            .iter()
            .flat_map(|source| [&source.ip_blocks, &source.remote_ip_blocks]);
        let of_conditions = self.when.iter().filter_map(|condition| match condition {
            Condition::SourceAddress(networks)
            | Condition::RemoteAddress(networks)
            | Condition::DestinationAddress(networks) => Some(networks),
            _ => None,
        });
        of_source
            .chain(of_conditions)
            .any(|networks| *networks != Criteria::default())
    }
}

/// Who connects. All fields must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// `principals`: SPIFFE ids without `spiffe://`.
    pub principals: Criteria<Pattern>,
    /// `namespaces` of the identity.
    pub namespaces: Criteria<Pattern>,
    /// `serviceAccounts` of the identity.
    pub service_accounts: Criteria<ServiceAccount>,
    /// `trustDomains` of the identity.
    pub trust_domains: Criteria<Pattern>,
    /// `ipBlocks`: the packet's source address.
    pub ip_blocks: Criteria<IpNet>,
    /// `remoteIpBlocks`: the client behind any HTTP proxy; at L4 that is the packet's source.
    pub remote_ip_blocks: Criteria<IpNet>,
    /// `requestPrincipals`: `issuer/subject` of the request's token.
    pub request_principals: Criteria<Pattern>,
}

/// What the client connects to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operation {
    /// `ports` of the workload, not of a service; of the service for a policy that is attached to it or to
    /// its waypoint.
    pub ports: Criteria<u16>,
    /// `hosts` of requests.
    pub hosts: Criteria<HostPattern>,
    /// `methods` of requests.
    pub methods: Criteria<Pattern>,
    /// `paths` of requests.
    pub paths: Criteria<PathPattern>,
}

/// One entry of `when`, by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// `source.ip`.
    SourceAddress(Criteria<IpNet>),
    /// `remote.ip`: the client behind any HTTP proxy; at L4 that is the packet's source.
    RemoteAddress(Criteria<IpNet>),
    /// `source.namespace`.
    SourceNamespace(Criteria<Pattern>),
    /// `source.principal`.
    SourcePrincipal(Criteria<Pattern>),
    /// `source.serviceAccount`.
    SourceServiceAccount(Criteria<ServiceAccount>),
    /// `destination.ip`.
    DestinationAddress(Criteria<IpNet>),
    /// `destination.port`.
    DestinationPort(Criteria<u16>),
    /// `request.headers[...]`.
    Header(HeaderName, Criteria<Pattern>),
    /// `request.auth.principal`.
    RequestPrincipal(Criteria<Pattern>),
    /// `request.auth.audiences`.
    RequestAudience(Criteria<Pattern>),
    /// `request.auth.presenter`.
    RequestPresenter(Criteria<Pattern>),
    /// `request.auth.claims[...]`, nested ones by their path.
    RequestClaim(Vec<String>, Criteria<Pattern>),
    /// `connection.sni` and `experimental...`: what isn't seen here at all. It never lets an ALLOW rule match, nor
    /// keeps another from it.
    Unseen,
}

/// A field together with its `not` form. An empty list is no constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Criteria<T> {
    /// One of these must fit.
    pub any_of: Vec<T>,
    /// None of these may fit.
    pub none_of: Vec<T>,
}

impl<T> Criteria<T> {
    /// Whether something is in `any_of` and not in `none_of`, as `fits` tells.
    pub fn admit(&self, fits: impl Fn(&T) -> bool) -> bool {
        (self.any_of.is_empty() || self.any_of.iter().any(&fits)) && !self.none_of.iter().any(&fits)
    }

    /// The same criteria on other values.
    #[must_use]
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> Criteria<U> {
        Criteria {
            any_of: self.any_of.into_iter().map(&mut change).collect(),
            none_of: self.none_of.into_iter().map(&mut change).collect(),
        }
    }
}

impl<T> Default for Criteria<T> {
    fn default() -> Self {
        Self {
            any_of: Vec::new(),
            none_of: Vec::new(),
        }
    }
}

/// How a text is matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// `*`: anything but nothing.
    Present,
    /// `abc`
    Exact(String),
    /// `abc*`
    Prefix(String),
    /// `*abc`
    Suffix(String),
}

impl Pattern {
    /// Whether the text fits.
    pub fn fits(&self, text: impl AsRef<[u8]>) -> bool {
        self.compare(text.as_ref(), <[u8]>::eq)
    }

    /// Whether the text fits if the case of ASCII letters is left out of account.
    #[must_use]
    pub fn fits_in_any_case(&self, text: &str) -> bool {
        self.compare(text.as_bytes(), <[u8]>::eq_ignore_ascii_case)
    }

    fn compare(&self, text: &[u8], is_same: impl Fn(&[u8], &[u8]) -> bool) -> bool {
        match self {
            Self::Present => !text.is_empty(),
            Self::Exact(exact) => is_same(text, exact.as_bytes()),
            Self::Prefix(prefix) => {
                let start = text.get(..prefix.len());
                start.is_some_and(|start| is_same(start, prefix.as_bytes()))
            }
            Self::Suffix(suffix) => {
                let start = text.len().checked_sub(suffix.len());
                start.is_some_and(|start| is_same(&text[start..], suffix.as_bytes()))
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("*"),
            Self::Exact(exact) => f.write_str(exact),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// A service account of any trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its namespace: the policy's own where the policy gives none.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ServiceAccount {
    /// Whether the identity is of this account.
    #[must_use]
    pub fn fits(&self, identity: &Identity) -> bool {
        *self.namespace == *identity.namespace() && *self.name == *identity.service_account()
    }
}

/// A `security.istio.io` PeerAuthentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Namespace and name.
    pub name: ObjectName,
    /// The workloads of its namespace that it is for.
    pub selector: Selector,
    /// `mtls.mode`.
    pub mode: MtlsMode,
    /// `portLevelMtls`, by the workload's port. Only with a selector.
    pub ports: BTreeMap<u16, MtlsMode>,
    /// `metadata.creationTimestamp`: of several at one level the oldest counts. A manifest that
    /// was never in a cluster has none, and is younger than any that has.
    pub created: Option<Timestamp>,
}

impl PeerAuthentication {
    /// Sorts the one that counts first: the oldest, then by name.
    #[must_use]
    pub fn precedence(&self) -> impl Ord + '_ {
        (self.created.is_none(), self.created, &self.name)
    }
}

/// Whether plaintext is accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MtlsMode {
    /// What the next wider level says.
    #[default]
    Unset,
    /// Plaintext is accepted. Tunnels still are too: between agents there is no other way, so
    /// this is PERMISSIVE by another name, as in Istio ambient.
    Disable,
    /// Both are accepted.
    Permissive,
    /// Only mutual TLS.
    Strict,
}

impl fmt::Display for MtlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unset => "UNSET",
            Self::Disable => "DISABLE",
            Self::Permissive => "PERMISSIVE",
            Self::Strict => "STRICT",
        })
    }
}
