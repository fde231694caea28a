//! Who is killed, and how it comes back.

use std::{fmt, time::Instant};

use crate::{Lab, Result, RunningMesh};

/// A process of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Victim {
    /// The agent of a node.
    Agent(&'static str),
    /// The certificate authority.
    Control,
    /// The waypoint that the agent of node b runs.
    Waypoint,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(node) => write!(f, "agent of {node}"),
            Self::Control => f.write_str("control"),
            Self::Waypoint => f.write_str("waypoint"),
        }
    }
}

impl Victim {
    /// All of them.
    pub const ALL: [Victim; 4] = [
        Victim::Agent("a"),
        Victim::Agent("b"),
        Victim::Control,
        Victim::Waypoint,
    ];

    /// Kills it by `kill -9` and has it started again at once: by us, or the waypoint by its agent. When that
    /// was, or none if it wasn't there to be killed.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn crash(self, lab: &Lab, mesh: &mut RunningMesh<'_>) -> Result<Option<Instant>> {
        let was_there = match self {
            Victim::Agent(node) => {
                let was_there = mesh.crash_agent(node)?;
                mesh.begin_agent(lab.node(node))?;
                was_there
            }
            Victim::Control => {
                let was_there = mesh.crash_control()?;
                mesh.begin_control()?;
                was_there
            }
            Victim::Waypoint => mesh.crash_waypoint("b")?,
        };
        Ok(was_there.then(Instant::now))
    }
}
