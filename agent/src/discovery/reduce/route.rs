//! Routes of the Gateway API, as far as they are for Services.
//!
//! A value that can't be is an error of the whole route, whose last good state then serves. What is well
//! formed but can't be done here (a filter, a kind of backend) has those requests answered with an error, as the
//! specification wants, and is told of.

mod backends;
mod filters;
mod grants;
mod matches;
pub(super) mod values;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

pub(super) use self::grants::reduce as reduce_grant;
use self::{
    backends::RawBackend,
    filters::RawFilter,
    values::{RawRetry, RawTimeouts, limited},
};
pub(in crate::discovery) use self::{
    grants::ReferenceGrant,
    matches::{GrpcMatch, HttpMatch, RawMatch},
};
use super::{FieldError, Reducer, dns_label, dns_name, port};
use crate::discovery::model::{
    Backend, BackendTarget, Filters, ObjectName, PathMatch, Route as Checked, RouteEntry,
    RouteKind, RouteParent, RouteRule,
};

/// As the specification bounds them.
const MAX_PARENTS: usize = 32;
const MAX_RULES: usize = 16;
const MAX_MATCHES: usize = 64;
const MAX_BACKENDS: usize = 16;

/// As much of an HTTPRoute or GRPCRoute as matters here: they differ in what their rules match.
#[derive(Debug, Deserialize)]
pub(in crate::discovery) struct Route<M> {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default = "none")]
    spec: RouteSpec<M>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RouteSpec<M> {
    #[serde(default)]
    parent_refs: Vec<ParentRef>,
    rules: Option<Vec<RawRule<M>>>,
}

fn none<M>() -> RouteSpec<M> {
    RouteSpec {
        parent_refs: Vec::new(),
        rules: None,
    }
}

/// Without group and kind it is a Gateway.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ParentRef {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    #[serde(default)]
    name: String,
    port: Option<i32>,
    section_name: Option<String>,
}

impl ParentRef {
    /// The group of Services is the empty one, which must be written down.
    fn is_service(&self) -> bool {
        self.group.as_deref() == Some("") && self.kind.as_deref() == Some("Service")
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRule<M> {
    name: Option<String>,
    #[serde(default = "Vec::new")]
    matches: Vec<M>,
    #[serde(default)]
    filters: Vec<RawFilter>,
    #[serde(default)]
    backend_refs: Vec<RawBackend>,
    #[serde(default)]
    timeouts: RawTimeouts,
    retry: Option<RawRetry>,
}

impl<M> Default for RawRule<M> {
    fn default() -> Self {
        Self {
            name: None,
            matches: Vec::new(),
            filters: Vec::new(),
            backend_refs: Vec::new(),
            timeouts: RawTimeouts::default(),
            retry: None,
        }
    }
}

/// What is known while the parts of a route are checked.
struct Checker<'a> {
    reducer: &'a mut Reducer,
    kind: RouteKind,
    own: ObjectName,
    issues: &'a mut Vec<FieldError>,
}

/// Routes of Gateways are the matter of whoever serves those: their rules aren't looked at.
pub(super) fn reduce<M: RawMatch>(
    reducer: &mut Reducer,
    route: &Route<M>,
    issues: &mut Vec<FieldError>,
) -> Result<Checked, FieldError> {
    let own = reducer.object_name(&route.metadata)?;
    let created = route.metadata.creation_timestamp.as_ref();
    let mut checked = Checked {
        kind: M::KIND,
        name: own.clone(),
        created: created.map(|created| created.0),
        parents: Vec::new(),
        rules: Vec::new(),
    };
    let mut checker = Checker {
        reducer,
        kind: M::KIND,
        own,
        issues,
    };
    limited("spec.parentRefs", &route.spec.parent_refs, MAX_PARENTS)?;
    for (index, parent) in route.spec.parent_refs.iter().enumerate() {
        if parent.is_service() {
            let field = format!("spec.parentRefs[{index}]");
            checked.parents.push(checker.parent(&field, index, parent)?);
        }
    }
    if checked.parents.is_empty() {
        return Ok(checked);
    }
    let default = (M::KIND == RouteKind::Http).then(RawRule::default);
    let default: Vec<_> = default.into_iter().collect();
    let rules = route.spec.rules.as_ref().unwrap_or(&default);
    limited("spec.rules", rules, MAX_RULES)?;
    for (index, rule) in rules.iter().enumerate() {
        checked.rules.push(checker.rule(index, rule)?);
    }
    Ok(checked)
}

impl Checker<'_> {
    fn parent(
        &mut self,
        field: &str,
        index: usize,
        parent: &ParentRef,
    ) -> Result<RouteParent, FieldError> {
        Ok(RouteParent {
            index,
            service: self.object(field, parent.namespace.as_deref(), &parent.name)?,
            port: match parent.port {
                None => None,
                Some(number) => Some(port(format!("{field}.port"), number)?),
            },
            section: parent.section_name.as_deref().map(Arc::from),
        })
    }

    /// A Service that is referred to, in the route's own namespace if none is said.
    fn object(
        &mut self,
        field: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<ObjectName, FieldError> {
        let namespace = namespace.unwrap_or(&self.own.namespace);
        let namespace = dns_label(&format!("{field}.namespace"), namespace)?;
        Ok(ObjectName {
            namespace: self.reducer.interner.text(namespace),
            name: dns_label(&format!("{field}.name"), name)?.into(),
        })
    }

    fn rule<M: RawMatch>(
        &mut self,
        index: usize,
        rule: &RawRule<M>,
    ) -> Result<RouteEntry, FieldError> {
        let field = format!("spec.rules[{index}]");
        let name = match rule.name.as_deref() {
            None => None,
            Some(name) => Some(dns_name(&format!("{field}.name"), name)?.into()),
        };
        limited(&format!("{field}.matches"), &rule.matches, MAX_MATCHES)?;
        let mut matches = Vec::with_capacity(rule.matches.len().max(1));
        for (index, raw) in rule.matches.iter().enumerate() {
            matches.push(raw.check(&format!("{field}.matches[{index}]"))?);
        }
        if matches.is_empty() {
            matches.push(matches::every_request());
        }
        let has_prefix =
            matches!(&matches[..], [only] if matches!(only.path, PathMatch::Prefix(_)));
        let of_rule = format!("{field}.filters");
        let filters = self.filters(&of_rule, &rule.filters, has_prefix)?;
        let backends = self.backends(&field, &rule.backend_refs, has_prefix)?;
        let (filters, backends) = match filters {
            Ok(filters) => (filters, backends),
            // What can't be done isn't skipped: every request is refused.
            Err(reason) => {
                let refusing = Backend {
                    target: BackendTarget::Invalid(reason),
                    weight: 1,
                    filters: Filters::default(),
                };
                (Filters::default(), vec![refusing])
            }
        };
        if filters.redirect.is_some() && !rule.backend_refs.is_empty() {
            return Err(FieldError::new(
                format!("{field}.backendRefs"),
                "are of no use beside filter RequestRedirect: remove them, or the filter",
            ));
        }
        let rule = RouteRule {
            route: self.own.clone(),
            kind: self.kind,
            name,
            index,
            filters,
            backends,
            timeouts: rule.timeouts.check(&format!("{field}.timeouts"))?,
            retry: match &rule.retry {
                None => None,
                Some(retry) => Some(retry.check(&format!("{field}.retry"), self.issues)?),
            },
        };
        Ok(RouteEntry {
            matches,
            rule: Arc::new(rule),
        })
    }
}
