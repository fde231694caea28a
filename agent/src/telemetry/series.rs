//! Series by label set, bounded in two ways.
//!
//! One that nobody uses is dropped after an idle time (a workload's series must survive its quiet
//! hours, and PromQL's `rate` takes the later restart from zero for the counter reset that it is);
//! and there are never more than a limit, beyond which all count in one that says `unknown`
//! throughout.

mod labels;

use std::{
    collections::HashMap,
    hash::Hash,
    ops::Deref,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub(super) use self::labels::{ClusterNames, Peer, SeriesLabels, traffic_labels};

/// A set of labels.
pub(super) trait Labels: Eq + Hash + Clone {
    /// What counts here if there are too many.
    fn unknown(&self) -> Self;
}

/// The values of one label set, and when they were last used.
#[derive(Debug, Default)]
pub(super) struct Series<V> {
    values: V,
    /// Milliseconds since [`SeriesMap::start`].
    touched: AtomicU64,
}

impl<V> Deref for Series<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.values
    }
}

/// Every series of a group of families.
#[derive(Debug)]
pub(super) struct SeriesMap<L, V> {
    limit: usize,
    idle: Duration,
    start: Instant,
    /// Looked up for each request, by some twenty strings, which are names of the cluster's objects.
    known: RwLock<HashMap<L, Arc<Series<V>>, foldhash::quality::RandomState>>,
    overflowed: AtomicU64,
}

impl<L: Labels, V: Default> SeriesMap<L, V> {
    pub(super) fn new(limit: usize, idle: Duration) -> Self {
        Self {
            limit,
            idle,
            start: Instant::now(),
            known: RwLock::default(),
            overflowed: AtomicU64::new(0),
        }
    }

    /// The series with these labels, or the one for all that are too many. It is kept for as long
    /// as the caller holds it.
    pub(super) fn find(&self, labels: &L) -> Arc<Series<V>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known.get(labels) {
            return series.clone();
        }
        drop(known);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < self.limit || known.contains_key(labels) {
            return known.entry(labels.clone()).or_default().clone();
        }
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        known.entry(labels.unknown()).or_default().clone()
    }

    /// It was used.
    pub(super) fn touch(&self, series: &Series<V>, now: Instant) {
        series.touched.store(self.millis_at(now), Ordering::Relaxed);
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(L, Arc<Series<V>>)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(l, s)| (l.clone(), s.clone())).collect()
    }

    /// How often there was no room for a label set.
    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Drops what was idle for too long.
    pub(super) fn forget_idle(&self, now: Instant) {
        let now = self.millis_at(now);
        let idle = u64::try_from(self.idle.as_millis()).unwrap_or(u64::MAX);
        // One reference is the map's own. More can't appear meanwhile: only the holder of this
        // lock, or of another reference, makes one.
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, series| {
            let touched = series.touched.load(Ordering::Relaxed);
            Arc::strong_count(series) > 1 || now.saturating_sub(touched) < idle
        });
    }

    fn millis_at(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.start);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }
}
