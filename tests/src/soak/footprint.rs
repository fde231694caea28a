//! What a mesh has put on a node: to be compared with what is there later.

use std::{collections::BTreeMap, fs, time::Duration};

use crate::{Error, Lab, Node, Result, cgroup, mesh, sys, wait};

/// What shows the state of a node's network that a mesh may touch, `$BPF` being the node's BPF file system.
pub const NETWORK_STATE: [&str; 9] = [
    "ip -4 rule",
    "ip -6 rule",
    "ip -4 route show table all",
    "ip -6 route show table all",
    "nft -s list ruleset",
    "tc qdisc show",
    "for device in $(ls /sys/class/net); do tc filter show dev $device ingress; \
     tc filter show dev $device egress; done",
    "ip -o link | sed 's/state.*//'",
    "find $BPF -mindepth 1 | sort",
];

/// Maps of what is open: they are empty where nothing is.
const OPEN: [&str; 2] = ["PASSED", "SPLICE_SOCKETS"];
/// For what was open to be forgotten.
const SETTLED: Duration = Duration::from_secs(60);
/// For the kernel's own clearing up. A pod's processes are killed, and perhaps its interface is gone before
/// all connections have said their end: TCP then repeats it for some two minutes (`tcp_orphan_retries`), and
/// for as long there is the pod's network namespace, with its id.
const CLEARED: Duration = Duration::from_secs(180);

/// What each of [`NETWORK_STATE`] shows on a node; links of TCX are told by their pins.
///
/// # Errors
/// If a command fails.
pub fn network_state(node: &Node) -> Result<Vec<String>> {
    let shown = NETWORK_STATE.iter().map(|command| {
        // `ip netns exec` mounts the namespace's own /sys.
        let inside = format!("BPF={}; {command}", node.bpf_directory().display());
        let args = ["netns", "exec", node.namespace(), "sh", "-c", &inside];
        node.run("ip", args)?.success()
    });
    shown.collect()
}

/// What there is of a mesh on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    network: Vec<String>,
    /// Entries of each pinned map that are put there and removed again.
    maps: BTreeMap<String, usize>,
    /// Processes of the mesh, by role.
    processes: BTreeMap<String, usize>,
    /// Network namespaces that the node has an id for.
    namespaces: usize,
}

impl Footprint {
    /// Looks at a node. What is still open is part of it.
    ///
    /// # Errors
    /// If something can't be looked at.
    pub fn of(node: &Node) -> Result<Footprint> {
        let listed = node.run("ip", ["netns", "list-id"])?.success()?;
        Ok(Footprint {
            network: network_state(node)?,
            maps: maps(node)?,
            processes: processes(node)?,
            namespaces: listed.lines().count(),
        })
    }

    /// Looks at all nodes once nothing is open any more.
    ///
    /// # Errors
    /// If something stays open, or can't be looked at.
    pub fn settled(lab: &Lab) -> Result<Vec<Footprint>> {
        wait::poll("connections to be forgotten", SETTLED, || {
            let all = Self::of_all(lab)?;
            let open: Vec<_> = all
                .iter()
                .flat_map(|footprint| &footprint.maps)
                .filter(|(map, entries)| OPEN.contains(&map.as_str()) && **entries > 0)
                .collect();
            match open.is_empty() {
                true => Ok(all),
                false => Err(format!("{open:?}")),
            }
        })
    }

    /// Waits until all nodes are as they were.
    ///
    /// # Errors
    /// With what isn't.
    pub fn await_again(lab: &Lab, before: &[Footprint]) -> Result<()> {
        wait::poll("the nodes to be as they were", CLEARED, || {
            let after = Self::of_all(lab)?;
            let nodes = before.iter().zip(&after);
            let all: Vec<_> = nodes
                .flat_map(|(before, after)| before.differences(after))
                .collect();
            match all.is_empty() {
                true => Ok(()),
                false => Err(all.join("\n")),
            }
        })
    }

    fn of_all(lab: &Lab) -> Result<Vec<Footprint>, String> {
        let all: Result<_> = lab.nodes().iter().map(Footprint::of).collect();
        all.map_err(|error| error.to_string())
    }

    /// What `later` has that isn't the same, in words.
    fn differences(&self, later: &Footprint) -> Vec<String> {
        let network = NETWORK_STATE
            .iter()
            .zip(self.network.iter().zip(&later.network))
            .filter(|(_, (before, after))| before != after)
            .map(|(command, (before, after))| {
                let gone = without(before, after);
                format!("{command}: gone {gone:?}, new {:?}", without(after, before))
            });
        let mut all: Vec<String> = network.collect();
        let mut compare = |what: &str, before: String, after: String| {
            if before != after {
                all.push(format!("{what}: {before} became {after}"));
            }
        };
        for (map, before) in &self.maps {
            let after = later.maps.get(map);
            compare(
                &format!("entries of {map}"),
                before.to_string(),
                after.map_or_else(|| "none".into(), ToString::to_string),
            );
        }
        let processes = |footprint: &Footprint| format!("{:?}", footprint.processes);
        compare("processes", processes(self), processes(later));
        let namespaces = |footprint: &Footprint| footprint.namespaces.to_string();
        compare("ids of namespaces", namespaces(self), namespaces(later));
        all
    }
}

/// The lines of one text that another hasn't.
fn without<'a>(text: &'a str, other: &str) -> Vec<&'a str> {
    let others: Vec<_> = other.lines().collect();
    text.lines().filter(|line| !others.contains(line)).collect()
}

fn maps(node: &Node) -> Result<BTreeMap<String, usize>> {
    let directory = node.bpf_directory().join("ambit/maps");
    let listed = fs::read_dir(&directory).map_err(Error::path("list", &directory))?;
    let mut maps = BTreeMap::new();
    for entry in listed.flatten() {
        let path = entry.path();
        if let Some(entries) = sys::map::entries(&path).map_err(Error::path("count", &path))? {
            let name = entry.file_name().to_string_lossy().into_owned();
            maps.insert(name, entries);
        }
    }
    Ok(maps)
}

fn processes(node: &Node) -> Result<BTreeMap<String, usize>> {
    let mut found = BTreeMap::new();
    for pid in cgroup::processes(node.cgroup())? {
        if let Some(role) = mesh::role(pid) {
            *found.entry(role).or_default() += 1;
        }
    }
    Ok(found)
}
