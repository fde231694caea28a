//! One connection through a waypoint.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Waypoint,
    target::{Asked, Target, target},
};
use crate::{
    discovery::{model::Workload, store::Snapshot},
    hbone::{Authority, Forwarded, RequestHeaders, pool::PoolKey},
    policy::{self, Connection, Through},
    proxy::{
        TunnelStream, baggage,
        connections::{ConnectionGuard, OpenConnection},
        copy::{ResetOnDrop, TcpSide, copy_tunnel, relay},
        dial,
        error::{Error, ended, finish},
        log_dry_run,
        route::Route,
        tunnel_server::Ends,
        tunnels::TunnelRequest,
    },
    telemetry::{ConnectionDescription, ConnectionReport, Reporter, Transfer, WaypointUse},
};

/// From the client's request to the answer of the destination's agent, a new tunnel included. Less
/// than the client's agent gives it.
const DEADLINE: Duration = Duration::from_secs(15);

/// Carries one connection from request to close.
pub(super) async fn serve(waypoint: Arc<Waypoint>, ends: Arc<Ends>, request: TunnelRequest) {
    let core = &waypoint.core;
    // Who: the client's identity is proven, its address is believed if it is one of that identity.
    let snapshot = core.store.snapshot();
    let (source_address, source) = ends.source(&snapshot, request.headers());

    // Where.
    let asked = Asked {
        gateway: &waypoint.gateway,
        cluster_domain: &core.cluster_domain,
        node: source.as_ref().map_or("", |source| &*source.node),
    };
    let found = target(&snapshot, &asked, request.authority(), |endpoints| {
        core.load.choose(endpoints)
    });
    let transfer = Arc::<Transfer>::default();
    let description = describe(
        &waypoint,
        &ends,
        source_address,
        source.as_ref(),
        &found,
        &request,
    );
    let report = ConnectionReport::open(&core.metrics, description, transfer.clone());

    // From here on the connection is reported, however it ends.
    let result = match found {
        Ok(target) => {
            let stream = Stream {
                waypoint: &waypoint,
                ends: &ends,
                snapshot,
                source,
                source_address,
                target,
                transfer,
            };
            stream.carry(request).await
        }
        Err(error) => {
            request.refuse(error.status(), &error.to_string()).await;
            Err(error)
        }
    };
    finish(report, &result);
}

/// One stream whose client and destination are known.
struct Stream<'a> {
    waypoint: &'a Waypoint,
    ends: &'a Ends,
    snapshot: Arc<Snapshot>,
    source: Option<Arc<Workload>>,
    source_address: SocketAddr,
    target: Target,
    transfer: Arc<Transfer>,
}

/// The way on.
enum Onward {
    /// To the agent of an enrolled pod.
    Tunnel(TunnelStream),
    /// To what isn't enrolled.
    Plain(ResetOnDrop),
}

impl Stream<'_> {
    async fn carry(&self, request: TunnelRequest) -> Result<(), Error> {
        let core = &self.waypoint.core;
        let service = self.target.service.as_ref();
        let _load = service.map(|_| core.load.count(self.target.address));
        // Allowed, and entered as open, before anything is dialled.
        let opened = match self.decide() {
            Ok(guard) => {
                let onward = Box::pin(guard.unless_closed(self.open(&request))).await;
                onward
                    .map_err(Error::from)
                    .and_then(|onward| Ok((guard, onward?)))
            }
            Err(error) => Err(error),
        };
        let (guard, onward) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                request.refuse(error.status(), &error.to_string()).await;
                return Err(error);
            }
        };
        let destination = self.target.route.workload();
        let said = destination.map(|workload| baggage(workload, &core.cluster));
        let client = request.accept(said.unwrap_or_default()).await?;
        let (transfer, token) = (&self.transfer, guard.token());
        let copied = match onward {
            Onward::Tunnel(server) => relay(client, server, transfer, token).await,
            Onward::Plain(server) => {
                copy_tunnel(server, TcpSide::Server, client, transfer, token).await
            }
        };
        ended(&guard, copied)
    }

    /// Whether the client may: by its own identity, as the destination's agent would decide.
    fn decide(&self) -> Result<ConnectionGuard, Error> {
        let destination = self.target.route.workload();
        if let Some(destination) = destination {
            let connection = Connection {
                source: Some(&self.ends.client),
                source_address: self.source_address.ip(),
                destination,
                destination_address: self.target.address,
                through: Through::None,
            };
            // It permits to dial the pod itself, which the agent of its node does.
            let _ = policy::evaluate(self.snapshot.policies(), &connection)?;
            log_dry_run(&self.snapshot, &connection);
        }
        let open = OpenConnection {
            reporter: Reporter::Waypoint,
            source_identity: Some(self.ends.client.clone()),
            source: self.source.clone(),
            source_address: self.source_address,
            destination: destination.cloned(),
            destination_address: self.target.address,
            service: self.target.service.as_ref().map(|it| it.name.clone()),
            waypoint: Some(self.waypoint.gateway.clone()),
            transfer: self.transfer.clone(),
        };
        let connections = &self.waypoint.core.connections;
        Ok(connections.register(open, &self.snapshot)?)
    }

    /// Goes on to the destination in the waypoint's own name.
    async fn open(&self, request: &TunnelRequest) -> Result<Onward, Error> {
        let address = self.target.address;
        let (workload, via) = match &self.target.route {
            Route::Tunnel { workload, via } => (workload, *via),
            Route::Local(_) | Route::Waypoint { .. } | Route::Plain(_) => {
                return Ok(Onward::Plain(dial::unmarked(address).await?));
            }
        };
        let key = PoolKey {
            source: self.waypoint.identity.clone(),
            destination: workload.identity.clone(),
            uid: workload.uid.clone(),
            address: via,
        };
        let asked = request.headers();
        let headers = RequestHeaders {
            baggage: asked.baggage.clone(),
            forwarded: Some(Forwarded {
                address: self.source_address.ip(),
                port: Some(self.source_address.port()),
                host: asked.forwarded.as_ref().and_then(|it| it.host.clone()),
            }),
            traceparent: asked.traceparent.clone(),
        };
        let (authority, deadline) = (Authority::Address(address), Instant::now() + DEADLINE);
        let tunnels = &self.waypoint.core.tunnels;
        let opened = tunnels.open(&key, &authority, &headers, deadline).await;
        Ok(Onward::Tunnel(opened?))
    }
}

fn describe(
    waypoint: &Waypoint,
    ends: &Ends,
    source_address: SocketAddr,
    source: Option<&Arc<Workload>>,
    target: &Result<Target, Error>,
    request: &TunnelRequest,
) -> ConnectionDescription {
    let target = target.as_ref().ok();
    let (destination, via) = match target.map(|target| &target.route) {
        Some(Route::Tunnel { workload, via }) => (Some(workload), Some(*via)),
        Some(other) => (other.workload(), None),
        None => (None, None),
    };
    let asked = match request.authority() {
        Authority::Address(address) => *address,
        Authority::Host { port, .. } => SocketAddr::new(ends.peer.ip(), *port),
    };
    let address = target.map_or(asked, |target| target.address);
    let enrolled = destination.filter(|_| via.is_some());
    ConnectionDescription {
        reporter: Reporter::Waypoint,
        source: source.cloned(),
        source_identity: Some(ends.client.clone()),
        source_address,
        destination: destination.cloned(),
        destination_identity: enrolled.map(|workload| workload.identity.clone()),
        destination_address: via.unwrap_or(address),
        hbone_address: via.map(|_| address),
        service: target.and_then(|target| target.service.clone()),
        // Both halves of the way.
        secured: via.is_some() || target.is_none(),
        waypoint: Some(WaypointUse::Through(waypoint.gateway.clone())),
    }
}
