//! The maps of connections that pass from pod to pod, and the events that tell of them.

mod events;

use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ambit_common::{
    map::{FlowKey, ServiceKey},
    name,
    passed::{CLIENT, CONNECTED, Done, Event, Fingerprint, Passed, Passing, VerdictKey},
    splice::{JoinRequest, OWN_NAMESPACE, REQUEST_OFFSET},
};
use aya::{
    Ebpf,
    maps::{self as kernel, Array, MapData, MapError, RingBuf},
    programs::{SchedClassifier, TestRun, TestRunOptions},
};
use sha2::{Digest, Sha256};

pub use self::events::Events;
use super::{
    interfaces::monotonic_now,
    maps::{self, from_key, from_service_key, place, refused, take, to_key},
    poke::poke,
};
use crate::{discovery::model::WorkloadUid, identity::Identity};

/// What the kernel knows of connections that pass; cheap to clone.
#[derive(Clone)]
pub struct Passes(Arc<Shared>);

struct Shared {
    /// Of [`Passing::generation`], for whoever decides.
    generation: AtomicU64,
    pass_for: Duration,
    exists: SchedClassifier,
    maps: Mutex<PassMaps>,
}

struct PassMaps {
    passing: Array<MapData, Passing>,
    verdicts: kernel::HashMap<MapData, VerdictKey, u64>,
    passed: kernel::HashMap<MapData, FlowKey, Passed>,
    flows: kernel::HashMap<MapData, FlowKey, u32>,
    drawn: kernel::HashMap<MapData, FlowKey, u32>,
}

impl PassMaps {
    /// What the kernel remembers of a connection; nothing, if its addresses and ports are another's by now.
    fn remembered(&self, pass: &Pass) -> Option<Passed> {
        let passed = self.passed.get(&pass.key(), 0).ok()?;
        (passed.since == pass.since).then_some(passed)
    }
}

/// A connection that passes, by its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pass {
    /// As the client sees it.
    pub flow: FlowKey,
    /// Tells it from another with the same addresses and ports.
    pub since: u64,
}

impl Pass {
    /// The client's own address.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        SocketAddr::new(from_key(self.flow.pod), self.flow.pod_port)
    }

    /// The server's.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        SocketAddr::new(from_key(self.flow.peer), self.flow.peer_port)
    }

    fn key(&self) -> FlowKey {
        let mut key = self.flow;
        key.put_in_order();
        key
    }

    /// Since its first packet.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_nanos(monotonic_now().saturating_sub(self.since))
    }
}

/// A connection that passes, as the kernel tells of it.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// Which.
    pub pass: Pass,
    /// The service that the client connected to, if it was one.
    pub service: Option<SocketAddr>,
}

impl Told {
    /// By an event.
    #[must_use]
    pub fn by(event: &Event) -> Self {
        let (flow, since) = (event.flow, event.since);
        Self {
            pass: Pass { flow, since },
            service: service(&event.service),
        }
    }
}

/// What the kernel knows of a connection of which no pod has a socket any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// As far as the programs were told.
    pub was_connected: bool,
    /// What client and server have done; all zero where no program was told of an end.
    pub done: [Done; 2],
}

/// Why connections can't pass.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A map can't be used.
    #[error(transparent)]
    Maps(#[from] maps::Error),
    /// The events can't be waited for.
    #[error("events of the eBPF programs: {0}")]
    Events(#[from] io::Error),
}

impl Passes {
    pub(super) fn take(
        object: &mut Ebpf,
        exists: SchedClassifier,
        pass_for: Duration,
    ) -> Result<(Self, Events), Error> {
        let maps = PassMaps {
            passing: take(object, name::PASSING)?,
            verdicts: take(object, name::VERDICTS)?,
            passed: take(object, name::PASSED)?,
            flows: take(object, name::FLOWS)?,
            drawn: take(object, name::DRAWN)?,
        };
        let found = maps.passing.get(&0, 0).map_err(refused(name::PASSING))?;
        let shared = Shared {
            generation: AtomicU64::new(found.generation),
            pass_for,
            exists,
            maps: Mutex::new(maps),
        };
        let events: RingBuf<MapData> = take(object, name::EVENTS)?;
        Ok((Self(Arc::new(shared)), Events::new(events)?))
    }

    /// The generation of what is decided from now on. To be asked for before the state that a decision
    /// rests on.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Whether the kernel has drawn an endpoint for a connection from `client` to a service's VIP that
    /// comes to the agent. It tells once.
    #[must_use]
    pub fn was_drawn(&self, client: SocketAddr, service: SocketAddr) -> bool {
        let flow = FlowKey {
            pod: to_key(client.ip()),
            peer: to_key(service.ip()),
            pod_port: client.port(),
            peer_port: service.port(),
        };
        self.maps().drawn.remove(&flow).is_ok()
    }

    /// Whether any connections pass, ever.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.0.pass_for.is_zero()
    }

    /// Whether connections of that kind pass.
    #[must_use]
    pub fn is_allowed(&self, source: &Identity, destination: &WorkloadUid, port: u16) -> bool {
        if !self.is_on() {
            return false;
        }
        let key = verdict_key(source, destination, port);
        let verdict = self.maps().verdicts.get(&key, 0);
        verdict.is_ok_and(|generation| generation == self.generation())
    }

    /// From now on connections of that kind pass, as long as the generation is that one.
    pub fn allow(&self, source: &Identity, destination: &WorkloadUid, port: u16, generation: u64) {
        let key = verdict_key(source, destination, port);
        if let Err(error) = self.maps().verdicts.insert(key, generation, 0) {
            tracing::warn!("connections of one kind go on through the agent: {error}");
        }
    }

    /// Has everything be asked for again: something changed that decisions rest on.
    ///
    /// # Errors
    /// A map that refuses: then nothing may be told of the change.
    pub fn renew(&self) -> Result<(), maps::Error> {
        self.write(1)
    }

    /// Says that the agent lives.
    ///
    /// # Errors
    /// A map that refuses.
    pub fn beat(&self) -> Result<(), maps::Error> {
        self.write(0)
    }

    fn write(&self, step: u64) -> Result<(), maps::Error> {
        let mut maps = self.maps();
        let found = maps.passing.get(&0, 0).map_err(refused(name::PASSING))?;
        // Another agent may have come meanwhile, to take over: nothing is valid again.
        let own = self.0.generation.load(Ordering::Acquire);
        let generation = own.max(found.generation) + step;
        let passing = Passing {
            generation,
            heartbeat: monotonic_now(),
            pass_for: u64::try_from(self.0.pass_for.as_nanos()).unwrap_or(u64::MAX),
        };
        maps.passing
            .set(0, passing, 0)
            .map_err(refused(name::PASSING))?;
        self.0.generation.store(generation, Ordering::Release);
        Ok(())
    }

    /// Every connection that passes or is about to.
    #[must_use]
    pub fn list(&self) -> HashMap<Pass, Told> {
        let maps = self.maps();
        let remembered = maps.passed.iter().filter_map(Result::ok);
        remembered
            .map(|(key, passed)| {
                let pass = Pass {
                    flow: passed.as_client_sees(&key),
                    since: passed.since,
                };
                let service = service(&passed.service);
                (pass, Told { pass, service })
            })
            .collect()
    }

    /// How a connection ended of which no pod has a socket any more; `None` if it isn't remembered either.
    #[must_use]
    pub fn end(&self, pass: &Pass) -> Option<End> {
        let passed = self.maps().remembered(pass)?;
        let ends = [passed.client, passed.server];
        Some(End {
            was_connected: ends.iter().any(|end| end.flags & CONNECTED != 0),
            done: ends.map(|end| end.done),
        })
    }

    /// How many bytes one end (`CLIENT` or `SERVER`) has sent and the other's kernel has; `None` if
    /// its pod, whose network namespace has that id here, has no socket for it any more.
    #[must_use]
    pub fn sent(&self, pass: &Pass, end: u32, namespace: i32) -> Option<u64> {
        let (other, asked) = match end {
            CLIENT => (pass.server(), pass.client()),
            _ => (pass.client(), pass.server()),
        };
        let request = JoinRequest {
            id: end.into(),
            first: place(other, OWN_NAMESPACE),
            second: place(asked, namespace),
        };
        let frame = request.frame();
        let mut answer = frame;
        let options = TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut answer),
            ..TestRunOptions::default()
        };
        match self.0.exists.test_run(options) {
            Ok(result) if result.return_value == 0 => None,
            Ok(result) if result.return_value == 1 => {
                let sent = answer[REQUEST_OFFSET..].first_chunk();
                sent.map(|sent| u64::from_ne_bytes(*sent))
            }
            Ok(_) => Some(0),
            Err(error) => {
                tracing::debug!("asking for a pod's socket: {error}");
                Some(0)
            }
        }
    }

    /// The connection must end: from now on its packets come to the agent, which answers with a reset;
    /// both pods are made to send one.
    pub fn revoke(&self, pass: &Pass) {
        self.cut(pass);
        let (client, server) = (pass.client(), pass.server());
        for (pod, peer) in [(client, server), (server, client)] {
            if let Err(error) = poke(pod, peer) {
                tracing::warn!(%pod, %peer, "telling a pod that a connection has ended: {error}");
            }
        }
    }

    /// From now on the connection's packets come to the agent, which answers with a reset.
    pub fn cut(&self, pass: &Pass) {
        let mut maps = self.maps();
        let Some(passed) = maps.remembered(pass) else {
            return;
        };
        for (flow, end) in [
            (pass.flow, passed.client),
            (pass.flow.reversed(), passed.server),
        ] {
            if let Err(error) = maps.flows.insert(flow, end.epoch, 0) {
                tracing::error!("a connection that must end may go on: {error}");
            }
        }
        removed(maps.passed.remove(&pass.key()));
    }

    fn maps(&self) -> MutexGuard<'_, PassMaps> {
        // The maps are the kernel's: a panic leaves nothing half done.
        self.0.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Passes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Passes").finish_non_exhaustive()
    }
}

fn removed(result: Result<(), MapError>) {
    if let Err(error) = maps::absent_is_fine(result) {
        tracing::warn!("forgetting a connection that passed: {error}");
    }
}

fn service(key: &ServiceKey) -> Option<SocketAddr> {
    let is_named = *key != ServiceKey::default();
    is_named.then(|| from_service_key(key))?
}

fn verdict_key(source: &Identity, destination: &WorkloadUid, port: u16) -> VerdictKey {
    VerdictKey {
        source: of_identity(source),
        destination: of_workload(destination),
        port,
        padding: 0,
    }
}

/// What stands for an identity in the maps.
pub(super) fn of_identity(identity: &Identity) -> Fingerprint {
    fingerprint(identity.to_string().as_bytes())
}

/// What stands for a workload.
pub(super) fn of_workload(uid: &WorkloadUid) -> Fingerprint {
    fingerprint(uid.to_string().as_bytes())
}

fn fingerprint(name: &[u8]) -> Fingerprint {
    let mut half = Fingerprint::default();
    half.copy_from_slice(&Sha256::digest(name)[..size_of::<Fingerprint>()]);
    half
}
