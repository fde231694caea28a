//! TrafficPolicies: every field within its bounds, and none that would have no effect.

mod values;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use self::values::{
    RawCircuitBreaker, RawConnectionPool, RawFault, RawLoadBalancing, RawOutlierEjection,
    RawRateLimit, RawRetryBudget,
};
use super::{FieldError, Reducer, dns_name, route::values::limited};
use crate::discovery::model::{self, BackendPolicy, RouteKind, TrafficPolicyTarget};

const MAX_TARGETS: usize = 16;
const ROUTES: &str = "gateway.networking.k8s.io";

/// A TrafficPolicy as it is written.
#[derive(Debug, Deserialize)]
pub(in crate::discovery) struct TrafficPolicy {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

/// A field that isn't known is refused: it would be one that somebody counts on.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Spec {
    target_refs: Vec<TargetRef>,
    load_balancing: Option<RawLoadBalancing>,
    circuit_breaker: Option<RawCircuitBreaker>,
    outlier_ejection: Option<RawOutlierEjection>,
    retry_budget: Option<RawRetryBudget>,
    rate_limit: Option<RawRateLimit>,
    fault: Option<RawFault>,
    connection_pool: Option<RawConnectionPool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TargetRef {
    group: Option<String>,
    kind: String,
    name: String,
    section_name: Option<String>,
}

pub(super) fn reduce(
    reducer: &mut Reducer,
    policy: &TrafficPolicy,
) -> Result<model::TrafficPolicy, FieldError> {
    let name = reducer.object_name(&policy.metadata)?;
    let spec = &policy.spec;
    if spec.target_refs.is_empty() {
        let reason = "is empty, so the policy is for nothing: name a Service, HTTPRoute or \
                      GRPCRoute of its namespace";
        return Err(FieldError::new("spec.targetRefs", reason));
    }
    limited("spec.targetRefs", &spec.target_refs, MAX_TARGETS)?;
    let targets = spec.target_refs.iter().enumerate();
    let targets = targets.map(|(index, target)| target.check(index));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    if let Some(route) = targets.iter().find(|target| target.is_route()) {
        spec.check_for_route(route)?;
    }
    let created = policy.metadata.creation_timestamp.as_ref();
    Ok(model::TrafficPolicy {
        name,
        created: created.map(|time| time.0),
        targets,
        backend: Arc::new(spec.backend()?),
        rate_limit: checked(&spec.rate_limit, RawRateLimit::check)?,
        fault: checked(&spec.fault, RawFault::check)?,
    })
}

impl TargetRef {
    fn check(&self, index: usize) -> Result<TrafficPolicyTarget, FieldError> {
        let field = |name: &str| format!("spec.targetRefs[{index}].{name}");
        let (group, route) = match self.kind.as_str() {
            "Service" => ("", None),
            "HTTPRoute" => (ROUTES, Some(RouteKind::Http)),
            "GRPCRoute" => (ROUTES, Some(RouteKind::Grpc)),
            other => {
                let expected = "\"Service\", \"HTTPRoute\" or \"GRPCRoute\"";
                return Err(FieldError::unexpected(field("kind"), other, expected));
            }
        };
        if let Some(found) = self.group.as_deref().filter(|found| *found != group) {
            let expected = format!("the group of {}, \"{group}\"", self.kind);
            return Err(FieldError::unexpected(field("group"), found, &expected));
        }
        let name = dns_name(&field("name"), &self.name)?.into();
        let section = self.section_name.as_deref();
        let section = section.map(|section| dns_name(&field("sectionName"), section));
        let section = section.transpose()?.map(Arc::from);
        Ok(match route {
            None => TrafficPolicyTarget::Service {
                name,
                port: section,
            },
            Some(kind) => TrafficPolicyTarget::Route {
                kind,
                name,
                rule: section,
            },
        })
    }
}

impl Spec {
    /// Endpoints are a Service's: what is said of them in a policy for a route would have no effect.
    fn check_for_route(&self, route: &TrafficPolicyTarget) -> Result<(), FieldError> {
        let said = [
            ("loadBalancing", self.load_balancing.is_some()),
            ("circuitBreaker", self.circuit_breaker.is_some()),
            ("outlierEjection", self.outlier_ejection.is_some()),
            ("retryBudget", self.retry_budget.is_some()),
            ("connectionPool", self.connection_pool.is_some()),
        ];
        match said.into_iter().find(|(_, is_said)| *is_said) {
            None => Ok(()),
            Some((name, _)) => Err(FieldError::new(
                format!("spec.{name}"),
                format!(
                    "isn't for routes, and {route} is one of the targets: rateLimit and fault are; \
                     write the rest into a policy for the Service"
                ),
            )),
        }
    }

    fn backend(&self) -> Result<BackendPolicy, FieldError> {
        Ok(BackendPolicy {
            load_balancing: checked(&self.load_balancing, RawLoadBalancing::check)?
                .unwrap_or_default(),
            circuit_breaker: checked(&self.circuit_breaker, RawCircuitBreaker::check)?
                .unwrap_or_default(),
            outlier_ejection: checked(&self.outlier_ejection, RawOutlierEjection::check)?,
            retry_budget: checked(&self.retry_budget, RawRetryBudget::check)?.unwrap_or_default(),
            connection_pool: checked(&self.connection_pool, RawConnectionPool::check)?
                .unwrap_or_default(),
        })
    }
}

fn checked<R, T>(
    raw: &Option<R>,
    check: impl Fn(&R) -> Result<T, FieldError>,
) -> Result<Option<T>, FieldError> {
    raw.as_ref().map(check).transpose()
}
