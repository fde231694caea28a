//! Ambit in a lab: one control, and an agent on each node.

mod agent;
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

pub(crate) use self::agent::role;
use self::cluster::Cluster;
use crate::{ApiServer, Child, Error, Lab, Node, Place, Result, peer};

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
    agents: BTreeMap<String, agent::Agent>,
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
        let mut control = self.spawn_control(node)?;
        await_control(&mut control)?;
        Ok(control)
    }

    fn spawn_control(&self, node: &Node) -> Result<Child> {
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
        command.args(&self.settings.control_arguments).spawn()
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

fn await_control(control: &mut Child) -> Result<()> {
    let is_ready = |line: &str| line.contains("certificate authority ready");
    control.await_stderr(READY, is_ready).map(drop)
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
