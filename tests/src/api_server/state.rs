//! What the server knows, and who is told when it changes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use serde_json::Value;
use tokio::sync::watch;

use super::{
    Rbac, RequestSeen,
    accounts::Accounts,
    resources::{self, RESOURCES},
    storage::{Key, Storage},
};

/// How many requests are remembered.
const REMEMBERED_REQUESTS: usize = 20_000;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) storage: Storage,
    pub(super) faults: Faults,
    pub(super) accounts: Accounts,
    pub(super) rbac: Option<Rbac>,
    pub(super) requests: VecDeque<RequestSeen>,
    /// What a field manager applied last, by object and manager: what it leaves out goes.
    pub(super) applied: BTreeMap<(Key, String), Value>,
}

/// What is wrong with the server on purpose.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Kinds that aren't installed.
    pub(super) hidden: BTreeSet<String>,
    /// Kinds of which each client address is sent one broken line, with those that were.
    pub(super) broken: BTreeMap<String, BTreeSet<IpAddr>>,
    /// How often all watches were cut.
    pub(super) cuts: u64,
    /// A watch from a forgotten version is refused by the status of its answer.
    pub(super) gone_by_status: bool,
    /// How long each piece of an answer waits.
    pub(super) delay: Duration,
}

/// Tells that the state changed.
pub(super) type Changes = watch::Receiver<()>;

/// The state, and a signal that it changed.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Changes the state and wakes all watches.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.send_replace(());
        result
    }

    pub(super) fn changes(&self) -> Changes {
        self.changed.subscribe()
    }
}

impl State {
    pub(super) fn remember(&mut self, request: RequestSeen) {
        if self.requests.len() == REMEMBERED_REQUESTS {
            self.requests.pop_front();
        }
        self.requests.push_back(request);
    }

    pub(super) fn is_hidden(&self, resource: usize) -> bool {
        self.faults.hidden.contains(RESOURCES[resource].kind)
    }

    /// Who may do what at present; None: everybody everything.
    pub(super) fn rights(&self) -> Option<Rbac> {
        let group = "rbac.authorization.k8s.io";
        let index = resources::by_path(group, "v1", "clusterrolebindings")?;
        let bindings = self.storage.objects(index, "");
        let rules = self.rbac.as_ref()?;
        Some(rules.with(bindings.map(|(_, binding)| &**binding)))
    }

    pub(super) fn has_namespace(&self, name: &str) -> bool {
        namespace(name).is_some_and(|key| self.storage.object(&key).is_some())
    }
}

fn namespace(name: &str) -> Option<Key> {
    Some(Key {
        resource: resources::by_path("", "v1", "namespaces")?,
        namespace: String::new(),
        name: name.into(),
    })
}
