//! The lab itself: what it is called, who is in it, and how it ends.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    Capture, Error, Family, Manifests, NamespaceManifest, Node, Place, PodNetwork, Result, Service,
    cgroup, ip,
    plan::{BRIDGE, NODE_INTERFACE},
    sys,
    watchdog::Watchdog,
};

/// The namespace in which the wires of three nodes and more meet. No node can have the name.
const WIRE: &str = "wire";
/// How much of a failed test's logs is shown, in bytes a file.
const SHOWN_LOG: usize = 4096;

/// Tells the labs of one process apart.
static LABS: AtomicUsize = AtomicUsize::new(0);

/// Nodes, pods and manifests, all of them its own.
///
/// Dropping it takes it down: its processes are killed, and its namespaces, cgroups, mounts and
/// files removed. The same happens when the process that made it ends, in whatever way. A test
/// that panics is shown what the lab's processes wrote to their standard error.
#[derive(Debug)]
pub struct Lab {
    shared: Arc<Shared>,
    nodes: Vec<Node>,
    wire: Option<Place>,
    next_service: AtomicU8,
    /// None once the lab is taken down or kept.
    watchdog: Option<Watchdog>,
}

/// What all parts of a lab know.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) cgroup: PathBuf,
    pub(crate) family: Family,
    pub(crate) network: PodNetwork,
    pub(crate) rp_filter: u8,
    pub(crate) manifests: Manifests,
    /// Numbers log files.
    pub(crate) sequence: AtomicUsize,
    /// The lab outlives this process, and so do its processes.
    pub(crate) kept: AtomicBool,
}

/// What a lab is to be. Two nodes, `a` and `b`, with routed IPv4 pods if nothing else is said.
#[derive(Debug, Clone)]
pub struct Builder {
    name: String,
    nodes: Vec<String>,
    network: PodNetwork,
    family: Family,
    rp_filter: u8,
}

impl Builder {
    /// How pods are connected to their node.
    #[must_use]
    pub fn pods(mut self, network: PodNetwork) -> Builder {
        self.network = network;
        self
    }

    /// Which address families there are.
    #[must_use]
    pub fn family(mut self, family: Family) -> Builder {
        self.family = family;
        self
    }

    /// The names of the nodes. Two are connected by a veth pair, others by a bridge.
    #[must_use]
    pub fn nodes(mut self, names: &[&str]) -> Builder {
        self.nodes = names.iter().map(|name| (*name).into()).collect();
        self
    }

    /// The nodes' `rp_filter`: 0 (default), 1 strict, 2 loose.
    #[must_use]
    pub fn rp_filter(mut self, mode: u8) -> Builder {
        self.rp_filter = mode;
        self
    }

    /// Makes the lab.
    ///
    /// # Errors
    /// If this process isn't root, a name is unfit, or the system refuses.
    pub fn build(self) -> Result<Lab> {
        if !sys::is_root() {
            return Err(Error::NotRoot);
        }
        check_name("lab", &self.name)?;
        for node in &self.nodes {
            check_name("node", node)?;
            if node == WIRE {
                return Err(Error::BadName {
                    what: "node",
                    name: node.clone(),
                });
            }
        }
        let directory = tempfile::Builder::new().prefix("ambit-lab-").tempdir();
        let directory = directory.map_err(Error::io("create the lab's directory"))?;
        // Process id and counter keep living labs apart, the directory's random suffix those
        // whose process is gone.
        let random: String = directory
            .path()
            .to_string_lossy()
            .chars()
            .rev()
            .take(4)
            .collect::<String>();
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let name = format!("lab-{}-{}-{number}-{random}", self.name, process::id());
        let cgroup = cgroup::root()?.join(&name);
        let watchdog = Watchdog::start(&name, &cgroup, directory.path())?;
        // From here on the watchdog removes it.
        let directory = directory.keep();
        let shared = Arc::new(Shared {
            manifests: Manifests::create(&directory)?,
            name,
            directory,
            cgroup,
            family: self.family,
            network: self.network,
            rp_filter: self.rp_filter,
            sequence: AtomicUsize::new(0),
            kept: AtomicBool::new(false),
        });
        let mut lab = Lab {
            shared,
            nodes: Vec::new(),
            wire: None,
            next_service: AtomicU8::new(1),
            watchdog: Some(watchdog),
        };
        lab.set_up(&self.nodes)?;
        Ok(lab)
    }
}

impl Lab {
    /// Starts to describe a lab; `name` is part of the names of all that belongs to it.
    #[must_use]
    pub fn builder(name: &str) -> Builder {
        Builder {
            name: name.into(),
            nodes: vec!["a".into(), "b".into()],
            network: PodNetwork::default(),
            family: Family::default(),
            rp_filter: 0,
        }
    }

    /// The name that no other lab has: the prefix of its network namespaces.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The lab's own directory. Tests may keep files there; it goes when the lab goes.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// The lab's own cgroup, above those of nodes and pods.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.shared.cgroup
    }

    /// A node of the lab.
    ///
    /// # Panics
    /// If the lab has none of that name.
    #[must_use]
    #[track_caller]
    pub fn node(&self, name: &str) -> &Node {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.unwrap_or_else(|| {
            let names: Vec<_> = self.nodes.iter().map(Node::name).collect();
            panic!("the lab has no node {name:?}; it has {}", names.join(", "))
        })
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The directory of manifests that every agent of the lab reads.
    #[must_use]
    pub fn manifests(&self) -> &Manifests {
        &self.shared.manifests
    }

    /// A Kubernetes namespace, whose manifest is written by what is called on it next.
    #[must_use]
    pub fn namespace(&self, name: &str) -> NamespaceManifest<'_> {
        NamespaceManifest::new(self.manifests(), name)
    }

    /// A service with virtual addresses of its own; [`Service::apply`] writes its manifest.
    #[must_use]
    pub fn service(&self, namespace: &str, name: &str) -> Service {
        let index = self.next_service.fetch_add(1, Ordering::Relaxed);
        Service::new(
            &self.shared,
            namespace,
            name,
            self.shared.family.service(index),
        )
    }

    /// Writes a manifest, or several divided by `---`, under a file name of its own.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn apply(&self, file: &str, text: &str) -> Result<()> {
        self.manifests().write(file, text)
    }

    /// Removes a manifest file.
    ///
    /// # Errors
    /// If there is none, or it can't be removed.
    pub fn remove(&self, file: &str) -> Result<()> {
        self.manifests().remove(file)
    }

    /// Starts to capture all packets between nodes.
    ///
    /// # Errors
    /// If tcpdump doesn't start.
    pub fn wire_capture(&self) -> Result<Capture> {
        match &self.wire {
            Some(wire) => wire.capture(BRIDGE, ""),
            None => self.nodes[0].capture(NODE_INTERFACE, ""),
        }
    }

    /// Takes the lab down, as a drop does, and says what went wrong with that.
    ///
    /// # Errors
    /// Names what couldn't be removed.
    pub fn tear_down(mut self) -> Result<()> {
        self.watchdog
            .take()
            .map_or(Ok(()), |mut watchdog| watchdog.tear_down())
    }

    /// Leaves the lab standing with its processes, and returns how to enter it and take it down.
    ///
    /// # Errors
    /// If the watchdog can't be told.
    pub fn keep(mut self) -> Result<String> {
        let Some(mut watchdog) = self.watchdog.take() else {
            return Ok(String::new());
        };
        let script = watchdog.dismiss()?.display();
        self.shared.kept.store(true, Ordering::Relaxed);
        let name = self.name();
        let mut text = format!("The lab {name} stays. To enter a node or pod:\n\n");
        let namespaces = fs::read_dir("/run/netns").map_err(Error::io("list /run/netns"))?;
        let mut namespaces: Vec<_> = namespaces
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|namespace| namespace.starts_with(&format!("{name}-")))
            .collect();
        namespaces.sort();
        for namespace in namespaces {
            text += &format!("    nsenter --net=/run/netns/{namespace} bash\n");
        }
        text += &format!(
            "\nInside, `echo $$ > {}/<node>/<pod>/cgroup.procs` joins a pod's cgroup.\n\
             Manifests: {}\nTo take the lab down: sh {script}\n",
            self.shared.cgroup.display(),
            self.manifests().directory().display(),
        );
        Ok(text)
    }

    fn set_up(&mut self, names: &[String]) -> Result<()> {
        let logs = self.shared.logs();
        fs::create_dir(&logs).map_err(Error::path("create", &logs))?;
        let direct = names.len() == 2;
        let mut commands: Vec<_> = names
            .iter()
            .map(|name| format!("netns add {}", self.shared.namespace(name)))
            .collect();
        if !direct {
            commands.push(format!("netns add {}", self.shared.namespace(WIRE)));
        }
        ip::outside(&commands)?;
        for (index, name) in (1..).zip(names) {
            self.nodes.push(Node::set_up(&self.shared, name, index)?);
        }
        if let ([first, second], true) = (self.nodes.as_slice(), direct) {
            ip::outside(&[format!(
                "link add {NODE_INTERFACE} netns {} type veth peer name {NODE_INTERFACE} netns {}",
                first.namespace(),
                second.namespace()
            )])?;
        } else {
            self.wire = Some(self.set_up_switch()?);
        }
        for node in &self.nodes {
            let others: Vec<_> = self
                .nodes
                .iter()
                .filter(|other| other.name() != node.name())
                .collect();
            node.connect(&others)?;
        }
        for node in &self.nodes {
            ip::await_links(node.namespace(), &[NODE_INTERFACE], "")?;
        }
        Ok(())
    }

    /// A bridge in a namespace of its own, with a port for each node.
    fn set_up_switch(&self) -> Result<Place> {
        let namespace = self.shared.namespace(WIRE);
        let cgroup = self.shared.cgroup.join(WIRE);
        cgroup::create(&cgroup)?;
        let mut pairs = Vec::new();
        let mut ports = vec![
            format!("link add {BRIDGE} type bridge mcast_snooping 0"),
            format!("link set {BRIDGE} up"),
        ];
        for (number, node) in self.nodes.iter().enumerate() {
            pairs.push(format!(
                "link add port{number} netns {namespace} type veth peer name {NODE_INTERFACE} \
                 netns {}",
                node.namespace()
            ));
            ports.push(format!("link set port{number} master {BRIDGE} up"));
        }
        ip::outside(&pairs)?;
        ip::inside(&namespace, &ports)?;
        let shared = Arc::clone(&self.shared);
        Ok(Place {
            shared,
            label: WIRE.into(),
            namespace,
            cgroup,
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let Some(mut watchdog) = self.watchdog.take() else {
            return;
        };
        if thread::panicking() {
            self.shared.show_logs();
        }
        match watchdog.tear_down() {
            Err(error) if thread::panicking() => eprintln!("the lab isn't taken down: {error}"),
            Err(error) => panic!("the lab isn't taken down: {error}"),
            Ok(()) => {}
        }
    }
}

impl Shared {
    /// The name of a network namespace of the lab.
    pub(crate) fn namespace(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    /// Shows the ends of what processes wrote to their standard error.
    fn show_logs(&self) {
        let Ok(entries) = fs::read_dir(self.logs()) else {
            return;
        };
        let mut paths: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        paths.sort();
        for path in paths
            .iter()
            .filter(|path| path.extension().is_some_and(|end| end == "err"))
        {
            let text = fs::read(path).unwrap_or_default();
            if !text.is_empty() {
                let end = &text[text.len().saturating_sub(SHOWN_LOG)..];
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                eprintln!("--- {name}\n{}", String::from_utf8_lossy(end));
            }
        }
    }
}

/// Names end up in those of namespaces, cgroups and files, and in shell scripts.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<()> {
    let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=40).contains(&name.len()) && name.chars().all(fit) {
        return Ok(());
    }
    Err(Error::BadName {
        what,
        name: name.into(),
    })
}
