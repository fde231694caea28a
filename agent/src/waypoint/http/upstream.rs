//! Connections of HTTP to endpoints, kept for the next request.

mod answer;
mod connect;
mod driven;
mod shared;

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::{Request, Response, client::conn::TrySendError};
use tokio::time::Instant;

pub(super) use self::{answer::UpstreamBody, connect::SendError};
use self::{
    answer::{Held, Whole},
    connect::{Call, ConnectError},
    driven::Driven,
    shared::{InFlight, Shared, place},
};
use super::{
    super::{Waypoint, resilience::BackendState, target::Target},
    body::RequestBody,
};
use crate::{
    discovery::model::{ConnectionPool, WorkloadUid},
    identity::Identity,
};

/// How long a connection is used, so that what its certificates proved once isn't relied on for ever.
const AGE: Duration = Duration::from_secs(60 * 60);
/// As long as that only for one to a pod of this node, which costs no handshake: the first of a kind is carried by
/// the agent, and the next passes.
const AGE_HERE: Duration = Duration::from_secs(10);
/// Idle connections of one endpoint.
const MAX_IDLE: usize = 128;

/// Which connections are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    address: SocketAddr,
    /// Who is there; `None` where it isn't enrolled.
    workload: Option<(WorkloadUid, Identity)>,
    /// Whether it is reached by the waypoint's own pod.
    is_here: bool,
    version: Version,
}

impl Hash for Key {
    /// By what nearly always tells them apart: names are long, and hashed twice a request.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address.hash(state);
    }
}

/// What is spoken to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::waypoint) enum Version {
    Http1,
    Http2,
}

impl Version {
    pub(super) fn is_http2(self) -> bool {
        self == Self::Http2
    }
}

/// The connections of a waypoint to endpoints.
#[derive(Default)]
pub(in crate::waypoint) struct Upstreams(Arc<Inner>);

#[derive(Default)]
struct Inner {
    endpoints: Mutex<HashMap<Key, Endpoint>>,
    /// Nothing is kept any more.
    is_draining: AtomicBool,
}

/// Those to one endpoint.
#[derive(Default)]
struct Endpoint {
    idle: Vec<Idle>,
    shared: Vec<Arc<Shared>>,
    /// Held by who opens a connection that others will share.
    connecting: Arc<tokio::sync::Mutex<()>>,
}

/// One of HTTP/1.1 without a request.
struct Idle {
    connection: Driven,
    life: Life,
    /// When it is closed, if nobody has taken it by then.
    until: Instant,
}

/// How long a connection has been used.
#[derive(Debug, Clone, Copy)]
struct Life {
    /// When it takes no more requests.
    ends: Instant,
    requests: u32,
}

impl Life {
    fn begin(target: &Target) -> Self {
        let age = if target.is_here() { AGE_HERE } else { AGE };
        Self {
            ends: Instant::now() + age,
            requests: 0,
        }
    }

    /// Whether one more request may go through it.
    fn goes_on(&self, pool: &ConnectionPool, now: Instant) -> bool {
        let is_below = |most| self.requests < most;
        now < self.ends && pool.max_requests_per_connection.is_none_or(is_below)
    }
}

impl Upstreams {
    /// Sends a request to an endpoint, on a connection that is kept or on a new one, as `state` allows.
    ///
    /// # Errors
    /// [`SendError`].
    pub(super) async fn send(
        &self,
        waypoint: &Arc<Waypoint>,
        target: &Target,
        version: Version,
        state: Option<&Arc<BackendState>>,
        request: Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let workload = target.enrolled();
        let key = Key {
            address: target.address,
            workload: workload.map(|it| (it.uid.clone(), it.identity.clone())),
            is_here: target.is_here(),
            version,
        };
        let call = Call {
            waypoint,
            target,
            state,
        };
        match version {
            Version::Http1 => self.send_http1(&call, key, request).await,
            Version::Http2 => self.send_http2(&call, key, request).await,
        }
    }

    async fn send_http1(
        &self,
        call: &Call<'_>,
        key: Key,
        mut request: Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let pool = call.pool();
        let (connection, mut life, response) = loop {
            let kept = self.0.take(&key, &pool);
            let is_reused = kept.is_some();
            let (mut connection, life) = match kept {
                Some(idle) => (idle.connection, idle.life),
                None => match call.http1().await {
                    Ok(connection) => (connection, Life::begin(call.target)),
                    Err(error) => return Err(error.of(request)),
                },
            };
            match connection.send(request).await {
                Ok(response) => break (connection, life, response),
                // Closed while it was kept.
                Err(failed) => request = unsent(failed, is_reused)?,
            }
        };
        life.requests = life.requests.saturating_add(1);
        let whole = Box::new(Whole {
            upstreams: self.0.clone(),
            key,
            connection,
            life,
            pool,
        });
        Ok(UpstreamBody::of(response, Held::Http1(whole)))
    }

    async fn send_http2(
        &self,
        call: &Call<'_>,
        key: Key,
        mut request: Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        loop {
            let (in_flight, is_reused) = match self.shared(call, &key).await {
                Ok(shared) => shared,
                Err(error) => return Err(error.of(request)),
            };
            let sent = in_flight.0.sender.clone().try_send_request(request).await;
            match sent {
                Ok(response) => return Ok(UpstreamBody::of(response, Held::Http2(in_flight))),
                // The server takes no more requests there.
                Err(failed) => request = unsent(failed, is_reused)?,
            }
            self.0.leave(&key, &in_flight.0);
        }
    }

    /// A place on a shared connection, and whether others had one there before.
    async fn shared(&self, call: &Call<'_>, key: &Key) -> Result<(InFlight, bool), ConnectError> {
        let pool = call.pool();
        let connecting = {
            let mut endpoints = self.0.lock();
            let endpoint = endpoints.entry(key.clone()).or_default();
            if let Some(place) = place(&endpoint.shared, &pool) {
                return Ok((place, true));
            }
            endpoint.connecting.clone()
        };
        // Whoever waits for the connection that another opens waits too.
        let _pending = call.pending()?;
        let _alone = connecting.lock().await;
        if let Some(place) = self
            .0
            .lock()
            .get(key)
            .and_then(|it| place(&it.shared, &pool))
        {
            return Ok((place, true));
        }
        let place = Shared::open(call.http2().await?, Life::begin(call.target).ends);
        if !self.0.is_draining.load(Relaxed) {
            let mut endpoints = self.0.lock();
            endpoints
                .entry(key.clone())
                .or_default()
                .shared
                .push(place.0.clone());
        }
        Ok((place, false))
    }

    /// Closes connections that were idle, or there, for too long, or that their servers have closed.
    pub(in crate::waypoint) fn sweep(&self, now: Instant) {
        self.0.lock().retain(|_, endpoint| {
            endpoint.idle.retain_mut(|idle| {
                now < idle.until && now < idle.life.ends && idle.connection.is_open()
            });
            endpoint.shared.retain(|shared| {
                // Requests in flight keep it open until they end.
                now < shared.ends && !shared.sender.is_closed()
            });
            !endpoint.idle.is_empty()
                || !endpoint.shared.is_empty()
                || Arc::strong_count(&endpoint.connecting) > 1
        });
    }

    /// Keeps no connections of workloads that are gone.
    pub(in crate::waypoint) fn forget(&self, is_gone: impl Fn(&WorkloadUid) -> bool) {
        self.0.lock().retain(|key, _| {
            let workload = key.workload.as_ref();
            !workload.is_some_and(|(uid, _)| is_gone(uid))
        });
    }

    /// Closes what is idle, and keeps nothing from here on.
    pub(in crate::waypoint) fn drain(&self) {
        self.0.is_draining.store(true, Relaxed);
        self.0.lock().clear();
    }
}

/// The request that couldn't be sent, for another connection: nothing of it has gone, and the one that it was to go by
/// had been used before.
fn unsent(
    mut failed: TrySendError<Request<RequestBody>>,
    is_reused: bool,
) -> Result<Request<RequestBody>, SendError> {
    match failed.take_message() {
        Some(unsent) if is_reused => Ok(unsent),
        Some(unsent) => Err(ConnectError::Handshake(failed.into_error()).of(unsent)),
        None => Err(SendError::Closed(failed.into_error())),
    }
}

impl Inner {
    /// The one that was used last: the others may be idle for long enough to be closed.
    fn take(&self, key: &Key, pool: &ConnectionPool) -> Option<Idle> {
        let now = Instant::now();
        loop {
            let mut idle = self.lock().get_mut(key)?.idle.pop()?;
            if idle.connection.is_ready() && idle.life.goes_on(pool, now) {
                return Some(idle);
            }
        }
    }

    fn keep(&self, key: Key, connection: Driven, life: Life, pool: &ConnectionPool) {
        let now = Instant::now();
        if !life.goes_on(pool, now) || self.is_draining.load(Relaxed) {
            return;
        }
        let mut endpoints = self.lock();
        let idle = &mut endpoints.entry(key).or_default().idle;
        if idle.len() < MAX_IDLE {
            idle.push(Idle {
                connection,
                life,
                until: now + pool.idle_timeout,
            });
        }
    }

    /// Gives nobody a place on a connection any more.
    fn leave(&self, key: &Key, left: &Arc<Shared>) {
        if let Some(endpoint) = self.lock().get_mut(key) {
            endpoint.shared.retain(|shared| !Arc::ptr_eq(shared, left));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Endpoint>> {
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
