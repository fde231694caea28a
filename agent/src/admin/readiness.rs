//! Whether the agent may be sent traffic.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Named conditions, all of which must hold. Clones share them.
///
/// Every condition is declared at start, before the endpoint is served; a set without any is
/// ready.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<BTreeMap<&'static str, bool>>>,
}

impl Readiness {
    /// Declares a condition, which doesn't hold yet. `name` is shown to operators.
    #[must_use]
    pub fn condition(&self, name: &'static str) -> Condition {
        self.lock().insert(name, false);
        Condition {
            readiness: self.clone(),
            name,
        }
    }

    /// The conditions that don't hold, in order of their names. None: ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let conditions = self.lock();
        let missing = conditions.iter().filter(|(_, holds)| !**holds);
        missing.map(|(name, _)| *name).collect()
    }

    /// Every condition, and whether it holds.
    #[must_use]
    pub fn conditions(&self) -> BTreeMap<&'static str, bool> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, bool>> {
        self.conditions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One condition of a [`Readiness`], held by the part that knows.
#[derive(Debug)]
pub struct Condition {
    readiness: Readiness,
    name: &'static str,
}

impl Condition {
    /// Says whether it holds.
    pub fn set(&self, holds: bool) {
        self.readiness.lock().insert(self.name, holds);
    }
}
