//! Copies of requests, whose answers nobody waits for.

use std::{sync::Arc, time::Duration};

use http::{Request, request};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::{
    super::{
        Waypoint,
        resilience::{BackendState, Verdict},
        target::Target,
    },
    body::{RequestBody, Source},
    exchange::Exchange,
    plan::Matched,
    upstream::Version,
};
use crate::discovery::model::{BackendTarget, ObjectName};

/// How long a copy may take. Nobody misses what comes later.
const LIMIT: Duration = Duration::from_secs(30);

/// Sends copies of a request to those that its rule mirrors it to, as far as its client may ask them.
/// `parts` is as the backend gets it.
pub(super) fn send(
    exchange: &Exchange,
    matched: &Matched,
    parts: &request::Parts,
    source: &Source,
    version: Version,
) {
    for mirror in matched.filters().flat_map(|filters| &filters.mirrors) {
        if let BackendTarget::Service { name, port } = &mirror.target
            && mirror.fraction.has(rand::random())
        {
            to_service(exchange, (name, *port), parts, source, version);
        }
    }
}

fn to_service(
    exchange: &Exchange,
    (name, port): (&ObjectName, u16),
    parts: &request::Parts,
    source: &Source,
    version: Version,
) {
    let Some(service) = exchange.snapshot.service(name) else {
        return;
    };
    let waypoint = exchange.client.waypoint.clone();
    let policy = exchange.snapshot.traffic_policy_of_service(name, port);
    let state = waypoint.resilience.backend(name, port, policy);
    // Copies take their place among the service's requests, so that there are never too many.
    let (Ok(admitted), Ok(chosen)) = (
        state.admit(std::time::Instant::now()),
        exchange.choose(&state, service, port, None, &[]),
    ) else {
        return;
    };
    let target = exchange.way_to(chosen.address);
    if let Err(denied) = exchange.evaluate(&target, parts) {
        tracing::debug!(service = %name, "a copy isn't sent: {denied}");
        return;
    }
    let request = Request::from_parts(parts.clone(), source.mirror());
    let tasks = waypoint.core.tasks.clone();
    tasks.spawn(async move {
        let _admitted = admitted;
        let sent = timeout(
            LIMIT,
            exchange_once(&waypoint, &target, version, &state, request),
        );
        let is_answered = sent.await.unwrap_or(false);
        let verdict = match is_answered {
            true => Verdict::Success,
            false => Verdict::Error,
        };
        chosen.finished(verdict, std::time::Instant::now());
    });
}

/// Whether it was answered, and not with an error of the server's.
async fn exchange_once(
    waypoint: &Arc<Waypoint>,
    target: &Target,
    version: Version,
    state: &Arc<BackendState>,
    request: Request<RequestBody>,
) -> bool {
    let upstreams = &waypoint.upstreams;
    let Ok(response) = upstreams
        .send(waypoint, target, version, Some(state), request)
        .await
    else {
        return false;
    };
    let is_error = response.status().is_server_error();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return false;
        }
    }
    body.give_back();
    !is_error
}
