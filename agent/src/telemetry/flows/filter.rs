//! Which events an observer wants.

use super::{FlowView, Verdict};

/// What has to hold of an event: all that is said. By default nothing is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// Either end's pod or the service is in this namespace.
    pub namespace: Option<String>,
    /// Either end is this pod: `namespace/name`, or `name` in any namespace.
    pub pod: Option<String>,
    /// The server's port, behind any service.
    pub port: Option<u16>,
    /// What became of it. Events before that is known aren't told.
    pub verdict: Option<Verdict>,
}

/// A query that isn't understood: what of it, and the cure.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FilterError {
    /// No such parameter.
    #[error("there is no parameter {0:?}; there are: {names}", names = FlowFilter::PARAMETERS.join(", "))]
    Unknown(String),
    /// Which of the two is meant?
    #[error("{0} is said twice; say it once")]
    Twice(&'static str),
    /// A value of another kind.
    #[error("{parameter}={value:?} selects nothing; write {cure}")]
    Value {
        /// Which parameter.
        parameter: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        cure: &'static str,
    },
}

impl FlowFilter {
    const PARAMETERS: [&str; 4] = ["namespace", "pod", "port", "verdict"];

    /// What a URL's query asks for.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn parse(query: &str) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let known = Self::PARAMETERS.into_iter().find(|known| *known == name);
            let parameter = known.ok_or_else(|| FilterError::Unknown(name.into_owned()))?;
            filter.set(parameter, &value)?;
        }
        Ok(filter)
    }

    fn set(&mut self, parameter: &'static str, value: &str) -> Result<(), FilterError> {
        let wrong = |cure| FilterError::Value {
            parameter,
            value: value.to_owned(),
            cure,
        };
        let before = match parameter {
            "namespace" if !is_name(value) => return Err(wrong("a namespace's name")),
            "namespace" => self.namespace.replace(value.to_owned()).is_some(),
            "pod" if !is_pod(value) => return Err(wrong("namespace/name, or a pod's name")),
            "pod" => self.pod.replace(value.to_owned()).is_some(),
            "port" => {
                let port = value.parse().ok().filter(|port| *port > 0);
                let port = port.ok_or_else(|| wrong("a number from 1 to 65535"))?;
                self.port.replace(port).is_some()
            }
            _ => {
                let verdict = Verdict::ALL.into_iter().find(|it| it.as_str() == value);
                let verdict = verdict.ok_or_else(|| wrong("allowed, denied or failed"))?;
                self.verdict.replace(verdict).is_some()
            }
        };
        match before {
            true => Err(FilterError::Twice(parameter)),
            false => Ok(()),
        }
    }

    /// As [`Self::parse`] reads it; empty if all is wanted.
    #[must_use]
    pub fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let port = self.port.map(|port| port.to_string());
        let verdict = self.verdict.map(Verdict::as_str);
        let values = [
            self.namespace.as_deref(),
            self.pod.as_deref(),
            port.as_deref(),
            verdict,
        ];
        for (name, value) in Self::PARAMETERS.into_iter().zip(values) {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        query.finish()
    }

    /// Whether the event is wanted.
    #[must_use]
    pub fn selects(&self, view: &FlowView) -> bool {
        let pods = || [&view.source, &view.destination].into_iter().flatten();
        let is_in = |namespace: &String| {
            let mut named = pods().chain(&view.service);
            named.any(|name| name.split_once('/').is_some_and(|(it, _)| it == namespace))
        };
        let is_of = |wanted: &String| {
            pods()
                .any(|pod| pod == wanted || pod.split_once('/').is_some_and(|(_, it)| it == wanted))
        };
        let is_at = |port: u16| view.destination_address.is_some_and(|it| it.port() == port);
        self.namespace.as_ref().is_none_or(is_in)
            && self.pod.as_ref().is_none_or(is_of)
            && self.port.is_none_or(is_at)
            && self
                .verdict
                .is_none_or(|verdict| view.verdict == Some(verdict))
    }
}

/// Whether anything can have the name. What else a name may be, Kubernetes says.
fn is_name(text: &str) -> bool {
    let is_allowed = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '.';
    !text.is_empty() && text.chars().all(is_allowed)
}

fn is_pod(text: &str) -> bool {
    match text.split_once('/') {
        Some((namespace, name)) => is_name(namespace) && is_name(name),
        None => is_name(text),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::{
        fixtures::description,
        flows::{FlowEvent, Verdict},
    };

    /// From `web/client-0` to `shop/server-0` port 8080 by service `shop/front`.
    fn view() -> FlowView {
        let transfer = Arc::default();
        let view = FlowView::open(
            FlowEvent::Closed,
            1,
            &description(),
            &transfer,
            Duration::ZERO,
        );
        FlowView {
            verdict: Some(Verdict::Denied),
            ..view
        }
    }

    #[test]
    fn all_that_is_said_has_to_hold() {
        for (query, expected) in [
            ("", true),
            ("namespace=web", true),
            ("namespace=shop", true),
            ("namespace=client-0", false),
            ("pod=client-0", true),
            ("pod=web%2Fclient-0", true),
            ("pod=shop/server-0", true),
            ("pod=shop/client-0", false),
            ("pod=front", false),
            ("port=8080", true),
            ("port=15008", false),
            ("port=40000", false),
            ("verdict=denied", true),
            ("verdict=allowed", false),
            ("namespace=web&port=8080&verdict=denied&pod=client-0", true),
            ("namespace=web&port=8081", false),
        ] {
            let filter = FlowFilter::parse(query).unwrap();
            assert_eq!(filter.selects(&view()), expected, "{query}");
            assert_eq!(FlowFilter::parse(&filter.query()), Ok(filter), "{query}");
        }
        let undecided = FlowView {
            verdict: None,
            ..view()
        };
        let filter = FlowFilter::parse("verdict=allowed").unwrap();
        assert!(!filter.selects(&undecided));
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_cure() {
        for (query, expected) in [
            (
                "node=a",
                "there is no parameter \"node\"; there are: namespace, pod, port, verdict",
            ),
            ("port=80&port=81", "port is said twice; say it once"),
            (
                "port=0",
                "port=\"0\" selects nothing; write a number from 1 to 65535",
            ),
            (
                "port=65536",
                "port=\"65536\" selects nothing; write a number from 1 to 65535",
            ),
            (
                "verdict=Denied",
                "verdict=\"Denied\" selects nothing; write allowed, denied or failed",
            ),
            (
                "namespace=",
                "namespace=\"\" selects nothing; write a namespace's name",
            ),
            (
                "pod=a/b/c",
                "pod=\"a/b/c\" selects nothing; write namespace/name, or a pod's name",
            ),
        ] {
            let error = FlowFilter::parse(query).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_understood_is_written_so_that_it_is_understood_alike(
            query in "((namespace|pod|port|verdict|node)=[a-z0-9%/.+-]{0,12}&?){0,4}|.{0,40}",
        ) {
            if let Ok(filter) = FlowFilter::parse(&query) {
                prop_assert_eq!(FlowFilter::parse(&filter.query()), Ok(filter));
            }
        }
    }
}
