//! What a policy is attached to: `selector`, `targetRef` and `targetRefs`, as two kinds have them.

use serde::Deserialize;

use super::values::{Fields, List, Readable, SelectorField, Text};
use crate::policy::model::{Target, TargetKind, TargetReference};

/// One entry of `targetRefs`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Fields<ReferenceFields>")]
pub(super) struct Reference(TargetReference);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReferenceFields {
    #[serde(default)]
    group: String,
    kind: Text<TargetKind>,
    name: Text<String>,
    #[serde(rename = "namespace")]
    _namespace: Option<Text<NoNamespace>>,
}

impl TryFrom<Fields<ReferenceFields>> for Reference {
    type Error = String;

    fn try_from(Fields(fields): Fields<ReferenceFields>) -> Result<Self, String> {
        let Text(kind) = fields.kind;
        let of_core = kind == TargetKind::Service;
        // Without a group it can't be meant otherwise.
        let is_right = match &*fields.group {
            "" => true,
            GATEWAY_GROUP => !of_core,
            _ => false,
        };
        if !is_right {
            let expected = if of_core { "" } else { GATEWAY_GROUP };
            let found = fields.group;
            return Err(format!(
                "a {kind} of group {found:?} is no target: write {expected:?}"
            ));
        }
        Ok(Self(TargetReference {
            kind,
            name: fields.name.0.into(),
        }))
    }
}

const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

impl Readable for TargetKind {
    const EXPECTED: &'static str = "a kind such as \"Service\"";

    fn read(text: &str) -> Result<Self, String> {
        [Self::Gateway, Self::GatewayClass, Self::Service]
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| format!("{text:?} is no target: write Service, Gateway or GatewayClass"))
    }
}

/// The CRD has the field, and allows nothing in it.
#[derive(Debug)]
struct NoNamespace;

impl Readable for NoNamespace {
    const EXPECTED: &'static str = "nothing";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self);
        }
        Err(format!(
            "{text:?}: a policy is only for targets of its own namespace: leave the field out"
        ))
    }
}

/// Joins the three fields.
///
/// # Errors
/// More than one of them is there.
pub(super) fn target(
    selector: Option<Fields<SelectorField>>,
    one: Option<Reference>,
    several: List<Reference>,
) -> Result<Target, &'static str> {
    let are_set = [selector.is_some(), one.is_some(), !several.is_empty()];
    if are_set.into_iter().filter(|is_set| *is_set).count() > 1 {
        return Err(
            "only one of selector, targetRef and targetRefs can be set: \
                    split the policy in two",
        );
    }
    let references: Vec<_> = one.into_iter().chain(several.0).map(|it| it.0).collect();
    if references.is_empty() {
        return Ok(Target::Workloads(selector.unwrap_or_default().0.into()));
    }
    Ok(Target::References(references))
}
