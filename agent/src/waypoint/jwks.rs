//! The keys of issuers that are fetched by URL.
//!
//! Each URL is fetched by one task at a time, and only requests with a token of that issuer wait, as long as its rule
//! says. Keys that couldn't be fetched anew serve on.

mod fetch;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use self::fetch::Fetcher;
use crate::policy::{jwt::KeySet, model::KeySource};

/// When keys are fetched.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// From this age on they are fetched anew when they are used; default 5 minutes. Each costs the issuer a request.
    pub refresh: Duration,
    /// From this age on requests wait for new ones; default 10 minutes.
    pub stale: Duration,
    /// How long after a failure it is tried again at the earliest; default 1 s.
    pub retry: Duration,
    /// How long after a fetch a token with an unknown key brings about another at the earliest; default 10 s. Clients can
    /// make such tokens as they like.
    pub unknown_key: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(300),
            stale: Duration::from_secs(600),
            retry: Duration::from_secs(1),
            unknown_key: Duration::from_secs(10),
        }
    }
}

/// Keys that nobody asked for in this time are forgotten: their policy may be gone.
const UNUSED: Duration = Duration::from_secs(3600);

/// The keys of all issuers.
#[derive(Default)]
pub(super) struct KeyCache {
    settings: Settings,
    fetcher: Fetcher,
    entries: Mutex<HashMap<KeyUrl, Arc<Entry>>>,
}

/// A URL, and whether it is that of a discovery document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct KeyUrl {
    url: Arc<str>,
    is_discovery: bool,
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").finish_non_exhaustive()
    }
}

/// One URL.
struct Entry {
    state: Mutex<State>,
    /// Told at the end of each fetch.
    fetched: watch::Sender<()>,
}

#[derive(Debug, Clone)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// When the keys were fetched.
    fetched: Option<Instant>,
    /// When the last fetch began.
    attempted: Option<Instant>,
    is_fetching: bool,
    used: Instant,
}

/// What somebody who needs keys has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    starts: bool,
    waits: bool,
}

impl State {
    /// Decides; `unknown_key`: the keys that are there aren't enough.
    fn step(&self, settings: &Settings, now: Instant, unknown_key: bool) -> Step {
        let is_over = |since: Option<Instant>, time| since.is_none_or(|since| now >= since + time);
        let (is_due, waits, pause) = match &self.keys {
            None => (true, true, settings.retry),
            Some(_) if unknown_key => (true, true, settings.unknown_key),
            Some(_) => (
                is_over(self.fetched, settings.refresh),
                is_over(self.fetched, settings.stale),
                settings.retry,
            ),
        };
        let starts = is_due && !self.is_fetching && is_over(self.attempted, pause);
        Step {
            starts,
            waits: waits && (starts || self.is_fetching),
        }
    }
}

impl KeyCache {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// Fetches what isn't there yet, and waits for nothing.
    pub(super) fn prepare(&self, source: &KeySource) {
        if let Some(url) = url(source) {
            self.start(&url, false);
        }
    }

    /// An issuer's keys, if they are to be had in that time.
    pub(super) async fn keys(&self, source: &KeySource, patience: Duration) -> Option<Arc<KeySet>> {
        match (source, url(source)) {
            (KeySource::Inline(keys), _) => Some(keys.clone()),
            (_, Some(url)) => self.ask(&url, patience, false).await,
            (_, None) => None,
        }
    }

    /// Newer keys than there are, if it isn't too soon to ask for them.
    pub(super) async fn newer(
        &self,
        source: &KeySource,
        patience: Duration,
    ) -> Option<Arc<KeySet>> {
        self.ask(&url(source)?, patience, true).await
    }

    async fn ask(
        &self,
        url: &KeyUrl,
        patience: Duration,
        unknown_key: bool,
    ) -> Option<Arc<KeySet>> {
        let deadline = Instant::now() + patience;
        let (entry, step, mut fetched) = self.start(url, unknown_key);
        if step.waits {
            // Whatever comes of it, what is there is what there is.
            let _ = timeout_at(deadline, fetched.changed()).await;
        }
        entry.lock().keys.clone()
    }

    /// Begins a fetch if it is time for one.
    fn start(&self, url: &KeyUrl, unknown_key: bool) -> (Arc<Entry>, Step, watch::Receiver<()>) {
        let now = Instant::now();
        let entry = self.entry(url, now);
        // Before the fetch can end.
        let fetched = entry.fetched.subscribe();
        let step = {
            let mut state = entry.lock();
            let step = state.step(&self.settings, now, unknown_key);
            state.used = now;
            if step.starts {
                (state.is_fetching, state.attempted) = (true, Some(now));
            }
            step
        };
        if step.starts {
            tokio::spawn(fetch(self.fetcher.clone(), url.clone(), entry.clone()));
        }
        (entry, step, fetched)
    }

    fn entry(&self, url: &KeyUrl, now: Instant) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(url) {
            return entry.clone();
        }
        entries.retain(|_, entry| now < entry.lock().used + UNUSED);
        let entry = Arc::new(Entry {
            state: Mutex::new(State {
                keys: None,
                fetched: None,
                attempted: None,
                is_fetching: false,
                used: now,
            }),
            fetched: watch::Sender::new(()),
        });
        entries.insert(url.clone(), entry.clone());
        entry
    }
}

impl Entry {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn url(source: &KeySource) -> Option<KeyUrl> {
    let (url, is_discovery) = match source {
        KeySource::Inline(_) => return None,
        KeySource::Url(url) => (url, false),
        KeySource::Discovered(url) => (url, true),
    };
    Some(KeyUrl {
        url: url.clone(),
        is_discovery,
    })
}

/// One fetch. It is a task of its own: it goes on when the request that asked for it is given up.
async fn fetch(fetcher: Fetcher, url: KeyUrl, entry: Arc<Entry>) {
    let keys = match url.is_discovery {
        true => fetcher.discovered_keys(&url.url).await,
        false => fetcher.keys(&url.url).await,
    };
    {
        let mut state = entry.lock();
        state.is_fetching = false;
        match keys {
            Ok(keys) => {
                (state.keys, state.fetched) = (Some(Arc::new(keys)), Some(Instant::now()));
            }
            Err(error) => {
                let serves_on = match state.keys {
                    Some(_) => "the last ones serve on",
                    None => "tokens of their issuer are refused",
                };
                tracing::warn!(url = %url.url, "keys can't be fetched: {error}; {serves_on}");
            }
        }
    }
    entry.fetched.send_replace(());
}

#[cfg(test)]
mod tests;
