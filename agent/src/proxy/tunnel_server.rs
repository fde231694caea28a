//! Tunnels from other agents, from accept to close, for whoever serves the streams in them.

use std::{future::Future, net::SocketAddr, sync::Arc, time::SystemTime};

use tokio::{net::TcpStream, time};

use super::{core::Core, tunnels::TunnelRequest};
use crate::{
    channel::ChannelStream,
    direct,
    discovery::{model::Workload, store::Snapshot},
    hbone::{RequestHeaders, server},
    identity::{Identity, tls::Accepted},
};

/// What holds for every stream of a tunnel: who is at its ends, each known by a certificate.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) client: Identity,
    pub(crate) server: Identity,
    /// Where the tunnel comes from.
    pub(crate) peer: SocketAddr,
}

/// Serves one tunnel. `expected` says whose certificate to show, if the address that the client
/// connected to tells; else the client must name somebody.
pub(crate) async fn serve<Done>(
    core: &Core,
    stream: TcpStream,
    expected: impl FnOnce(SocketAddr) -> Option<Identity>,
    handler: impl Fn(Arc<Ends>, TunnelRequest) -> Done,
) where
    Done: Future<Output = ()> + Send + 'static,
{
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
        return;
    };
    let (peer, local) = (super::canonical(peer), super::canonical(local));

    // Whoever connects gets as far as a handshake; a tunnel's place is for who has proven to be
    // somebody.
    let handshake = match core.admission.handshake(peer.ip()) {
        Ok(place) => place,
        Err(refused) => return core.admission.refused(&core.metrics, peer.ip(), &refused),
    };

    let expected = expected(local);
    let protocols = core.admission.protocols();
    let accepted = core
        .server_certificates
        .accept(stream, expected.as_ref(), protocols);
    // A tunnel lasts, and its task is as large as the largest of what it waits for.
    let accepted = Box::pin(accepted);
    let Accepted {
        channel,
        is_direct,
        client,
        server,
        until,
    } = match accepted.await {
        Ok(accepted) => accepted,
        Err(error) => {
            core.admission.failed(&core.metrics, [peer, local], &error);
            return;
        }
    };
    drop(handshake);
    let _place = match core.admission.tunnel() {
        Ok(place) => place,
        Err(refused) => return core.admission.refused(&core.metrics, peer.ip(), &refused),
    };
    tracing::debug!(%peer, %client, %server, "tunnel accepted");

    // From here on client and server are known, each by a certificate.
    let _open = core.metrics.inbound_tunnel_opened();
    let ends = Arc::new(Ends {
        client,
        server,
        peer,
    });
    // Also closed to new connections when what was proven holds no longer.
    let closed = core.closed.child_token();
    let drain = closed.clone();
    let serving = async {
        if is_direct {
            let handler = |request| handler(ends.clone(), TunnelRequest::Direct(request));
            let served = direct::serve(channel, handler, drain);
            return served.await.map_err(|error| error.to_string());
        }
        let handler = |request| {
            let request = TunnelRequest::Multiplexed(Box::new(request));
            handler(ends.clone(), request)
        };
        let stream = ChannelStream::new(*channel);
        let served = server::serve(stream, &core.tunnel_settings, handler, drain);
        Box::pin(served).await.map_err(|error| error.to_string())
    };
    let mut serving = Box::pin(serving);
    let life = until.duration_since(SystemTime::now()).unwrap_or_default();
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = time::sleep(life) => {
            closed.cancel();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, "tunnel ended: {error}");
    }
}

impl Ends {
    /// The client's own address. The other agent says it in a header, which is believed only
    /// where the workload with that address has the identity that the tunnel has proven.
    pub(crate) fn source(
        &self,
        snapshot: &Snapshot,
        headers: &RequestHeaders,
    ) -> (SocketAddr, Option<Arc<Workload>>) {
        let claimed = headers.forwarded.as_ref().map(|forwarded| {
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
}
