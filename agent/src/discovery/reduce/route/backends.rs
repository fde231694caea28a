//! Where rules send requests.

use std::fmt;

use serde::Deserialize;

use super::{Checker, MAX_BACKENDS, filters::RawFilter, values::limited};
use crate::discovery::{
    model::{Backend, BackendTarget, Filters, InvalidBackend},
    reduce::{FieldError, port},
};

/// The largest weight that the API allows.
const MAX_WEIGHT: u32 = 1_000_000;

#[derive(Debug, Deserialize)]
pub(super) struct RawBackend {
    #[serde(flatten)]
    target: RawTarget,
    weight: Option<i64>,
    #[serde(default)]
    filters: Vec<RawFilter>,
}

/// Without group and kind it is a Service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawTarget {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<i32>,
}

/// `Service`, `multicluster.x-k8s.io ServiceImport`.
impl fmt::Display for RawTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.as_deref().unwrap_or("Service");
        match self.group.as_deref() {
            None | Some("") => f.write_str(kind),
            Some(group) => write!(f, "{group} {kind}"),
        }
    }
}

impl Checker<'_> {
    /// What is at `field`, of which `what` is said to be unusable if it is.
    pub(super) fn target(
        &mut self,
        field: &str,
        target: &RawTarget,
    ) -> Result<BackendTarget, FieldError> {
        let is_core = target.group.as_deref().unwrap_or("").is_empty();
        if !is_core || target.kind.as_deref().unwrap_or("Service") != "Service" {
            let kind = target.to_string();
            return Ok(BackendTarget::Invalid(InvalidBackend::Kind { kind }));
        }
        let of_port = format!("{field}.port");
        let Some(number) = target.port else {
            let reason = "is missing: a Service is referred to with one of its ports";
            return Err(FieldError::new(of_port, reason));
        };
        Ok(BackendTarget::Service {
            name: self.object(field, target.namespace.as_deref(), &target.name)?,
            port: port(of_port, number)?,
        })
    }

    pub(super) fn backends(
        &mut self,
        of_rule: &str,
        raw: &[RawBackend],
        has_prefix: bool,
    ) -> Result<Vec<Backend>, FieldError> {
        limited(&format!("{of_rule}.backendRefs"), raw, MAX_BACKENDS)?;
        let mut backends = Vec::with_capacity(raw.len());
        for (index, raw) in raw.iter().enumerate() {
            let field = format!("{of_rule}.backendRefs[{index}]");
            let target = self.target(&field, &raw.target)?;
            let filters = self.filters(&format!("{field}.filters"), &raw.filters, has_prefix)?;
            let (target, filters) = match filters {
                Ok(filters) => (target, filters),
                Err(reason) => (BackendTarget::Invalid(reason), Filters::default()),
            };
            backends.push(Backend {
                target,
                weight: weight(&field, raw.weight)?,
                filters,
            });
        }
        Ok(backends)
    }
}

fn weight(field: &str, weight: Option<i64>) -> Result<u32, FieldError> {
    let Some(weight) = weight else { return Ok(1) };
    let fits = u32::try_from(weight).ok().filter(|it| *it <= MAX_WEIGHT);
    fits.ok_or_else(|| {
        let field = format!("{field}.weight");
        FieldError::unexpected(field, weight, "a weight from 0 to 1000000")
    })
}
