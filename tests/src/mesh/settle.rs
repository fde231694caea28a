//! Changes that every agent has taken up before the test goes on.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{READY, RunningMesh};
use crate::{Place, Result, wait};

/// Numbers the services that mark what was applied.
static APPLIED: AtomicUsize = AtomicUsize::new(0);

impl RunningMesh<'_> {
    /// Writes a manifest file, and waits until every running agent serves what it says.
    ///
    /// An agent takes a file up as one update, so a service written beside the rest tells.
    ///
    /// # Errors
    /// If an agent doesn't take it up, as with a file that has a mistake.
    pub fn apply(&self, file: &str, text: &str) -> Result<()> {
        let number = APPLIED.fetch_add(1, Ordering::Relaxed);
        let marker = format!("default/applied-{number}");
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: applied-{number}}}\n\
             spec: {{clusterIP: None, ports: [{{port: 1}}]}}\n"
        );
        self.lab.apply(file, &format!("{text}\n---\n{service}"))?;
        for name in self.agents.keys() {
            let node = self.lab.node(name);
            wait::poll(&format!("{name} to take up {file}"), READY, || {
                let services = node.admin("/services").map_err(|error| error.to_string())?;
                let mut names = services.as_array().into_iter().flatten();
                match names.any(|service| service["name"] == *marker) {
                    true => Ok(()),
                    false => Err(format!("{services}")),
                }
            })?;
        }
        Ok(())
    }
}

impl Place {
    /// Calls an echo server once: `echoed`, or how the connection failed (`reset`, `timeout`, ...).
    ///
    /// # Errors
    /// If the client can't be run.
    pub fn call(&self, server: SocketAddr) -> Result<String> {
        let told = self.peer(["echo-client", "--connect", &server.to_string()])?;
        Ok(told["errors"][0].as_str().unwrap_or("echoed").into())
    }
}
