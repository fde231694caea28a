//! Which routes of other namespaces may refer to the Services of one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::super::{FieldError, Reducer};
use crate::discovery::{
    facts::{GrantFacts, GrantFrom},
    model::RouteKind,
};

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// As much of a ReferenceGrant as matters here.
#[derive(Debug, Deserialize)]
pub(in crate::discovery) struct ReferenceGrant {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: GrantSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GrantSpec {
    from: Vec<From>,
    to: Vec<To>,
}

#[derive(Debug, Deserialize)]
struct From {
    #[serde(default)]
    group: String,
    kind: String,
    namespace: String,
}

#[derive(Debug, Deserialize)]
struct To {
    #[serde(default)]
    group: String,
    kind: String,
    name: Option<String>,
}

pub(in crate::discovery::reduce) fn reduce(
    reducer: &mut Reducer,
    grant: &ReferenceGrant,
) -> Result<GrantFacts, FieldError> {
    let name = reducer.object_name(&grant.metadata)?;
    let from = grant.spec.from.iter().filter(|it| it.group == GATEWAY_API);
    let from = from.filter_map(|from| {
        let kind = match from.kind.as_str() {
            "HTTPRoute" => RouteKind::Http,
            "GRPCRoute" => RouteKind::Grpc,
            _ => return None,
        };
        Some(GrantFrom {
            kind,
            namespace: reducer.interner.text(&from.namespace),
        })
    });
    let to = grant.spec.to.iter();
    let to = to.filter(|it| it.group.is_empty() && it.kind == "Service");
    Ok(GrantFacts {
        name,
        from: from.collect(),
        // Kubernetes takes an empty text for none.
        services: to
            .map(|to| {
                to.name
                    .as_deref()
                    .filter(|it| !it.is_empty())
                    .map(Into::into)
            })
            .collect(),
    })
}
