//! Port 15008: tunnels from other agents, and the streams in them.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;

use super::{
    Proxy, baggage,
    connections::{ConnectionGuard, OpenConnection, RegisterError},
    copy::{TcpSide, copy_tunnel},
    dial,
    error::{Error, ended, finish},
    log_dry_run,
    route::TUNNEL_PORT,
    tunnels::TunnelRequest,
};
use crate::{
    channel::ChannelStream,
    direct,
    discovery::{model::Workload, store::Snapshot},
    hbone::{Authority, server},
    identity::{Identity, tls::Accepted},
    policy::{self, Connection},
    telemetry::{ConnectionDescription, ConnectionReport, Reporter, Transfer},
};

/// Ports of the agent itself, which no stream may ask for: it would come back to us.
const OWN_PORTS: [u16; 3] = [15001, 15006, TUNNEL_PORT];

/// Serves one tunnel from accept to close.
pub(super) async fn serve(proxy: Arc<Proxy>, stream: TcpStream) {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
        return;
    };
    let (peer, local) = (super::canonical(peer), super::canonical(local));

    // Whoever connects gets as far as a handshake; a tunnel's place is for who has proven to be
    // somebody.
    let handshake = match proxy.admission.handshake(peer.ip()) {
        Ok(place) => place,
        Err(refused) => return proxy.admission.log(peer.ip(), &refused),
    };

    // Whose certificate: a connection that was captured on its way to a pod is for that pod.
    let captured_for = proxy.local_workload(&proxy.store.snapshot(), local.ip());
    let expected = captured_for.as_ref().map(|workload| &workload.identity);
    let protocols = proxy.admission.protocols();
    let accepted = proxy
        .server_certificates
        .accept(stream, expected, protocols);
    let Accepted {
        channel,
        is_direct,
        client,
        server,
    } = match accepted.await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::warn!(%peer, %local, "tunnel refused: {error}");
            return;
        }
    };
    drop(handshake);
    let _place = match proxy.admission.tunnel() {
        Ok(place) => place,
        Err(refused) => return proxy.admission.log(peer.ip(), &refused),
    };
    tracing::debug!(%peer, %client, %server, "tunnel accepted");

    // From here on client and server are known, each by a certificate.
    let _open = proxy.metrics.inbound_tunnel_opened();
    let tunnel = Arc::new(Tunnel {
        proxy: proxy.clone(),
        client,
        server,
        peer,
    });
    let drain = proxy.drain.clone();
    let ended = if is_direct {
        let handler = |request| stream_in(tunnel.clone(), TunnelRequest::Direct(request));
        direct::serve(channel, handler, drain)
            .await
            .map_err(|error| error.to_string())
    } else {
        let handler = |request| {
            stream_in(
                tunnel.clone(),
                TunnelRequest::Multiplexed(Box::new(request)),
            )
        };
        let stream = ChannelStream::new(*channel);
        let served = Box::pin(server::serve(
            stream,
            &proxy.tunnel_settings,
            handler,
            drain,
        ))
        .await;
        served.map_err(|error| error.to_string())
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, "tunnel ended: {error}");
    }
}

/// What holds for every stream of a tunnel.
struct Tunnel {
    proxy: Arc<Proxy>,
    client: Identity,
    server: Identity,
    peer: SocketAddr,
}

async fn stream_in(tunnel: Arc<Tunnel>, request: TunnelRequest) {
    let snapshot = tunnel.proxy.store.snapshot();
    let (source_address, source) = tunnel.source(&snapshot, &request);
    let destination = tunnel.destination(&snapshot, request.authority());
    let address = match request.authority() {
        Authority::Address(address) => *address,
        Authority::Host { port, .. } => SocketAddr::new(tunnel.peer.ip(), *port),
    };
    let transfer = Arc::<Transfer>::default();
    let report = ConnectionReport::open(
        &tunnel.proxy.metrics,
        ConnectionDescription {
            reporter: Reporter::Destination,
            source: source.clone(),
            source_identity: Some(tunnel.client.clone()),
            source_address,
            destination: destination.as_ref().ok().cloned(),
            destination_identity: Some(tunnel.server.clone()),
            destination_address: address,
            hbone_address: None,
            service: None,
            secured: true,
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
    /// The client's own address. The other agent says it in a header, which is believed only
    /// where the workload with that address has the identity that the tunnel has proven.
    fn source(
        &self,
        snapshot: &Snapshot,
        request: &TunnelRequest,
    ) -> (SocketAddr, Option<Arc<Workload>>) {
        let claimed = request.headers().forwarded.as_ref().map(|forwarded| {
            SocketAddr::new(forwarded.address, forwarded.port.unwrap_or_default())
        });
        for address in claimed.into_iter().chain([self.peer]) {
            let workload = snapshot.workload_by_address(address.ip());
            if let Some(workload) = workload.filter(|w| w.identity == self.client) {
                return (address, Some(workload.clone()));
            }
        }
        (self.peer, None)
    }

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
        if workload.identity != self.server {
            return Err(Error::OtherIdentity {
                tunnel: Box::new(self.server.clone()),
                address,
                workload: Box::new(workload.identity.clone()),
            });
        }
        Ok(workload)
    }
}

/// One stream whose client and destination are known.
struct Stream {
    tunnel: Arc<Tunnel>,
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
            source: Some(&self.tunnel.client),
            source_address: self.source_address.ip(),
            destination,
            destination_address: self.address,
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
            .accept(baggage(destination, &self.tunnel.proxy.cluster))
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
            source_identity: Some(self.tunnel.client.clone()),
            source: self.source.clone(),
            source_address: self.source_address,
            destination: Some(destination.clone()),
            destination_address: self.address,
            service: None,
            transfer: self.transfer.clone(),
        };
        self.tunnel
            .proxy
            .connections
            .register(connection, &self.snapshot)
    }
}
