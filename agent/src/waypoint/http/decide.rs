//! Whether a client may have what it asks for.

use std::{borrow::Cow, net::SocketAddr, sync::Arc};

use http::{StatusCode, header::WWW_AUTHENTICATE, request};

use super::{
    super::{authentication::AuthenticationError, stream::Client, target::Target},
    exchange::Exchange,
    headers,
    reply::Reply,
    under_way::Revoked,
};
use crate::{
    discovery::{model::Workload, store::Snapshot},
    policy::{
        self, Connection, Denied, DryRun, HttpRequest, PolicySet, Through, Token, ViaWaypoint,
        WaypointScope, model::RequestAuthentication, path::normalise,
    },
    telemetry::RequestFlags,
};

/// Who asks, and whom they are known by.
pub(super) struct Asking<'a> {
    pub(super) client: &'a Client,
    pub(super) snapshot: &'a Snapshot,
    /// What the client has proven to be by a token.
    pub(super) token: Option<&'a Token>,
}

impl Asking<'_> {
    /// Which tokens count.
    pub(super) fn authentications(&self) -> Vec<Arc<RequestAuthentication>> {
        let scope = self.scope();
        let workload = match scope.service {
            Some(_) => None,
            None => {
                let address = self.client.asked.address().ip();
                self.snapshot.workload_by_address(address)
            }
        };
        let policies = self.snapshot.policies();
        policies.request_authentications_for(&scope, workload.map(|it| &**it))
    }

    /// By the policies that are attached to the waypoint or to the service.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn admit(&self, parts: &request::Parts, path: &str) -> Result<(), Denied> {
        self.ask_attached(parts, path, policy::evaluate_at_waypoint)
    }

    /// By the policies of the endpoint's workload.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn evaluate(
        &self,
        workload: &Arc<Workload>,
        address: SocketAddr,
        parts: &request::Parts,
    ) -> Result<(), Denied> {
        // It permits to dial the pod itself, which the agent of its node does.
        self.ask_endpoint(workload, address, parts, |policies, connection| {
            policy::evaluate(policies, connection).map(drop)
        })
    }

    fn ask_attached<T>(
        &self,
        parts: &request::Parts,
        path: &str,
        ask: impl FnOnce(&PolicySet, &WaypointScope<'_>, &ViaWaypoint<'_>) -> T,
    ) -> T {
        let connection = ViaWaypoint {
            source: Some(&self.client.ends.client),
            source_address: self.client.source_address.ip(),
            asked_for: self.client.asked.address(),
            request: Some(&self.request(parts, path)),
        };
        ask(self.snapshot.policies(), &self.scope(), &connection)
    }

    fn ask_endpoint<T>(
        &self,
        workload: &Arc<Workload>,
        address: SocketAddr,
        parts: &request::Parts,
        ask: impl FnOnce(&PolicySet, &Connection<'_>) -> T,
    ) -> T {
        let path = path_of(parts);
        let connection = Connection {
            source: Some(&self.client.ends.client),
            source_address: self.client.source_address.ip(),
            destination: workload,
            destination_address: address,
            through: Through::None,
            request: Some(&self.request(parts, &path)),
        };
        ask(self.snapshot.policies(), &connection)
    }

    fn scope(&self) -> WaypointScope<'_> {
        WaypointScope {
            gateway: &self.client.waypoint.gateway,
            service: self.client.asked.service().map(|service| &service.name),
        }
    }

    fn request<'a>(&'a self, parts: &'a request::Parts, path: &'a str) -> HttpRequest<'a> {
        HttpRequest {
            method: parts.method.as_str(),
            host: headers::host(parts),
            path,
            headers: &parts.headers,
            token: self.token,
            // No proxy before the mesh is trusted to tell.
            forwarded_for: None,
        }
    }
}

/// A rule may have rewritten it; a CONNECT has none.
fn path_of(parts: &request::Parts) -> Cow<'_, str> {
    let path = parts.uri.path();
    normalise(path).unwrap_or(Cow::Borrowed(path))
}

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
        let authentications = self.asking().authentications();
        let authenticator = &self.client.waypoint.authenticator;
        let authenticated = authenticator.authenticate(&authentications, parts);
        self.token = match authenticated.await {
            Ok(token) => token.map(Arc::new),
            Err(error) => return Err(unauthenticated(&error, parts)),
        };
        let asking = self.asking();
        if let Some(decision) = asking.ask_attached(parts, path, policy::dry_run_at_waypoint) {
            self.log_dry_run(&decision, path);
        }
        let decided = asking.admit(parts, path);
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
        let Some(workload) = target.route.workload() else {
            return Ok(());
        };
        let (asking, address) = (self.asking(), target.address);
        let decision = asking.ask_endpoint(workload, address, parts, policy::dry_run);
        if let Some(decision) = decision {
            self.log_dry_run(&decision, &path_of(parts));
        }
        asking.evaluate(workload, address, parts)
    }

    /// The way to an endpoint, by what was known when the request came.
    pub(super) fn way_to(&self, address: SocketAddr) -> Target {
        self.client.waypoint.way_to(&self.snapshot, address)
    }

    /// What a client is answered whose request may not go on, and has no answer yet.
    pub(super) fn revoked(&mut self, revoked: &Revoked, parts: &request::Parts) -> Reply {
        match revoked {
            Revoked::Denied(denied) => self.denied(denied),
            Revoked::Unauthenticated(error) => unauthenticated(error, parts),
        }
    }

    fn asking(&self) -> Asking<'_> {
        Asking {
            client: &self.client,
            snapshot: &self.snapshot,
            token: self.token.as_deref(),
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

fn unauthenticated(error: &AuthenticationError, parts: &request::Parts) -> Reply {
    let reply = Reply::new(error.status(), error.to_string()).flagged(RequestFlags::UNAUTHORIZED);
    match error.challenge(headers::host(parts)) {
        Some(challenge) => reply.header(WWW_AUTHENTICATE, challenge),
        None => reply,
    }
}
