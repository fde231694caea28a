//! What TrafficPolicies have done to a request before it goes anywhere: it may come too early, wait, or be
//! answered with an error on purpose.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};
use tokio::time;

use super::{
    super::{resilience::RateTarget, target::Asked},
    exchange::Exchange,
    plan::Matched,
    reply::Reply,
};
use crate::{
    discovery::model::{ObjectName, TrafficPolicy},
    telemetry::RequestFlags,
};

impl Exchange {
    /// By the policies of the service that was asked for, and of the rule that matches.
    ///
    /// # Errors
    /// What the client is answered instead.
    pub(super) async fn limit(
        &mut self,
        matched: Option<&Matched>,
        headers: &HeaderMap,
    ) -> Result<(), Reply> {
        let Asked::Service(service, port) = &self.client.asked else {
            return Ok(());
        };
        let (service, port) = (service.clone(), *port);
        let name = &service.name;
        let snapshot = self.snapshot.clone();
        let of_service = snapshot.traffic_policy_of_service(name, port);
        let of_service = of_service.map(|policy| (policy, RateTarget::Service { name, port }));
        let rule = matched.map(|matched| &matched.rule);
        let of_rule = rule.and_then(|rule| {
            let named = rule.name.as_deref();
            let policy = snapshot.traffic_policy_of_route(rule.kind, &rule.route, named)?;
            let target = RateTarget::Route {
                kind: rule.kind,
                name: &rule.route,
                rule: rule.name.as_ref(),
            };
            Some((policy, target))
        });
        for (policy, target) in [of_service, of_rule].into_iter().flatten() {
            self.within_rate(policy, target, name)?;
            self.fault(policy, name, port, headers).await?;
        }
        Ok(())
    }

    fn within_rate(
        &self,
        policy: &TrafficPolicy,
        target: RateTarget<'_>,
        service: &ObjectName,
    ) -> Result<(), Reply> {
        let client = Some(&self.client.ends.client);
        let resilience = &self.client.waypoint.resilience;
        let admitted = resilience.within_rate(target, policy, service, client, Instant::now());
        admitted.map_err(|limited| {
            Reply::new(StatusCode::TOO_MANY_REQUESTS, "too many requests")
                .header(RETRY_AFTER, HeaderValue::from(limited.seconds()))
                .flagged(RequestFlags::RATE_LIMITED)
                .because(format!("TrafficPolicy {}: {limited}", policy.name))
        })
    }

    async fn fault(
        &mut self,
        policy: &Arc<TrafficPolicy>,
        service: &ObjectName,
        port: u16,
        headers: &HeaderMap,
    ) -> Result<(), Reply> {
        if policy.fault.is_none() {
            return Ok(());
        }
        let in_force = self.snapshot.traffic_policy_of_service(service, port);
        let resilience = &self.client.waypoint.resilience;
        let state = resilience.backend(service, port, in_force);
        let fault = state.fault(policy, headers, rand::random());
        if let Some(delay) = fault.delay {
            if let Some(report) = &mut self.report {
                report.flag(RequestFlags::DELAY_INJECTED);
            }
            time::sleep(delay).await;
        }
        let Some(abort) = fault.abort else {
            return Ok(());
        };
        // Read from the manifest, where it is held to these bounds.
        let status = StatusCode::from_u16(abort.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        Err(Reply::new(status, "fault filter abort")
            .grpc(abort.grpc_status)
            .flagged(RequestFlags::FAULT_INJECTED)
            .because(format!("TrafficPolicy {}: spec.fault.abort", policy.name)))
    }
}
