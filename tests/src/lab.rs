//! The lab itself: what it is called, who is in it, and how it ends.

mod builder;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    thread,
};

pub use builder::Builder;

use crate::{
    Capture, Error, Family, Manifests, NamespaceManifest, Node, Place, PodNetwork, Result, Service,
    cgroup, ip,
    plan::{BRIDGE, NODE_INTERFACE},
    watchdog::Watchdog,
};

/// The namespace in which the wires of three nodes and more meet. No node can have the name.
const WIRE: &str = "wire";
/// How much of a failed test's logs is shown, in bytes a file.
const SHOWN_LOG: usize = 4096;

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
    /// Where the lab's own programs are, if not beside the running one.
    pub(crate) programs: Option<PathBuf>,
    pub(crate) manifests: Manifests,
    /// Numbers log files.
    pub(crate) sequence: AtomicUsize,
    /// The lab outlives this process, and so do its processes.
    pub(crate) kept: AtomicBool,
}

impl Lab {
    /// Starts to describe a lab; `name` is part of the names of all that belongs to it.
    #[must_use]
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
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

    /// Writes a Node manifest with its address for each node.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn announce_nodes(&self) -> Result<()> {
        for node in self.nodes() {
            let manifest = format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n\
                 status: {{addresses: [{{type: InternalIP, address: \"{address}\"}}]}}\n",
                name = node.name(),
                address = node.address()
            );
            self.apply(&format!("node-{}.yaml", node.name()), &manifest)?;
        }
        Ok(())
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
