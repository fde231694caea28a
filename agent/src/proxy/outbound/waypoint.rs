//! By way of a waypoint.

use std::{net::SocketAddr, sync::Arc};

use super::{Exchange, describe, find, unroutable};
use crate::{
    discovery::model::Waypoint,
    hbone::Authority,
    proxy::{
        connections::ConnectionGuard,
        copy::{ResetOnDrop, TcpSide, copy_tunnel},
        error::{Error, ended, finish},
        route::{MissingWaypoint, NoRoute, Route},
        tunnels::TunnelStream,
    },
    telemetry::{ConnectionReport, Reporter, Transfer},
};

impl Exchange {
    /// The waypoint decides: the first of its processes that takes connections.
    pub(super) async fn waypoint(&mut self, mut client: ResetOnDrop) {
        let mut out_of_reach = Vec::new();
        while let Route::Waypoint { waypoint, via, .. } = self.request.route.clone() {
            match self.through(client, &waypoint, via).await {
                Some(unserved) => client = unserved,
                None => return,
            }
            out_of_reach.push(via);
            if !self.find_other(&out_of_reach) {
                return;
            }
        }
        Box::pin(self.directly(client)).await;
    }

    /// By one process of it. The client's connection again, if that takes none: nothing was sent yet.
    async fn through(
        &self,
        client: ResetOnDrop,
        waypoint: &Waypoint,
        via: SocketAddr,
    ) -> Option<ResetOnDrop> {
        let mut description = describe(&self.source, self.peer, via, Some(&self.request));
        description.hbone_address = Some(self.request.address);
        description.destination_identity = Some(waypoint.identity.clone());
        description.secured = true;
        let transfer = Arc::<Transfer>::default();
        let report = ConnectionReport::open(&self.proxy.metrics, description, transfer.clone());
        let (guard, stream) = match self
            .open_waypoint(waypoint, via, (&client, &transfer))
            .await
        {
            Ok(opened) => opened,
            Err(error) => {
                let is_out_of_reach = error.is_out_of_reach();
                finish(report, &Err(error));
                return is_out_of_reach.then_some(client);
            }
        };
        let copied = copy_tunnel(client, TcpSide::Client, stream, &transfer, guard.token()).await;
        finish(report, &ended(&guard, copied));
        None
    }

    async fn open_waypoint(
        &self,
        waypoint: &Waypoint,
        via: SocketAddr,
        (client, transfer): (&ResetOnDrop, &Arc<Transfer>),
    ) -> Result<(ConnectionGuard, TunnelStream), Error> {
        let guard = self.register(Reporter::Source, transfer)?;
        let authority = match &self.request.service {
            Some(service) if self.request.route.workload().is_none() => Authority::Host {
                host: self.host(service).into(),
                port: self.request.address.port(),
            },
            _ => Authority::Address(self.request.address),
        };
        let end = (&waypoint.identity, &waypoint.uid);
        let opening = self.open_stream(end, via, &authority, (client, transfer));
        let stream = Box::pin(guard.unless_closed(opening)).await??;
        Ok((guard, stream))
    }

    /// Finds another way than to where no process of the waypoint takes connections. Whether there is one.
    fn find_other(&mut self, out_of_reach: &[SocketAddr]) -> bool {
        let ends = (self.peer, self.original);
        match find(
            &self.proxy,
            &self.snapshot,
            &self.source,
            ends,
            out_of_reach,
        ) {
            Ok(request) => {
                self.request = request;
                return true;
            }
            // Why was reported with the last of them.
            Err(NoRoute::NoWaypoint { waypoint }) => {
                let decision = MissingWaypoint::Deny.as_str();
                self.proxy.metrics.waypoint_missing(&waypoint, decision);
            }
            Err(error) => unroutable(&self.proxy, &self.source, ends, error),
        }
        false
    }
}
