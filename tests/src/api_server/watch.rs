//! Watches: what changes, a line for each change.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{self, Instant, MissedTickBehavior};

use super::{
    body::{Cut, Outgoing, Pieces},
    list::too_large,
    refusal::Refusal,
    request::Call,
    resources::Resource,
    selector::Selector,
    state::{Changes, Shared, State},
    storage::Change,
};

/// How often a watch that wants bookmarks has one. Kubernetes: about a minute.
const BOOKMARKS: Duration = Duration::from_secs(1);
/// How long a watch lasts that doesn't say. Kubernetes: 30 to 60 minutes.
const LONGEST: u64 = 1800;
/// How long half a line has to get to the client before the connection is cut.
const HALF_A_LINE: Duration = Duration::from_millis(30);

/// One watch.
struct Watch {
    call: Call,
    client: IpAddr,
    selector: Selector,
    bookmarks: bool,
    /// All changes up to this version were sent.
    position: u64,
    /// Of [`super::state::Faults::cuts`], as it was when the watch began.
    cuts: u64,
}

/// What comes next in a watch, and after how long.
struct Batch {
    lines: Vec<String>,
    delay: Duration,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    GoOn,
    End,
    Cut,
}

/// Starts a watch. To be called on a runtime.
pub(super) fn start(
    shared: &Arc<Shared>,
    call: &Call,
    client: IpAddr,
) -> Result<Outgoing, Refusal> {
    let seconds = call.query.number("timeoutSeconds")?;
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(LONGEST).min(LONGEST));
    // Before the first look, so that no change is between the two.
    let changes = shared.changes();
    let (watch, first) = Watch::open(&mut shared.state(), call, client)?;
    let (pieces, body) = Outgoing::pieces();
    tokio::spawn(follow(
        Arc::clone(shared),
        changes,
        watch,
        first,
        pieces,
        end,
    ));
    Ok(body)
}

async fn follow(
    shared: Arc<Shared>,
    mut changes: Changes,
    mut watch: Watch,
    first: Batch,
    pieces: Pieces,
    end: Instant,
) {
    let mut bookmarks = time::interval_at(Instant::now() + BOOKMARKS, BOOKMARKS);
    bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = first;
    loop {
        if batch.delay.is_zero() && !batch.lines.is_empty() {
            batch.lines = vec![batch.lines.concat()];
        }
        for line in batch.lines {
            if !batch.delay.is_zero() {
                time::sleep(batch.delay).await;
            }
            if pieces.send(Ok(line.into())).await.is_err() {
                return;
            }
        }
        match batch.then {
            Then::GoOn => {}
            Then::End => return,
            Then::Cut => {
                let half = Bytes::from_static(br#"{"type":"MODIFIED","object":{"kind":"#);
                let _ = pieces.send(Ok(half)).await;
                time::sleep(HALF_A_LINE).await;
                let _ = pieces.send(Err(Cut)).await;
                return;
            }
        }
        batch = tokio::select! {
            _ = changes.changed() => watch.next(&mut shared.state()),
            _ = bookmarks.tick(), if watch.bookmarks => watch.next_and_bookmark(&mut shared.state()),
            () = time::sleep_until(end) => return,
            () = pieces.closed() => return,
        };
    }
}

impl Watch {
    fn open(state: &mut State, call: &Call, client: IpAddr) -> Result<(Self, Batch), Refusal> {
        let mut selector = Selector::parse(&call.query, call.resource())?;
        if !call.name.is_empty() {
            selector = selector.and_name(&call.name);
        }
        let now = state.storage.revision();
        let from = call.query.number("resourceVersion")?.unwrap_or(0);
        if from > now {
            return Err(too_large(from, now));
        }
        if state.faults.gone_by_status && from > 0 && state.storage.changes_after(from).is_none() {
            return Err(too_old(from, now));
        }
        let list = call.query.is_true("sendInitialEvents");
        let bookmarks = call.query.is_true("allowWatchBookmarks");
        if list && !(bookmarks && call.query.text("resourceVersionMatch") == "NotOlderThan") {
            return Err(Refusal::bad_request(
                "sendInitialEvents requires allowWatchBookmarks and \
                 resourceVersionMatch=NotOlderThan",
            ));
        }
        let mut watch = Self {
            call: call.clone(),
            client,
            selector,
            bookmarks,
            position: from,
            cuts: state.faults.cuts,
        };
        let mut lines = Vec::new();
        if list || from == 0 {
            watch.position = now;
            let objects = state.storage.objects(call.index, &call.namespace);
            let selected = objects.filter(|(_, object)| watch.selector.matches(object));
            lines.extend(selected.map(|(_, object)| line("ADDED", object)));
        }
        if list {
            lines.push(watch.bookmark(true));
        }
        let mut batch = watch.next(state);
        batch.lines.splice(..0, lines);
        Ok((watch, batch))
    }

    /// What is new since the last time.
    fn next(&mut self, state: &mut State) -> Batch {
        let mut batch = Batch {
            lines: Vec::new(),
            delay: state.faults.delay,
            then: Then::GoOn,
        };
        let of = self.call.resource();
        if state.faults.cuts != self.cuts {
            batch.then = Then::Cut;
            return batch;
        }
        if state.is_hidden(self.call.index) {
            batch.then = Then::End;
            return batch;
        }
        let now = state.storage.revision();
        let Some(changes) = state.storage.changes_after(self.position) else {
            let gone = too_old(self.position, now).status();
            batch.lines.push(line("ERROR", &gone));
            batch.then = Then::End;
            return batch;
        };
        let lines = changes.filter_map(|change| self.event(change));
        batch.lines = lines.collect();
        self.position = now;
        if let (Some(first), Some(clients)) = (
            batch.lines.first_mut(),
            state.faults.broken.get_mut(of.kind),
        ) && clients.insert(self.client)
        {
            *first = first.replacen(r#""object":{"#, r#""object":{{"#, 1);
        }
        batch
    }

    fn next_and_bookmark(&mut self, state: &mut State) -> Batch {
        let mut batch = self.next(state);
        if batch.then == Then::GoOn {
            batch.lines.push(self.bookmark(false));
        }
        batch
    }

    /// The line of a change, if the watch is about the object.
    fn event(&self, change: &Change) -> Option<String> {
        let key = &change.key;
        let namespace = &self.call.namespace;
        if key.resource != self.call.index || !(namespace.is_empty() || *namespace == key.namespace)
        {
            return None;
        }
        let selected = |object: &Option<Arc<Value>>| {
            object
                .clone()
                .filter(|object| self.selector.matches(object))
        };
        match (selected(&change.before), selected(&change.after)) {
            (None, None) => None,
            (None, Some(after)) => Some(line("ADDED", &after)),
            (Some(_), Some(after)) => Some(line("MODIFIED", &after)),
            (Some(before), None) => {
                // Deleted, or no longer selected. It is told as it was last selected.
                let mut last = (*before).clone();
                last["metadata"]["resourceVersion"] = json!(change.revision.to_string());
                Some(line("DELETED", &last))
            }
        }
    }

    fn bookmark(&self, initial_events_end: bool) -> String {
        let of: &Resource = self.call.resource();
        let mut metadata = json!({
            "creationTimestamp": null,
            "resourceVersion": self.position.to_string(),
        });
        if initial_events_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = json!({
            "kind": of.kind,
            "apiVersion": of.api_version(),
            "metadata": metadata,
        });
        line("BOOKMARK", &object)
    }
}

fn line(kind: &str, object: &Value) -> String {
    // Written by hand: clients may expect the type first, as Kubernetes has it.
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

fn too_old(version: u64, now: u64) -> Refusal {
    Refusal::expired(format!("too old resource version: {version} ({now})"))
}
