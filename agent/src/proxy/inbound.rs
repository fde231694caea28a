//! Port 15008: tunnels from other agents, and the streams in them.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;

use super::{
    Proxy, baggage,
    connections::{ConnectionGuard, Decided, OpenConnection, RegisterError},
    copy::{TcpSide, copy_tunnel},
    dial,
    error::{Error, ended, finish},
    log_dry_run,
    route::TUNNEL_PORT,
    tunnel_server::{self, Ends},
    tunnels::TunnelRequest,
};
use crate::{
    direct::Answer,
    discovery::{model::Workload, store::Snapshot},
    hbone::Authority,
    policy::{self, Connection},
    telemetry::{ConnectionDescription, ConnectionReport, Reporter, Transfer},
};

/// Ports of the agent itself, which no stream may ask for: it would come back to us.
const OWN_PORTS: [u16; 3] = [15001, 15006, TUNNEL_PORT];

/// Serves one tunnel from accept to close.
pub(super) async fn serve(proxy: Arc<Proxy>, stream: TcpStream) {
    // Whose certificate: a connection that was captured on its way to a pod is for that pod.
    let captured_for = |local: SocketAddr| {
        let workload = proxy.local_workload(&proxy.store.snapshot(), local.ip());
        workload.map(|workload| workload.identity.clone())
    };
    let handler = |ends, request| {
        let tunnel = Tunnel {
            proxy: proxy.clone(),
            ends,
        };
        stream_in(tunnel, request)
    };
    tunnel_server::serve(&proxy, stream, captured_for, handler).await;
}

/// A tunnel of this node's agent.
struct Tunnel {
    proxy: Arc<Proxy>,
    ends: Arc<Ends>,
}

async fn stream_in(tunnel: Tunnel, request: TunnelRequest) {
    let snapshot = tunnel.proxy.store.snapshot();
    let (source_address, source) = tunnel.ends.source(&snapshot, request.headers());
    let destination = tunnel.destination(&snapshot, request.authority());
    let address = match request.authority() {
        Authority::Address(address) => *address,
        Authority::Host { port, .. } => SocketAddr::new(tunnel.ends.peer.ip(), *port),
    };
    let transfer = Arc::<Transfer>::default();
    let report = ConnectionReport::open(
        &tunnel.proxy.metrics,
        ConnectionDescription {
            reporter: Reporter::Destination,
            source: source.clone(),
            source_identity: Some(tunnel.ends.client.clone()),
            source_address,
            destination: destination.as_ref().ok().cloned(),
            destination_identity: Some(tunnel.ends.server.clone()),
            destination_address: address,
            hbone_address: None,
            service: None,
            secured: true,
            passed: false,
            waypoint: None,
        },
        transfer.clone(),
    );
    let stream = Stream {
        tunnel,
        snapshot,
        source,
        source_address,
        address,
        transfer,
    };
    let result = match destination {
        Ok(destination) => stream.carry(request, &destination).await,
        Err(error) => {
            request.refuse(error.status(), &error.to_string()).await;
            Err(error)
        }
    };
    finish(report, &result);
}

impl Tunnel {
    /// The pod that a stream asks for.
    fn destination(
        &self,
        snapshot: &Snapshot,
        authority: &Authority,
    ) -> Result<Arc<Workload>, Error> {
        let Authority::Address(address) = *authority else {
            return Err(Error::Name(authority.clone()));
        };
        if OWN_PORTS.contains(&address.port()) {
            return Err(Error::OwnPort(address.port()));
        }
        let workload = self
            .proxy
            .local_workload(snapshot, address.ip())
            .ok_or(Error::NotHere(address))?;
        if workload.identity != self.ends.server {
            return Err(Error::OtherIdentity {
                tunnel: Box::new(self.ends.server.clone()),
                address,
                workload: Box::new(workload.identity.clone()),
            });
        }
        Ok(workload)
    }
}

/// One stream whose client and destination are known.
struct Stream {
    tunnel: Tunnel,
    snapshot: Arc<Snapshot>,
    source: Option<Arc<Workload>>,
    source_address: SocketAddr,
    address: SocketAddr,
    transfer: Arc<Transfer>,
}

impl Stream {
    async fn carry(
        &self,
        request: TunnelRequest,
        destination: &Arc<Workload>,
    ) -> Result<(), Error> {
        // Allowed, and entered as open, before anything is dialled.
        let connection = Connection {
            source: Some(&self.tunnel.ends.client),
            source_address: self.source_address.ip(),
            destination,
            destination_address: self.address,
            through: self
                .snapshot
                .through(Some(&self.tunnel.ends.client), destination),
            request: None,
        };
        let decided = policy::evaluate(self.snapshot.policies(), &connection)
            .map_err(Error::from)
            .and_then(|permit| Ok((permit, self.register(destination)?)));
        let (permit, guard) = match decided {
            Ok(decided) => decided,
            Err(error) => {
                request.refuse(error.status(), &error.to_string()).await;
                return Err(error);
            }
        };
        log_dry_run(&self.snapshot, &connection);

        // The server sees the client's address only if we know it for the client's.
        let keep = self.source.as_ref().map(|_| self.source_address.ip());
        let dialled = Box::pin(guard.unless_closed(dial::to_pod(&permit, keep))).await;
        let server = match dialled
            .map_err(Error::from)
            .and_then(|dialled| Ok(dialled?))
        {
            Ok(server) => server,
            Err(error) => {
                request.refuse(error.status(), &error.to_string()).await;
                return Err(error);
            }
        };
        let server = server.with_pod(self.tunnel.proxy.splice_namespace(destination));
        let stream = request
            .accept(
                baggage(destination, &self.tunnel.proxy.cluster),
                Answer::WithData,
            )
            .await?;
        let copied = copy_tunnel(
            server,
            TcpSide::Server,
            stream,
            &self.transfer,
            guard.token(),
        )
        .await;
        ended(&guard, copied)
    }

    fn register(&self, destination: &Arc<Workload>) -> Result<ConnectionGuard, RegisterError> {
        let connection = OpenConnection {
            reporter: Reporter::Destination,
            source_identity: Some(self.tunnel.ends.client.clone()),
            source: self.source.clone(),
            source_address: self.source_address,
            destination: Some(destination.clone()),
            destination_address: self.address,
            service: None,
            waypoint: None,
            decided: Decided::ByServer,
            transfer: self.transfer.clone(),
        };
        self.tunnel
            .proxy
            .connections
            .register(connection, &self.snapshot)
    }
}
