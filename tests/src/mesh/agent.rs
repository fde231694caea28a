//! Agents that come and go: in order, at once, and not at all in order.

use std::path::Path;

use super::{READY, RunningMesh, await_control};
use crate::{Child, Error, Node, Result, cgroup, sys, wait};

/// An agent that runs, or did.
#[derive(Debug)]
pub(super) struct Agent {
    child: Child,
    /// Tells it from another of its node.
    instance: String,
}

impl RunningMesh<'_> {
    /// The agent of a node.
    ///
    /// # Panics
    /// If it was stopped.
    pub fn agent(&mut self, node: &str) -> &mut Child {
        match self.agents.get_mut(node) {
            Some(agent) => &mut agent.child,
            None => panic!("no agent runs on {node}"),
        }
    }

    /// Starts the agent of a node, and waits until it's ready.
    ///
    /// # Errors
    /// If it isn't ready in time.
    pub fn start_agent(&mut self, node: &Node) -> Result<()> {
        self.replace_agent(node).map(drop)
    }

    /// As [`RunningMesh::start_agent`]; an agent that runs is taken over from, and left to end by itself.
    ///
    /// # Errors
    /// If the new one isn't ready in time.
    pub fn replace_agent(&mut self, node: &Node) -> Result<Option<Child>> {
        let mut agent = self.spawn_agent(node)?;
        await_agent(&self.program()?, node, &mut agent)?;
        let before = self.agents.insert(node.name().into(), agent);
        Ok(before.map(|before| before.child))
    }

    /// Starts the agent of a node and goes on. One that runs is taken over from, and no longer ours.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn begin_agent(&mut self, node: &Node) -> Result<Option<Child>> {
        let agent = self.spawn_agent(node)?;
        let before = self.agents.insert(node.name().into(), agent);
        Ok(before.map(|before| before.child))
    }

    /// Starts control and goes on.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn begin_control(&mut self) -> Result<()> {
        self.control = Some(self.spawn_control(&self.lab.nodes()[0])?);
        Ok(())
    }

    /// Waits until control and agents that were begun are ready.
    ///
    /// # Errors
    /// If one isn't in time, or ended.
    pub fn await_ready(&mut self) -> Result<()> {
        if let Some(control) = &mut self.control {
            await_control(control)?;
        }
        let program = self.program()?;
        for (name, agent) in &mut self.agents {
            await_agent(&program, self.lab.node(name), agent)?;
        }
        Ok(())
    }

    /// Stops the agent of a node by `kill -9`: it can't clean up.
    pub fn kill_agent(&mut self, node: &str) {
        if let Some(agent) = self.agents.remove(node) {
            agent.child.kill();
        }
    }

    /// Sends `kill -9` to the process of a node's agent, and to no child of it, and waits for its end.
    /// False if it had ended by itself.
    ///
    /// # Errors
    /// If the signal can't be sent.
    pub fn crash_agent(&mut self, node: &str) -> Result<bool> {
        match self.agents.remove(node) {
            Some(agent) => crash(agent.child),
            None => Ok(false),
        }
    }

    /// The same with control.
    ///
    /// # Errors
    /// If the signal can't be sent.
    pub fn crash_control(&mut self) -> Result<bool> {
        self.control.take().map_or(Ok(false), crash)
    }

    /// The same with a waypoint that the agent of a node runs, which starts it again. False if there is none
    /// just then.
    ///
    /// # Errors
    /// If the node's processes can't be listed.
    pub fn crash_waypoint(&self, node: &str) -> Result<bool> {
        let waypoint = self.waypoint(node)?;
        // It isn't ours to wait for, but its agent's: it may be gone by now.
        Ok(waypoint.is_some_and(|pid| sys::signal(pid, libc::SIGKILL).is_ok()))
    }

    /// Kills a waypoint that the agent of a node runs, and waits until there is another. What it kept open in its
    /// own name, as connections to servers are for clients to come, is gone then.
    ///
    /// # Errors
    /// If there is none, before or in time.
    pub fn renew_waypoint(&self, node: &str) -> Result<()> {
        let await_other = |than: Option<u32>| {
            wait::poll(&format!("a waypoint on {node}"), READY, || {
                let found = self.waypoint(node).map_err(|error| error.to_string())?;
                found
                    .filter(|pid| Some(*pid) != than)
                    .ok_or_else(|| "there is none".into())
            })
        };
        let before = await_other(None)?;
        sys::signal(before, libc::SIGKILL).map_err(Error::io("kill a waypoint"))?;
        await_other(Some(before)).map(drop)
    }

    fn waypoint(&self, node: &str) -> Result<Option<u32>> {
        let processes = cgroup::processes(self.lab.node(node).cgroup())?;
        let is_waypoint = |pid: &u32| role(*pid).as_deref() == Some("waypoint");
        Ok(processes.into_iter().find(is_waypoint))
    }

    /// Stops the agent of a node in order, by SIGTERM.
    ///
    /// # Errors
    /// If it doesn't end.
    pub fn stop_agent(&mut self, node: &str) -> Result<()> {
        if let Some(agent) = self.agents.remove(node) {
            agent.child.stop()?;
        }
        Ok(())
    }

    /// Stops control in order, by SIGTERM, and starts another.
    ///
    /// # Errors
    /// If one doesn't end, or the other isn't ready in time.
    pub fn replace_control(&mut self) -> Result<()> {
        if let Some(control) = self.control.take() {
            control.stop()?;
        }
        self.start_control()
    }

    /// The processes of the mesh that run now, by role and node.
    ///
    /// # Errors
    /// If a node's processes can't be listed.
    pub(crate) fn processes(&self) -> Result<Vec<(String, u32)>> {
        let mut all = Vec::new();
        for node in self.lab.nodes() {
            for pid in cgroup::processes(node.cgroup())? {
                all.extend(role(pid).map(|role| (format!("{role} on {}", node.name()), pid)));
            }
        }
        Ok(all)
    }

    fn spawn_agent(&mut self, node: &Node) -> Result<Agent> {
        let token = self.lab.directory().join(format!("token-{}", node.name()));
        let bundle = self.state.join("trust-bundle.pem");
        self.started += 1;
        let instance = self.started.to_string();
        let command = node
            .command(self.program()?)
            .args(["node", "--node-name", node.name()])
            .args(self.source(|cluster| &cluster.agent))
            .args(["--ca-address", &self.ca_address.to_string()])
            .args(["--ca-root".as_ref(), bundle.as_os_str()])
            .args(["--ca-token".as_ref(), token.as_os_str()])
            .args(["--bpffs".as_ref(), node.bpf_directory().as_os_str()])
            // A node has a kernel of its own elsewhere, whose sockets no other node's agent is told of.
            .args(["--cgroup".as_ref(), node.cgroup_tree().as_os_str()])
            .args(["--run-directory".as_ref(), node.run_directory().as_os_str()])
            .args(["--instance", &instance])
            .env("AMBIT_DRAIN", "1s");
        let child = command.args(&self.settings.agent_arguments).spawn()?;
        Ok(Agent { child, instance })
    }
}

fn await_agent(program: &Path, node: &Node, agent: &mut Agent) -> Result<()> {
    let Agent { child, instance } = agent;
    let ended = wait::poll(
        &format!("the agent of {} to be ready", node.name()),
        READY,
        || {
            if !child.is_running() {
                return Ok(Some(child.stderr()));
            }
            let asked = node.run(program, ["ready", "--instance", instance]);
            match asked.map(|told| told.succeeded()) {
                Ok(true) => Ok(None),
                _ => Err(child.stderr()),
            }
        },
    )?;
    ended.map_or(Ok(()), |stderr| {
        Err(Error::Malformed {
            what: format!("the agent of {}", node.name()),
            cause: format!("it ended: {stderr}"),
        })
    })
}

/// The role that a process of the mesh has; none if it is another's, or has ended.
pub(crate) fn role(pid: u32) -> Option<String> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split('\0');
    let program = words.next()?;
    if !program.ends_with("/ambit") {
        return None;
    }
    words.next().map(str::to_owned)
}

fn crash(mut child: Child) -> Result<bool> {
    let was_running = child.is_running();
    if was_running {
        child.signal(libc::SIGKILL)?;
    }
    child.wait(READY)?;
    Ok(was_running)
}
