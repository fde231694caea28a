//! Connections between pods of this node that pass without the agent: it hears of them when they open
//! and close, and ends those that a change forbids.

mod serve;

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use ambit_common::{
    map::FlowKey,
    passed::{CLIENT, Done, EVENT_CLOSED, EVENT_OPENED, Event, SERVER},
};
use tokio::{sync::oneshot, time};

use self::serve::{report_ended, serve};
use super::{Proxy, follow::renew};
use crate::{
    capture::passed::{Events, Pass, Told},
    discovery::store::Snapshot,
    telemetry::Transfer,
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
            told = events.next() => happened(&proxy, &mut open, &told?),
            _ = heartbeat.tick() => if let Err(error) = proxy.passes.beat() {
                tracing::error!("connections may stop to pass from pod to pod: {error}");
            },
            _ = look.tick() => look_for(&proxy, &mut open, SETTLED).await,
            // Those that nobody told of may be forbidden by now as well.
            () = proxy.renewed.notified() => look_for(&proxy, &mut open, Duration::ZERO).await,
        }
    }
}

/// What was told, in order. A connection that has ended by now is reported at once: most are that short, and
/// a task for each would cost more than all else.
fn happened(proxy: &Arc<Proxy>, open: &mut Open, events: &[Event]) {
    let mut opened = HashMap::new();
    for event in events {
        let told = Told::by(event);
        match event.kind {
            EVENT_OPENED => {
                opened.insert(told.pass, told);
            }
            EVENT_CLOSED => {
                opened.remove(&told.pass);
                ended(proxy, open, &told, event);
            }
            _ => {}
        }
    }
    for told in opened.into_values() {
        begin(proxy, open, told);
    }
}

fn begin(proxy: &Arc<Proxy>, open: &mut Open, told: Told) {
    let pass = told.pass;
    if of(open, &pass).is_some() {
        return;
    }
    let (closed, awaited) = oneshot::channel();
    let transfer = Arc::<Transfer>::default();
    let entry = OpenPass {
        since: pass.since,
        transfer: transfer.clone(),
        missing: None,
        closed,
    };
    open.insert(pass.flow, entry);
    proxy
        .tasks
        .spawn(serve(proxy.clone(), told, transfer, awaited));
}

/// Both ends are closed, and the kernel has forgotten the connection. Perhaps nobody told that it had opened,
/// or told an agent that isn't any more.
fn ended(proxy: &Proxy, open: &mut Open, told: &Told, event: &Event) {
    let done = [event.client, event.server];
    match of(open, &told.pass) {
        Some(entry) => {
            count(&entry.transfer, done);
            close(open, &told.pass);
        }
        None => report_ended(proxy, told, done, event.at),
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

/// By what client and server have done until they were closed.
fn count(transfer: &Transfer, [client, server]: [Done; 2]) {
    transfer.raise_received(client.sent);
    transfer.raise_sent(server.sent);
    transfer.measured(client.path);
    transfer.measured(server.path);
}

/// Finds connections by what the kernel remembers, and asks the pods' sockets how far they are.
async fn look_for(proxy: &Arc<Proxy>, open: &mut Open, settled: Duration) {
    open.retain(|_, entry| !entry.closed.is_closed());
    let kernel = proxy.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let snapshot = kernel.store.snapshot();
        let remembered = kernel.passes.list();
        let old = remembered
            .values()
            .filter(|told| told.pass.age() >= settled);
        let looked: Vec<_> = old
            .map(|told| (told.clone(), ends(&kernel, &snapshot, &told.pass)))
            .collect();
        (remembered, looked)
    });
    let Ok((remembered, looked)) = looked.await else {
        return;
    };
    open.retain(|flow, entry| {
        let (flow, since) = (*flow, entry.since);
        if remembered.contains_key(&Pass { flow, since }) {
            entry.missing = None;
            return true;
        }
        // That it has ended is told later, or was lost before another with its addresses was carried.
        entry.missing.get_or_insert_with(Instant::now).elapsed() < SETTLED
    });
    for (told, ends) in looked {
        if ends == [None, None] {
            end(proxy, open, &told.pass);
            continue;
        }
        // Before that it's only asked for.
        if ends[1].is_some() {
            begin(proxy, open, told.clone());
        }
        if let Some(entry) = of(open, &told.pass) {
            raise(&entry.transfer, ends);
        }
    }
}

/// Neither pod has a socket for a connection that the kernel remembered.
fn end(proxy: &Proxy, open: &mut Open, pass: &Pass) {
    // If it doesn't any more, it has told of the end.
    let Some(done) = proxy.passes.done(pass) else {
        return;
    };
    if let Some(entry) = of(open, pass) {
        count(&entry.transfer, done);
    }
    close(open, pass);
    // Perhaps it lives where no look-up finds it: then its packets meet the agent.
    proxy.passes.cut(pass);
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
