//! What a lab is to be, and its first steps.

use std::{
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
};

use super::{Lab, Shared, WIRE, check_name};
use crate::{Error, Family, Manifests, PodNetwork, Result, cgroup, sys, watchdog::Watchdog};

/// Tells the labs of one process apart.
static LABS: AtomicUsize = AtomicUsize::new(0);

/// What a lab is to be. Two nodes, `a` and `b`, with routed IPv4 pods if nothing else is said.
#[derive(Debug, Clone)]
pub struct Builder {
    name: String,
    nodes: Vec<String>,
    network: PodNetwork,
    family: Family,
    rp_filter: u8,
    programs: Option<PathBuf>,
}

impl Builder {
    pub(super) fn new(name: &str) -> Builder {
        Builder {
            name: name.into(),
            nodes: vec!["a".into(), "b".into()],
            network: PodNetwork::default(),
            family: Family::default(),
            rp_filter: 0,
            programs: None,
        }
    }

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

    /// The directory of the lab's own programs, such as `lab-load`. Default: beside the running
    /// program, or above the directory of test programs.
    #[must_use]
    pub fn programs(mut self, directory: &Path) -> Builder {
        self.programs = Some(directory.to_owned());
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
            programs: self.programs,
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
