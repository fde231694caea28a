//! One connection that passes: decided once more, reported, and ended if a change forbids it.

use std::{
    convert::Infallible,
    future,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use ambit_common::passed::Done;
use tokio::sync::oneshot;

use super::{count, ends, raise};
use crate::{
    capture::passed::{Pass, Told},
    discovery::{
        model::{Service, Workload},
        store::Snapshot,
    },
    policy::{self, Connection},
    proxy::{
        Proxy,
        connections::{CloseReason, Decided, OpenConnection, RegisterError},
        error::{Error, finish},
        log_dry_run, route,
    },
    splice::{self, Joined},
    telemetry::{ConnectionDescription, ConnectionReport, Reporter, Transfer},
};

/// Whose connection it is.
struct Pair {
    pass: Pass,
    source: Arc<Workload>,
    destination: Arc<Workload>,
    /// What the client connected to, if that is one.
    service: Option<Arc<Service>>,
}

impl Pair {
    /// `None` if one of its pods isn't here any more, or not enrolled.
    fn of(proxy: &Proxy, snapshot: &Snapshot, told: &Told) -> Option<Self> {
        let pass = told.pass;
        let service = told.service.and_then(|vip| snapshot.service_by_vip(vip));
        Some(Self {
            pass,
            source: proxy.local_client(snapshot, pass.client().ip())?,
            destination: proxy.local_workload(snapshot, pass.server().ip())?,
            service: service.cloned(),
        })
    }

    fn connection<'a>(&'a self, snapshot: &'a Snapshot) -> Connection<'a> {
        Connection {
            source: Some(&self.source.identity),
            source_address: self.pass.client().ip(),
            destination: &self.destination,
            destination_address: self.pass.server(),
            through: snapshot.through(Some(&self.source.identity), &self.destination),
            request: None,
        }
    }

    /// Counts it as opened that long ago.
    fn report(
        &self,
        proxy: &Proxy,
        transfer: &Arc<Transfer>,
        age: Duration,
    ) -> Vec<ConnectionReport> {
        let description = ConnectionDescription {
            reporter: Reporter::Source,
            source: Some(self.source.clone()),
            source_identity: Some(self.source.identity.clone()),
            source_address: self.pass.client(),
            secured: true,
            passed: true,
            destination: Some(self.destination.clone()),
            destination_identity: Some(self.destination.identity.clone()),
            destination_address: self.pass.server(),
            hbone_address: None,
            service: self.service.clone(),
            waypoint: None,
        };
        let now = Instant::now();
        let opened = now.checked_sub(age).unwrap_or(now);
        ConnectionReport::open_both(&proxy.metrics, description, transfer, opened)
    }
}

/// One that ended before it was followed.
pub(super) fn report_ended(proxy: &Proxy, told: &Told, done: [Done; 2], lasted: Duration) {
    let snapshot = proxy.store.snapshot();
    let Some(pair) = Pair::of(proxy, &snapshot, told) else {
        return;
    };
    let transfer = Arc::<Transfer>::default();
    count(&transfer, done);
    let reports = pair.report(proxy, &transfer, lasted);
    log_dry_run(&snapshot, &pair.connection(&snapshot));
    for report in reports {
        finish(report, &Ok(()));
    }
}

/// One connection, from when it was told of to its end.
pub(super) async fn serve(
    proxy: Arc<Proxy>,
    told: Told,
    transfer: Arc<Transfer>,
    closed: oneshot::Receiver<()>,
) {
    let pass = told.pass;
    let snapshot = proxy.store.snapshot();
    let Some(pair) = Pair::of(&proxy, &snapshot, &told) else {
        proxy.passes.revoke(&pass);
        return;
    };
    // A connection to an endpoint that the balancer chooses among.
    let _load = pair
        .service
        .as_ref()
        .map(|_| proxy.load.count(pass.server()));
    let reports = pair.report(&proxy, &transfer, pass.age());
    let spliced = OnceLock::new();
    let result = watch(&proxy, &snapshot, &pair, &transfer, closed, &spliced).await;
    if !matches!(result, Ok(()) | Err(Error::LeftAlone)) {
        raise(&transfer, ends(&proxy, &snapshot, &pass));
        spliced.get().inspect(|joined| joined.part());
        proxy.passes.revoke(&pass);
    }
    for report in reports {
        finish(report, &result);
    }
}

async fn watch(
    proxy: &Proxy,
    snapshot: &Snapshot,
    pair: &Pair,
    transfer: &Arc<Transfer>,
    closed: oneshot::Receiver<()>,
    spliced: &OnceLock<Joined>,
) -> Result<(), Error> {
    // What the kernel let pass was decided once; it is decided again by what is known now.
    let connection = pair.connection(snapshot);
    let _ = policy::evaluate(snapshot.policies(), &connection)?;
    log_dry_run(snapshot, &connection);
    let open = OpenConnection {
        reporter: Reporter::Destination,
        source_identity: Some(pair.source.identity.clone()),
        source: Some(pair.source.clone()),
        source_address: pair.pass.client(),
        destination: Some(pair.destination.clone()),
        destination_address: pair.pass.server(),
        service: pair.service.as_ref().map(|service| service.name.clone()),
        waypoint: None,
        decided: Decided::ByServer,
        transfer: transfer.clone(),
    };
    // It may have opened by what was allowed before a waypoint came into force.
    let (client, service) = (&pair.source.identity, pair.service.as_deref());
    if let Some(now) = route::waypoint_for(snapshot, client, service, Some(&pair.destination)) {
        let waypoint = now.name.clone();
        return Err(CloseReason::OtherWaypoint { waypoint }.into());
    }
    let guard = proxy.connections.register(open, snapshot)?;
    tokio::select! {
        // What has ended already isn't spliced.
        biased;
        // Dropped where another connection has its addresses by now: that it ended wasn't told.
        told = guard.unless_closed(closed) => told.map(drop).map_err(RegisterError::from)?,
        // The next agent finds it.
        () = proxy.retired.cancelled() => return Err(Error::LeftAlone),
        never = splice(proxy, pair, spliced) => match never {},
    }
    Ok(())
}

/// Has the connection's bytes go past TCP. Never over.
async fn splice(proxy: &Proxy, pair: &Pair, spliced: &OnceLock<Joined>) -> Infallible {
    if pair.source.exclusions.no_splice || pair.destination.exclusions.no_splice {
        return future::pending().await;
    }
    let ends = || {
        let client = proxy.bound.namespace(&pair.source.uid)?;
        let server = proxy.bound.namespace(&pair.destination.uid)?;
        Some([(pair.pass.client(), client), (pair.pass.server(), server)])
    };
    if let Some(joined) = splice::join_between(ends).await {
        let _ = spliced.set(joined);
    }
    future::pending().await
}
