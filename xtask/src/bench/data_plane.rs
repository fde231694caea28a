//! What stands between the pods of one lab: nothing, a proxy in each pod, or an agent on each node.

use std::{
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lab::{
    Lab, Mesh, Node, Pod, RunningMesh, WaypointPod, deploy,
    sidecar::{Fleet, Kind},
};
use serde_json::Value;

use super::{plan::Subject, processes, waypoint};

/// As an operator runs it: no certificate expires while a benchmark lasts.
const CERTIFICATE_TTL: &str = "24h";

/// What labs and data planes are made from.
#[derive(Debug)]
pub(super) struct Makings {
    /// The `ambit` program, a release build.
    pub(super) ambit: PathBuf,
    /// The directory of a release build's `lab-load`.
    pub(super) programs: PathBuf,
    /// All sidecars that there are.
    pub(super) kinds: Vec<Kind>,
}

/// A data plane that runs; its processes end with it.
#[derive(Debug)]
pub(super) enum DataPlane<'a> {
    Direct,
    Sidecars(Fleet),
    Agents(RunningMesh<'a>),
    /// The same, and a waypoint, as a cluster runs them: the source of truth is an API server, and the waypoint a
    /// pod of the Deployment that control has made.
    Waypoint(RunningMesh<'a>, Box<WaypointPod>),
}

impl Makings {
    /// An empty lab: two nodes, routed pods, IPv4.
    ///
    /// # Errors
    /// As [`lab::Builder::build`].
    pub(super) fn lab(&self) -> Result<Lab> {
        Ok(Lab::builder("bench").programs(&self.programs).build()?)
    }
}

impl<'a> DataPlane<'a> {
    /// Starts one for the pods that are there, and waits until it is ready.
    ///
    /// # Errors
    /// A part of it doesn't start.
    pub(super) fn start(
        lab: &'a Lab,
        subject: &Subject,
        makings: &Makings,
        pods: &[&Pod],
    ) -> Result<DataPlane<'a>> {
        match subject {
            Subject::Direct => Ok(DataPlane::Direct),
            Subject::Sidecar(mode) | Subject::HttpSidecar(mode) => {
                let kind = makings.kinds.iter().find(|kind| kind.mode() == *mode);
                let kind = kind.with_context(|| format!("no sidecar is of mode {mode}"))?;
                Ok(DataPlane::Sidecars(Fleet::start(lab, kind, pods)?))
            }
            Subject::Ambit => Ok(DataPlane::Agents(agents(lab, makings, Mesh::default())?)),
            Subject::AmbitProxied => {
                let mesh = Mesh::default().carrying_all();
                Ok(DataPlane::Agents(agents(lab, makings, mesh)?))
            }
            Subject::AmbitWaypoint => {
                let api = Arc::new(deploy::installed(lab)?);
                let mesh = Mesh::default().control_arguments(&waypoint::IMAGE);
                let mesh = agents(lab, makings, mesh.in_cluster(lab, &api)?)?;
                let waypoint = waypoint::start(lab, &api, &makings.ambit)?;
                Ok(DataPlane::Waypoint(mesh, Box::new(waypoint)))
            }
        }
    }

    /// Brings a pod into the mesh that was made after its start. Agents see it for themselves.
    ///
    /// # Errors
    /// Its proxy doesn't start.
    pub(super) fn add(&mut self, pod: &Pod) -> Result<()> {
        if let DataPlane::Sidecars(fleet) = self {
            fleet.add(pod)?;
        }
        Ok(())
    }

    /// Ends what a pod has of its own, before it goes.
    pub(super) fn remove(&mut self, pod: &Pod) {
        if let DataPlane::Sidecars(fleet) = self {
            fleet.remove(pod);
        }
    }

    /// Stops the proxy of a pod in order and starts it again: its sidecar, or the agent of its
    /// node. Without a proxy nothing happens.
    ///
    /// # Errors
    /// It doesn't end, or isn't ready again.
    pub(super) fn restart(&mut self, pod: &Pod) -> Result<()> {
        match self {
            DataPlane::Direct => {}
            DataPlane::Sidecars(fleet) => fleet.restart(pod)?,
            DataPlane::Agents(mesh) | DataPlane::Waypoint(mesh, _) => {
                mesh.stop_agent(pod.node().name())?;
                mesh.start_agent(pod.node())?;
            }
        }
        Ok(())
    }

    /// Waits until each agent knows so many pods, and has the certificates of those of its node.
    /// Sidecars were ready when they were added.
    ///
    /// # Errors
    /// It isn't so within `limit`.
    pub(super) fn await_pods(&self, lab: &Lab, pods: &[Pod], limit: Duration) -> Result<()> {
        /// Asking is work for the agent, too.
        const PAUSE: Duration = Duration::from_millis(50);

        if !matches!(self, DataPlane::Agents(_)) {
            return Ok(());
        }
        let end = Instant::now() + limit;
        for node in lab.nodes() {
            let own = pods
                .iter()
                .filter(|pod| pod.node().name() == node.name())
                .count();
            while known(node)? != (pods.len(), own) {
                if Instant::now() >= end {
                    let (workloads, certificates) = known(node)?;
                    bail!(
                        "the agent of {} knows {workloads} of {} pods and has certificates for \
                         {certificates} of its {own} after {} s",
                        node.name(),
                        pods.len(),
                        limit.as_secs()
                    );
                }
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// What it has done so far, in a unit of its own: connections that agents took or let pass, ticks of
    /// sidecars' CPU time, requests that a waypoint answered. `None` if there is nothing to do anything.
    ///
    /// # Errors
    /// It can't be asked.
    pub(super) fn work(&mut self, lab: &Lab) -> Result<Option<f64>> {
        match self {
            DataPlane::Direct => Ok(None),
            DataPlane::Sidecars(fleet) => {
                Ok(Some(processes::cpu_time(&fleet.pids())?.as_secs_f64()))
            }
            DataPlane::Agents(_) => {
                let mut connections = 0.0;
                for node in lab.nodes() {
                    connections += node.packets("captured_new")? + node.packets("passed_new")?;
                }
                Ok(Some(connections))
            }
            DataPlane::Waypoint(_, waypoint) => Ok(Some(waypoint::requests(waypoint)?)),
        }
    }

    /// The processes that carry the mesh's bytes. The certificate authority isn't one of them.
    pub(super) fn pids(&mut self, lab: &Lab) -> Vec<u32> {
        let mut pids = self.http_pids();
        if let DataPlane::Agents(mesh) | DataPlane::Waypoint(mesh, _) = self {
            let nodes = lab.nodes().iter();
            pids.extend(nodes.map(|node| mesh.agent(node.name()).pid()));
        }
        pids
    }

    /// Those of them that read HTTP, if any does: sidecars, or the waypoint.
    pub(super) fn http_pids(&self) -> Vec<u32> {
        match self {
            DataPlane::Direct | DataPlane::Agents(_) => Vec::new(),
            DataPlane::Sidecars(fleet) => fleet.pids(),
            DataPlane::Waypoint(_, waypoint) => vec![waypoint.process.pid()],
        }
    }
}

/// Settings are the defaults, access log included; the log goes to files of the lab.
fn agents<'a>(lab: &'a Lab, makings: &Makings, mesh: Mesh) -> Result<RunningMesh<'a>> {
    // Said, so that the environment can't say something else.
    let log = ["--log-level", "info", "--log-format", "text"];
    let mesh = mesh
        .program(&makings.ambit)
        .certificate_ttl(CERTIFICATE_TTL)
        .agent_arguments(&log)
        .start(lab)?;
    Ok(mesh)
}

/// How many workloads a node's agent knows, and how many certificates it has.
fn known(node: &Node) -> Result<(usize, usize)> {
    let (workloads, certificates) = (node.admin("/workloads")?, node.admin("/certificates")?);
    let all = |value: &Value| value.as_array().map_or(0, Vec::len);
    let issued = certificates.as_array().into_iter().flatten();
    let issued = issued.filter(|certificate| certificate["serial"].is_string());
    Ok((all(&workloads), issued.count()))
}
