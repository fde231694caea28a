//! Connections between pods of this node that pass without the agent: it hears of them when they open
//! and close, and ends those that a change forbids.

use std::{
    collections::HashMap,
    convert::Infallible,
    future, io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use ambit_common::{
    map::FlowKey,
    passed::{CLIENT, EVENT_CLIENT_CLOSED, EVENT_OPENED, EVENT_SERVER_CLOSED, Event, SERVER},
};
use tokio::{
    sync::oneshot,
    time::{self, Instant},
};

use super::{
    Proxy,
    connections::{CloseReason, Decided, OpenConnection, RegisterError},
    error::{Error, finish},
    follow::renew,
    route,
};
use crate::{
    capture::passed::{Events, Pass},
    discovery::{
        model::{Service, Workload},
        store::Snapshot,
    },
    policy::{self, Connection},
    splice::{self, Joined},
    telemetry::{ConnectionDescription, ConnectionReport, Reporter, Transfer},
};

/// How often open connections are looked at: what has gone over them, and whether there are some that
/// nobody told of, or whose end nobody told of (an event was lost, or no agent was there).
const LOOK: Duration = Duration::from_secs(5);

/// How old a connection must be to be looked for: it may be about to be told of.
const SETTLED: Duration = Duration::from_secs(3);

/// Says that the agent lives, for as long as it does.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Connections of which the end is awaited, by their client.
type Open = HashMap<FlowKey, OpenPass>;

struct OpenPass {
    since: u64,
    transfer: Arc<Transfer>,
    /// The ends of which it wasn't told yet that they are closed: [`CLIENT`], [`SERVER`].
    open_ends: u32,
    /// When the kernel was first seen not to remember it.
    missing: Option<Instant>,
    closed: oneshot::Sender<()>,
}

/// Follows what is told until the proxy is retired: what passes goes on, and the next agent, which may run
/// already, is told.
///
/// # Errors
/// The events can't be waited for.
pub(super) async fn follow(proxy: Arc<Proxy>, mut events: Events) -> io::Result<()> {
    let mut open = Open::new();
    let mut look = time::interval(LOOK);
    let mut heartbeat = time::interval(HEARTBEAT);
    // What an earlier agent allowed may be allowed no longer.
    renew(&proxy);
    loop {
        tokio::select! {
            () = proxy.retired.cancelled() => return Ok(()),
            told = events.next() => for event in told? {
                happened(&proxy, &mut open, &event);
            },
            _ = heartbeat.tick() => if let Err(error) = proxy.passes.beat() {
                tracing::error!("connections may stop to pass from pod to pod: {error}");
            },
            _ = look.tick() => look_for(&proxy, &mut open, SETTLED).await,
            // Those that nobody told of may be forbidden by now as well.
            () = proxy.renewed.notified() => look_for(&proxy, &mut open, Duration::ZERO).await,
        }
    }
}

fn happened(proxy: &Arc<Proxy>, open: &mut Open, event: &Event) {
    let pass = Pass {
        flow: event.flow,
        since: event.since,
    };
    match event.kind {
        EVENT_OPENED => begin(proxy, open, pass),
        EVENT_CLIENT_CLOSED => end(proxy, open, &pass, CLIENT, event),
        EVENT_SERVER_CLOSED => end(proxy, open, &pass, SERVER, event),
        _ => {}
    }
}

fn begin(proxy: &Arc<Proxy>, open: &mut Open, pass: Pass) {
    if of(open, &pass).is_some() {
        return;
    }
    let (closed, awaited) = oneshot::channel();
    let transfer = Arc::<Transfer>::default();
    let entry = OpenPass {
        since: pass.since,
        transfer: transfer.clone(),
        open_ends: CLIENT | SERVER,
        missing: None,
        closed,
    };
    open.insert(pass.flow, entry);
    proxy
        .tasks
        .spawn(serve(proxy.clone(), pass, transfer, awaited));
}

/// One end is closed: so it was told by a program that knows sockets by their addresses alone. A pod can
/// have a namespace of its own below, with sockets of any addresses in it; so the pod's own namespace is
/// asked, and what isn't so is passed over.
fn end(proxy: &Proxy, open: &mut Open, pass: &Pass, end: u32, event: &Event) {
    // One that isn't known to be open is found by looking.
    let Some(entry) = of(open, pass) else {
        return;
    };
    let is_told = entry.open_ends & end == 0;
    if is_told || asked(proxy, &proxy.store.snapshot(), pass, end).is_some() {
        return;
    }
    entry.open_ends &= !end;
    entry.transfer.measured(event.path);
    match end {
        CLIENT => entry.transfer.raise_received(event.sent),
        _ => entry.transfer.raise_sent(event.sent),
    }
    if entry.open_ends == 0 {
        close(open, pass);
        proxy.passes.forget(pass);
    }
}

fn close(open: &mut Open, pass: &Pass) {
    if of(open, pass).is_some()
        && let Some(entry) = open.remove(&pass.flow)
    {
        // Who waited may have ended the connection itself.
        let _ = entry.closed.send(());
    }
}

fn of<'a>(open: &'a mut Open, pass: &Pass) -> Option<&'a mut OpenPass> {
    let entry = open.get_mut(&pass.flow)?;
    (entry.since == pass.since).then_some(entry)
}

/// Finds connections by what the kernel remembers, and asks the pods' sockets how far they are.
async fn look_for(proxy: &Arc<Proxy>, open: &mut Open, settled: Duration) {
    open.retain(|_, entry| !entry.closed.is_closed());
    let kernel = proxy.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let snapshot = kernel.store.snapshot();
        let passes = kernel.passes.list();
        let old = passes.iter().filter(|pass| pass.age() >= settled);
        let looked: Vec<_> = old
            .map(|pass| (*pass, ends(&kernel, &snapshot, pass)))
            .collect();
        (passes, looked)
    });
    let Ok((remembered, looked)) = looked.await else {
        return;
    };
    open.retain(|flow, entry| {
        let (flow, since) = (*flow, entry.since);
        if remembered.contains(&Pass { flow, since }) {
            entry.missing = None;
            return true;
        }
        // That it has ended is told later, or was lost before another with its addresses was carried.
        entry.missing.get_or_insert_with(Instant::now).elapsed() < SETTLED
    });
    for (pass, ends) in looked {
        if ends == [None, None] {
            close(open, &pass);
            // Perhaps it lives where no look-up finds it: then its packets meet the agent.
            proxy.passes.cut(&pass);
            continue;
        }
        // Before that it's only asked for.
        if ends[1].is_some() {
            begin(proxy, open, pass);
        }
        if let Some(entry) = of(open, &pass) {
            raise(&entry.transfer, ends);
        }
    }
}

/// By what client and server have sent.
fn raise(transfer: &Transfer, [client, server]: [Option<u64>; 2]) {
    transfer.raise_received(client.unwrap_or(0));
    transfer.raise_sent(server.unwrap_or(0));
}

/// What client and server have sent, as far as they have a socket.
fn ends(proxy: &Proxy, snapshot: &Snapshot, pass: &Pass) -> [Option<u64>; 2] {
    [CLIENT, SERVER].map(|end| asked(proxy, snapshot, pass, end))
}

/// What one end has sent, if it has a socket.
fn asked(proxy: &Proxy, snapshot: &Snapshot, pass: &Pass, end: u32) -> Option<u64> {
    let address = match end {
        CLIENT => pass.client(),
        _ => pass.server(),
    };
    let pod = proxy.local_client(snapshot, address.ip());
    match pod.and_then(|pod| proxy.bound.namespace(&pod.uid)) {
        Some(namespace) => proxy.passes.sent(pass, end, namespace),
        // It can't be asked: what is of no pod is ended by whoever serves it.
        None => Some(0),
    }
}

/// One connection, from when it was told of to its end.
async fn serve(
    proxy: Arc<Proxy>,
    pass: Pass,
    transfer: Arc<Transfer>,
    closed: oneshot::Receiver<()>,
) {
    let snapshot = proxy.store.snapshot();
    let source = proxy.local_client(&snapshot, pass.client().ip());
    let destination = proxy.local_workload(&snapshot, pass.server().ip());
    let (Some(source), Some(destination)) = (source, destination) else {
        proxy.passes.revoke(&pass);
        return;
    };
    let service = proxy.passes.service(&pass);
    let service = service
        .and_then(|vip| snapshot.service_by_vip(vip))
        .cloned();
    // A connection to an endpoint that the balancer chooses among.
    let _load = service.as_ref().map(|_| proxy.load.count(pass.server()));
    let description = ConnectionDescription {
        reporter: Reporter::Source,
        source: Some(source.clone()),
        source_identity: Some(source.identity.clone()),
        source_address: pass.client(),
        secured: true,
        passed: true,
        destination: Some(destination.clone()),
        destination_identity: Some(destination.identity.clone()),
        destination_address: pass.server(),
        hbone_address: None,
        service: service.clone(),
        waypoint: None,
    };
    let reports = ConnectionReport::open_both(&proxy.metrics, &description, &transfer);
    let pair = Pair {
        source,
        destination,
        service,
    };
    let spliced = OnceLock::new();
    let result = watch(&proxy, &snapshot, &pass, pair, &transfer, closed, &spliced).await;
    if !matches!(result, Ok(()) | Err(Error::LeftAlone)) {
        raise(&transfer, ends(&proxy, &snapshot, &pass));
        spliced.get().inspect(|joined| joined.part());
        proxy.passes.revoke(&pass);
    }
    for report in reports {
        finish(report, &result);
    }
}

struct Pair {
    source: Arc<Workload>,
    destination: Arc<Workload>,
    /// What the client connected to, if that is one.
    service: Option<Arc<Service>>,
}

async fn watch(
    proxy: &Proxy,
    snapshot: &Snapshot,
    pass: &Pass,
    pair: Pair,
    transfer: &Arc<Transfer>,
    closed: oneshot::Receiver<()>,
    spliced: &OnceLock<Joined>,
) -> Result<(), Error> {
    // What the kernel let pass was decided once; it is decided again by what is known now.
    let connection = Connection {
        source: Some(&pair.source.identity),
        source_address: pass.client().ip(),
        destination: &pair.destination,
        destination_address: pass.server(),
        through: snapshot.through(Some(&pair.source.identity), &pair.destination),
        request: None,
    };
    let _ = policy::evaluate(snapshot.policies(), &connection)?;
    super::log_dry_run(snapshot, &connection);
    let open = OpenConnection {
        reporter: Reporter::Destination,
        source_identity: Some(pair.source.identity.clone()),
        source: Some(pair.source.clone()),
        source_address: pass.client(),
        destination: Some(pair.destination.clone()),
        destination_address: pass.server(),
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
        never = splice(proxy, pass, &pair, spliced) => match never {},
    }
    Ok(())
}

/// Has the connection's bytes go past TCP. Never over.
async fn splice(proxy: &Proxy, pass: &Pass, pair: &Pair, spliced: &OnceLock<Joined>) -> Infallible {
    if pair.source.exclusions.no_splice || pair.destination.exclusions.no_splice {
        return future::pending().await;
    }
    let ends = || {
        let client = proxy.bound.namespace(&pair.source.uid)?;
        let server = proxy.bound.namespace(&pair.destination.uid)?;
        Some([(pass.client(), client), (pass.server(), server)])
    };
    if let Some(joined) = splice::join_between(ends).await {
        let _ = spliced.set(joined);
    }
    future::pending().await
}
