//! A set that many tasks enter and leave, and that is walked now and then.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// A power of two, so that the shard is a mask of the key.
const SHARDS: u64 = 16;

/// Values behind 16 locks. Entering and leaving hold one of them for one hash map operation, and
/// a walk holds one only while it copies pointers: no task waits for a walk to end.
#[derive(Debug)]
pub(crate) struct Sharded<V> {
    shards: Vec<Mutex<HashMap<u64, Arc<V>>>>,
    next: AtomicU64,
    len: AtomicUsize,
}

impl<V> Default for Sharded<V> {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            next: AtomicU64::new(0),
            len: AtomicUsize::new(0),
        }
    }
}

impl<V> Sharded<V> {
    /// Adds a value and returns the key that removes it again. Keys are never used twice.
    pub(crate) fn insert(&self, value: Arc<V>) -> u64 {
        self.len.fetch_add(1, Ordering::Relaxed);
        self.place(value)
    }

    /// As [`Self::insert`], unless `limit` values are there already.
    pub(crate) fn insert_below(&self, limit: usize, value: Arc<V>) -> Option<u64> {
        let below = |len: usize| (len < limit).then_some(len + 1);
        self.len
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below)
            .ok()?;
        Some(self.place(value))
    }

    /// Removes what `key` names; nothing happens where it is gone.
    pub(crate) fn remove(&self, key: u64) {
        if self.shard(key).remove(&key).is_some() {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Calls `visit` on every value that is there throughout the walk, in no order.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Arc<V>)) {
        self.for_each_key(|_, value| visit(value));
    }

    /// As [`Self::for_each`], with the keys.
    pub(crate) fn for_each_key(&self, mut visit: impl FnMut(u64, &Arc<V>)) {
        for index in 0..SHARDS {
            let shard = self.shard(index);
            let values: Vec<_> = shard
                .iter()
                .map(|(key, value)| (*key, value.clone()))
                .collect();
            drop(shard);
            values.iter().for_each(|(key, value)| visit(*key, value));
        }
    }

    fn place(&self, value: Arc<V>) -> u64 {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.shard(key).insert(key, value);
        key
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, HashMap<u64, Arc<V>>> {
        let index = usize::try_from(key % SHARDS).unwrap_or_default();
        // A map operation leaves the map whole even if it panics, so poison means nothing here.
        self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_sees_what_is_there_and_nothing_that_left() {
        let set = Sharded::default();
        let keys: Vec<_> = (0..100).map(|n| set.insert(Arc::new(n))).collect();
        for key in keys.iter().step_by(2) {
            set.remove(*key);
            set.remove(*key);
        }
        let mut seen = Vec::new();
        set.for_each(|n| seen.push(**n));
        seen.sort_unstable();
        assert_eq!(seen, (0..100).filter(|n| n % 2 == 1).collect::<Vec<_>>());
        assert_eq!(set.len(), 50);
    }

    #[test]
    fn a_full_set_takes_another_value_only_after_one_left() {
        let set = Sharded::default();
        let first = set.insert_below(2, Arc::new('a')).unwrap();
        assert!(set.insert_below(2, Arc::new('b')).is_some());
        assert_eq!(set.insert_below(2, Arc::new('c')), None);
        set.remove(first);
        assert!(set.insert_below(2, Arc::new('c')).is_some());
        assert_eq!(set.len(), 2);
    }
}
