//! Waypoints as children of a node's agent: started with their Gateway, restarted when they end,
//! stopped with the Gateway or the agent.
//!
//! What they listen at is the agent's, so connections wait while one is started again, and go to the
//! next agent's waypoint while one agent takes over from another.

mod sockets;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::{fd::OwnedFd, unix::net},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
pub use sockets::Sockets;
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    sync::broadcast::error::RecvError,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    discovery::{
        model::{ObjectName, WaypointPlace, WorkloadUid},
        store::{Snapshot, Store},
    },
    takeover,
};

/// When a child that ended is started again: after this long, then twice that, and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A waypoint that can't run costs the node a process each time.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// One that ran for as long was well.
const PROBATION: Duration = Duration::from_secs(60);
/// How long a child may take to end beyond its drain.
const GRACE: Duration = Duration::from_secs(3);

/// How children are run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program: this one.
    pub program: PathBuf,
    /// The node.
    pub node: Arc<str>,
    /// What all of them are told beyond what is their own.
    pub arguments: Vec<OsString>,
    /// How long their connections may go on when they are stopped.
    pub drain: Duration,
}

/// What a child is for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Job {
    uid: WorkloadUid,
    listen: Vec<SocketAddr>,
}

impl Job {
    /// On the port so far after that for HBONE: the store leaves it to the waypoint.
    fn beside(&self, offset: u16) -> SocketAddr {
        let first = self.listen.first().copied();
        let first = first.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        SocketAddr::new(first.ip(), first.port().saturating_add(offset))
    }

    /// On its own port, which is free on loopback, for it listens at the node's address.
    fn admin(&self) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.beside(0).port())
    }

    fn metrics(&self) -> SocketAddr {
        self.beside(1)
    }

    fn ready(&self) -> SocketAddr {
        self.beside(2)
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let own = [self.admin(), self.metrics(), self.ready()];
        self.listen.iter().copied().chain(own)
    }
}

struct Running {
    job: Job,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Runs the waypoints of this node until told to stop, and until they have stopped.
pub async fn supervise(
    settings: Settings,
    store: Arc<Store>,
    sockets: Sockets,
    stop: CancellationToken,
) {
    let settings = Arc::new(settings);
    let mut updates = store.subscribe();
    let mut running = BTreeMap::<ObjectName, Running>::new();
    let mut stopping = Vec::new();
    let mut snapshot = store.snapshot();
    loop {
        let wanted = wanted(&snapshot, &settings.node);
        let over = running.extract_if(.., |name, child| wanted.get(name) != Some(&child.job));
        for (name, child) in over.collect::<Vec<_>>() {
            tracing::info!(waypoint = %name, "stopping a waypoint");
            child.stop.cancel();
            stopping.push(child.task);
        }
        stopping.retain(|task| !task.is_finished());
        // A predecessor's that no waypoint is for any more among them.
        sockets.keep(wanted.values().flat_map(Job::addresses));
        for (name, job) in wanted {
            running.entry(name).or_insert_with_key(|name| {
                let stop = stop.child_token();
                let kept = Kept {
                    settings: settings.clone(),
                    sockets: sockets.clone(),
                    name: name.clone(),
                    job: job.clone(),
                };
                Running {
                    job,
                    task: tokio::spawn(kept.run(stop.clone())),
                    stop,
                }
            });
        }
        snapshot = tokio::select! {
            () = stop.cancelled() => break,
            update = updates.recv() => match update {
                Ok(update) => update.snapshot.clone(),
                Err(RecvError::Lagged(_)) => store.snapshot(),
                Err(RecvError::Closed) => break,
            },
        };
    }
    sockets.keep([]);
    let left = running.into_values().map(|child| child.task);
    for task in stopping.into_iter().chain(left) {
        // A panic of it was told already.
        let _ = task.await;
    }
}

/// The waypoints that are to run here.
fn wanted(snapshot: &Snapshot, node: &str) -> BTreeMap<ObjectName, Job> {
    let here = snapshot.waypoints().filter(|waypoint| {
        let is_here = |there: &WaypointPlace| {
            matches!(there, WaypointPlace::Node(Some(there)) if **there == *node)
        };
        is_here(&waypoint.place) && !waypoint.endpoints.is_empty()
    });
    here.map(|waypoint| {
        let endpoints = waypoint.endpoints.iter();
        let listen = endpoints.map(|endpoint| SocketAddr::new(endpoint.address, endpoint.port));
        let job = Job {
            uid: waypoint.uid.clone(),
            listen: listen.collect(),
        };
        (waypoint.name.clone(), job)
    })
    .collect()
}

/// One waypoint that is kept running.
struct Kept {
    settings: Arc<Settings>,
    sockets: Sockets,
    name: ObjectName,
    job: Job,
}

impl Kept {
    /// Until it is told to stop.
    async fn run(self, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            let started = Instant::now();
            let why = match self.start().await {
                // The waypoint ends when our end of the stream does.
                Ok((mut child, _agent_lives)) => {
                    tracing::info!(waypoint = %self.name, pid = child.id(), "started a waypoint");
                    tokio::select! {
                        ended = child.wait() => describe(ended),
                        () = stop.cancelled() => return self.end(child).await,
                    }
                }
                Err(error) => format!("can't be started: {error}"),
            };
            if started.elapsed() > PROBATION {
                pause = FIRST_PAUSE;
            }
            tracing::error!(
                waypoint = %self.name,
                "the waypoint {why}; it is started again in {} ms",
                pause.as_millis()
            );
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn start(&self) -> io::Result<(Child, UnixStream)> {
        let opened = self
            .job
            .addresses()
            .map(|address| self.sockets.open(address));
        let sockets: Vec<_> = opened.collect::<io::Result<_>>()?;
        let (own, its) = net::UnixStream::pair()?;
        own.set_nonblocking(true)?;
        let own = UnixStream::from_std(own)?;
        let child = self.command(its).spawn()?;
        takeover::give(&own, &sockets).await?;
        Ok((child, own))
    }

    fn command(&self, input: net::UnixStream) -> Command {
        let Self { settings, job, .. } = self;
        let listen: Vec<String> = job.listen.iter().map(ToString::to_string).collect();
        let mut command = Command::new(&settings.program);
        command
            .args([
                "waypoint",
                "--supervised",
                "--gateway",
                &self.name.to_string(),
            ])
            .args(["--node-name", &settings.node])
            .args(["--listen", &listen.join(",")])
            .args(["--admin-address", &job.admin().to_string()])
            .args(["--metrics-address", &job.metrics().to_string()])
            .args(["--ready-address", &job.ready().to_string()])
            .args(["--drain", &format!("{}ms", settings.drain.as_millis())])
            .args(&settings.arguments)
            // Ends when the agent does, however that comes about.
            .stdin(Stdio::from(OwnedFd::from(input)))
            .kill_on_drop(true);
        command
    }

    /// Asks it to end, and kills it if it doesn't.
    async fn end(&self, mut child: Child) {
        let pid = child
            .id()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            // It fails only on one that has ended.
            let _ = kill_process(pid, Signal::TERM);
        }
        let patience = self.settings.drain + GRACE;
        if timeout(patience, child.wait()).await.is_err() {
            tracing::warn!(waypoint = %self.name, "the waypoint didn't end, and is killed");
            let _ = child.kill().await;
        }
    }
}

fn describe(ended: io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => format!("ended ({status})"),
        Err(error) => format!("can't be waited for: {error}"),
    }
}
