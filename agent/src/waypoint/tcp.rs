//! A connection through a waypoint whose bytes are nobody's business.

use std::{net::SocketAddr, sync::Arc};

use tokio::{io::AsyncWriteExt, select};

use super::{
    Waypoint,
    detect::{Detector, Spoken, is_settings},
    onward::Onward,
    stream::Client,
    target::Target,
};
use crate::{
    direct::Answer,
    discovery::{
        model::{Service, Workload},
        store::Snapshot,
    },
    hbone::{Forwarded, RequestHeaders},
    identity::Identity,
    policy::{self, Connection, Through, ViaWaypoint, WaypointScope},
    proxy::{
        connections::{ConnectionGuard, Decided, OpenConnection},
        copy::CopyError,
        error::{Error, ended, finish},
        log_dry_run,
        route::Route,
        tunnel_io::TunnelIo,
        tunnels::TunnelRequest,
    },
    telemetry::{ConnectionDescription, ConnectionReport, Reporter, Transfer, WaypointUse},
};

/// How far a connection is.
pub(super) enum Opening {
    /// Asked for.
    Asked(TunnelRequest),
    /// Taken from the client.
    Taken(TunnelIo),
}

/// A server that may be connected to, and is.
pub(super) struct Server {
    target: Target,
    guard: ConnectionGuard,
    transfer: Arc<Transfer>,
    onward: Onward,
}

/// Who spoke first.
pub(super) enum First {
    Client(Spoken),
    Server(Box<Server>),
}

/// Carries one connection until it closes, and reports it, however it ends. `server` is its other end, where
/// that was opened already.
pub(super) async fn carry(client: &Client, opening: Opening, server: Option<Box<Server>>) {
    let snapshot = client.waypoint.core.store.snapshot();
    let (target, transfer) = match &server {
        Some(server) => (Ok(server.target.clone()), server.transfer.clone()),
        None => (client.target(&snapshot), Arc::default()),
    };
    let described = Described {
        waypoint: &client.waypoint,
        client: &client.ends.client,
        source: client.source.clone(),
        source_address: client.source_address,
        address: client.asked.address(),
        service: client.asked.service(),
        target: target.as_ref().ok(),
    };
    let metrics = &client.waypoint.core.metrics;
    let report = ConnectionReport::open(metrics, described.description(), transfer.clone());
    let opened = match (server, target) {
        (Some(server), _) => Ok(*server),
        (None, Ok(target)) => open(client, &snapshot, target, &transfer).await,
        (None, Err(error)) => Err(error),
    };
    let result = match opened {
        Ok(server) => copy(client, server, opening).await,
        Err(error) => {
            if let Opening::Asked(request) = opening {
                request.refuse(error.status(), &error.to_string()).await;
            }
            Err(error)
        }
    };
    finish(report, &result);
}

/// Waits for whoever says something first. Where the client may not connect, or nobody is there to be
/// connected to, only the client can.
pub(super) async fn greet(
    client: &Client,
    detector: &mut Detector,
    io: &mut TunnelIo,
) -> Option<First> {
    let snapshot = client.waypoint.core.store.snapshot();
    let transfer = Arc::default();
    let opening = async {
        let target = client.target(&snapshot)?;
        open(client, &snapshot, target, &transfer).await
    };
    let spoken = |told: std::io::Result<Spoken>| told.ok().map(First::Client);
    let mut server = select! {
        told = detector.detect(io) => return spoken(told),
        opened = opening => match opened {
            Ok(server) => server,
            Err(_) => return spoken(detector.detect(io).await),
        },
    };
    let token = server.guard.token();
    let said = select! {
        told = detector.detect(io) => {
            server.onward.end().await;
            return spoken(told);
        }
        said = server.onward.speaks() => said.ok()?,
        () = token.cancelled() => return None,
    };
    if is_settings(&said) {
        // Of HTTP/2, which the client will speak too.
        server.onward.end().await;
        return spoken(detector.detect(io).await);
    }
    if said.is_empty() {
        // It ended without a word, and so does this.
        let _ = io.shutdown().await;
        return None;
    }
    Some(First::Server(Box::new(server)))
}

/// Opens the connection to the server, once it is allowed and entered as open.
async fn open(
    client: &Client,
    snapshot: &Arc<Snapshot>,
    target: Target,
    transfer: &Arc<Transfer>,
) -> Result<Server, Error> {
    let guard = client.decide(snapshot, &target, transfer)?;
    let headers = RequestHeaders {
        baggage: client.headers.baggage.clone(),
        forwarded: Some(Forwarded {
            address: client.source_address.ip(),
            port: Some(client.source_address.port()),
            host: client
                .headers
                .forwarded
                .as_ref()
                .and_then(|it| it.host.clone()),
        }),
        traceparent: client.headers.traceparent.clone(),
    };
    let opening = Onward::open(&client.waypoint, &target, &headers);
    let onward = Box::pin(guard.unless_closed(opening)).await??;
    Ok(Server {
        target,
        guard,
        transfer: transfer.clone(),
        onward,
    })
}

async fn copy(client: &Client, server: Server, opening: Opening) -> Result<(), Error> {
    let core = &client.waypoint.core;
    let _load = client
        .asked
        .service()
        .map(|_| core.load.count(server.target.address));
    let taken = match opening {
        Opening::Asked(request) => {
            let said = client.baggage_of(&server.target);
            (
                request.accept(said, Answer::Alone).await?,
                bytes::Bytes::new(),
            )
        }
        Opening::Taken(io) => io.into_stream().ok_or(CopyError::TunnelCut)?,
    };
    let token = server.guard.token();
    let copied = server.onward.copy(taken, &server.transfer, token).await;
    ended(&server.guard, copied)
}

impl Client {
    fn target(&self, snapshot: &Snapshot) -> Result<Target, Error> {
        let load = &self.waypoint.core.load;
        let choose = |endpoints: &[&_]| load.choose(endpoints);
        let address = self.asked.end(self.node(), choose)?;
        Ok(self.waypoint.way_to(snapshot, address))
    }

    /// Whether the client may: by its own identity, as the destination's agent would decide.
    fn decide(
        &self,
        snapshot: &Snapshot,
        target: &Target,
        transfer: &Arc<Transfer>,
    ) -> Result<ConnectionGuard, Error> {
        let destination = target.route.workload();
        let scope = WaypointScope {
            gateway: &self.waypoint.gateway,
            service: self.asked.service().map(|service| &service.name),
        };
        let attached = ViaWaypoint {
            source: Some(&self.ends.client),
            source_address: self.source_address.ip(),
            asked_for: self.asked.address(),
            request: None,
        };
        policy::evaluate_at_waypoint(snapshot.policies(), &scope, &attached)?;
        if let Some(destination) = destination {
            let connection = Connection {
                source: Some(&self.ends.client),
                source_address: self.source_address.ip(),
                destination,
                destination_address: target.address,
                through: Through::None,
                request: None,
            };
            // It permits to dial the pod itself, which is left to the agent of its node.
            let _ = policy::evaluate(snapshot.policies(), &connection)?;
            log_dry_run(snapshot, &connection);
        }
        let open = OpenConnection {
            reporter: Reporter::Waypoint,
            source_identity: Some(self.ends.client.clone()),
            source: self.source.clone(),
            source_address: self.source_address,
            destination: destination.cloned(),
            destination_address: target.address,
            service: self.asked.service().map(|it| it.name.clone()),
            waypoint: Some(self.waypoint.gateway.clone()),
            decided: Decided::AtWaypoint(self.asked.address()),
            transfer: transfer.clone(),
        };
        let connections = &self.waypoint.core.connections;
        Ok(connections.register(open, snapshot)?)
    }
}

/// What a report is made of.
pub(super) struct Described<'a> {
    pub(super) waypoint: &'a Waypoint,
    pub(super) client: &'a Identity,
    pub(super) source: Option<Arc<Workload>>,
    pub(super) source_address: SocketAddr,
    /// What was asked for.
    pub(super) address: SocketAddr,
    pub(super) service: Option<&'a Arc<Service>>,
    pub(super) target: Option<&'a Target>,
}

impl Described<'_> {
    pub(super) fn description(self) -> ConnectionDescription {
        let (destination, via) = match self.target.map(|target| &target.route) {
            Some(Route::Tunnel { workload, via }) => (Some(workload), Some(*via)),
            Some(other) => (other.workload(), None),
            None => (None, None),
        };
        let address = self.target.map_or(self.address, |target| target.address);
        let enrolled = self.target.and_then(Target::enrolled);
        ConnectionDescription {
            reporter: Reporter::Waypoint,
            source: self.source,
            source_identity: Some(self.client.clone()),
            source_address: self.source_address,
            destination: destination.cloned(),
            destination_identity: enrolled.map(|workload| workload.identity.clone()),
            destination_address: via.unwrap_or(address),
            hbone_address: via.map(|_| address),
            service: self.service.cloned(),
            // Both halves of the way.
            secured: enrolled.is_some() || self.target.is_none(),
            passed: false,
            waypoint: Some(WaypointUse::Through(self.waypoint.gateway.clone())),
        }
    }
}
