//! How often each policy refused a connection.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use prometheus::proto::MetricFamily;

use super::collector::{Family, Kind};
use crate::policy::Denied;

/// Policies counted by name. More than this many at once are hardly readable; further ones count
/// as `other`.
const LIMIT: usize = 1_000;

pub(super) const DENIALS: Family = Family {
    name: "ambit_policy_denials_total",
    help: "Connections refused or ended by policy: which rule, and the policy if it was one.",
    kind: Kind::Counter,
    labels: &["rule", "policy"],
};

/// Label `rule`, and label `policy`.
type Key = (&'static str, String);

/// Counts by rule and policy, for at most [`LIMIT`] policies.
#[derive(Debug, Default)]
pub(super) struct Denials {
    counts: Mutex<HashMap<Key, u64>>,
}

impl Denials {
    pub(super) fn count(&self, denied: &Denied) {
        let (rule, policy) = match denied {
            Denied::ByPolicy { rule } => ("deny", rule.policy.to_string()),
            // Where several allow, none of them is the one that refused.
            Denied::NotAllowed { policies, .. } => match policies.as_ref() {
                [policy] => ("not_allowed", policy.to_string()),
                _ => ("not_allowed", "several".to_owned()),
            },
            Denied::PastWaypoint { waypoint } => ("past_waypoint", waypoint.to_string()),
            Denied::PlaintextRefused { policy, .. } => ("plaintext", policy.to_string()),
        };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (rule, policy);
        if counts.len() >= LIMIT && !counts.contains_key(&key) {
            key.1 = "other".to_owned();
        }
        *counts.entry(key).or_default() += 1;
    }

    pub(super) fn collect(&self) -> MetricFamily {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        DENIALS.of(counts.iter().map(|((rule, policy), count)| {
            let labels = [(*rule).to_owned(), policy.clone()];
            (labels, *count as f64)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixtures::denied_by;

    #[test]
    fn policies_beyond_the_limit_count_as_other() {
        let denials = Denials::default();
        for number in 0..LIMIT + 5 {
            denials.count(&denied_by(&format!("policy-{number}")));
        }
        denials.count(&denied_by("policy-0"));
        let family = denials.collect();
        let value_of = |policy: &str| {
            let of = |m: &&prometheus::proto::Metric| m.get_label()[1].value() == policy;
            let found = family.get_metric().iter().find(of);
            found.map(|metric| metric.get_counter().get_value())
        };
        assert_eq!(family.get_metric().len(), LIMIT + 1);
        assert_eq!(value_of("other"), Some(5.0));
        assert_eq!(value_of("shop/policy-0"), Some(2.0));
    }
}
