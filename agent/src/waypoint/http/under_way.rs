//! Requests that are under way, and the end of those that a change of policies forbids.
//!
//! A request is decided when it comes. What that was made of is kept until it ends, be it a stream of gRPC or a
//! connection that was upgraded, so that it can be decided again.

use std::{
    future::poll_fn,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use arc_swap::ArcSwapOption;
use futures::task::AtomicWaker;
use http::{HeaderMap, Method, Request, Uri, request};

use super::{
    super::{authentication, stream::Client, target::Target},
    body::Source,
    decide::Asking,
};
use crate::{
    discovery::store::Snapshot, policy::Token, proxy::connections::Concern, sharded::Sharded,
    waypoint::authentication::AuthenticationError,
};

/// Every request of a waypoint that has gone to an endpoint, and hasn't ended.
#[derive(Default)]
pub(in crate::waypoint) struct UnderWay {
    entries: Sharded<Entry>,
    /// What [`Self::reevaluate`] saw last.
    latest: ArcSwapOption<Snapshot>,
}

/// What a request was decided by.
pub(super) struct Case {
    pub(super) client: Arc<Client>,
    /// What the client had proven to be by a token.
    pub(super) token: Option<Arc<Token>>,
    /// As it was when it was admitted.
    pub(super) asked: Arc<Head>,
    /// As its server has it.
    pub(super) sent: request::Parts,
    pub(super) target: Target,
    /// Its body, which ends with it.
    pub(super) source: Source,
}

/// A request without its body.
pub(super) struct Head {
    pub(super) parts: request::Parts,
    /// As policies are asked about it.
    pub(super) path: String,
}

/// Why a request may not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Revoked {
    #[error("ended by a policy change: {0}")]
    Denied(#[from] crate::policy::Denied),
    #[error("ended by a change of RequestAuthentications: {0}")]
    Unauthenticated(#[from] AuthenticationError),
}

struct Entry {
    case: Case,
    revoked: OnceLock<Revoked>,
    /// Of whoever waits for the request: there is one at a time.
    waiter: AtomicWaker,
}

impl UnderWay {
    /// Enters a request that was allowed on `decided_on`. It leaves when the guard is dropped.
    ///
    /// A change that came between that decision and this call is applied here: [`Ongoing::poll_revoked`] tells.
    pub(super) fn enter(case: Case, decided_on: &Snapshot) -> Ongoing {
        let waypoint = case.client.waypoint.clone();
        let entry = Arc::new(Entry {
            case,
            revoked: OnceLock::new(),
            waiter: AtomicWaker::new(),
        });
        let own = &waypoint.under_way;
        let key = own.entries.insert(entry.clone());
        // Loaded after the entry is in its place: `reevaluate` stores first and walks then.
        if let Some(latest) = own.latest.load_full()
            && latest.generation() > decided_on.generation()
        {
            entry.judge(&latest);
        }
        Ongoing { key, entry }
    }

    /// Decides again every request that a change concerns, and ends those that are allowed no longer. Returns how
    /// many it ended.
    ///
    /// Takes a few microseconds for each, without waiting: not for an async worker thread where there are thousands.
    pub(in crate::waypoint) fn reevaluate(
        &self,
        snapshot: &Arc<Snapshot>,
        concern: &Concern,
    ) -> usize {
        self.latest.store(Some(snapshot.clone()));
        let mut ended = 0;
        self.entries.for_each(|entry| {
            let workload = entry.case.target.route.workload();
            if concern.is_about(workload.map(|it| &it.uid)) {
                ended += usize::from(entry.judge(snapshot));
            }
        });
        ended
    }
}

impl Entry {
    /// Whether this is what ends it.
    fn judge(&self, snapshot: &Snapshot) -> bool {
        let Err(revoked) = self.case.check(snapshot) else {
            return false;
        };
        let is_first = self.revoked.set(revoked).is_ok();
        // Nothing more of it reaches the server, whether or not the client reads what comes from there.
        self.case.source.cut();
        self.waiter.wake();
        is_first
    }
}

impl Case {
    /// Whether the request would be allowed now.
    fn check(&self, snapshot: &Snapshot) -> Result<(), Revoked> {
        let mut asking = Asking {
            client: &self.client,
            snapshot,
            token: None,
        };
        let authentications = asking.authentications();
        asking.token = authentication::still_holds(&authentications, self.token.as_deref())?;
        asking.admit(&self.asked.parts, &self.asked.path)?;
        let workload = self.target.route.workload();
        // One that is gone ends the connection itself.
        let now = workload.map(|before| snapshot.workload(&before.uid).unwrap_or(before));
        match now {
            Some(now) => Ok(asking.evaluate(now, self.target.address, &self.sent)?),
            None => Ok(()),
        }
    }
}

/// What policies may ask for. What the HTTP library has put beside it, as a connection to be upgraded, is another's.
pub(super) fn copy(parts: &request::Parts) -> request::Parts {
    let (mut copy, ()) = Request::new(()).into_parts();
    copy.method = Method::clone(&parts.method);
    copy.uri = Uri::clone(&parts.uri);
    copy.version = parts.version;
    copy.headers = HeaderMap::clone(&parts.headers);
    copy
}

/// Keeps a request among those that are under way until it is dropped.
#[must_use = "the request is out of sight when this is dropped"]
pub(super) struct Ongoing {
    key: u64,
    entry: Arc<Entry>,
}

impl Ongoing {
    /// Ready when the request must end. Of several tasks that wait, the last is woken.
    pub(super) fn poll_revoked(&self, context: &mut Context<'_>) -> Poll<&Revoked> {
        let revoked = &self.entry.revoked;
        if revoked.get().is_none() {
            self.entry.waiter.register(context.waker());
        }
        // It may have come meanwhile.
        revoked.get().map_or(Poll::Pending, Poll::Ready)
    }

    /// Why the request must end, once it must.
    pub(super) async fn revoked(&self) -> Revoked {
        poll_fn(|context| self.poll_revoked(context).map(Clone::clone)).await
    }

    /// The request as its server has it.
    pub(super) fn sent(&self) -> &request::Parts {
        &self.entry.case.sent
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        let waypoint = &self.entry.case.client.waypoint;
        waypoint.under_way.entries.remove(self.key);
    }
}
