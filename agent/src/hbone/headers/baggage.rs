//! The `baggage` header: names of a workload, for metrics and logs only.

use std::{borrow::Cow, fmt, sync::Arc};

/// What a peer calls itself. `None` where it said nothing; never an empty string.
///
/// `Display` gives the header's value (W3C Baggage), empty if nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Baggage {
    /// `k8s.cluster.name`.
    pub cluster: Option<Arc<str>>,
    /// `k8s.namespace.name`.
    pub namespace: Option<Arc<str>>,
    /// The middle of `k8s.<type>.name`: `deployment`, `job`, `cronjob`, `pod`, ...
    pub workload_type: Option<Arc<str>>,
    /// The value of `k8s.<type>.name`. There if and only if `workload_type` is.
    pub workload: Option<Arc<str>>,
    /// `service.name`: the canonical service.
    pub service: Option<Arc<str>>,
    /// `service.version`: the canonical revision.
    pub revision: Option<Arc<str>>,
    /// `cloud.region`.
    pub region: Option<Arc<str>>,
    /// `cloud.availability_zone`.
    pub zone: Option<Arc<str>>,
}

impl Baggage {
    /// Reads the members that we know; others, and malformed ones, are left out. Of a member that
    /// comes twice the last counts.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut baggage = Self::default();
        for member in text.split(',') {
            // Properties behind a semicolon have no meaning for us.
            let pair = member.split(';').next().unwrap_or_default();
            let Some((key, value)) = pair.split_once('=') else {
                continue;
            };
            let Some(value) = decode(value.trim()).filter(|value| !value.is_empty()) else {
                continue;
            };
            baggage.set(key.trim(), value.into());
        }
        baggage
    }

    fn set(&mut self, key: &str, value: Arc<str>) {
        let field = match key {
            "k8s.cluster.name" => &mut self.cluster,
            "k8s.namespace.name" => &mut self.namespace,
            "service.name" => &mut self.service,
            "service.version" => &mut self.revision,
            "cloud.region" => &mut self.region,
            "cloud.availability_zone" => &mut self.zone,
            _ => {
                let kind = key
                    .strip_prefix("k8s.")
                    .and_then(|k| k.strip_suffix(".name"));
                let Some(kind) = kind.filter(|kind| is_workload_type(kind)) else {
                    return;
                };
                self.workload_type = Some(kind.into());
                &mut self.workload
            }
        };
        *field = Some(value);
    }
}

impl fmt::Display for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self
            .workload_type
            .as_deref()
            .filter(|kind| is_workload_type(kind));
        let workload_key = format!("k8s.{}.name", kind.unwrap_or("pod"));
        let mut separator = "";
        for (key, value) in [
            ("k8s.cluster.name", &self.cluster),
            ("k8s.namespace.name", &self.namespace),
            (workload_key.as_str(), &self.workload),
            ("service.name", &self.service),
            ("service.version", &self.revision),
            ("cloud.region", &self.region),
            ("cloud.availability_zone", &self.zone),
        ] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                write!(f, "{separator}{key}=")?;
                encode(value, f)?;
                separator = ",";
            }
        }
        Ok(())
    }
}

/// A Kubernetes kind in lower case; `cluster` and `namespace` have their own meaning.
fn is_workload_type(kind: &str) -> bool {
    !matches!(kind, "" | "cluster" | "namespace")
        && kind.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// Percent-encodes what isn't a `baggage-octet`, and the percent sign.
fn encode(value: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut rest = value;
    while let Some(at) = rest.find(|it| !is_plain(it)) {
        let (plain, escaped) = rest.split_at(at);
        f.write_str(plain)?;
        let length = escaped.chars().next().map_or(0, char::len_utf8);
        let (escaped, behind) = escaped.split_at(length);
        for byte in escaped.bytes() {
            write!(f, "%{byte:02X}")?;
        }
        rest = behind;
    }
    f.write_str(rest)
}

fn is_plain(it: char) -> bool {
    it.is_ascii_graphic() && !matches!(it, '"' | ',' | ';' | '\\' | '%')
}

/// `None` unless every percent sign starts a valid escape and the result is UTF-8.
fn decode(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('%') {
        return Some(value.into());
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(digits[0])? * 16 + digit(digits[1])?;
            bytes.push(u8::try_from(value).ok()?);
            rest = tail;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn istios_baggage_is_read() {
        let text = "k8s.cluster.name=Kubernetes, k8s.namespace.name=shop,\
            k8s.deployment.name=web,service.name=front%20end;property=1,service.version=v1,\
            cloud.region=r1,cloud.availability_zone=z1,other=ignored,,=,k8s.x";
        let baggage = Baggage::parse(text);
        let some = |text: &str| Some(Arc::from(text));
        let expected = Baggage {
            cluster: some("Kubernetes"),
            namespace: some("shop"),
            workload_type: some("deployment"),
            workload: some("web"),
            service: some("front end"),
            revision: some("v1"),
            region: some("r1"),
            zone: some("z1"),
        };
        assert_eq!(baggage, expected);
        assert_eq!(
            baggage.to_string(),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=web,\
             service.name=front%20end,service.version=v1,cloud.region=r1,\
             cloud.availability_zone=z1"
        );
    }

    #[test]
    fn malformed_members_are_left_out() {
        for text in [
            "service.name=%zz",
            "service.name=%f",
            "service.name=%ff",
            "service.name",
        ] {
            assert_eq!(Baggage::parse(text), Baggage::default(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_value_round_trips(
            values in proptest::collection::vec(proptest::option::of(".{1,20}"), 7),
            kind in "[a-z]{1,10}",
        ) {
            let value = |index: usize| values[index].as_deref().map(Arc::from);
            let workload = value(2);
            prop_assume!(is_workload_type(&kind));
            let baggage = Baggage {
                cluster: value(0),
                namespace: value(1),
                workload_type: workload.as_ref().map(|_| kind.into()),
                workload,
                service: value(3),
                revision: value(4),
                region: value(5),
                zone: value(6),
            };
            prop_assert_eq!(Baggage::parse(&baggage.to_string()), baggage);
        }
    }
}
