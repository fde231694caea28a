//! Whether a client may have what it asks for.

use std::borrow::Cow;

use http::{StatusCode, header::WWW_AUTHENTICATE, request};

use super::{super::target::Target, exchange::Exchange, headers, reply::Reply};
use crate::{
    policy::{
        self, Connection, Denied, DryRun, HttpRequest, Through, ViaWaypoint, WaypointScope,
        path::normalise,
    },
    telemetry::RequestFlags,
};

impl Exchange {
    /// By its token, if it has one, and by the policies that are attached to the waypoint or to the service.
    ///
    /// # Errors
    /// What the client is answered instead.
    pub(super) async fn admit(
        &mut self,
        parts: &mut request::Parts,
        path: &str,
    ) -> Result<(), Reply> {
        let waypoint = self.client.waypoint.clone();
        let client = self.client.clone();
        let service = client.asked.service().map(|service| &service.name);
        let scope = WaypointScope {
            gateway: &waypoint.gateway,
            service,
        };
        let asked = client.asked.address();
        let workload = match service {
            Some(_) => None,
            None => self.snapshot.workload_by_address(asked.ip()),
        };
        let snapshot = self.snapshot.clone();
        let policies = snapshot.policies();
        let authentications =
            policies.request_authentications_for(&scope, workload.map(|it| &**it));
        let authenticated = waypoint.authenticator.authenticate(&authentications, parts);
        self.token = match authenticated.await {
            Ok(token) => token,
            Err(error) => {
                let challenge = error.challenge(headers::host(parts));
                let mut reply = Reply::new(error.status(), error.to_string())
                    .flagged(RequestFlags::UNAUTHORIZED);
                if let Some(challenge) = challenge {
                    reply = reply.header(WWW_AUTHENTICATE, challenge);
                }
                return Err(reply);
            }
        };
        let request = self.request(parts, path);
        let connection = ViaWaypoint {
            source: Some(&client.ends.client),
            source_address: client.source_address.ip(),
            asked_for: asked,
            request: Some(&request),
        };
        if let Some(decision) = policy::dry_run_at_waypoint(policies, &scope, &connection) {
            self.log_dry_run(&decision, path);
        }
        let decided = policy::evaluate_at_waypoint(policies, &scope, &connection);
        decided.map_err(|denied| self.denied(&denied))
    }

    /// By the policies of the endpoint's workload.
    ///
    /// # Errors
    /// What the client is answered instead.
    pub(super) fn decide(&mut self, target: &Target, parts: &request::Parts) -> Result<(), Reply> {
        let evaluated = self.evaluate(target, parts);
        evaluated.map_err(|denied| self.denied(&denied))
    }

    /// As [`Self::decide`], with nobody told of it.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn evaluate(&self, target: &Target, parts: &request::Parts) -> Result<(), Denied> {
        let Some(destination) = target.route.workload() else {
            return Ok(());
        };
        // A rule may have rewritten it; a CONNECT has none.
        let path = parts.uri.path();
        let path = normalise(path).unwrap_or(Cow::Borrowed(path));
        let request = self.request(parts, &path);
        let connection = Connection {
            source: Some(&self.client.ends.client),
            source_address: self.client.source_address.ip(),
            destination,
            destination_address: target.address,
            through: Through::None,
            request: Some(&request),
        };
        let policies = self.snapshot.policies();
        if let Some(decision) = policy::dry_run(policies, &connection) {
            self.log_dry_run(&decision, &path);
        }
        // It permits to dial the pod itself, which the agent of its node does.
        policy::evaluate(policies, &connection).map(drop)
    }

    fn request<'a>(&'a self, parts: &'a request::Parts, path: &'a str) -> HttpRequest<'a> {
        HttpRequest {
            method: parts.method.as_str(),
            host: headers::host(parts),
            path,
            headers: &parts.headers,
            token: self.token.as_ref(),
            // No proxy before the mesh is trusted to tell.
            forwarded_for: None,
        }
    }

    fn log_dry_run(&self, decision: &DryRun, path: &str) {
        tracing::info!(client = %self.client.ends.client, path, "{decision}");
    }

    fn denied(&mut self, denied: &Denied) -> Reply {
        if let Some(report) = &mut self.report {
            report.denied(denied);
        }
        Reply::new(StatusCode::FORBIDDEN, "RBAC: access denied")
            .flagged(RequestFlags::UNAUTHORIZED)
            .because(denied.to_string())
    }
}
