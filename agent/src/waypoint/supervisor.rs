//! Waypoints as children of a node's agent: started with their Gateway, restarted when they end,
//! stopped with the Gateway or the agent.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    sync::broadcast::error::RecvError,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::discovery::{
    model::{ObjectName, WaypointPlace, WorkloadUid},
    store::{Snapshot, Store},
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

struct Running {
    job: Job,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Runs the waypoints of this node until told to stop, and until they have stopped.
pub async fn supervise(settings: Settings, store: Arc<Store>, stop: CancellationToken) {
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
        for (name, job) in wanted {
            running.entry(name).or_insert_with_key(|name| {
                let stop = stop.child_token();
                let keep = keep(settings.clone(), name.clone(), job.clone(), stop.clone());
                Running {
                    job,
                    task: tokio::spawn(keep),
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

/// Keeps one waypoint running until it is told to stop.
async fn keep(settings: Arc<Settings>, name: ObjectName, job: Job, stop: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let why = match start(&settings, &name, &job) {
            Ok(mut child) => {
                tracing::info!(waypoint = %name, pid = child.id(), "started a waypoint");
                // To wait for a child closes its input, which would end it.
                let _agent_lives = child.stdin.take();
                tokio::select! {
                    ended = child.wait() => describe(ended),
                    () = stop.cancelled() => return end(&settings, &name, child).await,
                }
            }
            Err(error) => format!("can't be started: {error}"),
        };
        if started.elapsed() > PROBATION {
            pause = FIRST_PAUSE;
        }
        tracing::error!(
            waypoint = %name,
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

fn describe(ended: io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => format!("ended ({status})"),
        Err(error) => format!("can't be waited for: {error}"),
    }
}

fn start(settings: &Settings, name: &ObjectName, job: &Job) -> io::Result<Child> {
    let listen: Vec<String> = job.listen.iter().map(ToString::to_string).collect();
    let first = job.listen.first().copied();
    let first = first.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    // On the next two ports, which the store leaves to it; and on its own, which is free on loopback, for
    // it listens at the node's address.
    let beside =
        |offset| SocketAddr::new(first.ip(), first.port().saturating_add(offset)).to_string();
    let admin = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), first.port());
    Command::new(&settings.program)
        .args(["waypoint", "--supervised", "--gateway", &name.to_string()])
        .args(["--node-name", &settings.node])
        .args(["--listen", &listen.join(",")])
        .args(["--admin-address", &admin.to_string()])
        .args(["--metrics-address", &beside(1)])
        .args(["--ready-address", &beside(2)])
        .args(["--drain", &format!("{}ms", settings.drain.as_millis())])
        .args(&settings.arguments)
        // Ends when the agent does, however that comes about.
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Asks it to end, and kills it if it doesn't.
async fn end(settings: &Settings, name: &ObjectName, mut child: Child) {
    let pid = child
        .id()
        .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    if let Some(pid) = pid {
        // It fails only on one that has ended.
        let _ = kill_process(pid, Signal::TERM);
    }
    if timeout(settings.drain + GRACE, child.wait()).await.is_err() {
        tracing::warn!(waypoint = %name, "the waypoint didn't end, and is killed");
        let _ = child.kill().await;
    }
}
