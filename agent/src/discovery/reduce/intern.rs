//! Sharing of equal values: a hundred replicas hold one label map, not a hundred.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use crate::discovery::{
    facts::NamedPort,
    model::{Exclusions, TelemetryNames},
};

/// Pools of the values that repeat from pod to pod.
#[derive(Debug, Default)]
pub(super) struct Interner {
    texts: Pool<str>,
    labels: Pool<BTreeMap<String, String>>,
    exclusions: Pool<Exclusions>,
    ports: Pool<[NamedPort]>,
    telemetry: Pool<TelemetryNames>,
}

impl Interner {
    pub(super) fn text(&mut self, text: &str) -> Arc<str> {
        self.texts.share(text)
    }

    pub(super) fn labels(
        &mut self,
        labels: BTreeMap<String, String>,
    ) -> Arc<BTreeMap<String, String>> {
        self.labels.share(labels)
    }

    pub(super) fn exclusions(&mut self, exclusions: Exclusions) -> Arc<Exclusions> {
        self.exclusions.share(exclusions)
    }

    pub(super) fn ports(&mut self, ports: Vec<NamedPort>) -> Arc<[NamedPort]> {
        self.ports.share(ports)
    }

    pub(super) fn telemetry(&mut self, names: TelemetryNames) -> Arc<TelemetryNames> {
        self.telemetry.share(names)
    }
}

#[derive(Debug)]
struct Pool<T: ?Sized> {
    values: HashSet<Arc<T>>,
    sweep_above: usize,
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self {
            values: HashSet::default(),
            sweep_above: 64,
        }
    }
}

impl<T: ?Sized + Eq + Hash> Pool<T> {
    /// The one copy of the value. Copies that nobody else holds are dropped whenever their number
    /// may have doubled, so that the pool stays within twice of what is in use.
    fn share<V>(&mut self, value: V) -> Arc<T>
    where
        V: Borrow<T> + Into<Arc<T>>,
    {
        if let Some(shared) = self.values.get(value.borrow()) {
            return Arc::clone(shared);
        }
        if self.values.len() >= self.sweep_above {
            self.values.retain(|held| Arc::strong_count(held) > 1);
            self.sweep_above = (self.values.len() * 2).max(64);
        }
        let shared: Arc<T> = value.into();
        self.values.insert(Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_shared_and_abandoned_ones_dropped() {
        let mut pool = Pool::<str>::default();
        let kept = pool.share("kept");
        for n in 0..1000 {
            pool.share(format!("gone {n}").as_str());
        }
        assert!(Arc::ptr_eq(&kept, &pool.share("kept")));
        assert!(pool.values.len() <= 65, "{} values held", pool.values.len());
    }
}
