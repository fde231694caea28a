//! Faults that are put into requests.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::{SECOND, number, time};
use crate::discovery::{
    model::{FaultAbort, FaultDelay, FaultPolicy, FaultShare},
    reduce::{
        FieldError,
        route::values::{header_name, header_value, limited},
    },
};

const FIELD: &str = "spec.fault";
const SHORTEST: Duration = Duration::from_millis(1);
/// Longer than any client waits.
const LONGEST: Duration = Duration::from_secs(300);
const MAX_HEADERS: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::discovery::reduce::traffic_policy) struct RawFault {
    delay: Option<RawDelay>,
    abort: Option<RawAbort>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDelay {
    duration: String,
    percentage: Option<i64>,
    #[serde(default)]
    headers: Vec<RawHeader>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawAbort {
    status: i64,
    grpc_status: Option<i64>,
    percentage: Option<i64>,
    #[serde(default)]
    headers: Vec<RawHeader>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHeader {
    name: String,
    value: String,
}

impl RawFault {
    pub(in crate::discovery::reduce::traffic_policy) fn check(
        &self,
    ) -> Result<FaultPolicy, FieldError> {
        if self.delay.is_none() && self.abort.is_none() {
            let reason = "has neither delay nor abort: write one of them, or leave it out";
            return Err(FieldError::new(FIELD, reason));
        }
        Ok(FaultPolicy {
            delay: self.delay.as_ref().map(RawDelay::check).transpose()?,
            abort: self.abort.as_ref().map(RawAbort::check).transpose()?,
        })
    }
}

impl RawDelay {
    fn check(&self) -> Result<FaultDelay, FieldError> {
        let field = "spec.fault.delay";
        let duration = Some(self.duration.as_str());
        let bounds = SHORTEST..=LONGEST;
        Ok(FaultDelay {
            duration: time(&format!("{field}.duration"), duration, SECOND, bounds)?,
            applies: share(field, self.percentage, &self.headers)?,
        })
    }
}

impl RawAbort {
    fn check(&self) -> Result<FaultAbort, FieldError> {
        let field = "spec.fault.abort";
        let status = u16::try_from(self.status).ok();
        let status = status.filter(|status| (200..600).contains(status));
        let grpc = |found: i64| {
            let status = u8::try_from(found).ok();
            let status = status.filter(|status| (1..=16).contains(status));
            status.ok_or_else(|| {
                let field = format!("{field}.grpcStatus");
                FieldError::unexpected(field, found, "a gRPC status from 1 to 16")
            })
        };
        Ok(FaultAbort {
            status: status.ok_or_else(|| {
                let field = format!("{field}.status");
                FieldError::unexpected(field, self.status, "an HTTP status from 200 to 599")
            })?,
            grpc_status: self.grpc_status.map(grpc).transpose()?,
            applies: share(field, self.percentage, &self.headers)?,
        })
    }
}

fn share(
    field: &str,
    percentage: Option<i64>,
    headers: &[RawHeader],
) -> Result<FaultShare, FieldError> {
    limited(&format!("{field}.headers"), headers, MAX_HEADERS)?;
    let check = |(index, header): (usize, &RawHeader)| {
        let field = format!("{field}.headers[{index}]");
        let name: HeaderName = header_name(&format!("{field}.name"), &header.name)?;
        let value: HeaderValue = header_value(&format!("{field}.value"), &header.value)?;
        Ok((name, value))
    };
    let headers = headers.iter().enumerate().map(check);
    Ok(FaultShare {
        percentage: number(&format!("{field}.percentage"), percentage, 100, 0..=100)?,
        headers: headers.collect::<Result<_, FieldError>>()?,
    })
}
