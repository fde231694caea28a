//! Routes of the Gateway API. Those for Services are for waypoints that know HTTP.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::{FieldError, Reducer};

/// As much of an HTTPRoute or GRPCRoute as matters here.
#[derive(Debug, Deserialize)]
pub(in crate::discovery) struct Route {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: RouteSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RouteSpec {
    #[serde(default)]
    parent_refs: Vec<ParentRef>,
}

/// Without group and kind it is a Gateway.
#[derive(Debug, Deserialize)]
struct ParentRef {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    #[serde(default)]
    name: String,
}

impl ParentRef {
    /// The group of Services is the empty one, which must be written down.
    fn is_service(&self) -> bool {
        self.group.as_deref() == Some("") && self.kind.as_deref() == Some("Service")
    }
}

/// Routes of Gateways are the matter of whoever serves those.
pub(super) fn check(
    reducer: &mut Reducer,
    route: &Route,
    issues: &mut Vec<FieldError>,
) -> Result<(), FieldError> {
    let own = reducer.object_name(&route.metadata)?;
    for (index, parent) in route.spec.parent_refs.iter().enumerate() {
        if !parent.is_service() {
            continue;
        }
        let namespace = parent.namespace.as_deref().unwrap_or(&own.namespace);
        issues.push(FieldError::new(
            format!("spec.parentRefs[{index}]"),
            format!(
                "Service {namespace}/{}: waypoints pass connections on as they are, so this route \
                 isn't applied yet, and requests go where the Service says; remove the reference, \
                 and give each backend a Service that clients ask for by name",
                parent.name
            ),
        ));
    }
    Ok(())
}
