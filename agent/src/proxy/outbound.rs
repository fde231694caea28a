//! Port 15001: connections that enrolled pods of this node open.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::Instant};

use super::{
    Proxy,
    connections::{ConnectionGuard, OpenConnection, RegisterError},
    connector,
    copy::{ResetOnDrop, TcpSide, copy_tcp, copy_tunnel},
    counts::CountGuard,
    dial,
    error::{Error, ended, finish},
    route::{self, MissingWaypoint, NoRoute, Request, Route},
    tunnels::TunnelStream,
};
use crate::{
    discovery::{
        model::{Endpoint, Service, Waypoint, Workload, WorkloadUid},
        store::Snapshot,
    },
    hbone::{
        Authority, Forwarded, RequestHeaders,
        pool::{PoolError, PoolKey},
    },
    identity::Identity,
    policy::{self, Connection},
    telemetry::{ConnectionDescription, ConnectionReport, Reporter, Transfer, WaypointUse},
};

/// From the client's connection to the answer of the other agent, a new tunnel included.
const DEADLINE: Duration = Duration::from_secs(20);

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
        .local_workload(&snapshot, peer.ip())
        .filter(|source| proxy.bound.contains(&source.uid));
    let Some(source) = source else {
        tracing::warn!(%peer, %original, "captured from a pod that is no longer known; reset");
        return;
    };
    let client = client.with_pod(proxy.splice_namespace(&source));

    // Where: from here on the connection is reported, however it ends.
    let request = match find(&proxy, &snapshot, &source, (peer, original), false) {
        Ok(request) => request,
        Err(error) => {
            if let NoRoute::NoWaypoint { waypoint } = &error {
                let decision = MissingWaypoint::Deny.as_str();
                proxy.metrics.waypoint_missing(waypoint, decision);
            }
            let description = describe(&source, peer, original, None);
            let report = ConnectionReport::open(&proxy.metrics, description, Arc::default());
            finish(report, &Err(error.into()));
            return;
        }
    };
    let exchange = Exchange {
        proxy,
        snapshot,
        source,
        peer,
        original,
        request,
        generation,
    };
    match exchange.request.route.clone() {
        Route::Waypoint { waypoint, via, .. } => exchange.waypoint(client, &waypoint, via).await,
        Route::Local(_) | Route::Tunnel { .. } | Route::Plain(_) => exchange.directly(client).await,
    }
}

/// Where a connection goes.
fn find(
    proxy: &Proxy,
    snapshot: &Snapshot,
    source: &Workload,
    (client, original): (SocketAddr, SocketAddr),
    is_out_of_reach: bool,
) -> Result<Request, NoRoute> {
    let asking = route::Client {
        node: &proxy.node,
        identity: &source.identity,
        missing: proxy.missing,
        is_out_of_reach,
    };
    route::route(snapshot, &asking, original, |endpoints| {
        choose(proxy, snapshot, source, (client, original), endpoints)
    })
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
    async fn directly(self, client: ResetOnDrop) {
        self.note_missing();
        let _load = self.count_load();
        match self.request.route.clone() {
            Route::Local(destination) => self.local(client, &destination).await,
            Route::Tunnel { workload, via } => self.tunnel(client, &workload, via).await,
            Route::Waypoint { .. } | Route::Plain(_) => self.plain(client).await,
        }
    }

    /// An enrolled pod of this node: both agents are this one, so both reports are.
    async fn local(self, client: ResetOnDrop, destination: &Arc<Workload>) {
        let description = describe(
            &self.source,
            self.peer,
            self.request.address,
            Some(&self.request),
        );
        let transfer = Arc::<Transfer>::default();
        let reports = ConnectionReport::open_both(&self.proxy.metrics, &description, &transfer);
        let result = self.carry_local(client, destination, &transfer).await;
        for report in reports {
            finish(report, &result);
        }
    }

    async fn carry_local(
        &self,
        client: ResetOnDrop,
        destination: &Arc<Workload>,
        transfer: &Arc<Transfer>,
    ) -> Result<(), Error> {
        let connection = Connection {
            source: Some(&self.source.identity),
            source_address: self.peer.ip(),
            destination,
            destination_address: self.request.address,
            through: self
                .snapshot
                .through(Some(&self.source.identity), destination),
        };
        let permit = policy::evaluate(self.snapshot.policies(), &connection)?;
        super::log_dry_run(&self.snapshot, &connection);
        let is_same = policy::is_same_for_all_addresses(self.snapshot.policies(), destination);
        // Where a waypoint is missing, the next is asked for again.
        let is_without = self.request.waypoint.is_some();
        if is_same && !is_without && !self.proxy.retired.is_cancelled() {
            let port = self.request.address.port();
            let (source, uid) = (&self.source.identity, &destination.uid);
            self.proxy.passes.allow(source, uid, port, self.generation);
        }
        let guard = self.register(Reporter::Destination, transfer)?;
        // A packet from a pod to itself would arrive with its own address as source, which the
        // pod's kernel refuses; the node's stands in.
        let keep = (self.source.uid != destination.uid).then_some(self.peer.ip());
        let server = Box::pin(guard.unless_closed(dial::to_pod(&permit, keep))).await??;
        let server = server.with_pod(self.proxy.splice_namespace(destination));
        let copied = copy_tcp(client, server, transfer, guard.token()).await;
        ended(&guard, copied)
    }

    /// An enrolled pod elsewhere: its agent decides.
    async fn tunnel(self, client: ResetOnDrop, destination: &Arc<Workload>, via: SocketAddr) {
        let mut description = describe(&self.source, self.peer, via, Some(&self.request));
        description.hbone_address = Some(self.request.address);
        let transfer = Arc::<Transfer>::default();
        let report = ConnectionReport::open(&self.proxy.metrics, description, transfer.clone());
        let result = self.carry_tunnel(client, destination, via, &transfer).await;
        finish(report, &result);
    }

    async fn carry_tunnel(
        &self,
        client: ResetOnDrop,
        destination: &Arc<Workload>,
        via: SocketAddr,
        transfer: &Arc<Transfer>,
    ) -> Result<(), Error> {
        let guard = self.register(Reporter::Source, transfer)?;
        // Boxed, as every step that is over before bytes move: for as long as a connection lives, its
        // task should hold no more than it needs.
        let end = (&destination.identity, &destination.uid);
        let authority = Authority::Address(self.request.address);
        let opening = self.open_stream(end, via, &authority);
        let stream = Box::pin(guard.unless_closed(opening)).await??;
        let copied = copy_tunnel(client, TcpSide::Client, stream, transfer, guard.token()).await;
        ended(&guard, copied)
    }

    async fn open_stream(
        &self,
        (identity, uid): (&Identity, &WorkloadUid),
        via: SocketAddr,
        authority: &Authority,
    ) -> Result<TunnelStream, PoolError<connector::Error>> {
        let key = PoolKey {
            source: self.source.identity.clone(),
            destination: identity.clone(),
            uid: uid.clone(),
            address: via,
        };
        let service = self.request.service.as_ref();
        let host = service.map(|service| self.host(service));
        let headers = RequestHeaders {
            baggage: super::baggage(&self.source, &self.proxy.cluster),
            forwarded: Some(Forwarded {
                address: self.peer.ip(),
                port: Some(self.peer.port()),
                host: host.map(Into::into),
            }),
            traceparent: None,
        };
        self.proxy
            .tunnels
            .open(&key, authority, &headers, Instant::now() + DEADLINE)
            .await
    }

    /// By way of a waypoint, which decides.
    async fn waypoint(self, client: ResetOnDrop, waypoint: &Waypoint, via: SocketAddr) {
        let mut description = describe(&self.source, self.peer, via, Some(&self.request));
        description.hbone_address = Some(self.request.address);
        description.destination_identity = Some(waypoint.identity.clone());
        description.secured = true;
        let transfer = Arc::<Transfer>::default();
        let report = ConnectionReport::open(&self.proxy.metrics, description, transfer.clone());
        let (guard, stream) = match self.open_waypoint(waypoint, via, &transfer).await {
            Ok(opened) => opened,
            Err(error) => {
                let is_out_of_reach = error.is_out_of_reach();
                finish(report, &Err(error));
                if is_out_of_reach {
                    self.out_of_reach(client, waypoint).await;
                }
                return;
            }
        };
        let copied = copy_tunnel(client, TcpSide::Client, stream, &transfer, guard.token()).await;
        finish(report, &ended(&guard, copied));
    }

    async fn open_waypoint(
        &self,
        waypoint: &Waypoint,
        via: SocketAddr,
        transfer: &Arc<Transfer>,
    ) -> Result<(ConnectionGuard, TunnelStream), Error> {
        let guard = self.register(Reporter::Source, transfer)?;
        let authority = match &self.request.service {
            Some(service) if self.request.route.workload().is_none() => Authority::Host {
                host: self.host(service).into(),
                port: self.request.address.port(),
            },
            _ => Authority::Address(self.request.address),
        };
        let opening = self.open_stream((&waypoint.identity, &waypoint.uid), via, &authority);
        let stream = Box::pin(guard.unless_closed(opening)).await??;
        Ok((guard, stream))
    }

    /// No process of the waypoint takes connections: nothing was sent yet.
    async fn out_of_reach(mut self, client: ResetOnDrop, waypoint: &Waypoint) {
        if self.proxy.missing == MissingWaypoint::Deny {
            let decision = MissingWaypoint::Deny.as_str();
            self.proxy
                .metrics
                .waypoint_missing(&waypoint.name, decision);
            return;
        }
        let ends = (self.peer, self.original);
        match find(&self.proxy, &self.snapshot, &self.source, ends, true) {
            Ok(request) => {
                self.request = request;
                Box::pin(self.directly(client)).await;
            }
            Err(error) => {
                let description = describe(&self.source, self.peer, self.original, None);
                let metrics = &self.proxy.metrics;
                let report = ConnectionReport::open(metrics, description, Arc::default());
                finish(report, &Err(error.into()));
            }
        }
    }

    fn host(&self, service: &Service) -> String {
        service.name.service_host(&self.proxy.cluster_domain)
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

    /// Not of the mesh: carried on as it came.
    async fn plain(self, client: ResetOnDrop) {
        let mut description = describe(
            &self.source,
            self.peer,
            self.request.address,
            Some(&self.request),
        );
        description.secured = false;
        let transfer = Arc::<Transfer>::default();
        let report = ConnectionReport::open(&self.proxy.metrics, description, transfer.clone());
        let result = self.carry_plain(client, &transfer).await;
        finish(report, &result);
    }

    async fn carry_plain(
        &self,
        client: ResetOnDrop,
        transfer: &Arc<Transfer>,
    ) -> Result<(), Error> {
        let guard = self.register(Reporter::Source, transfer)?;
        // A process of this node answers from a local socket, past the hook that would bring its
        // answer to us: it gets the node's address as source.
        let is_own = self
            .source
            .node_addresses
            .contains(&self.request.address.ip());
        let keep = (!is_own).then_some(self.peer.ip());
        let dialled = dial::outside(self.request.address, keep);
        let server = Box::pin(guard.unless_closed(dialled)).await??;
        let copied = copy_tcp(client, server, transfer, guard.token()).await;
        ended(&guard, copied)
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
