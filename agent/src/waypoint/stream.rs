//! One stream that an agent asks a waypoint for: who asks, for what, and what is spoken in it.

use std::{io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt, time};

use super::{
    Waypoint,
    detect::{Detector, Spoken},
    http,
    target::{Asked, Asker, Target},
    tcp::{self, Described, First, Opening},
};
use crate::{
    direct::Answer,
    discovery::{
        model::{AppProtocol, Workload},
        store::Snapshot,
    },
    hbone::{Authority, Baggage, RequestHeaders},
    proxy::{
        baggage,
        connections::{ConnectionGuard, Decided, OpenConnection, RegisterError},
        error::{Error, finish},
        tunnel_io::TunnelIo,
        tunnel_server::Ends,
        tunnels::TunnelRequest,
    },
    telemetry::{ConnectionReport, Outcome, Reporter},
};

/// For how long a client may say nothing before it is asked whether its server speaks first.
const SILENCE: Duration = Duration::from_millis(500);

/// Who asked for a stream, and for what.
pub(super) struct Client {
    pub(super) waypoint: Arc<Waypoint>,
    pub(super) ends: Arc<Ends>,
    pub(super) source: Option<Arc<Workload>>,
    pub(super) source_address: SocketAddr,
    pub(super) asked: Asked,
    /// What the client's agent said.
    pub(super) headers: RequestHeaders,
}

/// Carries one stream from request to close.
pub(super) async fn serve(waypoint: Arc<Waypoint>, ends: Arc<Ends>, request: TunnelRequest) {
    // Who: the client's identity is proven, its address is believed if it is one of that identity.
    let snapshot = waypoint.core.store.snapshot();
    let (source_address, source) = ends.source(&snapshot, request.headers());

    // What for.
    let asker = Asker {
        gateway: &waypoint.gateway,
        cluster_domain: &waypoint.core.cluster_domain,
    };
    let asked = match asker.asked(&snapshot, request.authority()) {
        Ok(asked) => asked,
        Err(error) => {
            let unknown = Unknown {
                waypoint: &waypoint,
                ends: &ends,
                source,
                source_address,
            };
            return Box::pin(unknown.refuse(request, error)).await;
        }
    };
    let protocol = asked.protocol();
    let client = Arc::new(Client {
        headers: request.headers().clone(),
        waypoint,
        ends,
        source,
        source_address,
        asked,
    });
    // A connection outlives what is known when it comes, which must not stay in memory for its sake.
    match protocol {
        AppProtocol::Tcp => {
            drop(snapshot);
            Box::pin(tcp::carry(&client, Opening::Asked(request), None)).await;
        }
        AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Unknown => {
            // What it is about is said in it.
            let Ok(stream) = Box::pin(request.accept(Baggage::default(), Answer::Alone)).await
            else {
                return;
            };
            let registered = client.register(&snapshot);
            drop(snapshot);
            match registered {
                Ok(guard) => {
                    let io = TunnelIo::new(stream);
                    Box::pin(client.listen(io, protocol, guard)).await;
                }
                Err(error) => client.refused(&error),
            }
        }
    }
}

impl Client {
    /// The client's node, if it is known.
    pub(super) fn node(&self) -> &str {
        self.source.as_ref().map_or("", |source| &*source.node)
    }

    /// What the mesh calls a destination.
    pub(super) fn baggage_of(&self, target: &Target) -> Baggage {
        let workload = target.route.workload();
        let cluster = &self.waypoint.core.cluster;
        workload.map_or_else(Baggage::default, |it| baggage(it, cluster))
    }

    /// Finds out what is spoken, and has it served.
    async fn listen(
        self: &Arc<Self>,
        mut io: TunnelIo,
        declared: AppProtocol,
        guard: ConnectionGuard,
    ) {
        let mut detector = Detector::default();
        let core = &self.waypoint.core;
        let first = {
            let mut told = std::pin::pin!(detector.detect(&mut io));
            tokio::select! {
                told = &mut told => Some(told),
                () = time::sleep(SILENCE), if declared == AppProtocol::Unknown => None,
                () = core.drained_for(http::LAST_REQUEST) => Some(Err(ErrorKind::TimedOut.into())),
                () = guard.token().cancelled_owned() => return,
            }
        };
        let spoken = match first {
            Some(Ok(spoken)) => spoken,
            Some(Err(_)) => return,
            None => match Box::pin(self.greet(&mut detector, &mut io, &guard)).await {
                Some(First::Client(spoken)) => spoken,
                Some(First::Server(server)) => {
                    drop(guard);
                    detector.finish(&mut io);
                    let opening = Opening::Taken(io);
                    return Box::pin(tcp::carry(self, opening, Some(server))).await;
                }
                None => return,
            },
        };
        detector.finish(&mut io);
        match (spoken, declared) {
            (Spoken::Http1 | Spoken::Http2, _) => http::serve(self, io, spoken, guard).await,
            (Spoken::Other, _) if io.has_ended() => {
                // It said nothing that could be passed on, and ends as it did.
                let _ = io.shutdown().await;
            }
            (Spoken::Other, AppProtocol::Unknown) => {
                drop(guard);
                Box::pin(tcp::carry(self, Opening::Taken(io), None)).await;
            }
            (Spoken::Other, _) => {
                tracing::warn!(
                    client = %self.ends.client,
                    "a connection was reset: what came isn't the HTTP that the Service's appProtocol or \
                     port name says; appProtocol: tcp passes anything"
                );
            }
        }
    }

    /// As [`tcp::greet`], for as long as the connection may stay.
    async fn greet(
        &self,
        detector: &mut Detector,
        io: &mut TunnelIo,
        guard: &ConnectionGuard,
    ) -> Option<First> {
        let token = guard.token();
        tokio::select! {
            first = tcp::greet(self, detector, io) => first,
            () = token.cancelled() => None,
            () = self.waypoint.core.drained_for(http::LAST_REQUEST) => None,
        }
    }

    /// Nothing is known yet of what it is about that could be reported.
    fn refused(&self, error: &RegisterError) {
        match error.outcome() {
            Outcome::Refused(refusal) => self.waypoint.core.metrics.connection_refused(&refusal),
            Outcome::Complete | Outcome::Denied(_) | Outcome::Failed { .. } => {
                let client = &self.ends.client;
                tracing::warn!(%client, "a connection isn't taken: {error}");
            }
        }
    }

    /// Enters it as open.
    fn register(&self, snapshot: &Snapshot) -> Result<ConnectionGuard, RegisterError> {
        let service = self.asked.service();
        let open = OpenConnection {
            reporter: Reporter::Waypoint,
            source_identity: Some(self.ends.client.clone()),
            source: self.source.clone(),
            source_address: self.source_address,
            destination: None,
            destination_address: self.asked.address(),
            service: service.map(|it| it.name.clone()),
            waypoint: Some(self.waypoint.gateway.clone()),
            decided: Decided::ByRequest,
            transfer: Arc::default(),
        };
        let connections = &self.waypoint.core.connections;
        connections.register(open, snapshot)
    }
}

/// Who asked for what there isn't.
struct Unknown<'a> {
    waypoint: &'a Waypoint,
    ends: &'a Ends,
    source: Option<Arc<Workload>>,
    source_address: SocketAddr,
}

impl Unknown<'_> {
    async fn refuse(self, request: TunnelRequest, error: Error) {
        let address = match request.authority() {
            Authority::Address(address) => *address,
            Authority::Host { port, .. } => SocketAddr::new(self.ends.peer.ip(), *port),
        };
        let described = Described {
            waypoint: self.waypoint,
            client: &self.ends.client,
            source: self.source,
            source_address: self.source_address,
            address,
            service: None,
            target: None,
        };
        let metrics = &self.waypoint.core.metrics;
        let report = ConnectionReport::open(metrics, described.description(), Arc::default());
        request.refuse(error.status(), &error.to_string()).await;
        finish(report, &Err(error));
    }
}
