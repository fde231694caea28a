//! Connections between pods of this node that pass without the agent: it hears of them when they open
//! and close, and ends those that a change forbids.

mod serve;

use std::{
    collections::HashMap,
    io, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use ambit_common::{
    map::FlowKey,
    passed::{CLIENT, Done, EVENT_CLOSED, EVENT_OPENED, Event, SERVER},
};
use tokio::{
    sync::oneshot,
    time::{self, MissedTickBehavior},
};

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

/// For how long a connection is given to end before a task follows it. Most do, and are reported in one go: a
/// task for each would cost more than all else.
const SHORT: Duration = Duration::from_millis(20);

/// Connections of which the end is awaited, by their client.
type Open = HashMap<FlowKey, OpenPass>;

/// What was told to have opened, and isn't followed yet.
#[derive(Default)]
struct Opened {
    /// Since it was settled last.
    new: HashMap<Pass, Told>,
    /// Before.
    waiting: HashMap<Pass, Told>,
}

impl Opened {
    fn remove(&mut self, pass: &Pass) {
        if self.new.remove(pass).is_none() {
            self.waiting.remove(pass);
        }
    }

    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.waiting.is_empty()
    }

    /// Those that have waited; the others wait from now on.
    fn settle(&mut self) -> HashMap<Pass, Told> {
        mem::replace(&mut self.waiting, mem::take(&mut self.new))
    }
}

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
    let mut follower = Follower {
        proxy: proxy.clone(),
        open: Open::new(),
        opened: Opened::default(),
    };
    let mut settle = time::interval(SHORT);
    settle.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = time::interval(LOOK);
    let mut heartbeat = time::interval(HEARTBEAT);
    // What an earlier agent allowed may be allowed no longer.
    renew(&proxy);
    loop {
        tokio::select! {
            () = proxy.retired.cancelled() => return Ok(()),
            told = events.next() => follower.happened(&told?),
            _ = settle.tick(), if !follower.opened.is_empty() => follower.settle(),
            _ = heartbeat.tick() => if let Err(error) = proxy.passes.beat() {
                tracing::error!("connections may stop to pass from pod to pod: {error}");
            },
            _ = look.tick() => follower.look_for(SETTLED).await,
            // Those that nobody told of may be forbidden by now as well.
            () = proxy.renewed.notified() => follower.look_for(Duration::ZERO).await,
        }
    }
}

struct Follower {
    proxy: Arc<Proxy>,
    open: Open,
    opened: Opened,
}

impl Follower {
    /// What was told, in order.
    fn happened(&mut self, events: &[Event]) {
        for event in events {
            let told = Told::by(event);
            match event.kind {
                EVENT_OPENED => {
                    self.opened.new.insert(told.pass, told);
                }
                EVENT_CLOSED => {
                    let lasted = Duration::from_nanos(event.at.saturating_sub(event.since));
                    self.ended(&told, [event.client, event.server], lasted);
                }
                _ => {}
            }
        }
    }

    /// Follows those that haven't ended quickly.
    fn settle(&mut self) {
        for told in self.opened.settle().into_values() {
            self.begin(told);
        }
    }

    fn begin(&mut self, told: Told) {
        let pass = told.pass;
        if self.of(&pass).is_some() {
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
        self.open.insert(pass.flow, entry);
        let served = serve(self.proxy.clone(), told, transfer, awaited);
        self.proxy.tasks.spawn(served);
    }

    /// Both ends are closed, and the kernel has forgotten the connection, or is about to. Perhaps nobody told
    /// that it had opened, or told an agent that isn't any more.
    fn ended(&mut self, told: &Told, done: [Done; 2], lasted: Duration) {
        let pass = &told.pass;
        self.opened.remove(pass);
        if self.of(pass).is_some()
            && let Some(entry) = self.open.remove(&pass.flow)
        {
            count(&entry.transfer, done);
            // Who waited may have ended the connection itself.
            let _ = entry.closed.send(());
        } else {
            report_ended(&self.proxy, told, done, lasted);
        }
    }

    fn of(&mut self, pass: &Pass) -> Option<&mut OpenPass> {
        let entry = self.open.get_mut(&pass.flow)?;
        (entry.since == pass.since).then_some(entry)
    }

    /// Finds connections by what the kernel remembers, and asks the pods' sockets how far they are.
    async fn look_for(&mut self, settled: Duration) {
        self.open.retain(|_, entry| !entry.closed.is_closed());
        let kernel = self.proxy.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let snapshot = kernel.store.snapshot();
            let remembered = kernel.passes.list();
            let old = remembered
                .values()
                .filter(|told| told.pass.age() >= settled);
            let looked: Vec<_> = old
                .map(|told| (*told, ends(&kernel, &snapshot, &told.pass)))
                .collect();
            (remembered, looked)
        });
        let Ok((remembered, looked)) = looked.await else {
            return;
        };
        self.open.retain(|flow, entry| {
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
                self.end(&told);
                continue;
            }
            // Before that it's only asked for.
            if ends[1].is_some() {
                self.begin(told);
            }
            if let Some(entry) = self.of(&told.pass) {
                raise(&entry.transfer, ends);
            }
        }
    }

    /// Neither pod has a socket for a connection that the kernel remembered.
    fn end(&mut self, told: &Told) {
        let Some(end) = self.proxy.passes.end(&told.pass) else {
            // It has told of it meanwhile.
            return;
        };
        if end.was_connected || self.of(&told.pass).is_some() {
            self.ended(told, end.done, told.pass.age());
        }
        // Perhaps it lives where no look-up finds it: then its packets meet the agent.
        self.proxy.passes.cut(&told.pass);
    }
}

/// By what client and server have done until they were closed.
fn count(transfer: &Transfer, [client, server]: [Done; 2]) {
    transfer.raise_received(client.sent);
    transfer.raise_sent(server.sent);
    transfer.measured(client.path);
    transfer.measured(server.path);
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
