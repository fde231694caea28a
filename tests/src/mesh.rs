//! Ambit in a lab: one control, and an agent on each node.

mod cluster;
mod settle;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;

use self::cluster::Cluster;
use crate::{ApiServer, Child, Error, Lab, Node, Place, Result, peer, wait};

/// How long a role may take to be ready.
const READY: Duration = Duration::from_secs(60);
/// Where an agent shows its state, in its node's namespace.
const ADMIN: &str = "http://127.0.0.1:15000";

/// Where the `ambit` program is: beside the running program, or above the directory of test
/// programs.
///
/// # Errors
/// If it isn't there.
pub fn ambit_program() -> Result<PathBuf> {
    peer::program("ambit", "ambit")
}

/// How a mesh is set up. All else is as a user would have it.
#[derive(Debug, Clone)]
pub struct Mesh {
    program: Option<PathBuf>,
    certificate_ttl: String,
    control_arguments: Vec<String>,
    agent_arguments: Vec<String>,
    cluster: Option<Cluster>,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            program: None,
            certificate_ttl: "10m".into(),
            control_arguments: Vec::new(),
            agent_arguments: Vec::new(),
            cluster: None,
        }
    }
}

impl Mesh {
    /// The `ambit` program to run. Default [`ambit_program`].
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Life of workloads' certificates, as `--certificate-ttl` takes it. Default `10m`.
    #[must_use]
    pub fn certificate_ttl(mut self, ttl: &str) -> Self {
        self.certificate_ttl = ttl.into();
        self
    }

    /// Further arguments of `ambit control`.
    #[must_use]
    pub fn control_arguments(mut self, arguments: &[&str]) -> Self {
        self.control_arguments
            .extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Further arguments of each `ambit node`.
    #[must_use]
    pub fn agent_arguments(mut self, arguments: &[&str]) -> Self {
        self.agent_arguments
            .extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Has all roles work on an API server instead of the lab's files, with accounts `ambit-node` and
    /// `ambit-control` of namespace `ambit-system`.
    ///
    /// # Errors
    /// If what they need can't be written.
    pub fn in_cluster(mut self, lab: &Lab, api: &Arc<ApiServer>) -> Result<Self> {
        self.cluster = Some(Cluster::new(lab, api)?);
        Ok(self)
    }

    /// Has the agents carry every connection, also those between pods of one node.
    #[must_use]
    pub fn carrying_all(self) -> Self {
        self.agent_arguments(&["--same-node", "proxy"])
    }

    /// Starts control on the first node and an agent on each, and waits until all are ready.
    ///
    /// # Errors
    /// If one of them isn't.
    pub fn start(self, lab: &Lab) -> Result<RunningMesh<'_>> {
        let state = lab.directory().join("control");
        let tokens = lab.directory().join("node-tokens");
        let mut lines = String::new();
        for node in lab.nodes() {
            let projected = self
                .cluster
                .as_ref()
                .and_then(|cluster| cluster.token(node));
            let token = projected
                .cloned()
                .unwrap_or_else(|| format!("token-of-{}", node.name()));
            lines += &format!("{token},{}\n", node.name());
            write_secret(
                &lab.directory().join(format!("token-{}", node.name())),
                &token,
            )?;
        }
        write_secret(&tokens, &lines)?;

        let first = &lab.nodes()[0];
        let ca_address = SocketAddr::new(first.address(), 15012);
        let mut mesh = RunningMesh {
            lab,
            settings: self,
            state,
            tokens,
            ca_address,
            control: None,
            agents: BTreeMap::new(),
            started: 0,
        };
        mesh.start_control()?;
        for node in lab.nodes() {
            mesh.start_agent(node)?;
        }
        Ok(mesh)
    }
}

/// A mesh that runs. Its processes end with it.
#[derive(Debug)]
pub struct RunningMesh<'a> {
    lab: &'a Lab,
    settings: Mesh,
    state: PathBuf,
    tokens: PathBuf,
    ca_address: SocketAddr,
    control: Option<Child>,
    agents: BTreeMap<String, Child>,
    /// Agents so far.
    started: u32,
}

impl RunningMesh<'_> {
    /// Where control keeps its root, and the trust bundle is.
    #[must_use]
    pub fn state_directory(&self) -> &Path {
        &self.state
    }

    /// The certificate authority's address.
    #[must_use]
    pub fn ca_address(&self) -> SocketAddr {
        self.ca_address
    }

    /// The agent of a node.
    ///
    /// # Panics
    /// If it was stopped.
    pub fn agent(&mut self, node: &str) -> &mut Child {
        self.agents
            .get_mut(node)
            .unwrap_or_else(|| panic!("no agent runs on {node}"))
    }

    /// Starts control, on the state of an earlier one if there was one.
    ///
    /// # Errors
    /// If it isn't ready in time.
    pub fn start_control(&mut self) -> Result<()> {
        self.control = Some(self.start_replica(&self.lab.nodes()[0])?);
        match &self.settings.cluster {
            Some(cluster) => cluster.mount_bundle(&self.state.join("trust-bundle.pem")),
            None => Ok(()),
        }
    }

    /// Starts a control on a node, beside whichever runs on others. Agents call that of the first node.
    ///
    /// # Errors
    /// If it isn't ready in time.
    pub fn start_replica(&self, node: &Node) -> Result<Child> {
        let address = SocketAddr::new(node.address(), self.ca_address.port());
        let mut command = node
            .command(self.program()?)
            .arg("control")
            .args(self.source(|cluster| &cluster.control))
            .args(["--listen", &address.to_string()])
            .args(["--server-names", &address.ip().to_string()])
            .args(["--certificate-ttl", &self.settings.certificate_ttl]);
        if self.settings.cluster.is_none() {
            command = command
                .args(["--state-directory".as_ref(), self.state.as_os_str()])
                .args(["--node-tokens".as_ref(), self.tokens.as_os_str()]);
        }
        command = command.args(&self.settings.control_arguments);
        let mut control = command.spawn()?;
        control.await_stderr(READY, |line| line.contains("certificate authority ready"))?;
        Ok(control)
    }

    /// The control that agents call.
    ///
    /// # Panics
    /// If it was stopped.
    pub fn control(&mut self) -> &mut Child {
        self.control
            .as_mut()
            .unwrap_or_else(|| panic!("no control runs"))
    }

    /// Stops control by `kill -9`.
    pub fn kill_control(&mut self) {
        if let Some(control) = self.control.take() {
            control.kill();
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
        let token = self.lab.directory().join(format!("token-{}", node.name()));
        let bundle = self.state.join("trust-bundle.pem");
        self.started += 1;
        let instance = self.started.to_string();
        let mut command = node
            .command(self.program()?)
            .args(["node", "--node-name", node.name()])
            .args(self.source(|cluster| &cluster.agent))
            .args(["--ca-address", &self.ca_address.to_string()])
            .args(["--ca-root".as_ref(), bundle.as_os_str()])
            .args(["--ca-token".as_ref(), token.as_os_str()])
            .args(["--bpffs".as_ref(), node.bpf_directory().as_os_str()])
            .args(["--cgroup".as_ref(), self.lab.cgroup().as_os_str()])
            .args(["--run-directory".as_ref(), node.run_directory().as_os_str()])
            .args(["--instance", &instance])
            .env("AMBIT_DRAIN", "1s");
        command = command.args(&self.settings.agent_arguments);
        let mut agent = command.spawn()?;
        wait::poll(
            &format!("the agent of {} to be ready", node.name()),
            READY,
            || {
                if !agent.is_running() {
                    return Ok(Err(agent.stderr()));
                }
                let asked = ambit_program()
                    .and_then(|program| node.run(program, ["ready", "--instance", &instance]));
                match asked.map(|told| told.succeeded()) {
                    Ok(true) => Ok(Ok(())),
                    _ => Err(agent.stderr()),
                }
            },
        )?
        .map_err(|stderr| Error::Malformed {
            what: format!("the agent of {}", node.name()),
            cause: format!("it ended: {stderr}"),
        })?;
        Ok(self.agents.insert(node.name().into(), agent))
    }

    /// Stops the agent of a node by `kill -9`: it can't clean up.
    pub fn kill_agent(&mut self, node: &str) {
        if let Some(agent) = self.agents.remove(node) {
            agent.kill();
        }
    }

    /// Stops the agent of a node in order, by SIGTERM.
    ///
    /// # Errors
    /// If it doesn't end.
    pub fn stop_agent(&mut self, node: &str) -> Result<()> {
        if let Some(agent) = self.agents.remove(node) {
            agent.stop()?;
        }
        Ok(())
    }

    /// Stops every agent and removes what they left on the nodes.
    ///
    /// # Errors
    /// If a part of it can't be removed.
    pub fn uninstall(mut self) -> Result<()> {
        for node in self.lab.nodes() {
            self.stop_agent(node.name())?;
            node.run(
                self.program()?,
                [
                    "uninstall".as_ref(),
                    "--bpffs".as_ref(),
                    node.bpf_directory().as_os_str(),
                    "--run-directory".as_ref(),
                    node.run_directory().as_os_str(),
                ],
            )?
            .success()?;
        }
        Ok(())
    }

    /// Where a role takes objects from.
    fn source(&self, kubeconfig: impl Fn(&Cluster) -> &PathBuf) -> Vec<OsString> {
        match &self.settings.cluster {
            Some(cluster) => vec![
                "--source".into(),
                "kubernetes".into(),
                "--kubeconfig".into(),
                kubeconfig(cluster).into(),
            ],
            None => vec![
                "--directory".into(),
                self.lab.manifests().directory().into(),
            ],
        }
    }

    fn program(&self) -> Result<PathBuf> {
        self.settings.program.clone().map_or_else(ambit_program, Ok)
    }
}

impl Node {
    /// What the node's agent shows on its admin port, as JSON.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub fn admin(&self, path: &str) -> Result<Value> {
        self.run("curl", ["-sf", &format!("{ADMIN}{path}")])?.json()
    }

    /// The value of one sample of the agent's metrics: the sum over all whose labels include
    /// those given. 0 if there is none.
    ///
    /// # Errors
    /// If the agent doesn't answer.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let page = self
            .run("curl", ["-sf", "http://127.0.0.1:15020/metrics"])?
            .success()?;
        let wanted: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        Ok(page
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && wanted.iter().all(|label| line.contains(label.as_str()))
            })
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum())
    }

    /// Packets that the node's programs counted for a reason.
    ///
    /// # Errors
    /// If the agent doesn't answer.
    pub fn packets(&self, reason: &str) -> Result<f64> {
        self.metric("ambit_capture_packets_total", &[("reason", reason)])
    }
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    let doing = |what: &str| format!("{what} {}", path.display());
    fs::write(path, text).map_err(Error::io(doing("write")))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(Error::io(doing("protect")))
}

impl Place {
    /// Fetches a URL by curl; the body, and an error if there was no 2xx answer.
    ///
    /// # Errors
    /// If curl says so.
    pub fn fetch(&self, url: &str) -> Result<String> {
        self.run("curl", ["-sS", "--fail", "--max-time", "15", url])?
            .success()
    }
}
