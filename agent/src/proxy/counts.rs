//! Counts what is under way, by key, for as long as guards are held.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A key that nobody competes with may have three quarters of all.
const GREED: usize = 3;

/// Guards that are held, by key. Bounded by them: a key without any takes no memory.
#[derive(Debug)]
pub(super) struct Counts<K>(Mutex<State<K>>);

#[derive(Debug)]
struct State<K> {
    total: usize,
    by_key: HashMap<K, usize>,
}

/// How many guards there may be. No key may have more than [`GREED`] times as many as are left for all
/// others, so that there is a place for one that has none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of one key, at most.
    pub(super) per_key: usize,
    /// Of all keys.
    pub(super) total: usize,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// That of the key, which has so many.
    Key {
        /// How many.
        count: usize,
    },
    /// That of all.
    Total,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Mutex::new(State {
            total: 0,
            by_key: HashMap::new(),
        }))
    }
}

impl<K: Clone + Eq + Hash> Counts<K> {
    /// Counts one of a key until the guard is dropped.
    #[must_use]
    pub(super) fn count(self: &Arc<Self>, key: K) -> CountGuard<K> {
        self.enter(&mut self.lock(), key)
    }

    /// The same unless a limit is reached.
    ///
    /// # Errors
    /// Which limit.
    pub(super) fn try_count(
        self: &Arc<Self>,
        key: K,
        limits: Limits,
    ) -> Result<CountGuard<K>, Full> {
        let mut state = self.lock();
        let count = state.by_key.get(&key).copied().unwrap_or(0);
        let free = limits.total.saturating_sub(state.total);
        if count >= limits.per_key {
            return Err(Full::Key { count });
        }
        if free == 0 {
            return Err(Full::Total);
        }
        if count >= free.saturating_mul(GREED) {
            return Err(Full::Key { count });
        }
        Ok(self.enter(&mut state, key))
    }

    /// The counts of two keys at one moment.
    pub(super) fn of_both(&self, one: &K, other: &K) -> (usize, usize) {
        let state = self.lock();
        let count = |key| state.by_key.get(key).copied().unwrap_or(0);
        (count(one), count(other))
    }

    fn enter(self: &Arc<Self>, state: &mut State<K>, key: K) -> CountGuard<K> {
        state.total += 1;
        *state.by_key.entry(key.clone()).or_default() += 1;
        CountGuard {
            counts: self.clone(),
            key,
        }
    }
}

impl<K> Counts<K> {
    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that counts.
#[derive(Debug)]
pub(crate) struct CountGuard<K: Eq + Hash> {
    counts: Arc<Counts<K>>,
    key: K,
}

impl<K: Eq + Hash> Drop for CountGuard<K> {
    fn drop(&mut self) {
        let mut state = self.counts.lock();
        state.total -= 1;
        if let Some(count) = state.by_key.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                state.by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_that_is_dropped_leaves_nothing_behind() {
        let counts = Arc::new(Counts::default());
        let (first, second) = (counts.count('a'), counts.count('a'));
        drop(first);
        assert_eq!(counts.of_both(&'a', &'b'), (1, 0));
        drop(second);
        let state = counts.lock();
        assert_eq!((state.total, state.by_key.len()), (0, 0));
    }

    #[test]
    fn limits_refuse_until_a_guard_is_dropped() {
        let limits = Limits {
            per_key: 2,
            total: 3,
        };
        let counts = Arc::new(Counts::default());
        let enter = |key| counts.try_count(key, limits);
        let (first, second) = (enter('a').unwrap(), enter('a').unwrap());
        assert_eq!(enter('a').unwrap_err(), Full::Key { count: 2 });
        let _other = enter('b').unwrap();
        assert_eq!(enter('c').unwrap_err(), Full::Total);
        assert_eq!(
            enter('a').unwrap_err(),
            Full::Key { count: 2 },
            "the nearer cause is told"
        );
        drop(first);
        let _third = enter('c').unwrap();
        drop(second);
        assert!(enter('a').is_ok());
    }
    #[test]
    fn a_key_leaves_something_for_others() {
        let limits = Limits {
            per_key: 100,
            total: 100,
        };
        let counts = Arc::new(Counts::default());
        let fill = |key| {
            let taken = (0..200).map_while(|_| counts.try_count(key, limits).ok());
            taken.collect::<Vec<_>>()
        };
        let greedy: Vec<_> = ['a', 'b', 'c'].map(fill).into();
        let taken: Vec<_> = greedy.iter().map(Vec::len).collect();
        assert_eq!(taken, [75, 19, 5]);
        assert!(counts.try_count('d', limits).is_ok());
    }
}
