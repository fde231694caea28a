//! What a test does to the server.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{ApiServer, serve, state::Faults};
use crate::{Error, Result};

/// Faults: each lasts until [`ApiServer::heal`].
impl ApiServer {
    /// Takes a kind away, as if its CRD weren't installed: open watches end, requests are
    /// answered 404. Its objects are kept.
    pub fn hide(&self, kind: &str) {
        self.fault(|faults| faults.hidden.insert(kind.into()));
    }

    /// Brings a kind back.
    pub fn show(&self, kind: &str) {
        self.fault(|faults| faults.hidden.remove(kind));
    }

    /// Refuses connections, and cuts those that are open.
    pub fn stop_answering(&self) {
        let serving = self
            .serving
            .lock()
            .unwrap_or_else(|error| error.into_inner())
            .take();
        if let Some(serving) = serving {
            serving.abort();
            let end = Instant::now() + Duration::from_secs(10);
            while !serving.is_finished() && Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Answers again after [`ApiServer::stop_answering`].
    ///
    /// # Errors
    /// If it can't listen.
    pub fn resume(&self) -> Result<()> {
        let mut serving = self
            .serving
            .lock()
            .unwrap_or_else(|error| error.into_inner());
        let Some(runtime) = self.runtime.as_ref().filter(|_| serving.is_none()) else {
            return Ok(());
        };
        let doing = || Error::io(format!("listen at {} for the API server", self.address));
        let listener = self
            .place
            .in_namespace(|| TcpListener::bind(self.address))?;
        let listener = listener.map_err(doing())?;
        listener.set_nonblocking(true).map_err(doing())?;
        let (tls, shared) = (Arc::clone(&self.tls), Arc::clone(&self.shared));
        *serving = Some(runtime.spawn(serve::serve(listener, tls, shared)));
        Ok(())
    }

    /// Forgets all older versions: open watches get an ERROR event with 410 and end, as do those
    /// that go on from an older version; a list that goes on from there is answered 410.
    pub fn expire_watches(&self) {
        self.shared.change(|state| state.storage.forget());
    }

    /// The same, but the watches that go on from an older version are answered 410 as HTTP status
    /// until [`ApiServer::heal`]: not what Kubernetes does today, but what clients must expect.
    pub fn expire_watches_by_status(&self) {
        self.fault(|faults| faults.gone_by_status = true);
        self.expire_watches();
    }

    /// Ends the connections of all open watches in the middle of a line.
    pub fn cut_watches(&self) {
        self.fault(|faults| faults.cuts += 1);
    }

    /// Sends each client address one broken line in the place of the next event of a kind.
    pub fn break_json(&self, kind: &str) {
        self.fault(|faults| faults.broken.insert(kind.into(), BTreeSet::new()));
    }

    /// Has each piece of an answer (4 KiB, or a line of a watch) wait.
    pub fn slow(&self, wait: Duration) {
        self.fault(|faults| faults.delay = wait);
    }

    /// Undoes all faults. What `authorize` said stays.
    ///
    /// # Errors
    /// If it was stopped and can't listen again.
    pub fn heal(&self) -> Result<()> {
        self.fault(|faults| {
            *faults = Faults {
                cuts: faults.cuts,
                ..Faults::default()
            };
        });
        self.resume()
    }

    fn fault<T>(&self, change: impl FnOnce(&mut Faults) -> T) {
        self.shared.change(|state| {
            change(&mut state.faults);
        });
    }
}
