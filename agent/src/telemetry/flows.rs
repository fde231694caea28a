//! What happens to connections and requests, told live to whoever observes.
//!
//! While nobody does, it costs a look at an empty list. An observer that reads too slowly loses
//! events and learns how many; it never holds back what it observes.

mod filter;
mod view;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use prometheus::proto::MetricFamily;
use tokio::sync::mpsc;

pub use self::{
    filter::{FilterError, FlowFilter},
    view::{FlowEvent, FlowLine, FlowView, RequestView, Verdict},
};
use super::{
    Metrics,
    collector::{Family, Kind},
};

/// Observers at once. Each event is offered to every one of them by the task that carries the
/// connection.
pub const MOST_OBSERVERS: usize = 8;

/// Events that wait for an observer: up to a few MiB, and some tenths of a second of a busy node.
const WAITING: usize = 4_096;

const OBSERVERS: Family = Family {
    name: "ambit_observers",
    help: "Clients that observe flows now.",
    kind: Kind::Gauge,
    labels: &[],
};
const REFUSED: Family = Family {
    name: "ambit_observers_refused_total",
    help: "Clients that could not observe flows because too many did.",
    kind: Kind::Counter,
    labels: &[],
};
const LOST: Family = Family {
    name: "ambit_observed_events_lost_total",
    help: "Events that observers didn't get because they read too slowly.",
    kind: Kind::Counter,
    labels: &[],
};

/// All places are taken.
#[derive(Debug, thiserror::Error)]
#[error(
    "{MOST_OBSERVERS} observe already, which is the limit: end one (`ambit observe`, /observe), \
     then try again"
)]
pub struct TooManyObservers;

/// Those who observe, and what they are told.
#[derive(Debug, Default)]
pub struct Flows {
    observers: ArcSwap<Vec<Arc<Observer>>>,
    /// Held while the list is replaced.
    changing: Mutex<()>,
    refused: AtomicU64,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Observer {
    filter: FlowFilter,
    events: mpsc::Sender<Arc<FlowView>>,
    lost: AtomicU64,
}

impl Flows {
    pub(super) const FAMILIES: &[&Family] = &[&OBSERVERS, &REFUSED, &LOST];

    /// Tells of what `filter` selects from now on, until the value is dropped.
    ///
    /// # Errors
    /// [`TooManyObservers`]; counted.
    pub fn observe(self: &Arc<Self>, filter: FlowFilter) -> Result<Observation, TooManyObservers> {
        let (sender, events) = mpsc::channel(WAITING);
        let observer = Arc::new(Observer {
            filter,
            events: sender,
            lost: AtomicU64::new(0),
        });
        let entered = self.change(|observers| {
            let has_place = observers.len() < MOST_OBSERVERS;
            if has_place {
                observers.push(observer.clone());
            }
            has_place
        });
        if !entered {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(TooManyObservers);
        }
        Ok(Observation {
            flows: self.clone(),
            observer,
            events,
        })
    }

    /// Tells those who observe. `view` is made only if there are any.
    pub(super) fn tell(&self, view: impl FnOnce() -> FlowView) {
        let observers = self.observers.load();
        if observers.is_empty() {
            return;
        }
        let view = Arc::new(view());
        for observer in observers.iter().filter(|it| it.filter.selects(&view)) {
            // Closed is one that is about to leave the list.
            if let Err(mpsc::error::TrySendError::Full(_)) = observer.events.try_send(view.clone())
            {
                observer.lost.fetch_add(1, Ordering::Relaxed);
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn collect(&self) -> Vec<MetricFamily> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        vec![
            OBSERVERS.single(self.observers.load().len() as f64),
            REFUSED.single(count(&self.refused)),
            LOST.single(count(&self.lost)),
        ]
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Arc<Observer>>) -> T) -> T {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut observers = self.observers.load().to_vec();
        let result = change(&mut observers);
        self.observers.store(Arc::new(observers));
        result
    }
}

impl Metrics {
    /// Those who observe what is reported.
    #[must_use]
    pub fn flows(&self) -> &Arc<Flows> {
        &self.flows
    }

    /// The connections that are open, for who begins to observe; each view is made when it is asked for.
    pub fn open_flows(&self) -> impl Iterator<Item = FlowView> + Send + 'static {
        let opened = self.traffic.opened().into_iter();
        opened.map(|opened| opened.view(FlowEvent::Open))
    }
}

/// The place of one observer; free again when this is dropped.
#[derive(Debug)]
pub struct Observation {
    flows: Arc<Flows>,
    observer: Arc<Observer>,
    events: mpsc::Receiver<Arc<FlowView>>,
}

impl Observation {
    /// What it is told of.
    #[must_use]
    pub fn filter(&self) -> &FlowFilter {
        &self.observer.filter
    }

    /// Waits for events and adds them to `events`, at most `limit`. Returns how many were lost
    /// since the last call, about there.
    pub async fn next(&mut self, events: &mut Vec<Arc<FlowView>>, limit: usize) -> u64 {
        self.events.recv_many(events, limit).await;
        self.observer.lost.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.flows
            .change(|observers| observers.retain(|it| !Arc::ptr_eq(it, &self.observer)));
    }
}

#[cfg(test)]
mod tests;
