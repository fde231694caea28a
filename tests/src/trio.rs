//! The pods that most stories need.

use crate::{Lab, Pod, PodSpec, Result};

/// A client, and a server on its own node and on another; all of them enrolled.
#[derive(Debug)]
pub struct Trio {
    /// On node a.
    pub client: Pod,
    /// On node a.
    pub near: Pod,
    /// On node b.
    pub far: Pod,
}

impl Trio {
    /// Starts them in namespace `shop`.
    ///
    /// # Errors
    /// If they can't be made.
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::start_client(lab, PodSpec::in_namespace("shop"))
    }

    /// The same with another client.
    ///
    /// # Errors
    /// If they can't be made.
    pub fn start_client(lab: &Lab, client: PodSpec) -> Result<Self> {
        lab.namespace("shop").enrolled()?;
        let server = |node, name| lab.node(node).pod(name, PodSpec::in_namespace("shop"));
        Ok(Self {
            client: lab.node("a").pod("client", client)?,
            near: server("a", "near")?,
            far: server("b", "far")?,
        })
    }

    /// The near one and the far one.
    #[must_use]
    pub fn servers(&self) -> [&Pod; 2] {
        [&self.near, &self.far]
    }
}
