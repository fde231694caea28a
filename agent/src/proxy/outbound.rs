//! Port 15001: connections that enrolled pods of this node open.

mod local;
mod plain;
mod tunnel;
mod waypoint;

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;

use super::{
    Proxy,
    connections::{ConnectionGuard, Decided, OpenConnection, RegisterError},
    copy::ResetOnDrop,
    counts::CountGuard,
    error::finish,
    route::{self, MissingWaypoint, NoRoute, Request, Route},
};
use crate::{
    discovery::{
        model::{Endpoint, Workload},
        store::Snapshot,
    },
    telemetry::{ConnectionDescription, ConnectionReport, Reporter, Transfer, WaypointUse},
};

/// Carries one captured connection from accept to close.
pub(super) async fn serve(proxy: Arc<Proxy>, client: TcpStream) {
    let (Ok(peer), Ok(original)) = (client.peer_addr(), client.local_addr()) else {
        // Reset between SYN and accept.
        return;
    };
    let client = ResetOnDrop::from(client);
    let (peer, original) = (super::canonical(peer), super::canonical(original));

    let generation = proxy.passes.generation();
    // Who: the hook let nothing through but the addresses of the interface's own pod. So the
    // address tells the pod, if the pod that has it now is the one whose interface is known.
    let snapshot = proxy.store.snapshot();
    let source = proxy
        .local_client(&snapshot, peer.ip())
        .filter(|source| proxy.bound.contains(&source.uid));
    let Some(source) = source else {
        tracing::warn!(%peer, %original, "captured from a pod that is no longer known; reset");
        return;
    };
    let client = client.with_pod(proxy.splice_namespace(&source));

    // Where: from here on the connection is reported, however it ends.
    let request = match find(&proxy, &snapshot, &source, (peer, original), &[]) {
        Ok(request) => request,
        Err(error) => {
            if let NoRoute::NoWaypoint { waypoint } = &error {
                let decision = MissingWaypoint::Deny.as_str();
                proxy.metrics.waypoint_missing(waypoint, decision);
            }
            return unroutable(&proxy, &source, (peer, original), error);
        }
    };
    if !source.is_enrolled() && !matches!(request.route, Route::Local(_)) {
        // The agent has no certificate of a waypoint's, which goes on by itself.
        tracing::warn!(waypoint = %source.name, %original, "no longer an enrolled pod of this node; reset");
        return;
    }
    let mut exchange = Exchange {
        proxy,
        snapshot,
        source,
        peer,
        original,
        request,
        generation,
    };
    match exchange.request.route.clone() {
        Route::Waypoint { .. } => exchange.waypoint(client).await,
        Route::Local(_) | Route::Tunnel { .. } | Route::Plain(_) => exchange.directly(client).await,
    }
}

/// Where a connection goes. A waypoint has found that already.
fn find(
    proxy: &Proxy,
    snapshot: &Snapshot,
    source: &Workload,
    (client, original): (SocketAddr, SocketAddr),
    out_of_reach: &[SocketAddr],
) -> Result<Request, NoRoute> {
    if !source.is_enrolled() {
        return Ok(Request::direct(snapshot, &proxy.node, original));
    }
    let asking = route::Client {
        node: &proxy.node,
        identity: &source.identity,
        missing: proxy.missing,
        out_of_reach,
    };
    route::route(snapshot, &asking, original, |endpoints| {
        choose(proxy, snapshot, source, (client, original), endpoints)
    })
}

/// Reports a connection that can't go anywhere.
fn unroutable(
    proxy: &Proxy,
    source: &Arc<Workload>,
    (client, original): (SocketAddr, SocketAddr),
    error: NoRoute,
) {
    let description = describe(source, client, original, None);
    let report = ConnectionReport::open(&proxy.metrics, description, Arc::default());
    finish(report, &Err(error.into()));
}

/// The index of the endpoint to take. Where the kernel has drawn one already, and left the connection to
/// the agent, those that it would have taken have had their share.
fn choose(
    proxy: &Proxy,
    snapshot: &Snapshot,
    source: &Workload,
    (client, service): (SocketAddr, SocketAddr),
    endpoints: &[&Endpoint],
) -> usize {
    let is_here = |endpoint: &Endpoint| {
        endpoint.is_on(&proxy.node) && endpoint.address.is_ipv4() == service.is_ipv4()
    };
    if !endpoints.iter().any(|endpoint| is_here(endpoint))
        || !proxy.passes.was_drawn(client, service)
    {
        return proxy.load.choose(endpoints);
    }
    let is_kernels = |endpoint: &Endpoint| {
        let workload = snapshot.workload_by_address(endpoint.address);
        is_here(endpoint)
            && workload.is_some_and(|workload| {
                let (identity, uid) = (&source.identity, &workload.uid);
                proxy.passes.is_allowed(identity, uid, endpoint.port)
            })
    };
    let all = endpoints.iter().copied().enumerate();
    let (indices, left): (Vec<usize>, Vec<&Endpoint>) =
        all.filter(|(_, endpoint)| !is_kernels(endpoint)).unzip();
    if left.is_empty() {
        proxy.load.choose(endpoints)
    } else {
        indices[proxy.load.choose(&left)]
    }
}

/// One connection, once it's known where it goes.
struct Exchange {
    proxy: Arc<Proxy>,
    snapshot: Arc<Snapshot>,
    source: Arc<Workload>,
    peer: SocketAddr,
    original: SocketAddr,
    request: Request,
    /// Of the state that is decided on, or of an earlier one.
    generation: u64,
}

impl Exchange {
    fn count_load(&self) -> Option<CountGuard<SocketAddr>> {
        self.request
            .service
            .as_ref()
            .map(|_| self.proxy.load.count(self.request.address))
    }

    /// Without a waypoint.
    async fn directly(&self, client: ResetOnDrop) {
        self.note_missing();
        let _load = self.count_load();
        match self.request.route.clone() {
            Route::Local(destination) => self.local(client, &destination).await,
            Route::Tunnel { workload, via } => self.tunnel(client, &workload, via).await,
            Route::Waypoint { .. } | Route::Plain(_) => self.plain(client).await,
        }
    }

    /// Counts that it goes without the waypoint that it should go through.
    fn note_missing(&self) {
        if let (Some(waypoint), false) = (&self.request.waypoint, self.request.is_by_waypoint()) {
            let decision = MissingWaypoint::Allow.as_str();
            self.proxy
                .metrics
                .waypoint_missing(&waypoint.name, decision);
        }
    }

    fn register(
        &self,
        reporter: Reporter,
        transfer: &Arc<Transfer>,
    ) -> Result<ConnectionGuard, RegisterError> {
        let connection = OpenConnection {
            reporter,
            source_identity: Some(self.source.identity.clone()),
            source: Some(self.source.clone()),
            source_address: self.peer,
            destination: self.request.route.workload().cloned(),
            destination_address: self.request.address,
            service: self
                .request
                .service
                .as_ref()
                .map(|service| service.name.clone()),
            waypoint: self.request.waypoint.as_ref().map(|it| it.name.clone()),
            decided: Decided::ByServer,
            transfer: transfer.clone(),
        };
        self.proxy.connections.register(connection, &self.snapshot)
    }
}

fn describe(
    source: &Arc<Workload>,
    peer: SocketAddr,
    destination: SocketAddr,
    request: Option<&Request>,
) -> ConnectionDescription {
    let workload = request
        .and_then(|request| request.route.workload())
        .cloned();
    let destination_identity = workload
        .as_ref()
        .filter(|workload| workload.is_enrolled())
        .map(|workload| workload.identity.clone());
    ConnectionDescription {
        reporter: Reporter::Source,
        source: Some(source.clone()),
        source_identity: Some(source.identity.clone()),
        source_address: peer,
        secured: destination_identity.is_some(),
        passed: false,
        destination: workload,
        destination_identity,
        destination_address: destination,
        hbone_address: None,
        service: request.and_then(|request| request.service.clone()),
        waypoint: request.and_then(|request| {
            let name = request.waypoint.as_ref()?.name.clone();
            Some(match request.is_by_waypoint() {
                true => WaypointUse::Through(name),
                false => WaypointUse::Missing(name),
            })
        }),
    }
}
