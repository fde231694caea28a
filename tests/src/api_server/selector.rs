//! Which objects a list or watch is about.

use serde_json::Value;

use super::{refusal::Refusal, request::Query, resources::Resource};

/// What an object must be like: all of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Selector {
    fields: Vec<Demand>,
    labels: Vec<Demand>,
}

#[derive(Debug, Clone, PartialEq)]
enum Demand {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
}

impl Selector {
    pub(super) fn parse(query: &Query, of: &Resource) -> Result<Self, Refusal> {
        let selector = Self {
            fields: demands(query.text("fieldSelector"))?,
            labels: demands(query.text("labelSelector"))?,
        };
        for demand in &selector.fields {
            let (Demand::Is(field, _) | Demand::IsNot(field, _)) = demand else {
                return Err(Refusal::bad_request(format!(
                    "invalid selector: {:?}; can't understand {demand:?}",
                    query.text("fieldSelector")
                )));
            };
            if !is_selectable(of, field) {
                return Err(Refusal::bad_request(format!(
                    "Unable to find {:?} that match label selector {:?}, field selector {:?}: \
                     field label not supported: {field}",
                    format!("{}, Resource={}", of.api_version(), of.plural),
                    query.text("labelSelector"),
                    query.text("fieldSelector"),
                )));
            }
        }
        Ok(selector)
    }

    /// The same, of one object only.
    pub(super) fn and_name(mut self, name: &str) -> Self {
        let demand = Demand::Is("metadata.name".into(), name.into());
        self.fields.push(demand);
        self
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let field = |path: &str| -> Option<&str> {
            let found = path.split('.').try_fold(object, |at, part| at.get(part));
            Some(found.and_then(Value::as_str).unwrap_or_default())
        };
        let labels = &object["metadata"]["labels"];
        let label = |name: &str| labels.get(name)?.as_str();
        self.fields.iter().all(|demand| demand.holds(&field))
            && self.labels.iter().all(|demand| demand.holds(&label))
    }

    /// The one name that `metadata.name` asks for.
    pub(super) fn name(&self) -> Option<&str> {
        self.fields.iter().find_map(|demand| match demand {
            Demand::Is(field, name) if field == "metadata.name" => Some(name.as_str()),
            _ => None,
        })
    }
}

impl Demand {
    fn holds<'a>(&self, value: &dyn Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::Is(name, wanted) => value(name) == Some(wanted),
            Self::IsNot(name, unwanted) => value(name) != Some(unwanted),
            Self::Has(name) => value(name).is_some(),
            Self::HasNot(name) => value(name).is_none(),
        }
    }
}

fn demands(text: &str) -> Result<Vec<Demand>, Refusal> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts.map(demand).collect()
}

fn demand(text: &str) -> Result<Demand, Refusal> {
    let own = |text: &str| text.trim().to_owned();
    if text.contains([' ', '(', ')']) {
        return Err(Refusal::bad_request(format!(
            "the selector {text:?} isn't an equality: the lab's API server knows no other"
        )));
    }
    Ok(if let Some((name, value)) = text.split_once("!=") {
        Demand::IsNot(own(name), own(value))
    } else if let Some((name, value)) = text.split_once("==").or(text.split_once('=')) {
        Demand::Is(own(name), own(value))
    } else if let Some(name) = text.strip_prefix('!') {
        Demand::HasNot(own(name))
    } else {
        Demand::Has(own(text))
    })
}

fn is_selectable(of: &Resource, field: &str) -> bool {
    let fields: &[&str] = match of.kind {
        "Pod" => &[
            "spec.nodeName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
        ],
        "Node" => &["spec.unschedulable"],
        "Secret" => &["type"],
        _ => &[],
    };
    field == "metadata.name"
        || (of.namespaced && field == "metadata.namespace")
        || fields.contains(&field)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api_server::resources::{RESOURCES, by_path};

    fn select(query: &str) -> Result<Selector, Refusal> {
        let pods = &RESOURCES[by_path("", "v1", "pods").unwrap()];
        Selector::parse(&Query::parse(query), pods)
    }

    #[test]
    fn selectors_are_equalities_of_fields_and_labels() {
        let pod = json!({
            "metadata": { "name": "web-0", "labels": { "app": "web" } },
            "spec": { "nodeName": "a" },
        });
        let table = [
            ("", true),
            ("fieldSelector=spec.nodeName=a", true),
            ("fieldSelector=spec.nodeName%3D%3Db", false),
            ("fieldSelector=spec.nodeName!=b,metadata.name=web-0", true),
            ("fieldSelector=status.phase=", true),
            ("labelSelector=app=web", true),
            ("labelSelector=app=db", false),
            ("labelSelector=app", true),
            ("labelSelector=!app", false),
            ("labelSelector=tier!=front", true),
            (
                "labelSelector=app=web&fieldSelector=metadata.name=other",
                false,
            ),
        ];
        for (query, expected) in table {
            assert_eq!(select(query).unwrap().matches(&pod), expected, "{query}");
        }
        for refused in [
            "fieldSelector=spec.containers=x",
            "labelSelector=app in (a)",
        ] {
            assert_eq!(select(refused).unwrap_err().code(), 400, "{refused}");
        }
    }
}
